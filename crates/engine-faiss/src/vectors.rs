//! The vectors of an index in both forms, and the two things that every kind does with them: scan rows by code, and re-score
//! the best exactly.

use std::cell::RefCell;

use sagitta_engine::index::{
    Candidate, IndexError, IndexMemory, IndexShape, PreparedQuery, RowSet, ScanParams, SearchStats, Stop, TopCandidates,
};

use crate::codes::CodeStore;
use crate::kernels::Kernels;
use crate::rows::RowStore;

/// Rows compared between two looks at the threshold and at whether to stop: their codes fit the first-level cache, and
/// are some tens of microseconds of work.
const BLOCK: usize = 256;

/// Re-scored candidates per result of a scan, and at least so many: with fewer, a byte code's error costs an answer now and
/// then.
const SCAN_RERANK_FACTOR: usize = 4;
const SCAN_RERANK_MIN: usize = 64;

pub(crate) struct Vectors {
    pub(crate) shape: IndexShape,
    pub(crate) rows: RowStore,
    pub(crate) codes: CodeStore,
    pub(crate) kernels: &'static Kernels,
}

/// Buffers that a search needs, kept per thread.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) rows: Vec<u32>,
    pub(crate) dots: Vec<i32>,
    pub(crate) keys: Vec<f32>,
    pub(crate) scores: Vec<f32>,
    pub(crate) candidates: Vec<Candidate>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Vectors {
    pub(crate) fn scan(
        &self,
        query: &PreparedQuery,
        params: &ScanParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        out.clear();
        self.shape.check_query(query)?;
        params.rows.check(self.shape.rows)?;
        SCRATCH.with_borrow_mut(|scratch| {
            if params.exact {
                return exact_scan(self.shape, &self.rows, self.kernels, query, params, scratch, out);
            }
            let reranked = rerank_or(params.rerank, params.k, SCAN_RERANK_FACTOR * params.k, SCAN_RERANK_MIN);
            let coded = self.codes.space().query(query);
            let mut best = TopCandidates::new(reranked);
            let mut stats = SearchStats::default();
            for_each_block(params.rows, self.shape.rows, params.stop, scratch, |scratch| {
                stats.distances += scratch.rows.len() as u64;
                self.codes.keys(self.kernels, &coded, &scratch.rows, &mut scratch.dots, &mut scratch.keys)?;
                offer_all(&mut best, &scratch.rows, &scratch.keys);
                Ok(())
            })?;
            best.drain_sorted(&mut scratch.candidates);
            scratch.rows.clear();
            scratch.rows.extend(scratch.candidates.iter().map(|candidate| candidate.row));
            stats.reranked = scratch.rows.len() as u64;
            rerank(&self.rows, self.kernels, query, params.k, scratch, out)?;
            Ok(stats)
        })
    }

    pub(crate) fn similarities(
        &self,
        query: &PreparedQuery,
        rows: &[u32],
        out: &mut Vec<f32>,
    ) -> Result<(), IndexError> {
        self.shape.check_query(query)?;
        self.rows.similarities(self.kernels, query, rows, out)
    }

    pub(crate) fn verify(&self, stop: &dyn Stop) -> Result<bool, IndexError> {
        let stop = || stop.should_stop();
        Ok(self.codes.file().verify_all(&stop)? && self.rows.file().verify_all(&stop)?)
    }

    pub(crate) fn memory(&self) -> IndexMemory {
        let (codes, rows) = (self.codes.file().bytes().len(), self.rows.file().bytes().len());
        IndexMemory { mapped_hot: codes as u64, mapped_cold: rows as u64, heap: 0 }
    }
}

/// The best `k` of `scratch.rows` by exact similarity.
pub(crate) fn rerank(
    rows: &RowStore,
    kernels: &Kernels,
    query: &PreparedQuery,
    k: usize,
    scratch: &mut Scratch,
    out: &mut Vec<Candidate>,
) -> Result<(), IndexError> {
    rows.similarities(kernels, query, &scratch.rows, &mut scratch.scores)?;
    let mut best = TopCandidates::new(k);
    offer_all(&mut best, &scratch.rows, &scratch.scores);
    best.drain_sorted(out);
    Ok(())
}

/// How many candidates to re-score: what was asked, else a default; never fewer than are returned.
pub(crate) fn rerank_or(asked: usize, k: usize, default: usize, least: usize) -> usize {
    if asked > 0 {
        asked.max(k)
    } else if k == 0 {
        0
    } else {
        default.max(least)
    }
}

/// Compares by the lossless rows alone.
pub(crate) fn exact_scan(
    shape: IndexShape,
    rows: &RowStore,
    kernels: &Kernels,
    query: &PreparedQuery,
    params: &ScanParams<'_>,
    scratch: &mut Scratch,
    out: &mut Vec<Candidate>,
) -> Result<SearchStats, IndexError> {
    let mut best = TopCandidates::new(params.k);
    let mut compared = 0;
    for_each_block(params.rows, shape.rows, params.stop, scratch, |scratch| {
        compared += scratch.rows.len() as u64;
        rows.similarities(kernels, query, &scratch.rows, &mut scratch.scores)?;
        offer_all(&mut best, &scratch.rows, &scratch.scores);
        Ok(())
    })?;
    best.drain_sorted(out);
    Ok(SearchStats { distances: 0, expanded: 0, reranked: compared })
}

/// Offers those that have a chance: most rows of a scan have none, and one comparison tells.
fn offer_all(best: &mut TopCandidates, rows: &[u32], similarities: &[f32]) {
    let mut threshold = best.threshold();
    for (&row, &similarity) in rows.iter().zip(similarities) {
        if similarity >= threshold {
            best.offer(Candidate { row, similarity });
            threshold = best.threshold();
        }
    }
}

/// Calls `compare` with `scratch.rows` holding one block of the set after another.
fn for_each_block(
    set: RowSet<'_>,
    rows: usize,
    stop: &dyn Stop,
    scratch: &mut Scratch,
    compare: impl FnMut(&mut Scratch) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    match set {
        RowSet::All => for_each_block_of(0..rows as u32, stop, scratch, compare),
        RowSet::List(list) => for_each_block_of(list.iter().copied(), stop, scratch, compare),
        RowSet::Bitmap(bitmap) => for_each_block_of(bitmap.iter(), stop, scratch, compare),
    }
}

fn for_each_block_of(
    mut rows: impl Iterator<Item = u32>,
    stop: &dyn Stop,
    scratch: &mut Scratch,
    mut compare: impl FnMut(&mut Scratch) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    loop {
        if stop.should_stop() {
            return Err(IndexError::Stopped);
        }
        scratch.rows.clear();
        scratch.rows.extend(rows.by_ref().take(BLOCK));
        if scratch.rows.is_empty() {
            return Ok(());
        }
        compare(scratch)?;
    }
}
