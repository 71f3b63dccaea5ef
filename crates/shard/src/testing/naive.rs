//! What a shard should answer, in the plainest way.

use std::collections::BTreeMap;

use sagitta_engine::index::{IndexEngine, PreparedQuery, inverse_norm};
use sagitta_model::{
    Change, Filter, HashRange, Hit, NamedVectors, Object, PointId, Record, Schema, SearchQuery, Target,
};

use crate::{Command, WriteOutcome};

/// A map of points that commands are applied to one by one.
#[derive(Clone)]
pub(super) struct Naive {
    schema: Schema,
    pub(super) points: BTreeMap<PointId, NaivePoint>,
    requests: BTreeMap<u128, Expected>,
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

    /// Of an entry without a command.
    pub(super) fn nothing(index: u64, refused: bool) -> Self {
        Self { index, refused, ..Self::default() }
    }
}

impl Naive {
    pub(super) fn new(schema: &Schema) -> Self {
        Self { schema: schema.clone(), points: BTreeMap::new(), requests: BTreeMap::new() }
    }

    /// What is left of it within a range.
    pub(super) fn within(&self, range: HashRange) -> Self {
        let mut left = self.clone();
        left.points.retain(|id, _| range.holds(*id));
        left
    }

    /// Whether the request was applied before.
    pub(super) fn knows(&self, command: &Command) -> bool {
        self.requests.contains_key(&command.request_id)
    }

    pub(super) fn apply(&mut self, index: u64, command: &Command) -> Expected {
        if let Some(first) = self.requests.get(&command.request_id) {
            return Expected { deduplicated: true, ..first.clone() };
        }
        let outcome = Expected { index, ..self.change(index, command) };
        self.requests.insert(command.request_id, outcome.clone());
        outcome
    }

    fn change(&mut self, index: u64, command: &Command) -> Expected {
        let applied = |applied: usize| Expected { applied: applied as u64, ..Expected::default() };
        let refused = Expected { refused: true, ..Expected::default() };
        match &*command.change {
            Change::Upsert(points) => {
                if points.iter().any(|point| point.validate(&self.schema).is_err()) {
                    return refused;
                }
                for point in points.iter().cloned() {
                    let new = NaivePoint { version: index, vectors: point.vectors, payload: point.payload };
                    self.points.insert(point.id, new);
                }
                applied(points.len())
            }
            Change::Delete(ids) => applied(ids.iter().filter(|id| self.points.remove(id).is_some()).count()),
            Change::DeleteByFilter(filter) => {
                if filter.validate(&self.schema).is_err() {
                    return refused;
                }
                let ids = self.matching(command.after, filter);
                ids.iter().for_each(|id| drop(self.points.remove(id)));
                applied(ids.len())
            }
            Change::UpdatePayload { target, change } => {
                let ids = match target {
                    Target::Ids(ids) => ids.clone(),
                    Target::Filter(filter) if filter.validate(&self.schema).is_err() => return refused,
                    Target::Filter(filter) => self.matching(command.after, filter),
                };
                let mut outcome = Expected::default();
                for (at, id) in ids.iter().enumerate() {
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
