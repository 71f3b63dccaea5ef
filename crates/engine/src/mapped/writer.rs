use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::FileError;
use super::format::{self, BLOCK_BYTES, FileDigest};

/// Writes a sealed file from front to back. A file that was not finished has no footer and does not open.
#[derive(Debug)]
pub struct SealedFileWriter {
    path: PathBuf,
    file: File,
    /// The block being filled: at most [`BLOCK_BYTES`].
    block: Vec<u8>,
    sums: Vec<u64>,
    len: u64,
}

impl SealedFileWriter {
    /// Starts a file. It must not exist: a sealed file is never written over.
    pub fn create(path: &Path) -> Result<SealedFileWriter, FileError> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|source| FileError::Io { path: path.to_path_buf(), source })?;
        let block = Vec::with_capacity(BLOCK_BYTES);
        Ok(SealedFileWriter { path: path.to_path_buf(), file, block, sums: Vec::new(), len: 0 })
    }

    /// Appends to the data.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), FileError> {
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(now);
            if self.block.len() == BLOCK_BYTES {
                self.write_block()?;
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Bytes of data appended so far.
    pub fn position(&self) -> u64 {
        self.len
    }

    /// Appends zeros until the position is a multiple of `alignment`.
    pub fn align(&mut self, alignment: usize) -> Result<(), FileError> {
        let over = (self.len % alignment as u64) as usize;
        if over == 0 {
            return Ok(());
        }
        self.append(&vec![0; alignment - over])
    }

    /// Writes the checksum table and the footer and syncs the file to disk. The folder is the caller's to sync.
    pub fn finish(mut self) -> Result<FileDigest, FileError> {
        if !self.block.is_empty() {
            self.write_block()?;
        }
        let (trailer, digest) = format::trailer(self.len, &self.sums);
        self.file.write_all(&trailer).and_then(|()| self.file.sync_all()).map_err(|source| self.io(source))?;
        Ok(digest)
    }

    fn write_block(&mut self) -> Result<(), FileError> {
        self.sums.push(format::block_sum(&self.block));
        self.file.write_all(&self.block).map_err(|source| self.io(source))?;
        self.block.clear();
        Ok(())
    }

    fn io(&self, source: io::Error) -> FileError {
        FileError::Io { path: self.path.clone(), source }
    }
}

/// For encoders that write to any [`Write`]; the error keeps its cause.
impl Write for SealedFileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(FileError::Io { source, .. }) => Err(source),
            Err(FileError::Damaged(damage)) => Err(io::Error::other(damage)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
