//! What readers see.

mod database;
mod read;

use std::sync::Arc;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::{Candidate, IndexEngine, Stop};
use sagitta_engine::kv::KvRead;
use sagitta_engine::mapped::Damaged;
use sagitta_env::Env;
use sagitta_model::{Filter, HashRange, Hit, PointId, Schema};

pub use self::read::AnswerRoom;

pub(crate) use self::database::{BLOCK_ROWS, bad_row, missing_row, read_points, read_vectors, scan_points};
use crate::records::{Head, Identity, Merges, Span};
use crate::{Generation, Part, Segment, SegmentId, ShardError};

/// Live rows between two looks at whether to stop.
const ROWS_PER_CHECK: usize = 1_024;

/// The shard as of one applied index. Immutable: whoever holds it sees the same points for as long.
///
/// It holds a snapshot of the database and open files of segments that may have been replaced: let go of it soon.
pub struct ReadView {
    applied_index: u64,
    applied_term: u64,
    span: Arc<Span>,
    members: Option<Arc<[u8]>>,
    points: u64,
    /// Number of the growing generation, whether or not it has rows.
    growing: u32,
    segments: Vec<SegmentView>,
    generations: Vec<Arc<Generation>>,
    snapshot: Box<dyn KvRead>,
    shared: Arc<ViewContext>,
}

/// What all views of a shard have in common.
pub(crate) struct ViewContext {
    /// UUID of the collection.
    pub(crate) collection: u128,
    /// Number of the shard.
    pub(crate) shard: u64,
    pub(crate) schema: Arc<Schema>,
    pub(crate) index_engine: Arc<dyn IndexEngine>,
    pub(crate) env: Env,
}

impl ViewContext {
    /// Whose database it is.
    pub(crate) fn identity(&self, span: Span) -> Identity {
        Identity { collection: self.collection, shard: self.shard, schema: (*self.schema).clone(), span }
    }
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
    pub(crate) fn new(
        head: &Head,
        span: Arc<Span>,
        members: Option<Arc<[u8]>>,
        segments: Vec<SegmentView>,
        generations: Vec<Arc<Generation>>,
        snapshot: Box<dyn KvRead>,
        shared: Arc<ViewContext>,
    ) -> Self {
        let &Head { applied_index, applied_term, points, generation: growing, .. } = head;
        Self { applied_index, applied_term, span, members, points, growing, segments, generations, snapshot, shared }
    }

    /// Numbers of the generations that wait for their segments.
    pub fn frozen(&self) -> impl Iterator<Item = u32> + '_ {
        self.generations.iter().map(|generation| generation.number()).filter(|number| *number != self.growing)
    }

    /// The log index up to which everything is in this view, and nothing after it.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// Term of the log entry at [`ReadView::applied_index`].
    pub fn applied_term(&self) -> u64 {
        self.applied_term
    }

    /// The hashes of the ids that the shard is responsible for: it holds, takes and shows no others.
    pub fn range(&self) -> HashRange {
        self.span.range
    }

    /// Log index of the last split that this view is after; 0 if there was none. It says which points the view is about: two that were
    /// split last by the same entry have the same range.
    pub fn since(&self) -> u64 {
        self.span.since()
    }

    /// Index and term of the last split that this view is after.
    pub fn last_split(&self) -> Option<(u64, u64)> {
        self.span.relatives.last().map(|relative| (relative.split.index, relative.split.term))
    }

    /// Index and term of the entry that split this shard and another one, if this view is after it.
    pub fn split_from(&self, shard: u64) -> Option<(u64, u64)> {
        self.span.split_from(shard).map(|split| (split.index, split.term))
    }

    /// As [`crate::Shard::born`].
    pub fn born(&self) -> Option<(u64, u64)> {
        self.span.born.map(|split| (split.index, split.term))
    }

    pub(crate) fn merges(&self) -> Merges {
        self.span.merges
    }

    /// Whose database the shard is, with this responsibility.
    pub(crate) fn identity(&self, span: Span) -> Identity {
        self.shared.identity(span)
    }

    /// Index and term of the entry that split the shard off from another, if it was.
    pub fn split_off(&self) -> Option<(u64, u64)> {
        self.born().filter(|born| self.span.relatives.iter().any(|one| (one.split.index, one.split.term) == *born))
    }

    /// As [`Span::foreign`].
    pub(crate) fn foreign(&self) -> Option<SegmentId> {
        self.span.foreign
    }

    /// Number of the shard.
    pub fn shard(&self) -> u64 {
        self.shared.shard
    }

    /// Who belongs to the group of the shard's replicas, as the last entry that changed it has it.
    pub fn members(&self) -> Option<&[u8]> {
        self.members.as_deref()
    }

    /// The log index up to which every row that is still alive is in a sealed segment.
    pub fn indexed_index(&self) -> u64 {
        let unsealed = self.generations.iter().filter_map(|generation| generation.first_version());
        unsealed.map(|version| version - 1).min().unwrap_or(self.applied_index).min(self.applied_index)
    }

    /// Points that exist.
    pub fn points(&self) -> u64 {
        self.points
    }

    /// What the collection holds.
    pub fn schema(&self) -> &Schema {
        &self.shared.schema
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
        &*self.shared.index_engine
    }

    /// Time, for explanations.
    pub fn env(&self) -> &Env {
        &self.shared.env
    }

    /// The database as of this view.
    pub fn snapshot(&self) -> &dyn KvRead {
        &*self.snapshot
    }

    /// Position of a vector name in the schema.
    pub fn vector_ordinal(&self, name: &str) -> Option<usize> {
        self.schema().vectors.keys().position(|known| known == name)
    }

    /// Notes that a part of a segment is damaged: it is not used again, and rebuilt. Then answer by
    /// [`ReadView::matching`] and [`ReadView::exact_from_database`], which need no derived file.
    pub fn report_damage(&self, segment: &SegmentView, part: Part, damage: &Damaged) {
        segment.segment.report(part, &damage.to_string());
    }

    /// The live rows of a segment that pass a filter: by its payload index or, while that is damaged, from the database.
    ///
    /// # Errors
    /// [`ShardError::Stopped`], or what the database reports.
    pub fn matching(&self, segment: &SegmentView, filter: &Filter, stop: &dyn Stop) -> Result<Bitmap, ShardError> {
        if filter.is_empty() {
            return Ok(Bitmap::clone(&segment.live));
        }
        if let Some(payload) = segment.segment.payload() {
            match payload.matching(filter, &|id| self.find(segment, id)) {
                Ok(mut rows) => {
                    rows.and(&segment.live);
                    return Ok(rows);
                }
                Err(ShardError::Damaged(damage)) => self.report_damage(segment, Part::Payload, &damage),
                Err(error) => return Err(error),
            }
        }
        self.matching_from_database(segment, filter, stop)
    }

    /// The newest version among the rows of a segment, dead ones included. Reads all of them.
    ///
    /// # Errors
    /// What the database reports.
    pub fn newest_version(&self, segment: &SegmentView) -> Result<u64, ShardError> {
        segment.segment.read_ids(self.snapshot(), |ids| {
            let mut versions = (0..ids.rows() as u32).map(|row| ids.version(row));
            versions.try_fold(0, |newest, version| Ok(version?.max(newest)))
        })
    }

    /// The row of an id in a segment, dead or alive, whatever is damaged.
    ///
    /// # Errors
    /// What the database reports.
    pub fn find(&self, segment: &SegmentView, id: PointId) -> Result<Option<u32>, ShardError> {
        segment.segment.read_ids(self.snapshot(), |ids| ids.find(id))
    }

    /// The ids of rows, whatever is damaged. Replaces `out`.
    ///
    /// # Errors
    /// What the database reports.
    pub fn point_ids(&self, segment: &SegmentView, rows: &[u32], out: &mut Vec<PointId>) -> Result<(), ShardError> {
        out.clear();
        for &row in rows {
            out.push(segment.segment.read_ids(self.snapshot(), |ids| ids.id(row))?);
        }
        Ok(())
    }

    /// Hits for candidates of a segment, in their order.
    ///
    /// # Errors
    /// What the database reports.
    pub fn hits(&self, segment: &SegmentView, candidates: &[Candidate]) -> Result<Vec<Hit>, ShardError> {
        let hit = |candidate: &Candidate| {
            let id = segment.segment.read_ids(self.snapshot(), |ids| ids.id(candidate.row))?;
            Ok(Hit { id, similarity: candidate.similarity })
        };
        candidates.iter().map(hit).collect()
    }
}
