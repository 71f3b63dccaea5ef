//! A disk that is small enough to be filled. Takes root.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own, in memory.
pub(crate) struct SmallDisk {
    /// Where it is mounted.
    pub(crate) path: PathBuf,
}

impl SmallDisk {
    /// One of this size below a folder. `None`, and a word about it, where mounting is not allowed.
    pub(crate) fn mount(root: &Path, mebibytes: u64) -> Option<Self> {
        let path = root.join("disk");
        fs::create_dir(&path).expect("a folder");
        let size = format!("size={mebibytes}m");
        mount(&["-t", "tmpfs", "-o", &size, "tmpfs", &path.to_string_lossy()])?;
        Some(Self { path })
    }

    /// Takes so much of the room.
    pub(crate) fn fill(&self, mebibytes: usize) {
        fs::write(self.ballast(), vec![0; mebibytes << 20]).expect("there is room");
    }

    /// Takes all the room but for so many bytes.
    pub(crate) fn fill_leaving(&self, leave: u64) {
        let mut file = fs::File::create(self.ballast()).expect("a file");
        for piece in [1 << 20, 64 << 10, 4 << 10, 1] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
        let bytes = file.metadata().expect("a file").len();
        file.set_len(bytes.saturating_sub(leave)).expect("shorter");
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        fs::remove_file(self.ballast()).expect("removed");
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, should a failed test still have it open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

/// Mounts something; says so where that is not allowed.
pub(crate) fn mount(arguments: &[&str]) -> Option<()> {
    let output = Command::new("mount").args(arguments).output();
    if output.as_ref().is_ok_and(|output| output.status.success()) {
        return Some(());
    }
    println!("SKIPPED: mounting needs root: mount {arguments:?}: {output:?}");
    None
}
