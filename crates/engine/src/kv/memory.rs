//! The twin: databases in memory that keep the promises of the port and no more than these.

mod file;
mod handle;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{EngineMemory, FamilySpec, Kv, KvEngine, KvError, KvOptions, KvRead};
use handle::{MemoryKv, Session};
use store::Store;

/// Databases in memory, by folder, for tests and simulation. Clones share them: the engine is the disk.
///
/// Stricter than a real engine where the port leaves room: what was not flushed when the last handle is
/// dropped is lost. A checkpoint into a real folder is a file there, and opening a folder with such a file takes it in: so a
/// database gets from one engine to another, as by copying the files of a real one.
#[derive(Clone, Default)]
pub struct MemoryEngine {
    disks: Arc<Mutex<BTreeMap<PathBuf, Arc<Disk>>>>,
}

/// A way in which a disk can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Writing, flushing and so on report [`KvError::Full`].
    DiskFull,
    /// Writing, flushing and so on report [`KvError::Io`].
    WriteError,
    /// Reading reports [`KvError::Corrupt`].
    ReadDamage,
}

/// One folder.
struct Disk {
    dir: PathBuf,
    state: Mutex<DiskState>,
}

struct DiskState {
    store: Store,
    /// Counts openings and crashes: a handle of an earlier one is dead.
    session: u64,
    is_open: bool,
    /// The fault, and how many calls still succeed before it strikes.
    fault: Option<(Fault, u64)>,
}

impl MemoryEngine {
    /// No databases yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every handle on the database in `dir` as a power cut would. What was flushed is there when it is opened
    /// again, and of the batches after that the first `survivors` (an engine flushes by itself whenever it likes).
    ///
    /// # Panics
    /// When there is no database in `dir`.
    pub fn crash(&self, dir: &Path, survivors: u64) {
        let disk = self.existing(dir);
        let mut state = disk.lock();
        state.session += 1;
        state.is_open = false;
        state.store.lose_unflushed(survivors);
    }

    /// From now on, after `calls` more that go well, the database in `dir` fails until it is [healed](Self::heal).
    ///
    /// # Panics
    /// When there is no database in `dir`.
    pub fn inject(&self, dir: &Path, fault: Fault, calls: u64) {
        self.existing(dir).lock().fault = Some((fault, calls));
    }

    /// Takes the injected fault back.
    ///
    /// # Panics
    /// When there is no database in `dir`.
    pub fn heal(&self, dir: &Path) {
        self.existing(dir).lock().fault = None;
    }

    fn existing(&self, dir: &Path) -> Arc<Disk> {
        let disk = lock(&self.disks).get(dir).cloned();
        disk.unwrap_or_else(|| panic!("no database was opened in {}", dir.display()))
    }

    fn add(&self, dir: &Path, store: Store) -> Result<(), KvError> {
        let mut disks = lock(&self.disks);
        if disks.contains_key(dir) {
            return Err(KvError::Io { dir: dir.to_owned(), what: "the folder exists already".to_owned() });
        }
        disks.insert(dir.to_owned(), Arc::new(Disk::new(dir, store)));
        Ok(())
    }
}

impl KvEngine for MemoryEngine {
    fn open(&self, dir: &Path, families: &[FamilySpec], _options: &KvOptions) -> Result<Arc<dyn Kv>, KvError> {
        FamilySpec::check_all(families);
        let disk = Arc::clone(
            lock(&self.disks).entry(dir.to_owned()).or_insert_with(|| Arc::new(Disk::new(dir, Store::default()))),
        );
        let mut state = disk.lock();
        if state.is_open {
            return Err(KvError::Locked { dir: dir.to_owned() });
        }
        if let Some(store) = file::take(dir)? {
            state.store = store;
        }
        if let Some(name) = state.store.table_not_in(families) {
            let found = format!("it has a family {name:?}");
            return Err(KvError::NewerVersion { dir: dir.to_owned(), found });
        }
        let tables = families.iter().map(|family| state.store.table(family.name)).collect();
        state.is_open = true;
        state.session += 1;
        let session = Session::new(Arc::clone(&disk), state.session, families, tables);
        Ok(Arc::new(MemoryKv::new(self.clone(), session)))
    }

    fn open_read_only(
        &self,
        dir: &Path,
        families: &[FamilySpec],
        options: &KvOptions,
    ) -> Result<Box<dyn KvRead>, KvError> {
        if !lock(&self.disks).contains_key(dir) {
            return Err(KvError::Io { dir: dir.to_owned(), what: "there is no database".to_owned() });
        }
        // Opening writes nothing here, and the snapshot keeps it open.
        Ok(self.open(dir, families, options)?.snapshot())
    }

    fn destroy(&self, dir: &Path) -> Result<(), KvError> {
        let mut disks = lock(&self.disks);
        if disks.get(dir).is_some_and(|disk| disk.lock().is_open) {
            return Err(KvError::Locked { dir: dir.to_owned() });
        }
        disks.remove(dir);
        Ok(())
    }

    fn memory(&self) -> EngineMemory {
        EngineMemory::default()
    }
}

impl Disk {
    fn new(dir: &Path, store: Store) -> Self {
        let state = DiskState { store, session: 0, is_open: false, fault: None };
        Self { dir: dir.to_owned(), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        lock(&self.state)
    }

    fn error(&self, fault: Fault) -> KvError {
        let dir = self.dir.clone();
        match fault {
            Fault::DiskFull => KvError::Full { dir, what: "injected".to_owned() },
            Fault::WriteError => KvError::Io { dir, what: "injected".to_owned() },
            Fault::ReadDamage => KvError::Corrupt { dir, what: "injected".to_owned() },
        }
    }
}

/// A panic of another test thread does not make the data wrong: every change is completed under the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
