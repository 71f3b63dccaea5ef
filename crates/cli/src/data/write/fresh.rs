//! A file that appears under its name only when it is complete.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::super::DataError;
use super::Existing;

/// A file being written beside its final name.
pub(super) struct FreshFile {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    kept: bool,
}

impl FreshFile {
    pub(super) fn create(path: &Path, existing: Existing) -> Result<Self, DataError> {
        if existing == Existing::Keep && path.exists() {
            let fix = "choose another name, or replace the file with --force";
            return Err(DataError::file(path, "file", "a new name", "a file of this name", fix));
        }
        let mut partial = OsString::from(path.as_os_str());
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(DataError::io(&partial, "create the file"))?;
        Ok(Self { path: path.to_owned(), partial, file: BufWriter::new(file), kept: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What to tell about a write to this file that failed.
    pub(super) fn failed(&self) -> impl FnOnce(io::Error) -> DataError + use<'_> {
        DataError::io(&self.path, "write the file")
    }

    /// The file itself, with everything written so far in it, for going back.
    pub(super) fn raw(&mut self) -> io::Result<&mut File> {
        self.file.flush()?;
        Ok(self.file.get_mut())
    }

    /// Brings the file to the disk and to its name.
    pub(super) fn keep(mut self) -> Result<(), DataError> {
        let file = self.raw().and_then(|file| file.sync_all());
        file.and_then(|()| fs::rename(&self.partial, &self.path)).map_err(self.failed())?;
        self.kept = true;
        Ok(())
    }
}

impl Write for FreshFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for FreshFile {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing more can be done about a file that cannot be removed; its name says what it is.
            let _ = fs::remove_file(&self.partial);
        }
    }
}
