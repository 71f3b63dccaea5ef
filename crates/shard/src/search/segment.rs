use std::borrow::Cow;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::{
    Candidate, FilterWalk, IndexError, IndexKind, RowSet, ScanParams, SearchParams, SearchStats,
};
use sagitta_model::{Hit, Plan, SegmentIndex};

use super::Search;
use super::explain::SegmentTrace;
use super::plan::{Route, Task};
use crate::{Part, SegmentView, ShardError};

/// A search that found fewer results than there are looks so many times further before it looks everywhere.
const ESCALATION: usize = 4;

/// The rows of a segment that may be hits.
pub(super) struct Scope<'v> {
    pub(super) segment: &'v SegmentView,
    pub(super) rows: Cow<'v, Bitmap>,
}

impl<'v> Scope<'v> {
    /// The live rows of a segment that pass the search's filter.
    pub(super) fn new(search: &Search<'v>, segment: &'v SegmentView) -> Result<Self, ShardError> {
        let rows = match search.filter() {
            None => Cow::Borrowed(&*segment.live),
            Some(filter) => Cow::Owned(search.view.matching(segment, filter, search.context.stop)?),
        };
        Ok(Self { segment, rows })
    }

    /// Some of these rows.
    pub(super) fn narrowed(&self, rows: Bitmap) -> Self {
        Self { segment: self.segment, rows: Cow::Owned(rows) }
    }

    fn allow(&self) -> Option<&Bitmap> {
        (self.rows.count() < self.rows.len()).then_some(&*self.rows)
    }
}

impl<'v> Search<'v> {
    /// The best `k` hits of a segment.
    pub(super) fn search_segment(&mut self, segment: &'v SegmentView, k: usize) -> Result<Vec<Hit>, ShardError> {
        let scope = self.planning(|search| Scope::new(search, segment))?;
        let candidates = self.best_rows(&scope, k)?;
        self.view.hits(segment, &candidates)
    }

    /// The best `k` rows of a scope, best first; all of them if there are no more than `k`. Whatever is damaged is answered
    /// around.
    pub(super) fn best_rows(&mut self, scope: &Scope<'v>, k: usize) -> Result<Vec<Candidate>, ShardError> {
        let started = self.clock();
        let mut trace = SegmentTrace::default();
        let mut found = Vec::new();
        if scope.rows.count() > 0 && !self.search_index(scope, k, &mut trace, &mut found)? {
            let (query, stop) = (&self.prepared, self.context.stop);
            self.view.exact_from_database(scope.segment, self.ordinal, query, &scope.rows, k, stop, &mut found)?;
            trace.plan = Plan::Scan;
            trace.stats.reranked += scope.rows.count() as u64;
        }
        if let Some(floor) = self.query.min_similarity {
            found.truncate(found.partition_point(|candidate| candidate.similarity >= floor));
        }
        self.record(scope, &trace, started);
        Ok(found)
    }

    /// Searches by the index; false if it is damaged.
    fn search_index(
        &self,
        scope: &Scope<'_>,
        k: usize,
        trace: &mut SegmentTrace,
        found: &mut Vec<Candidate>,
    ) -> Result<bool, ShardError> {
        let Some(vector) = scope.segment.segment.vector(self.ordinal) else { return Ok(false) };
        let matching = scope.rows.count();
        let task = Task { k, effort: self.query.effort, matching };
        let mut route = Route::choose(&task, vector.index.shape(), &vector.calibration);
        trace.index = index_name(vector.index.shape().kind);
        loop {
            let stats = match self.run(route, scope, k, found) {
                Ok(stats) => stats,
                Err(IndexError::Damaged(damage)) => {
                    self.view.report_damage(scope.segment, Part::Vector(self.ordinal), &damage);
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            };
            trace.add(route, stats);
            if found.len() >= k.min(matching) {
                return Ok(true);
            }
            // There are more results than the index found.
            route = match route {
                Route::Index { breadth, rerank, walk } if trace.attempts == 1 && breadth > 0 => {
                    Route::Index { breadth: breadth.saturating_mul(ESCALATION), rerank, walk }
                }
                Route::Index { rerank, .. } => Route::Scan { exact: false, rerank },
                Route::Scan { .. } | Route::Skip => return Err(too_few(scope, found.len(), k.min(matching))),
            };
        }
    }

    fn run(
        &self,
        route: Route,
        scope: &Scope<'_>,
        k: usize,
        found: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        let Some(vector) = scope.segment.segment.vector(self.ordinal) else { return Ok(SearchStats::default()) };
        let (query, stop) = (&self.prepared, self.context.stop);
        match route {
            Route::Skip => {
                found.clear();
                Ok(SearchStats::default())
            }
            Route::Scan { exact, rerank } => {
                let rows = scope.allow().map_or(RowSet::All, RowSet::Bitmap);
                vector.index.search_rows(query, &ScanParams { k, rows, rerank, exact, stop }, found)
            }
            Route::Index { breadth, rerank, walk } => {
                let allow = scope.allow();
                let params = SearchParams { k, breadth, rerank, allow, filter_walk: walk, stop };
                vector.index.search(query, &params, found)
            }
        }
    }
}

impl SegmentTrace {
    fn add(&mut self, route: Route, stats: SearchStats) {
        self.attempts += 1;
        self.stats.distances += stats.distances;
        self.stats.expanded += stats.expanded;
        self.stats.reranked += stats.reranked;
        (self.plan, self.breadth) = match route {
            Route::Skip => (Plan::Skip, 0),
            Route::Scan { .. } => (Plan::Scan, 0),
            Route::Index { breadth, walk: FilterWalk::Plain, .. } => (Plan::IndexThenCheck, breadth),
            Route::Index { breadth, .. } => (Plan::Index, breadth),
        };
    }
}

fn index_name(kind: IndexKind) -> SegmentIndex {
    match kind {
        IndexKind::Flat => SegmentIndex::Flat,
        IndexKind::Graph => SegmentIndex::Graph,
        IndexKind::Compact => SegmentIndex::Compact,
    }
}

fn too_few(scope: &Scope<'_>, found: usize, wanted: usize) -> ShardError {
    let segment = scope.segment.segment.id();
    ShardError::Inconsistent { what: format!("a scan of segment {segment} found {found} rows instead of {wanted}") }
}
