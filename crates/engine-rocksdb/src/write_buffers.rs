use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rocksdb::{Cache, WriteBufferManager};

use crate::database::Core;

/// How often the limit is looked at: after this share of it was written.
const CHECKS_PER_LIMIT: u64 = 64;

/// The write buffers of all databases of an engine, within one limit.
///
/// RocksDB's own manager flushes, at the limit, the database that is being *written*: once idle databases hold the
/// memory, a busy one flushes with every write. So its manager only counts, charging the cache, and we flush the
/// databases that *hold* the most.
pub(crate) struct WriteBuffers {
    counter: WriteBufferManager,
    limit_bytes: u64,
    written_since_check: AtomicU64,
    databases: Mutex<Vec<Weak<Core>>>,
}

impl WriteBuffers {
    pub(crate) fn new(limit_bytes: usize, cache: &Cache) -> Self {
        // A limit of zero: RocksDB neither flushes for it nor stops all writers at it.
        let counter = WriteBufferManager::new_write_buffer_manager_with_cache(0, false, cache.clone());
        Self {
            counter,
            limit_bytes: limit_bytes as u64,
            written_since_check: AtomicU64::new(0),
            databases: Mutex::new(Vec::new()),
        }
    }

    /// What goes into the options of every database.
    pub(crate) fn counter(&self) -> &WriteBufferManager {
        &self.counter
    }

    /// Bytes of all write buffers, those included that are being flushed.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.counter.get_usage() as u64
    }

    pub(crate) fn add(&self, database: &Arc<Core>) {
        let mut databases = self.lock();
        databases.retain(|database| database.strong_count() > 0);
        databases.push(Arc::downgrade(database));
    }

    /// To be told of every write. Begins flushes when too much is held; does not wait for them.
    pub(crate) fn wrote(&self, bytes: usize) {
        let portion = (self.limit_bytes / CHECKS_PER_LIMIT).max(1);
        let written = self.written_since_check.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if written < portion {
            return;
        }
        self.written_since_check.store(0, Ordering::Relaxed);
        if self.used_bytes() > self.limit_bytes {
            self.flush_largest(2 * portion);
        }
    }

    /// Flushes the databases that hold the most, until `bytes` are on their way to the disk. What is
    /// on its way already counts as gone: no more than the excess over half the limit is flushed.
    fn flush_largest(&self, bytes: u64) {
        // Not under the lock: dropping the last handle closes a database.
        let databases: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
        let mut held: Vec<_> = databases.iter().map(|core| (core.unflushed_bytes(), core)).collect();
        held.sort_unstable_by_key(|&(bytes, _)| std::cmp::Reverse(bytes));
        let mut total: u64 = held.iter().map(|&(bytes, _)| bytes).sum();
        let (mut flushing, mut largest_first) = (0, held.into_iter());
        while flushing < bytes && total > self.limit_bytes / 2 {
            let Some((bytes, core)) = largest_first.next() else { return };
            core.begin_flush();
            flushing += bytes;
            total -= bytes;
        }
    }

    /// A panic elsewhere leaves the list valid.
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Core>>> {
        self.databases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
