//! What the port does not say but the design does: no write-ahead log, blobs apart, one budget, erasure in the files.

use std::fs;
use std::hint::spin_loop;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use crate::common::{
    ALL, LARGE, META, Random, SMALL, check_rows, copy_as_a_crash_would, count, engine, files, folder, open, put_rows,
    value,
};
use sagitta_engine::kv::{Kv, KvEngine, KvOptions, WriteBatch};
use sagitta_engine_rocksdb::{RocksBudget, RocksEngine};

#[test]
fn nothing_is_written_to_a_write_ahead_log() {
    let (_root, root) = folder();
    let engine = engine();
    let kv = open(&engine, &root.join("db")).unwrap();
    put_rows(&*kv, 0..500).unwrap();
    let logs: Vec<_> = files(&root.join("db")).into_iter().filter(|(name, _)| name.ends_with(".log")).collect();
    assert!(logs.iter().all(|(_, len)| *len == 0), "{logs:?}");
}

#[test]
fn large_values_are_kept_apart_from_their_keys() {
    let (_root, root) = folder();
    let engine = engine();
    let kv = open(&engine, &root.join("db")).unwrap();
    put_rows(&*kv, 0..1000).unwrap();
    kv.flush().unwrap();
    let health = kv.health();
    println!("{health:?}");
    let [small, large, meta] = ALL.map(|family| health.families[family.index()]);
    assert!(large.blob_bytes > 1000 * 1500, "vectors are in blob files");
    assert!(large.table_bytes < large.blob_bytes / 10, "their tables hold references");
    assert_eq!((small.blob_bytes, meta.blob_bytes), (0, 0));
    assert!(small.table_bytes > 1000 * 100);
    assert_eq!(large.keys, 1000);
}

#[test]
fn overwritten_blobs_are_collected_without_being_told() {
    let (_root, root) = folder();
    let engine = engine();
    let kv = open(&engine, &root.join("db")).unwrap();
    let live_bytes = 200 * 1500;
    for _ in 0..25 {
        put_rows(&*kv, 0..200).unwrap();
    }
    kv.flush().unwrap();
    let large = kv.health().families[LARGE.index()];
    println!("{large:?}");
    assert!(
        large.blob_bytes < 12 * live_bytes,
        "{} bytes of blobs for {live_bytes} live ones: nothing is collected",
        large.blob_bytes
    );
    check_rows(&*kv, 0..200).unwrap();
}

#[test]
fn purged_values_are_in_no_file() {
    let (_root, root) = folder();
    let dir = root.join("db");
    let engine = engine();
    let kv = open(&engine, &dir).unwrap();
    // Incompressible, so that it is in the files as it is, and found by looking for it.
    let canary = value(0xc0ffee, 2000);
    let needle = &canary[500..540];
    put_rows(&*kv, 0..300).unwrap();
    for family in ALL {
        let mut batch = WriteBatch::new();
        batch.put(family, b"canary", &canary);
        batch.put(family, b"overwritten", &canary);
        batch.put(family, b"in a range", &canary);
        kv.write(&batch).unwrap();
    }
    put_rows(&*kv, 300..600).unwrap();
    kv.flush().unwrap();
    assert!(files_with(&dir, needle).len() >= 2, "the canary is in tables and blobs at first");

    for family in ALL {
        let mut batch = WriteBatch::new();
        batch.delete(family, b"canary");
        batch.put(family, b"overwritten", b"");
        batch.delete_range(family, b"in", b"io");
        kv.write(&batch).unwrap();
    }
    for family in ALL {
        kv.purge(family).unwrap();
    }
    assert_eq!(files_with(&dir, needle), Vec::<String>::new());
    check_rows_ignoring_overwritten(&*kv);
}

#[test]
fn a_purge_that_a_snapshot_prevents_keeps_what_it_sees() {
    let (_root, root) = folder();
    let engine = engine();
    let kv = open(&engine, &root.join("db")).unwrap();
    put_rows(&*kv, 0..100).unwrap();
    kv.flush().unwrap();
    let snapshot = kv.snapshot();
    let mut batch = WriteBatch::new();
    batch.delete_range(LARGE, &[0; 8], &[255; 8]);
    kv.write(&batch).unwrap();
    kv.purge(LARGE).unwrap();
    check_rows(&*snapshot, 0..100).unwrap();
    assert!(kv.health().families[LARGE.index()].blob_bytes > 100 * 1500);
    drop(snapshot);
    kv.purge(LARGE).unwrap();
    assert_eq!(kv.health().families[LARGE.index()].blob_bytes, 0);
}

#[test]
fn all_databases_share_one_budget() {
    let (_root, root) = folder();
    let budget = RocksBudget { memory_bytes: 8 << 20, write_buffer_bytes: 2 << 20, ..RocksBudget::default() };
    let engine = RocksEngine::new(budget);
    let options = KvOptions { write_buffer_bytes: 64 << 20, ..KvOptions::default() };
    let databases: Vec<_> =
        (0..4).map(|i| engine.open(&root.join(i.to_string()), &crate::common::FAMILIES, &options).unwrap()).collect();
    let mut most = 0;
    for round in 0..20 {
        for kv in &databases {
            put_rows(&**kv, round * 100..round * 100 + 100).unwrap();
            most = most.max(engine.memory().write_buffer_bytes);
        }
    }
    let unflushed: u64 =
        databases.iter().flat_map(|kv| kv.health().families).map(|family| family.unflushed_bytes).sum();
    println!("write buffers: at most {most} bytes, now {unflushed}; {:?}", engine.memory());
    // 4 databases x 2,000 rows x 1,600 bytes = 12.8 MB were written, and no database reached a limit of its own.
    assert!(most < 3 * budget.write_buffer_bytes as u64, "the shared limit does not flush");
    assert!(engine.memory().cache_bytes <= 2 * budget.memory_bytes as u64);
    databases.iter().for_each(|kv| check_rows(&**kv, 0..2000).unwrap());
}

#[test]
fn a_flush_without_changes_writes_nothing() {
    let (_root, root) = folder();
    let dir = root.join("db");
    let engine = engine();
    let kv = open(&engine, &dir).unwrap();
    put_rows(&*kv, 0..10).unwrap();
    kv.flush().unwrap();
    let before = files(&dir);
    kv.flush().unwrap();
    let data = |files: std::collections::BTreeMap<String, u64>| {
        files.into_iter().filter(|(name, _)| !name.starts_with("LOG")).collect::<Vec<_>>()
    };
    assert_eq!(data(files(&dir)), data(before));
}

#[test]
fn destroy_leaves_what_is_not_its_own() {
    let (_root, root) = folder();
    let dir = root.join("db");
    let engine = engine();
    drop(open(&engine, &dir).unwrap());
    fs::write(dir.join("somebody's thesis"), "precious").unwrap();
    engine.destroy(&dir).unwrap_err();
    assert_eq!(files(&dir).into_keys().collect::<Vec<_>>(), ["somebody's thesis"]);
    fs::remove_file(dir.join("somebody's thesis")).unwrap();
    engine.destroy(&dir).unwrap();
    assert!(!dir.exists());
}

fn check_rows_ignoring_overwritten(kv: &dyn Kv) {
    let mut batch = WriteBatch::new();
    ALL.iter().for_each(|&family| batch.delete(family, b"overwritten"));
    kv.write(&batch).unwrap();
    check_rows(kv, 0..600).unwrap();
    assert_eq!(kv.get(SMALL, b"overwritten").unwrap(), None);
    assert!(kv.get(META, b"last").unwrap().is_some());
}

/// The files in which the bytes occur.
fn files_with(dir: &Path, needle: &[u8]) -> Vec<String> {
    let holds = |name: &String| {
        let bytes = fs::read(dir.join(name)).unwrap_or_default();
        bytes.windows(needle.len()).any(|window| window == needle)
    };
    files(dir).into_keys().filter(holds).collect()
}

#[test]
fn whatever_was_changed_last_what_was_flushed_or_copied_opens_again() {
    let (engine, seed) = (engine(), count("SAGITTA_SEED", 42));
    println!("seed {seed}");
    let mut dice = Random(seed);
    for round in 0..count("SAGITTA_ROUNDS", 40) {
        let (_root, root) = folder();
        let dir = root.join("db");
        let mut kv = open(&engine, &dir).expect("opened");
        for step in 0..12 {
            let mut batch = WriteBatch::new();
            for _ in 0..1 + dice.below(4) {
                let family = ALL[dice.below(ALL.len() as u64) as usize];
                let key = |number: u64| number.to_be_bytes();
                let (first, second) = (dice.below(6), dice.below(6));
                match dice.below(4) {
                    0 | 1 => batch.put(family, &key(first), &value(first, 20)),
                    2 => batch.delete(family, &key(first)),
                    _ => batch.delete_range(family, &key(first.min(second)), &key(first.max(second) + 1)),
                }
            }
            kv.write(&batch).expect("written");
            match dice.below(4) {
                0 => kv.flush().expect("flushed"),
                1 => {
                    let copy = root.join(format!("copy-{step}"));
                    kv.checkpoint(&copy).expect("copied");
                    drop(
                        open(&engine, &copy)
                            .unwrap_or_else(|error| panic!("round {round}, step {step}: {error}: {batch:?}")),
                    );
                }
                2 => {
                    kv.flush().expect("flushed");
                    drop(kv);
                    kv = open(&engine, &dir)
                        .unwrap_or_else(|error| panic!("round {round}, step {step}: {error}: {batch:?}"));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn what_is_flushed_or_copied_while_others_flush_is_whole() {
    let (engine, seed) = (engine(), count("SAGITTA_SEED", 42));
    println!("seed {seed}");
    let (_root, root) = folder();
    let kv = open(&engine, &root.join("db")).expect("opened");
    let mut dice = Random(seed);
    for round in 0..count("SAGITTA_ROUNDS", 30) {
        let copy = root.join(format!("copy-{round}"));
        put_rows(&*kv, 0..dice.below(300)).expect("written");
        let meeting = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                meeting.wait();
                kv.flush().expect("flushed");
            });
            meeting.wait();
            (0..dice.below(20_000)).for_each(|_| spin_loop());
            let mut batch = WriteBatch::new();
            batch.put(META, b"copy", &round.to_le_bytes());
            kv.write(&batch).expect("written");
            if dice.below(2) == 0 {
                kv.checkpoint(&copy).expect("copied");
            } else {
                kv.flush().expect("flushed");
                copy_as_a_crash_would(&root.join("db"), &copy);
            }
        });
        let copied = open(&engine, &copy).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(copied.get(META, b"copy").expect("read"), Some(round.to_le_bytes().to_vec()), "round {round}");
        drop(copied);
        fs::remove_dir_all(&copy).expect("removed");
    }
}
