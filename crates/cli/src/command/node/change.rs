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

It is refused while shards should have replicas there. The node's data folder is worth nothing then: a process
joins again with an empty one.")]
pub struct Remove {
    /// The node: its id, the beginning of its id, or an address of it
    #[arg(value_name = "NODE")]
    node: NodeName,

    /// Only tell whether it could
    #[arg(long)]
    dry_run: bool,

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
            confirm(&format!("Remove node {} for ever?", nodes.told(node.id)))?;
        }
        change(session, nodes, &self.node, NodeChange::Remove, self.dry_run).await
    }
}

async fn change(
    session: &Session,
    nodes: &Nodes,
    name: &NodeName,
    change: NodeChange,
    dry_run: bool,
) -> Result<(), Failure> {
    let id = nodes.find("NODE", name)?.id;
    let changed = session.client.change_node(id, change, dry_run).await.map_err(|error| {
        let conflict = error.kind == ErrorKind::Conflict;
        let failure = cluster_failed(session, error);
        match change {
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
