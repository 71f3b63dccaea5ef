//! A shard with the points of a set, beside a plain table of what is in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use sagitta_engine::index::{BuildControl, Never};
use sagitta_engine_faiss::FaissEngine;
use sagitta_engine_rocksdb::{RocksBudget, RocksEngine};
use sagitta_env::Env;
use sagitta_model::{Change, Hit, IndexPolicy, Point, PointId, Schema, SearchQuery, VectorSpec};
use sagitta_shard::codec::Record as _;
use sagitta_shard::{Command, Engines, Entry, JobKind, SearchContext, Shard, ShardOptions, ShardSpec};
use tempfile::TempDir;

use crate::sets::{Case, Set};
use crate::truth::similarity;

/// Points per write.
const BATCH: usize = 1_000;
const BUILD_THREADS: usize = 2;

pub(crate) struct Library<'s> {
    pub(crate) set: &'s Set,
    pub(crate) policy: IndexPolicy,
    shard: Arc<Shard>,
    /// Where in the set the vector of each id is; none if the point is deleted.
    rows: Vec<Option<usize>>,
    index: u64,
    _dir: TempDir,
}

impl<'s> Library<'s> {
    pub(crate) fn new(set: &'s Set, policy: IndexPolicy) -> Self {
        let dir = TempDir::new().expect("a folder");
        let vector = VectorSpec { dim: set.base.columns, metric: set.metric, index: policy };
        let field = |&(path, kind): &(&str, _)| (path.parse().expect("a path"), kind);
        let schema = Schema {
            vectors: BTreeMap::from([("v".to_owned(), vector)]),
            fields: set.fields.iter().map(field).collect(),
        };
        let engines = Engines { kv: Arc::new(RocksEngine::new(RocksBudget::default())), index: Arc::new(FaissEngine) };
        // Small segments are merged as soon as they may be: a test need not wait until nobody writes.
        let options = ShardOptions { idle_after: std::time::Duration::ZERO, ..ShardOptions::default() };
        let spec = ShardSpec { collection: 1, shard: 1, schema };
        let shard = Shard::open(dir.path(), spec, engines, Env::real(), options).expect("opened");
        Self { set, policy, shard, rows: vec![None; set.base.rows().len()], index: 0, _dir: dir }
    }

    /// Writes every row of the set as the point of its number.
    pub(crate) fn load(&mut self) {
        let all: Vec<_> = (0..self.rows.len()).map(|row| (row, row)).collect();
        for batch in all.chunks(BATCH) {
            self.upsert(batch);
            // As a node does: rows are sealed while others are written, or the shard would ask for a pause.
            self.seal();
        }
    }

    fn upsert(&mut self, batch: &[(usize, usize)]) {
        let point = |&(id, row): &(usize, usize)| Point {
            id: PointId::Num(id as u64),
            vectors: BTreeMap::from([("v".to_owned(), self.vector(row).to_vec())]),
            payload: self.set.payloads[id].clone(),
        };
        self.apply(Change::Upsert(batch.iter().map(point).collect()));
        batch.iter().for_each(|&(id, row)| self.rows[id] = Some(row));
    }

    fn apply(&mut self, change: Change) {
        self.index += 1;
        let command = Command { request_id: self.index.into(), after: None, change: change.into() };
        let entry = Entry { index: self.index, term: 1, data: &command.to_sealed(), members: None };
        let outcomes = self.shard.apply(&[entry]).expect("applied");
        assert_eq!(outcomes[0].refused, None);
    }

    /// Seals what waits for it, and merges nothing.
    pub(crate) fn seal(&self) {
        while let Some(job) = self.shard.next_job().filter(|job| matches!(job.kind(), JobKind::Seal { .. })) {
            job.run(&control()).expect("sealed");
        }
    }

    pub(crate) fn run_all_jobs(&self) {
        while let Some(job) = self.shard.next_job() {
            job.run(&control()).expect("the job ends well");
        }
    }

    /// Of each hundred runs of a hundred ids deletes some and gives the ids of others the vectors of other rows.
    pub(crate) fn churn(&mut self, deleted: usize, overwritten: usize) {
        let count = self.rows.len();
        // Runs and not single ids: a case's filter may go by the last digits.
        let run = |id: usize| id / 100 % 100;
        let doomed: Vec<usize> = (0..count).filter(|&id| run(id) < deleted).collect();
        for batch in doomed.chunks(BATCH) {
            self.apply(Change::Delete(batch.iter().map(|&id| PointId::Num(id as u64)).collect()));
            batch.iter().for_each(|&id| self.rows[id] = None);
        }
        let moved = (0..count).filter(|&id| (deleted..deleted + overwritten).contains(&run(id)));
        let moved: Vec<_> = moved.map(|id| (id, (id + count / 2) % count)).collect();
        moved.chunks(BATCH).for_each(|batch| self.upsert(batch));
    }

    pub(crate) fn search(&self, query: &SearchQuery) -> Vec<Hit> {
        let context = SearchContext { stop: &Never, explain: false };
        self.shard.view().search(query, &context).expect("searched").hits
    }

    /// The ids of the points that pass a case's filter.
    pub(crate) fn passing(&self, case: &Case) -> impl Iterator<Item = u64> {
        (0..self.rows.len() as u64).filter(move |&id| self.passes(id, case))
    }

    fn passes(&self, id: u64, case: &Case) -> bool {
        let payload = &self.set.payloads[id as usize];
        case.filter.as_ref().is_none_or(|filter| filter.matches(PointId::Num(id), payload))
    }

    /// How near each id's point is; none if there is no such point.
    pub(crate) fn similarities(&self, query: &[f32]) -> impl Iterator<Item = Option<f32>> {
        self.rows.iter().map(move |row| row.map(|row| similarity(self.set.metric, query, self.vector(row))))
    }

    /// How near a point is; none if there is no such point, or it does not pass.
    pub(crate) fn similarity(&self, id: PointId, query: &[f32], case: &Case) -> Option<f32> {
        let PointId::Num(id) = id else { return None };
        let row = (*self.rows.get(id as usize)?)?;
        self.passes(id, case).then(|| similarity(self.set.metric, query, self.vector(row)))
    }

    fn vector(&self, row: usize) -> &[f32] {
        &self.set.base.values[row * self.set.base.columns..][..self.set.base.columns]
    }
}

fn control() -> BuildControl<'static> {
    BuildControl { threads: BUILD_THREADS, stop: &Never, progress: &|_| () }
}
