//! Removing what a split has left of points that another shard has by now. Nobody sees them meanwhile, so the order does not
//! matter, as long as the last batch is the one that says that nothing is left.

use std::ops::ControlFlow;
use std::sync::Arc;

use sagitta_engine::index::Stop;
use sagitta_engine::kv::{ScanRange, WriteBatch};
use sagitta_model::{HashRange, PointId};

use crate::codec::Record;
use crate::layout::{IDENTITY_KEY, Key, META, PENDING, POINTS, TOMBSTONES, VECTORS};
use crate::records::Span;
use crate::split::rows_within;
use crate::steps::Step;
use crate::view::scan_points;
use crate::{SegmentId, Shard, ShardError};

/// Rows that one batch removes: little enough that the writes of clients hardly wait for it.
const BATCH_ROWS: usize = 1_000;
/// Points that are looked at between two looks at whether to stop.
const LOOK_ROWS: usize = 10_000;

impl Shard {
    pub(super) fn trim(&self, stop: &dyn Stop) -> Result<(), ShardError> {
        let (span, steps) = (Arc::clone(&self.lock_state()?.span), &self.options.step_hook);
        let Some(below) = span.foreign else { return Ok(()) };
        self.trim_pending(span.range)?;
        steps.done(Step::PendingTrimmed)?;
        self.trim_points(span.range, stop)?;
        self.trim_segments(&span, below, stop)?;
        let mut state = self.lock_state()?;
        // A shard that was split once more meanwhile has something left.
        if state.span == span {
            let trimmed = Span { foreign: None, ..Span::clone(&span) };
            let mut batch = WriteBatch::new();
            batch.put(META, IDENTITY_KEY, &self.identity(trimmed.clone()).to_sealed());
            self.kv.write(&batch)?;
            steps.done(Step::Trimmed)?;
            state.span = Arc::new(trimmed);
            self.publish(&state);
        }
        Ok(())
    }

    /// Of rows that are in no segment there are never many.
    fn trim_pending(&self, range: HashRange) -> Result<(), ShardError> {
        let mut strangers = Vec::new();
        self.kv.scan(PENDING, &ScanRange::all(), &mut |key, _| {
            if Key::read_pending(key).is_some_and(|(_, id)| !range.holds(id)) {
                strangers.push(key.to_vec());
            }
            ControlFlow::Continue(())
        })?;
        for block in strangers.chunks(BATCH_ROWS) {
            let mut batch = WriteBatch::new();
            block.iter().for_each(|key| batch.delete(PENDING, key));
            self.kv.write(&batch)?;
        }
        Ok(())
    }

    fn trim_points(&self, range: HashRange, stop: &dyn Stop) -> Result<(), ShardError> {
        let mut last: Option<PointId> = None;
        loop {
            if stop.should_stop() {
                return Err(ShardError::Stopped);
            }
            let (mut seen, mut batch, mut strangers) = (0, WriteBatch::new(), 0);
            scan_points(&*self.kv, last, &mut |id, _| {
                seen += 1;
                last = Some(id);
                if !range.holds(id) {
                    strangers += 1;
                    batch.delete(POINTS, &id.to_key());
                    for ordinal in 0..self.schema().vectors.len() {
                        batch.delete(VECTORS, &Key::vector(id, ordinal));
                    }
                }
                let more = strangers < BATCH_ROWS && seen < LOOK_ROWS;
                Ok(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
            if !batch.is_empty() {
                self.kv.write(&batch)?;
                self.options.step_hook.done(Step::PointsTrimmed)?;
            }
            if seen == 0 {
                return Ok(());
            }
        }
    }

    /// Segments with many such rows have been rewritten by now, or will be; those with few go on with tombstones.
    fn trim_segments(&self, span: &Span, below: SegmentId, stop: &dyn Stop) -> Result<(), ShardError> {
        let view = self.view();
        for view in view.segments().iter().filter(|view| view.segment.id() < below) {
            let mut strangers = rows_within(&view.segment, &*self.kv, span.range)?;
            strangers.not();
            let strangers: Vec<u32> = strangers.iter().collect();
            for block in strangers.chunks(BATCH_ROWS) {
                if stop.should_stop() {
                    return Err(ShardError::Stopped);
                }
                let state = self.lock_state()?;
                let id = view.segment.id();
                if !state.segments.iter().any(|other| other.segment.id() == id) {
                    break;
                }
                let mut batch = WriteBatch::new();
                block.iter().for_each(|&row| batch.put(TOMBSTONES, &Key::tombstone(id, row), &[]));
                self.kv.write(&batch)?;
                drop(state);
                self.options.step_hook.done(Step::RowsTrimmed)?;
            }
        }
        Ok(())
    }
}
