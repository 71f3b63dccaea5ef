use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
use sagitta_engine::kv::{EngineMemory, FamilySpec, Kv, KvEngine, KvError, KvOptions, KvRead};

use crate::RocksBudget;
use crate::database::{Core, Database};
use crate::error::translate;
use crate::ledger::{Ledger, parent, sync_dir};
use crate::options::Shared;
use crate::snapshot::{Db, Snapshot};

/// Opens RocksDB databases that share one memory budget and one pool of threads: one engine per process.
pub struct RocksEngine {
    budget: RocksBudget,
    shared: Shared,
}

impl RocksEngine {
    /// An engine with nothing open. The memory is taken as it is needed.
    #[must_use]
    pub fn new(budget: RocksBudget) -> Self {
        Self { budget, shared: Shared::new(&budget) }
    }
}

impl KvEngine for RocksEngine {
    fn open(&self, dir: &Path, families: &[FamilySpec], options: &KvOptions) -> Result<Arc<dyn Kv>, KvError> {
        FamilySpec::check_all(families);
        let dir = create_folder(dir).map_err(|error| KvError::from_io(dir, "creating the folder", &error))?;
        let ledger = Ledger::load(&dir)?;
        let database = self.shared.database(options, ledger.is_none());
        let families_on_disk = self.shared.families(families, options);
        let db = Db::open_cf_descriptors(&database, &dir, families_on_disk).map_err(|error| translate(&dir, &error))?;
        let write_buffers = Arc::clone(&self.shared.write_buffers);
        Ok(Arc::new(Database::new(dir, db, families, ledger, write_buffers)?))
    }

    fn open_read_only(
        &self,
        dir: &Path,
        families: &[FamilySpec],
        options: &KvOptions,
    ) -> Result<Box<dyn KvRead>, KvError> {
        FamilySpec::check_all(families);
        let dir = dir.canonicalize().map_err(|error| KvError::from_io(dir, "looking for the folder", &error))?;
        let Some(ledger) = Ledger::load(&dir)? else {
            return Err(KvError::Io { dir, what: "there is no database".to_owned() });
        };
        let database = self.shared.database(options, false);
        let families_on_disk = self.shared.families(families, options);
        // Read-only, RocksDB does not mind families that are not listed.
        let on_disk = Db::list_cf(&database, &dir).map_err(|error| translate(&dir, &error))?;
        let known =
            |name: &str| name == DEFAULT_COLUMN_FAMILY_NAME || families.iter().any(|family| family.name == name);
        if let Some(name) = on_disk.iter().find(|name| !known(name)) {
            let found = format!("it has a family {name:?}");
            return Err(KvError::NewerVersion { dir, found });
        }
        let db = Db::open_cf_descriptors_read_only(&database, &dir, families_on_disk, false)
            .map_err(|error| translate(&dir, &error))?;
        Ok(Box::new(Snapshot::take(Arc::new(Core::new(dir, db, families, Some(&ledger))?))))
    }

    fn destroy(&self, dir: &Path) -> Result<(), KvError> {
        let io = |error: io::Error| KvError::from_io(dir, "removing the folder", &error);
        if !dir.try_exists().map_err(io)? {
            return Ok(());
        }
        // The name that it was opened under is the name that it is locked under.
        let dir = dir.canonicalize().map_err(io)?;
        Db::destroy(&rocksdb::Options::default(), &dir).map_err(|error| translate(&dir, &error))?;
        Ledger::remove(&dir).map_err(io)?;
        // Not with its content: what is left now was not ours.
        match fs::remove_dir(&dir) {
            // RocksDB did it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(io)?,
        }
        sync_dir(&parent(&dir)).map_err(io)
    }

    fn memory(&self) -> EngineMemory {
        EngineMemory {
            budget_bytes: self.budget.memory_bytes as u64,
            cache_bytes: self.shared.cache.get_usage() as u64,
            write_buffer_bytes: self.shared.write_buffers.used_bytes(),
        }
    }
}

/// Creates the folder durably if it is not there, and says its one absolute name: RocksDB's lock goes by name.
fn create_folder(dir: &Path) -> io::Result<PathBuf> {
    if !dir.try_exists()? {
        fs::create_dir_all(dir)?;
        sync_dir(&parent(dir))?;
    }
    let dir = dir.canonicalize()?;
    if !dir.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "there is a file of that name"));
    }
    Ok(dir)
}
