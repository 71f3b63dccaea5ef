use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sagitta_engine::index::Never;
use sagitta_engine::kv::Kv;
use sagitta_model::limits::MAX_PAYLOAD_BYTES;
use sagitta_model::{
    Change, ErrorKind, Filter, ItemFailure, Object, PayloadChange, Point, PointId, Problem, Target, Violation,
};
use xxhash_rust::xxh3::xxh3_64;

use super::merge::{Parts, in_all, is_left};
use super::{Decoded, decode, refusal, reused_request, stored_outcome};
use crate::codec::{Encode, Writer};
use crate::command::{MAX_DELETED_BY_FILTER, MAX_LISTED_FAILURES, MAX_UPDATED_BY_FILTER};
use crate::records::{Imported, Merges, Request};
use crate::requests::Known;
use crate::state::{Place, State};
use crate::view::{bad_row, read_points};
use crate::{Command, Entry, ReadView, ShardError, Split, WriteOutcome};

/// Entries that were decided but not written: what they leave of each point they touch. The last write of a point wins;
/// what was overwritten within a batch never becomes a row.
pub(crate) struct Stage<'a> {
    pub(super) state: &'a State,
    /// The state as readers see it.
    pub(super) view: &'a ReadView,
    pub(super) kv: &'a dyn Kv,
    /// Where the touched points were before the batch.
    pub(super) places: HashMap<PointId, Place>,
    pub(super) points: BTreeMap<PointId, StagedPoint>,
    /// Of the commands that were decided now, by log index.
    pub(super) outcomes: BTreeMap<u64, (Request, WriteOutcome)>,
    /// The same by request id.
    requests: HashMap<u128, Known>,
    pub(super) applied_index: u64,
    pub(super) applied_term: u64,
    /// The members after the batch, if it changes them.
    pub(super) members: Option<Arc<[u8]>>,
    /// The split, if the batch is one.
    pub(crate) split: Option<Split>,
    /// What merges have to do with the shard after the batch.
    pub(super) merges: Merges,
    /// What the batch fills the shard with of requests.
    pub(super) imported: HashMap<u128, Imported>,
}

/// What an entry asks for under a request id.
enum Asked {
    Change { after: Option<PointId>, change: Change },
    Split(Split),
}

/// What is left of a point after the batch.
pub(super) enum StagedPoint {
    Deleted,
    Present { version: u64, payload: Arc<Object>, vectors: StagedVectors },
}

pub(super) enum StagedVectors {
    /// In the order of the schema's names.
    New(Vec<Vec<f32>>),
    /// Those that the point had before the batch.
    Kept,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(state: &'a State, view: &'a ReadView, kv: &'a dyn Kv) -> Self {
        Self {
            state,
            view,
            kv,
            places: HashMap::new(),
            points: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            requests: HashMap::new(),
            applied_index: state.head.applied_index,
            applied_term: state.head.applied_term,
            members: None,
            split: None,
            merges: state.span.merges,
            imported: HashMap::new(),
        }
    }

    /// Whether no entry moved the position in the log.
    pub(crate) fn is_empty(&self) -> bool {
        self.applied_index == self.state.head.applied_index
    }

    /// Decides an entry.
    pub(crate) fn entry(&mut self, entry: &Entry<'_>) -> Result<WriteOutcome, ShardError> {
        let index = entry.index;
        if index <= self.applied_index {
            // Decided and not told, since what came after it failed.
            if let Some(outcome) = self.state.untold.get(&index) {
                return Ok(outcome.clone());
            }
            let known = match self.outcomes.get(&index) {
                Some((_, outcome)) => Some(outcome.clone()),
                None => stored_outcome(self.kv, index)?,
            };
            let outcome = known.unwrap_or_else(|| WriteOutcome { index, ..WriteOutcome::default() });
            return Ok(WriteOutcome { deduplicated: true, ..outcome });
        }
        let outcome = match decode(entry)? {
            Decoded::Empty => WriteOutcome { index, ..WriteOutcome::default() },
            Decoded::Nonsense(problem) => WriteOutcome { index, refused: Some(problem), ..WriteOutcome::default() },
            Decoded::Command(command) => {
                let Command { request_id: id, after, change } = *command;
                let asked = Asked::Change { after, change: Arc::unwrap_or_clone(change) };
                self.request(index, Request { id, hash: xxh3_64(entry.data) }, asked)?
            }
            Decoded::Split(split) => {
                let (id, hash) = (split.request_id, xxh3_64(entry.data));
                self.request(index, Request { id, hash }, Asked::Split(split))?
            }
            Decoded::Merge(entry) => self.merge(index, entry)?,
        };
        self.applied_index = index;
        self.applied_term = entry.term;
        if let Some(members) = entry.members {
            self.members = Some(members.into());
        }
        Ok(outcome)
    }

    /// Decides a request unless it was decided before.
    fn request(&mut self, index: u64, request: Request, asked: Asked) -> Result<WriteOutcome, ShardError> {
        let Request { id, hash } = request;
        let known = self.requests.get(&id).copied().or_else(|| self.state.requests.find(id));
        // What was applied before a split may come again in parts, one for each half.
        let is_same = |known: &Known| known.hash == hash || known.index < self.state.span.since();
        if let Some(known) = known.filter(is_same) {
            let outcome = match self.outcomes.get(&known.index) {
                Some((_, outcome)) => Some(outcome.clone()),
                None => stored_outcome(self.kv, known.index)?,
            };
            let outcome = outcome.ok_or_else(|| ShardError::Inconsistent {
                what: format!("the outcome of log entry {} is gone, but its request is not", known.index),
            })?;
            return Ok(WriteOutcome { deduplicated: true, ..outcome });
        }
        // Not remembered: it comes again elsewhere, and perhaps the rest of it here, under the same request id. That part may have
        // been here before, so that the id is known of another command.
        let misrouted = match &asked {
            Asked::Change { change, .. } => self.closed().or_else(|| self.misrouted(change)),
            Asked::Split(_) => self.closed(),
        };
        if let Some(problem) = misrouted {
            return Ok(WriteOutcome { index, refused: Some(problem), ..WriteOutcome::default() });
        }
        if let Some(known) = known {
            let refused = Some(reused_request(id, known.index));
            return Ok(WriteOutcome { index, refused, ..WriteOutcome::default() });
        }
        let outcome = match asked {
            Asked::Change { after, change } => match self.parts_of(id)?.filter(|_| self.remembers_imported()) {
                Some(parts) => match self.go_on(index, after, &change, parts)? {
                    done @ WriteOutcome { deduplicated: true, .. } => return Ok(done),
                    outcome => outcome,
                },
                None => self.change(index, after, change, &Parts::new())?,
            },
            Asked::Split(split) => self.divide(split),
        };
        let outcome = WriteOutcome { index, ..outcome };
        self.requests.insert(id, Known { index, hash });
        self.outcomes.insert(index, (request, outcome.clone()));
        Ok(outcome)
    }

    /// Does what is left of a change that was applied to some points before they came here. Remembered here only if there was
    /// something left.
    fn go_on(
        &mut self,
        index: u64,
        after: Option<PointId>,
        change: &Change,
        parts: Parts,
    ) -> Result<WriteOutcome, ShardError> {
        if let Some((_, refused)) = parts.iter().find(|(_, part)| part.refused.is_some()) {
            return Ok(WriteOutcome { deduplicated: true, ..refused.clone() });
        }
        let rest = self.rest(index, after, change, &parts)?;
        let deduplicated = rest.is_none();
        if let Some(refused) = rest.as_ref().filter(|rest| rest.refused.is_some()) {
            return Ok(refused.clone());
        }
        Ok(WriteOutcome { deduplicated, ..in_all(change, parts, rest) })
    }

    /// Applies a change to those of its points that no part was about.
    pub(super) fn change(
        &mut self,
        index: u64,
        after: Option<PointId>,
        change: Change,
        parts: &Parts,
    ) -> Result<WriteOutcome, ShardError> {
        match change {
            Change::Upsert(points) => self.upsert(index, points),
            Change::Delete(ids) => {
                let applied = self.delete(&ids)?;
                Ok(WriteOutcome { applied, ..WriteOutcome::default() })
            }
            Change::DeleteByFilter(filter) => {
                self.by_filter((after, &filter, MAX_DELETED_BY_FILTER), parts, &mut |stage, ids| {
                    let applied = stage.delete(ids)?;
                    Ok(WriteOutcome { applied, ..WriteOutcome::default() })
                })
            }
            Change::UpdatePayload { target: Target::Ids(ids), change } => self.update(index, &ids, &change),
            Change::UpdatePayload { target: Target::Filter(filter), change } => {
                self.by_filter((after, &filter, MAX_UPDATED_BY_FILTER), parts, &mut |stage, ids| {
                    stage.update(index, ids, &change)
                })
            }
        }
    }

    fn upsert(&mut self, index: u64, points: Vec<Point>) -> Result<WriteOutcome, ShardError> {
        for (at, point) in points.iter().enumerate() {
            if let Err(violation) = point.validate(self.view.schema()) {
                let refused = Some(refusal(violation.within(&format!("points[{at}]"))));
                return Ok(WriteOutcome { refused, ..WriteOutcome::default() });
            }
        }
        let ids: Vec<_> = points.iter().map(|point| point.id).collect();
        self.look_up(&ids)?;
        let applied = points.len() as u64;
        for point in points {
            // The point has the schema's names, no more and no less, and both are sorted.
            let vectors = StagedVectors::New(point.vectors.into_values().collect());
            let payload = Arc::new(point.payload);
            self.points.insert(point.id, StagedPoint::Present { version: index, payload, vectors });
        }
        Ok(WriteOutcome { applied, ..WriteOutcome::default() })
    }

    pub(super) fn delete(&mut self, ids: &[PointId]) -> Result<u64, ShardError> {
        self.look_up(ids)?;
        let mut deleted = 0;
        for &id in ids {
            if self.exists(id) {
                self.points.insert(id, StagedPoint::Deleted);
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    fn update(&mut self, index: u64, ids: &[PointId], change: &PayloadChange) -> Result<WriteOutcome, ShardError> {
        self.look_up(ids)?;
        let mut stored = self.stored_payloads(ids)?;
        let mut outcome = WriteOutcome::default();
        for (at, &id) in ids.iter().enumerate() {
            let updated = match self.payload(id, &mut stored) {
                Some(payload) => self.updated(payload, change),
                None => Err(Problem {
                    kind: ErrorKind::NotFound,
                    message: format!("there is no point {id}"),
                    violations: Vec::new(),
                }),
            };
            match updated {
                Ok(payload) => {
                    outcome.applied += 1;
                    self.replace_payload(id, index, payload);
                }
                Err(problem) => {
                    outcome.failed += 1;
                    if outcome.failures.len() < MAX_LISTED_FAILURES {
                        outcome.failures.push(ItemFailure { index: at, id, problem });
                    }
                }
            }
        }
        Ok(outcome)
    }

    /// Does something to the first `limit` points after an id that pass a filter, but for those that a part was about.
    fn by_filter(
        &mut self,
        (after, filter, limit): (Option<PointId>, &Filter, usize),
        parts: &Parts,
        act: &mut dyn FnMut(&mut Self, &[PointId]) -> Result<WriteOutcome, ShardError>,
    ) -> Result<WriteOutcome, ShardError> {
        if let Err(violation) = filter.validate(self.view.schema()) {
            let refused = Some(refusal(violation.within("filter")));
            return Ok(WriteOutcome { refused, ..WriteOutcome::default() });
        }
        let ids = self.first_matching(after, filter, limit, parts)?;
        let outcome = act(self, &ids)?;
        let resume_after = ids.last().filter(|_| ids.len() == limit).copied();
        Ok(WriteOutcome { resume_after, ..outcome })
    }

    /// The first `limit` ids greater than `after` that pass a filter, counting what the batch did so far, and leaving out those that
    /// a part was about.
    fn first_matching(
        &self,
        after: Option<PointId>,
        filter: &Filter,
        limit: usize,
        parts: &Parts,
    ) -> Result<Vec<PointId>, ShardError> {
        // As many again as the batch touched, in case it touched all of them; and whatever number is left out.
        let most = if parts.is_empty() { limit + self.points.len() } else { usize::MAX };
        let before = self.view.first_matching(after, filter, most, &Never)?;
        let mut ids: Vec<_> = before.into_iter().filter(|id| !self.points.contains_key(id)).collect();
        for (&id, staged) in &self.points {
            if let StagedPoint::Present { payload, .. } = staged
                && after.is_none_or(|after| id > after)
                && filter.matches(id, payload)
            {
                ids.push(id);
            }
        }
        if !parts.is_empty() {
            ids.retain(|id| is_left(parts, *id));
        }
        ids.sort_unstable();
        ids.truncate(limit);
        Ok(ids)
    }

    /// Learns where points are that were not touched before.
    pub(super) fn look_up(&mut self, ids: &[PointId]) -> Result<(), ShardError> {
        self.state.places(self.kv, ids, &mut self.places)
    }

    fn exists(&self, id: PointId) -> bool {
        match self.points.get(&id) {
            Some(StagedPoint::Present { .. }) => true,
            Some(StagedPoint::Deleted) => false,
            None => self.places[&id] != Place::Absent,
        }
    }

    /// The payloads of those points that only the database knows.
    fn stored_payloads(&self, ids: &[PointId]) -> Result<HashMap<PointId, Arc<Object>>, ShardError> {
        let stored = |id: &PointId| !self.points.contains_key(id) && matches!(self.places[id], Place::Sealed { .. });
        let ids: Vec<_> = ids.iter().copied().filter(stored).collect();
        let mut payloads = HashMap::with_capacity(ids.len());
        read_points(self.kv, &ids, &mut |at, record| {
            if let Some(record) = record {
                let payload = record.payload.decode().map_err(|error| bad_row("point", ids[at], error))?;
                payloads.insert(ids[at], Arc::new(payload));
            }
            Ok(())
        })?;
        Ok(payloads)
    }

    fn payload(&self, id: PointId, stored: &mut HashMap<PointId, Arc<Object>>) -> Option<Arc<Object>> {
        match self.points.get(&id) {
            Some(StagedPoint::Present { payload, .. }) => return Some(Arc::clone(payload)),
            Some(StagedPoint::Deleted) => return None,
            None => {}
        }
        match self.places[&id] {
            Place::Absent => None,
            Place::Unsealed(location) => {
                let generation = self.state.generation(location.generation)?;
                let (chunk, row) = generation.locate(location.row);
                Some(Arc::clone(&chunk.payloads()[row]))
            }
            Place::Sealed { .. } => stored.remove(&id),
        }
    }

    fn updated(&self, mut payload: Arc<Object>, change: &PayloadChange) -> Result<Arc<Object>, Problem> {
        change.apply(Arc::make_mut(&mut payload));
        self.view.schema().check_payload(&payload).map_err(refusal)?;
        let mut writer = Writer::new();
        payload.encode(&mut writer);
        let bytes = writer.into_bytes().len();
        if bytes > MAX_PAYLOAD_BYTES {
            let reason = format!("would have {bytes} bytes, at most {MAX_PAYLOAD_BYTES} are allowed");
            return Err(refusal(Violation::new("payload", reason)));
        }
        Ok(payload)
    }

    fn replace_payload(&mut self, id: PointId, index: u64, payload: Arc<Object>) {
        let vectors = match self.points.remove(&id) {
            Some(StagedPoint::Present { vectors, .. }) => vectors,
            _ => StagedVectors::Kept,
        };
        self.points.insert(id, StagedPoint::Present { version: index, payload, vectors });
    }
}
