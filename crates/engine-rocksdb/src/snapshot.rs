use std::sync::Arc;

use rocksdb::{ColumnFamily, DBWithThreadMode, ReadOptions, SingleThreaded, SnapshotWithThreadMode};
use sagitta_engine::kv::{Family, KvError, KvRead, ScanRange, VisitRow, VisitValue};
use self_cell::self_cell;

use crate::database::Core;

/// Families are given at opening and never change, so no lock is needed around them.
pub(crate) type Db = DBWithThreadMode<SingleThreaded>;

type Handles<'a> = Vec<&'a ColumnFamily>;

self_cell!(
    /// An open database with the handles of its families, in the order of the list given at opening.
    pub(crate) struct OpenDb {
        owner: Db,
        #[covariant]
        dependent: Handles,
    }
);

/// A moment of the database; the read options refer to it, so they are dropped first.
struct Moment<'a> {
    read: ReadOptions,
    snapshot: SnapshotWithThreadMode<'a, Db>,
}

self_cell!(
    /// A snapshot that keeps its database open.
    pub(crate) struct Snapshot {
        owner: Arc<Core>,
        #[covariant]
        dependent: Moment,
    }
);

impl Snapshot {
    pub(crate) fn take(core: Arc<Core>) -> Self {
        Self::new(core, |core| {
            let snapshot = core.db().snapshot();
            let mut read = ReadOptions::default();
            read.set_snapshot(&snapshot);
            Moment { read, snapshot }
        })
    }
}

impl KvRead for Snapshot {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.borrow_owner().get(&self.borrow_dependent().read, family, key)
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]], visit: &mut VisitValue<'_>) -> Result<(), KvError> {
        self.borrow_owner().multi_get(&self.borrow_dependent().read, family, keys, visit)
    }

    fn scan(&self, family: Family, range: &ScanRange, visit: &mut VisitRow<'_>) -> Result<(), KvError> {
        // A scan has options of its own, with its bounds.
        let mut read = ReadOptions::default();
        read.set_snapshot(&self.borrow_dependent().snapshot);
        self.borrow_owner().scan(read, family, range, visit)
    }
}
