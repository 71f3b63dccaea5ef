//! Writing points to data files.

mod fresh;
mod jsonl;
mod matrix;
mod parquet;

use std::collections::BTreeMap;
use std::path::Path;

use super::{DataError, Format, Row};

pub use self::jsonl::JsonlWriter;
pub use self::matrix::{FvecsWriter, IdWriter, NpyWriter};
pub use self::parquet::ParquetWriter;

/// Writes rows to a file that appears under its name when it is complete.
pub trait RowWriter: Send {
    /// Adds rows; each has an id.
    fn write(&mut self, rows: &[Row]) -> Result<(), DataError>;

    /// Completes the file and puts it in its place. Without this, nothing is left behind.
    fn finish(self: Box<Self>) -> Result<(), DataError>;
}

/// Whether a file that is already there may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It may not.
    Keep,
    /// It may.
    Replace,
}

/// What vectors are called that have no other name; such a vector needs none in a file.
pub const UNNAMED: [&str; 2] = ["", "default"];

/// Opens a writer of vectors, and of ids and payload where the format holds them, by the name of the file.
///
/// `dimensions` are those of the vectors that rows will have, by name: a file without rows could not say them otherwise.
pub fn create(
    path: &Path,
    existing: Existing,
    dimensions: &BTreeMap<String, usize>,
) -> Result<Box<dyn RowWriter>, DataError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    let ending = plain.rsplit_once('.').map_or("", |(_, ending)| ending);
    let format = Format::by_ending(ending).filter(|format| plain == name || *format == Format::Jsonl);
    match format {
        Some(Format::Jsonl) => Ok(Box::new(JsonlWriter::create(path, existing)?)),
        Some(Format::Parquet) => Ok(Box::new(ParquetWriter::create(path, existing, dimensions)?)),
        Some(Format::Npy) => Ok(Box::new(NpyWriter::create(path, existing, dimensions)?)),
        Some(Format::Fvecs) => Ok(Box::new(FvecsWriter::create(path, existing)?)),
        _ => {
            let expected = "a name ending in .jsonl, .jsonl.gz, .parquet, .npy or .fvecs";
            let fix = "choose the format of the export by the file's name";
            Err(DataError::file(path, "format", expected, super::quoted(&name), fix))
        }
    }
}

#[cfg(test)]
mod tests;
