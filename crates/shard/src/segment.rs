//! Sealed segments: immutable files derived from the database.

use std::sync::Arc;

use sagitta_engine::index::VectorIndex;
use sagitta_engine::mapped::Damaged;
use sagitta_model::PointId;

use crate::ShardError;
use crate::payload::PayloadIndex;
use crate::search::Calibration;

/// Number of a segment in its shard; never used again.
pub type SegmentId = u64;

/// A part of a segment that can be damaged by itself; the others go on being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Ids and versions.
    Ids,
    /// The index of one vector name, by its position in the schema.
    Vector(usize),
    /// The payload index.
    Payload,
}

/// An opened segment. A row's number (docid) is the rank of its id among the segment's rows, dead ones included.
pub struct Segment {
    id: SegmentId,
    rows: usize,
    vectors: Vec<Option<SegmentVector>>,
    payload: Option<PayloadIndex>,
}

/// The index of one vector name in a segment.
pub struct SegmentVector {
    /// The index.
    pub index: Arc<dyn VectorIndex>,
    /// How its breadth relates to recall.
    pub calibration: Calibration,
}

impl Segment {
    /// Number in the shard.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// Number of rows, dead ones included.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The id of a row.
    ///
    /// # Errors
    /// [`ShardError::Damaged`] never leaves a view: see [`crate::ReadView::point_ids`].
    pub fn point_id(&self, _row: u32) -> Result<PointId, Damaged> {
        unreachable!()
    }

    /// The row of an id, dead or alive.
    pub fn find(&self, _id: PointId) -> Result<Option<u32>, Damaged> {
        unreachable!()
    }

    /// The first row with an id greater than this one; the number of rows if there is none.
    pub fn first_after(&self, _id: PointId) -> Result<u32, Damaged> {
        unreachable!()
    }

    /// The index of a vector name, by its position in the schema; `None` while it is damaged.
    pub fn vector(&self, ordinal: usize) -> Option<&SegmentVector> {
        self.vectors[ordinal].as_ref()
    }

    /// The payload index; `None` while it is damaged.
    pub fn payload(&self) -> Option<&PayloadIndex> {
        self.payload.as_ref()
    }
}

#[allow(dead_code)]
fn _unused() -> Option<ShardError> {
    None
}
