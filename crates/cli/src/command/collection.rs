//! `sagitta collection`.

use std::collections::BTreeMap;
use std::io;

use clap::{ArgGroup, Args, Subcommand};
use sagitta_client::{CreateCollection, View};
use sagitta_model::{
    CollectionInfo, CollectionName, ErrorKind, FieldPath, FieldType, IndexPolicy, Metric, Schema, VectorSpec,
    Violation, datetime,
};
use serde_json::{Value as JsonValue, json};

use super::confirm::confirm;
use crate::args;
use crate::failure::{Exit, Failure};
use crate::humane;
use crate::output::Output;
use crate::session::Session;
use crate::table::{Align, Table};

/// What the vector of a collection with a single one is called unless it is named.
pub(crate) const DEFAULT_VECTOR: &str = "default";

/// Create, list, describe and delete collections.
#[derive(Debug, Subcommand)]
pub enum Collection {
    /// Create a collection
    Create(Box<Create>),
    /// List the collections
    List(List),
    /// Show the vectors, the declared fields and the figures of a collection
    Describe(Describe),
    /// Delete a collection with all its points
    Delete(DeleteCollection),
}

impl Collection {
    /// Does what the arguments say.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(session).await,
            Self::List(list) => list.run(session).await,
            Self::Describe(describe) => describe.run(session).await,
            Self::Delete(delete) => delete.run(session).await,
        }
    }
}

const CREATE_EXAMPLES: &str = "\
Examples:
  sagitta collection create docs --dim 384
  sagitta collection create photos --dim 128 --metric l2 --index graph
  sagitta collection create papers --dim 384 --field source=keyword \\
    --field words=integer --field author.born=datetime
  sagitta collection create logs --dim 384 --shards 12 --replication 1
  sagitta collection create books --vector title=384 --vector cover=512:l2:flat

Only declared fields can be filtered and grouped by; all others are stored and returned.
`sagitta import NAME FILE --create` reads the dimension and the fields from a file.";

const CREATE_USAGE: &str = "\
sagitta collection create [OPTIONS] <NAME> --dim <N>
       sagitta collection create [OPTIONS] <NAME> --vector <NAME=DIM[:METRIC[:INDEX]]>...";

/// Create a collection. Its vectors and declared fields cannot be changed later.
#[derive(Args, Debug)]
#[command(after_help = CREATE_EXAMPLES, override_usage = CREATE_USAGE)]
#[command(group = ArgGroup::new("vectors").args(["dim", "vector"]).required(true))]
pub struct Create {
    /// Its name: up to 128 of a-z, 0-9, - and _, beginning with a letter or digit
    name: CollectionName,

    /// Number of dimensions of its only vector, at most 16,384
    #[arg(long, value_name = "N", value_parser = args::positive)]
    dim: Option<usize>,

    #[command(flatten)]
    shape: ShapeArgs,

    /// A named vector, instead of --dim; repeat it for several
    #[arg(long, value_name = "NAME=DIM[:METRIC[:INDEX]]", value_parser = vector)]
    vector: Vec<(String, PartialSpec)>,

    /// Into how many shards its points are partitioned, at most 1,024 [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    shards: Option<u32>,

    /// How many nodes hold a copy of each shard, at most 7 [default: 3, or as many as there are nodes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=7))]
    replication: Option<u32>,

    /// Succeed if the collection exists already and is of the same shape
    #[arg(long)]
    if_not_exists: bool,
}

/// How vectors are compared and indexed, and which fields are declared.
#[derive(Args, Clone, Debug, Default)]
pub struct ShapeArgs {
    /// How vectors are compared: cosine, inner-product or l2 (squared Euclidean distance) [default: cosine]
    #[arg(long, value_name = "METRIC")]
    pub(crate) metric: Option<Metric>,

    /// How vectors are indexed: auto (flat while there are few, then a graph), flat (every vector is compared), graph
    /// (the fastest searches) or compact (the least memory) [default: auto]
    #[arg(long, value_name = "INDEX")]
    pub(crate) index: Option<IndexPolicy>,

    /// A payload field to filter and group by, of type keyword, integer, float, bool or datetime; repeat it for several
    #[arg(long = "field", value_name = "PATH=TYPE", value_parser = field)]
    pub(crate) fields: Vec<(FieldPath, FieldType)>,
}

impl ShapeArgs {
    /// A vector of this shape.
    pub(crate) fn spec(&self, dim: usize) -> VectorSpec {
        let metric = self.metric.unwrap_or(Metric::Cosine);
        VectorSpec { dim, metric, index: self.index.unwrap_or_default() }
    }

    /// The declared fields; one that is declared twice is refused.
    pub(crate) fn declared(&self) -> Result<BTreeMap<FieldPath, FieldType>, Failure> {
        let mut declared = BTreeMap::new();
        for (path, field_type) in &self.fields {
            if declared.insert(path.clone(), *field_type).is_some_and(|before| before != *field_type) {
                return Err(Failure::usage(format!("--field: `{path}` is declared with two types")));
            }
        }
        Ok(declared)
    }
}

/// A vector as given to `--vector`; what is absent comes from `--metric` and `--index`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PartialSpec {
    dim: usize,
    metric: Option<Metric>,
    index: Option<IndexPolicy>,
}

fn vector(text: &str) -> Result<(String, PartialSpec), String> {
    let (name, spec) = args::pair(text).map_err(|_| "expected NAME=DIM, such as title=384 or title=384:l2:graph")?;
    let mut parts = spec.split(':');
    let dim =
        parts.next().map_or(Err(String::new()), args::positive).map_err(|_| "expected a dimension of at least 1")?;
    let metric = parts.next().map(str::parse::<Metric>).transpose().map_err(|v| v.reason)?;
    let index = parts.next().map(str::parse::<IndexPolicy>).transpose().map_err(|v| v.reason)?;
    match parts.next() {
        None => Ok((name, PartialSpec { dim, metric, index })),
        Some(_) => Err("expected NAME=DIM[:METRIC[:INDEX]]".to_owned()),
    }
}

fn field(text: &str) -> Result<(FieldPath, FieldType), String> {
    let (path, field_type) = args::pair(text).map_err(|_| "expected PATH=TYPE, such as words=integer")?;
    let path = path.parse::<FieldPath>().map_err(|v| v.reason)?;
    let field_type = field_type.parse::<FieldType>().map_err(|v| v.reason)?;
    Ok((path, field_type))
}

impl Create {
    async fn run(&self, session: &Session) -> Result<(), Failure> {
        let schema = self.schema()?;
        let (shards, replication) = (self.shards, self.replication);
        let new = CreateCollection { shards, replication, ..CreateCollection::new(self.name.clone(), schema.clone()) };
        let info = match session.client.create(new).await {
            Err(error) if Exit::from(error.kind) == Exit::Conflict => {
                let existing = session.collection(&self.name, View::Basic).await?;
                let same = existing.schema == schema;
                if !self.if_not_exists || !same {
                    return Err(exists(&self.name, same));
                }
                existing
            }
            other => other.map_err(|error| session.failed(error))?,
        };
        session.output.write(&document(&info), |out, _| writeln!(out, "created {}", one_line(&info)))
    }

    fn schema(&self) -> Result<Schema, Failure> {
        let mut schema = Schema { fields: self.shape.declared()?, ..Schema::default() };
        if let Some(dim) = self.dim {
            schema.vectors.insert(DEFAULT_VECTOR.to_owned(), self.shape.spec(dim));
        }
        for (name, partial) in &self.vector {
            let general = self.shape.spec(partial.dim);
            let metric = partial.metric.unwrap_or(general.metric);
            let index = partial.index.unwrap_or(general.index);
            if schema.vectors.insert(name.clone(), VectorSpec { metric, index, ..general }).is_some() {
                return Err(Failure::usage(format!("--vector: `{name}` is given twice")));
            }
        }
        schema.validate().map_err(|violation| self.refused(&violation))?;
        Ok(schema)
    }

    /// What is wrong with the schema, by the argument that said so.
    fn refused(&self, violation: &Violation) -> Failure {
        let vector = violation.field.strip_prefix("vectors[\"").and_then(|rest| rest.split_once("\"]"));
        let argument = match vector {
            Some(_) if self.dim.is_some() => "--dim".to_owned(),
            Some((name, _)) => format!("--vector {name}"),
            None if violation.field.starts_with("fields") => "--field".to_owned(),
            None => violation.field.clone(),
        };
        Failure::usage(format!("{argument}: {}", violation.reason))
    }
}

fn exists(name: &CollectionName, same: bool) -> Failure {
    let failure = Failure::new(Exit::Conflict, format!("there is a collection `{name}` already"));
    let shape = if same { "of the same shape: --if-not-exists accepts it" } else { "of another shape" };
    failure.hint(format!("it is {shape}; see sagitta collection describe {name}"))
}

/// A collection in a sentence: its name and its vectors.
pub(crate) fn one_line(info: &CollectionInfo) -> String {
    format!("{}: {}", info.name, vectors_cell(&info.schema))
}

fn vectors_cell(schema: &Schema) -> String {
    let one = |(name, spec): (&String, &VectorSpec)| {
        let name = if name == DEFAULT_VECTOR { String::new() } else { format!("{name} ") };
        format!("{name}{} {}", spec.dim, spec.metric)
    };
    schema.vectors.iter().map(one).collect::<Vec<_>>().join(", ")
}

const LIST_EXAMPLES: &str = "\
Examples:
  sagitta collection list
  sagitta collection list --output json | jq '.collections[].name'";

/// List the collections.
#[derive(Args, Debug)]
#[command(after_help = LIST_EXAMPLES)]
pub struct List {}

impl List {
    async fn run(&self, session: &Session) -> Result<(), Failure> {
        let infos = all(session, View::Full).await?;
        let document = json!({ "collections": infos.iter().map(document).collect::<Vec<_>>() });
        session.output.write(&document, |out, output| list(&infos, out, output))
    }
}

/// All collections by name.
pub(crate) async fn all(session: &Session, view: View) -> Result<Vec<CollectionInfo>, Failure> {
    const PAGE: usize = 100;
    let mut infos = Vec::new();
    let mut token = String::new();
    loop {
        let page = session.client.list_collections(view, PAGE, token).await.map_err(|error| session.failed(error))?;
        infos.extend(page.collections);
        token = page.next_page_token;
        if token.is_empty() {
            return Ok(infos);
        }
    }
}

fn list(infos: &[CollectionInfo], out: &mut dyn io::Write, output: &Output) -> io::Result<()> {
    if infos.is_empty() {
        return writeln!(out, "no collections yet; create one with: sagitta collection create NAME --dim N");
    }
    let columns = [
        ("name", Align::Left),
        ("points", Align::Right),
        ("indexed", Align::Right),
        ("disk", Align::Right),
        ("vectors", Align::Left),
        ("created", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for info in infos {
        let figures = info.statistics.unwrap_or_default();
        let indexed = match figures.points {
            0 => "-".to_owned(),
            points => format!("{:.0} %", 100.0 * figures.indexed_points as f64 / points as f64),
        };
        table.row(vec![
            info.name.to_string(),
            humane::grouped(figures.points),
            indexed,
            humane::bytes(figures.disk_bytes),
            vectors_cell(&info.schema),
            created(info, 16),
        ]);
    }
    output.table(out, &table)
}

/// When a collection was created, in as many characters as wanted.
fn created(info: &CollectionInfo, length: usize) -> String {
    let micros = i64::try_from(info.created_unix_micros).unwrap_or(i64::MAX);
    let text = datetime::format_micros(micros).unwrap_or_default();
    text.replace('T', " ").chars().take(length).collect()
}

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  sagitta collection describe docs
  sagitta collection describe docs --output json | jq .statistics.points";

/// Show the vectors, the declared fields and the figures of a collection.
#[derive(Args, Debug)]
#[command(after_help = DESCRIBE_EXAMPLES)]
pub struct Describe {
    /// The collection
    name: CollectionName,
}

impl Describe {
    async fn run(&self, session: &Session) -> Result<(), Failure> {
        let info = session.collection(&self.name, View::Full).await?;
        session.output.write(&document(&info), |out, output| describe(&info, out, output))
    }
}

fn describe(info: &CollectionInfo, out: &mut dyn io::Write, output: &Output) -> io::Result<()> {
    let id = sagitta_model::PointId::Uuid(info.id);
    writeln!(out, "{}, created {}, id {id}", info.name, created(info, 19))?;
    writeln!(
        out,
        "{} of {} each",
        humane::count(info.shards.into(), "shard"),
        humane::count(info.replication.into(), "replica")
    )?;
    if let Some(figures) = &info.statistics {
        let pairs = [
            ("points", humane::grouped(figures.points)),
            ("in sealed segments", humane::grouped(figures.indexed_points)),
            ("dead rows", humane::grouped(figures.dead_rows)),
            ("segments", format!("{} sealed, {} growing", figures.sealed_segments, figures.growing_segments)),
            ("shards", figures.shards.to_string()),
            ("disk", humane::bytes(figures.disk_bytes)),
            ("memory", humane::bytes(figures.memory_bytes)),
            ("ready", ready(figures).to_owned()),
        ];
        writeln!(out)?;
        for (name, value) in pairs {
            writeln!(out, "{name:18}  {value}")?;
        }
    }
    writeln!(out)?;
    let columns =
        [("vector", Align::Left), ("dimension", Align::Right), ("metric", Align::Left), ("index", Align::Left)];
    let mut table = Table::new(&columns);
    for (name, spec) in &info.schema.vectors {
        table.row(vec![name.clone(), spec.dim.to_string(), spec.metric.to_string(), spec.index.to_string()]);
    }
    output.table(out, &table)?;
    writeln!(out)?;
    if info.schema.fields.is_empty() {
        return writeln!(out, "no declared fields: nothing to filter or group by");
    }
    let mut table = Table::new(&[("field", Align::Left), ("type", Align::Left)]);
    for (path, field_type) in &info.schema.fields {
        table.row(vec![path.to_string(), field_type.to_string()]);
    }
    output.table(out, &table)
}

fn ready(figures: &sagitta_model::CollectionStatistics) -> &'static str {
    match (figures.ready, figures.refuses_data) {
        (false, _) => "no",
        (true, false) => "yes",
        (true, true) => "for reads and deletes; short of memory or disk, it refuses new data",
    }
}

/// A collection as a JSON document.
pub(crate) fn document(info: &CollectionInfo) -> JsonValue {
    let vectors = info.schema.vectors.iter().map(|(name, spec)| {
        let spec = json!({
            "dimension": spec.dim, "metric": spec.metric.to_string(), "index": spec.index.to_string(),
        });
        (name.clone(), spec)
    });
    let fields = info.schema.fields.iter().map(|(path, field_type)| (path.to_string(), field_type.to_string()));
    let micros = i64::try_from(info.created_unix_micros).unwrap_or(i64::MAX);
    let statistics = info.statistics.map(|figures| {
        json!({
            "ready": figures.ready,
            "points": figures.points,
            "indexed_points": figures.indexed_points,
            "dead_rows": figures.dead_rows,
            "growing_segments": figures.growing_segments,
            "sealed_segments": figures.sealed_segments,
            "disk_bytes": figures.disk_bytes,
            "memory_bytes": figures.memory_bytes,
            "shards": figures.shards,
            "refuses_data": figures.refuses_data,
        })
    });
    json!({
        "name": info.name.to_string(),
        "id": sagitta_model::PointId::Uuid(info.id).to_string(),
        "created": datetime::format_micros(micros),
        "vectors": vectors.collect::<serde_json::Map<_, _>>(),
        "fields": fields.collect::<BTreeMap<_, _>>(),
        "shards": info.shards,
        "replication": info.replication,
        "statistics": statistics,
    })
}

const DELETE_EXAMPLES: &str = "\
Examples:
  sagitta collection delete docs
  sagitta collection delete docs --yes --if-exists";

/// Delete a collection with all its points.
#[derive(Args, Debug)]
#[command(after_help = DELETE_EXAMPLES)]
pub struct DeleteCollection {
    /// The collection
    name: CollectionName,

    /// Delete without asking first
    #[arg(long, short)]
    yes: bool,

    /// Succeed, and say so, if there is no such collection
    #[arg(long)]
    if_exists: bool,
}

impl DeleteCollection {
    async fn run(&self, session: &Session) -> Result<(), Failure> {
        if !self.yes {
            match session.collection(&self.name, View::Full).await {
                Err(failure) if failure.exit == Exit::NotFound && self.if_exists => {}
                Err(failure) => return Err(failure),
                Ok(info) => {
                    let points = humane::count(info.statistics.unwrap_or_default().points, "point");
                    confirm(&format!("Delete `{}` with {points}?", self.name))?;
                }
            }
        }
        // Its absence is asked for as an error, which alone tells whether there was something to delete.
        let deleted = match session.client.delete_collection(self.name.clone(), false).await {
            Err(error) if error.kind == ErrorKind::NotFound && self.if_exists => false,
            answer => session.told(&self.name, answer).await.map(|()| true)?,
        };
        let document = json!({ "collection": self.name.to_string(), "deleted": deleted });
        session.output.write(&document, |out, _| match deleted {
            true => writeln!(out, "deleted {}", self.name),
            false => writeln!(out, "there was no collection {}: nothing was deleted", self.name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_and_fields_are_given_in_short() {
        let spec = |dim, metric, index| PartialSpec { dim, metric, index };
        assert_eq!(vector("title=384"), Ok(("title".into(), spec(384, None, None))));
        let full = spec(512, Some(Metric::L2), Some(IndexPolicy::Compact));
        assert_eq!(vector("cover=512:l2:compact"), Ok(("cover".into(), full)));
        for bad in ["384", "a=", "a=0", "a=x", "a=3:manhattan", "a=3:l2:tree", "a=3:l2:flat:x"] {
            assert!(vector(bad).is_err(), "{bad}");
        }
        assert_eq!(field("a.b=integer").map(|(path, t)| (path.to_string(), t)), Ok(("a.b".into(), FieldType::Integer)));
        assert!(field("a=int").expect_err("no such type").contains("integer"));
        assert!(field("a..b=integer").is_err());
    }
}
