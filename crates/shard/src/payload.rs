//! Placeholder until the real module is in place: only the signatures count.
use std::path::Path;
use std::sync::Arc;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::mapped::{Damaged, FileDigest, FileError};
use sagitta_model::{Filter, Object, PointId, Schema};

use crate::ShardError;

/// Gathers a segment's payload index, row by row.
pub struct PayloadWriter {}

/// A segment's payload index.
pub struct PayloadIndex {}

impl PayloadWriter {
    /// For the declared fields of a schema.
    pub fn new(_schema: &Schema) -> Self {
        Self {}
    }

    /// Adds the next row.
    pub fn add(&mut self, _payload: &Object) {}

    /// Writes and syncs the sealed file.
    pub fn finish(self, path: &Path) -> Result<FileDigest, FileError> {
        sagitta_engine::mapped::SealedFileWriter::create(path)?.finish()
    }
}

impl PayloadIndex {
    /// Opens the file over `rows` rows.
    pub fn open(_path: &Path, _digest: &FileDigest, _schema: &Arc<Schema>, _rows: usize) -> Result<Self, ShardError> {
        Ok(Self {})
    }

    /// The rows that pass, dead ones included. `find` gives the row of an id.
    pub fn matching(
        &self,
        _filter: &Filter,
        _find: &dyn Fn(PointId) -> Result<Option<u32>, ShardError>,
    ) -> Result<Bitmap, ShardError> {
        Ok(Bitmap::new(0))
    }

    /// Verifies every byte; false if stopped.
    pub fn verify(&self, _stop: &dyn Fn() -> bool) -> Result<bool, Damaged> {
        Ok(true)
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        0
    }
}
