//! A shard as a folder of files: made for other replicas to fetch, and taken over from one of them.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};

use sagitta_engine::kv::WriteBatch;

use crate::codec::Record;
use crate::folder::{Folder, io_error, remove};
use crate::layout::{INSTALLED_KEY, MEMBERS_KEY, META};
use crate::records::{Installed, Members};
use crate::{ReadView, Shard, ShardError};

/// Where a checkpoint stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log index up to which everything is in it.
    pub applied_index: u64,
    /// Term of the log entry there.
    pub applied_term: u64,
    /// As [`ReadView::members`].
    pub members: Option<Vec<u8>>,
}

impl Shard {
    /// Makes a folder that, opened as a shard, is this one as of one applied index: a checkpoint of the database and the files
    /// of the sealed segments, by hard links. Fast for any size, but it flushes; entries wait for the last part of that.
    ///
    /// # Errors
    /// The folder is gone again. [`ShardError::Io`] if it exists.
    pub fn checkpoint(&self, dir: &Path) -> Result<Checkpoint, ShardError> {
        // Before the lock is taken, so that there is little left to flush under it.
        self.flush()?;
        fs::create_dir(dir).map_err(|source| io_error(dir, source))?;
        let made = self.checkpoint_into(dir);
        if made.is_err()
            && let Err(error) = remove(dir)
        {
            tracing::warn!(%error, "an unfinished checkpoint cannot be removed");
        }
        made
    }

    fn checkpoint_into(&self, dir: &Path) -> Result<Checkpoint, ShardError> {
        let to = Folder::create(dir)?;
        // While it is held no entry is applied and no segment replaced, and the folders of present segments stay.
        let state = self.lock_state()?;
        self.kv.checkpoint(&to.database())?;
        for entry in &state.manifest.segments {
            link_all(&self.folder.segment(entry.id), &to.segment(entry.id))?;
        }
        Ok(Checkpoint::of(&self.view()))
    }

    /// Notes that this shard was fetched whole from another replica, and who belongs to the group as of it: durable when it
    /// returns.
    ///
    /// # Errors
    /// [`ShardError::Kv`].
    pub fn mark_installed(&self, members: &[u8]) -> Result<(), ShardError> {
        let mut state = self.lock_state()?;
        let installed = Installed { index: state.head.applied_index, term: state.head.applied_term };
        let mut batch = WriteBatch::new();
        batch.put(META, INSTALLED_KEY, &installed.to_sealed());
        batch.put(META, MEMBERS_KEY, &Members(members.to_vec()).to_sealed());
        self.kv.write(&batch)?;
        state.members = Some(members.into());
        self.publish(&state);
        drop(state);
        self.flush()?;
        *self.lock_installed() = Some(installed);
        Ok(())
    }

    /// Index and term at which it was fetched whole from another replica, if it was.
    pub fn installed(&self) -> Option<(u64, u64)> {
        self.lock_installed().map(|installed| (installed.index, installed.term))
    }

    fn lock_installed(&self) -> MutexGuard<'_, Option<Installed>> {
        self.installed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checkpoint {
    fn of(view: &Arc<ReadView>) -> Self {
        let members = view.members().map(<[u8]>::to_vec);
        Self { applied_index: view.applied_index(), applied_term: view.applied_term(), members }
    }
}

/// Links all files below a folder. What is missing of a derived folder is found missing, and made anew, by whoever
/// opens it.
pub(crate) fn link_all(from: &Path, to: &Path) -> Result<(), ShardError> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|source| io_error(from, source))?,
    };
    fs::create_dir(to).map_err(|source| io_error(to, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| io_error(from, source))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(|source| io_error(&from, source))?;
        if kind.is_dir() {
            link_all(&from, &to)?;
        } else if kind.is_file() {
            fs::hard_link(&from, &to).map_err(|source| io_error(&to, source))?;
        }
    }
    Ok(())
}
