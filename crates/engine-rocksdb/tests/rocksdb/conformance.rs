//! RocksDB passes the suite of the port.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::{TINY, copy_as_a_crash_would, engine, folder};
use sagitta_engine::kv::conformance::{Harness, run};
use sagitta_engine::kv::{Kv, KvEngine, KvOptions};
use sagitta_engine_rocksdb::RocksEngine;

struct RocksHarness {
    engine: RocksEngine,
    options: KvOptions,
    root: PathBuf,
    dirs: AtomicU64,
}

impl Harness for RocksHarness {
    fn engine(&self) -> &dyn KvEngine {
        &self.engine
    }

    fn options(&self) -> KvOptions {
        self.options
    }

    fn fresh_dir(&self) -> PathBuf {
        self.root.join(self.dirs.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn crash(&self, dir: &Path, kv: Arc<dyn Kv>) -> PathBuf {
        let after = self.fresh_dir();
        copy_as_a_crash_would(dir, &after);
        drop(kv);
        after
    }
}

fn conforms(options: KvOptions) {
    let (_root, root) = folder();
    run(&RocksHarness { engine: engine(), options, root, dirs: AtomicU64::new(0) });
}

#[test]
fn rocksdb_conforms_with_buffers_so_small_that_it_flushes_by_itself() {
    conforms(TINY);
}

#[test]
fn rocksdb_conforms_with_its_usual_buffers() {
    conforms(KvOptions::default());
}
