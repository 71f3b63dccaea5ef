//! `sagitta shard split`.

use clap::Args;
use sagitta_model::{CollectionName, Work};
use serde_json::json;

use super::of_collection;
use crate::command::{cluster_failed, operation};
use crate::failure::Failure;
use crate::session::Session;

/// Split a shard in two, in the middle of its hashes.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta shard list --collection docs     # which shards are large
  sagitta shard split docs 16 --dry-run
  sagitta shard split docs 16
  sagitta operation list                   # how far it is

The shard keeps the lower half of its hashes, a new shard on the same nodes has the upper one. Nothing is copied.
Reads and writes of the shard wait for the moment that it takes. sagitta shard merge puts shards together again.")]
pub struct Split {
    /// The collection that the shard is of
    collection: CollectionName,

    /// The shard's id, as sagitta shard list shows it
    shard: u64,

    /// Only tell whether it could be split
    #[arg(long)]
    dry_run: bool,
}

impl Split {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let (shard, id) = (of_collection(session, &self.collection, self.shard).await?, self.shard);
        // The epoch says which shard is meant: asked again, since the answer was lost, its half would be split, too.
        let split = session.client.split_shard(id, shard.epoch, self.dry_run).await;
        let split = split.map_err(|error| cluster_failed(session, error))?;
        let document = json!({
            "dry_run": self.dry_run,
            "operation": split.operation.as_ref().map(operation::document),
            "notes": split.notes,
        });
        session.output.write(&document, |out, _| {
            match split.operation.as_ref().map(|begun| (begun.id, begun.work)) {
                Some((begun, Work::Split { right, .. })) => {
                    writeln!(out, "operation {begun} splits shard {id} into {id} and {right}")?;
                }
                Some((begun, _)) => writeln!(out, "operation {begun} splits shard {id}")?,
                None => writeln!(out, "shard {id} would be split")?,
            }
            split.notes.iter().try_for_each(|note| writeln!(out, "{note}"))
        })
    }
}
