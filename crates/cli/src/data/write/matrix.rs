//! Writing vectors, and ids, as plain matrices.

use std::collections::BTreeMap;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use sagitta_model::PointId;

use super::super::error::{BadValue, quoted};
use super::super::npy;
use super::super::{DataError, Row};
use super::fresh::FreshFile;
use super::{Existing, RowWriter};

/// Writes vectors as a numpy array of float32 with one row per point.
pub struct NpyWriter {
    file: FreshFile,
    rows: u64,
    dimension: usize,
}

/// Writes vectors in the TEXMEX format of floats.
pub struct FvecsWriter {
    file: FreshFile,
    rows: u64,
    dimension: usize,
}

/// Writes ids: text with one per line if the file's name ends in `.txt`, a numpy array of uint64 if in `.npy`.
pub struct IdWriter {
    file: FreshFile,
    text: bool,
    rows: u64,
}

impl NpyWriter {
    /// Begins a file; its header is completed when the number of rows is known.
    pub fn create(path: &Path, existing: Existing, dimensions: &BTreeMap<String, usize>) -> Result<Self, DataError> {
        let mut file = FreshFile::create(path, existing)?;
        file.write_all(&[0; npy::WRITTEN_HEADER_BYTES]).map_err(|error| file.failed()(error))?;
        Ok(Self { file, rows: 0, dimension: dimensions.values().next().copied().unwrap_or(0) })
    }
}

impl RowWriter for NpyWriter {
    fn write(&mut self, rows: &[Row]) -> Result<(), DataError> {
        for row in rows {
            let vector = only_vector(row, self.file.path(), self.rows, &mut self.dimension)?;
            write_floats(&mut self.file, vector).map_err(|error| self.file.failed()(error))?;
            self.rows += 1;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), DataError> {
        finish_npy(self.file, "<f4", &format!("{}, {}", self.rows, self.dimension))
    }
}

impl FvecsWriter {
    /// Begins a file.
    pub fn create(path: &Path, existing: Existing) -> Result<Self, DataError> {
        Ok(Self { file: FreshFile::create(path, existing)?, rows: 0, dimension: 0 })
    }
}

impl RowWriter for FvecsWriter {
    fn write(&mut self, rows: &[Row]) -> Result<(), DataError> {
        for row in rows {
            let vector = only_vector(row, self.file.path(), self.rows, &mut self.dimension)?;
            let dimension = i32::try_from(vector.len()).expect("invariant: dimensions are bounded far below 2^31");
            let written = self.file.write_all(&dimension.to_le_bytes());
            written.and_then(|()| write_floats(&mut self.file, vector)).map_err(|error| self.file.failed()(error))?;
            self.rows += 1;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), DataError> {
        if self.rows == 0 {
            let fix = "an fvecs file has no header to say that it has no rows: export to .npy, .parquet or .jsonl";
            return Err(DataError::file(self.file.path(), "rows", "at least one point", "none", fix));
        }
        self.file.keep()
    }
}

impl IdWriter {
    /// Begins a file.
    pub fn create(path: &Path, existing: Existing) -> Result<Self, DataError> {
        let text = match path.extension().and_then(|ending| ending.to_str()) {
            Some("txt") => true,
            Some("npy") => false,
            _ => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let fix = "choose the format of the ids by the file's name";
                return Err(DataError::file(path, "format", "a name ending in .npy or .txt", quoted(&name), fix));
            }
        };
        let mut file = FreshFile::create(path, existing)?;
        if !text {
            file.write_all(&[0; npy::WRITTEN_HEADER_BYTES]).map_err(|error| file.failed()(error))?;
        }
        Ok(Self { file, text, rows: 0 })
    }
}

impl RowWriter for IdWriter {
    fn write(&mut self, rows: &[Row]) -> Result<(), DataError> {
        for id in rows.iter().filter_map(|row| row.id) {
            let written = match id {
                id if self.text => writeln!(self.file, "{id}"),
                PointId::Num(n) => self.file.write_all(&n.to_le_bytes()),
                PointId::Uuid(_) => {
                    let fix = "an array holds numbers only: name the file of ids .txt";
                    return Err(BadValue::new("id", "a number", id.to_string(), fix).at(self.file.path(), self.rows));
                }
            };
            written.map_err(|error| self.file.failed()(error))?;
            self.rows += 1;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), DataError> {
        if self.text { self.file.keep() } else { finish_npy(self.file, "<u8", &format!("{},", self.rows)) }
    }
}

fn finish_npy(mut file: FreshFile, descr: &str, shape: &str) -> Result<(), DataError> {
    let header = npy::write_header(descr, shape);
    let written = file.raw().and_then(|file| {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header)
    });
    written.map_err(|error| file.failed()(error))?;
    file.keep()
}

fn write_floats(file: &mut FreshFile, vector: &[f32]) -> io::Result<()> {
    vector.iter().try_for_each(|x| file.write_all(&x.to_le_bytes()))
}

/// The one vector of a row, of the same dimension as those before.
fn only_vector<'r>(row: &'r Row, path: &Path, at: u64, dimension: &mut usize) -> Result<&'r [f32], DataError> {
    let fix = "choose one vector with --vector-name, or export to .jsonl or .parquet";
    let mut vectors = row.vectors.values();
    let (Some(vector), None) = (vectors.next(), vectors.next()) else {
        let found = format!("{} vectors", row.vectors.len());
        return Err(BadValue::new("vectors", "one vector", found, fix).at(path, at));
    };
    if *dimension == 0 {
        *dimension = vector.len();
    }
    if *dimension != vector.len() {
        return Err(BadValue::new("vector", dimension.to_string(), vector.len().to_string(), fix).at(path, at));
    }
    Ok(vector)
}
