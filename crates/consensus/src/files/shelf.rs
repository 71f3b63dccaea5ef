use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{FilesError, Manifest, StateFile};
use crate::ids::GroupId;

/// The states that a node keeps for others to fetch. Clones are the same shelf.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<Mutex<BTreeMap<(GroupId, u128), Arc<Kept>>>>);

#[derive(Debug)]
struct Kept {
    folder: PathBuf,
    manifest: Manifest,
}

impl Shelf {
    /// Keeps a folder, which must not change until it is taken away.
    pub fn put(&self, group: GroupId, folder: PathBuf, manifest: Manifest) {
        self.lock().insert((group, manifest.offer()), Arc::new(Kept { folder, manifest }));
    }

    /// Ends an offer; returns the folder, which may go now. Files that are being read stay readable where the system
    /// keeps what is open.
    pub fn take_away(&self, group: GroupId, offer: u128) -> Option<PathBuf> {
        self.lock().remove(&(group, offer)).map(|kept| kept.folder.clone())
    }

    /// Opens a file of an offer for reading. Only what its manifest names can be opened.
    ///
    /// # Errors
    /// [`FilesError::Gone`] for what is not offered, or what the system says.
    pub fn open(&self, group: GroupId, offer: u128, name: &str) -> Result<(File, StateFile), FilesError> {
        let gone = |what: String| FilesError::Gone { group, what };
        // Not under the lock: a disk may take its time.
        let kept = self.lock().get(&(group, offer)).cloned();
        let kept = kept.ok_or_else(|| gone(format!("the state {offer:032x}")))?;
        let file =
            kept.manifest.file(name).ok_or_else(|| gone(format!("a file of that name in state {offer:032x}")))?;
        let path = kept.folder.join(&file.name);
        match File::open(&path) {
            Ok(open) => Ok((open, file.clone())),
            // It was taken away in between.
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(gone(format!("the state {offer:032x}")))
            }
            Err(source) => Err(FilesError::Io { path, source }),
        }
    }

    /// The offers of all groups.
    pub fn offers(&self) -> Vec<(GroupId, u128)> {
        self.lock().keys().copied().collect()
    }

    /// A panic elsewhere leaves the map whole: it is changed by single calls.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(GroupId, u128), Arc<Kept>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
