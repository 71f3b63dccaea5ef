use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use super::super::conformance::{self, entry, found, write_entries};
use super::*;

const GROUP: GroupId = GroupId(5);

/// In memory where the system has such a place: these tests sync tens of thousands of times.
fn memory_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn small() -> RaftEngineSettings {
    RaftEngineSettings { file_bytes: 4 << 10, purge_bytes: 16 << 10 }
}

fn open(folder: &Path) -> Result<RaftEngineLog, LogError> {
    RaftEngineLog::open(folder, small())
}

/// Everything the log holds of the group, or the first error on the way.
fn read_all(folder: &Path) -> Result<Vec<Entry>, LogError> {
    let log = open(folder)?;
    let state = log.load(GROUP)?.ok_or(LogError::NoEntry { group: GROUP, index: 0 })?;
    if state.last == state.truncated {
        return Ok(Vec::new());
    }
    log.entries(GROUP, state.truncated.index + 1..state.last.index + 1, u64::MAX)
}

/// A closed log of `batches` batches of two entries.
fn filled(batches: u64, bytes: usize) -> (tempfile::TempDir, Vec<Entry>) {
    let folder = memory_folder();
    let log = open(folder.path()).unwrap();
    found(&log, GROUP);
    let mut all = Vec::new();
    for batch in 0..batches {
        let entries: Vec<_> =
            (0..2).map(|n| entry(2 + 2 * batch + n, 1, &vec![(7 * batch + n) as u8; bytes])).collect();
        log.append(&write_entries(GROUP, entries.clone())).unwrap();
        all.extend(entries);
    }
    drop(log);
    (folder, all)
}

fn log_paths(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|item| item.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "raftlog" || end == "rewrite"));
    paths.sort();
    paths
}

fn copied(folder: &Path) -> tempfile::TempDir {
    let copy = memory_folder();
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

#[test]
fn the_log_on_disk_conforms() {
    conformance::run(|| {
        let folder = memory_folder();
        let log: Mutex<Option<Arc<dyn LogStore>>> = Mutex::new(None);
        Box::new(move |reopen| {
            let mut log = log.lock().unwrap();
            if reopen && let Some(old) = log.take() {
                assert_eq!(Arc::strong_count(&old), 1, "the test still holds the old log");
            }
            log.get_or_insert_with(|| Arc::new(open(folder.path()).unwrap())).clone()
        })
    });
}

/// Flips one bit in every byte of a file. Each must be reported with the file's name, or change nothing.
fn flip_through(path: &Path, written: &[Entry], read: impl Fn() -> Result<Vec<Entry>, LogError>) -> usize {
    let sound = fs::read(path).unwrap();
    let mut harmless = 0;
    for byte in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[byte] ^= 1 << (byte % 8);
        fs::write(path, damaged).unwrap();
        match read() {
            Err(LogError::Corrupt { file, what }) => assert_eq!(file, path, "byte {byte}: {what}"),
            Err(other) => panic!("byte {byte} of {}: {other}", path.display()),
            Ok(found) => {
                assert_eq!(found, written, "byte {byte} of {} passed unnoticed", path.display());
                harmless += 1;
            }
        }
        fs::write(path, &sound).unwrap();
    }
    println!("{}: {} flips, {harmless} without effect", path.display(), sound.len());
    // The library's file header holds an alignment that is not used.
    assert!(harmless <= 8, "{harmless}");
    sound.len()
}

#[test]
fn a_flipped_bit_in_synced_data_is_refused_and_the_file_is_named() {
    let (folder, written) = filled(9, 250);
    let paths = log_paths(folder.path());
    assert!(paths.len() > 2, "several files: {paths:?}");
    let flips: usize = paths.iter().map(|path| flip_through(path, &written, || read_all(folder.path()))).sum();
    assert!(flips > 4_000, "{flips}");
    assert_eq!(read_all(folder.path()).unwrap(), written);
}

#[test]
fn a_lost_or_shortened_file_is_refused_and_named() {
    let (sound, _) = filled(20, 500);
    for path in log_paths(sound.path()) {
        let name = path.file_name().unwrap();
        let bytes = fs::read(&path).unwrap();
        if bytes.len() < 200 {
            continue; // The empty first file of the other series holds nothing to lose.
        }
        let copy = copied(sound.path());
        fs::remove_file(copy.path().join(name)).unwrap();
        assert!(matches!(read_all(copy.path()), Err(LogError::Corrupt { .. })), "without {name:?}");
        for keep in [0, 1, 80, bytes.len() / 2, bytes.len() - 1] {
            let copy = copied(sound.path());
            fs::write(copy.path().join(name), &bytes[..keep]).unwrap();
            let error = read_all(copy.path()).unwrap_err();
            assert!(matches!(error, LogError::Corrupt { .. }), "{keep} bytes of {name:?}: {error}");
        }
    }
}

#[test]
fn a_torn_unsynced_tail_is_dropped_and_what_was_synced_stays() {
    let (sound, written) = filled(3, 300);
    let newest = log_paths(sound.path()).into_iter().rfind(|path| path.extension().unwrap() == "raftlog").unwrap();
    let before = fs::read(&newest).unwrap();
    // What one more batch would look like on disk, if it were cut off at any byte.
    let longer = copied(sound.path());
    let log = open(longer.path()).unwrap();
    log.append(&write_entries(GROUP, vec![entry(8, 1, &[9; 300])])).unwrap();
    drop(log);
    let after = fs::read(longer.path().join(newest.file_name().unwrap())).unwrap();
    assert_eq!(before, after[..before.len()]);
    for cut in before.len()..=after.len() {
        for zeros in [0, 700] {
            let copy = copied(sound.path());
            let torn = [&after[..cut], &vec![0; zeros]].concat();
            fs::write(copy.path().join(newest.file_name().unwrap()), torn).unwrap();
            let read = read_all(copy.path()).unwrap();
            assert_eq!(read[..written.len()], written, "cut at {cut}");
            assert_eq!(read.len() > written.len(), cut == after.len(), "cut at {cut}, {zeros} zeros");
            // And it goes on from there.
            let log = open(copy.path()).unwrap();
            let next = written.len() as u64 + 2;
            log.append(&write_entries(GROUP, vec![entry(next, 2, b"next")])).unwrap();
            drop(log);
            assert_eq!(read_all(copy.path()).unwrap().last().unwrap(), &entry(next, 2, b"next"));
        }
    }
}

#[test]
fn a_damaged_or_missing_mark_is_refused_and_named() {
    let (sound, _) = filled(2, 50);
    let mark = sound.path().join(mark::FILE_NAME);
    let bytes = fs::read(&mark).unwrap();
    fs::write(&mark, vec![0xee; bytes.len()]).unwrap();
    assert!(matches!(read_all(sound.path()), Err(LogError::Corrupt { file, .. }) if file == mark));
    fs::remove_file(&mark).unwrap();
    assert!(matches!(read_all(sound.path()), Err(LogError::Corrupt { file, .. }) if file == mark));
}

#[test]
fn a_first_start_that_was_cut_short_is_no_obstacle() {
    let folder = memory_folder();
    fs::write(folder.path().join(mark::FILE_NAME), b"").unwrap();
    found(&open(folder.path()).unwrap(), GROUP);
    assert_eq!(read_all(folder.path()).unwrap(), []);
}

#[test]
fn a_failed_fsync_closes_the_log_and_what_was_not_acknowledged_is_cut_on_opening() {
    let (folder, written) = filled(3, 300);
    let log = open(folder.path()).unwrap();
    log.watch.faults.sync_fails.store(true, std::sync::atomic::Ordering::Relaxed);
    let batch = write_entries(GROUP, vec![entry(8, 1, b"never acknowledged")]);
    assert!(matches!(log.append(&batch), Err(LogError::SyncFailed { .. })));
    log.watch.faults.sync_fails.store(false, std::sync::atomic::Ordering::Relaxed);
    for _ in 0..2 {
        assert!(matches!(log.append(&batch), Err(LogError::Closed { .. })), "no second chance");
    }
    assert!(log.purge().is_err());
    drop(log);
    assert_eq!(read_all(folder.path()).unwrap(), written);
    let log = open(folder.path()).unwrap();
    log.append(&batch).unwrap();
}

#[test]
fn a_full_disk_leaves_everything_as_it_was_and_can_be_retried() {
    let (folder, written) = filled(3, 300);
    let log = open(folder.path()).unwrap();
    log.watch.faults.disk_is_full.store(true, std::sync::atomic::Ordering::Relaxed);
    let batch = write_entries(GROUP, vec![entry(8, 1, b"later")]);
    for _ in 0..3 {
        let error = log.append(&batch).unwrap_err();
        assert!(matches!(error, LogError::Full { .. }), "{error}");
        assert_eq!(log.load(GROUP).unwrap().unwrap().last.index, 7);
    }
    log.watch.faults.disk_is_full.store(false, std::sync::atomic::Ordering::Relaxed);
    log.append(&batch).unwrap();
    drop(log);
    assert_eq!(read_all(folder.path()).unwrap().len(), written.len() + 1);
}

#[test]
fn one_process_at_a_time() {
    let (folder, _) = filled(1, 10);
    let _first = open(folder.path()).unwrap();
    assert!(open(folder.path()).err().unwrap().to_string().contains("another process"));
}

#[test]
fn truncated_space_is_given_back_and_what_is_left_survives_flips_too() {
    let folder = memory_folder();
    let log = open(folder.path()).unwrap();
    let idle = GroupId(6);
    for group in [GROUP, idle] {
        found(&log, group);
    }
    log.append(&write_entries(idle, vec![entry(2, 1, b"old and kept")])).unwrap();
    for index in 2..400 {
        let mut batch = write_entries(GROUP, vec![entry(index, 1, &[index as u8; 400])]);
        if index > 20 {
            batch.writes[0].truncate = Some(Position { index: index - 10, term: 1 });
        }
        log.append(&batch).unwrap();
        if index % 50 == 0 {
            log.purge().unwrap();
        }
    }
    log.purge().unwrap();
    drop(log);
    let bytes: u64 = log_paths(folder.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(bytes < 64 << 10, "{bytes} bytes left");
    let rewritten: Vec<_> =
        log_paths(folder.path()).into_iter().filter(|path| path.extension().unwrap() == "rewrite").collect();
    let newest = rewritten.last().unwrap();
    let kept = [entry(2, 1, b"old and kept")];
    let flips = flip_through(newest, &kept, || open(folder.path())?.entries(idle, 2..3, 0));
    assert!(flips > 100, "the idle group moved to the other series");
}

/// As a killed process leaves it: closing would tidy up.
#[test]
fn a_file_that_a_full_disk_let_begin_but_not_write_is_no_damage() {
    let folder = memory_folder();
    let log = open(folder.path()).unwrap();
    found(&log, GROUP);
    let batch = |index: u64| vec![entry(index, 1, &[7; 300])];
    log.append(&write_entries(GROUP, batch(2))).unwrap();
    let files = log_paths(folder.path()).len();
    let full = |is: bool| log.watch.faults.disk_is_full.store(is, std::sync::atomic::Ordering::Relaxed);
    full(true);
    assert!(matches!(log.append(&write_entries(GROUP, batch(3))), Err(LogError::Full { .. })));
    assert!(log_paths(folder.path()).len() > files, "the library begins a new file");
    full(false);
    log.append(&write_entries(GROUP, batch(3))).unwrap();
    let killed = copied(folder.path());
    let written = [batch(2), batch(3)].concat();
    assert_eq!(read_all(killed.path()).unwrap(), written);
    assert_eq!(read_all(killed.path()).unwrap(), written, "once more");
}
