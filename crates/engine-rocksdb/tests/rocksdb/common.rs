//! What the tests of this crate share.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use sagitta_engine::kv::{Family, FamilySpec, Kv, KvEngine, KvError, KvOptions, KvRead, ScanRange, WriteBatch};
use sagitta_engine_rocksdb::{RocksBudget, RocksEngine};

pub(crate) const SMALL: Family = Family::new(0);
pub(crate) const LARGE: Family = Family::new(1);
pub(crate) const META: Family = Family::new(2);
pub(crate) const ALL: [Family; 3] = [SMALL, LARGE, META];
pub(crate) const FAMILIES: [FamilySpec; 3] =
    [FamilySpec::new("small"), FamilySpec::large("large"), FamilySpec::new("meta")];

/// So small that RocksDB flushes and compacts by itself all the time.
pub(crate) const TINY: KvOptions = KvOptions { write_buffer_bytes: 64 << 10, max_open_files: 64 };

pub(crate) fn engine() -> RocksEngine {
    RocksEngine::new(RocksBudget { memory_bytes: 32 << 20, write_buffer_bytes: 16 << 20, ..RocksBudget::default() })
}

pub(crate) fn open(engine: &RocksEngine, dir: &Path) -> Result<Arc<dyn Kv>, KvError> {
    engine.open(dir, &FAMILIES, &TINY)
}

/// A temporary folder under its one absolute name.
pub(crate) fn folder() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().canonicalize().unwrap();
    (root, dir)
}

/// Bytes that tell their number, `len` of them.
pub(crate) fn value(number: u64, len: usize) -> Vec<u8> {
    let mut random = Random(number);
    (0..len).map(|_| random.next() as u8).collect()
}

/// The rows of `numbers` in all families, values of 100 and of 1500 bytes.
pub(crate) fn put_rows(kv: &dyn Kv, numbers: std::ops::Range<u64>) -> Result<(), KvError> {
    for number in numbers {
        let mut batch = WriteBatch::new();
        batch.put(SMALL, &number.to_be_bytes(), &value(number, 100));
        batch.put(LARGE, &number.to_be_bytes(), &value(number, 1500));
        batch.put(META, b"last", &number.to_be_bytes());
        kv.write(&batch)?;
    }
    Ok(())
}

/// Reads the rows of `numbers` in every way; panics at a wrong or missing one.
pub(crate) fn check_rows(kv: &dyn KvRead, numbers: std::ops::Range<u64>) -> Result<(), KvError> {
    for (family, len) in [(SMALL, 100), (LARGE, 1500)] {
        let mut next = numbers.start;
        kv.scan(family, &ScanRange::all(), &mut |key, found| {
            assert_eq!(key, next.to_be_bytes(), "wrong key");
            assert!(found == value(next, len), "wrong value of {next}");
            next += 1;
            std::ops::ControlFlow::Continue(())
        })?;
        assert_eq!(next, numbers.end, "rows are missing without an error");
        for number in numbers.clone() {
            let found = kv.get(family, &number.to_be_bytes())?;
            assert!(found.as_deref() == Some(&value(number, len)), "wrong value of {number}");
        }
    }
    let last = (numbers.end - 1).to_be_bytes().to_vec();
    assert_eq!(kv.get(META, b"last")?.as_ref(), Some(&last));
    let mut rows = Vec::new();
    // Other than a point read, this looks at old versions, too.
    kv.scan(META, &ScanRange::all(), &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    })?;
    assert_eq!(rows, [(b"last".to_vec(), last)]);
    Ok(())
}

/// Names and lengths of the files in a folder.
pub(crate) fn files(dir: &Path) -> BTreeMap<String, u64> {
    fs::read_dir(dir)
        .unwrap()
        // A file may go away while we look.
        .filter_map(|entry| {
            let entry = entry.unwrap();
            Some((entry.file_name().into_string().unwrap(), entry.metadata().ok()?.len()))
        })
        .collect()
}

/// Copies a database that may be open to the new folder `to`, as a power cut would have left it.
pub(crate) fn copy_as_a_crash_would(from: &Path, to: &Path) {
    loop {
        fs::create_dir(to).unwrap();
        let before = files(from);
        let copied =
            before.keys().filter(|name| is_copied(name)).all(|name| fs::copy(from.join(name), to.join(name)).is_ok());
        // Nothing was installed meanwhile: then the copy is of one moment.
        let data =
            |files: BTreeMap<String, u64>| files.into_iter().filter(|(name, _)| is_copied(name)).collect::<Vec<_>>();
        if copied && data(before) == data(files(from)) {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
}

/// Opening and closing the file `LOCK` would release the lock of our own process.
fn is_copied(name: &str) -> bool {
    name != "LOCK" && !name.starts_with("LOG")
}

/// This test binary again, for the one test `name`, which sees the environment variable `var`.
pub(crate) fn this_test_as_child(name: &str, var: &str, content: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(var, content);
    command
}

/// A number from the environment, to run more cases than every day.
pub(crate) fn count(var: &str, default: u64) -> u64 {
    std::env::var(var).map_or(default, |count| count.parse().expect("a number"))
}

/// Splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
