use std::time::Duration;

use sagitta_engine::index::SearchStats;
use sagitta_model::{Explanation, Plan, SegmentIndex, SegmentPlan};

use super::Search;
use super::segment::Scope;
use crate::{Generation, ShardError};

/// What was done with one segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentTrace {
    pub(super) index: SegmentIndex,
    pub(super) plan: Plan,
    pub(super) breadth: usize,
    pub(super) stats: SearchStats,
    /// Searches of the index.
    pub(super) attempts: usize,
}

impl Default for SegmentTrace {
    fn default() -> Self {
        let (index, plan) = (SegmentIndex::Flat, Plan::Skip);
        Self { index, plan, breadth: 0, stats: SearchStats::default(), attempts: 0 }
    }
}

/// Time is read only for searches that are to be explained.
impl<'v> Search<'v> {
    pub(super) fn clock(&self) -> Duration {
        if self.explanation.is_some() { self.view.env().now() } else { Duration::ZERO }
    }

    /// Does a part of the search that counts as planning.
    pub(super) fn planning<T>(&mut self, plan: impl FnOnce(&Self) -> Result<T, ShardError>) -> Result<T, ShardError> {
        let started = self.clock();
        let planned = plan(self)?;
        let spent = self.micros_since(started);
        if let Some(explanation) = &mut self.explanation {
            explanation.plan_us += spent;
        }
        Ok(planned)
    }

    pub(super) fn record(&mut self, scope: &Scope<'_>, trace: &SegmentTrace, started: Duration) {
        let segment = &scope.segment.segment;
        let selectivity = scope.rows.count() as f32 / segment.rows().max(1) as f32;
        self.add(trace, segment.id(), segment.rows(), selectivity, started);
    }

    pub(super) fn record_unsealed(&mut self, generation: &Generation, trace: &SegmentTrace, started: Duration) {
        self.add(trace, generation.number().into(), generation.rows(), 1.0, started);
    }

    fn add(&mut self, trace: &SegmentTrace, segment: u64, rows: usize, selectivity: f32, started: Duration) {
        self.stats.distances += trace.stats.distances;
        self.stats.expanded += trace.stats.expanded;
        self.stats.reranked += trace.stats.reranked;
        let duration_us = self.micros_since(started);
        if let Some(explanation) = &mut self.explanation {
            explanation.search_us += duration_us;
            explanation.segments.push(SegmentPlan {
                // A shard does not need to know its number in order to be searched: whoever asked it does.
                shard: 0,
                segment,
                index: trace.index,
                plan: trace.plan,
                rows: rows as u64,
                selectivity,
                breadth: trace.breadth as u64,
                compared: trace.stats.distances,
                reranked: trace.stats.reranked,
                duration_us,
            });
        }
    }

    /// The explanation, complete but for what happens outside of the shard.
    pub(super) fn explained(&mut self, merging: Duration) -> Option<Box<Explanation>> {
        let (merge_us, total_us) = (self.micros_since(merging), self.micros_since(self.started));
        let mut explanation = self.explanation.take()?;
        explanation.merge_us = merge_us;
        explanation.total_us = total_us;
        Some(explanation)
    }

    fn micros_since(&self, started: Duration) -> u64 {
        u64::try_from(self.clock().saturating_sub(started).as_micros()).unwrap_or(u64::MAX)
    }
}
