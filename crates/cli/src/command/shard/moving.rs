//! `sagitta shard move`.

use clap::Args;
use sagitta_model::CollectionName;
use serde_json::json;

use super::of_collection;
use crate::command::cluster_failed;
use crate::command::operation;
use crate::failure::Failure;
use crate::nodes::{NodeName, Nodes};
use crate::session::Session;

/// Move a replica of a shard to another node.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta shard show 16                    # which nodes have replicas
  sagitta shard move docs 16 --from 72310433 --to 10.0.0.9:6380 --dry-run
  sagitta shard move docs 16 --from 72310433 --to 10.0.0.9:6380
  sagitta operation list                   # how far it is

A node is named by its id, the beginning of its id, or an address of it. Reads
and writes go on meanwhile. The cluster leaves the replica there for a day, unless
that node is lost or drained; other replicas may make room for it.")]
pub struct Move {
    /// The collection that the shard is of
    collection: CollectionName,

    /// The shard's id, as sagitta shard list shows it
    shard: u64,

    /// The node that gives its replica up
    #[arg(long, value_name = "NODE")]
    from: NodeName,

    /// The node that gets it
    #[arg(long, value_name = "NODE")]
    to: NodeName,

    /// Only tell whether it could be moved
    #[arg(long)]
    dry_run: bool,
}

impl Move {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let nodes = Nodes::of(session).await?;
        let (shard, id) = (of_collection(session, &self.collection, self.shard).await?, self.shard);
        let (from, to) = (nodes.find("--from", &self.from)?.id, nodes.find("--to", &self.to)?.id);
        let with: Vec<_> = shard.replicas.iter().filter(|replica| replica.wanted).map(|replica| replica.node).collect();
        let wrong = match (with.contains(&from), with.contains(&to)) {
            (false, _) => Some(format!("--from: node {} has no replica of shard {id}", nodes.told(from))),
            (true, true) => Some(format!("--to: node {} has a replica of shard {id} already", nodes.told(to))),
            (true, false) => None,
        };
        if let Some(message) = wrong {
            let with: Vec<_> = with.iter().map(|node| nodes.told(*node)).collect();
            return Err(Failure::usage(message).hint(format!("its replicas are on {}", with.join(", "))));
        }
        let moved = session.client.move_replica(id, from, to, self.dry_run).await;
        let moved = moved.map_err(|error| cluster_failed(session, error))?;
        let document = json!({
            "dry_run": self.dry_run,
            "operation": moved.operation.as_ref().map(operation::document),
            "notes": moved.notes,
        });
        session.output.write(&document, |out, _| {
            let way = format!("from node {} to node {}", nodes.told(from), nodes.told(to));
            match &moved.operation {
                Some(begun) => writeln!(out, "operation {} moves shard {id} {way}", begun.id)?,
                None => writeln!(out, "shard {id} would be moved {way}")?,
            }
            moved.notes.iter().try_for_each(|note| writeln!(out, "{note}"))
        })
    }
}
