//! How far the log is known to have been synced: what is damaged below that was not torn by a power loss.
//!
//! The mark is written after every fsync of the log and is itself not synced. A power loss can only set it back,
//! which makes the check weaker for the last seconds before it, never wrong. A killed process loses nothing of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{Reader, put_u64};

/// Name of the file in the log's folder.
pub(in crate::log) const FILE_NAME: &str = "synced.mark";

/// The library keeps two series of files: fresh appends, and what it rewrote to free older files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::log) enum Queue {
    Append,
    Rewrite,
}

/// File number and length that were synced. Files of a lower number were synced to their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::log) struct Synced {
    pub(in crate::log) file: u64,
    pub(in crate::log) bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::log) struct Mark {
    pub(in crate::log) append: Synced,
    pub(in crate::log) rewrite: Synced,
    /// An fsync failed: what lies beyond the mark is not to be believed even though it can be read.
    pub(in crate::log) sync_failed: bool,
}

/// The file: two slots, written in turn, so that a torn one leaves the other.
#[derive(Debug)]
pub(in crate::log) struct MarkFile {
    file: File,
    turn: u64,
    mark: Mark,
}

const FORMAT: u64 = 0x5347_4d52_4b00_0001;
const SLOT_BYTES: usize = 8 * 8;
/// Slots lie in different blocks of any disk.
const SLOT_STRIDE: u64 = 4096;

impl Mark {
    pub(in crate::log) fn of(&self, queue: Queue) -> Synced {
        match queue {
            Queue::Append => self.append,
            Queue::Rewrite => self.rewrite,
        }
    }

    pub(in crate::log) fn raise(&mut self, queue: Queue, synced: Synced) {
        let slot = match queue {
            Queue::Append => &mut self.append,
            Queue::Rewrite => &mut self.rewrite,
        };
        *slot = synced.max(*slot);
    }

    fn encode(&self, turn: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SLOT_BYTES);
        let Self { append, rewrite, sync_failed } = self;
        let flag = u64::from(*sync_failed);
        for number in [FORMAT, turn, append.file, append.bytes, rewrite.file, rewrite.bytes, flag] {
            put_u64(&mut bytes, number);
        }
        let checksum = xxh3_64(&bytes);
        put_u64(&mut bytes, checksum);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<(u64, Self)> {
        let mut reader = Reader::new(bytes);
        let format = reader.u64()?;
        let turn = reader.u64()?;
        let append = Synced { file: reader.u64()?, bytes: reader.u64()? };
        let rewrite = Synced { file: reader.u64()?, bytes: reader.u64()? };
        let sync_failed = reader.u64()? != 0;
        let sound = format == FORMAT && reader.u64()? == xxh3_64(&bytes[..SLOT_BYTES - 8]);
        sound.then_some((turn, Self { append, rewrite, sync_failed }))
    }
}

impl MarkFile {
    /// Writes a fresh mark; the caller syncs the folder.
    pub(in crate::log) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let mut created = Self { file, turn: 0, mark: Mark::default() };
        created.write(Mark::default())?;
        created.write(Mark::default())?;
        created.file.sync_all()?;
        Ok(created)
    }

    /// Reads the newer of the two slots; `None` when neither is sound.
    pub(in crate::log) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let slot = |number: u64| {
            let mut bytes = [0; SLOT_BYTES];
            file.read_exact_at(&mut bytes, number * SLOT_STRIDE).ok().and_then(|()| Mark::decode(&bytes))
        };
        let newest = [slot(0), slot(1)].into_iter().flatten().max_by_key(|(turn, _)| *turn);
        Ok(newest.map(|(turn, mark)| Self { file, turn, mark }))
    }

    pub(in crate::log) fn mark(&self) -> Mark {
        self.mark
    }

    /// Whether no other process has this log open. Held until the file is closed.
    pub(in crate::log) fn lock(&self) -> bool {
        self.file.try_lock().is_ok()
    }

    pub(in crate::log) fn write(&mut self, mark: Mark) -> io::Result<()> {
        let turn = self.turn + 1;
        self.file.write_all_at(&mark.encode(turn), turn % 2 * SLOT_STRIDE)?;
        (self.turn, self.mark) = (turn, mark);
        Ok(())
    }

    pub(in crate::log) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(bytes: u64) -> Mark {
        Mark { append: Synced { file: 2, bytes }, ..Mark::default() }
    }

    #[test]
    fn the_bytes_of_format_1_stay_readable() {
        let bytes =
            Mark { append: Synced { file: 2, bytes: 3 }, rewrite: Synced { file: 4, bytes: 5 }, sync_failed: true }
                .encode(1);
        let golden = [
            [1, 0, 0, 0x4b, 0x52, 0x4d, 0x47, 0x53],
            1u64.to_le_bytes(),
            2u64.to_le_bytes(),
            3u64.to_le_bytes(),
            4u64.to_le_bytes(),
            5u64.to_le_bytes(),
            1u64.to_le_bytes(),
        ]
        .concat();
        assert_eq!(bytes[..56], golden);
        assert_eq!(Mark::decode(&bytes).unwrap().0, 1);
    }

    #[test]
    fn a_damaged_slot_falls_back_to_the_one_before_and_two_to_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let mut file = MarkFile::create(&path).unwrap();
        file.write(mark(10)).unwrap();
        file.write(mark(20)).unwrap();
        drop(file);
        let sound = std::fs::read(&path).unwrap();
        let newest = usize::from(sound[8] < sound[SLOT_STRIDE as usize + 8]) * SLOT_STRIDE as usize;
        for byte in 0..SLOT_BYTES {
            let mut damaged = sound.clone();
            damaged[newest + byte] ^= 4;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(MarkFile::open(&path).unwrap().unwrap().mark(), mark(10), "byte {byte}");
            damaged[SLOT_STRIDE as usize - newest] ^= 4;
            std::fs::write(&path, &damaged).unwrap();
            assert!(MarkFile::open(&path).unwrap().is_none());
        }
        std::fs::write(&path, &sound).unwrap();
        assert_eq!(MarkFile::open(&path).unwrap().unwrap().mark(), mark(20));
    }

    #[test]
    fn a_mark_only_rises() {
        let mut mark = Mark::default();
        for (file, bytes, wanted) in [(1, 50, (1, 50)), (1, 40, (1, 50)), (2, 10, (2, 10)), (1, 90, (2, 10))] {
            mark.raise(Queue::Rewrite, Synced { file, bytes });
            assert_eq!(mark.of(Queue::Rewrite), Synced { file: wanted.0, bytes: wanted.1 });
        }
        assert_eq!(mark.of(Queue::Append), Synced::default());
    }
}
