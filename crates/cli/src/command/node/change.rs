//! What operators make of nodes.

use clap::Args;
use sagitta_model::{ErrorKind, NodeChange, NodeStatus};
use serde_json::json;

use super::document;
use crate::command::cluster_failed;
use crate::command::confirm::confirm;
use crate::failure::Failure;
use crate::nodes::{NodeName, Nodes};
use crate::session::Session;

/// Have the replicas of a node moved to others.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta node drain 72310433 --dry-run      # what would be moved, and where to
  sagitta node drain 72310433
  sagitta operation list                     # how far it is
  sagitta node show 72310433                 # drained, once it holds nothing

A node is named by its id, the beginning of its id, or an address of it. A drained node takes part in
everything else until it is removed.")]
pub struct Drain {
    /// The node: its id, the beginning of its id, or an address of it
    #[arg(value_name = "NODE")]
    node: NodeName,

    /// Only tell what would be moved
    #[arg(long)]
    dry_run: bool,
}

/// Let a node take replicas again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta node undrain 72310433

The cluster moves replicas there by itself, until nodes hold alike.")]
pub struct Undrain {
    /// The node: its id, the beginning of its id, or an address of it
    #[arg(value_name = "NODE")]
    node: NodeName,

    /// Only tell whether it could
    #[arg(long)]
    dry_run: bool,
}

/// Remove a node from the cluster for ever.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta node drain 72310433                # first, unless the node is lost
  sagitta node remove 72310433 --dry-run
  sagitta node remove 72310433 --yes
  sagitta node remove 72310433 --lost-for-ever    # its disk is gone

It is refused while shards should have replicas there. The node's data folder is worth nothing then: a process
joins again with an empty one.

A node that is lost may come back, and its replicas are made anew elsewhere if it does not. With --lost-for-ever it is not
waited for, and what it held is lost, even should it come back: nobody hears it any more. A shard that has lost most of its
replicas so can go on with what is left: see sagitta shard unsafe-recover.")]
pub struct Remove {
    /// The node: its id, the beginning of its id, or an address of it
    #[arg(value_name = "NODE")]
    node: NodeName,

    /// Only tell whether it could
    #[arg(long)]
    dry_run: bool,

    /// The node is lost and never comes back, nor does what it held: remove it although shards should have replicas there
    #[arg(long)]
    lost_for_ever: bool,

    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Drain {
    pub(super) async fn run(&self, session: &Session, nodes: &Nodes) -> Result<(), Failure> {
        change(session, nodes, &self.node, NodeChange::Drain, self.dry_run).await
    }
}

impl Undrain {
    pub(super) async fn run(&self, session: &Session, nodes: &Nodes) -> Result<(), Failure> {
        change(session, nodes, &self.node, NodeChange::Undrain, self.dry_run).await
    }
}

impl Remove {
    pub(super) async fn run(&self, session: &Session, nodes: &Nodes) -> Result<(), Failure> {
        let node = nodes.find("NODE", &self.node)?;
        if !self.dry_run && !self.yes && node.status != NodeStatus::Removed {
            let what = if self.lost_for_ever { " with all that it held, which is lost then" } else { "" };
            confirm(&format!("Remove node {} for ever{what}?", nodes.told(node.id)))?;
        }
        let removal = if self.lost_for_ever { NodeChange::GiveUp } else { NodeChange::Remove };
        change(session, nodes, &self.node, removal, self.dry_run).await
    }
}

async fn change(
    session: &Session,
    nodes: &Nodes,
    name: &NodeName,
    change: NodeChange,
    dry_run: bool,
) -> Result<(), Failure> {
    let node = nodes.find("NODE", name)?;
    let id = node.id;
    let changed = session.client.change_node(id, change, dry_run).await.map_err(|error| {
        let conflict = error.kind == ErrorKind::Conflict;
        let failure = cluster_failed(session, error);
        match change {
            NodeChange::Remove if conflict && node.status == NodeStatus::Lost => failure.hint(format!(
                "sagitta operation list shows how its replicas are made anew; if its data is lost for ever, \
                 sagitta node remove {} --lost-for-ever",
                nodes.short(id)
            )),
            NodeChange::Remove if conflict => failure.hint(format!(
                "sagitta node drain {} moves its replicas away; sagitta operation list shows how far that is",
                nodes.short(id)
            )),
            _ => failure,
        }
    })?;
    let json = json!({ "dry_run": dry_run, "node": document(&changed.node), "follows": changed.follows });
    session.output.write(&json, |out, _| {
        let would = if dry_run { "would be" } else { "is" };
        writeln!(out, "node {} {would} {}", nodes.told(id), changed.node.status)?;
        changed.follows.iter().try_for_each(|line| writeln!(out, "{line}"))
    })
}
