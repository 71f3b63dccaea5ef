//! Answers without derived files: what is slow while a segment is damaged, but never wrong.

use std::ops::ControlFlow;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::{Candidate, PreparedQuery, Stop, TopCandidates, inverse_norm};
use sagitta_engine::kv::KvRead;
use sagitta_model::{Filter, Metric, PointId};

use super::{ReadView, SegmentView};
use crate::ShardError;
use crate::codec::{DecodeError, PayloadRef, PointRecord, read_vector_into};
use crate::layout::{Key, POINTS, VECTORS};

/// Rows that are read from the database at a time: a few hundred kilobytes to a few megabytes of vectors.
pub(crate) const BLOCK_ROWS: usize = 256;

impl ReadView {
    /// The best `k` of the given live rows of a segment, compared exactly with vectors from the database: slow, needs no
    /// index, and scores the same bits as one. Replaces `out`, best first.
    ///
    /// # Errors
    /// [`ShardError::Stopped`], or what the database reports.
    #[expect(clippy::too_many_arguments, reason = "the parameters of a scan, by reference")]
    pub fn exact_from_database(
        &self,
        segment: &SegmentView,
        ordinal: usize,
        query: &PreparedQuery,
        rows: &Bitmap,
        k: usize,
        stop: &dyn Stop,
        out: &mut Vec<Candidate>,
    ) -> Result<(), ShardError> {
        let kernel = self.index_engine().similarities();
        let mut best = TopCandidates::new(k);
        let mut similarities = Vec::new();
        let mut inverse_norms = Vec::new();
        let mut values = Vec::new();
        self.for_each_block(segment, rows.iter(), stop, &mut |rows, ids| {
            values.resize(rows.len() * query.dim(), 0.0);
            read_vectors(self.snapshot(), ids, ordinal, query.dim(), &mut values)?;
            inverse_norms.clear();
            if query.metric() == Metric::Cosine {
                inverse_norms.extend(values.chunks_exact(query.dim()).map(inverse_norm));
            }
            similarities.resize(rows.len(), 0.0);
            kernel.many(query, &values, &inverse_norms, &mut similarities);
            for (&row, &similarity) in rows.iter().zip(&similarities) {
                best.offer(Candidate { row, similarity });
            }
            Ok(())
        })?;
        best.drain_sorted(out);
        Ok(())
    }

    /// Calls `visit` with each of the given live rows of a segment and its payload from the database.
    ///
    /// # Errors
    /// [`ShardError::Stopped`], what the database reports, or what `visit` returned.
    pub fn payloads_from_database(
        &self,
        segment: &SegmentView,
        rows: &mut dyn Iterator<Item = u32>,
        stop: &dyn Stop,
        visit: &mut dyn FnMut(u32, PointId, PayloadRef<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), ShardError> {
        self.for_each_block(segment, rows, stop, &mut |rows, ids| {
            read_points(self.snapshot(), ids, &mut |at, record| match record {
                Some(record) => {
                    visit(rows[at], ids[at], record.payload).map_err(|error| bad_row("point", ids[at], error))
                }
                None => Err(missing_row("point", ids[at])),
            })
        })
    }

    pub(super) fn matching_from_database(
        &self,
        segment: &SegmentView,
        filter: &Filter,
        stop: &dyn Stop,
    ) -> Result<Bitmap, ShardError> {
        let mut matching = Bitmap::new(segment.segment.rows());
        self.payloads_from_database(segment, &mut segment.live.iter(), stop, &mut |row, id, payload| {
            if filter.matches(id, &payload.decode()?) {
                matching.set(row);
            }
            Ok(())
        })?;
        Ok(matching)
    }

    fn for_each_block(
        &self,
        segment: &SegmentView,
        rows: impl Iterator<Item = u32>,
        stop: &dyn Stop,
        visit: &mut dyn FnMut(&[u32], &[PointId]) -> Result<(), ShardError>,
    ) -> Result<(), ShardError> {
        let mut rows = rows.peekable();
        let mut ids = Vec::with_capacity(BLOCK_ROWS);
        while rows.peek().is_some() {
            if stop.should_stop() {
                return Err(ShardError::Stopped);
            }
            let block: Vec<u32> = rows.by_ref().take(BLOCK_ROWS).collect();
            self.point_ids(segment, &block, &mut ids)?;
            visit(&block, &ids)?;
        }
        Ok(())
    }
}

/// Calls `visit(i, record of ids[i])`, `None` for a point that does not exist, until it fails.
pub(crate) fn read_points(
    kv: &dyn KvRead,
    ids: &[PointId],
    visit: &mut dyn FnMut(usize, Option<PointRecord<'_>>) -> Result<(), ShardError>,
) -> Result<(), ShardError> {
    let keys: Vec<_> = ids.iter().map(|id| id.to_key()).collect();
    let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
    let mut failure = None;
    kv.multi_get(POINTS, &keys, &mut |at, value| {
        if failure.is_some() {
            return;
        }
        let record = value.map(|value| PointRecord::read(value).map_err(|error| bad_row("point", ids[at], error)));
        failure = record.transpose().and_then(|record| visit(at, record)).err();
    })?;
    failure.map_or(Ok(()), Err)
}

/// Reads the vectors of points that exist, one after another.
pub(crate) fn read_vectors(
    kv: &dyn KvRead,
    ids: &[PointId],
    ordinal: usize,
    dim: usize,
    out: &mut [f32],
) -> Result<(), ShardError> {
    debug_assert_eq!(out.len(), ids.len() * dim);
    let keys: Vec<_> = ids.iter().map(|&id| Key::vector(id, ordinal)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
    let mut failure = None;
    kv.multi_get(VECTORS, &keys, &mut |at, value| {
        let read = match value {
            Some(value) => {
                let out = &mut out[at * dim..][..dim];
                read_vector_into(value, out).map_err(|error| bad_row("vector", ids[at], error))
            }
            None => Err(missing_row("vector", ids[at])),
        };
        failure = failure.take().or(read.err());
    })?;
    failure.map_or(Ok(()), Err)
}

/// Calls `visit` with the points whose ids are greater than `after`, ascending, until it breaks.
pub(crate) fn scan_points(
    kv: &dyn KvRead,
    after: Option<PointId>,
    visit: &mut dyn FnMut(PointId, PointRecord<'_>) -> Result<ControlFlow<()>, ShardError>,
) -> Result<(), ShardError> {
    let range = sagitta_engine::kv::ScanRange::all();
    let range = match after {
        Some(after) => range.starting_after(&after.to_key()),
        None => range,
    };
    let mut failure = None;
    kv.scan(POINTS, &range, &mut |key, value| {
        let visited = PointId::from_key(key)
            .ok_or_else(|| ShardError::Inconsistent { what: format!("{key:02x?} is not the key of a point") })
            .and_then(|id| {
                let record = PointRecord::read(value).map_err(|error| bad_row("point", id, error))?;
                visit(id, record)
            });
        visited.unwrap_or_else(|error| {
            failure = Some(error);
            ControlFlow::Break(())
        })
    })?;
    failure.map_or(Ok(()), Err)
}

/// A row that cannot be read.
pub(crate) fn bad_row(what: &str, id: PointId, source: DecodeError) -> ShardError {
    ShardError::Row { what: format!("the {what} {id}"), source }
}

/// A row that must be there.
pub(crate) fn missing_row(what: &str, id: PointId) -> ShardError {
    ShardError::Inconsistent { what: format!("the {what} {id} is not in the database, but in a segment") }
}
