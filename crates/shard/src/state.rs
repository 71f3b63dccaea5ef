//! The one mutable thing of a shard: what the next view will be made of.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use sagitta_engine::kv::Kv;
use sagitta_model::PointId;

use crate::growing::ChunkRows;
use crate::records::{Head, Manifest, Request, Span};
use crate::requests::RequestWindow;
use crate::view::{ViewContext, read_points};
use crate::{Generation, ReadView, SegmentId, SegmentView, ShardError, WriteOutcome};

/// Owned by whoever holds the shard's lock: the thread that applies entries, or a job for the moment of its installation.
/// Readers never touch it.
pub(crate) struct State {
    /// As in the database, except that the growing generation may be a new one that has no rows yet.
    pub(crate) head: Head,
    pub(crate) manifest: Manifest,
    pub(crate) span: Arc<Span>,
    /// Who belongs to the group of the shard's replicas, if an entry has said so.
    pub(crate) members: Option<Arc<[u8]>>,
    /// By number.
    pub(crate) segments: Vec<SegmentView>,
    /// Generations that wait for their segments, by number.
    pub(crate) frozen: Vec<Arc<Generation>>,
    pub(crate) growing: Arc<Generation>,
    /// Where each live row is that is in no segment.
    pub(crate) unsealed: HashMap<PointId, Location>,
    pub(crate) requests: RequestWindow,
    /// The requests that the shard was filled with, while they are remembered; what came of them is in the database.
    pub(crate) imported: HashSet<u128>,
    /// What came of entries whose outcomes nobody was told, because a later one of the same call failed.
    pub(crate) untold: BTreeMap<u64, WriteOutcome>,
}

/// A row of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) generation: u32,
    pub(crate) row: u32,
}

/// Where the live row of a point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// There is no such point.
    Absent,
    Unsealed(Location),
    Sealed {
        segment: SegmentId,
        row: u32,
    },
}

/// What an applied batch changes; made before it is written and carried out after.
pub(crate) struct Changes {
    pub(crate) head: Head,
    /// Rows that die.
    pub(crate) dead: Vec<(PointId, Place)>,
    /// Rows that are born, in the growing generation.
    pub(crate) rows: ChunkRows,
    /// The commands by log index.
    pub(crate) requests: Vec<(u64, Request)>,
    /// The requests that the shard is filled with.
    pub(crate) imported: Vec<u128>,
    /// None of those that it was filled with is remembered any more.
    pub(crate) forgets_imported: bool,
    /// What it is responsible for, if that changes.
    pub(crate) span: Option<Arc<Span>>,
    /// The members, if they change.
    pub(crate) members: Option<Arc<[u8]>>,
}

impl State {
    /// The places of points.
    pub(crate) fn places(
        &self,
        kv: &dyn Kv,
        ids: &[PointId],
        places: &mut HashMap<PointId, Place>,
    ) -> Result<(), ShardError> {
        let mut unknown = Vec::new();
        for &id in ids {
            match self.unsealed.get(&id) {
                Some(&location) => {
                    places.insert(id, Place::Unsealed(location));
                }
                None if !places.contains_key(&id) => unknown.push(id),
                None => {}
            }
        }
        let mut stored = Vec::new();
        read_points(kv, &unknown, &mut |at, record| {
            match record {
                Some(_) => stored.push(unknown[at]),
                None => {
                    places.insert(unknown[at], Place::Absent);
                }
            }
            Ok(())
        })?;
        for id in stored {
            places.insert(id, self.sealed_place(kv, id)?);
        }
        Ok(())
    }

    /// The generation with this number.
    pub(crate) fn generation(&self, number: u32) -> Option<&Arc<Generation>> {
        self.frozen.iter().chain([&self.growing]).find(|generation| generation.number() == number)
    }

    /// Carries out what was written.
    pub(crate) fn commit(&mut self, changes: Changes) {
        for (id, place) in changes.dead {
            match place {
                Place::Absent => {}
                Place::Unsealed(location) => {
                    self.unsealed.remove(&id);
                    Arc::make_mut(self.generation_mut(location.generation)).kill(location.row);
                }
                Place::Sealed { segment, row } => {
                    Arc::make_mut(&mut self.segment_mut(segment).live).clear(row);
                }
            }
        }
        self.grow(changes.rows);
        changes.requests.into_iter().for_each(|(index, request)| self.requests.push(index, request));
        self.requests.prune();
        self.imported.extend(changes.imported);
        if changes.forgets_imported {
            self.imported = HashSet::new();
        }
        if let Some(span) = changes.span {
            self.span = span;
        }
        self.head = changes.head;
        if changes.members.is_some() {
            self.members = changes.members;
        }
    }

    /// Appends rows to the growing generation.
    pub(crate) fn grow(&mut self, rows: ChunkRows) {
        let generation = self.growing.number();
        let ids = rows.ids().to_vec();
        let start = Arc::make_mut(&mut self.growing).append(rows);
        for (row, id) in (start..).zip(ids) {
            self.unsealed.insert(id, Location { generation, row });
        }
    }

    /// Begins a new generation; the growing one waits for its segment from now on.
    pub(crate) fn freeze(&mut self) {
        if self.growing.rows() == 0 {
            return;
        }
        self.head.generation = self.growing.number() + 1;
        let frozen = std::mem::replace(&mut self.growing, Arc::new(Generation::new(self.head.generation)));
        self.frozen.push(frozen);
    }

    /// What readers see from now on.
    pub(crate) fn view(&self, kv: &dyn Kv, context: &Arc<ViewContext>) -> ReadView {
        let generations = self.frozen.iter().chain([&self.growing]).filter(|generation| generation.rows() > 0);
        ReadView::new(
            &self.head,
            Arc::clone(&self.span),
            self.members.clone(),
            self.segments.clone(),
            generations.cloned().collect(),
            kv.snapshot(),
            Arc::clone(context),
        )
    }

    fn sealed_place(&self, kv: &dyn Kv, id: PointId) -> Result<Place, ShardError> {
        for view in &self.segments {
            let found = view.segment.read_ids(kv, |ids| ids.find(id))?;
            if let Some(row) = found.filter(|row| view.live.contains(*row)) {
                return Ok(Place::Sealed { segment: view.segment.id(), row });
            }
        }
        Err(ShardError::Inconsistent { what: format!("point {id} is in the database, but in no segment") })
    }

    /// A segment that is there.
    pub(crate) fn segment_mut(&mut self, id: SegmentId) -> &mut SegmentView {
        let found = self.segments.iter_mut().find(|view| view.segment.id() == id);
        found.expect("invariant: places are of the present segments")
    }

    /// A generation that is there.
    pub(crate) fn generation_mut(&mut self, number: u32) -> &mut Arc<Generation> {
        let mut generations = self.frozen.iter_mut().chain([&mut self.growing]);
        let found = generations.find(|generation| generation.number() == number);
        found.expect("invariant: locations are of the present generations")
    }
}
