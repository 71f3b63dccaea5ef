//! The key-value port: what a shard keeps its truth in.
//!
//! A database is a folder with a fixed list of *families*, each an ordered map from bytes to bytes. Batches are
//! atomic across families. **There is no write-ahead log**: the caller has one (the Raft log). What
//! a crash leaves is therefore *a prefix of the batches*, the same prefix in every family, and at least everything
//! that was written before the last [`Kv::flush`] that returned. Whoever writes its log position in the same batch
//! as the data knows, after opening, from where to replay.
//!
//! [`MemoryEngine`] is the twin for simulation: it keeps these promises and no more, and it can be told to crash and
//! to run out of space. [`conformance`] is the suite that every engine passes.

mod batch;
pub mod conformance;
mod error;
mod family;
mod health;
mod memory;
mod range;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

pub use batch::{Op, WriteBatch};
pub use error::KvError;
pub use family::{Family, FamilySpec};
pub use health::{EngineMemory, FamilyHealth, KvHealth};
pub use memory::{Fault, MemoryEngine};
pub use range::ScanRange;

/// Opens and removes databases; one per process, because it owns what they share: memory and background threads.
pub trait KvEngine: Send + Sync {
    /// Opens the database in `dir`, creating folder and database when there is none.
    ///
    /// [`Family`] `i` of the returned handle is `families[i]`. Families are known by name: their order may
    /// change from one opening to the next, and a new one starts empty; but every family that the folder holds must be
    /// listed, else the folder comes from a newer version.
    ///
    /// # Errors
    /// Every variant of [`KvError`]; nothing is repaired, skipped or guessed.
    fn open(&self, dir: &Path, families: &[FamilySpec], options: &KvOptions) -> Result<Arc<dyn Kv>, KvError>;

    /// What is on disk of the database in `dir`, for reading alone: nothing in the folder is made, changed or removed, so that
    /// one that must not be touched can be looked at. Nobody may write to it meanwhile, which is up to the caller.
    ///
    /// # Errors
    /// As [`open`](Self::open); also where there is no database, and where it lacks a family.
    fn open_read_only(
        &self,
        dir: &Path,
        families: &[FamilySpec],
        options: &KvOptions,
    ) -> Result<Box<dyn KvRead>, KvError>;

    /// Removes the database in `dir` with its folder; a folder that is not there is fine.
    ///
    /// # Errors
    /// [`KvError::Locked`] while it is open, or what the file system said.
    fn destroy(&self, dir: &Path) -> Result<(), KvError>;

    /// What all databases of this engine use together.
    fn memory(&self) -> EngineMemory;
}

/// Settings of one database; what all of them share belongs to the [`KvEngine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvOptions {
    /// Unflushed bytes that one family gathers before the engine flushes by itself (all families together).
    pub write_buffer_bytes: usize,
    /// Data files that are held open; the rest is opened when read. Opening a database then takes the same
    /// time whatever its size.
    pub max_open_files: u32,
}

impl Default for KvOptions {
    /// 32 MiB: twenty thousand vectors of 384 dimensions, so that files are worth their number. 512 files: 32 GiB of
    /// data at 64 MiB a file, within the usual limit of descriptors even with many shards.
    fn default() -> Self {
        Self { write_buffer_bytes: 32 << 20, max_open_files: 512 }
    }
}

/// One open database. Dropping the last handle (and snapshot) closes it; closing is not a promise of a flush.
pub trait Kv: KvRead {
    /// Applies the whole batch, in its order, or nothing. Readers see all of it or nothing of it. It is durable after
    /// the next [`flush`](Self::flush), or earlier. May block while the engine catches up with its compactions.
    ///
    /// # Errors
    /// After an error nothing of the batch is visible. [`KvError::Full`] goes away by itself once there is space.
    fn write(&self, batch: &WriteBatch) -> Result<(), KvError>;

    /// The database as of now, for as long as the snapshot lives, whatever is written meanwhile. Cheap (less than a
    /// microsecond): meant to be taken once per applied batch. What it sees cannot be reclaimed on disk, so let go of old ones.
    fn snapshot(&self) -> Box<dyn KvRead>;

    /// Returns once everything that was written before the call is durable, in all families at once.
    ///
    /// # Errors
    /// After an error nothing is lost that could be read before; the next flush covers it.
    fn flush(&self) -> Result<(), KvError>;

    /// A database of its own in the new folder `dir`, equal to this one as of a moment during the call. Shares
    /// files by hard links where the file system can: what is deleted here lives on in there.
    ///
    /// # Errors
    /// [`KvError::Io`] if `dir` exists.
    fn checkpoint(&self, dir: &Path) -> Result<(), KvError>;

    /// Rewrites all of a family, so that no file holds a value that was deleted or overwritten before the call, unless
    /// a snapshot still sees it or a checkpoint shares the file. Expensive: for erasure, not for speed.
    ///
    /// # Errors
    /// If anything that had to be rewritten or removed is still there.
    fn purge(&self, family: Family) -> Result<(), KvError>;

    /// How the database is doing; cheap enough to be polled every second.
    fn health(&self) -> KvHealth;
}

/// Gets one row of a scan, lent, and says whether to go on.
pub type VisitRow<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Gets position and value, lent, of one key of a [`KvRead::multi_get`].
pub type VisitValue<'a> = dyn FnMut(usize, Option<&[u8]>) + 'a;

/// Reading, of the present state ([`Kv`]) or of a past one ([`Kv::snapshot`]).
///
/// A `family` that was not listed at opening is a bug of the caller: it panics.
pub trait KvRead: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// [`KvError::Corrupt`] when the bytes on disk fail their checksum: never a wrong value.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// Calls `visit(i, value of keys[i])` once per key, in the order given, `None` for a key that is not there.
    /// The bytes are lent from the engine's own memory: nothing is copied.
    ///
    /// # Errors
    /// As [`get`](Self::get); some keys may have been visited by then.
    fn multi_get(&self, family: Family, keys: &[&[u8]], visit: &mut VisitValue<'_>) -> Result<(), KvError>;

    /// Calls `visit(key, value)` for the keys in `range`, ascending by their bytes, until it breaks. Sees the state as of
    /// the call; the visitor may read and write the database. The bytes are lent. A scan that runs for
    /// long holds old files and memory: cut it into pieces over a snapshot.
    ///
    /// # Errors
    /// As [`get`](Self::get); some keys may have been visited by then.
    fn scan(&self, family: Family, range: &ScanRange, visit: &mut VisitRow<'_>) -> Result<(), KvError>;
}
