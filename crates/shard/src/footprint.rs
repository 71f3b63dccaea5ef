//! What the points of a shard take, as opposed to what is on its disk: there is garbage there that is yet to be collected, and since a split
//! what belongs to another shard.
//!
//! Vectors are as large as the schema says, and of a segment the live rows have their share. Payloads are of any size: that of a few points,
//! evenly spread, stands for all.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use crate::view::{read_points, scan_points};
use crate::{ReadView, SegmentView, Shard, ShardError};

/// Points whose payloads stand for all.
const SAMPLE: usize = 64;
/// Points that are looked at to find so many, where no segment tells which there are.
const MOST_LOOKED_AT: usize = 4 * SAMPLE;
/// They are looked at anew once the number of points has changed by this part.
const CHANGED_PARTS: u64 = 8;

/// The mean size of payloads, in bytes, and how many points there were when that was found out.
#[derive(Default)]
pub(crate) struct Sampled(Mutex<Option<(u64, u64)>>);

impl Shard {
    /// Bytes that the points take: vectors and payload, and their share of the segments. Cheap enough to be asked for every second.
    pub fn data_bytes(&self) -> u64 {
        let view = self.view();
        let of_segments = view.segments().iter().map(|SegmentView { segment, live }| {
            let (memory, rows) = (segment.memory(), segment.rows().max(1));
            share(memory.mapped_hot + memory.mapped_cold, live.count(), rows)
        });
        let of_segments: u64 = of_segments.sum();
        let of_vectors: u64 = view.schema().vectors.values().map(|spec| (spec.dim * size_of::<f32>()) as u64).sum();
        view.points().saturating_mul(of_vectors + self.payload_bytes(&view)).saturating_add(of_segments)
    }

    /// The mean size of a payload.
    fn payload_bytes(&self, view: &ReadView) -> u64 {
        let sampled = || self.sampled.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (points, known) = (view.points(), *sampled());
        match known {
            Some((then, bytes)) if then.abs_diff(points) <= then / CHANGED_PARTS => bytes,
            _ => match sample(view) {
                Ok(bytes) => {
                    *sampled() = Some((points, bytes));
                    bytes
                }
                Err(error) => {
                    tracing::debug!(%error, "it cannot be told how large payloads are");
                    known.map_or(0, |(_, bytes)| bytes)
                }
            },
        }
    }
}

fn share(bytes: u64, part: usize, all: usize) -> u64 {
    u64::try_from(u128::from(bytes) * part as u128 / all as u128).unwrap_or(u64::MAX)
}

fn sample(view: &ReadView) -> Result<u64, ShardError> {
    let (mut bytes, mut count) = (0, 0);
    let (mut ids, each) = (Vec::new(), SAMPLE.div_ceil(view.segments().len().max(1)));
    for segment in view.segments() {
        let rows = segment.segment.rows();
        let apart = rows.div_ceil(each).max(1);
        let rows: Vec<u32> = (0..rows as u32).step_by(apart).filter(|row| segment.live.contains(*row)).collect();
        view.point_ids(segment, &rows, &mut ids)?;
        read_points(view.snapshot(), &ids, &mut |_, record| {
            let payload = record.map_or(0, |record| record.payload.encoded().len());
            (bytes, count) = (bytes + payload as u64, count + 1);
            Ok(())
        })?;
    }
    if count == 0 {
        let mut looked_at = 0;
        scan_points(view.snapshot(), None, &mut |id, record| {
            looked_at += 1;
            if view.range().holds(id) {
                (bytes, count) = (bytes + record.payload.encoded().len() as u64, count + 1);
            }
            let more = count < SAMPLE as u64 && looked_at < MOST_LOOKED_AT;
            Ok(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
    }
    Ok(bytes / count.max(1))
}
