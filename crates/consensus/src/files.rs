//! A whole state as a folder of files: what it consists of, where it is kept for others, and how it gets to them.
//!
//! The state machine that offers its state makes such a folder, describes it in a [`Manifest`], which is what
//! [`crate::Offer::manifest`] carries, and puts it on the [`Shelf`] of its node. The one that fetches it reads the manifest
//! and has its [`StateSource`] bring the files, each checked, into a folder of its own.
//!
//! Parts of a state that are costly to make travel the same way while the group works: see [`Part`].

mod parts;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use sagitta_model::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, NodeId};
use crate::settings::MAX_MANIFEST_BYTES;

pub use parts::{MAX_PARTS, Part, PartKeeper, Parts, Question};
pub use shelf::Shelf;

/// The version of the encoding that this build writes.
const FORMAT: u32 = 1;
/// Longest name of a file with its folders, and most of these: more than a state has, less than systems allow.
const MAX_NAME_BYTES: usize = 200;
const MAX_COMPONENTS: usize = 8;
/// What is read at once to be hashed.
const BUFFER_BYTES: usize = 1 << 20;

/// Which files a state consists of.
///
/// Encoded it takes at most 1 MiB, since it travels in a message of its group. Beside its name a file takes about 90
/// bytes of that: some ten thousand fit, which at the usual 64 MiB a file are over half a terabyte in one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    offer: u128,
    files: Vec<StateFile>,
}

/// One file of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    /// Relative to the state's folder, with `/` between its parts; nothing that leads elsewhere.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its BLAKE3.
    pub blake3: [u8; 32],
}

/// Why a state, or a file of it, cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The file system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are no manifest, or none that may be acted on.
    #[error("the manifest of a state is malformed: {0}")]
    Malformed(String),
    /// A newer build wrote it.
    #[error(
        "the manifest of a state has format {found}, this build reads up to {FORMAT}: run the newer build here, too"
    )]
    Newer {
        /// The format found.
        found: u32,
    },
    /// It consists of more files than a manifest holds.
    #[error(
        "the state consists of {files} files, whose manifest takes {bytes} bytes; at most {MAX_MANIFEST_BYTES} may travel in a message"
    )]
    TooManyFiles {
        /// How many.
        files: usize,
        /// What describing them takes.
        bytes: usize,
    },
    /// Nothing of that name is offered, or no more.
    #[error("{group} does not offer {what} here (any more)")]
    Gone {
        /// The group asked about.
        group: GroupId,
        /// What was asked for.
        what: String,
    },
    /// A file is not what the manifest says.
    #[error("{name} is not what the manifest says: {what}")]
    Differs {
        /// The file.
        name: String,
        /// What is different.
        what: String,
    },
}

impl FilesError {
    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } | Self::Newer { .. } => ErrorKind::Unavailable,
            Self::Malformed(_) => ErrorKind::Invalid,
            Self::TooManyFiles { .. } => ErrorKind::Overloaded,
            Self::Gone { .. } => ErrorKind::NotFound,
            Self::Differs { .. } => ErrorKind::Corrupt,
        }
    }
}

/// Short, because there may be thousands: a file is a name, a size and 64 hexadecimal digits.
#[derive(Serialize, Deserialize)]
struct ManifestJson {
    format: u32,
    offer: String,
    files: Vec<(String, u64, String)>,
}

impl Manifest {
    /// Describes what is in a folder, which must not change any more. Reads all of it.
    ///
    /// # Errors
    /// If there is anything that cannot travel: more files than a manifest holds, links, odd names.
    pub fn of(folder: &Path, offer: u128) -> Result<Self, FilesError> {
        let mut names = Vec::new();
        list(folder, "", &mut names)?;
        names.sort_unstable();
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            let (bytes, blake3) = digest(&folder.join(&name))?;
            files.push(StateFile { name, bytes, blake3 });
        }
        let manifest = Self { offer, files };
        manifest.check()?;
        manifest.encode()?;
        Ok(manifest)
    }

    /// The offer's number, drawn anew for each.
    pub fn offer(&self) -> u128 {
        self.offer
    }

    /// The files by name.
    pub fn files(&self) -> &[StateFile] {
        &self.files
    }

    /// The size of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The file of a name.
    pub fn file(&self, name: &str) -> Option<&StateFile> {
        let at = self.files.binary_search_by(|file| file.name.as_str().cmp(name)).ok()?;
        Some(&self.files[at])
    }

    /// As it travels.
    ///
    /// # Errors
    /// [`FilesError::TooManyFiles`].
    pub fn encode(&self) -> Result<Bytes, FilesError> {
        let files = self.files.iter().map(|file| (file.name.clone(), file.bytes, hex(&file.blake3)));
        let json = ManifestJson { format: FORMAT, offer: format!("{:032x}", self.offer), files: files.collect() };
        let bytes = serde_json::to_vec(&json).expect("invariant: lists of texts and numbers always serialise");
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(FilesError::TooManyFiles { files: self.files.len(), bytes: bytes.len() });
        }
        Ok(bytes.into())
    }

    /// Reads what another node wrote: whatever that is, nothing of it leads out of a folder or overflows.
    ///
    /// # Errors
    /// [`FilesError::Malformed`] or [`FilesError::Newer`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FilesError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(malformed(format!("it has {} bytes", bytes.len())));
        }
        let json = |error: serde_json::Error| malformed(error.to_string());
        let loose: serde_json::Value = serde_json::from_slice(bytes).map_err(json)?;
        let found = loose["format"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
        if found > FORMAT {
            return Err(FilesError::Newer { found });
        }
        let json: ManifestJson = serde_json::from_value(loose).map_err(json)?;
        let mut files = Vec::with_capacity(json.files.len());
        for (name, bytes, digits) in json.files {
            let blake3 = unhex(&digits).ok_or_else(|| malformed(format!("{name:?} has no BLAKE3 of 64 digits")))?;
            files.push(StateFile { name, bytes, blake3 });
        }
        let offer = unhex(&json.offer).map(u128::from_be_bytes);
        let manifest = Self { offer: offer.ok_or_else(|| malformed("the offer's number is none"))?, files };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), FilesError> {
        let names: BTreeSet<_> = self.files.iter().map(|file| file.name.as_str()).collect();
        let mut before: Option<&str> = None;
        for StateFile { name, .. } in &self.files {
            check_name(name)?;
            if before.is_some_and(|before| before >= name.as_str()) {
                return Err(malformed(format!("{name:?} stands twice or out of order")));
            }
            before = Some(name);
            let mut folders = name.match_indices('/').map(|(at, _)| &name[..at]);
            if let Some(file) = folders.find(|folder| names.contains(folder)) {
                return Err(malformed(format!("{file:?} is a file and a folder")));
            }
        }
        let sum = self.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.bytes));
        sum.map(drop).ok_or_else(|| malformed("the sizes add up to more than there is"))
    }
}

/// A file that is being received, in order.
pub struct Checking {
    file: StateFile,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl StateFile {
    /// Begins to check what is received.
    pub fn checking(&self) -> Checking {
        Checking { file: self.clone(), bytes: 0, hasher: blake3::Hasher::new() }
    }
}

impl Checking {
    /// Takes the next bytes into account.
    ///
    /// # Errors
    /// [`FilesError::Differs`] when they are more than the file has.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        self.hasher.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let rest = self.file.bytes.checked_sub(self.bytes);
        rest.map(drop).ok_or_else(|| self.differs(format!("it has more than {} bytes", self.file.bytes)))
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether that was the whole file, and nothing else.
    ///
    /// # Errors
    /// [`FilesError::Differs`].
    pub fn finish(&self) -> Result<(), FilesError> {
        if self.bytes != self.file.bytes {
            return Err(self.differs(format!("it has {} bytes instead of {}", self.bytes, self.file.bytes)));
        }
        let found = self.hasher.finalize();
        if *found.as_bytes() != self.file.blake3 {
            let expected = hex(&self.file.blake3);
            return Err(self.differs(format!("its BLAKE3 is {} instead of {expected}", found.to_hex())));
        }
        Ok(())
    }

    fn differs(&self, what: String) -> FilesError {
        FilesError::Differs { name: self.file.name.clone(), what }
    }
}

/// Brings states from other nodes.
pub trait StateSource: Send + Sync {
    /// Begins to fetch all files of a state into a folder, which exists and is empty, and returns at once. When all are there,
    /// whole and on disk, or as soon as that is out of the question, `order.done` is told, on a thread that may wait. Ends at
    /// some time, whatever becomes of the other node.
    fn fetch(&self, order: Order);

    /// Asks a member which parts of a group's state it has, and returns at once. `question.done` is told after a bounded time, whatever
    /// becomes of the other node. A source that does not ask says so.
    fn ask(&self, question: Question) {
        (question.done)(Err("this source asks nobody".to_owned()));
    }
}

/// What to fetch, and whom to tell.
pub struct Order {
    /// The group whose state it is.
    pub group: GroupId,
    /// Who offers it.
    pub from: NodeId,
    /// What it consists of.
    pub manifest: Manifest,
    /// Where to put it.
    pub into: PathBuf,
    /// Told how it went.
    pub done: Box<dyn FnOnce(Result<(), String>) + Send + Sync>,
    /// Gone when nobody waits any more.
    pub wanted: Weak<()>,
}

impl Order {
    /// Whether somebody still waits for it.
    pub fn is_wanted(&self) -> bool {
        self.wanted.strong_count() > 0
    }
}

impl std::fmt::Debug for States {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let source = self.source.as_ref().map(|_| "..");
        f.debug_struct("States").field("shelf", &self.shelf).field("source", &source).finish()
    }
}

/// Where a node keeps the states that it offers, and where it gets those of others. By default it does neither.
#[derive(Clone, Default)]
pub struct States {
    /// What others may fetch from here.
    pub shelf: Shelf,
    /// Where to fetch from. Without it state machines neither offer nor fetch.
    pub source: Option<Arc<dyn StateSource>>,
}

/// Writes a file whole or not at all: beside it under another name, synced, then renamed.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes)?;
    sync_parent(path)
}

/// Puts a file whole in the place of the one before. Until [`sync_parent`] has succeeded, either of them may be there after a crash.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

/// Makes durable which file or folder is at a path.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Reads a file to its end: size and BLAKE3.
fn digest(path: &Path) -> Result<(u64, [u8; 32]), FilesError> {
    let failed = |source| FilesError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut bytes, mut hasher) = (0, blake3::Hasher::new());
    loop {
        let read = file.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            return Ok((bytes, *hasher.finalize().as_bytes()));
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
}

/// The names of all files below a folder.
fn list(root: &Path, below: &str, names: &mut Vec<String>) -> Result<(), FilesError> {
    let dir = root.join(below);
    let failed = |source| FilesError::Io { path: dir.clone(), source };
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let last = entry.file_name();
        let last = last.to_str().ok_or_else(|| malformed(format!("{last:?} is no text")))?;
        let name = if below.is_empty() { last.to_owned() } else { format!("{below}/{last}") };
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            list(root, &name, names)?;
        } else if kind.is_file() {
            names.push(name);
        } else {
            return Err(malformed(format!("{name:?} is neither a file nor a folder")));
        }
    }
    Ok(())
}

/// Letters, digits, dots, dashes and underscores, in parts that lead downwards.
fn check_name(name: &str) -> Result<(), FilesError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_safe = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(is_plain);
    let parts = name.split('/').count();
    if name.len() > MAX_NAME_BYTES || parts > MAX_COMPONENTS || !name.split('/').all(is_safe) {
        let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
        return Err(malformed(format!("{shown:?} is no name of a file of a state")));
    }
    Ok(())
}

fn malformed(what: impl Into<String>) -> FilesError {
    FilesError::Malformed(what.into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digits = digits.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(bytes)
}
