//! A shard with points in segments and outside, beside a plain map of the same points.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use sagitta_engine::index::{BuildControl, IndexEngine, Never, PreparedQuery, ScalarKernel, inverse_norm};
use sagitta_engine::kv::MemoryEngine;
use sagitta_env::Env;
use sagitta_model::{
    Change, Effort, FieldType, GroupBy, Hit, IndexPolicy, Knobs, Metric, Point, PointId, Schema, SearchQuery, Value,
    VectorSpec,
};
use tempfile::TempDir;

use crate::codec::Record;
use crate::payload::Key;
use crate::sample::{Sampler, field_path};
use crate::search::{SearchContext, SearchOutcome};
use crate::{Command, Engines, Entry, Shard, ShardError, ShardOptions, ShardSpec};

pub(super) struct Library {
    pub(super) shard: Arc<Shard>,
    pub(super) schema: Schema,
    pub(super) points: BTreeMap<PointId, Point>,
    pub(super) dir: TempDir,
    engines: Engines,
    index: u64,
}

impl Library {
    pub(super) fn new(schema: Schema, engine: Arc<dyn IndexEngine>) -> Self {
        let dir = TempDir::new().expect("a folder");
        let engines = Engines { kv: Arc::new(MemoryEngine::default()), index: engine };
        let shard = open(&dir, &schema, &engines);
        Self { shard, schema, points: BTreeMap::new(), dir, engines, index: 0 }
    }

    /// Closes the shard, does something to its folder, and opens it again.
    pub(super) fn reopen(self, meanwhile: impl FnOnce(&Path)) -> Self {
        self.shard.flush().expect("flushed");
        let Self { shard, schema, points, dir, engines, index } = self;
        drop(shard);
        meanwhile(dir.path());
        let shard = open(&dir, &schema, &engines);
        Self { shard, schema, points, dir, engines, index }
    }

    /// Points in several segments, some of them dead, and some in none.
    pub(super) fn filled(sampler: &mut Sampler, engine: Arc<dyn IndexEngine>, batches: usize) -> Self {
        let mut library = Self::new(schema(sampler), engine);
        for batch in 0..batches {
            let points = sampler.list(60, |s| point(s, &library.schema));
            library.upsert(points);
            if sampler.one_in(3) {
                let ids = sampler.list(20, id);
                library.delete(ids);
            }
            // The last rows stay unsealed.
            if batch + 2 < batches {
                library.run_jobs();
            }
        }
        library
    }

    pub(super) fn upsert(&mut self, mut points: Vec<Point>) {
        let mut seen = BTreeSet::new();
        points.retain(|point| seen.insert(point.id));
        self.points.extend(points.iter().map(|point| (point.id, point.clone())));
        self.apply(Change::Upsert(points));
    }

    pub(super) fn delete(&mut self, ids: Vec<PointId>) {
        ids.iter().for_each(|id| drop(self.points.remove(id)));
        self.apply(Change::Delete(ids));
    }

    fn apply(&mut self, change: Change) {
        self.index += 1;
        let command = Command { request_id: self.index.into(), after: None, change: change.into() };
        let outcomes = self
            .shard
            .apply(&[Entry { index: self.index, term: 1, data: &command.to_sealed(), members: None }])
            .expect("applied");
        assert_eq!(outcomes[0].refused, None, "{command:?}");
    }

    pub(super) fn run_jobs(&self) {
        let control = BuildControl { threads: 1, stop: &Never, progress: &|_| () };
        while let Some(job) = self.shard.next_job() {
            job.run(&control).expect("the job ends well");
        }
    }

    pub(super) fn search(&self, query: &SearchQuery) -> Result<SearchOutcome, ShardError> {
        self.shard.view().search(query, &SearchContext { stop: &Never, explain: false })
    }

    /// All hits that may answer a query, best first.
    pub(super) fn ranking(&self, query: &SearchQuery) -> Vec<Hit> {
        let (name, spec) = self.schema.vector(&query.vector_name).expect("of the schema");
        let prepared = PreparedQuery::new(spec.metric, &query.vector).expect("valid");
        let hit = |point: &Point| {
            let row = &point.vectors[name];
            let inverse_norm = if spec.metric == Metric::Cosine { inverse_norm(row) } else { 1.0 };
            Hit { id: point.id, similarity: ScalarKernel::one(&prepared, row, inverse_norm) }
        };
        let passes =
            |point: &&Point| query.filter.as_ref().is_none_or(|filter| filter.matches(point.id, &point.payload));
        let mut hits: Vec<_> = self.points.values().filter(passes).map(hit).collect();
        hits.retain(|hit| query.min_similarity.is_none_or(|floor| hit.similarity >= floor));
        hits.sort_by(Hit::rank);
        hits
    }

    /// The groups that a query should find.
    pub(super) fn groups(&self, query: &SearchQuery) -> Vec<(Value, Vec<Hit>)> {
        let group_by = query.group_by.as_ref().expect("a grouped query");
        let field_type = self.schema.fields[&group_by.field];
        let mut order = Vec::new();
        let mut groups: HashMap<Key, Vec<Hit>> = HashMap::new();
        for hit in self.ranking(query) {
            for key in Key::of_payload(&group_by.field, field_type, &self.points[&hit.id].payload) {
                let hits = groups.entry(key.clone()).or_default();
                if hits.is_empty() {
                    order.push(key);
                }
                hits.push(hit);
            }
        }
        order.truncate(query.k);
        let group = |key: Key| {
            let mut hits = groups[&key].clone();
            hits.truncate(group_by.size);
            (key.to_value(field_type), hits)
        };
        order.into_iter().map(group).collect()
    }

    pub(super) fn query(&self, sampler: &mut Sampler) -> SearchQuery {
        let names: Vec<_> = self.schema.vectors.iter().map(|(name, spec)| (name.clone(), *spec)).collect();
        let (vector_name, spec) = sampler.choose(&names);
        let ids: Vec<_> = self.points.keys().copied().collect();
        let filter = if sampler.one_in(2) { None } else { Some(Arc::new(sampler.filter(&self.schema, &ids, 2))) };
        let k = sampler.choose(&[1, 2, 10, 33, 1000]);
        let min_similarity = if sampler.one_in(4) { Some(sampler.choose(&[-30.0, -2.0, 0.0, 0.5, 3.0])) } else { None };
        let effort = sampler.choose(&[
            Effort::Exact,
            Effort::default(),
            Effort::Recall(1.0),
            Effort::Recall(0.5),
            Effort::Knobs(Knobs { ef_search: Some(20), nprobe: Some(3), rerank: None }),
            Effort::Knobs(Knobs { ef_search: None, nprobe: None, rerank: Some(50) }),
        ]);
        SearchQuery { vector_name, vector: vector(sampler, &spec), k, min_similarity, filter, effort, group_by: None }
    }

    pub(super) fn grouped(&self, sampler: &mut Sampler) -> SearchQuery {
        let fields: Vec<_> = self.schema.fields.keys().cloned().collect();
        let group_by = Some(GroupBy { field: sampler.choose(&fields), size: sampler.choose(&[1, 2, 5, 100]) });
        SearchQuery { k: sampler.choose(&[1, 2, 5, 50]), group_by, ..self.query(sampler) }
    }
}

fn open(dir: &TempDir, schema: &Schema, engines: &Engines) -> Arc<Shard> {
    let spec = ShardSpec { collection: 1, shard: 1, schema: schema.clone() };
    let options = ShardOptions { seal_rows: 100, graph_min_rows: 150, tier_factor: 3, ..ShardOptions::default() };
    Shard::open(dir.path(), spec, engines.clone(), Env::seeded(1).0, options).expect("opens")
}

pub(super) fn schema(sampler: &mut Sampler) -> Schema {
    let mut schema = Schema::default();
    for (name, index) in [("image", IndexPolicy::Auto), ("text", IndexPolicy::Compact), ("title", IndexPolicy::Flat)] {
        let spec = VectorSpec { dim: 1 + sampler.below(4), metric: sampler.choose(&Metric::ALL), index };
        schema.vectors.insert(name.to_owned(), spec);
    }
    for (path, field_type) in ["a", "b", "c.d", "c.e.f", "g"].into_iter().zip(FieldType::ALL) {
        schema.fields.insert(field_path(path), field_type);
    }
    schema
}

pub(super) fn id(sampler: &mut Sampler) -> PointId {
    let n = sampler.below(900);
    if n < 700 { PointId::Num(n as u64) } else { PointId::Uuid(n as u128) }
}

/// Small whole numbers, so that ties are common.
pub(super) fn vector(sampler: &mut Sampler, spec: &VectorSpec) -> Vec<f32> {
    let mut vector: Vec<f32> = (0..spec.dim).map(|_| sampler.below(5) as f32 - 2.0).collect();
    if spec.metric == Metric::Cosine && vector.iter().all(|value| *value == 0.0) {
        vector[0] = 1.0;
    }
    vector
}

pub(super) fn point(sampler: &mut Sampler, schema: &Schema) -> Point {
    let vectors = schema.vectors.iter().map(|(name, spec)| (name.clone(), vector(sampler, spec))).collect();
    Point { id: id(sampler), vectors, payload: sampler.payload(schema) }
}
