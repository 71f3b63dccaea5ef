use std::path::Path;
use std::sync::{Arc, MutexGuard};

use super::store::{NEWEST, Row};
use super::{Disk, DiskState, Fault, MemoryEngine, file};
use crate::kv::{
    Family, FamilyHealth, FamilySpec, Kv, KvError, KvHealth, KvRead, ScanRange, VisitRow, VisitValue, WriteBatch,
};

/// Rows that a scan takes out at a time; in between the lock is free.
const SCAN_PAGE_ROWS: usize = 256;

pub(super) struct MemoryKv {
    engine: MemoryEngine,
    session: Arc<Session>,
}

struct MemorySnapshot {
    session: Arc<Session>,
    at: u64,
}

/// One opening of a database; it ends with the last handle or snapshot.
pub(super) struct Session {
    disk: Arc<Disk>,
    id: u64,
    families: Vec<FamilySpec>,
    /// Table of each family.
    tables: Vec<usize>,
}

impl MemoryKv {
    pub(super) fn new(engine: MemoryEngine, session: Session) -> Self {
        Self { engine, session: Arc::new(session) }
    }

    fn memory_snapshot(&self) -> MemorySnapshot {
        let at = self.session.disk.lock().store.pin();
        MemorySnapshot { session: Arc::clone(&self.session), at }
    }
}

impl Kv for MemoryKv {
    fn write(&self, batch: &WriteBatch) -> Result<(), KvError> {
        self.session.write_lock()?.store.apply(batch, &self.session.tables);
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn KvRead> {
        Box::new(self.memory_snapshot())
    }

    fn flush(&self) -> Result<(), KvError> {
        self.session.write_lock()?.store.flush();
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), KvError> {
        let mut copy = {
            let mut state = self.session.write_lock()?;
            state.store.flush();
            state.store.clone()
        };
        copy.lose_unflushed(0);
        file::write(dir, &copy)?;
        self.engine.add(dir, copy)
    }

    fn purge(&self, _family: Family) -> Result<(), KvError> {
        self.session.write_lock()?.store.flush();
        Ok(())
    }

    fn health(&self) -> KvHealth {
        let state = self.session.disk.lock();
        let families = self.session.families.iter().zip(&self.session.tables).map(|(family, &table)| {
            let (keys, unflushed_bytes) = state.store.sizes(table);
            FamilyHealth { name: family.name, keys, unflushed_bytes, ..FamilyHealth::default() }
        });
        let write_error = match state.fault {
            Some((fault @ (Fault::DiskFull | Fault::WriteError), 0)) => Some(self.session.disk.error(fault)),
            _ => None,
        };
        KvHealth {
            write_error,
            snapshots: state.store.snapshots(),
            families: families.collect(),
            ..KvHealth::default()
        }
    }
}

impl KvRead for MemoryKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.session.get(family, key, NEWEST)
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]], visit: &mut VisitValue<'_>) -> Result<(), KvError> {
        self.session.multi_get(family, keys, NEWEST, visit)
    }

    fn scan(&self, family: Family, range: &ScanRange, visit: &mut VisitRow<'_>) -> Result<(), KvError> {
        self.memory_snapshot().scan(family, range, visit)
    }
}

impl KvRead for MemorySnapshot {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.session.get(family, key, self.at)
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]], visit: &mut VisitValue<'_>) -> Result<(), KvError> {
        self.session.multi_get(family, keys, self.at, visit)
    }

    fn scan(&self, family: Family, range: &ScanRange, visit: &mut VisitRow<'_>) -> Result<(), KvError> {
        let mut rest = range.clone();
        loop {
            let page = self.session.page(family, &rest, self.at)?;
            for (key, value) in &page {
                if visit(key, value).is_break() {
                    return Ok(());
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == SCAN_PAGE_ROWS => rest = rest.starting_after(key),
                _ => return Ok(()),
            }
        }
    }
}

impl Drop for MemorySnapshot {
    fn drop(&mut self) {
        let mut state = self.session.disk.lock();
        if state.session == self.session.id {
            state.store.unpin(self.at);
        }
    }
}

impl Session {
    pub(super) fn new(disk: Arc<Disk>, id: u64, families: &[FamilySpec], tables: Vec<usize>) -> Self {
        Self { disk, id, families: families.to_vec(), tables }
    }

    fn get(&self, family: Family, key: &[u8], at: u64) -> Result<Option<Vec<u8>>, KvError> {
        let table = self.table(family);
        Ok(self.read_lock()?.store.get(table, key, at).map(|value| value.to_vec()))
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]], at: u64, visit: &mut VisitValue<'_>) -> Result<(), KvError> {
        let table = self.table(family);
        let values: Vec<_> = {
            let state = self.read_lock()?;
            keys.iter().map(|key| state.store.get(table, key, at)).collect()
        };
        for (i, value) in values.iter().enumerate() {
            visit(i, value.as_deref());
        }
        Ok(())
    }

    fn page(&self, family: Family, range: &ScanRange, at: u64) -> Result<Vec<Row>, KvError> {
        let table = self.table(family);
        Ok(self.read_lock()?.store.page(table, range, at, SCAN_PAGE_ROWS))
    }

    fn table(&self, family: Family) -> usize {
        *self.tables.get(family.index()).expect("invariant: the family was listed when the database was opened")
    }

    fn read_lock(&self) -> Result<MutexGuard<'_, DiskState>, KvError> {
        self.lock(|fault| fault == Fault::ReadDamage)
    }

    fn write_lock(&self) -> Result<MutexGuard<'_, DiskState>, KvError> {
        self.lock(|fault| matches!(fault, Fault::DiskFull | Fault::WriteError))
    }

    /// The state, unless the database has crashed meanwhile or an injected fault strikes.
    fn lock(&self, concerns: impl Fn(Fault) -> bool) -> Result<MutexGuard<'_, DiskState>, KvError> {
        let mut state = self.disk.lock();
        if state.session != self.id {
            let what = "this handle is from before a crash".to_owned();
            return Err(KvError::Io { dir: self.disk.dir.clone(), what });
        }
        if let Some((fault, calls)) = &mut state.fault
            && concerns(*fault)
        {
            if *calls == 0 {
                return Err(self.disk.error(*fault));
            }
            *calls -= 1;
        }
        Ok(state)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.session == self.id {
            state.is_open = false;
            state.store.lose_unflushed(0);
        }
    }
}
