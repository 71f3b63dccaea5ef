//! What is remembered of an import, so that one that was interrupted goes on where it stopped.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

/// Version of the file's layout; another one is taken for no file at all.
const LAYOUT: u32 = 1;

/// How much of a file's head and tail its identity covers, in bytes. With size and time of change that tells files apart
/// without reading them.
const IDENTITY_BYTES: u64 = 1 << 16;

/// A file's identity: the same file, unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileIdentity {
    path: String,
    size: u64,
    modified_nanos: u64,
    /// BLAKE3 of the first and the last bytes.
    ends: String,
}

impl FileIdentity {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut ends = blake3::Hasher::new();
        io::copy(&mut (&mut file).take(IDENTITY_BYTES), &mut ends)?;
        file.seek(SeekFrom::Start(metadata.len().saturating_sub(IDENTITY_BYTES)))?;
        io::copy(&mut file.take(IDENTITY_BYTES), &mut ends)?;
        Ok(Self {
            path: path.canonicalize()?.display().to_string(),
            size: metadata.len(),
            modified_nanos: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX),
            ends: ends.finalize().to_hex().to_string(),
        })
    }
}

/// What an import is: which files go into which collection, and how. Another one has its own memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The collection's UUID; one of the same name that is created later is another one.
    pub(super) collection: String,
    pub(super) files: Vec<FileIdentity>,
    /// How the files are read, in any stable form.
    pub(super) options: String,
}

/// How far an import got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    layout: u32,
    identity: Identity,
    /// Identity of this import and all its continuations: request ids follow from it, so that a batch whose
    /// acknowledgement was lost is not applied twice, while a later import of the same file is not taken for this one.
    pub(super) run: u128,
    /// All rows before this one were acknowledged.
    pub(super) next_row: u64,
}

/// The place where one import's progress is kept.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    saved: Saved,
}

impl Memory {
    /// Recalls an import that was interrupted, or begins to remember a new one under `run`. The second value says whether
    /// a file changed since an interrupted import of files of the same names.
    pub(super) fn recall(folder: &Path, identity: Identity, run: u128) -> (Self, bool) {
        let mut key = blake3::Hasher::new();
        for part in [&identity.collection, &identity.options] {
            key.update(part.as_bytes()).update(&[0]);
        }
        identity.files.iter().for_each(|file| {
            key.update(file.path.as_bytes()).update(&[0]);
        });
        let path = folder.join(format!("{}.json", &key.finalize().to_hex()[..32]));
        let saved = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Saved>(&bytes).ok());
        let saved = saved.filter(|saved| saved.layout == LAYOUT);
        let changed = saved.as_ref().is_some_and(|saved| saved.identity != identity);
        let fresh = Saved { layout: LAYOUT, identity: identity.clone(), run, next_row: 0 };
        let saved = saved.filter(|saved| saved.identity == identity).unwrap_or(fresh);
        (Self { path, saved }, changed)
    }

    /// Forgets how far the import got, so that it begins anew under `run`.
    pub(super) fn restart(&mut self, run: u128) {
        self.saved.run = run;
        self.saved.next_row = 0;
    }

    pub(super) fn run(&self) -> u128 {
        self.saved.run
    }

    pub(super) fn next_row(&self) -> u64 {
        self.saved.next_row
    }

    /// Remembers that all rows before `next_row` were acknowledged.
    pub(super) fn save(&mut self, next_row: u64) -> io::Result<()> {
        self.saved.next_row = next_row;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let fresh = self.path.with_extension("fresh");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(&self.saved)?)?;
        file.sync_all()?;
        fs::rename(fresh, &self.path)
    }

    /// Forgets an import that is complete.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            // A file where the folder should be: nothing can have been remembered there.
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Err(error),
            _ => Ok(()),
        }
    }

    /// Where it is kept.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The folder for what imports remember: `SAGITTA_STATE_DIR`, or the user's state folder.
pub(super) fn folder() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = || var("XDG_STATE_HOME").or_else(|| var("HOME").map(|home| home.join(".local/state")));
    var("SAGITTA_STATE_DIR").or_else(|| state().map(|state| state.join("sagitta"))).map(|folder| folder.join("imports"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(folder: &Path, collection: &str) -> Identity {
        let files = vec![FileIdentity::of(&folder.join("a.npy")).expect("a file")];
        Identity { collection: collection.into(), files, options: "ids".into() }
    }

    #[test]
    fn an_import_is_recalled_only_for_the_same_unchanged_files_and_collection() {
        let folder = tempfile::tempdir().expect("folder");
        let at = folder.path();
        fs::write(at.join("a.npy"), b"one").expect("writes");
        let state = at.join("deep/state");
        let recall = |collection: &str, run| Memory::recall(&state, identity(at, collection), run);

        let (mut memory, changed) = recall("c", u128::MAX);
        assert_eq!((memory.next_row(), memory.run(), changed), (0, u128::MAX, false));
        memory.save(500).expect("saves");
        let (memory, _) = recall("c", 2);
        assert_eq!((memory.next_row(), memory.run()), (500, u128::MAX));
        assert_eq!(recall("other", 3).0.next_row(), 0);

        fs::write(at.join("a.npy"), b"two").expect("writes");
        let (mut memory, changed) = recall("c", 4);
        assert_eq!((memory.next_row(), memory.run(), changed), (0, 4, true));
        memory.save(7).expect("saves");
        memory.restart(5);
        assert_eq!((memory.next_row(), memory.run()), (0, 5));
        memory.forget().expect("forgets");
        memory.forget().expect("has nothing to forget");
        assert_eq!(recall("c", 6).0.run(), 6);
    }

    #[test]
    fn a_damaged_memory_is_no_memory() {
        let folder = tempfile::tempdir().expect("folder");
        let at = folder.path();
        fs::write(at.join("a.npy"), b"one").expect("writes");
        let (mut memory, _) = Memory::recall(at, identity(at, "c"), 1);
        memory.save(9).expect("saves");
        fs::write(&memory.path, b"{\"layout\": 1, \"next").expect("writes");
        let (memory, changed) = Memory::recall(at, identity(at, "c"), 2);
        assert_eq!((memory.next_row(), memory.run(), changed), (0, 2, false));
    }
}
