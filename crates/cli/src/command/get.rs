//! `sagitta get`.

use std::collections::HashSet;
use std::io;

use clap::Args;
use sagitta_client::Get;
use sagitta_model::{CollectionName, Consistency, PayloadSelection, PointId, Record, Selection, VectorSelection};
use serde_json::json;

use super::show::{PointDocument, payload_cell, vector_cell};
use crate::args;
use crate::data::JsonId;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::session::Session;
use crate::table::{Align, Table};

const EXAMPLES: &str = "\
Examples:
  sagitta get docs 7
  sagitta get docs 7 0195f7a2-6c1e-7b32-9d2a-3f6f8f5f2c11 --payload source
  sagitta get docs 7 --vectors --output json

Points that do not exist are named on standard error, and the exit code is 3.";

/// Show points by id.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct GetArgs {
    /// The collection
    collection: CollectionName,

    /// Ids of points: numbers or UUIDs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<PointId>,

    /// Payload fields to show: all, none, or paths separated by commas
    #[arg(long, value_name = "FIELDS", default_value = "all", value_parser = args::payload_selection)]
    payload: PayloadSelection,

    /// Show the vectors, too
    #[arg(long)]
    vectors: bool,
}

impl GetArgs {
    /// Reads and prints the points.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        let vectors = if self.vectors { VectorSelection::All } else { VectorSelection::None };
        let request = Get {
            collection: self.collection.clone(),
            ids: self.ids.clone(),
            selection: Selection { payload: self.payload.clone(), vectors },
            consistency: Consistency::Strong,
        };
        let answer = session.client.get(request).await;
        let records = session.told(&self.collection, answer).await?;
        let found: HashSet<_> = records.iter().map(|record| record.id).collect();
        let missing: Vec<_> = self.ids.iter().filter(|id| !found.contains(id)).copied().collect();
        let points: Vec<_> = records.iter().map(PointDocument::of_record).collect();
        let document = json!({
            "collection": self.collection.to_string(),
            "points": points,
            "missing": missing.iter().map(|id| JsonId(*id)).collect::<Vec<_>>(),
        });
        session.output.write(&document, |out, output| people(&records, out, output))?;
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = missing.iter().map(PointId::to_string).collect();
        Err(Failure::new(Exit::NotFound, format!("not in `{}`: {}", self.collection, names.join(", "))))
    }
}

fn people(records: &[Record], out: &mut dyn io::Write, output: &Output) -> io::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let mut names: Vec<_> = records.iter().flat_map(|record| record.vectors.keys()).collect();
    names.dedup();
    let several = names.len() > 1;
    let mut table = Table::new(&[("id", Align::Right), ("payload", Align::Left), ("vectors", Align::Left)]);
    for record in records {
        let vectors = record.vectors.iter().map(|(name, vector)| {
            if several { format!("{name}={}", vector_cell(vector)) } else { vector_cell(vector) }
        });
        let vectors = vectors.collect::<Vec<_>>().join("  ");
        let payload = record.payload.as_ref().map_or_else(String::new, payload_cell);
        table.row(vec![record.id.to_string(), payload, vectors]);
    }
    output.table(out, &table.without_empty_columns())
}
