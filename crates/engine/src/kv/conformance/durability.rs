use super::{ALL, Db, Harness, LARGE, META, Random, SMALL, large_value, rows, seeds};
use crate::kv::{KvError, WriteBatch};

/// Key of the number of the newest batch, in every family.
const LAST: &[u8] = b"\xfflast";

pub(super) fn flushed_data_survives_reopening(harness: &dyn Harness) {
    let mut db = Db::create(harness);
    for round in 0..3 {
        write_numbered(&db, round * 10 + 1..=round * 10 + 10);
        db.kv.flush().unwrap();
        db = db.reopen();
        assert_eq!(check_prefix(&db), round * 10 + 10);
    }
    db.kv.flush().unwrap();
    assert_eq!(check_prefix(&db.reopen()), 30, "a flush of nothing is fine");
}

pub(super) fn flushed_data_survives_a_crash(harness: &dyn Harness) {
    let mut db = Db::create(harness);
    for round in 0..3 {
        write_numbered(&db, round * 10 + 1..=round * 10 + 10);
        db.kv.flush().unwrap();
        db = db.crash();
        assert_eq!(check_prefix(&db), round * 10 + 10);
    }
}

pub(super) fn a_crash_leaves_a_prefix(harness: &dyn Harness) {
    for seed in seeds(6) {
        println!("a_crash_leaves_a_prefix: seed {seed}");
        let mut random = Random(seed);
        let mut db = Db::create(harness);
        let (mut last, mut flushed) = (0, 0);
        for _ in 0..4 {
            for _ in 0..random.below(120) {
                write_numbered(&db, last + 1..=last + 1);
                last += 1;
                if random.chance(20) {
                    db.kv.flush().unwrap();
                    flushed = last;
                }
            }
            db = db.crash();
            let found = check_prefix(&db);
            assert!((flushed..=last).contains(&found), "seed {seed}: {found} is not in {flushed}..={last}");
            (last, flushed) = (found, found);
        }
    }
}

pub(super) fn checkpoints_stand_alone(harness: &dyn Harness) {
    let db = Db::create(harness);
    let target = harness.fresh_dir();
    write_numbered(&db, 1..=20);
    db.kv.checkpoint(&target).unwrap();
    assert!(matches!(db.kv.checkpoint(&target), Err(KvError::Io { .. })), "an existing folder is refused");
    write_numbered(&db, 21..=30);

    let copy = Db::open(harness, target);
    assert_eq!(check_prefix(&copy), 20);
    write_numbered(&copy, 21..=22);
    copy.kv.flush().unwrap();
    ALL.iter().for_each(|&family| copy.kv.purge(family).unwrap());
    assert_eq!(check_prefix(&copy.reopen()), 22);
    assert_eq!(check_prefix(&db), 30, "the original is not affected");
    db.kv.flush().unwrap();
    assert_eq!(check_prefix(&db.reopen()), 30);
}

pub(super) fn purge_keeps_live_rows(harness: &dyn Harness) {
    let db = Db::create(harness);
    let key = |i: u32| i.to_be_bytes();
    for round in 0..4 {
        for family in ALL {
            db.write(|batch| (0..100).for_each(|i| batch.put(family, &key(i), &large_value(round))));
        }
        db.kv.flush().unwrap();
    }
    for family in ALL {
        db.write(|batch| (0..100).step_by(2).for_each(|i| batch.delete(family, &key(i))));
        db.kv.purge(family).unwrap();
    }
    for family in ALL {
        let expected: Vec<_> = (0..100).skip(1).step_by(2).map(|i| (key(i).to_vec(), large_value(3))).collect();
        assert_eq!(rows(&*db.kv, family), expected);
    }
    let health = db.kv.health();
    assert_eq!(health.write_error, None);
    assert!(health.families.iter().all(|family| family.blob_garbage_bytes == 0), "{health:?}");
    assert!(health.disk_bytes() < 4 * 50 * 1536, "dead values are still stored: {health:?}");
}

/// Batches that tell their number: a row per family, one deleted again later, and the number itself.
fn write_numbered(db: &Db<'_>, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let mut batch = WriteBatch::new();
        for family in ALL {
            batch.put(family, &number.to_be_bytes(), &large_value(number));
            if number.is_multiple_of(3) {
                batch.delete(family, &(number - 1).to_be_bytes());
            }
            batch.put(family, LAST, &number.to_be_bytes());
        }
        db.kv.write(&batch).unwrap();
    }
}

/// Checks that the database holds exactly the batches 1 to n, and says n.
fn check_prefix(db: &Db<'_>) -> u64 {
    let last = |family| {
        let number = db.kv.get(family, LAST).unwrap();
        number.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
    };
    let n = last(META);
    assert_eq!((last(SMALL), last(LARGE)), (n, n), "families of different age");
    let mut expected: Vec<_> = (1..=n)
        .filter(|number| number % 3 != 2 || *number == n)
        .map(|number| (number.to_be_bytes().to_vec(), large_value(number)))
        .collect();
    if n > 0 {
        expected.push((LAST.to_vec(), n.to_be_bytes().to_vec()));
    }
    for family in ALL {
        assert!(rows(&*db.kv, family) == expected, "family {family:?} is not the batches 1 to {n}");
    }
    n
}
