//! `sagitta delete`.

use clap::{ArgGroup, Args};
use sagitta_client::Count;
use sagitta_model::{CollectionName, Consistency, PointId, limits};
use serde_json::json;

use super::confirm::confirm;
use crate::args::FilterArg;
use crate::failure::{Exit, Failure};
use crate::filter::{SYNTAX, print};
use crate::humane;
use crate::session::Session;

/// The order that is made up otherwise has ids before the collection.
const USAGE: &str = "\
sagitta delete [OPTIONS] <COLLECTION> <ID>...
       sagitta delete [OPTIONS] <COLLECTION> --filter <FILTER>";

/// Delete points by id or by filter. Asks before it does, unless --yes is given.
#[derive(Args, Debug)]
#[command(after_help = after_help(), override_usage = USAGE)]
#[command(group = ArgGroup::new("points").args(["ids", "filter"]).required(true))]
pub struct Delete {
    /// The collection
    collection: CollectionName,

    /// Ids of points: numbers or UUIDs; instead of --filter
    #[arg(value_name = "ID")]
    ids: Vec<PointId>,

    #[command(flatten)]
    filter: FilterArg,

    /// Delete without asking first
    #[arg(long, short)]
    yes: bool,
}

fn after_help() -> String {
    format!(
        "\
Examples:
  sagitta delete docs 7 9
  sagitta delete docs --filter 'year < 2020 or words < 40'
  sagitta delete docs --filter '{{}}' --yes    # every point

{SYNTAX}"
    )
}

impl Delete {
    /// Asks and deletes.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        let deleted = match self.filter.parse()? {
            Some(filter) => {
                if !self.yes {
                    let request = Count {
                        collection: self.collection.clone(),
                        filter: Some(filter.clone()),
                        consistency: Consistency::Strong,
                    };
                    let answer = session.client.count(request).await;
                    let count = humane::count(session.told(&self.collection, answer).await?, "point");
                    let which = if filter.is_empty() { "all of them".to_owned() } else { print(&filter) };
                    confirm(&format!("Delete {count} of `{}` ({which})?", self.collection))?;
                }
                let answer = session.client.delete_by_filter(self.collection.clone(), (*filter).clone()).await;
                session.told(&self.collection, answer).await?.applied
            }
            None => self.delete_ids(session).await?,
        };
        let document = json!({ "collection": self.collection.to_string(), "deleted": deleted });
        session.output.write(&document, |out, _| writeln!(out, "deleted {}", humane::count(deleted, "point")))
    }

    async fn delete_ids(&self, session: &Session) -> Result<u64, Failure> {
        if !self.yes {
            let count = humane::count(self.ids.len() as u64, "point");
            confirm(&format!("Delete {count} of `{}`?", self.collection))?;
        }
        let mut deleted = 0;
        for ids in self.ids.chunks(limits::MAX_BATCH_POINTS) {
            let answer = session.client.delete(self.collection.clone(), ids.to_vec()).await;
            let result = session.told(&self.collection, answer).await?;
            deleted += result.applied;
            if let Some(failure) = result.failures.first() {
                let message = format!("point {} was not deleted: {}", failure.id, failure.problem.message);
                return Err(Failure::new(Exit::from(failure.problem.kind), message).hint("try again"));
            }
        }
        Ok(deleted)
    }
}
