use std::sync::atomic::{AtomicBool, Ordering};

use super::{IndexError, IndexShape, PreparedQuery};
use crate::bitmap::Bitmap;

/// Asked now and then by long work whether to give up: a cancelled call, a deadline.
pub trait Stop: Sync {
    /// Whether to give up.
    fn should_stop(&self) -> bool;
}

/// Work that is never stopped.
#[derive(Clone, Copy, Debug)]
pub struct Never;

impl Stop for Never {
    fn should_stop(&self) -> bool {
        false
    }
}

impl Stop for AtomicBool {
    fn should_stop(&self) -> bool {
        self.load(Ordering::Relaxed)
    }
}

/// How [`super::VectorIndex::search`] is to search.
#[derive(Clone, Copy)]
pub struct SearchParams<'a> {
    /// How many candidates to return at most.
    pub k: usize,
    /// How far to look: candidates kept during a graph walk (`ef_search`), cells visited of a compact index (`nprobe`).
    /// More finds more and takes longer; 0 is a default for the kind. A flat index looks at everything anyway.
    pub breadth: usize,
    /// How many of the best by code are re-scored exactly; at least `k`, 0 is a default.
    pub rerank: usize,
    /// Only rows of this set may be returned.
    pub allow: Option<&'a Bitmap>,
    /// How a graph is walked when `allow` is given.
    pub filter_walk: FilterWalk,
    /// When to give up.
    pub stop: &'a dyn Stop,
}

impl SearchParams<'_> {
    /// The best `k` of all rows, with the defaults.
    pub fn new(k: usize) -> SearchParams<'static> {
        SearchParams { k, breadth: 0, rerank: 0, allow: None, filter_walk: FilterWalk::Auto, stop: &Never }
    }
}

/// How a graph walk treats rows that a filter excludes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilterWalk {
    /// By the share of rows that pass.
    #[default]
    Auto,
    /// Walk through every row, collect those that pass. Right when most rows pass.
    Plain,
    /// Compare only rows that pass, reaching them through the neighbours of those that do not (ACORN, Patel et al. 2024).
    TwoHop,
}

/// How [`super::VectorIndex::search_rows`] is to search.
#[derive(Clone, Copy)]
pub struct ScanParams<'a> {
    /// How many candidates to return at most.
    pub k: usize,
    /// The rows to compare with.
    pub rows: RowSet<'a>,
    /// How many of the best by code are re-scored exactly; at least `k`, 0 is a default wide enough to miss nothing in
    /// practice.
    pub rerank: usize,
    /// Compare by the lossless rows alone: slower, and cannot miss.
    pub exact: bool,
    /// When to give up.
    pub stop: &'a dyn Stop,
}

impl<'a> ScanParams<'a> {
    /// The best `k` of the given rows, by codes.
    pub fn new(k: usize, rows: RowSet<'a>) -> ScanParams<'a> {
        ScanParams { k, rows, rerank: 0, exact: false, stop: &Never }
    }

    /// The best `k` of the given rows, without any approximation.
    pub fn exact(k: usize, rows: RowSet<'a>) -> ScanParams<'a> {
        ScanParams { exact: true, ..ScanParams::new(k, rows) }
    }
}

/// Which rows to scan.
#[derive(Clone, Copy, Debug)]
pub enum RowSet<'a> {
    /// Every row.
    All,
    /// The rows listed, ascending and distinct.
    List(&'a [u32]),
    /// The members of a bitmap.
    Bitmap(&'a Bitmap),
}

impl RowSet<'_> {
    /// How many rows, of an index that has `rows`.
    pub fn count(&self, rows: usize) -> usize {
        match self {
            RowSet::All => rows,
            RowSet::List(list) => list.len(),
            RowSet::Bitmap(bitmap) => bitmap.count(),
        }
    }

    /// Checks that rows are ascending and none is outside an index of `rows`.
    pub fn check(&self, rows: usize) -> Result<(), IndexError> {
        match self {
            RowSet::All => Ok(()),
            RowSet::List(list) => {
                // Ascending up to the last one, which is inside: a row that breaks either rule is named.
                let descent = list.windows(2).find(|pair| pair[0] >= pair[1]).map(|pair| pair[0]);
                match descent.or(list.last().copied().filter(|&row| row as usize >= rows)) {
                    Some(row) => Err(IndexError::Row { row, rows }),
                    None => Ok(()),
                }
            }
            RowSet::Bitmap(bitmap) => check_bitmap(Some(bitmap), rows),
        }
    }
}

/// What a search did: what a planner's cost model is set from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchStats {
    /// Rows compared by code.
    pub distances: u64,
    /// Rows whose neighbours were looked at.
    pub expanded: u64,
    /// Rows compared exactly.
    pub reranked: u64,
}

/// What an index occupies, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexMemory {
    /// Mapped files that searches touch throughout: wanted in memory, but given back under pressure.
    pub mapped_hot: u64,
    /// Mapped files of which searches touch single rows.
    pub mapped_cold: u64,
    /// Memory of the process.
    pub heap: u64,
}

pub(crate) fn check_bitmap(allow: Option<&Bitmap>, rows: usize) -> Result<(), IndexError> {
    match allow {
        Some(bitmap) if bitmap.len() != rows => Err(IndexError::Bitmap { expected: rows, actual: bitmap.len() }),
        _ => Ok(()),
    }
}

impl IndexShape {
    /// Checks that a query may be compared with the rows of this index.
    pub fn check_query(&self, query: &PreparedQuery) -> Result<(), IndexError> {
        if query.dim() != self.dim {
            return Err(IndexError::Dimension { expected: self.dim, actual: query.dim() });
        }
        if query.metric() != self.metric {
            return Err(IndexError::Metric { expected: self.metric, actual: query.metric() });
        }
        Ok(())
    }

    /// Checks that a filter ranges over the rows of this index.
    pub fn check_allow(&self, allow: Option<&Bitmap>) -> Result<(), IndexError> {
        check_bitmap(allow, self.rows)
    }
}
