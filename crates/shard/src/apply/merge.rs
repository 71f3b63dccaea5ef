//! Deciding what merges ask of a shard, and requests that were applied to a part of it before they came here.

use std::collections::{HashMap, HashSet};

use sagitta_model::{Change, ErrorKind, HashRange, PointId, Problem, Target, Violation, shard_hash};

use super::stage::{StagedPoint, StagedVectors};
use super::{Stage, refusal};
use crate::codec::Record as _;
use crate::command::MAX_LISTED_FAILURES;
use crate::layout::{Key, META};
use crate::records::Imported;
use crate::{Filling, Frozen, Import, MAX_IMPORTED_REQUESTS, MergeEntry, RememberedRequest, ShardError, WriteOutcome};

/// What came of the parts of a request in other shards, by the hashes that they were about.
pub(super) type Parts = Vec<(HashRange, WriteOutcome)>;

impl Stage<'_> {
    /// Decides what a merge asks for.
    pub(super) fn merge(&mut self, index: u64, entry: MergeEntry) -> Result<WriteOutcome, ShardError> {
        let decided = match entry {
            MergeEntry::Freeze { merge } => self.freeze(index, merge),
            MergeEntry::Thaw { merge } => Ok(self.thaw(merge)),
            MergeEntry::Import(import) => self.import(index, import)?.map(|()| false),
            MergeEntry::Complete { merge, step, above } => self.complete(index, merge, step, above),
        };
        Ok(match decided {
            Ok(deduplicated) => WriteOutcome { index, deduplicated, ..WriteOutcome::default() },
            Err(problem) => WriteOutcome { index, refused: Some(problem), ..WriteOutcome::default() },
        })
    }

    /// Why the shard takes no command, if so.
    pub(super) fn closed(&self) -> Option<Problem> {
        let what = match (self.merges.filling, self.merges.frozen) {
            (Some(Filling { merge, .. }), _) => format!("is yet to be filled by merge {merge}"),
            (None, Some(Frozen { merge, .. })) => format!("becomes part of another by merge {merge}"),
            (None, None) => return None,
        };
        let message = format!("shard {} {what}: look the route up again", self.view.shard());
        Some(Problem { kind: ErrorKind::Unavailable, message, violations: Vec::new() })
    }

    /// Whether it was so before, or why not.
    fn freeze(&mut self, index: u64, merge: u64) -> Result<bool, Problem> {
        if let Some(filling) = self.merges.filling {
            return Err(conflict(format!("it is yet to be filled by merge {}", filling.merge)));
        }
        if merge <= self.merges.thawed {
            return Err(conflict(format!("merge {merge} has come to nothing")));
        }
        match self.merges.frozen {
            Some(frozen) if frozen.merge == merge => Ok(true),
            Some(frozen) => Err(conflict(format!("it is frozen by merge {}", frozen.merge))),
            None => {
                self.merges.frozen = Some(Frozen { merge, index });
                Ok(false)
            }
        }
    }

    /// Whether it was so before.
    fn thaw(&mut self, merge: u64) -> bool {
        let before = self.merges;
        self.merges.thawed = before.thawed.max(merge);
        self.merges.frozen = before.frozen.filter(|frozen| frozen.merge > merge);
        self.merges == before
    }

    fn import(&mut self, index: u64, import: Import) -> Result<Result<(), Problem>, ShardError> {
        if let Err(problem) = self.is_filled_by(import.merge, import.step).and_then(|()| self.fits(index, &import)) {
            return Ok(Err(problem));
        }
        let ids = self.imported.keys().copied().chain(import.requests.iter().map(|request| request.id));
        let new: HashSet<u128> = ids.filter(|id| !self.state.imported.contains(id)).collect();
        if self.state.imported.len() + new.len() > MAX_IMPORTED_REQUESTS {
            let message = format!(
                "it would remember more than {MAX_IMPORTED_REQUESTS} requests of other shards: merge them once they have had \
                 writes that make them forget older ones"
            );
            return Ok(Err(Problem { kind: ErrorKind::Overloaded, message, violations: Vec::new() }));
        }
        let ids: Vec<_> = import.points.iter().map(|point| point.id).collect();
        self.look_up(&ids)?;
        for (point, version) in import.points.into_iter().zip(import.versions) {
            // The point has the schema's names, no more and no less, and both are sorted.
            let vectors = StagedVectors::New(point.vectors.into_values().collect());
            let payload = point.payload.into();
            self.points.insert(point.id, StagedPoint::Present { version, payload, vectors });
        }
        self.delete(&import.deleted)?;
        for request in import.requests {
            self.remember(request)?;
        }
        self.merges.filling = Some(Filling { merge: import.merge, step: import.step + 1 });
        Ok(Ok(()))
    }

    /// Whether it was so before, or why not.
    fn complete(&mut self, index: u64, merge: u64, step: u64, above: u64) -> Result<bool, Problem> {
        if self.merges.filled == Some(merge) {
            return Ok(true);
        }
        self.is_filled_by(merge, step)?;
        if index <= above {
            let reason = format!("is {above}, and the entry at log index {index}, which is to be greater");
            return Err(refusal(Violation::new("above", reason)));
        }
        (self.merges.filling, self.merges.filled) = (None, Some(merge));
        Ok(false)
    }

    fn is_filled_by(&self, merge: u64, step: u64) -> Result<(), Problem> {
        match self.merges.filling {
            Some(filling) if filling == (Filling { merge, step }) => Ok(()),
            Some(filling) => Err(conflict(format!(
                "it is filled by merge {}, of which {} imports were applied; expected merge {merge} and {step}",
                filling.merge, filling.step
            ))),
            None => Err(conflict(format!("it is not being filled, by merge {merge} or any other"))),
        }
    }

    /// Checks that what is imported may be in the shard.
    fn fits(&self, index: u64, import: &Import) -> Result<(), Problem> {
        let range = self.state.span.range;
        let stranger = |id: PointId| (!range.holds(id)).then(|| format!("{id} is not of the shard"));
        for (at, (point, version)) in import.points.iter().zip(&import.versions).enumerate() {
            let wrong = |field: &str, reason| refusal(Violation::new(format!("points[{at}].{field}"), reason));
            if let Some(reason) = stranger(point.id) {
                return Err(wrong("id", reason));
            }
            if *version >= index {
                return Err(wrong("version", format!("is {version}, and the entry at log index {index}")));
            }
            let is_valid = point.validate(self.view.schema());
            is_valid.map_err(|violation| refusal(violation.within(&format!("points[{at}]"))))?;
        }
        let deleted = import.deleted.iter().enumerate().find_map(|(at, id)| Some((at, stranger(*id)?)));
        deleted.map_or(Ok(()), |(at, reason)| Err(refusal(Violation::new(format!("deleted[{at}]"), reason))))
    }

    /// What came of a request elsewhere, if that is remembered.
    pub(super) fn parts_of(&self, id: u128) -> Result<Option<Parts>, ShardError> {
        if let Some(Imported(parts)) = self.imported.get(&id) {
            return Ok(Some(parts.clone()));
        }
        if !self.state.imported.contains(&id) {
            return Ok(None);
        }
        let row = |source| ShardError::Row { what: format!("request {id:032x} of a merged shard"), source };
        let stored = self.kv.get(META, &Key::imported(id))?;
        stored.map(|bytes| Imported::from_sealed(&bytes).map(|Imported(parts)| parts).map_err(row)).transpose()
    }

    /// Whether what came of requests elsewhere is remembered: all of it, until so many others have come as a shard remembers.
    pub(super) fn remembers_imported(&self) -> bool {
        !self.state.requests.is_full(self.outcomes.len())
    }

    fn remember(&mut self, request: RememberedRequest) -> Result<(), ShardError> {
        let RememberedRequest { id, range, outcome } = request;
        let mut parts = self.parts_of(id)?.unwrap_or_default();
        // A shard that was filled itself may have had a part of it done before it came there, and the rest there: then that is
        // known of the whole, and what came of the whole was applied later.
        let is_older = |(known, there): &(HashRange, WriteOutcome)| {
            known.first <= range.first && range.last <= known.last && (*known != range || there.index >= outcome.index)
        };
        if parts.iter().any(is_older) {
            return Ok(());
        }
        parts.retain(|(known, _)| known.last < range.first || range.last < known.first);
        parts.push((range, outcome));
        parts.sort_by_key(|(range, _)| range.first);
        self.imported.insert(id, Imported(parts));
        Ok(())
    }

    /// Applies a change as far as it has not been applied elsewhere; all that came of it. `None` if nothing is left of it.
    pub(super) fn rest(
        &mut self,
        index: u64,
        after: Option<PointId>,
        change: &Change,
        parts: &Parts,
    ) -> Result<Option<WriteOutcome>, ShardError> {
        let is_left = |id: &PointId| is_left(parts, *id);
        let some = |ids: &[PointId]| -> Vec<usize> { (0..ids.len()).filter(|at| is_left(&ids[*at])).collect() };
        let (positions, rest) = match change {
            Change::Upsert(points) => {
                let left = points.iter().enumerate().filter(|(_, point)| is_left(&point.id));
                let (positions, points): (Vec<_>, Vec<_>) = left.map(|(at, point)| (at, point.clone())).unzip();
                (positions, Change::Upsert(points))
            }
            Change::Delete(ids) => {
                let positions = some(ids);
                let rest = positions.iter().map(|at| ids[*at]).collect();
                (positions, Change::Delete(rest))
            }
            Change::UpdatePayload { target: Target::Ids(ids), change } => {
                let positions = some(ids);
                let target = Target::Ids(positions.iter().map(|at| ids[*at]).collect());
                (positions, Change::UpdatePayload { target, change: change.clone() })
            }
            Change::DeleteByFilter(_) | Change::UpdatePayload { target: Target::Filter(_), .. } => {
                if covers(parts, self.state.span.range) {
                    return Ok(None);
                }
                return self.change(index, after, change.clone(), parts).map(Some);
            }
        };
        if positions.is_empty() {
            return Ok(None);
        }
        let mut outcome = self.change(index, after, rest, parts)?;
        outcome.failures.iter_mut().for_each(|failure| failure.index = positions[failure.index]);
        Ok(Some(outcome))
    }
}

/// Whether a request has not been applied to a point elsewhere.
pub(super) fn is_left(parts: &Parts, id: PointId) -> bool {
    let hash = shard_hash(id);
    !parts.iter().any(|(range, _)| range.contains(hash))
}

/// Whether parts, which ascend, leave nothing of a range.
fn covers(parts: &Parts, range: HashRange) -> bool {
    let mut from = range.first;
    for (part, _) in parts {
        if part.contains(from) {
            match part.last.checked_add(1) {
                Some(next) if next <= range.last => from = next,
                _ => return true,
            }
        }
    }
    false
}

/// What came of a change in all: of the parts that were applied elsewhere, and of the rest here.
pub(super) fn in_all(change: &Change, parts: Parts, rest: Option<WriteOutcome>) -> WriteOutcome {
    let mut places = match change {
        Change::UpdatePayload { target: Target::Ids(ids), .. } => {
            let mut places: HashMap<PointId, Vec<usize>> = HashMap::new();
            // From the back, so that the first one is taken first.
            ids.iter().enumerate().rev().for_each(|(at, id)| places.entry(*id).or_default().push(at));
            Some(places)
        }
        _ => None,
    };
    let mut all = rest.unwrap_or_default();
    for (_, part) in parts {
        all.index = all.index.max(part.index);
        all.applied += part.applied;
        all.failed += part.failed;
        all.resume_after = all.resume_after.into_iter().chain(part.resume_after).min();
        for mut failure in part.failures {
            // The positions were those in what was sent there.
            if let Some(places) = &mut places {
                let Some(at) = places.get_mut(&failure.id).and_then(Vec::pop) else {
                    // Either half of a shard that was split tells of all points that both had before.
                    all.failed -= 1;
                    continue;
                };
                failure.index = at;
            }
            all.failures.push(failure);
        }
    }
    all.failures.sort_by_key(|failure| failure.index);
    all.failures.truncate(MAX_LISTED_FAILURES);
    all
}

fn conflict(message: String) -> Problem {
    Problem { kind: ErrorKind::Conflict, message, violations: Vec::new() }
}
