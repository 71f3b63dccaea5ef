mod broken;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broken::{BrokenEngine, Bug};

use super::*;
use crate::kv::conformance::{CASES, Harness, run};
use crate::kv::{Family, WriteBatch};

const FAMILIES: [FamilySpec; 2] = [FamilySpec::new("a"), FamilySpec::large("b")];
const A: Family = Family::new(0);

/// Crashes the memory engine; `survivors` batches after the last flush stay.
struct MemoryHarness<E> {
    engine: E,
    disk: MemoryEngine,
    survivors: u64,
    dirs: AtomicU64,
}

impl<E: KvEngine> Harness for MemoryHarness<E> {
    fn engine(&self) -> &dyn KvEngine {
        &self.engine
    }

    fn fresh_dir(&self) -> PathBuf {
        PathBuf::from(format!("/memory/{}", self.dirs.fetch_add(1, Ordering::Relaxed)))
    }

    fn crash(&self, dir: &Path, kv: Arc<dyn Kv>) -> PathBuf {
        self.disk.crash(dir, self.survivors);
        drop(kv);
        dir.to_owned()
    }
}

fn harness<E>(disk: &MemoryEngine, engine: E, survivors: u64) -> MemoryHarness<E> {
    MemoryHarness { engine, disk: disk.clone(), survivors, dirs: AtomicU64::new(0) }
}

#[test]
fn the_twin_conforms_whatever_a_crash_leaves() {
    for survivors in [0, 3, u64::MAX] {
        let disk = MemoryEngine::new();
        run(&harness(&disk, disk.clone(), survivors));
    }
}

#[test]
fn the_suite_catches_every_planted_bug() {
    for bug in Bug::ALL {
        let disk = MemoryEngine::new();
        let harness = harness(&disk, BrokenEngine::new(disk.clone(), bug), 3);
        let failed: Vec<_> = CASES
            .iter()
            .filter(|(_, case)| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&harness))).is_err())
            .map(|(name, _)| name)
            .collect();
        println!("{bug:?}: caught by {failed:?}");
        assert!(!failed.is_empty(), "{bug:?} was not caught");
    }
}

#[test]
fn sizes_that_are_kept_up_to_date_are_those_that_rows_add_up_to() {
    let mut store = Store::default();
    let tables = [store.table("a"), store.table("b")];
    let (mut state, mut pins) = (7u64, Vec::new());
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    for step in 0..20_000 {
        match below(100) {
            0 => store.flush(),
            1 => store.lose_unflushed(below(20)),
            2 => pins.push(store.pin()),
            3 => pins.drain(..).for_each(|pin| store.unpin(pin)),
            _ => {
                let mut batch = WriteBatch::new();
                for _ in 0..below(4) {
                    let (family, key) = (Family::new(below(2) as usize), [below(30) as u8]);
                    match below(4) {
                        0 => batch.delete(family, &key),
                        1 if below(10) == 0 => batch.delete_range(family, &key, &[key[0] + 5]),
                        _ => batch.put(family, &key, &vec![0; below(9) as usize]),
                    };
                }
                store.apply(&batch, &tables);
            }
        }
        assert!(store.sizes_are_right(), "step {step}");
    }
    assert!(tables.map(|table| store.sizes(table).0 > 0) == [true; 2]);
}

#[test]
fn a_crash_ends_every_handle_and_keeps_what_was_flushed() {
    let engine = MemoryEngine::new();
    let dir = Path::new("/memory/crash");
    let open = || engine.open(dir, &FAMILIES, &KvOptions::default()).unwrap();
    let put = |kv: &Arc<dyn Kv>, key: &[u8]| {
        let mut batch = WriteBatch::new();
        batch.put(A, key, b"");
        kv.write(&batch)
    };
    let kv = open();
    put(&kv, b"1").unwrap();
    kv.flush().unwrap();
    put(&kv, b"2").unwrap();
    put(&kv, b"3").unwrap();
    let snapshot = kv.snapshot();
    engine.crash(dir, 1);

    let after = open();
    assert!(after.get(A, b"1").unwrap().is_some(), "flushed");
    assert!(after.get(A, b"2").unwrap().is_some(), "survived");
    assert!(after.get(A, b"3").unwrap().is_none(), "lost");
    assert!(matches!(put(&kv, b"4"), Err(KvError::Io { .. })), "the old handle is dead");
    assert!(matches!(snapshot.get(A, b"1"), Err(KvError::Io { .. })), "the old snapshot is dead");
    drop((kv, snapshot));
    put(&after, b"5").unwrap();
    assert_eq!(after.health().snapshots, 0);
}

#[test]
fn a_checkpoint_in_a_real_folder_opens_in_another_engine_and_a_damaged_one_does_not() {
    let temp = tempfile::tempdir().unwrap();
    let [one, other] = [MemoryEngine::new(), MemoryEngine::new()];
    let kv = one.open(&temp.path().join("db"), &FAMILIES, &KvOptions::default()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(A, b"1", b"one");
    batch.put(A, b"2", b"");
    batch.delete(A, b"3");
    kv.write(&batch).unwrap();
    let (copy, elsewhere) = (temp.path().join("copy"), temp.path().join("elsewhere"));
    kv.checkpoint(&copy).unwrap();
    for flip in [true, false] {
        std::fs::create_dir_all(&elsewhere).unwrap();
        let mut bytes = std::fs::read(copy.join("twin")).unwrap();
        bytes[20] ^= u8::from(flip);
        std::fs::write(elsewhere.join("twin"), bytes).unwrap();
        let opened = other.open(&elsewhere, &FAMILIES, &KvOptions::default());
        if flip {
            assert!(matches!(opened.map(drop), Err(KvError::Corrupt { .. })));
            continue;
        }
        let kv = opened.unwrap();
        let found = [b"1", b"2", b"3"].map(|key| kv.get(A, key).unwrap());
        assert_eq!(found, [Some(b"one".to_vec()), Some(Vec::new()), None]);
        let mut batch = WriteBatch::new();
        batch.put(A, b"3", b"new");
        kv.write(&batch).unwrap();
        kv.flush().unwrap();
    }
    let again = other.open(&elsewhere, &FAMILIES, &KvOptions::default()).unwrap();
    assert_eq!(again.get(A, b"3").unwrap(), Some(b"new".to_vec()), "it is taken in once");
    one.open(&copy, &FAMILIES, &KvOptions::default()).unwrap();
}

#[test]
fn injected_faults_strike_after_their_count_and_can_be_healed() {
    let engine = MemoryEngine::new();
    let dir = Path::new("/memory/faults");
    let kv = engine.open(dir, &FAMILIES, &KvOptions::default()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(A, b"key", b"value");

    engine.inject(dir, Fault::DiskFull, 2);
    assert_eq!(kv.health().write_error, None);
    kv.write(&batch).unwrap();
    kv.flush().unwrap();
    assert!(matches!(kv.write(&batch), Err(KvError::Full { .. })));
    assert!(matches!(kv.flush(), Err(KvError::Full { .. })));
    assert!(matches!(kv.health().write_error, Some(KvError::Full { .. })));
    assert_eq!(kv.get(A, b"key").unwrap(), Some(b"value".to_vec()), "reading goes on");
    engine.heal(dir);
    kv.write(&batch).unwrap();

    engine.inject(dir, Fault::WriteError, 0);
    assert!(matches!(kv.write(&batch), Err(KvError::Io { .. })));
    engine.inject(dir, Fault::ReadDamage, 0);
    assert!(matches!(kv.get(A, b"key"), Err(KvError::Corrupt { .. })));
    kv.write(&batch).unwrap();
}

#[test]
fn the_past_is_forgotten_when_nobody_can_ask_for_it() {
    let mut store = Store::default();
    let table = store.table("a");
    let write = |store: &mut Store, value: Option<&[u8]>| {
        let mut batch = WriteBatch::new();
        match value {
            Some(value) => batch.put(A, b"key", value),
            None => batch.delete(A, b"key"),
        }
        store.apply(&batch, &[table]);
    };
    for i in 0..100_u8 {
        write(&mut store, Some(&[i]));
    }
    assert_eq!(store.versions(), 100, "a crash may go back to any of them");
    store.flush();
    assert_eq!(store.versions(), 1);
    let pin = store.pin();
    write(&mut store, None);
    store.flush();
    assert_eq!(store.versions(), 2, "the snapshot's value and the deletion");
    store.unpin(pin);
    store.flush();
    assert_eq!(store.versions(), 0);
}
