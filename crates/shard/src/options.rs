use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sagitta_engine::index::IndexEngine;
use sagitta_engine::kv::{KvEngine, KvOptions};
use sagitta_model::Schema;

use crate::StepHook;

/// Which shard a folder is to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardSpec {
    /// UUID of the collection.
    pub collection: u128,
    /// Number of the shard.
    pub shard: u64,
    /// What the collection holds; fixed when it was created.
    pub schema: Schema,
}

/// What a shard stores and indexes with.
#[derive(Clone)]
pub struct Engines {
    /// Opens databases.
    pub kv: Arc<dyn KvEngine>,
    /// Builds and opens indexes.
    pub index: Arc<dyn IndexEngine>,
}

/// Settings of a shard. The defaults suit real data; tests make everything small.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Rows after which a growing generation is frozen, to become a segment.
    pub seal_rows: usize,
    /// Bytes of vectors after which a growing generation is frozen.
    pub seal_bytes: usize,
    /// Frozen generations that may wait for their segments before the shard asks for writes to be refused.
    pub max_frozen_generations: usize,
    /// Rows below which a segment is indexed flat, whatever the policy.
    pub graph_min_rows: usize,
    /// Rows of the largest segment that a merge makes.
    pub max_segment_rows: usize,
    /// Segments of like size that are merged into one; also the ratio of sizes that counts as like.
    pub tier_factor: usize,
    /// Share of dead rows above which a segment is rewritten.
    pub max_dead_share: f64,
    /// Jobs that run at once.
    pub max_running_jobs: usize,
    /// Time without a write after which small segments are merged although they are few.
    pub idle_after: Duration,
    /// Time after which a job that failed is offered again; doubles with each failure in a row.
    pub retry_after: Duration,
    /// Bytes of vectors that a build keeps on the heap; above it spools them into a file.
    pub max_heap_build_bytes: usize,
    /// Of the database.
    pub kv: KvOptions,
    /// Folder in which those of all shards are, each named by its shard's number and on the same file system as this one: where a
    /// split puts the new shard. Without it no split can be applied.
    pub siblings: Option<PathBuf>,
    /// For crash tests.
    pub step_hook: StepHook,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self {
            // A flat or graph segment of this size builds in seconds; scanning as many rows exactly takes about a millisecond.
            seal_rows: 16_384,
            seal_bytes: 64 << 20,
            // Half a gigabyte of vectors at most, and a search over them still below ten milliseconds.
            max_frozen_generations: 8,
            graph_min_rows: 10_000,
            max_segment_rows: 4_000_000,
            tier_factor: 4,
            max_dead_share: 0.2,
            max_running_jobs: 1,
            idle_after: Duration::from_secs(30),
            retry_after: Duration::from_secs(1),
            max_heap_build_bytes: 256 << 20,
            kv: KvOptions::default(),
            siblings: None,
            step_hook: StepHook::default(),
        }
    }
}
