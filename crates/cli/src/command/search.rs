//! `sagitta search`.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use sagitta_client::{Get, ScoredPoint, ScoredResult, Search, SearchAnswer, Searches, View};
use sagitta_model::{
    CollectionName, Condition, Consistency, Explanation, FieldPath, Filter, GroupBy, PayloadSelection, PointId,
    SearchQuery, Selection, VectorSelection,
};
use serde_json::{Value as JsonValue, json};

use super::show::{PointDocument, payload_cell, value_cell, vector_cell};
use crate::args::{self, EffortArgs, FilterArg};
use crate::data::{self, Content, Json, ReadOptions};
use crate::failure::{Exit, Failure};
use crate::filter::SYNTAX;
use crate::humane;
use crate::output::Output;
use crate::session::Session;
use crate::table::{Align, Table};

/// Find the points nearest to a vector.
#[derive(Args, Debug)]
#[command(after_help = after_help())]
pub struct SearchArgs {
    /// The collection
    collection: CollectionName,

    #[command(flatten)]
    source: Source,

    /// Hits to find, at most 10,000; with --group-by, groups
    #[arg(long, short = 'k', visible_alias = "limit", value_name = "N", default_value = "10", value_parser = args::positive)]
    k: usize,

    #[command(flatten)]
    filter: FilterArg,

    /// Group the hits by a declared field
    #[arg(long, value_name = "FIELD")]
    group_by: Option<FieldPath>,

    /// Hits per group
    #[arg(long, value_name = "N", default_value = "3", value_parser = args::positive, requires = "group_by")]
    group_size: usize,

    /// Leave out hits with a worse score: below it under cosine and inner-product; above it under l2, whose scores are
    /// squared distances
    #[arg(long, value_name = "SCORE", value_parser = args::number, allow_negative_numbers = true)]
    threshold: Option<f32>,

    #[command(flatten)]
    effort: EffortArgs,

    /// The vector to compare, where the collection has several
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    vector_name: String,

    /// Payload fields to show: all, none, or paths separated by commas
    #[arg(long, value_name = "FIELDS", default_value = "all", value_parser = args::payload_selection)]
    payload: PayloadSelection,

    /// Show the hits' vectors, too
    #[arg(long)]
    vectors: bool,

    /// Show how the search was run and where the time went
    #[arg(long)]
    explain: bool,

    /// Answer from the shards that can be reached rather than not at all
    #[arg(long)]
    allow_partial: bool,
}

/// Where the vector comes from; exactly one of them.
#[derive(Args, Debug)]
#[group(id = "source", required = true, multiple = false)]
struct Source {
    /// The vector as a JSON list of numbers; - reads it from standard input
    #[arg(
        long,
        value_name = "JSON",
        allow_hyphen_values = true,
        group = "source",
        help_heading = "What to search for"
    )]
    vector: Option<String>,

    /// A row of a data file (npy, fvecs, fbin, hdf5, jsonl, parquet …); see --row
    #[arg(long, value_name = "FILE", group = "source", help_heading = "What to search for")]
    query: Option<PathBuf>,

    /// The vector of a stored point, which is left out of the hits
    #[arg(long, value_name = "ID", group = "source", help_heading = "What to search for")]
    like: Option<PointId>,

    #[command(flatten)]
    row: RowArgs,
}

/// Which row of a data file.
#[derive(Args, Debug)]
struct RowArgs {
    /// The row of the file, from 0
    #[arg(long, value_name = "N", default_value = "0", value_parser = args::whole)]
    #[arg(requires = "query", conflicts_with_all = ["vector", "like"], help_heading = "What to search for")]
    row: u64,

    /// The dataset of an HDF5 file
    #[arg(long, value_name = "NAME", default_value = "test")]
    #[arg(requires = "query", conflicts_with_all = ["vector", "like"], help_heading = "What to search for")]
    dataset: String,

    /// Key or column of the file that holds the vector
    #[arg(long, value_name = "COLUMN")]
    #[arg(requires = "query", conflicts_with_all = ["vector", "like"], help_heading = "What to search for")]
    vector_column: Option<String>,
}

fn after_help() -> String {
    format!(
        "\
Examples:
  sagitta search docs --query queries.npy --row 3
  sagitta search docs --like 42 --filter 'source = \"rust-docs\" and words >= 50'
  sagitta search docs --vector - --payload source -k 5 < vector.json
  sagitta search docs --query queries.npy --group-by source --group-size 2
  sagitta search docs --query queries.npy --recall 0.99 --explain
  sagitta search docs --query queries.npy --output json | jq '.hits[].id'

{SYNTAX}"
    )
}

impl SearchArgs {
    /// Searches and prints the hits.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        let filter = self.filter.parse()?;
        let vector = self.source.vector(session, &self.collection, &self.vector_name).await?;
        let filter = self.source.without_itself(filter);
        let group_by = self.group_by.clone().map(|field| GroupBy { field, size: self.group_size });
        let query = SearchQuery {
            vector_name: self.vector_name.clone(),
            vector,
            k: self.k,
            min_similarity: None,
            filter,
            effort: self.effort.effort(),
            group_by,
        };
        let vectors = if self.vectors { VectorSelection::All } else { VectorSelection::None };
        let search = Search {
            query,
            score_threshold: self.threshold,
            selection: Selection { payload: self.payload.clone(), vectors },
            explain: self.explain,
        };
        let searches = Searches { allow_partial: self.allow_partial, ..Searches::one(self.collection.clone(), search) };
        let begun = session.env.now();
        let answer = session.client.search(searches).await;
        let answer = session.told(&self.collection, answer).await?;
        let took = session.env.now().saturating_sub(begun);
        let result = answer.results.first().cloned().unwrap_or_default();
        let document = document(&self.collection, &answer, &result, took.as_secs_f64() * 1e3);
        session.output.write(&document, |out, output| {
            people(&result, out, output)?;
            for (shard, problem) in &answer.coverage.missing {
                writeln!(out, "not searched: shard {shard}: {}", problem.message)?;
            }
            match &result.explanation {
                Some(explanation) => explain(explanation, out, output),
                None => Ok(()),
            }
        })
    }
}

impl Source {
    async fn vector(&self, session: &Session, collection: &CollectionName, name: &str) -> Result<Vec<f32>, Failure> {
        match (&self.vector, &self.query, self.like) {
            (Some(text), ..) if text == "-" => {
                let mut text = String::new();
                let read = io::stdin().lock().read_to_string(&mut text);
                read.map_err(|error| Failure::usage(format!("--vector: cannot read standard input: {error}")))?;
                literal(&text)
            }
            (Some(text), ..) => literal(text),
            (_, Some(path), _) => self.row.read(path, name),
            (.., Some(id)) => stored(session, collection, id, name).await,
            _ => Err(Failure::usage("give a vector with --vector, --query or --like")),
        }
    }

    /// Leaves the point that was given as an example out of its own neighbours.
    fn without_itself(&self, filter: Option<Arc<Filter>>) -> Option<Arc<Filter>> {
        let Some(id) = self.like else { return filter };
        let mut filter = filter.map_or_else(Filter::default, |filter| (*filter).clone());
        filter.must_not.push(Condition::has_id(vec![id]));
        Some(Arc::new(filter))
    }
}

impl RowArgs {
    fn read(&self, path: &std::path::Path, vector_name: &str) -> Result<Vec<f32>, Failure> {
        let columns = self.vector_column.iter().map(|column| (vector_name.to_owned(), column.clone()));
        let options = ReadOptions {
            dataset: self.dataset.clone(),
            vector_name: vector_name.to_owned(),
            vector_columns: columns.collect(),
            id_column: None,
            content: Content::Points,
            ..ReadOptions::default()
        };
        let mut reader = data::open(path, &options)?;
        reader.seek(self.row)?;
        let Some(row) = reader.read(1)?.pop() else {
            let rows = humane::count(reader.count()?, "row");
            let failure = Failure::usage(format!("--row {}: {} has {rows}", self.row, path.display()));
            return Err(failure.hint("rows count from 0"));
        };
        pick(row, path, vector_name)
    }
}

fn pick(mut row: data::Row, path: &std::path::Path, name: &str) -> Result<Vec<f32>, Failure> {
    if let Some(vector) = row.vectors.remove(name) {
        return Ok(vector);
    }
    let names: Vec<_> = row.vectors.keys().cloned().collect();
    match (row.vectors.pop_first(), &names[..]) {
        (Some((_, vector)), [_]) => Ok(vector),
        _ => {
            let failure = Failure::usage(format!("{} has several vectors per row", path.display()));
            Err(failure.hint(format!("choose one with --vector-name: {}", names.join(", "))))
        }
    }
}

/// Parses a JSON list of numbers.
fn literal(text: &str) -> Result<Vec<f32>, Failure> {
    let wrong = |message: String| {
        Failure::usage(format!("--vector: {message}"))
            .hint("a vector is a JSON list of numbers, such as '[0.1, -0.2, 0.3]'")
    };
    if text.trim().is_empty() {
        return Err(wrong("expected a list of numbers, found nothing".to_owned()));
    }
    let value = data::parse_value(text.trim()).map_err(wrong)?;
    let sagitta_model::Value::Array(items) = value else {
        return Err(wrong(format!("expected a list of numbers, found {}", value.type_name())));
    };
    let number = |(at, item): (usize, &sagitta_model::Value)| match item {
        sagitta_model::Value::Int(n) => Ok(*n as f32),
        sagitta_model::Value::Float(x) if (*x as f32).is_finite() => Ok(*x as f32),
        other => Err(wrong(format!("[{at}]: expected a number, found {}", value_cell(other)))),
    };
    items.iter().enumerate().map(number).collect()
}

/// The vector of a stored point.
async fn stored(session: &Session, collection: &CollectionName, id: PointId, name: &str) -> Result<Vec<f32>, Failure> {
    let info = session.collection(collection, View::Basic).await?;
    let (name, _) =
        info.schema.vector(name).map_err(|violation| Failure::usage(format!("--vector-name: {}", violation.reason)))?;
    let request = Get {
        collection: collection.clone(),
        ids: vec![id],
        selection: Selection {
            payload: PayloadSelection::None,
            vectors: VectorSelection::Names(vec![name.to_owned()]),
        },
        consistency: Consistency::Strong,
    };
    let records = session.told(collection, session.client.get(request).await).await?;
    let vector = records.into_iter().next().and_then(|mut record| record.vectors.remove(name));
    vector.ok_or_else(|| Failure::new(Exit::NotFound, format!("--like: there is no point {id} in `{collection}`")))
}

fn document(collection: &CollectionName, answer: &SearchAnswer, result: &ScoredResult, took_ms: f64) -> JsonValue {
    let hits = |hits: &[ScoredPoint]| json!(hits.iter().map(PointDocument::of_hit).collect::<Vec<_>>());
    let groups = result.groups.iter().map(|group| json!({ "key": Json(&group.key), "hits": hits(&group.hits) }));
    let missing = answer.coverage.missing.iter();
    let missing = missing.map(|(shard, problem)| json!({ "shard": shard, "problem": problem.message }));
    json!({
        "collection": collection.to_string(),
        "took_ms": took_ms,
        "hits": hits(&result.hits),
        "groups": groups.collect::<Vec<_>>(),
        "coverage": { "shards": answer.coverage.shards, "missing": missing.collect::<Vec<_>>() },
        "explanation": result.explanation.as_deref().map(explanation_document),
    })
}

fn people(result: &ScoredResult, out: &mut dyn io::Write, output: &Output) -> io::Result<()> {
    if result.hits.is_empty() && result.groups.is_empty() {
        return writeln!(out, "no hits");
    }
    let columns = [
        ("group", Align::Left),
        ("id", Align::Right),
        ("score", Align::Right),
        ("payload", Align::Left),
        ("vectors", Align::Left),
    ];
    let mut table = Table::new(&columns);
    let mut add = |group: &str, hits: &[ScoredPoint]| {
        for (at, hit) in hits.iter().enumerate() {
            let record = hit.record.as_deref();
            let payload = record.and_then(|record| record.payload.as_ref()).map_or_else(String::new, payload_cell);
            let vectors =
                record.map(|record| record.vectors.values().map(|vector| vector_cell(vector)).collect::<Vec<_>>());
            let group = if at == 0 { group.to_owned() } else { String::new() };
            let vectors = vectors.unwrap_or_default().join("  ");
            table.row(vec![group, hit.id.to_string(), score(hit.score), payload, vectors]);
        }
    };
    add("", &result.hits);
    for group in &result.groups {
        add(&value_cell(&group.key), &group.hits);
    }
    output.table(out, &table.without_empty_columns())
}

/// A score with as many digits as tell hits apart.
fn score(score: f32) -> String {
    if score.abs() >= 1000.0 { format!("{score:.1}") } else { format!("{score:.4}") }
}

fn explain(explanation: &Explanation, out: &mut dyn io::Write, output: &Output) -> io::Result<()> {
    let micros = |us: u64| humane::duration(std::time::Duration::from_micros(us));
    let stages = [
        ("queue", explanation.queue_us),
        ("plan", explanation.plan_us),
        ("search", explanation.search_us),
        ("rerank", explanation.rerank_us),
        ("merge", explanation.merge_us),
        ("hydrate", explanation.hydrate_us),
    ];
    let stages: Vec<_> = stages.iter().map(|(name, us)| format!("{name} {}", micros(*us))).collect();
    writeln!(out, "\nserver: {} ({})", micros(explanation.total_us), stages.join(", "))?;
    let columns = [
        ("shard", Align::Right),
        ("segment", Align::Right),
        ("index", Align::Left),
        ("plan", Align::Left),
        ("rows", Align::Right),
        ("passing", Align::Right),
        ("breadth", Align::Right),
        ("compared", Align::Right),
        ("reranked", Align::Right),
        ("time", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for segment in &explanation.segments {
        table.row(vec![
            segment.shard.to_string(),
            segment.segment.to_string(),
            words(&segment.index),
            words(&segment.plan),
            humane::grouped(segment.rows),
            format!("{:.1} %", 100.0 * segment.selectivity),
            humane::grouped(segment.breadth),
            humane::grouped(segment.compared),
            humane::grouped(segment.reranked),
            micros(segment.duration_us),
        ]);
    }
    output.table(out, &table)
}

/// The name of a variant in words: `IndexThenCheck` is `index then check`.
fn words(variant: &impl std::fmt::Debug) -> String {
    let mut text = String::new();
    for c in format!("{variant:?}").chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(c.to_lowercase());
    }
    text
}

fn explanation_document(explanation: &Explanation) -> JsonValue {
    let segment = |segment: &sagitta_model::SegmentPlan| {
        json!({
            "shard": segment.shard,
            "segment": segment.segment,
            "index": words(&segment.index),
            "plan": words(&segment.plan),
            "rows": segment.rows,
            "selectivity": segment.selectivity,
            "breadth": segment.breadth,
            "compared": segment.compared,
            "reranked": segment.reranked,
            "duration_us": segment.duration_us,
        })
    };
    json!({
        "total_us": explanation.total_us,
        "queue_us": explanation.queue_us,
        "plan_us": explanation.plan_us,
        "search_us": explanation.search_us,
        "rerank_us": explanation.rerank_us,
        "merge_us": explanation.merge_us,
        "hydrate_us": explanation.hydrate_us,
        "segments": explanation.segments.iter().map(segment).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_lists_of_numbers() {
        assert_eq!(literal(" [1, -0.5, 1e-3]\n"), Ok(vec![1.0, -0.5, 0.001]));
        for (text, expected) in [
            (" ", "--vector: expected a list of numbers, found nothing"),
            ("0.5", "--vector: expected a list of numbers, found float"),
            ("[1, \"x\"]", "--vector: [1]: expected a number, found x"),
            ("[1, 1e39]", "--vector: [1]: expected a number, found 1e+39"),
            ("[1, NaN]", "--vector: [1]: expected valid JSON"),
        ] {
            let failure = literal(text).expect_err(text);
            assert!(failure.message.starts_with(expected), "{}", failure.message);
        }
    }

    #[test]
    fn a_point_is_left_out_of_its_own_neighbours() {
        let source = Source {
            vector: None,
            query: None,
            like: Some(PointId::Num(7)),
            row: RowArgs { row: 0, dataset: "test".into(), vector_column: None },
        };
        let filter = source.without_itself(Some(Arc::new(crate::filter::parse("a = 1").expect("parses"))));
        assert_eq!(crate::filter::print(&filter.expect("a filter")), "a = 1 and not id in [7]");
    }

    #[test]
    fn names_of_variants_become_words() {
        assert_eq!(words(&sagitta_model::Plan::IndexThenCheck), "index then check");
        assert_eq!([score(0.123456), score(12345.678)], ["0.1235", "12345.7"]);
    }
}
