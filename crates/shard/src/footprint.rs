//! What the points of a shard take, as opposed to what is on its disk: there is garbage there that is yet to be collected, and since a split
//! what belongs to another shard.
//!
//! Vectors are as large as the schema says, and of a segment the live rows have their share. Payloads are of any size: those of a few points of
//! each segment stand for all of it.

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::view::{read_points, scan_points};
use crate::{ReadView, SegmentView, Shard, ShardError};

/// Points whose payloads stand for all.
const SAMPLE: usize = 64;
/// Points that are looked at to find so many, where no segment tells which there are.
const MOST_LOOKED_AT: usize = 4 * SAMPLE;
/// They are looked at anew once the number of points has changed by this part,
const CHANGED_PARTS: u64 = 8;
/// or so many entries were applied, which may have put other payloads in their place.
const CHANGED_ENTRIES: u64 = 4_096;

/// What was found when payloads were looked at last.
#[derive(Clone, Copy, Default)]
struct Found {
    points: u64,
    applied: u64,
    /// The mean size of a payload.
    bytes: u64,
}

#[derive(Default)]
pub(crate) struct Sampled(Mutex<Option<Found>>);

impl Sampled {
    fn lock(&self) -> MutexGuard<'_, Option<Found>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// Bytes that the points take: vectors and payload, and their share of the segments. Payloads count for nothing before the first
    /// [`Shard::sample_payloads`]. Reads nothing.
    pub fn data_bytes(&self) -> u64 {
        let view = self.view();
        let of_segments = view.segments().iter().map(|SegmentView { segment, live }| {
            let (memory, rows) = (segment.memory(), segment.rows().max(1));
            share(memory.mapped_hot + memory.mapped_cold, live.count(), rows)
        });
        let of_segments: u64 = of_segments.sum();
        let of_vectors: u64 = view.schema().vectors.values().map(|spec| (spec.dim * size_of::<f32>()) as u64).sum();
        let of_payload = self.sampled.lock().map_or(0, |found| found.bytes);
        view.points().saturating_mul(of_vectors + of_payload).saturating_add(of_segments)
    }

    /// Finds out how large payloads are, if it is not known or many were written since. Reads a few points from the disk; says whether it did.
    pub fn sample_payloads(&self) -> bool {
        let view = self.view();
        let (points, applied) = (view.points(), view.applied_index());
        let known = *self.sampled.lock();
        let is_fresh = |found: Found| {
            found.points.abs_diff(points) <= found.points / CHANGED_PARTS
                && applied.saturating_sub(found.applied) < CHANGED_ENTRIES
        };
        if known.is_some_and(is_fresh) || known.is_none() && points == 0 {
            return false;
        }
        // What fails is not tried again before the next time: whoever needs the points finds the same.
        let bytes = sample(&view).unwrap_or_else(|error| {
            tracing::debug!(%error, "it cannot be told how large payloads are");
            known.unwrap_or_default().bytes
        });
        *self.sampled.lock() = Some(Found { points, applied, bytes });
        true
    }
}

fn share(bytes: u64, part: usize, all: usize) -> u64 {
    u64::try_from(u128::from(bytes) * part as u128 / all as u128).unwrap_or(u64::MAX)
}

/// The mean size of a payload.
fn sample(view: &ReadView) -> Result<u64, ShardError> {
    let (mut bytes, mut points) = (0_u128, 0_u128);
    let (mut ids, each) = (Vec::new(), SAMPLE.div_ceil(view.segments().len().max(1)));
    for of @ SegmentView { segment, live } in view.segments() {
        let apart = segment.rows().div_ceil(each).max(1);
        let rows: Vec<u32> = (0..segment.rows() as u32).step_by(apart).filter(|row| live.contains(*row)).collect();
        view.point_ids(of, &rows, &mut ids)?;
        let (mut taken, mut count) = (0_u128, 0_u128);
        read_points(view.snapshot(), &ids, &mut |_, record| {
            taken += record.map_or(0, |record| record.payload.encoded().len() as u128);
            count += 1;
            Ok(())
        })?;
        // A large segment counts for more than a small one.
        let alive = live.count() as u128;
        if let Some(all) = (taken * alive).checked_div(count) {
            (bytes, points) = (bytes + all, points + alive);
        }
    }
    if points == 0 {
        let mut looked_at = 0;
        scan_points(view.snapshot(), None, &mut |id, record| {
            looked_at += 1;
            if view.range().holds(id) {
                (bytes, points) = (bytes + record.payload.encoded().len() as u128, points + 1);
            }
            let more = points < SAMPLE as u128 && looked_at < MOST_LOOKED_AT;
            Ok(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
    }
    Ok(u64::try_from(bytes / points.max(1)).unwrap_or(u64::MAX))
}
