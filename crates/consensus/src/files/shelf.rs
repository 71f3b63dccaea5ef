use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{FilesError, Manifest, PartKeeper, Parts, StateFile};
use crate::ids::GroupId;

/// The states, and parts of such, that a node keeps for others to fetch. Clones are the same shelf.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Mutex<Boards>>);

#[derive(Default)]
struct Boards {
    kept: BTreeMap<(GroupId, u128), Arc<Kept>>,
    keepers: BTreeMap<GroupId, Weak<dyn PartKeeper>>,
}

struct Kept {
    folder: PathBuf,
    manifest: Manifest,
    is_part: bool,
}

impl Shelf {
    /// Keeps a folder, which must not change until it is taken away.
    pub fn put(&self, group: GroupId, folder: PathBuf, manifest: Manifest) {
        self.keep(group, Kept { folder, manifest, is_part: false });
    }

    /// Keeps the folder of a part. It may be removed at any time, after which what is asked of it is gone.
    pub fn put_part(&self, group: GroupId, folder: PathBuf, manifest: Manifest) {
        self.keep(group, Kept { folder, manifest, is_part: true });
    }

    fn keep(&self, group: GroupId, kept: Kept) {
        self.lock().kept.insert((group, kept.manifest.offer()), Arc::new(kept));
    }

    /// Ends an offer; returns the folder, which may go now. Files that are being read stay readable where the system
    /// keeps what is open.
    pub fn take_away(&self, group: GroupId, offer: u128) -> Option<PathBuf> {
        self.lock().kept.remove(&(group, offer)).map(|kept| kept.folder.clone())
    }

    /// Opens a file of an offer for reading. Only what its manifest names can be opened.
    ///
    /// # Errors
    /// [`FilesError::Gone`] for what is not offered, or what the system says.
    pub fn open(&self, group: GroupId, offer: u128, name: &str) -> Result<(File, StateFile), FilesError> {
        let gone = |what: String| FilesError::Gone { group, what };
        // Not under the lock: a disk may take its time.
        let kept = self.lock().kept.get(&(group, offer)).cloned();
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

    /// The offers of all groups, without parts.
    pub fn offers(&self) -> Vec<(GroupId, u128)> {
        self.lock().kept.iter().filter(|(_, kept)| !kept.is_part).map(|(key, _)| *key).collect()
    }

    /// Says who knows of the parts of a group's state, for as long as it is there; in the place of who knew before.
    pub fn introduce(&self, group: GroupId, keeper: Weak<dyn PartKeeper>) {
        let mut boards = self.lock();
        boards.keepers.retain(|_, keeper| keeper.strong_count() > 0);
        boards.keepers.insert(group, keeper);
    }

    /// The parts of a group's state that can be fetched here; `None` for a group that has no member here.
    pub fn parts(&self, group: GroupId) -> Option<Parts> {
        // Not under the lock, since the keeper may use the shelf.
        let keeper = self.lock().keepers.get(&group).and_then(Weak::upgrade);
        keeper.map(|keeper| keeper.parts())
    }

    /// A panic elsewhere leaves the maps whole: they are changed by single calls.
    fn lock(&self) -> MutexGuard<'_, Boards> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shelf").field(&self.offers()).finish()
    }
}
