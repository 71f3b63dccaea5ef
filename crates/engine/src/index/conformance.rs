//! The conformance suite of the vector index port: what every engine must do, whatever its kind of index. A crate that
//! implements [`IndexEngine`] runs it from its tests:
//!
//! ```ignore
//! Suite { engine: &MyEngine, kind: IndexKind::Graph, min_rows: 1, scratch: folder.path() }.check_all();
//! ```
//!
//! Checks panic with what was expected of which case. All data follows from fixed seeds.

mod data;
mod exactness;
mod faults;
mod search;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sagitta_model::Metric;

use self::data::Sample;
use super::{
    BuildControl, Built, Candidate, IndexEngine, IndexError, IndexKind, IndexSpec, Never, PreparedQuery, ScalarKernel,
    VectorIndex, inverse_norm,
};

/// An engine and a kind of index, to be checked.
pub struct Suite<'a> {
    /// The engine.
    pub engine: &'a dyn IndexEngine,
    /// The kind of index that it is to build.
    pub kind: IndexKind,
    /// Fewest rows from which it builds this kind.
    pub min_rows: usize,
    /// A folder to write to; the caller removes it.
    pub scratch: &'a Path,
}

impl Suite<'_> {
    /// Runs every check.
    pub fn check_all(&self) {
        self.exact_modes_equal_brute_force();
        self.ties_go_to_the_smaller_row();
        self.searches_find_what_is_near();
        self.filters_are_respected_by_every_plan();
        self.any_k_is_served();
        self.threads_see_the_same_answers();
        self.malformed_input_is_refused();
        self.stopping_stops();
        self.damage_is_never_served();
        self.missing_and_foreign_files_do_not_open();
    }

    fn build(&self, sample: &Sample, metric: Metric) -> Result<(PathBuf, Built), IndexError> {
        let dir = self.folder();
        let spec = IndexSpec::new(sample.dim, metric, self.kind);
        let control = BuildControl { threads: 1, stop: &Never, progress: &|_| () };
        let built = self.engine.build(&spec, sample.rows(), &dir, &control)?;
        Ok((dir, built))
    }

    fn index(&self, sample: &Sample, metric: Metric) -> Arc<dyn VectorIndex> {
        let (dir, built) = self.build(sample, metric).unwrap_or_else(|error| panic!("building failed: {error}"));
        let index = self.engine.open(&dir, &built.files).unwrap_or_else(|error| panic!("opening failed: {error}"));
        let shape = index.shape();
        assert_eq!((shape.rows, shape.dim), (sample.len(), sample.dim));
        assert_eq!((shape.metric, shape.kind), (metric, self.kind));
        index
    }

    fn rows(&self, wanted: usize) -> usize {
        wanted.max(self.min_rows)
    }

    /// A new empty folder.
    fn folder(&self) -> PathBuf {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{:?}-{}", self.kind, NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = self.scratch.join(name);
        std::fs::create_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        dir
    }
}

fn prepare(metric: Metric, vector: &[f32]) -> PreparedQuery {
    PreparedQuery::new(metric, vector).unwrap_or_else(|error| panic!("preparing a query failed: {error}"))
}

/// The similarity of every row, by the reference kernel.
fn similarities(sample: &Sample, query: &PreparedQuery) -> Vec<f32> {
    sample.rows().iter().map(|row| ScalarKernel::one(query, row, inverse_norm(row))).collect()
}

/// The best `k` of the rows that pass, by sorting all of them.
fn brute_force(sample: &Sample, query: &PreparedQuery, k: usize, passes: impl Fn(u32) -> bool) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = similarities(sample, query)
        .into_iter()
        .zip(0..)
        .filter(|&(_, row)| passes(row))
        .map(|(similarity, row)| Candidate { row, similarity })
        .collect();
    all.sort_by(Candidate::compare);
    all.truncate(k);
    all
}

/// The share of `truth` that was found, judged by similarity so that ties count.
fn recall(found: &[Candidate], truth: &[Candidate]) -> f64 {
    let Some(worst) = truth.last() else { return 1.0 };
    let hits = found.iter().filter(|candidate| candidate.similarity >= worst.similarity).count();
    hits.min(truth.len()) as f64 / truth.len() as f64
}
