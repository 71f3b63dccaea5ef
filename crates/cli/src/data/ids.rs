//! Files of point ids beside a file of vectors.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use sagitta_model::PointId;

use super::error::{BadValue, DataError, quoted};
use super::json::bad_id;
use super::{Format, Matrix};

/// Longest line of a text file of ids, in bytes: a UUID takes 36.
const MAX_LINE_BYTES: usize = 256;

/// The ids of a file's rows, from another file: a numpy array of integers with one axis, any of the integer matrices
/// with one column, or text with one number or UUID per line.
#[derive(Debug)]
pub struct IdFile {
    path: PathBuf,
    ids: Ids,
}

#[derive(Debug)]
enum Ids {
    Matrix(Matrix),
    /// Text has no index, and resuming must go to any row: 16 bytes an id are affordable.
    Text(Vec<PointId>),
}

impl IdFile {
    /// Opens the file and checks its header, or reads it if it is text.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let text = path.extension().is_some_and(|ending| ending == "txt");
        let ids = if text { Ids::Text(read_text(path)?) } else { Ids::Matrix(open_matrix(path)?) };
        Ok(Self { path: path.to_owned(), ids })
    }

    /// Which file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of ids.
    pub fn rows(&self) -> u64 {
        match &self.ids {
            Ids::Matrix(matrix) => matrix.rows(),
            Ids::Text(ids) => ids.len() as u64,
        }
    }

    /// Reads up to `count` ids from row `first` on.
    pub fn read(&mut self, first: u64, count: usize) -> Result<Vec<PointId>, DataError> {
        match &mut self.ids {
            Ids::Matrix(matrix) => {
                let rows = matrix.ids(first, count)?;
                Ok(rows.into_iter().flatten().map(PointId::Num).collect())
            }
            Ids::Text(ids) => Ok(ids.iter().skip(first as usize).take(count).copied().collect()),
        }
    }
}

fn open_matrix(path: &Path) -> Result<Matrix, DataError> {
    let matrix = Matrix::open(path, Format::detect(path)?)?;
    let fix = "ids come as integers: a 1-D array saved by numpy.save, or a .txt file with one id per line";
    if !matrix.element().is_integer() {
        return Err(DataError::file(path, "type", "integers", matrix.element().name(), fix));
    }
    if matrix.columns() != 1 {
        let found = format!("{} columns", matrix.columns());
        return Err(DataError::file(path, "shape", "one id per row", found, fix));
    }
    Ok(matrix)
}

fn read_text(path: &Path) -> Result<Vec<PointId>, DataError> {
    let file = File::open(path).map_err(DataError::io(path, "open the file"))?;
    let mut ids = Vec::new();
    for line in BufReader::new(file).lines() {
        let row = ids.len() as u64;
        let line = line.map_err(DataError::io(path, "read the file as text"))?;
        if line.len() > MAX_LINE_BYTES {
            return Err(BadValue::new("id", "one id per line", "a long line", "check the file").at(path, row));
        }
        let id = line
            .trim()
            .parse()
            .map_err(|_| BadValue { fix: "write one id per line".into(), ..bad_id("id", quoted(&line)) });
        ids.push(id.map_err(|bad| bad.at(path, row))?);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Folder, npy};

    #[test]
    fn ids_come_from_integer_arrays_or_from_text() {
        let folder = Folder::new();
        let bytes: Vec<u8> = [7i64, 5, 9].iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut ids = IdFile::open(&folder.write("a.npy", &npy("<i8", "3,", &bytes))).expect("opens");
        assert_eq!((ids.rows(), ids.read(1, 10).expect("reads")), (3, vec![PointId::Num(5), PointId::Num(9)]));
        let text = folder.write("b.txt", b"7\n01234567-89ab-cdef-0123-456789abcdef\n");
        let mut ids = IdFile::open(&text).expect("opens");
        assert_eq!(ids.read(0, 1).expect("reads"), [PointId::Num(7)]);
        assert!(matches!(ids.read(1, 5).expect("reads")[..], [PointId::Uuid(_)]));
    }

    #[test]
    fn what_is_not_an_id_is_refused_with_its_row() {
        let folder = Folder::new();
        let error = IdFile::open(&folder.write("a.txt", b"7\nx\n")).expect_err("refused").to_string();
        assert!(error.contains("row 1, id: expected an unsigned 64-bit number or a UUID, found `x`"), "{error}");
        let floats = folder.write("b.npy", &npy("<f4", "1,", &1f32.to_le_bytes()));
        assert!(IdFile::open(&floats).expect_err("floats").to_string().contains("expected integers, found float32"));
        let negative = folder.write("c.npy", &npy("<i4", "1,", &(-3i32).to_le_bytes()));
        let error = IdFile::open(&negative).expect("opens").read(0, 1).expect_err("negative").to_string();
        assert!(error.contains("row 0, id[0]: expected an id of at least 0, found -3"), "{error}");
    }
}
