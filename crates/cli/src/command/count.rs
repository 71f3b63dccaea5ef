//! `sagitta count`.

use clap::Args;
use sagitta_client::Count;
use sagitta_model::{CollectionName, Consistency};
use serde_json::json;

use crate::args::FilterArg;
use crate::failure::Failure;
use crate::filter::SYNTAX;
use crate::humane;
use crate::session::Session;

/// Count the points of a collection. Always exact.
#[derive(Args, Debug)]
#[command(after_help = after_help())]
pub struct CountArgs {
    /// The collection
    collection: CollectionName,

    #[command(flatten)]
    filter: FilterArg,
}

fn after_help() -> String {
    format!(
        "\
Examples:
  sagitta count docs
  sagitta count docs --filter 'source = \"rust-docs\" and words >= 50'

{SYNTAX}"
    )
}

impl CountArgs {
    /// Counts and prints the number.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        let request = Count {
            collection: self.collection.clone(),
            filter: self.filter.parse()?,
            consistency: Consistency::Strong,
        };
        let answer = session.client.count(request).await;
        let count = session.told(&self.collection, answer).await?;
        let document = json!({ "collection": self.collection.to_string(), "count": count });
        session.output.write(&document, |out, _| writeln!(out, "{}", humane::grouped(count)))
    }
}
