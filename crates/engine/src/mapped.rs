//! Sealed files: immutable files that are opened by mapping them, without reading their data, and that never serve a
//! flipped bit.
//!
//! A sealed file is data in blocks of 16 KiB, then a table with one checksum per block, then a footer. Opening checks the
//! footer and the table, so its cost does not depend on how the data is used. A reader calls [`SealedFile::check`] before
//! it uses a range: each block is verified the first time that it is touched. A background pass may call
//! [`SealedFile::verify_all`], after which checking is one relaxed load.
//!
//! The checksum is XXH3: it finds accidents, not forgeries. Where files travel between nodes they are authenticated there.

mod format;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memmap2::{Advice, Mmap};

pub use self::format::{BLOCK_BYTES, FileDigest};
pub use self::writer::SealedFileWriter;

/// A sealed file, mapped for reading.
pub struct SealedFile {
    path: PathBuf,
    map: Mmap,
    len: usize,
    digest: FileDigest,
    /// One bit per block that has been verified. A block's bytes never change, so racing readers at worst verify twice.
    checked: Vec<AtomicU64>,
    verified: AtomicBool,
}

/// What a range is about to be read for: a hint to the operating system, never needed for correctness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Single rows here and there: do not read ahead.
    Random,
    /// Everything, soon: start reading now.
    Soon,
}

impl SealedFile {
    /// Maps the file and checks its footer, its checksum table and its length; with `expected`, also that it is that very
    /// file. The data is not read.
    pub fn open(path: &Path, expected: Option<&FileDigest>) -> Result<SealedFile, FileError> {
        let io = |source| FileError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        let map = map(&file).map_err(io)?;
        let (len, digest) = format::check_seal(&map).map_err(|what| damaged(path, None, what))?;
        if expected.is_some_and(|expected| *expected != digest) {
            return Err(damaged(path, None, "it is not the file that was sealed under this name").into());
        }
        let words = len.div_ceil(BLOCK_BYTES).div_ceil(u64::BITS as usize);
        let checked = (0..words).map(|_| AtomicU64::new(0)).collect();
        Ok(SealedFile { path: path.to_path_buf(), map, len, digest, checked, verified: AtomicBool::new(len == 0) })
    }

    /// The data. Call [`SealedFile::check`] on a range before believing it.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.map[..self.len]
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity of the file: what [`SealedFileWriter::finish`] returned.
    pub fn digest(&self) -> FileDigest {
        self.digest
    }

    /// Verifies the blocks that `range` touches, unless that was done before.
    ///
    /// # Panics
    /// If the range reaches beyond the data.
    #[inline]
    pub fn check(&self, range: Range<usize>) -> Result<(), Damaged> {
        if self.is_verified() || range.is_empty() {
            return Ok(());
        }
        self.check_blocks(range)
    }

    /// Whether the whole file has been verified, so that [`SealedFile::check`] costs nothing.
    #[inline]
    pub fn is_verified(&self) -> bool {
        self.verified.load(Ordering::Relaxed)
    }

    /// Verifies every block that was not verified before. Returns false if `stop` said true before the end; what was
    /// done until then is not lost.
    pub fn verify_all(&self, stop: &dyn Fn() -> bool) -> Result<bool, Damaged> {
        for block in 0..self.len.div_ceil(BLOCK_BYTES) {
            if stop() {
                return Ok(false);
            }
            self.check_block(block)?;
        }
        self.verified.store(true, Ordering::Relaxed);
        Ok(true)
    }

    /// Tells the operating system how the file will be read. Failure is not an error: it is a hint.
    pub fn advise(&self, access: Access) {
        let advice = match access {
            Access::Random => Advice::Random,
            Access::Soon => Advice::WillNeed,
        };
        // A kernel that does not know the advice reads the file all the same.
        let _ = self.map.advise(advice);
    }

    #[cold]
    fn check_blocks(&self, range: Range<usize>) -> Result<(), Damaged> {
        assert!(range.end <= self.len, "range {range:?} reaches beyond {} bytes", self.len);
        for block in range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) {
            self.check_block(block)?;
        }
        Ok(())
    }

    fn check_block(&self, block: usize) -> Result<(), Damaged> {
        let word = &self.checked[block / u64::BITS as usize];
        let bit = 1 << (block % u64::BITS as usize);
        if word.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        if !format::block_is_intact(&self.map, self.len, block) {
            return Err(damaged(&self.path, Some(block as u64), "its checksum does not match"));
        }
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }
}

impl fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedFile")
            .field("path", &self.path)
            .field("bytes", &self.len)
            .field("verified", &self.is_verified())
            .finish_non_exhaustive()
    }
}

/// A derived file, or one block of it, is not what was written. The file is to be set aside and rebuilt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{place} is damaged: {reason}", file = file.display(), place = Place(*block))]
pub struct Damaged {
    /// The file.
    pub file: PathBuf,
    /// The block of [`BLOCK_BYTES`] that is wrong; none if the file's table or footer is.
    pub block: Option<u64>,
    /// What is wrong with it.
    pub reason: &'static str,
}

struct Place(Option<u64>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |block| write!(f, ", block {block},"))
    }
}

/// Why a sealed file could not be written or opened.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not what was sealed.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

fn damaged(path: &Path, block: Option<u64>, reason: &'static str) -> Damaged {
    Damaged { file: path.to_path_buf(), block, reason }
}

#[allow(
    unsafe_code,
    reason = "mapping a file is unsafe by nature; this is the only place outside the engine of kernels"
)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: a mapping is sound while nobody changes or shortens the file. A sealed file is never written again once
    // it is finished, and only this process writes in the folders that hold such files.
    unsafe { Mmap::map(file) }
}
