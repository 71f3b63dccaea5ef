//! What readers see.

use std::sync::Arc;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::{Candidate, IndexEngine, PreparedQuery, Stop};
use sagitta_engine::kv::KvRead;
use sagitta_engine::mapped::Damaged;
use sagitta_env::Env;
use sagitta_model::{Filter, Hit, PointId, Schema};

use crate::{Generation, Part, Segment, ShardError};

/// The shard as of one applied index. Immutable; whoever holds it sees the same points for as long.
pub struct ReadView {
    applied_index: u64,
    schema: Arc<Schema>,
    segments: Vec<SegmentView>,
    generations: Vec<Arc<Generation>>,
    snapshot: Arc<dyn KvRead>,
    index_engine: Arc<dyn IndexEngine>,
    env: Env,
}

/// A segment and which of its rows are alive.
#[derive(Clone)]
pub struct SegmentView {
    /// The segment.
    pub segment: Arc<Segment>,
    /// The rows that are neither deleted nor overwritten.
    pub live: Arc<Bitmap>,
}

impl ReadView {
    /// The log index up to which everything is in this view, and nothing after it.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// What the collection holds.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The sealed segments.
    pub fn segments(&self) -> &[SegmentView] {
        &self.segments
    }

    /// The rows that are in no segment yet: frozen generations, then the growing one. No live id is in two places.
    pub fn generations(&self) -> &[Arc<Generation>] {
        &self.generations
    }

    /// The engine whose kernel scores unsealed rows.
    pub fn index_engine(&self) -> &dyn IndexEngine {
        &*self.index_engine
    }

    /// Time, for explanations.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The database as of this view.
    pub fn snapshot(&self) -> &dyn KvRead {
        &*self.snapshot
    }

    /// Position of a vector name in the schema.
    pub fn vector_ordinal(&self, name: &str) -> Option<usize> {
        self.schema.vectors.keys().position(|known| known == name)
    }

    /// Notes that a part of a segment is damaged: it is not used again, and rebuilt. Then answer from
    /// [`ReadView::matching`] and [`ReadView::exact_from_database`], which need no derived file.
    pub fn report_damage(&self, _segment: &SegmentView, _part: Part, _damage: &Damaged) {}

    /// The live rows of a segment that pass a filter: by its payload index or, while that is damaged, from the database.
    pub fn matching(&self, _segment: &SegmentView, _filter: &Filter, _stop: &dyn Stop) -> Result<Bitmap, ShardError> {
        unreachable!()
    }

    /// The row of an id in a segment, dead or alive, whatever is damaged.
    pub fn find(&self, _segment: &SegmentView, _id: PointId) -> Result<Option<u32>, ShardError> {
        unreachable!()
    }

    /// The ids of rows, whatever is damaged. Replaces `out`.
    pub fn point_ids(&self, _segment: &SegmentView, _rows: &[u32], _out: &mut Vec<PointId>) -> Result<(), ShardError> {
        unreachable!()
    }

    /// The best `k` of the given live rows of a segment, compared exactly with vectors from the database: slow, needs no
    /// derived file, and scores the same bits as an index. Replaces `out`, best first.
    pub fn exact_from_database(
        &self,
        _segment: &SegmentView,
        _ordinal: usize,
        _query: &PreparedQuery,
        _rows: &Bitmap,
        _k: usize,
        _stop: &dyn Stop,
        _out: &mut Vec<Candidate>,
    ) -> Result<(), ShardError> {
        unreachable!()
    }

    /// Hits for candidates of a segment.
    pub fn hits(&self, _segment: &SegmentView, _candidates: &[Candidate]) -> Result<Vec<Hit>, ShardError> {
        unreachable!()
    }
}
