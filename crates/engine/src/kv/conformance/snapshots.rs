use std::sync::atomic::{AtomicBool, Ordering};

use super::{ALL, Db, Harness, LARGE, META, SMALL, large_value, rows};
use crate::kv::{KvError, ScanRange, WriteBatch};

pub(super) fn snapshots_see_their_moment(harness: &dyn Harness) {
    let db = Db::create(harness);
    let key = |i: u32| i.to_be_bytes();
    let empty = db.kv.snapshot();
    db.write(|batch| {
        for family in ALL {
            (0..50).for_each(|i| batch.put(family, &key(i), &large_value(u64::from(i))));
        }
    });
    let full = db.kv.snapshot();
    let full_again = db.kv.snapshot();
    let expected: Vec<_> = ALL.iter().map(|&family| rows(&*full, family)).collect();
    assert!(expected.iter().all(|rows| rows.len() == 50));

    let check = |what: &str| {
        for family in ALL {
            assert_eq!(rows(&*empty, family), [], "after {what}");
            assert_eq!(rows(&*full, family), expected[family.index()], "after {what}");
            assert_eq!(full.get(family, &key(7)).unwrap(), Some(large_value(7)), "after {what}");
            full.multi_get(family, &[&key(8), &key(50)], &mut |i, value| {
                assert_eq!(value.is_some(), i == 0, "after {what}");
            })
            .unwrap();
        }
    };
    check("nothing");
    db.write(|batch| {
        ALL.iter().for_each(|&family| batch.put(family, &key(7), b"overwritten"));
    });
    check("an overwrite");
    db.write(|batch| ALL.iter().for_each(|&family| batch.delete(family, &key(8))));
    check("a delete");
    db.write(|batch| {
        ALL.iter().for_each(|&family| batch.delete_range(family, &key(20), &key(100)));
    });
    check("a range delete");
    db.write(|batch| ALL.iter().for_each(|&family| batch.put(family, &key(60), b"new")));
    check("an insert");
    db.kv.flush().unwrap();
    check("a flush");
    ALL.iter().for_each(|&family| db.kv.purge(family).unwrap());
    check("a purge");
    drop(full_again);
    check("the end of a twin");
    assert_eq!(rows(&*db.kv, LARGE).len(), 20, "while the present moves on");
}

pub(super) fn snapshots_outlive_the_handle(harness: &dyn Harness) {
    let db = Db::create(harness);
    db.write(|batch| batch.put(SMALL, b"key", b"value"));
    db.kv.flush().unwrap();
    let snapshot = db.kv.snapshot();
    let Db { dir, kv, .. } = db;
    drop(kv);
    let again = harness.engine().open(&dir, &super::FAMILIES, &harness.options()).map(|_| ());
    assert_eq!(again, Err(KvError::Locked { dir: dir.clone() }), "a snapshot keeps the database open");
    assert_eq!(snapshot.get(SMALL, b"key").unwrap(), Some(b"value".to_vec()));
    drop(snapshot);
    harness.engine().open(&dir, &super::FAMILIES, &harness.options()).unwrap();
}

pub(super) fn batches_are_atomic_for_readers(harness: &dyn Harness) {
    const BATCHES: u64 = 2000;
    let db = Db::create(harness);
    let kv = &*db.kv;
    let write = |number: u64| {
        let mut batch = WriteBatch::new();
        for family in ALL {
            // The row of the batch before goes, one of this batch comes: there is always exactly one.
            batch.delete(family, &number.wrapping_sub(1).to_be_bytes());
            batch.put(family, &number.to_be_bytes(), &number.to_be_bytes());
        }
        kv.write(&batch).unwrap();
    };
    write(1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut checks = 0;
                    while !done.load(Ordering::Relaxed) || checks == 0 {
                        let snapshot = kv.snapshot();
                        let small = rows(&*snapshot, SMALL);
                        assert_eq!(small.len(), 1, "neither both versions nor none");
                        assert_eq!(small, rows(&*snapshot, LARGE), "the same batch in all families");
                        assert_eq!(small, rows(&*snapshot, META), "the same batch in all families");
                        let mut live = 0;
                        kv.scan(SMALL, &ScanRange::all(), &mut |_, _| {
                            live += 1;
                            std::ops::ControlFlow::Continue(())
                        })
                        .unwrap();
                        assert_eq!(live, 1, "a scan sees one moment");
                        checks += 1;
                    }
                })
            })
            .collect();
        let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (2..=BATCHES).for_each(write)));
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        written.unwrap();
    });
}
