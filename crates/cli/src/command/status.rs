//! `sagitta status`.

use clap::Args;
use sagitta_client::View;
use serde_json::json;

use super::collection;
use crate::failure::{Exit, Failure};
use crate::humane;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  sagitta status
  sagitta status --endpoint http://127.0.0.1:6380 --timeout 2s && echo up

The exit code is 0 if the cluster answers and every collection is ready, and 4 otherwise.";

/// Show whether the cluster answers and how its collections are.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {}

impl StatusArgs {
    /// Asks and prints.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        let begun = session.env.now();
        let infos = collection::all(session, View::Full).await?;
        let took = session.env.now().saturating_sub(begun);
        let figures: Vec<_> = infos.iter().map(|info| info.statistics.unwrap_or_default()).collect();
        let points: u64 = figures.iter().map(|figures| figures.points).sum();
        let indexed: u64 = figures.iter().map(|figures| figures.indexed_points).sum();
        let disk: u64 = figures.iter().map(|figures| figures.disk_bytes).sum();
        let waiting: Vec<_> = infos
            .iter()
            .zip(&figures)
            .filter(|(_, figures)| !figures.ready)
            .map(|(info, _)| info.name.to_string())
            .collect();
        let document = json!({
            "endpoint": session.endpoint(),
            "ready": waiting.is_empty(),
            "answered_in_ms": took.as_secs_f64() * 1e3,
            "collections": infos.len(),
            "points": points,
            "indexed_points": indexed,
            "disk_bytes": disk,
            "not_ready": waiting,
        });
        session.output.write(&document, |out, _| {
            writeln!(out, "{} answered in {}", session.endpoint(), humane::duration(took))?;
            let collections = humane::count(infos.len() as u64, "collection");
            let points = humane::count(points, "point");
            writeln!(
                out,
                "{collections}, {points} ({} indexed), {} on disk",
                humane::grouped(indexed),
                humane::bytes(disk)
            )
        })?;
        if waiting.is_empty() {
            return Ok(());
        }
        let failure = Failure::new(Exit::Unavailable, format!("not ready: {}", waiting.join(", ")));
        Err(failure.hint("a collection is ready when each of its shards takes reads and writes; try again in a moment"))
    }
}
