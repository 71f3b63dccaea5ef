//! The data that is measured with: embeddings with payloads, queries, and their true neighbours.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sagitta_cli::data::{Content, GroundTruth, Joined, ReadOptions, RowReader, open};
use sagitta_model::{FieldType, IndexPolicy, Metric, Point, PointId, Schema, VectorSpec};

/// The name of the points' vector.
pub const VECTOR: &str = "embedding";

/// A set of files named `<name>.base.f16.npy` and so on.
pub struct Data {
    name: &'static str,
    folder: PathBuf,
    rows: u64,
    dim: usize,
    queries: Vec<Vec<f32>>,
    truth: GroundTruth,
}

impl Data {
    /// The full set if the folder has it, else the repository's sample, and says so.
    pub fn find(folder: &Path) -> Result<Self> {
        let full = "text384-100k";
        if folder.join(format!("{full}.base.f16.npy")).is_file() {
            return Self::open(full, folder);
        }
        println!(
            "no {full} in {}: set SAGITTA_DATA or --data. Going on with the repository's sample of 4,000 points, which is too small for figures that mean much.",
            folder.display()
        );
        Self::sample()
    }

    /// The repository's sample of 4,000 points.
    pub fn sample() -> Result<Self> {
        Self::open("text384-4k", &Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data"))
    }

    fn open(name: &'static str, folder: &Path) -> Result<Self> {
        let file = |suffix: &str| folder.join(format!("{name}.{suffix}"));
        let base = open(&file("base.f16.npy"), &ReadOptions::default())?;
        let mut queries = open(&file("query.f32.npy"), &ReadOptions::default())?;
        let count = queries.count()? as usize;
        let queries = queries.read(count)?.into_iter().filter_map(|row| row.vectors.into_values().next()).collect();
        let dim = base.summary().vectors.values().next().context("the base file has no vectors")?.dimension;
        let rows = base.summary().rows.context("the base file does not say its rows")?;
        let truth = GroundTruth::read(&file("gt.ids.npy"), None)?;
        Ok(Self { name, folder: folder.to_owned(), rows, dim, queries, truth })
    }

    /// What the set is called.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Points.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Dimensions of their vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Vectors to search with.
    pub fn queries(&self) -> &[Vec<f32>] {
        &self.queries
    }

    /// The true neighbours of the queries.
    pub fn truth(&self) -> &GroundTruth {
        &self.truth
    }

    /// What a collection of these points is created with.
    pub fn schema(&self) -> Result<Schema> {
        let mut schema = Schema::default();
        let spec = VectorSpec { dim: self.dim, metric: Metric::InnerProduct, index: IndexPolicy::Auto };
        schema.vectors.insert(VECTOR.to_owned(), spec);
        for (field, of) in [("source", FieldType::Keyword), ("lang", FieldType::Keyword), ("words", FieldType::Integer)]
        {
            schema.fields.insert(field.parse()?, of);
        }
        Ok(schema)
    }

    /// All points with their payloads, in memory: reading files is not what is measured.
    pub fn points(&self) -> Result<Vec<Point>> {
        let file = |suffix: &str| self.folder.join(format!("{}.{suffix}", self.name));
        let vectors = ReadOptions { vector_name: VECTOR.to_owned(), ..ReadOptions::default() };
        let payloads = ReadOptions { content: Content::Payloads, ..ReadOptions::default() };
        let vectors = open(&file("base.f16.npy"), &vectors)?;
        let payloads = open(&file("payload.jsonl.gz"), &payloads)?;
        let mut rows = Joined::new(vectors, Some(payloads), None)?;
        let points = rows.read(self.rows as usize)?.into_iter().zip(0..).map(|(row, at)| Point {
            id: row.id.unwrap_or(PointId::Num(at)),
            vectors: row.vectors,
            payload: row.payload,
        });
        Ok(points.collect())
    }
}
