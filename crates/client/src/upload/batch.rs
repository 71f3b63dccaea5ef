//! Points into chunks.

use std::collections::HashSet;

use sagitta_env::Env;
use sagitta_model::{Point, PointId, limits};
use sagitta_wire::upload::{CHUNK_OVERHEAD_BYTES, Credit, MIN_WINDOW, point_bytes};
use sagitta_wire::{Convert as _, RequestId, v1};

use super::{UploadOptions, UploadRun};

/// Points that are sent together.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// The position of the first one in the source.
    pub(super) first: u64,
    pub(super) points: Vec<v1::Point>,
    /// Of the points.
    bytes: u64,
    /// The same for every attempt to send it.
    pub(super) request_id: RequestId,
    /// How often the server answered that it could not write it.
    pub(super) attempts: u32,
}

/// Collects points until they make a batch.
#[derive(Debug)]
pub(super) struct Batcher {
    env: Env,
    run: Option<UploadRun>,
    max_bytes: u64,
    max_points: usize,
    first: u64,
    points: Vec<v1::Point>,
    bytes: u64,
    /// The ids of `points`, of which none may occur twice.
    ids: HashSet<PointId>,
}

impl Batch {
    /// No less than the credit that it takes to send it.
    pub(super) fn most_cost(&self) -> Credit {
        Credit { points: self.points.len() as u64, bytes: self.bytes + CHUNK_OVERHEAD_BYTES }
    }

    pub(super) fn chunk(&self, sequence: u64) -> v1::UpsertChunk {
        v1::UpsertChunk { sequence, request_id: self.request_id.to_string(), points: self.points.clone() }
    }
}

impl Batcher {
    /// Batches of at most this size, and always small enough for the smallest window.
    pub(super) fn new(env: Env, options: &UploadOptions) -> Self {
        Self {
            env,
            run: options.run,
            max_bytes: options.chunk_bytes.min(MIN_WINDOW.bytes - CHUNK_OVERHEAD_BYTES),
            max_points: options.chunk_points.clamp(1, limits::MAX_BATCH_POINTS),
            first: 0,
            points: Vec::new(),
            bytes: 0,
            ids: HashSet::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Adds a point. Returns the batch before it when the point does not fit in or has an id that is in it already.
    pub(super) fn push(&mut self, point: Point) -> Option<Batch> {
        let id = point.id;
        let point = point.into_proto();
        let bytes = point_bytes(&point);
        let full = self.points.len() == self.max_points || self.bytes + bytes > self.max_bytes;
        let before = if full || !self.ids.insert(id) { self.take() } else { None };
        if before.is_some() {
            self.ids.insert(id);
        }
        self.bytes += bytes;
        self.points.push(point);
        before
    }

    /// The batch of what there is, if there is anything.
    pub(super) fn take(&mut self) -> Option<Batch> {
        if self.points.is_empty() {
            return None;
        }
        let points = std::mem::take(&mut self.points);
        let first = self.first;
        self.first += points.len() as u64;
        let bytes = std::mem::take(&mut self.bytes);
        self.ids.clear();
        let request_id = RequestId(match self.run {
            None => self.env.uuid(),
            Some(run) => chunk_id(run, first, points.len()),
        });
        Some(Batch { first, points, bytes, request_id, attempts: 0 })
    }
}

/// The id of a chunk of a run: another one for each place and each number of points, below 2^32.
fn chunk_id(run: UploadRun, first: u64, points: usize) -> u128 {
    run.id ^ (u128::from(run.first + first) << 32 | points as u128)
}
