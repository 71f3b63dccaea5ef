//! Whether a state machine's group has had a log.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::files::sync_parent;
use crate::ids::{GroupId, NodeId};
use crate::settings::GroupSpec;

const NAME: &str = "has-log";

/// Beside a state machine: says that its group has a log, also when the log is gone. A member that founded its group once more would
/// vote a second time in terms in which it has voted, and would lack what was not flushed.
///
/// It is an empty folder: all that it says is that it is there, which no damaged byte can change.
#[derive(Clone, Debug)]
pub struct LogMark(PathBuf);

impl LogMark {
    /// The mark in the folder of a state machine.
    pub fn in_folder(dir: &Path) -> Self {
        Self(dir.join(NAME))
    }

    /// Whether there has been a log.
    pub fn is_set(&self) -> bool {
        // What cannot be looked at is not known to be missing, and to found a group twice is worse than not to open it.
        self.0.try_exists().unwrap_or(true)
    }

    /// How the group is opened: founded only if it never was.
    pub fn spec(&self, group: GroupId, founders: Vec<NodeId>) -> GroupSpec {
        GroupSpec {
            group,
            found_with: (!self.is_set()).then_some(founders),
            found_at: None,
            floor: None,
            stands_first: false,
            alone_from: None,
        }
    }

    /// Says, durably, that there is a log.
    ///
    /// # Errors
    /// What the system says.
    pub fn set(&self) -> io::Result<()> {
        match fs::create_dir(&self.0) {
            // Perhaps by an attempt before, of which it is not known whether it is on disk.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        sync_parent(&self.0)
    }

    /// Says, durably, that there is none: before the log is removed.
    ///
    /// # Errors
    /// What the system says.
    pub fn clear(&self) -> io::Result<()> {
        match fs::remove_dir(&self.0) {
            // Perhaps by an attempt before, of which it is not known whether it is on disk.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        match sync_parent(&self.0) {
            // It is gone with its folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            synced => synced,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_founded_once() {
        let dir = tempfile::tempdir().unwrap();
        let mark = LogMark::in_folder(dir.path());
        let found_with = || mark.spec(GroupId(7), vec![NodeId(1)]).found_with;
        mark.clear().unwrap();
        assert_eq!(found_with(), Some(vec![NodeId(1)]));
        for _ in 0..2 {
            mark.set().unwrap();
            assert!(mark.is_set());
            assert_eq!(found_with(), None);
        }
        mark.clear().unwrap();
        assert!(!mark.is_set());
    }

    #[test]
    fn a_mark_that_cannot_be_looked_at_counts_as_set_and_one_that_cannot_be_changed_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        // Below a file there is no folder, and nobody can say what would be in it.
        let mark = LogMark::in_folder(&file);
        assert!(mark.is_set(), "a group must not be founded twice");
        assert_eq!(mark.spec(GroupId(7), vec![NodeId(1)]).found_with, None);
        assert_eq!(mark.set().unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(mark.clear().unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn a_mark_is_not_made_without_its_folder_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mark = LogMark::in_folder(&dir.path().join("gone"));
        assert_eq!(mark.set().unwrap_err().kind(), io::ErrorKind::NotFound);
        mark.clear().unwrap();
        assert!(!mark.is_set());
    }

    #[test]
    fn a_mark_with_something_in_it_stays_and_that_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mark = LogMark::in_folder(dir.path());
        mark.set().unwrap();
        fs::write(dir.path().join(NAME).join("file"), b"").unwrap();
        assert_eq!(mark.clear().unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
        assert!(mark.is_set());
    }
}
