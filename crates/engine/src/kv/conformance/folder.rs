use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Db, FAMILIES, Harness, LARGE, META, SMALL, large_value, rows};
use crate::kv::{Family, FamilySpec, KvError};

pub(super) fn families_are_known_by_name(harness: &dyn Harness) {
    let db = Db::create(harness);
    db.write(|batch| {
        batch.put(SMALL, b"in", b"small");
        batch.put(LARGE, b"in", b"large");
        batch.put(META, b"in", b"meta");
    });
    db.kv.flush().unwrap();
    let Db { dir, kv, .. } = db;
    drop(kv);
    let turned = [FAMILIES[2], FamilySpec::new("added"), FAMILIES[0], FAMILIES[1]];
    let kv = harness.engine().open(&dir, &turned, &harness.options()).unwrap();
    for (i, family) in turned.iter().enumerate() {
        let expected = (family.name != "added").then(|| family.name.as_bytes().to_vec());
        assert_eq!(kv.get(Family::new(i), b"in").unwrap(), expected, "{}", family.name);
    }
}

pub(super) fn an_unknown_family_is_a_newer_version(harness: &dyn Harness) {
    let db = Db::create(harness);
    db.kv.flush().unwrap();
    let Db { dir, kv, .. } = db;
    drop(kv);
    let error = harness.engine().open(&dir, &FAMILIES[..2], &harness.options()).map(|_| ()).unwrap_err();
    assert!(matches!(&error, KvError::NewerVersion { found, .. } if found.contains("meta")), "{error}");
    harness.engine().open(&dir, &FAMILIES, &harness.options()).unwrap();
}

pub(super) fn a_database_is_open_once(harness: &dyn Harness) {
    let db = Db::create(harness);
    db.write(|batch| batch.put(SMALL, b"key", b"value"));
    let second = harness.engine().open(&db.dir, &FAMILIES, &harness.options()).map(|_| ()).unwrap_err();
    assert_eq!(second, KvError::Locked { dir: db.dir.clone() });
    assert!(second.to_string().contains(db.dir.to_str().unwrap()), "the message names the folder: {second}");
    db.kv.flush().unwrap();
    assert_eq!(rows(&*db.kv, SMALL).len(), 1, "the first handle does not mind");
    db.reopen();
}

pub(super) fn reading_alone_changes_nothing(harness: &dyn Harness) {
    let engine = harness.engine();
    let nowhere = harness.fresh_dir();
    assert!(engine.open_read_only(&nowhere, &FAMILIES, &harness.options()).is_err(), "there is nothing to read");
    assert!(!nowhere.exists(), "the folder was made");

    let db = Db::create(harness);
    db.write(|batch| {
        batch.put(SMALL, b"key", b"value");
        batch.put(LARGE, b"key", &large_value(0));
    });
    db.kv.flush().unwrap();
    let Db { dir, kv, .. } = db;
    drop(kv);
    let before = files_in(&dir);
    let read = engine.open_read_only(&dir, &FAMILIES, &harness.options()).unwrap();
    assert_eq!(read.get(SMALL, b"key").unwrap(), Some(b"value".to_vec()));
    assert_eq!(rows(&*read, LARGE), [(b"key".to_vec(), large_value(0))]);
    read.multi_get(LARGE, &[b"key", b"none"], &mut |i, value| assert_eq!(value.is_some(), i == 0)).unwrap();
    drop(read);
    let unlisted = engine.open_read_only(&dir, &FAMILIES[..2], &harness.options()).map(|_| ()).unwrap_err();
    assert!(matches!(&unlisted, KvError::NewerVersion { .. }), "{unlisted}");
    assert!(files_in(&dir) == before, "the folder has changed");
    assert_eq!(rows(&*Db::open(harness, dir).kv, SMALL).len(), 1);
}

/// The files of a folder with their content; none for an engine that has no folder.
fn files_in(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(dir) else { return BTreeMap::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), std::fs::read(&path).unwrap_or_default())).collect()
}

pub(super) fn destroy_removes_a_closed_database(harness: &dyn Harness) {
    let db = Db::create(harness);
    db.write(|batch| batch.put(LARGE, b"key", &large_value(0)));
    db.kv.flush().unwrap();
    let engine = harness.engine();
    assert_eq!(engine.destroy(&db.dir), Err(KvError::Locked { dir: db.dir.clone() }));
    assert_eq!(db.kv.get(LARGE, b"key").unwrap(), Some(large_value(0)), "a refused destroy removes nothing");
    let Db { dir, kv, .. } = db;
    drop(kv);
    engine.destroy(&dir).unwrap();
    engine.destroy(&dir).unwrap();
    assert_eq!(rows(&*Db::open(harness, dir).kv, LARGE), []);
}

pub(super) fn health_names_the_families(harness: &dyn Harness) {
    let db = Db::create(harness);
    for i in 0..100_u32 {
        db.write(|batch| batch.put(SMALL, &i.to_be_bytes(), b"value"));
    }
    let snapshot = db.kv.snapshot();
    let health = db.kv.health();
    assert!(health.families.iter().map(|family| family.name).eq(FAMILIES.map(|family| family.name)));
    assert_eq!((health.write_error.as_ref(), health.write_stopped), (None, false));
    assert_eq!(health.families[SMALL.index()].keys, 100);
    assert!(health.families[SMALL.index()].unflushed_bytes > 0);
    assert_eq!(health.snapshots, 1);
    drop(snapshot);
    assert_eq!(db.kv.health().snapshots, 0);
}
