//! A file of a state that arrives.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sagitta_consensus::{Checking, StateFile};

/// Written and checked as it comes, in order.
pub(super) struct Writing {
    path: PathBuf,
    file: File,
    checking: Checking,
}

impl Writing {
    /// Makes the file, and the folders that it is in.
    pub(super) fn begin(into: &Path, file: &StateFile) -> Result<Self, String> {
        // The manifest has been checked: this leads nowhere but below.
        let path = into.join(&file.name);
        let failed = |error| format!("{}: {error}", path.display());
        // One by one: when the folder itself is gone, nobody wants the state any more, and it must not come back.
        for (at, _) in file.name.match_indices('/') {
            match fs::create_dir(into.join(&file.name[..at])) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
        }
        let open = File::create_new(&path).map_err(failed)?;
        Ok(Self { checking: file.checking(), path, file: open })
    }

    /// Takes the next bytes.
    pub(super) fn take(&mut self, data: &[u8]) -> Result<(), String> {
        // Before it is written: the sender does not decide how much fits on our disk.
        self.checking.update(data).map_err(|error| error.to_string())?;
        self.file.write_all(data).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.checking.bytes()
    }

    /// The file is complete: right, and on disk.
    pub(super) fn end(self) -> Result<(), String> {
        self.checking.finish().map_err(|error| error.to_string())?;
        self.file.sync_all().map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

/// Makes the names of everything below a folder durable.
pub(super) fn sync_folders(folder: &Path) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            sync_folders(&path)?;
        }
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}
