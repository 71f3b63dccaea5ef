//! `sagitta shard unsafe-recover`.

use clap::Args;
use sagitta_model::{CollectionName, ErrorKind};
use serde_json::json;

use super::of_collection;
use crate::command::cluster_failed;
use crate::command::confirm::confirm_with;
use crate::failure::Failure;
use crate::nodes::Nodes;
use crate::session::Session;

/// Go on with what is left of a shard that has lost its majority for ever.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta shard show 16                           # which replicas are heard of
  sagitta node remove 72310433 --lost-for-ever    # each whose data is lost
  sagitta shard unsafe-recover docs 16 --dry-run  # what goes on, what is lost
  sagitta shard unsafe-recover docs 16 --yes-lose-data
  sagitta shard show 16                           # led again, being repaired

Most replicas of a shard have to agree on a write, so that any of them can be lost. With most of them lost for ever it
takes no writes, and nobody can tell whether what is left has all that was acknowledged. This makes the latest of the
replicas that are left the only one; others are made from it. Writes that were acknowledged by the lost ones alone are
lost, and are not found out.

Never do this because nodes are down: start them, and nothing is lost. It is refused unless the nodes were given up with
their data by node remove --lost-for-ever: nobody hears them from then on, even should they come back.")]
pub struct UnsafeRecover {
    /// The collection that the shard is of
    collection: CollectionName,

    /// The shard's id, as sagitta shard list shows it
    shard: u64,

    /// Only tell what would go on, and what may be lost
    #[arg(long)]
    dry_run: bool,

    /// Do not ask: what only the lost nodes had is lost, whether it was acknowledged or not
    #[arg(long)]
    yes_lose_data: bool,
}

impl UnsafeRecover {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let nodes = Nodes::of(session).await?;
        let (shard, id) = (of_collection(session, &self.collection, self.shard).await?, self.shard);
        let failed = |error: sagitta_client::ClientError| {
            let is_conflict = error.kind == ErrorKind::Conflict;
            let failure = cluster_failed(session, error);
            match is_conflict {
                true => failure.hint(format!("sagitta shard show {id} tells which of its replicas are heard of")),
                false => failure,
            }
        };
        if !self.dry_run && !self.yes_lose_data {
            let would = session.client.recover_shard(id, shard.epoch, true).await.map_err(failed)?;
            let lines = would.notes.iter().map(|note| format!("- {note}\n")).collect::<String>();
            let question = format!("{lines}Go on with node {} alone, and lose the rest?", nodes.told(would.survivor));
            confirm_with(&question, "--yes-lose-data")?;
        }
        let recovered = session.client.recover_shard(id, shard.epoch, self.dry_run).await.map_err(failed)?;
        let (survivor, dry_run) = (recovered.survivor, self.dry_run);
        let document =
            json!({ "dry_run": dry_run, "shard": id, "survivor": survivor.to_string(), "notes": recovered.notes });
        session.output.write(&document, |out, _| {
            let goes_on = if dry_run { "would go on" } else { "goes on" };
            writeln!(out, "shard {id} {goes_on} with node {} alone", nodes.told(survivor))?;
            recovered.notes.iter().try_for_each(|note| writeln!(out, "{note}"))
        })
    }
}
