//! What can be wrong with a data file.

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use crate::humane::grouped;

/// Why a data file cannot be read or written: where, what was expected and found, and what to do about it.
///
/// The text of an error is its first line; [`DataError::fix`] is the advice that goes below it. Rows count from 0,
/// as everywhere in this program.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried, such as `open the file`.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file as a whole, its size or its header is not as its format says.
    #[error("{}: {part}: expected {expected}, found {found}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Which part of it, such as `size` or a field of the header.
        part: String,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
        /// What to do.
        fix: String,
    },
    /// One row cannot be taken.
    #[error("{}, row {row}, {column}: expected {expected}, found {found}", path.display())]
    Row {
        /// Which file.
        path: PathBuf,
        /// Which row, from 0.
        row: u64,
        /// Which column or field, such as `vector[17]`.
        column: String,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
        /// What to do.
        fix: String,
    },
}

/// The part of an error that is known where a value is decoded, before the file and the row are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BadValue {
    /// Column or field, such as `vector[17]`.
    pub(crate) column: String,
    pub(crate) expected: String,
    pub(crate) found: String,
    pub(crate) fix: String,
}

impl DataError {
    /// What to do about it, as an instruction.
    pub fn fix(&self) -> String {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => "check the path".to_owned(),
                io::ErrorKind::PermissionDenied => "check the permissions of the file and of its folder".to_owned(),
                io::ErrorKind::IsADirectory => "name a file, not a folder".to_owned(),
                io::ErrorKind::StorageFull => "free some space, or write to another disk".to_owned(),
                _ => "check the disk and the file, then try again".to_owned(),
            },
            Self::File { fix, .. } | Self::Row { fix, .. } => fix.clone(),
        }
    }

    /// Wraps what the operating system said about `path`.
    pub(crate) fn io<'p>(path: &'p Path, action: &'static str) -> impl FnOnce(io::Error) -> Self + 'p {
        move |source| Self::Io { path: path.to_owned(), action, source }
    }

    /// Something about the whole file.
    pub(crate) fn file(
        path: &Path,
        part: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::File {
            path: path.to_owned(),
            part: part.into(),
            expected: expected.into(),
            found: found.into(),
            fix: fix.into(),
        }
    }

    /// The file has another size than its header promises.
    pub(crate) fn size(path: &Path, expected: String, found: String) -> Self {
        Self::file(
            path,
            "size",
            expected,
            found,
            "the file is damaged or was cut off: copy, download or write it again",
        )
    }
}

impl BadValue {
    pub(crate) fn new(
        column: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { column: column.into(), expected: expected.into(), found: found.into(), fix: fix.into() }
    }

    /// Adds where it was.
    pub(crate) fn at(self, path: &Path, row: u64) -> DataError {
        let Self { column, expected, found, fix } = self;
        DataError::Row { path: path.to_owned(), row, column, expected, found, fix }
    }
}

/// Text from a file as an error may quote it: short, on one line, in quotes.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let clean: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(LONGEST).is_some() { "…" } else { "" };
    format!("`{clean}{more}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_short_and_on_one_line() {
        assert_eq!(quoted("a\nb"), "`a\\nb`");
        assert!(quoted(&"é".repeat(100)).ends_with("é…`"));
    }
}
