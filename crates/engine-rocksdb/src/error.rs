//! RocksDB reports an error as text: its kind, what it was doing, the file, `strerror`. This is the one place that
//! reads it.

use std::path::Path;

use sagitta_engine::kv::KvError;

/// Parts of the names of files without which a database is not whole.
const VITAL_FILES: [&str; 4] = [".sst", ".blob", "MANIFEST", "CURRENT"];

pub(crate) fn translate(dir: &Path, error: &rocksdb::Error) -> KvError {
    from_text(dir, error.as_ref())
}

fn from_text(dir: &Path, text: &str) -> KvError {
    let (dir, what) = (dir.to_owned(), text.to_owned());
    let says = |part: &str| text.contains(part);
    let (kind, _) = text.split_once(':').unwrap_or((text, ""));
    match kind {
        // Compactions wrap what the disk said, so this comes before the kind.
        _ if says("No space left on device") || says("Disk quota exceeded") => KvError::Full { dir, what },
        "Corruption" => KvError::Corrupt { dir, what },
        "IO error" if says("lock hold by current process") || says("While lock file") => KvError::Locked { dir },
        "IO error" if says("Read-only file system") || says("Permission denied") => KvError::ReadOnly { dir, what },
        "IO error" if says("No such file") && VITAL_FILES.iter().any(|file| says(file)) => {
            KvError::Corrupt { dir, what }
        }
        "Invalid argument" if says("create_if_missing is false") => {
            KvError::Corrupt { dir, what: "the file CURRENT is missing".to_owned() }
        }
        "Invalid argument" if says("Column families not opened") => {
            let names = text.rsplit(':').next().unwrap_or(text).trim();
            KvError::NewerVersion { dir, found: format!("it has the families {names:?}") }
        }
        "Not implemented" => KvError::NewerVersion { dir, found: what },
        _ => KvError::Io { dir, what },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_leads_to_what_the_operator_should_do() {
        let variant = |error: KvError| match error {
            KvError::Corrupt { .. } => "corrupt",
            KvError::Full { .. } => "full",
            KvError::ReadOnly { .. } => "read-only",
            KvError::Locked { .. } => "locked",
            KvError::NewerVersion { .. } => "newer",
            KvError::Io { .. } => "io",
        };
        for (text, expected) in [
            ("IO error: No space left on device: While appending to file: /d/9.sst: No space left on device", "full"),
            ("IO error: While fsync: /d/9.sst: Disk quota exceeded", "full"),
            ("Corruption: block checksum mismatch: stored = 1, computed = 2 in /d/9.sst offset 0 size 9", "corrupt"),
            ("Corruption: Can't access /000009.sst: IO error: No such file or directory: /d/000009.sst", "corrupt"),
            ("IO error: No such file or directory: While open a file for random read: /d/9.blob", "corrupt"),
            ("Invalid argument: /d/CURRENT: does not exist (create_if_missing is false)", "corrupt"),
            ("IO error: lock hold by current process, acquire time 1: /d/LOCK: No locks available", "locked"),
            ("IO error: While lock file: /d/LOCK: Resource temporarily unavailable", "locked"),
            ("IO error: while open a file for lock: /d/LOCK: Permission denied", "read-only"),
            ("IO error: While open a file for appending: /d/9.log: Read-only file system", "read-only"),
            ("Invalid argument: Column families not opened: added", "newer"),
            ("Not implemented: Unknown compression type", "newer"),
            ("IO error: While pread offset 0 len 9: /d/9.sst: Input/output error", "io"),
            ("Resource busy: whatever", "io"),
            ("no colon at all", "io"),
        ] {
            assert_eq!(variant(from_text(Path::new("/d"), text)), expected, "{text}");
        }
    }
}
