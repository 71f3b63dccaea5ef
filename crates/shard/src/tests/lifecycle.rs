use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::index::{BuildControl, Never, Stop};
use sagitta_engine::kv::{Fault, KvEngine, MemoryEngine};
use sagitta_env::{Env, ManualClock};
use sagitta_model::{
    Change, Condition, ErrorKind, Filter, Hit, IndexPolicy, PayloadChange, PayloadSelection, Point, PointId, Record,
    Schema, Selection, Target, Value,
};

use super::in_folder;
use crate::codec::Record as _;
use crate::layout::{FAMILIES, IDENTITY_KEY, META};
use crate::testing::dice::Dice;
use crate::testing::{database_dir, run_jobs, schema, small_options, spec, unhurried};
use crate::{AnswerRoom, Command, Engines, Entry, Shard, ShardError, ShardOptions, ShardSpec, WriteOutcome};

/// A shard with the twins, whose faults and clock are at hand.
struct Fixture<'a> {
    dir: &'a Path,
    kv: MemoryEngine,
    env: Env,
    clock: ManualClock,
    schema: Schema,
}

impl<'a> Fixture<'a> {
    fn new(dir: &'a Path) -> Self {
        let (env, clock) = Env::seeded(1);
        Self { dir, kv: MemoryEngine::new(), env, clock, schema: schema(1, &IndexPolicy::ALL) }
    }

    fn try_open(&self, spec: ShardSpec, options: ShardOptions) -> Result<Arc<Shard>, ShardError> {
        let engines = Engines { kv: Arc::new(self.kv.clone()), index: Arc::new(ExactEngine) };
        Shard::open(self.dir, spec, engines, self.env.clone(), options)
    }

    fn open(&self, options: ShardOptions) -> Arc<Shard> {
        self.try_open(spec(&self.schema), options).expect("the shard opens")
    }

    fn points(&self, ids: std::ops::Range<u64>) -> Vec<Point> {
        let dice = Dice::new(1);
        ids.map(|id| Point { id: PointId::Num(id), ..dice.point(&self.schema) }).collect()
    }
}

fn apply(shard: &Shard, index: u64, after: Option<PointId>, change: Change) -> Result<WriteOutcome, ShardError> {
    let data = Command { request_id: index.into(), after, change: change.into() }.to_sealed();
    Ok(shard.apply(&[Entry { index, term: 1, data: &data, members: None }])?.remove(0))
}

#[test]
fn a_folder_of_another_shard_is_refused_and_both_are_named() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        drop(fixture.open(small_options()));
        let own = spec(&fixture.schema);
        let refusal = |spec: ShardSpec| {
            let error = fixture.try_open(spec, small_options()).expect_err("another shard");
            assert_eq!(error.kind(), ErrorKind::Conflict);
            error.to_string()
        };
        let collection = refusal(ShardSpec { collection: 2, ..own.clone() });
        assert!(collection.contains("5a610001") && collection.contains("000000000002"), "{collection}");
        let shard = refusal(ShardSpec { shard: 8, ..own.clone() });
        assert!(shard.contains("shard 7, expected 8"), "{shard}");
        assert!(refusal(ShardSpec { schema: schema(2, &IndexPolicy::ALL), ..own }).contains("schema"));
    });
}

#[test]
fn a_folder_of_a_newer_format_is_refused() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        drop(fixture.open(small_options()));
        let kv = fixture.kv.open(&database_dir(dir), &FAMILIES, &Default::default()).expect("the database opens");
        let mut batch = sagitta_engine::kv::WriteBatch::new();
        batch.put(META, IDENTITY_KEY, &crate::codec::Writer::sealed(9).seal());
        kv.write(&batch).and_then(|()| kv.flush()).expect("the row is written");
        drop(kv);
        let error = fixture.try_open(spec(&fixture.schema), small_options()).expect_err("newer");
        assert!(matches!(error, ShardError::NewerFormat { found: 9, supported: 3, .. }), "{error}");
    });
}

#[test]
fn an_entry_that_is_damaged_or_newer_stops_this_replica_only() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let shard = fixture.open(small_options());
        let mut data = Command { request_id: 1, after: None, change: Change::Delete(Vec::new()).into() }.to_sealed();
        data[3] ^= 1;
        let error = shard.apply(&[Entry { index: 1, term: 1, data: &data, members: None }]).expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let newer = crate::codec::Writer::sealed(77).seal();
        let error = shard.apply(&[Entry { index: 1, term: 1, data: &newer, members: None }]).expect_err("newer");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!((shard.applied_index(), shard.view().points()), (0, 0));
    });
}

#[test]
fn a_full_disk_changes_nothing_and_the_batch_applies_once_there_is_space() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let shard = fixture.open(small_options());
        let upsert = || Change::Upsert(fixture.points(0..5));
        fixture.kv.inject(&database_dir(dir), Fault::DiskFull, 0);
        let error = apply(&shard, 1, None, upsert()).expect_err("the disk is full");
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(shard.write_pressure().is_over());
        assert_eq!((shard.applied_index(), shard.view().points()), (0, 0));
        fixture.kv.heal(&database_dir(dir));
        let outcome = apply(&shard, 1, None, upsert()).expect("there is space");
        assert_eq!((outcome.applied, shard.view().points()), (5, 5));
        assert!(!shard.write_pressure().is_over());
    });
}

#[test]
fn a_failed_job_leaves_everything_and_is_offered_again_later() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let shard = fixture.open(small_options());
        apply(&shard, 1, None, Change::Upsert(fixture.points(0..30))).expect("applied");
        assert!(shard.is_sealing(), "a generation is full");
        fixture.kv.inject(&database_dir(dir), Fault::DiskFull, 0);
        shard.next_job().expect("a generation is full").run(&unhurried()).expect_err("the disk is full");
        let stats = shard.stats();
        assert_eq!((stats.segments.len(), stats.points, stats.failed_jobs.len()), (0, 30, 1));
        assert!(stats.failed_jobs[0].reason.contains("full"), "{stats:?}");
        assert_eq!(std::fs::read_dir(dir.join("segments")).expect("the folder is read").count(), 0);
        assert!(shard.next_job().is_none(), "the job is offered at once");
        assert!(!shard.is_sealing(), "nobody should wait for it");
        fixture.kv.heal(&database_dir(dir));
        fixture.clock.advance(Duration::from_secs(2));
        assert!(shard.is_sealing(), "it is time for another try");
        run_jobs(&shard).expect("jobs end well");
        let stats = shard.stats();
        assert_eq!((stats.segments.len(), stats.failed_jobs.len(), stats.indexed_index), (1, 0, 1));
        assert!(!shard.is_sealing(), "all is sealed");
    });
}

#[test]
fn a_job_that_panics_is_one_that_failed() {
    struct Planted;
    impl Stop for Planted {
        fn should_stop(&self) -> bool {
            panic!("planted")
        }
    }
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let shard = fixture.open(small_options());
        apply(&shard, 1, None, Change::Upsert(fixture.points(0..30))).expect("applied");
        let job = shard.next_job().expect("a generation is full");
        let error = job.run(&BuildControl { threads: 1, stop: &Planted, progress: &|_| () }).expect_err("it panics");
        assert!(matches!(&error, ShardError::Panicked { what } if what == "planted"), "{error}");
        let stats = shard.stats();
        assert_eq!((stats.segments.len(), stats.points, stats.failed_jobs.len()), (0, 30, 1));
        assert!(shard.next_job().is_none(), "the job is offered at once");
        fixture.clock.advance(Duration::from_secs(2));
        run_jobs(&shard).expect("jobs end well");
        assert_eq!((shard.stats().segments.len(), shard.stats().failed_jobs.len()), (1, 0));
    });
}

#[test]
fn rows_are_indexed_when_their_generation_is_frozen_and_sealed() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let shard = fixture.open(small_options());
        apply(&shard, 5, None, Change::Upsert(fixture.points(0..3))).expect("applied");
        assert_eq!((shard.indexed_index(), shard.next_job().is_none()), (4, true));
        shard.freeze().expect("frozen");
        apply(&shard, 7, None, Change::Upsert(fixture.points(3..5))).expect("applied");
        assert_eq!(shard.indexed_index(), 4);
        run_jobs(&shard).expect("jobs end well");
        assert_eq!((shard.indexed_index(), shard.applied_index(), shard.durable_index()), (6, 7, 7));
    });
}

#[test]
fn writes_are_to_be_refused_while_too_many_generations_wait() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let shard = fixture.open(small_options());
        for index in 1..=4 {
            assert!(!shard.write_pressure().is_over(), "after {} generations", index - 1);
            apply(&shard, index, None, Change::Upsert(fixture.points(index * 100..index * 100 + 24))).expect("applied");
        }
        assert!(shard.write_pressure().is_over());
        run_jobs(&shard).expect("jobs end well");
        assert!(!shard.write_pressure().is_over());
    });
}

#[test]
fn a_change_by_a_filter_stops_at_its_bound_and_goes_on_from_there() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let shard = fixture.open(ShardOptions { seal_rows: 4_000, ..small_options() });
        apply(&shard, 1, None, Change::Upsert(fixture.points(0..10_050))).expect("applied");
        run_jobs(&shard).expect("jobs end well");
        let change = || Change::UpdatePayload {
            target: Target::Filter(Filter::default()),
            change: PayloadChange::Replace([("year".to_owned(), Value::Int(1999))].into()),
        };
        let first = apply(&shard, 2, None, change()).expect("applied");
        assert_eq!((first.applied, first.resume_after), (10_000, Some(PointId::Num(9_999))));
        let second = apply(&shard, 3, first.resume_after, change()).expect("applied");
        assert_eq!((second.applied, second.resume_after), (50, None));
        let path = "year".parse().expect("a path");
        let test = sagitta_model::Test::Match(sagitta_model::Scalar::Int(1999));
        let filter = Filter { must: vec![Condition::Field { path, test }], ..Filter::default() };
        assert_eq!(shard.view().count(Some(&filter), &Never).expect("counted"), 10_050);
    });
}

#[test]
fn what_is_gathered_for_one_answer_shares_its_room() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let shard = fixture.open(small_options());
        apply(&shard, 1, None, Change::Upsert(fixture.points(0..2))).expect("applied");
        let (view, selection) = (shard.view(), Selection { payload: PayloadSelection::All, ..Selection::default() });
        let ids = [PointId::Num(0), PointId::Num(1)];
        let weight: usize = view.get(&ids, &selection).expect("points are read").iter().map(Record::weight).sum();
        let room = AnswerRoom::new(2 * weight - 1);
        let hits = ids.map(|id| Hit { id, similarity: 0.0 });
        assert_eq!(view.hydrate(&hits, &selection, &room).expect("there is room").len(), 2);
        let error = view.hydrate(&hits, &selection, &room).expect_err("there is room for one of them at most");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("split the batch"), "{error}");
    });
}

#[test]
fn only_so_many_segments_are_kept_in_quarantine() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let shard = fixture.open(small_options());
        apply(&shard, 1, None, Change::Upsert(fixture.points(0..30))).expect("applied");
        for _ in 0..7 {
            run_jobs(&shard).expect("jobs end well");
            let view = shard.view();
            view.segments()[0].segment.report(crate::Part::Payload, "planted");
        }
        run_jobs(&shard).expect("jobs end well");
        let mut quarantined = shard.stats().quarantined;
        quarantined.sort_unstable();
        assert_eq!(quarantined, [3, 4, 5, 6]);
    });
}
