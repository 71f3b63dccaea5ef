//! Tests of a whole shard, for any engines: a shard passes or fails with what it stores and indexes in.
//!
//! [`model::run`] drives a shard through random histories next to a naive map and compares, and has it take over segments of a twin; [`crash::every_step`] cuts
//! every job off at every step; [`damage::every_file`] damages every file; [`concurrent::run`] reads while writing; [`whole`] makes checkpoints and
//! installs them; [`split`] splits shards in the middle of all that, and [`merge`] merges them again. Each panics
//! with its seed when the shard is wrong.

mod check;
pub mod concurrent;
pub mod crash;
pub mod damage;
pub mod dice;
mod disturbance;
mod family;
mod inspect;
pub mod merge;
pub mod model;
mod naive;
pub mod split;
pub(crate) mod twin;
pub mod whole;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::index::{BuildControl, Never};
use sagitta_engine::kv::{KvOptions, MemoryEngine};
use sagitta_env::Env;
use sagitta_model::{FieldType, IndexPolicy, Metric, Schema, VectorSpec};

use crate::{Engines, Shard, ShardError, ShardOptions, ShardSpec};

/// The engines under test.
pub trait Rig: Sync {
    /// What shards are opened with.
    fn engines(&self) -> Engines;

    /// Ends a shard in a folder as a power cut would: what the database did not flush is lost, except perhaps for the first
    /// few batches (a database may flush by itself; `survivors` is how many, if the engine can choose).
    fn crash(&self, shard: Arc<Shard>, dir: &Path, survivors: u64);

    /// Whether a search that is not asked to be exact finds exactly the nearest.
    fn is_exact(&self) -> bool;

    /// The index policies to go through, seed by seed.
    fn policies(&self) -> &[IndexPolicy] {
        &IndexPolicy::ALL
    }
}

/// The twins in memory.
#[derive(Clone, Default)]
pub struct TwinRig(MemoryEngine);

impl Rig for TwinRig {
    fn engines(&self) -> Engines {
        Engines { kv: Arc::new(self.0.clone()), index: Arc::new(ExactEngine) }
    }

    fn crash(&self, shard: Arc<Shard>, dir: &Path, survivors: u64) {
        self.0.crash(&database_dir(dir), survivors);
        drop(shard);
    }

    fn is_exact(&self) -> bool {
        true
    }
}

/// Where a shard keeps its database.
pub fn database_dir(shard_dir: &Path) -> PathBuf {
    shard_dir.join("db")
}

/// Two vectors of different kinds, and a field of each type. As many seeds in a row as there are policies use each of them
/// for both vectors.
pub fn schema(seed: u64, policies: &[IndexPolicy]) -> Schema {
    let metric = |at: u64| Metric::ALL[((seed + at) % 3) as usize];
    let policy = |at: u64| policies[((seed + at) % policies.len() as u64) as usize];
    let spec = |dim, metric, index| VectorSpec { dim, metric, index };
    let fields = [
        ("color", FieldType::Keyword),
        ("year", FieldType::Integer),
        ("price", FieldType::Float),
        ("sold", FieldType::Bool),
        ("at", FieldType::Datetime),
        ("made.by", FieldType::Keyword),
    ];
    Schema {
        vectors: [
            ("image".to_owned(), spec(8, metric(0), policy(0))),
            ("title".to_owned(), spec(5, metric(1), policy(1))),
        ]
        .into(),
        fields: fields.into_iter().map(|(path, field)| (path.parse().expect("a path"), field)).collect(),
    }
}

/// Everything so small that a few hundred points fill several segments.
pub fn small_options() -> ShardOptions {
    ShardOptions {
        seal_rows: 24,
        max_frozen_generations: 3,
        graph_min_rows: 40,
        max_segment_rows: 400,
        // Now and then a build spools its vectors.
        max_heap_build_bytes: 2_000,
        // A database that flushes and compacts by itself does so all the time.
        kv: KvOptions { write_buffer_bytes: 64 << 10, ..KvOptions::default() },
        ..ShardOptions::default()
    }
}

/// The shard that tests open.
pub fn spec(schema: &Schema) -> ShardSpec {
    numbered(7, schema)
}

fn numbered(shard: u64, schema: &Schema) -> ShardSpec {
    ShardSpec { collection: 0x5a61_0001, shard, schema: schema.clone() }
}

/// Runs all jobs that there are, including those that they bring about. Returns how many.
pub fn run_jobs(shard: &Arc<Shard>) -> Result<usize, ShardError> {
    // A job that brings itself about again would run for ever.
    const MANY: usize = 10_000;
    for done in 0..MANY {
        match shard.next_job() {
            Some(job) => job.run(&unhurried())?,
            None => return Ok(done),
        }
    }
    panic!("jobs do not end: {:?}", shard.stats().pending_jobs)
}

/// A build on one thread that nothing stops.
pub fn unhurried() -> BuildControl<'static> {
    BuildControl { threads: 1, stop: &Never, progress: &|_| () }
}

fn open(rig: &dyn Rig, dir: &Path, schema: &Schema, env: &Env, options: &ShardOptions) -> Arc<Shard> {
    Shard::open(dir, spec(schema), rig.engines(), env.clone(), options.clone()).expect("the shard opens")
}
