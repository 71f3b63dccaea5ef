use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{BLOCK_BYTES, Damaged, FileDigest, FileError, SealedFile, SealedFileWriter};

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("file")
    }

    fn write(&self, data: &[u8]) -> FileDigest {
        let mut writer = SealedFileWriter::create(&self.path()).unwrap();
        writer.append(data).unwrap();
        assert_eq!(writer.position(), data.len() as u64);
        writer.finish().unwrap()
    }

    /// Puts arbitrary bytes in place of the file, as damage does.
    fn replace(&self, bytes: &[u8]) {
        fs::write(self.path(), bytes).unwrap();
    }

    fn open(&self) -> Result<SealedFile, FileError> {
        SealedFile::open(&self.path(), None)
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

fn read_whole(folder: &Folder) -> Result<Vec<u8>, FileError> {
    let file = folder.open()?;
    file.check(0..file.bytes().len())?;
    Ok(file.bytes().to_vec())
}

#[test]
fn data_comes_back_whatever_its_length() {
    for len in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 70 * BLOCK_BYTES + 5] {
        let folder = Folder::new();
        let digest = folder.write(&pattern(len));
        assert_eq!(digest.bytes, len as u64);
        let file = SealedFile::open(&folder.path(), Some(&digest)).unwrap();
        assert_eq!(file.digest(), digest);
        file.check(0..len).unwrap();
        assert_eq!(file.bytes(), pattern(len));
        assert!(file.verify_all(&|| false).unwrap());
        assert!(file.is_verified());
    }
}

#[test]
fn the_bytes_on_disk_are_those_of_version_1() {
    let folder = Folder::new();
    let digest = folder.write(b"sagitta");
    let golden = concat!(
        "73616769747461",   // the data
        "16f2fd9996c311aa", // XXH3-64 of block 0
        "5347545345414c44",
        "01000000",
        "00400000", // magic, version, bytes of a block
        "0700000000000000",
        "9103ddae7bcae8b234f549fad4cb221d", // length, seal
    );
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&fs::read(folder.path()).unwrap()), golden);
    assert_eq!(hex(&digest.to_bytes()), "07000000000000009103ddae7bcae8b234f549fad4cb221d");
    assert_eq!(FileDigest::from_bytes(&digest.to_bytes()), digest);
}

#[test]
fn a_flip_of_any_byte_is_detected() {
    let folder = Folder::new();
    folder.write(&pattern(300));
    let intact = fs::read(folder.path()).unwrap();
    for at in 0..intact.len() {
        for bit in [0x01, 0x80] {
            let mut flipped = intact.clone();
            flipped[at] ^= bit;
            folder.replace(&flipped);
            assert!(matches!(read_whole(&folder), Err(FileError::Damaged(_))), "byte {at}, bit {bit:#x}");
        }
    }
    folder.replace(&intact);
    assert_eq!(read_whole(&folder).unwrap(), pattern(300));
}

#[test]
fn a_file_cut_short_or_lengthened_anywhere_is_detected() {
    let folder = Folder::new();
    folder.write(&pattern(300));
    let intact = fs::read(folder.path()).unwrap();
    for len in 0..intact.len() {
        folder.replace(&intact[..len]);
        assert!(read_whole(&folder).is_err(), "cut to {len} bytes");
    }
    folder.replace(&[&intact[..], &[0]].concat());
    assert!(read_whole(&folder).is_err(), "one byte too many");
    folder.replace(&[&[0], &intact[..]].concat());
    assert!(read_whole(&folder).is_err(), "one byte before");
}

#[test]
fn garbage_and_absurd_lengths_are_detected() {
    let folder = Folder::new();
    for len in [0, 1, 39, 40, 41, 5000] {
        folder.replace(&pattern(len));
        assert!(matches!(folder.open(), Err(FileError::Damaged(_))), "{len} bytes of garbage");
    }
    fs::remove_file(folder.path()).unwrap();
    folder.write(b"data");
    let mut absurd = fs::read(folder.path()).unwrap();
    let length_at = absurd.len() - 24;
    absurd[length_at..length_at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    folder.replace(&absurd);
    assert!(matches!(folder.open(), Err(FileError::Damaged(_))));
}

#[test]
fn only_the_damaged_block_is_refused_and_named() {
    let folder = Folder::new();
    folder.write(&pattern(3 * BLOCK_BYTES));
    let mut bytes = fs::read(folder.path()).unwrap();
    bytes[BLOCK_BYTES + 7] ^= 4;
    folder.replace(&bytes);

    let file = folder.open().unwrap();
    file.check(0..BLOCK_BYTES).unwrap();
    file.check(2 * BLOCK_BYTES..3 * BLOCK_BYTES).unwrap();
    let Err(Damaged { file: named, block, .. }) = file.check(BLOCK_BYTES - 1..BLOCK_BYTES + 1) else {
        panic!("the damage was not found")
    };
    assert_eq!((named, block), (folder.path(), Some(1)));
    assert!(file.verify_all(&|| false).is_err());
    assert!(!file.is_verified());
}

#[test]
fn blocks_that_changed_places_are_detected() {
    let folder = Folder::new();
    folder.write(&pattern(2 * BLOCK_BYTES));
    let mut bytes = fs::read(folder.path()).unwrap();
    bytes[..2 * BLOCK_BYTES].rotate_left(BLOCK_BYTES);
    folder.replace(&bytes);
    assert!(read_whole(&folder).is_err());
}

#[test]
fn another_intact_file_is_not_the_expected_one() {
    let (expected, other) = (Folder::new(), Folder::new());
    let digest = expected.write(b"one");
    other.write(b"two");
    assert!(SealedFile::open(&expected.path(), Some(&digest)).is_ok());
    assert!(matches!(SealedFile::open(&other.path(), Some(&digest)), Err(FileError::Damaged(_))));
}

#[test]
fn an_unfinished_file_does_not_open() {
    let folder = Folder::new();
    let mut writer = SealedFileWriter::create(&folder.path()).unwrap();
    writer.append(&pattern(2 * BLOCK_BYTES)).unwrap();
    drop(writer);
    assert!(matches!(folder.open(), Err(FileError::Damaged(_))));
}

#[test]
fn a_sealed_file_is_never_written_over() {
    let folder = Folder::new();
    folder.write(b"first");
    assert!(matches!(SealedFileWriter::create(&folder.path()), Err(FileError::Io { .. })));
}

#[test]
fn a_missing_file_is_an_io_error_that_names_it() {
    let folder = Folder::new();
    let Err(FileError::Io { path, .. }) = folder.open() else { panic!("opened a file that is not there") };
    assert_eq!(path, folder.path());
}

#[test]
fn appending_in_pieces_and_aligning_is_appending_at_once() {
    let (pieces, whole) = (Folder::new(), Folder::new());
    let mut writer = SealedFileWriter::create(&pieces.path()).unwrap();
    for piece in pattern(40_000).chunks(777) {
        writer.append(piece).unwrap();
    }
    writer.align(64).unwrap();
    assert_eq!(writer.position(), 40_000);
    writer.append(&[1]).unwrap();
    writer.align(64).unwrap();
    assert_eq!(writer.position(), 40_064);
    let digest = writer.finish().unwrap();
    let mut data = pattern(40_000);
    data.push(1);
    data.resize(40_064, 0);
    assert_eq!(digest, whole.write(&data));
}

#[test]
fn stopping_a_verification_is_not_success() {
    let folder = Folder::new();
    folder.write(&pattern(10));
    let file = folder.open().unwrap();
    assert!(!file.verify_all(&|| true).unwrap());
    assert!(!file.is_verified());
}
