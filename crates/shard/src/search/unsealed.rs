use sagitta_model::{Hit, Object, Plan, SegmentIndex, TopK};

use super::Search;
use super::explain::SegmentTrace;
use crate::{Chunk, ShardError};

/// Rows that are compared at once: their similarities fit the first-level cache.
const BLOCK_ROWS: usize = 256;

impl Search<'_> {
    /// The best `k` hits among the rows that are in no segment yet.
    pub(super) fn scan_unsealed(&mut self, k: usize) -> Result<Vec<Hit>, ShardError> {
        let mut top = TopK::new(k);
        self.for_each_unsealed(&mut |hit, payload, search| {
            // The filter is asked last: most rows are too far away to matter.
            let near = top.floor().is_none_or(|floor| hit.similarity >= floor);
            if near && search.passes(&hit, payload) {
                top.push(hit);
            }
        })?;
        Ok(top.into_sorted())
    }

    /// Calls `visit` with every live unsealed row that is similar enough, whether or not it passes the filter.
    pub(super) fn for_each_unsealed(&mut self, visit: &mut dyn FnMut(Hit, &Object, &Self)) -> Result<(), ShardError> {
        for generation in self.view.generations() {
            let started = self.clock();
            for chunk in generation.chunks() {
                self.scan_chunk(chunk, visit)?;
            }
            let compared = generation.rows() as u64;
            let mut trace = SegmentTrace { plan: Plan::Scan, index: SegmentIndex::Growing, ..SegmentTrace::default() };
            trace.stats.reranked = compared;
            self.record_unsealed(generation, &trace, started);
        }
        Ok(())
    }

    fn scan_chunk(&self, chunk: &Chunk, visit: &mut dyn FnMut(Hit, &Object, &Self)) -> Result<(), ShardError> {
        let column = chunk.vectors(self.ordinal);
        let kernel = self.view.index_engine().similarities();
        let dim = self.prepared.dim();
        let mut similarities = [0.0; BLOCK_ROWS];
        for start in (0..chunk.len()).step_by(BLOCK_ROWS) {
            if self.context.stop.should_stop() {
                return Err(ShardError::Stopped);
            }
            let rows = start..chunk.len().min(start + BLOCK_ROWS);
            let similarities = &mut similarities[..rows.len()];
            let values = &column.values()[rows.start * dim..rows.end * dim];
            let norms = column.inverse_norms().get(rows.clone()).unwrap_or_default();
            kernel.many(&self.prepared, values, norms, similarities);
            for (row, &similarity) in rows.zip(&*similarities) {
                let similar = self.query.min_similarity.is_none_or(|floor| similarity >= floor);
                if similar && chunk.live().contains(row as u32) {
                    visit(Hit { id: chunk.ids()[row], similarity }, &chunk.payloads()[row], self);
                }
            }
        }
        Ok(())
    }

    pub(super) fn passes(&self, hit: &Hit, payload: &Object) -> bool {
        self.filter().is_none_or(|filter| filter.matches(hit.id, payload))
    }
}
