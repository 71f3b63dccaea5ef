//! The file `ENGINE` beside RocksDB's own: which format this is, and up to where it is known to be durable.
//!
//! RocksDB takes a manifest whose end does not parse for one that a power cut has torn, and goes on with an older
//! state. That is right for what was never confirmed and wrong for a flipped bit in what was: the flush would be lost
//! without a word, and its files deleted. So after every flush we note how long the manifest is and what its bytes
//! hash to, and compare before RocksDB opens it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sagitta_engine::kv::KvError;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::options::data_file_number;

const FILE: &str = "ENGINE";
const TEMPORARY_FILE: &str = "ENGINE.new";
/// RocksDB's pointer to the manifest in use.
const CURRENT: &str = "CURRENT";
/// Raised when an older version could not read the folder any more.
const FORMAT: u32 = 1;
/// How often the manifest may be replaced while we look at it, before we think that something is wrong.
const MANIFEST_TRIES: usize = 8;

/// What is known to be durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// RocksDB's number of the newest change that was flushed.
    pub(crate) sequence: u64,
    manifest: Manifest,
}

/// The first `len` bytes of a manifest file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Manifest {
    name: String,
    len: u64,
    hash: u64,
}

impl Ledger {
    /// What the folder says, after a comparison with the manifest; `None` if no database was ever completed in it.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, KvError> {
        let corrupt = |what: String| KvError::Corrupt { dir: dir.to_owned(), what };
        let text = match fs::read(dir.join(FILE)) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| corrupt(format!("{FILE} is not text")))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match data_file(dir)? {
                    // The note is written right after the creation, and data files come later.
                    Some(name) => Err(corrupt(format!("there is {name}, but the file {FILE} is missing"))),
                    None => Ok(None),
                };
            }
            Err(error) => return Err(KvError::from_io(dir, "reading the file ENGINE", &error)),
        };
        // Every format ends with the check, so that a damaged number is not taken for a newer one.
        let Some(body) = checked_body(&text) else {
            return Err(corrupt(format!("{FILE} is not what was written")));
        };
        let format = body.strip_prefix("sagitta rocksdb ").and_then(|rest| rest.lines().next());
        match format.and_then(|format| format.parse::<u32>().ok()) {
            Some(FORMAT) => {}
            Some(newer) if newer > FORMAT => {
                let found = format!("its format is {newer}, this version reads up to {FORMAT}");
                return Err(KvError::NewerVersion { dir: dir.to_owned(), found });
            }
            _ => return Err(corrupt(format!("{FILE} does not begin with its format"))),
        }
        let ledger = Self::parse(body).ok_or_else(|| corrupt(format!("{FILE} has unknown fields")))?;
        ledger.check_manifest(dir)?;
        Ok(Some(ledger))
    }

    /// Notes durably that the manifest, as it is now, and everything up to `sequence` are durable.
    pub(crate) fn store(dir: &Path, sequence: u64) -> Result<(), KvError> {
        let manifest = Manifest::current(dir).map_err(|error| KvError::from_io(dir, "reading the manifest", &error))?;
        let text = Self { sequence, manifest }.to_text();
        let write = || {
            let temporary = dir.join(TEMPORARY_FILE);
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, dir.join(FILE))?;
            sync_dir(dir)
        };
        write().map_err(|error| KvError::from_io(dir, "writing the file ENGINE", &error))
    }

    /// Removes the note, last of all, when a database is destroyed.
    pub(crate) fn remove(dir: &Path) -> io::Result<()> {
        for name in [TEMPORARY_FILE, FILE] {
            match fs::remove_file(dir.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn check_manifest(&self, dir: &Path) -> Result<(), KvError> {
        let corrupt = |what: String| KvError::Corrupt { dir: dir.to_owned(), what };
        let io = |error: io::Error| KvError::from_io(dir, "reading the manifest", &error);
        let Some(name) = current_manifest(dir).map_err(io)? else {
            return Err(corrupt(format!("the file {CURRENT} is missing or damaged")));
        };
        if name != self.manifest.name {
            // RocksDB began a new manifest after our note. The sequence number is compared after opening.
            return match dir.join(&name).try_exists().map_err(io)? {
                true => Ok(()),
                false => Err(corrupt(format!("the file {CURRENT} names {name}, which does not exist"))),
            };
        }
        match Manifest::read(dir, name, Some(self.manifest.len)) {
            Ok(found) if found == self.manifest => Ok(()),
            Ok(found) => Err(corrupt(format!("{} is not what was written", found.name))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(corrupt(format!("{} is missing", self.manifest.name)))
            }
            Err(error) => Err(io(error)),
        }
    }

    fn to_text(&self) -> String {
        let Manifest { name, len, hash } = &self.manifest;
        let sequence = self.sequence;
        let body = format!("sagitta rocksdb {FORMAT}\nmanifest {name} {len} {hash:016x}\nsequence {sequence}\n");
        format!("{body}check {:016x}\n", xxh3_64(body.as_bytes()))
    }

    /// Reads what [`to_text`](Self::to_text) wrote, without the check.
    fn parse(body: &str) -> Option<Self> {
        let mut lines = body.lines().skip(1);
        let mut manifest = lines.next()?.strip_prefix("manifest ")?.split(' ');
        let manifest = Manifest {
            name: manifest.next()?.to_owned(),
            len: manifest.next()?.parse().ok()?,
            hash: u64::from_str_radix(manifest.next()?, 16).ok()?,
        };
        let sequence = lines.next()?.strip_prefix("sequence ")?.parse().ok()?;
        Some(Self { sequence, manifest })
    }
}

/// What comes before the last line, if that holds the hash of it.
fn checked_body(text: &str) -> Option<&str> {
    let (body, check) = text.split_at(text.rfind("check ")?);
    (check == format!("check {:016x}\n", xxh3_64(body.as_bytes()))).then_some(body)
}

impl Manifest {
    /// The manifest in use, all of it, synced: what we vouch for must outlive a power cut.
    fn current(dir: &Path) -> io::Result<Self> {
        for _ in 0..MANIFEST_TRIES {
            let Some(name) = current_manifest(dir)? else { break };
            match Self::read(dir, name, None) {
                // Replaced meanwhile: look again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => return read,
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "no manifest is current"))
    }

    /// The first `len` bytes, or all that there are and a sync. A shorter file gives a shorter result.
    fn read(dir: &Path, name: String, len: Option<u64>) -> io::Result<Self> {
        let file = File::open(dir.join(&name))?;
        let limit = match len {
            Some(len) => len,
            None => {
                file.sync_data()?;
                file.metadata()?.len()
            }
        };
        let (mut hasher, mut buffer, mut read) = (Xxh3Default::new(), vec![0; 64 << 10], 0);
        let mut rest = file.take(limit);
        loop {
            let n = rest.read(&mut buffer)?;
            if n == 0 {
                return Ok(Self { name, len: read, hash: hasher.digest() });
            }
            hasher.update(&buffer[..n]);
            read += n as u64;
        }
    }
}

/// The name in `CURRENT`, if that file is there and well-formed.
fn current_manifest(dir: &Path) -> io::Result<Option<String>> {
    match fs::read(dir.join(CURRENT)) {
        Ok(bytes) => Ok(String::from_utf8(bytes).ok().and_then(|text| {
            let name = text.strip_suffix('\n')?;
            let number = name.strip_prefix("MANIFEST-")?;
            number.bytes().all(|b| b.is_ascii_digit()).then(|| name.to_owned())
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file that holds data, if there is one.
fn data_file(dir: &Path) -> Result<Option<String>, KvError> {
    let io = |error: io::Error| KvError::from_io(dir, "listing the folder", &error);
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        if data_file_number(&name).is_some() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Makes created, renamed and removed entries of a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The folder that `dir` is an entry of.
pub(crate) fn parent(dir: &Path) -> PathBuf {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
