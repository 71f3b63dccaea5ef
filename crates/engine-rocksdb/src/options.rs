//! Every setting of RocksDB that differs from its default, with the reason.

use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, Cache, ChecksumType, ColumnFamilyDescriptor, DBCompressionType, Env, Options, WriteBufferManager,
};
use sagitta_engine::kv::{FamilySpec, KvOptions};

use crate::RocksBudget;
use crate::write_buffers::WriteBuffers;

/// Values from here on go to blob files. Below a kilobyte the indirection costs more than compaction does.
const MIN_BLOB_BYTES: u64 = 1 << 10;
/// Garbage collection moves the live blobs of the oldest half of the files when a compaction meets them...
const BLOB_GC_AGE_CUTOFF: f64 = 0.5;
/// ... and is forced once half of the bytes in those are dead. The default (1.0) never forces, and dead vectors stay.
const BLOB_GC_FORCE_THRESHOLD: f64 = 0.5;
/// Reads of a compaction that moves blobs: a few hundred vectors at a time.
const BLOB_COMPACTION_READAHEAD_BYTES: u64 = 2 << 20;

/// One in a hundred lookups of a missing key reads a block in vain.
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// A larger block costs more to decompress for a point read, a smaller one more index to keep in the cache.
const BLOCK_BYTES: usize = 8 << 10;
/// The newest format that RocksDB 11 writes by default: checksums know where their block belongs, the footer has one.
const FORMAT_VERSION: i32 = 7;

/// One being filled, the others being flushed: writing goes on during a flush.
const WRITE_BUFFERS_PER_FAMILY: i32 = 3;
/// What a family takes as soon as it has a row. The default, an eighth of a buffer, is a megabyte or more for each
/// family of each shard, however idle.
const ARENA_BLOCK_BYTES: usize = 64 << 10;
/// The manifest is read when a database is opened, so its size bounds that time.
const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// RocksDB's own log, for post-mortems: at most four files of this size.
const MAX_LOG_FILE_BYTES: usize = 4 << 20;
const MAX_LOG_FILES: usize = 4;
/// Write back steadily instead of in one burst at the end of a file.
const BYTES_PER_SYNC: u64 = 1 << 20;
/// How often the rate limiter hands out its budget, and how often compactions get it before flushes.
const RATE_REFILL_MICROS: i64 = 100_000;
const RATE_FAIRNESS: i32 = 10;

/// What the databases of one engine share.
pub(crate) struct Shared {
    pub(crate) cache: Cache,
    pub(crate) write_buffers: Arc<WriteBuffers>,
    base: Options,
}

impl Shared {
    pub(crate) fn new(budget: &RocksBudget) -> Self {
        let cache = Cache::new_hyper_clock_cache(budget.memory_bytes, 0);
        let write_buffers = Arc::new(WriteBuffers::new(budget.write_buffer_bytes, &cache));
        let base = base_options(budget, write_buffers.counter());
        Self { cache, write_buffers, base }
    }

    /// Options of one database. `create`: there is none yet.
    pub(crate) fn database(&self, options: &KvOptions, create: bool) -> Options {
        let mut db = self.base.clone();
        db.create_if_missing(create);
        // A family that this version adds to an older folder.
        db.create_missing_column_families(true);
        db.set_max_open_files(i32::try_from(options.max_open_files).unwrap_or(i32::MAX));
        db
    }

    /// The families, and RocksDB's unavoidable "default" one, which stays empty.
    pub(crate) fn families(&self, families: &[FamilySpec], options: &KvOptions) -> Vec<ColumnFamilyDescriptor> {
        let listed = families
            .iter()
            .map(|family| ColumnFamilyDescriptor::new(family.name, self.family(family.large_values, options)));
        let default = ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, self.family(false, options));
        listed.chain([default]).collect()
    }

    fn family(&self, large_values: bool, options: &KvOptions) -> Options {
        let mut family = Options::default();
        family.set_block_based_table_factory(&self.tables());
        family.set_compression_type(DBCompressionType::Lz4);
        family.set_write_buffer_size(options.write_buffer_bytes);
        family.set_max_write_buffer_number(WRITE_BUFFERS_PER_FAMILY);
        family.set_level_compaction_dynamic_level_bytes(true);
        family.set_arena_block_size(ARENA_BLOCK_BYTES);
        if large_values {
            family.set_enable_blob_files(true);
            family.set_min_blob_size(MIN_BLOB_BYTES);
            // LZ4 saves nothing on floating-point vectors (examples/put_rate: 157 MB for 154).
            family.set_blob_compression_type(DBCompressionType::None);
            family.set_enable_blob_gc(true);
            family.set_blob_gc_age_cutoff(BLOB_GC_AGE_CUTOFF);
            family.set_blob_gc_force_threshold(BLOB_GC_FORCE_THRESHOLD);
            family.set_blob_compaction_readahead_size(BLOB_COMPACTION_READAHEAD_BYTES);
        }
        family
    }

    fn tables(&self) -> BlockBasedOptions {
        let mut tables = BlockBasedOptions::default();
        tables.set_block_cache(&self.cache);
        tables.set_block_size(BLOCK_BYTES);
        tables.set_format_version(FORMAT_VERSION);
        tables.set_checksum_type(ChecksumType::XXH3);
        tables.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        tables.set_optimize_filters_for_memory(true);
        // Else index and filters live outside of any budget, as much as there are open files.
        tables.set_cache_index_and_filter_blocks(true);
        tables.set_cache_index_and_filter_blocks_with_high_priority(true);
        tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
        tables
    }
}

/// Name and value of the option that [purging](sagitta_engine::kv::Kv::purge) changes for its duration.
pub(crate) const GC_AGE_CUTOFF_OPTION: &str = "blob_garbage_collection_age_cutoff";

pub(crate) fn gc_age_cutoff() -> String {
    BLOB_GC_AGE_CUTOFF.to_string()
}

fn base_options(budget: &RocksBudget, write_buffers: &WriteBufferManager) -> Options {
    let threads = i32::try_from(budget.background_threads.max(1)).unwrap_or(i32::MAX);
    let mut base = Options::default();
    // The process-wide pool of RocksDB; it cannot fail to exist. If it did, RocksDB would use it all the same.
    if let Ok(mut env) = Env::new() {
        env.set_low_priority_background_threads(threads);
        env.set_high_priority_background_threads(1);
        base.set_env(&env);
    }
    base.set_max_background_jobs(threads);
    base.set_write_buffer_manager(write_buffers);
    let rate = i64::try_from(budget.background_bytes_per_second.max(1)).unwrap_or(i64::MAX);
    base.set_ratelimiter(rate, RATE_REFILL_MICROS, RATE_FAIRNESS);
    base.set_bytes_per_sync(BYTES_PER_SYNC);

    // The heart of running without a write-ahead log: a flush covers all families up to the same batch.
    base.set_atomic_flush(true);
    base.set_paranoid_checks(true);
    // Closing an iterator in a search must not delete files.
    base.set_avoid_unnecessary_blocking_io(true);

    // Opening takes the same time whatever the size.
    base.set_skip_stats_update_on_db_open(true);
    base.set_max_manifest_file_size(MAX_MANIFEST_BYTES);

    base.set_max_log_file_size(MAX_LOG_FILE_BYTES);
    base.set_keep_log_file_num(MAX_LOG_FILES);
    // Statistics are polled, not dumped.
    base.set_stats_dump_period_sec(0);
    base.set_stats_persist_period_sec(0);
    base
}

/// The number of a data file, if the name is one: `000123.sst`, `000124.blob`.
pub(crate) fn data_file_number(name: &str) -> Option<u64> {
    let (number, kind) = name.trim_start_matches('/').split_once('.')?;
    matches!(kind, "sst" | "blob").then(|| number.parse().ok())?
}
