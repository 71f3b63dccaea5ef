//! Readers on their own threads while entries are applied and segments installed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sagitta_engine::index::Never;
use sagitta_env::Env;
use sagitta_model::{Change, Effort, NamedVectors, PayloadSelection, Point, PointId, SearchQuery, Selection, Value};

use super::dice::Dice;
use super::{Rig, open, schema, small_options, unhurried};
use crate::codec::Record as _;
use crate::{AnswerRoom, Command, Entry, ReadView, SearchContext, Shard};

/// Points, all of which every entry writes anew.
const POINTS: u64 = 60;
const READERS: usize = 3;

/// What a run did.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Views that readers compared.
    pub views: u64,
    /// Segments that were installed meanwhile.
    pub jobs: u64,
}

/// Applies `rounds` entries, each of which writes every point, while others read and install: a reader must see each point
/// once, and all of them of one round. `dir` is empty.
///
/// # Panics
/// When a reader sees a point twice, not at all, or of another round.
pub fn run(rig: &dyn Rig, dir: &Path, seed: u64, rounds: u64) -> Report {
    println!("concurrency test: seed {seed}, {rounds} rounds");
    let (env, _clock) = Env::seeded(seed);
    let schema = schema(seed, rig.policies());
    let shard = open(rig, dir, &schema, &env, &small_options());
    write_round(&shard, &Dice::new(seed), 1);
    let (done, views, jobs) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _end = SetOnDrop(&done);
        for reader in 0..READERS {
            let (shard, done, views) = (&shard, &done, &views);
            scope.spawn(move || {
                let dice = Dice::new(seed + 100 + reader as u64);
                while !done.load(Ordering::Acquire) {
                    check_view(&shard.view(), &dice);
                    views.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (jobs, done, worker) = (&jobs, &done, &shard);
        scope.spawn(move || {
            let _end = SetOnDrop(done);
            while !done.load(Ordering::Acquire) {
                match worker.next_job() {
                    Some(job) => {
                        job.run(&unhurried()).expect("a job ends well");
                        jobs.fetch_add(1, Ordering::Relaxed);
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
        let dice = Dice::new(seed);
        for round in 2..=rounds {
            // As whoever writes to a shard does: else the jobs fall behind, and nothing happens at the same time.
            while shard.write_pressure().is_over() && !done.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            write_round(&shard, &dice, round);
        }
    });
    check_view(&shard.view(), &Dice::new(seed));
    Report { views: views.into_inner(), jobs: jobs.into_inner() }
}

/// Ends the other threads also when this one panics.
pub(super) struct SetOnDrop<'a>(pub(super) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The log index is the round, and so are the members.
pub(super) fn write_round(shard: &Arc<Shard>, dice: &Dice, round: u64) {
    let point = |id| {
        let vectors = shard.schema().vectors.iter().map(|(name, spec)| (name.clone(), dice.vector(spec)));
        let vectors: NamedVectors = vectors.collect();
        Point { id: PointId::Num(id), vectors, payload: [("year".to_owned(), Value::Int(round as i64))].into() }
    };
    let change = Change::Upsert((0..POINTS).map(point).collect());
    let data = Command { request_id: round.into(), after: None, change: change.into() }.to_sealed();
    shard
        .apply(&[Entry { index: round, term: 1, data: &data, members: Some(&round.to_le_bytes()) }])
        .expect("the entry applies");
}

pub(super) fn check_view(view: &ReadView, dice: &Dice) {
    let round = view.applied_index();
    assert_eq!(view.members(), Some(&round.to_le_bytes()[..]));
    let ids: Vec<_> = (0..POINTS).map(PointId::Num).collect();
    assert_eq!(view.count(None, &Never).expect("points are counted"), POINTS);

    let year = |payload: Option<sagitta_model::Object>| payload.and_then(|mut payload| payload.remove("year"));
    let selection = Selection { payload: PayloadSelection::All, ..Selection::default() };
    for record in view.get(&ids, &selection).expect("points are read") {
        assert_eq!(record.version, round, "{}", record.id);
        assert_eq!(year(record.payload), Some(Value::Int(round as i64)), "{}", record.id);
    }
    let filter = super::dice::of_year(round as i64);
    assert_eq!(view.count(Some(&filter), &Never).expect("points are counted"), POINTS, "round {round}");
    let scrolled = view.scroll(None, Some(&filter), 1_000, &selection, &Never).expect("points are listed");
    assert_eq!(scrolled.iter().map(|record| record.id).collect::<Vec<_>>(), ids, "round {round}");

    let effort = if dice.one_in(2) { Effort::Exact } else { Effort::default() };
    let query = SearchQuery { k: 1_000, filter: None, min_similarity: None, effort, ..dice.query(view.schema()) };
    let hits = view.search(&query, &SearchContext { stop: &Never, explain: false }).expect("the search ends").hits;
    assert_eq!(hits.len() as u64, POINTS, "round {round}");
    let found: BTreeSet<_> = hits.iter().map(|hit| hit.id).collect();
    assert_eq!(found.len() as u64, POINTS, "round {round}: a point was found twice");
    // The scores are those of this round's vectors.
    let selection = Selection { vectors: sagitta_model::VectorSelection::All, ..Selection::default() };
    let records = view.hydrate(&hits, &selection, &AnswerRoom::default()).expect("points are read");
    let (name, spec) = view.schema().vector(&query.vector_name).expect("a vector of the schema");
    let prepared = sagitta_engine::index::PreparedQuery::new(spec.metric, &query.vector).expect("a valid query");
    for (hit, record) in hits.iter().zip(records) {
        let row = &record.vectors[name];
        let norms = [sagitta_engine::index::inverse_norm(row)];
        let mut similarity = [0.0];
        view.index_engine().similarities().many(&prepared, row, &norms, &mut similarity);
        assert_eq!(hit.similarity, similarity[0], "round {round}, {}", hit.id);
    }
}
