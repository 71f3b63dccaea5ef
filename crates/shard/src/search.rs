//! Searching a view: plan and search each segment, scan what is in none, merge.
//!
//! A search asks for a recall and not for knobs: each segment's calibration tells how far to look ([`Calibration`]), and a
//! cost model whether its index is the cheapest way at all. Similarities are exact whatever the plan, so that results of
//! different segments merge without further thought. `k` hits are found whenever `k` points pass the filter.

mod calibrate;
mod calibration;
mod cost;
mod explain;
mod group;
mod plan;
mod segment;
#[cfg(test)]
mod tests;
mod unsealed;

use std::time::Duration;

use sagitta_engine::index::{IndexError, IndexKind, PreparedQuery, SearchStats, Stop};
use sagitta_model::{Explanation, Filter, Hit, IndexPolicy, SearchQuery, Value, Violation, merge};

pub use self::calibrate::calibrate;
pub use self::calibration::{Calibration, Curve, CurvePoint};
use crate::{ReadView, ShardError};

/// What a search may use.
#[derive(Clone, Copy)]
pub struct SearchContext<'a> {
    /// Asked now and then whether to give up: a cancelled call, a deadline.
    pub stop: &'a dyn Stop,
    /// Whether to say how the search was run.
    pub explain: bool,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SearchOutcome {
    /// Hits, best first; empty with grouping.
    pub hits: Vec<Hit>,
    /// With grouping: values of the field and the best hits of each, ordered by the best hit.
    pub groups: Vec<(Value, Vec<Hit>)>,
    /// What it took.
    pub stats: SearchStats,
    /// How the search was run, if that was asked for. The caller fills in the shard's number.
    pub explanation: Option<Box<Explanation>>,
}

impl ReadView {
    /// Finds the nearest points.
    ///
    /// # Errors
    /// [`ShardError::Invalid`] for a query that does not suit the schema; [`ShardError::Stopped`]; what the database reports.
    /// Damaged files are answered around and reported.
    pub fn search(&self, query: &SearchQuery, context: &SearchContext<'_>) -> Result<SearchOutcome, ShardError> {
        let mut search = Search::new(self, query, context)?;
        if query.group_by.is_some() {
            let groups = search.search_groups()?;
            let merged = search.clock();
            return Ok(search.outcome(Vec::new(), groups, merged));
        }
        let mut found = vec![search.scan_unsealed(query.k)?];
        for segment in self.segments() {
            found.push(search.search_segment(segment, query.k)?);
        }
        let merging = search.clock();
        let hits = merge(found, query.k);
        Ok(search.outcome(hits, Vec::new(), merging))
    }
}

/// The kind of index for so many rows. A graph pays off where a scan would take longer than a walk; partitioning
/// a few rows gains nothing.
pub fn kind_for(policy: IndexPolicy, rows: usize, graph_min_rows: usize) -> IndexKind {
    match policy {
        _ if rows < graph_min_rows => IndexKind::Flat,
        IndexPolicy::Flat => IndexKind::Flat,
        IndexPolicy::Auto | IndexPolicy::Graph => IndexKind::Graph,
        IndexPolicy::Compact => IndexKind::Compact,
    }
}

/// A search under way.
struct Search<'v> {
    view: &'v ReadView,
    query: &'v SearchQuery,
    context: &'v SearchContext<'v>,
    /// Of the vector name, in the schema.
    ordinal: usize,
    prepared: PreparedQuery,
    stats: SearchStats,
    explanation: Option<Box<Explanation>>,
    started: Duration,
}

impl<'v> Search<'v> {
    fn new(view: &'v ReadView, query: &'v SearchQuery, context: &'v SearchContext<'v>) -> Result<Self, ShardError> {
        query.validate(view.schema())?;
        let (name, spec) = view.schema().vector(&query.vector_name)?;
        let ordinal = view.vector_ordinal(name).ok_or_else(|| Violation::new("vector_name", "is unknown"))?;
        let prepared = PreparedQuery::new(spec.metric, &query.vector).map_err(|error| match error {
            IndexError::Vector { reason } => Violation::new("vector", reason).into(),
            other => ShardError::from(other),
        })?;
        let (stats, explanation) = (SearchStats::default(), context.explain.then(Box::default));
        let mut search = Self { view, query, context, ordinal, prepared, stats, explanation, started: Duration::ZERO };
        search.started = search.clock();
        Ok(search)
    }

    /// The search's filter, if it has conditions.
    fn filter(&self) -> Option<&'v Filter> {
        self.query.filter.as_deref().filter(|filter| !filter.is_empty())
    }

    fn outcome(mut self, hits: Vec<Hit>, groups: Vec<(Value, Vec<Hit>)>, merging: Duration) -> SearchOutcome {
        let explanation = self.explained(merging);
        SearchOutcome { hits, groups, stats: self.stats, explanation }
    }
}
