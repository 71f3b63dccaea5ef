//! The real engines under a shard, and how a process dies with them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sagitta_engine_faiss::FaissEngine;
use sagitta_engine_rocksdb::{RocksBudget, RocksEngine};
use sagitta_model::IndexPolicy;
use sagitta_shard::testing::{Rig, database_dir};
use sagitta_shard::{Engines, Shard};

/// The policies that the engine builds.
const POLICIES: [IndexPolicy; 3] = [IndexPolicy::Auto, IndexPolicy::Flat, IndexPolicy::Graph];

/// RocksDB and FAISS.
pub(crate) struct RealRig {
    kv: Arc<RocksEngine>,
}

impl Default for RealRig {
    fn default() -> Self {
        let budget = RocksBudget { memory_bytes: 64 << 20, write_buffer_bytes: 16 << 20, ..RocksBudget::default() };
        Self { kv: Arc::new(RocksEngine::new(budget)) }
    }
}

impl Rig for RealRig {
    fn engines(&self) -> Engines {
        Engines { kv: self.kv.clone(), index: Arc::new(FaissEngine) }
    }

    /// RocksDB flushes when it is closed, so what a dead process would have left is copied before that.
    fn crash(&self, shard: Arc<Shard>, dir: &Path, survivors: u64) {
        // What RocksDB has flushed by itself cannot be chosen, but for all of it.
        if survivors == u64::MAX {
            shard.flush().expect("the shard flushes");
        }
        let left = dir.with_extension("left");
        copy_as_a_crash_would(dir, &left);
        drop(shard);
        fs::remove_dir_all(dir).expect("the folder goes");
        fs::rename(&left, dir).expect("the copy takes its place");
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn policies(&self) -> &[IndexPolicy] {
        &POLICIES
    }
}

/// Copies the folder of an open shard as of one moment.
fn copy_as_a_crash_would(from: &Path, to: &Path) {
    loop {
        let before = files(&database_dir(from));
        // A table may go away while it is copied.
        let copied = copy(from, to).is_ok();
        if copied && before == files(&database_dir(from)) {
            return;
        }
        fs::remove_dir_all(to).expect("the copy goes");
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let to = to.join(path.file_name().expect("an entry has a name"));
        match path.is_dir() {
            true => copy(&path, &to)?,
            // Opening and closing it would release this process's lock.
            false if path.ends_with("LOCK") => {}
            false => drop(fs::copy(&path, &to)?),
        }
    }
    Ok(())
}

/// Names and lengths, without RocksDB's own log, which may grow at any time.
fn files(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let entries = fs::read_dir(dir).expect("the folder is read").filter_map(|entry| {
        let path = entry.expect("an entry").path();
        let length = fs::metadata(&path).ok()?.len();
        Some((path, length))
    });
    entries.filter(|(path, _)| !path.ends_with("LOG")).collect()
}
