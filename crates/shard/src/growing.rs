//! Rows that are in no segment yet, in memory.

use std::sync::Arc;

use sagitta_engine::bitmap::Bitmap;
use sagitta_model::{Object, PointId};

/// The newest rows, or those that wait for their segment to be built; searched exactly. As of one view: it does not change.
#[derive(Clone, Debug, Default)]
pub struct Generation {
    number: u32,
    chunks: Vec<Chunk>,
    rows: usize,
}

/// Consecutive rows of a generation. Few and large: small ones are merged as they come.
#[derive(Clone, Debug)]
pub struct Chunk {
    start: u32,
    rows: Arc<ChunkRows>,
    live: Arc<Bitmap>,
}

#[derive(Debug)]
struct ChunkRows {
    ids: Vec<PointId>,
    versions: Vec<u64>,
    payloads: Vec<Arc<Object>>,
    /// In the order of the schema's names.
    vectors: Vec<VectorColumn>,
}

/// The vectors of one name of a chunk's rows.
#[derive(Clone, Debug, Default)]
pub struct VectorColumn {
    dim: usize,
    values: Vec<f32>,
    inverse_norms: Vec<f32>,
}

impl Generation {
    /// Counts up with every generation of the shard.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The chunks in the order of their rows.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Number of rows, dead ones included.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl Chunk {
    /// Number in the generation of the chunk's first row.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// Number of rows, dead ones included.
    pub fn len(&self) -> usize {
        self.rows.ids.len()
    }

    /// Whether there are none; never so in a view.
    pub fn is_empty(&self) -> bool {
        self.rows.ids.is_empty()
    }

    /// Which of the chunk's rows (0 is its first) are alive: neither deleted nor overwritten.
    pub fn live(&self) -> &Bitmap {
        &self.live
    }

    /// Ids by row; not sorted.
    pub fn ids(&self) -> &[PointId] {
        &self.rows.ids
    }

    /// Versions by row.
    pub fn versions(&self) -> &[u64] {
        &self.rows.versions
    }

    /// Payloads by row.
    pub fn payloads(&self) -> &[Arc<Object>] {
        &self.rows.payloads
    }

    /// Vectors of one name, by its position in the schema ([`crate::ReadView::vector_ordinal`]).
    pub fn vectors(&self, ordinal: usize) -> &VectorColumn {
        &self.rows.vectors[ordinal]
    }
}

impl VectorColumn {
    /// Values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// One per row for cosine; empty for other metrics.
    pub fn inverse_norms(&self) -> &[f32] {
        &self.inverse_norms
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..][..self.dim]
    }
}
