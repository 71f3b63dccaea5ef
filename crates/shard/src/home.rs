//! The folder that a replica lives in: which of the states in it is the present one.
//!
//! A replica begins in the folder itself. One that was fetched whole from another replica is in a folder of its own below it,
//! `state-<number>`, from the first byte on; it takes the place of the present one when the file `current` names
//! it, which one rename does. So a crash leaves the old state or the new one, and whoever still reads the old one goes on
//! doing so: its files are removed when nobody does.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sagitta_engine::kv::{KvEngine, KvError};

use crate::ShardError;
use crate::folder::{Folder, io_error, list, remove, sync_folder};

/// Names the folder of the present state; without it that is the home itself.
const CURRENT: &str = "current";
const CURRENT_PARTIAL: &str = "current.partial";
const STATE_PREFIX: &str = "state-";
const OFFERS: &str = "offers";
const ARRIVALS: &str = "arrivals";

/// A replica's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

/// A step of [`Home::switch_to`] that has been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    Written,
    Renamed,
}

impl Home {
    /// Makes the folder if it is not there.
    ///
    /// # Errors
    /// [`ShardError::Io`].
    pub fn create(dir: &Path) -> Result<Self, ShardError> {
        fs::create_dir_all(dir).map_err(|source| io_error(dir, source))?;
        Ok(Self(dir.to_owned()))
    }

    /// The folder as it is, for looking at.
    pub(crate) fn at(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// The folder of the present state, for [`crate::Shard::open`].
    ///
    /// # Errors
    /// [`ShardError::Inconsistent`] if it names a state that is not there.
    pub fn current(&self) -> Result<PathBuf, ShardError> {
        let path = self.0.join(CURRENT);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.0.clone()),
            Err(source) => return Err(io_error(&path, source)),
        };
        let name = text.strip_suffix('\n').filter(|name| is_state(name));
        let state = name.map(|name| self.0.join(name)).filter(|state| state.is_dir());
        state.ok_or_else(|| ShardError::Inconsistent { what: format!("{} names {text:?}, no state", path.display()) })
    }

    /// Where a state that is being fetched is put; also the folder that it is opened in.
    pub fn incoming(&self, number: u128) -> PathBuf {
        self.0.join(format!("{STATE_PREFIX}{number:032x}"))
    }

    /// Where states are kept for other replicas to fetch.
    pub fn offers(&self) -> PathBuf {
        self.0.join(OFFERS)
    }

    /// Where segments of other replicas are put, each in a folder of its own, to be adopted.
    pub fn arrivals(&self) -> PathBuf {
        self.0.join(ARRIVALS)
    }

    /// Makes a state that is complete and on disk the present one, durably.
    ///
    /// # Errors
    /// [`ShardError::Io`] when the present one is as before; [`ShardError::SwitchInDoubt`] when it is the new one, and after a crash may be
    /// either: nothing may be written to either of them, or removed, before the home is opened anew.
    pub fn switch_to(&self, number: u128) -> Result<(), ShardError> {
        self.switch(number, None)
    }

    /// Does the steps up to one, or all.
    pub(crate) fn switch(&self, number: u128, last: Option<Switch>) -> Result<(), ShardError> {
        self.switch_with(number, last, &mut sync_folder)
    }

    fn switch_with(&self, number: u128, last: Option<Switch>, sync: &mut Sync<'_>) -> Result<(), ShardError> {
        let state = self.incoming(number);
        sync(&state)?;
        sync(&self.0)?;
        let partial = self.0.join(CURRENT_PARTIAL);
        let write = || {
            let mut file = File::create(&partial)?;
            writeln!(file, "{STATE_PREFIX}{number:032x}")?;
            file.sync_all()
        };
        write().map_err(|source| io_error(&partial, source))?;
        if last == Some(Switch::Written) {
            return Ok(());
        }
        let current = self.0.join(CURRENT);
        fs::rename(&partial, &current).map_err(|source| io_error(&current, source))?;
        if last == Some(Switch::Renamed) {
            return Ok(());
        }
        sync(&self.0).map_err(|error| match error {
            ShardError::Io { path, source } => ShardError::SwitchInDoubt { path, source },
            error => error,
        })
    }

    /// The states that are not the present one: replaced, or never arrived.
    pub(crate) fn other_states(&self, current: &Path) -> Result<Vec<PathBuf>, ShardError> {
        let is_other = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(is_state) && path != current
        };
        Ok(list(&self.0)?.into_iter().filter(is_other).collect())
    }

    /// Makes sure that what is present now is so after a crash, too: a switch may have failed before it was known to be on disk. To be
    /// called before anything here is opened or removed.
    ///
    /// # Errors
    /// What the system says. Nothing must be opened then: what goes on from one state would not fit the other one.
    pub fn settle(&self) -> Result<(), ShardError> {
        sync_folder(&self.0)
    }

    /// Removes whatever is neither the present state nor what is known: states that were replaced or did not arrive, segments that were
    /// not adopted, and what was offered. To be called after [`Home::settle`], and before anything here is open.
    ///
    /// # Errors
    /// What the system says. What is left goes the next time.
    pub fn clear(&self, kv: &dyn KvEngine) -> Result<(), ShardError> {
        let current = self.current()?;
        remove(&self.0.join(CURRENT_PARTIAL))?;
        remove(&self.offers())?;
        remove(&self.arrivals())?;
        for path in self.other_states(&current)? {
            self.remove_state(&path, kv)?;
        }
        if current != self.0 {
            self.remove_state(&self.0, kv)?;
        }
        Ok(())
    }

    /// Removes a state that is not the present one; false while somebody still reads it.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_state(&self, state: &Path, kv: &dyn KvEngine) -> Result<bool, ShardError> {
        let folder = Folder::at(state);
        match kv.destroy(&folder.database()) {
            Err(KvError::Locked { .. }) => return Ok(false),
            // A database that arrived in part may be none; what is left of it goes with its folder.
            Err(error) => tracing::debug!(%error, "a database is removed file by file"),
            Ok(()) => {}
        }
        if state != self.0 {
            remove(state)?;
            return Ok(true);
        }
        for path in [folder.database(), folder.segments(), folder.quarantine(), folder.half()] {
            remove(&path)?;
        }
        Ok(true)
    }
}

/// Makes what is in a folder durable.
type Sync<'a> = dyn FnMut(&Path) -> Result<(), ShardError> + 'a;

fn is_state(name: &str) -> bool {
    let number = name.strip_prefix(STATE_PREFIX);
    number.is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_that_cannot_be_made_durable_is_not_settled() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let home = Home::create(&dir.path().join("home")).expect("a home");
        home.settle().expect("it is there");
        fs::remove_dir(dir.path().join("home")).expect("removed");
        let error = home.settle().expect_err("nothing must be opened there");
        assert!(matches!(&error, ShardError::Io { path, .. } if *path == home.0), "{error}");
    }

    #[test]
    fn a_switch_that_fails_before_the_rename_changes_nothing_and_after_it_is_in_doubt() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let home = Home::create(dir.path()).expect("a home");
        fs::create_dir(home.incoming(7)).expect("a state");
        for fails_at in 1..=3 {
            let mut syncs = 0;
            let mut sync = |path: &Path| {
                syncs += 1;
                if syncs == fails_at { Err(io_error(path, io::Error::other("planted"))) } else { Ok(()) }
            };
            let error = home.switch_with(7, None, &mut sync).expect_err("planted");
            let present = home.current().expect("a state");
            match error {
                ShardError::Io { .. } => assert!(fails_at < 3 && present == dir.path(), "sync {fails_at}"),
                ShardError::SwitchInDoubt { .. } => {
                    assert!(fails_at == 3 && present == home.incoming(7), "sync {fails_at}");
                }
                other => panic!("{other}"),
            }
        }
    }
}
