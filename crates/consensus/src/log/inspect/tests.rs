use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::SystemTime;

use super::super::conformance::{entry, found, write_entries};
use super::*;
use crate::driver::open::FOUNDING;

const GROUP: GroupId = GroupId(5);

/// A closed log of several files, with entries up to 41.
fn filled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let settings = RaftEngineSettings { file_bytes: 4 << 10, purge_bytes: 16 << 10 };
    let log = RaftEngineLog::open(folder.path(), settings).unwrap();
    found(&log, GROUP);
    for index in 2..=41 {
        log.append(&write_entries(GROUP, vec![entry(index, 1, &[index as u8; 500])])).unwrap();
    }
    folder
}

/// Every file with what is in it and when it was changed.
fn picture(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let paths = fs::read_dir(folder).unwrap().map(|item| item.unwrap().path());
    paths.map(|path| (path.clone(), (fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap()))).collect()
}

fn log_paths(folder: &Path) -> Vec<PathBuf> {
    log_files(folder).unwrap().into_iter().map(|(_, _, path)| path).collect()
}

#[test]
fn an_inspector_sees_what_the_log_holds_and_changes_nothing() {
    let folder = filled();
    // A record that was being written when the power went: opening for good would cut it off.
    let last = log_paths(folder.path()).pop().unwrap();
    let end = last.metadata().unwrap().len();
    File::options().write(true).open(&last).unwrap().write_all_at(&[7; 100], end).unwrap();
    let before = picture(folder.path());
    assert!(log_paths(folder.path()).len() > 3, "several files: {before:?}");

    let inspector = LogInspector::open(folder.path()).unwrap();
    let scratch = inspector.scratch.path.clone();
    assert_eq!(inspector.groups().unwrap(), [GROUP]);
    let state = inspector.state(GROUP).unwrap().unwrap();
    assert_eq!((state.truncated, state.last), (FOUNDING, Position { index: 41, term: 1 }));
    inspector.verify(GROUP).unwrap();
    inspector.check_continuity(GROUP, Position { index: 41, term: 1 }, None).unwrap();
    assert!(scratch.is_dir());
    drop(inspector);
    assert!(!scratch.exists());
    assert!(picture(folder.path()) == before, "the log was changed");
}

#[test]
fn a_copy_has_every_entry_takes_all_of_them_for_agreed_and_is_nobody_elses() {
    let folder = filled();
    let before = picture(folder.path());
    let inspector = LogInspector::open(folder.path()).unwrap();
    let held = inspector.state(GROUP).unwrap().unwrap();
    let copy = inspector.agreed(GROUP).unwrap().unwrap();
    let copied = copy.load(GROUP).unwrap().unwrap();
    assert!(held.hard_state.commit < held.last.index, "of what is in the log some is not known to be agreed");
    assert_eq!(copied.hard_state.commit, held.last.index);
    assert_eq!((copied.meta, copied.truncated, copied.last), (held.meta, held.truncated, held.last));
    let all = 2..42;
    let entries = copy.entries(GROUP, all.clone(), u64::MAX).unwrap();
    assert_eq!(entries, inspector.log.entries(GROUP, all, u64::MAX).unwrap());
    copy.append(&write_entries(GROUP, vec![entry(42, 9, b"more")])).unwrap();
    assert_eq!(inspector.state(GROUP).unwrap().unwrap().last.index, 41);
    assert!(inspector.agreed(GroupId(6)).unwrap().is_none());
    drop(inspector);
    assert!(picture(folder.path()) == before, "the log was changed");
}

#[test]
fn what_was_applied_must_be_in_the_log() {
    let folder = filled();
    let inspector = LogInspector::open(folder.path()).unwrap();
    let at = |index, term| Position { index, term };
    let refused = |applied, installed| inspector.check_continuity(GROUP, applied, installed).unwrap_err().to_string();
    assert!(refused(at(50, 1), None).contains("the log ends at index 41"));
    assert!(refused(at(20, 3), None).contains("has term 1 there"));
    // A state that came whole and has no log yet gets one when it is opened.
    inspector.check_continuity(GROUP, at(50, 2), Some(at(50, 2))).unwrap();
    assert!(refused(at(50, 2), Some(at(49, 2))).contains("the log ends at index 41"));
    let absent = inspector.check_continuity(GroupId(6), at(20, 1), None).unwrap_err();
    assert!(matches!(absent, ConsensusError::Absent { .. }), "{absent}");
}

#[test]
fn damage_is_told_with_the_file_that_it_is_in() {
    let folder = filled();
    let root = folder.path().canonicalize().unwrap();
    for path in log_paths(&root) {
        let sound = fs::read(&path).unwrap();
        let mut damaged = sound.clone();
        let middle = sound.len() / 2;
        damaged[middle] ^= 4;
        fs::write(&path, &damaged).unwrap();
        let found = LogInspector::open(&root).and_then(|inspector| inspector.verify(GROUP)).unwrap_err();
        assert!(matches!(&found, LogError::Corrupt { file, .. } if *file == path), "{found}");
        assert!(fs::read(&path).unwrap() == damaged);
        fs::write(&path, sound).unwrap();
    }
    fs::write(root.join(MARK_FILE), b"no mark").unwrap();
    let found = LogInspector::open(&root).map(drop).unwrap_err().to_string();
    assert!(found.contains(&*root.join(MARK_FILE).to_string_lossy()) && !found.contains("sagitta-log-"), "{found}");
}
