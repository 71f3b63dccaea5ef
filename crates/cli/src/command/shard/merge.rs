//! `sagitta shard merge`.

use clap::Args;
use sagitta_model::{CollectionName, Work};
use serde_json::json;

use super::of_collection;
use crate::command::{cluster_failed, operation};
use crate::failure::Failure;
use crate::session::Session;

/// Merge two neighbouring shards into a new one.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta shard list --collection docs    # which are small neighbours
  sagitta shard merge docs 16 17 --dry-run
  sagitta shard merge docs 16 17
  sagitta operation list                   # how far it is

The new shard has a number of its own and is placed as those of a new collection are. Both are copied while they work
on, so nodes need room for both once more; at the end reads and writes of both wait for a moment. When the new shard is
not complete within that, the merge is given up, and both are as before.")]
pub struct Merge {
    /// The collection that the shards are of
    collection: CollectionName,

    /// The id of the shard of the lower hashes, as sagitta shard list shows it
    left: u64,

    /// The id of the shard whose hashes follow
    right: u64,

    /// Only tell whether they could be merged
    #[arg(long)]
    dry_run: bool,
}

impl Merge {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let (left, right) = (self.left, self.right);
        // The epochs say which shards are meant.
        let lower = of_collection(session, &self.collection, left).await?.epoch;
        let upper = of_collection(session, &self.collection, right).await?.epoch;
        let merged = session.client.merge_shards((left, lower), (right, upper), self.dry_run).await;
        let merged = merged.map_err(|error| cluster_failed(session, error))?;
        let document = json!({
            "dry_run": self.dry_run,
            "operation": merged.operation.as_ref().map(operation::document),
            "notes": merged.notes,
        });
        session.output.write(&document, |out, _| {
            match merged.operation.as_ref().map(|begun| (begun.id, begun.work)) {
                Some((begun, Work::Merge { into, .. })) => {
                    writeln!(out, "operation {begun} merges shards {left} and {right} into {into}")?;
                }
                Some((begun, _)) => writeln!(out, "operation {begun} merges shards {left} and {right}")?,
                None => writeln!(out, "shards {left} and {right} would be merged")?,
            }
            merged.notes.iter().try_for_each(|note| writeln!(out, "{note}"))
        })
    }
}
