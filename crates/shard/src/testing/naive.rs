//! What a shard should answer, in the plainest way.

use std::collections::BTreeMap;

use sagitta_engine::index::{IndexEngine, PreparedQuery, inverse_norm};
use sagitta_model::{
    Change, Filter, HashRange, Hit, NamedVectors, Object, PointId, Record, Schema, SearchQuery, Target,
};

use crate::{Command, Import, WriteOutcome};

/// A map of points that commands are applied to one by one.
#[derive(Clone)]
pub(super) struct Naive {
    schema: Schema,
    range: HashRange,
    pub(super) points: BTreeMap<PointId, NaivePoint>,
    requests: BTreeMap<u128, Expected>,
    /// What came of requests in shards that this one was filled from, by their hashes.
    imported: BTreeMap<u128, Vec<(HashRange, Expected)>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct NaivePoint {
    pub(super) version: u64,
    vectors: NamedVectors,
    payload: Object,
}

/// What is compared of an outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Expected {
    index: u64,
    applied: u64,
    failed: Vec<usize>,
    refused: bool,
    deduplicated: bool,
}

impl Expected {
    pub(super) fn of(outcome: &WriteOutcome) -> Self {
        Self {
            index: outcome.index,
            applied: outcome.applied,
            failed: outcome.failures.iter().map(|failure| failure.index).collect(),
            refused: outcome.refused.is_some(),
            deduplicated: outcome.deduplicated,
        }
    }

    /// With what came of the same request elsewhere, of whose `ids` each part was about those in its range.
    fn with(mut self, parts: &[(HashRange, Self)], ids: Option<&[PointId]>) -> Self {
        for (range, part) in parts {
            self.index = self.index.max(part.index);
            self.applied += part.applied;
            let place = |failed: &usize| match ids {
                Some(ids) => (0..ids.len()).filter(|at| range.holds(ids[*at])).nth(*failed).expect("a position"),
                None => *failed,
            };
            self.failed.extend(part.failed.iter().map(place));
        }
        self.failed.sort_unstable();
        self
    }

    /// Of an entry without a command.
    pub(super) fn nothing(index: u64, refused: bool) -> Self {
        Self { index, refused, ..Self::default() }
    }
}

impl Naive {
    pub(super) fn new(schema: &Schema) -> Self {
        Self {
            schema: schema.clone(),
            range: HashRange::FULL,
            points: BTreeMap::new(),
            requests: BTreeMap::new(),
            imported: BTreeMap::new(),
        }
    }

    /// Nothing yet of a range.
    pub(super) fn of_range(schema: &Schema, range: HashRange) -> Self {
        Self { range, ..Self::new(schema) }
    }

    /// Does what an import does.
    pub(super) fn import(&mut self, import: &Import) {
        for (point, version) in import.points.iter().cloned().zip(&import.versions) {
            let new = NaivePoint { version: *version, vectors: point.vectors, payload: point.payload };
            self.points.insert(point.id, new);
        }
        import.deleted.iter().for_each(|id| drop(self.points.remove(id)));
        for request in &import.requests {
            let parts = self.imported.entry(request.id).or_default();
            let (of, outcome) = (request.range, &request.outcome);
            let is_older = |(range, known): &(HashRange, Expected)| {
                range.first <= of.first && of.last <= range.last && (*range != of || known.index >= outcome.index)
            };
            if parts.iter().any(is_older) {
                continue;
            }
            parts.retain(|(range, _)| range.last < request.range.first || request.range.last < range.first);
            parts.push((request.range, Expected::of(&request.outcome)));
            parts.sort_by_key(|(range, _)| range.first);
        }
    }

    /// Whether it remembers the same of all requests as two others together, which are merged into it.
    pub(super) fn remembers(&self, merged: [&Self; 2]) -> bool {
        merged.iter().all(|one| {
            let known = |(id, expected): (&u128, &Expected)| {
                let parts = self.imported.get(id).map_or(&[][..], |parts| &parts[..]);
                parts.contains(&(one.range, expected.clone()))
            };
            one.requests.iter().all(known)
        })
    }

    /// What is left of it within a range.
    pub(super) fn within(&self, range: HashRange) -> Self {
        let mut left = Self { range, ..self.clone() };
        left.points.retain(|id, _| range.holds(*id));
        left
    }

    /// Whether the request was applied before.
    pub(super) fn knows(&self, command: &Command) -> bool {
        self.requests.contains_key(&command.request_id)
    }

    /// In how many shards that this one was filled from it was applied.
    pub(super) fn parts(&self, command: &Command) -> usize {
        self.imported.get(&command.request_id).map_or(0, Vec::len)
    }

    pub(super) fn apply(&mut self, index: u64, command: &Command) -> Expected {
        if let Some(first) = self.requests.get(&command.request_id) {
            return Expected { deduplicated: true, ..first.clone() };
        }
        let parts = self.imported.get(&command.request_id).cloned().unwrap_or_default();
        if let Some((_, refused)) = parts.iter().find(|(_, part)| part.refused) {
            return Expected { deduplicated: true, ..refused.clone() };
        }
        let is_left = |id: PointId| !parts.iter().any(|(range, _)| range.holds(id));
        let ids = ids_of(&command.change);
        let nothing_is_left = match &ids {
            Some(ids) => !ids.iter().any(|id| is_left(*id)),
            None => {
                let hashes: u128 = parts.iter().map(|(range, _)| u128::from(range.last - range.first) + 1).sum();
                hashes == u128::from(self.range.last - self.range.first) + 1
            }
        };
        if !parts.is_empty() && nothing_is_left {
            return Expected { deduplicated: true, ..Expected::default().with(&parts, ids.as_deref()) };
        }
        let outcome = Expected { index, ..self.change(index, command, &is_left) };
        let outcome = if outcome.refused { outcome } else { outcome.with(&parts, ids.as_deref()) };
        self.requests.insert(command.request_id, outcome.clone());
        outcome
    }

    fn change(&mut self, index: u64, command: &Command, is_left: &dyn Fn(PointId) -> bool) -> Expected {
        let applied = |applied: usize| Expected { applied: applied as u64, ..Expected::default() };
        let refused = Expected { refused: true, ..Expected::default() };
        match &*command.change {
            Change::Upsert(points) => {
                if points.iter().any(|point| point.validate(&self.schema).is_err()) {
                    return refused;
                }
                let points: Vec<_> = points.iter().filter(|point| is_left(point.id)).collect();
                for point in points.iter().copied().cloned() {
                    let new = NaivePoint { version: index, vectors: point.vectors, payload: point.payload };
                    self.points.insert(point.id, new);
                }
                applied(points.len())
            }
            Change::Delete(ids) => {
                let ids = ids.iter().filter(|id| is_left(**id));
                applied(ids.filter(|id| self.points.remove(id).is_some()).count())
            }
            Change::DeleteByFilter(filter) => {
                if filter.validate(&self.schema).is_err() {
                    return refused;
                }
                let mut ids = self.matching(command.after, filter);
                ids.retain(|id| is_left(*id));
                ids.iter().for_each(|id| drop(self.points.remove(id)));
                applied(ids.len())
            }
            Change::UpdatePayload { target, change } => {
                let ids = match target {
                    Target::Ids(ids) => ids.clone(),
                    Target::Filter(filter) if filter.validate(&self.schema).is_err() => return refused,
                    Target::Filter(filter) => {
                        let all = self.matching(command.after, filter);
                        all.into_iter().filter(|id| is_left(*id)).collect()
                    }
                };
                let mut outcome = Expected::default();
                for (at, id) in ids.iter().enumerate().filter(|(_, id)| is_left(**id)) {
                    let changed = self.points.get(id).and_then(|point| {
                        let mut payload = point.payload.clone();
                        change.apply(&mut payload);
                        self.schema.check_payload(&payload).is_ok().then_some(payload)
                    });
                    match (self.points.get_mut(id), changed) {
                        (Some(point), Some(payload)) => {
                            (point.payload, point.version) = (payload, index);
                            outcome.applied += 1;
                        }
                        _ => outcome.failed.push(at),
                    }
                }
                outcome
            }
        }
    }

    pub(super) fn matching(&self, after: Option<PointId>, filter: &Filter) -> Vec<PointId> {
        let points = self.points.iter().filter(|(id, _)| after.is_none_or(|after| **id > after));
        points.filter(|(id, point)| filter.matches(**id, &point.payload)).map(|(id, _)| *id).collect()
    }

    /// The whole record of a point.
    pub(super) fn record(&self, id: PointId) -> Option<Record> {
        let NaivePoint { version, vectors, payload } = self.points.get(&id)?.clone();
        Some(Record { id, version, payload: Some(payload), vectors })
    }

    /// All hits that may be answers to a query, best first.
    pub(super) fn ranking(&self, query: &SearchQuery, engine: &dyn IndexEngine) -> Vec<Hit> {
        let (name, spec) = self.schema.vector(&query.vector_name).expect("a vector of the schema");
        let prepared = PreparedQuery::new(spec.metric, &query.vector).expect("a valid query");
        let mut hits = Vec::new();
        for (&id, point) in &self.points {
            if query.filter.as_ref().is_some_and(|filter| !filter.matches(id, &point.payload)) {
                continue;
            }
            let row = &point.vectors[name];
            let mut similarity = [0.0];
            engine.similarities().many(&prepared, row, &[inverse_norm(row)], &mut similarity);
            if query.min_similarity.is_none_or(|min| similarity[0] >= min) {
                hits.push(Hit { id, similarity: similarity[0] });
            }
        }
        hits.sort_by(Hit::rank);
        hits
    }
}

/// The points that a change names.
fn ids_of(change: &Change) -> Option<Vec<PointId>> {
    match change {
        Change::Upsert(points) => Some(points.iter().map(|point| point.id).collect()),
        Change::Delete(ids) | Change::UpdatePayload { target: Target::Ids(ids), .. } => Some(ids.clone()),
        Change::DeleteByFilter(_) | Change::UpdatePayload { target: Target::Filter(_), .. } => None,
    }
}
