use sagitta_model::Metric;
use sagitta_model::limits::MAX_DIMENSION;

use super::{IndexError, Stop};
use crate::mapped::FileDigest;

/// How an index finds neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IndexKind {
    /// Compares the query with the code of every row, then re-scores the best. For segments of up to a few thousand rows.
    Flat,
    /// Walks a navigable small-world graph (HNSW) over codes, then re-scores the best. The fastest.
    Graph,
    /// Compares with 4-bit codes in the nearest cells of a partition (IVF-PQ), then re-scores the best from disk. The
    /// smallest in memory and the fastest to build. Wants tens of thousands of rows.
    Compact,
}

/// What to build.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IndexSpec {
    /// Dimension of the vectors.
    pub dim: usize,
    /// How vectors are compared.
    pub metric: Metric,
    /// How neighbours are found.
    pub kind: IndexKind,
    /// For [`IndexKind::Graph`].
    pub graph: GraphParams,
    /// For [`IndexKind::Compact`].
    pub compact: CompactParams,
}

impl IndexSpec {
    /// A specification with the default parameters.
    pub fn new(dim: usize, metric: Metric, kind: IndexKind) -> IndexSpec {
        IndexSpec { dim, metric, kind, graph: GraphParams::default(), compact: CompactParams::default() }
    }

    /// Checks that rows are of this specification. That each passes [`super::check_vector`] is checked while building.
    pub fn check(&self, rows: &Rows<'_>) -> Result<(), IndexError> {
        if rows.dim() != self.dim {
            return Err(IndexError::Dimension { expected: self.dim, actual: rows.dim() });
        }
        if rows.is_empty() {
            return Err(IndexError::Spec { reason: "there are no rows".to_string() });
        }
        if self.dim > MAX_DIMENSION {
            return Err(IndexError::Spec { reason: format!("{} dimensions are more than {MAX_DIMENSION}", self.dim) });
        }
        Ok(())
    }
}

/// Parameters of a graph build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphParams {
    /// Links per row in the upper levels, and half of those in the lowest (the M of the HNSW paper).
    pub links: usize,
    /// Candidates examined for each inserted row (efConstruction).
    pub breadth: usize,
}

impl Default for GraphParams {
    fn default() -> GraphParams {
        GraphParams { links: 16, breadth: 120 }
    }
}

/// Parameters of a compact build; none chooses by the number of rows and dimensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactParams {
    /// Cells of the partition.
    pub lists: Option<usize>,
    /// 4-bit codes per row; must divide the dimension.
    pub codes: Option<usize>,
}

/// The vectors of a segment: `len` rows of `dim` values, one after another.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    dim: usize,
    values: &'a [f32],
}

impl<'a> Rows<'a> {
    /// Rows of `dim` values.
    ///
    /// # Errors
    /// If `values` is not a whole number of rows, or more rows than a `u32` counts.
    pub fn new(dim: usize, values: &'a [f32]) -> Result<Rows<'a>, IndexError> {
        if dim == 0 || !values.len().is_multiple_of(dim) {
            return Err(IndexError::Spec { reason: format!("{} values are not rows of {dim}", values.len()) });
        }
        if u32::try_from(values.len() / dim).is_err() {
            return Err(IndexError::Spec { reason: "more rows than a segment can number".to_string() });
        }
        Ok(Rows { dim, values })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Dimension.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All values, row by row.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.dim..][..self.dim]
    }

    /// The rows in order.
    pub fn iter(&self) -> std::slice::ChunksExact<'a, f32> {
        self.values.chunks_exact(self.dim)
    }
}

/// How a build is run and watched.
pub struct BuildControl<'a> {
    /// Threads that the build may use, at least 1.
    pub threads: usize,
    /// Asked between batches.
    pub stop: &'a dyn Stop,
    /// Told the share that is done, from 0 to 1, now and then.
    pub progress: &'a dyn Fn(f32),
}

/// One file of an index: to be kept in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFile {
    /// Name within the index's folder.
    pub name: String,
    /// What was written.
    pub digest: FileDigest,
}

/// What a build made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// All files of the index.
    pub files: Vec<IndexFile>,
}

/// What an opened index holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexShape {
    /// Number of rows.
    pub rows: usize,
    /// Dimension of the vectors.
    pub dim: usize,
    /// How vectors are compared.
    pub metric: Metric,
    /// How neighbours are found.
    pub kind: IndexKind,
}

impl IndexShape {
    /// Length of the encoded form.
    pub const ENCODED_BYTES: usize = 24;

    const MAGIC: [u8; 4] = *b"SGTI";
    const VERSION: u32 = 1;

    /// The shape in 24 bytes: "SGTI", version u32, rows u64, dimension u32, metric u8, kind u8, two zeros; little endian.
    pub fn to_bytes(self) -> [u8; Self::ENCODED_BYTES] {
        let mut bytes = [0; Self::ENCODED_BYTES];
        bytes[..4].copy_from_slice(&Self::MAGIC);
        bytes[4..8].copy_from_slice(&Self::VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&(self.rows as u64).to_le_bytes());
        bytes[16..20].copy_from_slice(&(self.dim as u32).to_le_bytes());
        bytes[20] = match self.metric {
            Metric::Cosine => 0,
            Metric::InnerProduct => 1,
            Metric::L2 => 2,
        };
        bytes[21] = match self.kind {
            IndexKind::Flat => 0,
            IndexKind::Graph => 1,
            IndexKind::Compact => 2,
        };
        bytes
    }

    /// The inverse of [`IndexShape::to_bytes`]; the error says what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<IndexShape, String> {
        let bytes: &[u8; Self::ENCODED_BYTES] =
            bytes.try_into().map_err(|_| "its head has another length".to_string())?;
        let (mut version, mut rows, mut dim) = ([0; 4], [0; 8], [0; 4]);
        version.copy_from_slice(&bytes[4..8]);
        rows.copy_from_slice(&bytes[8..16]);
        dim.copy_from_slice(&bytes[16..20]);
        let version = u32::from_le_bytes(version);
        if bytes[..4] != Self::MAGIC || version != Self::VERSION {
            return Err(format!("it is not an index of version {}", Self::VERSION));
        }
        let rows = u32::try_from(u64::from_le_bytes(rows)).map_err(|_| "it has too many rows".to_string())?;
        let metric = match bytes[20] {
            0 => Metric::Cosine,
            1 => Metric::InnerProduct,
            2 => Metric::L2,
            other => return Err(format!("it compares by an unknown metric, {other}")),
        };
        let kind = match bytes[21] {
            0 => IndexKind::Flat,
            1 => IndexKind::Graph,
            2 => IndexKind::Compact,
            other => return Err(format!("it is of an unknown kind, {other}")),
        };
        let dim = u32::from_le_bytes(dim) as usize;
        if dim == 0 || dim > MAX_DIMENSION {
            return Err(format!("it has {dim} dimensions"));
        }
        Ok(IndexShape { rows: rows as usize, dim, metric, kind })
    }

    /// The row as an index, if there is such a row.
    pub fn check_row(&self, row: u32) -> Result<usize, IndexError> {
        if (row as usize) < self.rows { Ok(row as usize) } else { Err(IndexError::Row { row, rows: self.rows }) }
    }
}
