//! What the tests of data files share.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{DataError, ReadOptions, Row, RowReader, open};

/// A folder that disappears with the test.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("writes");
        path
    }

    pub(crate) fn gzipped(&self, bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("packs");
        encoder.finish().expect("packs")
    }
}

/// A file under `tests/data/formats`; its README says how each was made.
pub(crate) fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats").join(name)
}

/// An npy file of version 1 as numpy writes it.
pub(crate) fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    npy_with(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}"), data)
}

/// An npy file with any header.
pub(crate) fn npy_with(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let padded = format!("{header:<117}\n");
    bytes.extend((padded.len() as u16).to_le_bytes());
    bytes.extend(padded.as_bytes());
    bytes.extend(data);
    bytes
}

/// Little-endian float32s.
pub(crate) fn f32s(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// All rows of a file, read `batch` at a time.
pub(crate) fn rows(path: &Path, options: &ReadOptions, batch: usize) -> Result<Vec<Row>, DataError> {
    let mut reader = open(path, options)?;
    read_all(reader.as_mut(), batch)
}

pub(crate) fn read_all(reader: &mut dyn RowReader, batch: usize) -> Result<Vec<Row>, DataError> {
    let mut rows = Vec::new();
    loop {
        let more = reader.read(batch)?;
        assert!(more.len() <= batch);
        if more.is_empty() {
            return Ok(rows);
        }
        rows.extend(more);
        assert_eq!(reader.position(), rows.len() as u64);
    }
}

/// Checks what every reader promises: rows do not depend on the batch, seeking finds the same rows, counting is right.
pub(crate) fn check_reader(path: &Path, options: &ReadOptions) -> Vec<Row> {
    let expected = rows(path, options, 1000).expect("reads");
    assert!(!expected.is_empty());
    for batch in [1, 2, 3] {
        assert_eq!(rows(path, options, batch).expect("reads"), expected, "batches of {batch}");
    }
    let mut reader = open(path, options).expect("opens");
    let columns: Vec<_> = reader.summary().vectors.iter().map(|(name, c)| (name.clone(), c.dimension)).collect();
    for row in &expected {
        let found: Vec<_> = row.vectors.iter().map(|(name, vector)| (name.clone(), vector.len())).collect();
        assert_eq!(found, columns);
        assert_eq!(row.id.is_some(), reader.summary().has_ids);
    }
    assert_eq!(reader.count().expect("counts"), expected.len() as u64);
    if let Some(rows) = reader.summary().rows {
        assert_eq!(rows, expected.len() as u64);
    }
    for start in (0..=expected.len()).rev().chain([expected.len() / 2, expected.len() + 5]) {
        reader.seek(start as u64).expect("seeks");
        assert_eq!(reader.position(), start.min(expected.len()) as u64);
        let found = reader.read(2).expect("reads");
        assert_eq!(found, expected.iter().skip(start).take(2).cloned().collect::<Vec<_>>(), "from row {start}");
    }
    assert!((reader.fraction() - 1.0).abs() < 1e-9 || reader.fraction() <= 1.0);
    expected
}

/// The text of the error that opening or reading a file ends with, with its advice.
pub(crate) fn refusal(path: &Path, options: &ReadOptions) -> String {
    let error = rows(path, options, 2).expect_err("refused");
    assert!(!error.fix().is_empty());
    let text = error.to_string();
    assert!(text.starts_with(&path.display().to_string()), "names the file: {text}");
    assert!(!text.contains('\n'), "is one line: {text}");
    text[path.display().to_string().len()..].to_owned()
}
