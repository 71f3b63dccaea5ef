use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{ColumnFamily, FlushOptions, ReadOptions, WriteOptions};
use sagitta_engine::kv::{
    Family, FamilySpec, Kv, KvError, KvHealth, KvRead, Op, ScanRange, VisitRow, VisitValue, WriteBatch,
};

use crate::error::translate;
use crate::health;
use crate::ledger::Ledger;
use crate::purge::purge;
use crate::snapshot::{Db, OpenDb, Snapshot};
use crate::write_buffers::WriteBuffers;

/// Values that one portion of a `multi_get` pins in memory at most; RocksDB itself works on 32 at a time.
const MULTI_GET_PORTION: usize = 128;
/// Read-ahead of a bulk scan.
const BULK_READAHEAD_BYTES: usize = 2 << 20;
/// What a change takes in RocksDB's batch beside key and value: tag, family, two lengths.
const OP_OVERHEAD_BYTES: usize = 16;

/// The handle that [`crate::RocksEngine`] gives out.
pub(crate) struct Database {
    core: Arc<Core>,
    families: Vec<FamilySpec>,
    write_buffers: Arc<WriteBuffers>,
    read: ReadOptions,
    write: WriteOptions,
    /// The sequence number that the ledger vouches for.
    noted_sequence: Mutex<u64>,
    /// One purge at a time: each changes options of its family for its duration.
    purging: Mutex<()>,
}

/// The open database, shared with its snapshots.
pub(crate) struct Core {
    dir: PathBuf,
    open: OpenDb,
}

impl Database {
    /// Takes an opened database into service, unless it is older than what `ledger` vouches for.
    pub(crate) fn new(
        dir: PathBuf,
        db: Db,
        families: &[FamilySpec],
        ledger: Option<Ledger>,
        write_buffers: Arc<WriteBuffers>,
    ) -> Result<Self, KvError> {
        let core = Arc::new(Core::new(dir, db, families, ledger.as_ref())?);
        let sequence = core.db().latest_sequence_number();
        // Opening began a new manifest.
        Ledger::store(&core.dir, sequence)?;

        let mut write = WriteOptions::default();
        write.disable_wal(true);
        write_buffers.add(&core);
        Ok(Self {
            core,
            families: families.to_vec(),
            write_buffers,
            read: ReadOptions::default(),
            write,
            noted_sequence: Mutex::new(sequence),
            purging: Mutex::new(()),
        })
    }
}

impl Kv for Database {
    fn write(&self, batch: &WriteBatch) -> Result<(), KvError> {
        let bytes = batch.size_bytes() + batch.len() * OP_OVERHEAD_BYTES;
        let mut native = rocksdb::WriteBatch::with_capacity_bytes(bytes);
        for op in batch.ops() {
            match op {
                Op::Put { family, key, value } => native.put_cf(self.core.handle(family), key, value),
                Op::Delete { family, key } => native.delete_cf(self.core.handle(family), key),
                Op::DeleteRange { family, start, end } => {
                    native.delete_range_cf(self.core.handle(family), start, end);
                }
            }
        }
        let written = self.core.db().write_opt(native, &self.write);
        written.map_err(|error| self.core.error(&error))?;
        self.write_buffers.wrote(bytes);
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn KvRead> {
        Box::new(Snapshot::take(Arc::clone(&self.core)))
    }

    fn flush(&self) -> Result<(), KvError> {
        let sequence = self.core.db().latest_sequence_number();
        if sequence == *lock(&self.noted_sequence) {
            return Ok(());
        }
        self.core.flush()?;
        let mut noted = lock(&self.noted_sequence);
        // Another flush, that began later, may have been quicker.
        let sequence = sequence.max(*noted);
        Ledger::store(&self.core.dir, sequence)?;
        *noted = sequence;
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), KvError> {
        if dir.exists() {
            let what = "the folder exists already".to_owned();
            return Err(KvError::Io { dir: dir.to_owned(), what });
        }
        let sequence = self.core.db().latest_sequence_number();
        // RocksDB would flush as well, and might not wait for it.
        self.core.flush()?;
        Checkpoint::new(self.core.db())
            .and_then(|checkpoint| checkpoint.create_checkpoint(dir))
            .map_err(|error| translate(dir, &error))?;
        Ledger::store(dir, sequence)
    }

    fn purge(&self, family: Family) -> Result<(), KvError> {
        let _one_at_a_time = lock(&self.purging);
        self.flush()?;
        purge(&self.core, family, &self.families[family.index()])
    }

    fn health(&self) -> KvHealth {
        health::of(&self.core, &self.families)
    }
}

impl KvRead for Database {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.core.get(&self.read, family, key)
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]], visit: &mut VisitValue<'_>) -> Result<(), KvError> {
        if keys.len() <= MULTI_GET_PORTION {
            return self.core.multi_get(&self.read, family, keys, visit);
        }
        // Several portions have to see the same moment.
        self.snapshot().multi_get(family, keys, visit)
    }

    fn scan(&self, family: Family, range: &ScanRange, visit: &mut VisitRow<'_>) -> Result<(), KvError> {
        self.core.scan(ReadOptions::default(), family, range, visit)
    }
}

impl Core {
    /// An opened database, unless it is older than what `ledger` vouches for.
    pub(crate) fn new(dir: PathBuf, db: Db, families: &[FamilySpec], ledger: Option<&Ledger>) -> Result<Self, KvError> {
        let sequence = db.latest_sequence_number();
        if let Some(ledger) = ledger.filter(|ledger| sequence < ledger.sequence) {
            let noted = ledger.sequence;
            let what = format!("the manifest ends at change {sequence}, but {noted} had been flushed");
            return Err(KvError::Corrupt { dir, what });
        }
        let open = OpenDb::new(db, |db| {
            let handle = |name| db.cf_handle(name).expect("invariant: every listed family was opened");
            families.iter().map(|family| handle(family.name)).collect()
        });
        Ok(Self { dir, open })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn db(&self) -> &Db {
        self.open.borrow_owner()
    }

    pub(crate) fn handle(&self, family: Family) -> &ColumnFamily {
        let handles = self.open.borrow_dependent();
        handles.get(family.index()).expect("invariant: the family was listed when the database was opened")
    }

    pub(crate) fn error(&self, error: &rocksdb::Error) -> KvError {
        translate(&self.dir, error)
    }

    /// Has everything flushed that was written before it began, in all families.
    ///
    /// RocksDB may come back too early: while another flush is under way (`DBImpl::AtomicFlushMemTables`) it waits for the buffers of each family by the
    /// number that the newest one of some other family has, in the order of a hash table. So it is asked again until no buffer is left that waits for its flush.
    pub(crate) fn flush(&self) -> Result<(), KvError> {
        let handles = self.open.borrow_dependent();
        loop {
            let flushed = self.db().flush_cfs_opt(handles, &FlushOptions::default());
            flushed.map_err(|error| self.error(&error))?;
            if handles.iter().all(|handle| health::number(self, handle, c"rocksdb.num-immutable-mem-table") == 0) {
                return Ok(());
            }
        }
    }

    /// Bytes that a flush would take out of the write buffers.
    pub(crate) fn unflushed_bytes(&self) -> u64 {
        let handles = self.open.borrow_dependent().iter();
        handles.map(|handle| health::number(self, handle, c"rocksdb.cur-size-active-mem-table")).sum()
    }

    /// Has everything flushed that is in the write buffers now, without waiting for it. Should it fail, the next write
    /// to this database reports it.
    pub(crate) fn begin_flush(&self) {
        let mut options = FlushOptions::default();
        options.set_wait(false);
        let _reported_by_the_next_write = self.db().flush_cfs_opt(self.open.borrow_dependent(), &options);
    }

    pub(crate) fn get(&self, read: &ReadOptions, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let value = self.db().get_pinned_cf_opt(self.handle(family), key, read);
        Ok(value.map_err(|error| self.error(&error))?.map(|value| value.to_vec()))
    }

    pub(crate) fn multi_get(
        &self,
        read: &ReadOptions,
        family: Family,
        keys: &[&[u8]],
        visit: &mut VisitValue<'_>,
    ) -> Result<(), KvError> {
        for (portion, keys) in keys.chunks(MULTI_GET_PORTION).enumerate() {
            let values = self.db().batched_multi_get_cf_opt(self.handle(family), keys, false, read);
            for (i, value) in values.into_iter().enumerate() {
                let value = value.map_err(|error| self.error(&error))?;
                visit(portion * MULTI_GET_PORTION + i, value.as_deref());
            }
        }
        Ok(())
    }

    pub(crate) fn scan(
        &self,
        mut read: ReadOptions,
        family: Family,
        range: &ScanRange,
        visit: &mut VisitRow<'_>,
    ) -> Result<(), KvError> {
        if range.is_empty() {
            return Ok(());
        }
        if let Some(end) = range.end() {
            read.set_iterate_upper_bound(end);
        }
        if range.is_bulk() {
            read.fill_cache(false);
            read.set_readahead_size(BULK_READAHEAD_BYTES);
        }
        let mut rows = self.db().raw_iterator_cf_opt(self.handle(family), read);
        rows.seek(range.start());
        while let Some((key, value)) = rows.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(|error| self.error(&error))
    }
}

/// A panic elsewhere leaves these locks' contents valid.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
