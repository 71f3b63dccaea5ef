//! Walking a graph: down the upper levels greedily, then through the lowest one with a bounded pool of candidates, by codes;
//! the best are scored exactly.

use std::cell::RefCell;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::{
    Candidate, FilterWalk, IndexError, PreparedQuery, RowSet, ScanParams, SearchParams, SearchStats, Stop,
    TopCandidates,
};

use super::GraphIndex;
use super::filtered;
use super::pool::Pool;
use super::visited::Visited;
use crate::codes::CodedQuery;
use crate::vectors::{self, Scratch, rerank_or};

/// Candidates kept when the caller does not say: recall of about 0.95 at 10 on embeddings.
const DEFAULT_BREADTH: usize = 48;

/// Most candidates kept: inserting into a sorted list longer than this costs more than scanning what it would find.
const MAX_BREADTH: usize = 16_384;

/// Re-scored candidates per result, and at least so many.
const RERANK_FACTOR: usize = 2;
const RERANK_MIN: usize = 20;

/// Rows expanded between two looks at whether to stop: about 50 microseconds.
const EXPANSIONS_PER_CHECK: u64 = 64;

/// What a walk needs, kept per thread.
#[derive(Default)]
pub(super) struct WalkScratch {
    pub(super) common: Scratch,
    pub(super) pool: Pool,
    pub(super) visited: Visited,
}

thread_local! {
    static SCRATCH: RefCell<WalkScratch> = RefCell::default();
}

pub(super) fn search(
    index: &GraphIndex,
    query: &PreparedQuery,
    params: &SearchParams<'_>,
    out: &mut Vec<Candidate>,
) -> Result<SearchStats, IndexError> {
    out.clear();
    let shape = index.vectors.shape;
    shape.check_query(query)?;
    shape.check_allow(params.allow)?;
    let wanted = params.k.min(params.allow.map_or(shape.rows, Bitmap::count));
    if wanted == 0 {
        return Ok(SearchStats::default());
    }
    let rerank = rerank_or(params.rerank, params.k, RERANK_FACTOR * params.k, RERANK_MIN);
    let breadth = if params.breadth == 0 { DEFAULT_BREADTH } else { params.breadth };
    let breadth = breadth.max(rerank).min(MAX_BREADTH);
    let stats = SCRATCH.with_borrow_mut(|scratch| {
        let coded = index.vectors.codes.space().query(query);
        let mut walk = Walk { index, query: &coded, stop: params.stop, stats: SearchStats::default(), scratch };
        match params.allow {
            None => walk.unfiltered(breadth)?,
            Some(allow) => match params.filter_walk {
                FilterWalk::Plain => filtered::plain(&mut walk, allow, breadth, rerank)?,
                FilterWalk::TwoHop => filtered::two_hop(&mut walk, allow, breadth)?,
                FilterWalk::Auto => filtered::plain(&mut walk, allow, breadth, rerank)?,
            },
        }
        let mut stats = walk.stats;
        if params.allow.is_none() {
            scratch.common.rows.clear();
            scratch.common.rows.extend(scratch.pool.rows().take(rerank));
        } else {
            scratch.common.rows.truncate(rerank);
        }
        stats.reranked = scratch.common.rows.len() as u64;
        let vectors = &index.vectors;
        vectors::rerank(&vectors.rows, vectors.kernels, query, params.k, &mut scratch.common, out)?;
        Ok::<_, IndexError>(stats)
    })?;
    if out.len() >= wanted {
        return Ok(stats);
    }
    // The walk ended in a part of the graph with too few rows: k results exist, and k are returned.
    let rows = params.allow.map_or(RowSet::All, RowSet::Bitmap);
    let scan = ScanParams { stop: params.stop, ..ScanParams::new(params.k, rows) };
    let scanned = index.vectors.scan(query, &scan, out)?;
    Ok(SearchStats {
        distances: stats.distances + scanned.distances,
        expanded: stats.expanded,
        reranked: stats.reranked + scanned.reranked,
    })
}

pub(super) struct Walk<'a> {
    pub(super) index: &'a GraphIndex,
    pub(super) query: &'a CodedQuery,
    pub(super) stop: &'a dyn Stop,
    pub(super) stats: SearchStats,
    pub(super) scratch: &'a mut WalkScratch,
}

impl Walk<'_> {
    fn unfiltered(&mut self, breadth: usize) -> Result<(), IndexError> {
        self.start(breadth)?;
        while let Some(row) = self.expand()? {
            self.gather(row)?;
            self.compare()?;
            self.offer();
            if let Some(next) = self.scratch.pool.peek() {
                self.index.links.prefetch(next);
            }
        }
        Ok(())
    }

    /// Puts the entry of the lowest level into an empty pool.
    pub(super) fn start(&mut self, breadth: usize) -> Result<(), IndexError> {
        let (row, key) = self.descend()?;
        self.scratch.visited.reset(self.index.vectors.shape.rows);
        self.scratch.visited.insert(row);
        self.scratch.pool.reset(breadth);
        self.scratch.pool.offer(row, key);
        Ok(())
    }

    /// The next row to expand.
    #[inline]
    pub(super) fn expand(&mut self) -> Result<Option<u32>, IndexError> {
        if self.stats.expanded.is_multiple_of(EXPANSIONS_PER_CHECK) && self.stop.should_stop() {
            return Err(IndexError::Stopped);
        }
        self.stats.expanded += 1;
        Ok(self.scratch.pool.expand())
    }

    /// Collects the neighbours of a row that were not seen before.
    #[inline]
    pub(super) fn gather(&mut self, row: u32) -> Result<(), IndexError> {
        let codes = self.index.vectors.codes.codes();
        let rows = &mut self.scratch.common.rows;
        rows.clear();
        for neighbour in self.index.links.of(row)? {
            if self.scratch.visited.insert(neighbour) {
                codes.prefetch(neighbour);
                rows.push(neighbour);
            }
        }
        Ok(())
    }

    /// Compares the query with the rows collected.
    #[inline]
    pub(super) fn compare(&mut self) -> Result<(), IndexError> {
        let vectors = &self.index.vectors;
        let scratch = &mut self.scratch.common;
        self.stats.distances += scratch.rows.len() as u64;
        vectors.codes.keys(vectors.kernels, self.query, &scratch.rows, &mut scratch.dots, &mut scratch.keys)
    }

    /// Offers the rows compared to the pool.
    #[inline]
    pub(super) fn offer(&mut self) {
        let scratch = &mut *self.scratch;
        for (&row, &key) in scratch.common.rows.iter().zip(&scratch.common.keys) {
            scratch.pool.offer(row, key);
        }
    }

    /// From the entry point of the graph to a row of the lowest level that is near the query.
    fn descend(&mut self) -> Result<(u32, f32), IndexError> {
        let links = &self.index.links;
        let mut slot = 0;
        let mut key = None;
        for level in (0..links.upper_levels()).rev() {
            loop {
                let here = links.slot(level, slot)?;
                let here_key = match key {
                    Some(key) => key,
                    None => self.key(here.row)?,
                };
                let (next, next_key) = self.best_neighbour(level, &here.links().collect::<Vec<_>>())?;
                if next_key <= here_key {
                    (slot, key) = (here.below, Some(here_key));
                    break;
                }
                (slot, key) = (next, Some(next_key));
            }
        }
        let key = match key {
            Some(key) => key,
            None => self.key(slot)?,
        };
        Ok((slot, key))
    }

    fn best_neighbour(&mut self, level: usize, slots: &[u32]) -> Result<(u32, f32), IndexError> {
        self.scratch.common.rows.clear();
        for &slot in slots {
            let row = self.index.links.slot(level, slot)?.row;
            self.scratch.common.rows.push(row);
        }
        self.compare()?;
        let keys = &self.scratch.common.keys;
        let best = (0..slots.len()).max_by(|&a, &b| keys[a].total_cmp(&keys[b]));
        Ok(best.map_or((0, f32::NEG_INFINITY), |at| (slots[at], keys[at])))
    }

    fn key(&mut self, row: u32) -> Result<f32, IndexError> {
        self.scratch.common.rows.clear();
        self.scratch.common.rows.push(row);
        self.compare()?;
        Ok(self.scratch.common.keys[0])
    }
}

/// The best `count` of those that pass, collected while walking.
pub(super) fn into_rows(best: &mut TopCandidates, scratch: &mut Scratch) {
    best.drain_sorted(&mut scratch.candidates);
    scratch.rows.clear();
    scratch.rows.extend(scratch.candidates.iter().map(|candidate| candidate.row));
}
