//! What searching costs, roughly: enough to choose between plans that differ by a factor, not to predict a latency.
//!
//! In nanoseconds of one core, as measured with the FAISS-built graphs and the byte-code kernels on a Sapphire Rapids core at 384
//! dimensions (100,000 rows); only ratios matter, and they hold elsewhere.

use sagitta_engine::index::{FilterWalk, IndexKind};

/// Comparing one row's byte code in a scan over a set of rows: finding the row, and its share of the candidates' heap.
const SCAN_ROW_NS: f64 = 6.0;
/// The same for each dimension: codes that are read in order arrive ahead of their use.
const SCAN_DIMENSION_NS: f64 = 0.03;

/// Comparing one row's byte code during a graph walk: the visited set and the pool of candidates.
const WALK_ROW_NS: f64 = 25.0;
/// The same for each dimension: rows lie scattered, so that most of it is waiting for memory.
const WALK_DIMENSION_NS: f64 = 0.08;
/// Reading the links of a row that is expanded.
const EXPAND_NS: f64 = 60.0;
/// Reading the links of a row and those of its neighbours that a filter excludes.
const EXPAND_TWO_HOPS_NS: f64 = 700.0;

/// Comparing one row's 4-bit codes in a list of a compact index; lists are compared as a whole, whatever passes.
const COMPACT_ROW_NS: f64 = 3.0;
/// The same for each dimension.
const COMPACT_DIMENSION_NS: f64 = 0.03;

/// Comparing one lossless row in a scan, where there are no byte codes.
const EXACT_ROW_NS: f64 = 5.0;
/// The same for each dimension.
const EXACT_DIMENSION_NS: f64 = 0.1;

/// What comparing with so many rows one after another costs.
pub(super) fn scan_ns(kind: IndexKind, dim: usize, rows: usize) -> f64 {
    let row_ns = match kind {
        IndexKind::Flat | IndexKind::Graph => SCAN_ROW_NS + SCAN_DIMENSION_NS * dim as f64,
        IndexKind::Compact => EXACT_ROW_NS + EXACT_DIMENSION_NS * dim as f64,
    };
    rows as f64 * row_ns
}

/// What searching an index costs that compares and expands so many rows.
pub(super) fn index_ns(kind: IndexKind, dim: usize, distances: f64, expanded: f64, walk: FilterWalk) -> f64 {
    match kind {
        IndexKind::Flat => scan_ns(kind, dim, 1) * distances,
        IndexKind::Graph => {
            let expand_ns = if walk == FilterWalk::TwoHop { EXPAND_TWO_HOPS_NS } else { EXPAND_NS };
            distances * (WALK_ROW_NS + WALK_DIMENSION_NS * dim as f64) + expanded * expand_ns
        }
        IndexKind::Compact => distances * (COMPACT_ROW_NS + COMPACT_DIMENSION_NS * dim as f64),
    }
}
