//! Whether a state machine's group has had a log.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

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
        GroupSpec { group, found_with: (!self.is_set()).then_some(founders), floor: None }
    }

    /// Says, durably, that there is a log.
    ///
    /// # Errors
    /// What the system says.
    pub fn set(&self) -> io::Result<()> {
        match fs::create_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => made?,
        }
        self.sync_parent()
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
        match self.sync_parent() {
            // It is gone with its folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            synced => synced,
        }
    }

    fn sync_parent(&self) -> io::Result<()> {
        self.0.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
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
}
