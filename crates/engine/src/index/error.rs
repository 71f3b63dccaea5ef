use std::io;
use std::path::PathBuf;

use sagitta_model::Metric;

use crate::mapped::{Damaged, FileError};

/// Why an index could not be built, opened or searched.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The operating system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file is not what was written: set the index aside and rebuild it.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// A file was not written by [`super::IndexEngine::build`] of this engine, or by a later version of it.
    #[error("{path}: {reason}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is not as expected.
        reason: String,
    },
    /// A vector has another dimension than the index.
    #[error("the vector has {actual} dimensions, the index has {expected}")]
    Dimension {
        /// Of the index.
        expected: usize,
        /// Of the vector.
        actual: usize,
    },
    /// A query was prepared for another metric.
    #[error("the query was prepared for {actual:?}, the index compares by {expected:?}")]
    Metric {
        /// Of the index.
        expected: Metric,
        /// Of the query.
        actual: Metric,
    },
    /// A bitmap ranges over another number of rows than the index.
    #[error("the bitmap ranges over {actual} rows, the index has {expected}")]
    Bitmap {
        /// Rows of the index.
        expected: usize,
        /// Rows of the bitmap.
        actual: usize,
    },
    /// A row is outside the index, or listed out of order.
    #[error("row {row} is outside an index of {rows} rows or out of order")]
    Row {
        /// The row asked for.
        row: u32,
        /// Rows of the index.
        rows: usize,
    },
    /// A value that no index can take.
    #[error("{reason}")]
    Vector {
        /// What is wrong with the vector.
        reason: String,
    },
    /// A specification that cannot be built.
    #[error("cannot build this index: {reason}")]
    Spec {
        /// What is wrong with it.
        reason: String,
    },
    /// The caller stopped the work, or its time ran out.
    #[error("stopped")]
    Stopped,
    /// The native library failed.
    #[error("{operation}: {reason}")]
    Native {
        /// What was being done.
        operation: &'static str,
        /// What the library said.
        reason: String,
    },
}

impl From<FileError> for IndexError {
    fn from(error: FileError) -> IndexError {
        match error {
            FileError::Io { path, source } => IndexError::Io { path, source },
            FileError::Damaged(damage) => IndexError::Damaged(damage),
        }
    }
}
