//! `sagitta export`.

use std::path::{Path, PathBuf};

use clap::Args;
use sagitta_client::{Scroll, View};
use sagitta_model::{
    CollectionInfo, CollectionName, Consistency, PayloadSelection, Record, Selection, VectorSelection,
};
use serde_json::json;

use crate::args::{self, FilterArg};
use crate::data::Row;
use crate::data::write::{self, Existing, IdWriter, JsonlWriter, RowWriter};
use crate::failure::{Exit, Failure};
use crate::filter::SYNTAX;
use crate::humane;
use crate::progress::Progress;
use crate::session::Session;

/// Points asked for at a time.
const PAGE: usize = 1_000;

/// Write the points of a collection to a file, ascending by id.
#[derive(Args, Debug)]
#[command(after_help = after_help())]
pub struct Export {
    /// The collection
    collection: CollectionName,

    /// The file; its name says the format: .jsonl, .jsonl.gz, .parquet, .npy or .fvecs
    file: PathBuf,

    #[command(flatten)]
    filter: FilterArg,

    /// Payload fields to write: all, none, or paths separated by commas
    #[arg(long, value_name = "FIELDS", default_value = "all", value_parser = args::payload_selection)]
    fields: PayloadSelection,

    /// Write this vector only; npy and fvecs hold one
    #[arg(long, value_name = "NAME")]
    vector_name: Option<String>,

    /// With npy and fvecs: write the ids to this .npy or .txt file
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,

    /// With npy and fvecs: write ids and payloads to this .jsonl or .jsonl.gz file
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,

    /// Replace files that exist
    #[arg(long)]
    force: bool,
}

fn after_help() -> String {
    format!(
        "\
Examples:
  sagitta export docs docs.jsonl.gz
  sagitta export docs rust.parquet --filter 'source = \"rust-docs\"'
  sagitta export docs base.npy --ids ids.npy --payload payload.jsonl.gz

What export writes, import reads: the three files of the last example go back with
  sagitta import docs base.npy --ids ids.npy --payload payload.jsonl.gz
A file appears under its name when it is complete. Points that are written or deleted meanwhile may or may not be \
in it. A file of no points is one that import takes; fvecs cannot hold none.

{SYNTAX}"
    )
}

impl Export {
    /// Reads page by page and writes.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        let filter = self.filter.parse()?;
        let info = session.collection(&self.collection, View::Full).await?;
        let vectors = self.vectors(&info)?;
        let mut writers = self.writers(&info)?;
        let total = match &filter {
            None => info.statistics.map_or(0, |figures| figures.points),
            Some(filter) => {
                let (collection, filter) = (self.collection.clone(), Some(filter.clone()));
                let request = sagitta_client::Count { collection, filter, consistency: Consistency::Strong };
                session.told(&self.collection, session.client.count(request).await).await?
            }
        };
        let scroll = Scroll {
            collection: self.collection.clone(),
            filter,
            selection: Selection { payload: self.fields.clone(), vectors },
            consistency: Consistency::Strong,
        };
        let mut pages = session.client.scroll(scroll, PAGE);
        let mut progress = Progress::begin(&session.env, 0, 0.0);
        let mut written = 0;
        while let Some(page) = pages.next_page().await {
            let records = page.map_err(|error| session.failed(error))?;
            let rows: Vec<Row> = records.into_iter().map(row).collect();
            for writer in &mut writers {
                writer.write(&rows)?;
            }
            written += rows.len() as u64;
            progress.advance(written, written as f64 / total.max(written) as f64);
        }
        for writer in writers {
            writer.finish()?;
        }
        progress.finish();
        self.report(session, &progress)
    }

    fn report(&self, session: &Session, progress: &Progress) -> Result<(), Failure> {
        let took = progress.elapsed();
        let document = json!({
            "collection": self.collection.to_string(),
            "file": self.file.display().to_string(),
            "rows": progress.rows(),
            "seconds": took.as_secs_f64(),
            "rows_per_second": progress.rate(),
        });
        session.output.write(&document, |out, _| {
            let (rows, rate) = (humane::count(progress.rows(), "row"), humane::number(progress.rate()));
            writeln!(out, "{rows} to {} in {} ({rate} rows/s)", self.file.display(), humane::duration(took))
        })
    }

    fn vectors(&self, info: &CollectionInfo) -> Result<VectorSelection, Failure> {
        let Some(name) = &self.vector_name else {
            let several = info.schema.vectors.len() > 1;
            if several && is_matrix(&self.file) {
                let names: Vec<_> = info.schema.vectors.keys().map(String::as_str).collect();
                let failure = Failure::usage(format!("{} holds one vector per point", self.file.display()));
                return Err(failure.hint(format!("choose one with --vector-name: {}", names.join(", "))));
            }
            return Ok(VectorSelection::All);
        };
        let (name, _) = info
            .schema
            .vector(name)
            .map_err(|violation| Failure::new(Exit::NotFound, format!("--vector-name: {}", violation.reason)))?;
        Ok(VectorSelection::Names(vec![name.to_owned()]))
    }

    fn writers(&self, info: &CollectionInfo) -> Result<Vec<Box<dyn RowWriter>>, Failure> {
        let existing = if self.force { Existing::Replace } else { Existing::Keep };
        self.distinct_files()?;
        if !is_matrix(&self.file) && (self.ids.is_some() || self.payload.is_some()) {
            let failure = Failure::usage(format!("{} holds ids and payload itself", self.file.display()));
            return Err(failure.hint("--ids and --payload go with .npy and .fvecs"));
        }
        let chosen = |name: &&String| self.vector_name.as_ref().is_none_or(|chosen| chosen == *name);
        let vectors = info.schema.vectors.iter().filter(|(name, _)| chosen(name));
        let dimensions = vectors.map(|(name, spec)| (name.clone(), spec.dim)).collect();
        let mut writers = vec![write::create(&self.file, existing, &dimensions)?];
        if let Some(path) = &self.ids {
            writers.push(Box::new(IdWriter::create(path, existing)?));
        }
        if let Some(path) = &self.payload {
            writers.push(Box::new(JsonlWriter::create_payloads(path, existing)?));
        }
        Ok(writers)
    }

    /// Two writers would write over each other.
    fn distinct_files(&self) -> Result<(), Failure> {
        let files = [
            Some(("FILE", &self.file)),
            self.ids.as_ref().map(|p| ("--ids", p)),
            self.payload.as_ref().map(|p| ("--payload", p)),
        ];
        let files: Vec<_> = files.into_iter().flatten().collect();
        let same = |one: &Path, other: &Path| std::path::absolute(one).ok() == std::path::absolute(other).ok();
        for (at, (name, path)) in files.iter().enumerate() {
            if let Some((first, _)) = files[..at].iter().find(|(_, other)| same(path, other)) {
                let failure = Failure::usage(format!("{name}: {} is {first} already", path.display()));
                return Err(failure.hint("give each of them a file of its own"));
            }
        }
        Ok(())
    }
}

fn is_matrix(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "npy" || ending == "fvecs")
}

fn row(record: Record) -> Row {
    Row { id: Some(record.id), vectors: record.vectors, payload: record.payload.unwrap_or_default() }
}
