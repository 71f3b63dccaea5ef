use std::ops::ControlFlow;

use super::{ALL, Db, FAMILIES, Harness, LARGE, META, SMALL, keys_in, large_value, rows};
use crate::kv::ScanRange;

pub(super) fn reads_give_back_what_was_written(harness: &dyn Harness) {
    let db = Db::create(harness);
    let long = large_value(1);
    db.write(|batch| {
        batch.put(SMALL, b"key", b"small");
        batch.put(LARGE, b"key", &long);
        batch.put(META, b"key", b"");
        batch.put(META, b"", b"the empty key is a key");
        batch.put(META, &[0, 255, 0], &[255, 0, 255]);
    });
    let check = |db: &Db<'_>| {
        let get = |family, key: &[u8]| db.kv.get(family, key).unwrap();
        assert_eq!(get(SMALL, b"key"), Some(b"small".to_vec()));
        assert_eq!(get(LARGE, b"key"), Some(long.clone()), "families are separate");
        assert_eq!(get(META, b"key"), Some(Vec::new()), "an empty value is not a missing one");
        assert_eq!(get(META, b""), Some(b"the empty key is a key".to_vec()));
        assert_eq!(get(META, &[0, 255, 0]), Some(vec![255, 0, 255]));
        assert_eq!(get(SMALL, b"ke"), None);
        assert_eq!(get(SMALL, b"key\0"), None);
    };
    check(&db);
    db.kv.flush().unwrap();
    check(&db);
    check(&db.reopen());
}

pub(super) fn batches_apply_in_order(harness: &dyn Harness) {
    let db = Db::create(harness);
    for family in ALL {
        db.write(|batch| {
            batch.put(family, b"put twice", b"1");
            batch.put(family, b"put twice", b"2");
            batch.put(family, b"put, deleted", b"1");
            batch.delete(family, b"put, deleted");
            batch.delete(family, b"deleted, put");
            batch.put(family, b"deleted, put", b"1");
            batch.put(family, b"range 1", b"1");
            batch.delete_range(family, b"range", b"rangf");
            batch.put(family, b"range 2", b"2");
        });
        let get = |key: &[u8]| db.kv.get(family, key).unwrap();
        assert_eq!(get(b"put twice"), Some(b"2".to_vec()));
        assert_eq!(get(b"put, deleted"), None);
        assert_eq!(get(b"deleted, put"), Some(b"1".to_vec()));
        assert_eq!(get(b"range 1"), None);
        assert_eq!(get(b"range 2"), Some(b"2".to_vec()));
    }
    db.write(|_| ());
    assert_eq!(rows(&*db.kv, SMALL).len(), 3, "an empty batch changes nothing");
}

pub(super) fn multi_get_visits_every_key_in_order(harness: &dyn Harness) {
    // Enough keys for several internal portions.
    const KEYS: u64 = 700;
    let db = Db::create(harness);
    for family in ALL {
        db.write(|batch| {
            (0..KEYS).step_by(2).for_each(|i| batch.put(family, &i.to_be_bytes(), &large_value(i)));
        });
    }
    let check = |db: &Db<'_>| {
        for family in ALL {
            // Descending, each twice, every other one missing.
            let numbers: Vec<u64> = (0..KEYS).rev().flat_map(|i| [i, i]).collect();
            let keys: Vec<[u8; 8]> = numbers.iter().map(|i| i.to_be_bytes()).collect();
            let keys: Vec<&[u8]> = keys.iter().map(<[u8; 8]>::as_slice).collect();
            let mut visited = Vec::new();
            db.kv
                .multi_get(family, &keys, &mut |i, value| {
                    let expected = numbers[i].is_multiple_of(2).then(|| large_value(numbers[i]));
                    assert_eq!(value, expected.as_deref(), "{:?} {}", FAMILIES[family.index()], numbers[i]);
                    visited.push(i);
                })
                .unwrap();
            assert!(visited.iter().copied().eq(0..keys.len()), "every key once, in order");
        }
    };
    check(&db);
    db.kv.flush().unwrap();
    check(&db);
    db.kv.multi_get(SMALL, &[], &mut |_, _| panic!("nothing was asked for")).unwrap();
}

pub(super) fn scans_visit_their_range_in_byte_order(harness: &dyn Harness) {
    let keys: [&[u8]; 9] = [b"", b"\0", b"a", b"a\0", b"aa", b"ab", b"b\xff", b"b\xff\xff", b"\xff\xff"];
    let db = Db::create(harness);
    for (i, key) in keys.iter().enumerate().rev() {
        // Part of them on disk, part of them not.
        db.write(|batch| {
            ALL.iter().for_each(|&family| batch.put(family, key, &large_value(i as u64)));
        });
        if i == 4 {
            db.kv.flush().unwrap();
        }
    }
    let ranges: [(ScanRange, &[&[u8]]); 10] = [
        (ScanRange::all(), &keys),
        (ScanRange::all().bulk(), &keys),
        (ScanRange::prefix(b"a"), &[b"a", b"a\0", b"aa", b"ab"]),
        (ScanRange::prefix(b"b\xff"), &[b"b\xff", b"b\xff\xff"]),
        (ScanRange::prefix(b"\xff"), &[b"\xff\xff"]),
        (ScanRange::prefix(b"c"), &[]),
        (ScanRange::between(b"a\0", b"ab"), &[b"a\0", b"aa"]),
        (ScanRange::between(b"ab", b"a"), &[]),
        (ScanRange::prefix(b"a").starting_at(b"aa"), &[b"aa", b"ab"]),
        (ScanRange::all().starting_after(b"b\xff"), &[b"b\xff\xff", b"\xff\xff"]),
    ];
    for family in ALL {
        for (range, expected) in &ranges {
            assert_eq!(keys_in(&*db.kv, family, range), *expected, "{range:?}");
        }
        for (i, (_, value)) in rows(&*db.kv, family).iter().enumerate() {
            assert_eq!(*value, large_value(i as u64), "value of {:?}", keys[i]);
        }
    }
}

pub(super) fn scans_stop_and_may_be_written_under(harness: &dyn Harness) {
    const KEYS: u32 = 1000;
    let db = Db::create(harness);
    db.write(|batch| (0..KEYS).for_each(|i| batch.put(SMALL, &i.to_be_bytes(), b"old")));

    let mut seen = 0;
    let stop = |_: &[u8], _: &[u8]| {
        seen += 1;
        if seen == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut stop = stop;
    db.kv.scan(SMALL, &ScanRange::all(), &mut stop).unwrap();
    assert_eq!(seen, 10);

    let mut seen = 0;
    db.kv
        .scan(SMALL, &ScanRange::all(), &mut |key, value| {
            assert_eq!((key, value), (&u32::to_be_bytes(seen)[..], &b"old"[..]));
            seen += 1;
            // Ahead of the scan: what it does not see.
            db.write(|batch| {
                batch.put(SMALL, &(seen + 1).to_be_bytes(), b"new");
                batch.delete(SMALL, &(seen + 2).to_be_bytes());
                batch.put(SMALL, &(KEYS + seen).to_be_bytes(), b"new");
            });
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, KEYS, "a scan sees the state as of its call");
}

pub(super) fn delete_range_removes_its_keys_only(harness: &dyn Harness) {
    let db = Db::create(harness);
    let key = |i: u32| i.to_be_bytes();
    let fill = |db: &Db<'_>| {
        db.write(|batch| {
            for family in ALL {
                (0..100).for_each(|i| batch.put(family, &key(i), &large_value(u64::from(i))));
            }
        });
    };
    for flush_between in [false, true] {
        fill(&db);
        if flush_between {
            db.kv.flush().unwrap();
        }
        for family in [SMALL, LARGE] {
            db.write(|batch| {
                batch.delete_range(family, &key(10), &key(20));
                batch.delete_range(family, &key(30), &key(30));
                batch.delete_range(family, &key(50), &key(40));
                batch.delete_range(family, &key(90), &[255; 5]);
            });
            db.write(|batch| batch.put(family, &key(15), b"again"));
        }
        let check = |db: &Db<'_>| {
            for family in [SMALL, LARGE] {
                let left = keys_in(&*db.kv, family, &ScanRange::all());
                let expected = (0..90).filter(|i| !(10..20).contains(i) || *i == 15);
                assert!(left.iter().map(Vec::as_slice).eq(expected.map(key).collect::<Vec<_>>().iter()));
                assert_eq!(db.kv.get(family, &key(19)).unwrap(), None);
                assert_eq!(db.kv.get(family, &key(15)).unwrap(), Some(b"again".to_vec()));
                assert!(db.kv.get(family, &key(20)).unwrap().is_some());
            }
            assert_eq!(rows(&*db.kv, META).len(), 100, "other families keep their rows");
        };
        check(&db);
        db.kv.flush().unwrap();
        check(&db);
    }
}
