//! The vector index port: immutable nearest-neighbour indexes over the rows of one segment.
//!
//! An [`IndexEngine`] builds the sealed files of an index and opens them as a [`VectorIndex`]; builder and reader are apart,
//! and a reader never changes anything. Rows are numbered from 0 in the order in which they were given. What belongs to a
//! row (its id, its payload, whether it is dead) is the caller's business: a search is told by a bitmap which rows count.
//!
//! Every comparison is a *similarity*, greater is nearer: the dot product for cosine (of normalised vectors) and inner
//! product, the negative squared distance for L2. Results are ordered by similarity descending, then row ascending. Scores
//! that leave an index are exact: computed in f32, in one fixed order of operations (see [`Similarities`]), from vectors
//! that were stored without loss. So the same row scores the same bits in every kind of index, in every engine and in a
//! growing segment.

mod candidate;
pub mod conformance;
mod error;
pub mod exact;
mod kernel;
mod query;
mod search;
mod spec;

use std::path::Path;
use std::sync::Arc;

pub use self::candidate::{Candidate, TopCandidates};
pub use self::error::IndexError;
pub use self::kernel::{LANES, ScalarKernel, Similarities};
pub use self::query::{MAX_MAGNITUDE, MIN_NORM, PreparedQuery, check_vector, inverse_norm};
pub use self::search::{FilterWalk, IndexMemory, Never, RowSet, ScanParams, SearchParams, SearchStats, Stop};
pub use self::spec::{
    BuildControl, Built, CompactParams, GraphParams, IndexFile, IndexKind, IndexShape, IndexSpec, Rows,
};

/// Builds and opens indexes: one implementation per native library, and [`exact::ExactEngine`], its in-memory twin.
pub trait IndexEngine: Send + Sync {
    /// Builds an index over `rows` into files of the empty folder `dir` and syncs them. The folder itself is the caller's
    /// to sync, and to remove on failure. Rows must pass [`check_vector`].
    ///
    /// # Errors
    /// [`IndexError::Stopped`] soon after `control.stop` says so.
    fn build(
        &self,
        spec: &IndexSpec,
        rows: Rows<'_>,
        dir: &Path,
        control: &BuildControl<'_>,
    ) -> Result<Built, IndexError>;

    /// Opens what [`IndexEngine::build`] wrote. `files` is what it returned: a file that is missing or another one than
    /// was built is an error. Does not read the data where it is mapped, and then verifies each block on first touch.
    fn open(&self, dir: &Path, files: &[IndexFile]) -> Result<Arc<dyn VectorIndex>, IndexError>;

    /// The kernel by which this engine scores, for rows that are not in an index yet.
    fn similarities(&self) -> &dyn Similarities;
}

/// An opened index: immutable, searched by many threads at once.
///
/// A damaged block is never used: the search that touches it returns [`IndexError::Damaged`], and the index is to be set
/// aside and rebuilt.
pub trait VectorIndex: Send + Sync {
    /// How many rows of which kind.
    fn shape(&self) -> IndexShape;

    /// Approximate search: replaces `out` by at most `params.k` candidates, best first.
    ///
    /// # Errors
    /// [`IndexError::Dimension`] or [`IndexError::Metric`] for a query of another shape; [`IndexError::Bitmap`] for a bitmap
    /// of another length; [`IndexError::Stopped`].
    fn search(
        &self,
        query: &PreparedQuery,
        params: &SearchParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError>;

    /// Compares the query with each of the given rows: by codes, re-scoring the best, or only by the lossless rows if
    /// `params.exact`, which cannot miss. Replaces `out` as [`VectorIndex::search`] does; errors are the same.
    fn search_rows(
        &self,
        query: &PreparedQuery,
        params: &ScanParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError>;

    /// The exact similarity of the query to each of `rows`, in their order.
    fn similarities(&self, query: &PreparedQuery, rows: &[u32], out: &mut Vec<f32>) -> Result<(), IndexError>;

    /// Writes the vector of `row`, bit for bit as it was given, to `out` of length `dim`.
    fn read_row(&self, row: u32, out: &mut [f32]) -> Result<(), IndexError>;

    /// Verifies every byte of the index, after which searches check nothing. Returns false if it was stopped.
    fn verify(&self, stop: &dyn Stop) -> Result<bool, IndexError>;

    /// What the index occupies.
    fn memory(&self) -> IndexMemory;
}
