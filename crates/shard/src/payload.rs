//! The payload index of a segment: which rows pass a filter, and which values a row is grouped by.
//!
//! One sealed file per segment. For each declared field it holds the distinct values in ascending order, the rows of each,
//! the values of each row, which rows have any value or an explicit null, and which rows have how many values. Nothing of it is loaded: opening reads the
//! directory, and a filter touches what it asks about. Every block is verified before it is believed; a damaged one is
//! an error and never a wrong answer.
//!
//! What a filter means is defined by [`Filter::matches`] alone, and the tests hold this module to it.

mod build;
mod column;
mod evaluate;
mod field;
mod key;
mod layout;
mod resolve;
mod rows;
#[cfg(test)]
mod tests;

use std::path::Path;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::mapped::{Access, Damaged, FileDigest, SealedFile};
use sagitta_model::{FieldPath, Filter, PointId, Schema};

pub use self::build::PayloadWriter;
pub use self::field::FieldIndex;
pub use self::key::Key;
use self::layout::Directory;
pub use self::resolve::CountBounds;
use self::resolve::Resolved;
use crate::ShardError;

/// Finds the row of an id in the segment.
pub type FindRow<'a> = &'a dyn Fn(PointId) -> Result<Option<u32>, ShardError>;

/// An opened payload index. Immutable; used by many threads at once.
#[derive(Debug)]
pub struct PayloadIndex {
    file: SealedFile,
    directory: Directory,
}

impl PayloadIndex {
    /// Opens what [`PayloadWriter::finish`] wrote for `rows` rows. Takes the same time whatever the size.
    ///
    /// # Errors
    /// [`ShardError::Damaged`] if it is not that file, or was written for other rows or fields.
    pub fn open(path: &Path, digest: &FileDigest, schema: &Schema, rows: usize) -> Result<Self, ShardError> {
        let file = SealedFile::open(path, Some(digest))?;
        let directory = Directory::read(&file)?;
        let declared = schema.fields.iter().map(|(path, field_type)| (path, *field_type));
        let indexed = directory.fields.iter().map(|(path, field_type, _)| (path, *field_type));
        if directory.rows != rows || !indexed.eq(declared) {
            let reason = "it was written for other rows or fields";
            return Err(Damaged { file: path.to_path_buf(), block: None, reason }.into());
        }
        file.advise(Access::Random);
        Ok(Self { file, directory })
    }

    /// The rows that pass a filter, dead ones included.
    ///
    /// # Errors
    /// [`ShardError::Damaged`] with this file's path if a part that was needed is damaged; errors of `find` as they are.
    pub fn matching(&self, filter: &Filter, find: FindRow<'_>) -> Result<Bitmap, ShardError> {
        let resolved = Resolved::new(self, filter, find)?;
        Ok(resolved.evaluate(self)?)
    }

    /// Bounds on how many rows pass a filter, dead ones included; far cheaper than finding them.
    ///
    /// # Errors
    /// As [`PayloadIndex::matching`].
    pub fn estimate(&self, filter: &Filter, find: FindRow<'_>) -> Result<CountBounds, ShardError> {
        Ok(Resolved::new(self, filter, find)?.bounds())
    }

    /// The index of a declared field.
    pub fn field(&self, path: &FieldPath) -> Option<FieldIndex<'_>> {
        let (_, field_type, layout) = self.directory.fields.iter().find(|(known, ..)| known == path)?;
        Some(FieldIndex { file: &self.file, field_type: *field_type, layout })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.directory.rows
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.file.bytes().len() as u64
    }

    /// Verifies every byte, after which filters check nothing. Returns false if it was stopped.
    pub fn verify(&self, stop: &dyn Fn() -> bool) -> Result<bool, Damaged> {
        self.file.verify_all(stop)
    }
}
