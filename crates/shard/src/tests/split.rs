use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sagitta_engine::index::Never;
use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::kv::{Fault, MemoryEngine};
use sagitta_env::Env;
use sagitta_model::{
    Change, ErrorKind, HashRange, IndexPolicy, PayloadChange, Point, PointId, Schema, Selection, Target, shard_hash,
};

use super::in_folder;
use crate::codec::{PointRecord, Record as _};
use crate::testing::dice::Dice;
use crate::testing::twin::copy;
use crate::testing::{database_dir, run_jobs, schema, small_options, spec};
use crate::{Command, Engines, Entry, Shard, ShardError, ShardOptions, ShardSpec, Split, WriteOutcome};

pub(super) const MIDDLE: u64 = 1 << 63;
pub(super) const LEFT: u64 = 7;

/// Shards side by side, with the twins.
pub(super) struct Fixture<'a> {
    pub(super) dir: &'a Path,
    pub(super) kv: MemoryEngine,
    pub(super) env: Env,
    pub(super) schema: Schema,
}

impl<'a> Fixture<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        Self { dir, kv: MemoryEngine::new(), env: Env::seeded(1).0, schema: schema(1, &IndexPolicy::ALL) }
    }

    pub(super) fn open(&self, shard: u64) -> Arc<Shard> {
        self.open_with(shard, ShardOptions { siblings: Some(self.dir.to_path_buf()), ..small_options() })
    }

    /// Another replica, in a folder of its own.
    fn beside(&self, name: &str) -> PathBuf {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).expect("a folder");
        dir
    }

    fn open_in(&self, dir: &Path, shard: u64) -> Arc<Shard> {
        let options = ShardOptions { siblings: Some(dir.to_path_buf()), ..small_options() };
        self.open_at(&dir.join(shard.to_string()), shard, options)
    }

    fn open_with(&self, shard: u64, options: ShardOptions) -> Arc<Shard> {
        self.open_at(&self.dir.join(shard.to_string()), shard, options)
    }

    fn open_at(&self, dir: &Path, shard: u64, options: ShardOptions) -> Arc<Shard> {
        let engines = Engines { kv: Arc::new(self.kv.clone()), index: Arc::new(ExactEngine) };
        let spec = ShardSpec { shard, ..spec(&self.schema) };
        Shard::open(dir, spec, engines, self.env.clone(), options).expect("it opens")
    }

    pub(super) fn points(&self, ids: &[PointId]) -> Vec<Point> {
        let dice = Dice::new(1);
        ids.iter().map(|&id| Point { id, ..dice.point(&self.schema) }).collect()
    }
}

/// The first ids whose hashes are below [`MIDDLE`], and the first others.
pub(super) fn ids() -> (Vec<PointId>, Vec<PointId>) {
    let (lower, upper): (Vec<_>, Vec<_>) = (0..200).map(PointId::Num).partition(|id| shard_hash(*id) < MIDDLE);
    assert!(lower.len() > 50 && upper.len() > 50);
    (lower[..50].to_vec(), upper[..50].to_vec())
}

pub(super) fn command(request_id: u128, change: Change) -> Vec<u8> {
    Command { request_id, after: None, change: change.into() }.to_sealed()
}

pub(super) fn split(request_id: u128, at: u64, right: u64) -> Vec<u8> {
    Split { request_id, at, right }.to_sealed()
}

fn try_apply(shard: &Shard, entries: &[(u64, &[u8])]) -> Result<Vec<WriteOutcome>, ShardError> {
    let entries: Vec<_> =
        entries.iter().map(|&(index, data)| Entry { index, term: 1, data, members: Some(b"of the left") }).collect();
    shard.apply(&entries)
}

pub(super) fn apply(shard: &Shard, index: u64, data: &[u8]) -> WriteOutcome {
    try_apply(shard, &[(index, data)]).expect("it applies").remove(0)
}

#[test]
fn a_split_that_divides_nothing_or_uses_a_number_again_is_refused_and_changes_nothing() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let left = fixture.open(LEFT);
        let refused = |shard: &Shard, index: u64, at: u64, right: u64| {
            let before = shard.range();
            let outcome = apply(shard, index, &split(index.into(), at, right));
            let problem = outcome.refused.expect("it is refused");
            assert_eq!((problem.kind, shard.range()), (ErrorKind::Invalid, before));
            problem.message
        };
        assert!(refused(&left, 1, 0, 8).starts_with("at: 0x0000000000000000 does not divide the shard's hashes"));
        assert!(refused(&left, 2, MIDDLE, LEFT).starts_with("right: shard 7 has been split from or into already"));
        assert!(!dir.join("8").exists());
        assert_eq!(apply(&left, 3, &split(3, MIDDLE, 8)).refused, None);
        assert!(refused(&left, 4, MIDDLE, 9).starts_with("at: "));
        assert!(refused(&left, 5, MIDDLE / 2, 8).starts_with("right: shard 8 has been"));
        assert!(!dir.join("9").exists());
        let right = fixture.open(8);
        assert!(refused(&right, 6, MIDDLE, 9).starts_with("at: "));
        assert!(refused(&right, 7, MIDDLE + 1, LEFT).starts_with("right: shard 7 has been"));
        assert_eq!(apply(&right, 8, &split(8, MIDDLE + 5, 9)).refused, None);
        assert_eq!(right.range(), HashRange { first: MIDDLE, last: MIDDLE + 4 });
        assert!(refused(&fixture.open(9), 9, MIDDLE + 6, 7).starts_with("right: shard 7 has been"));
    });
}

#[test]
fn the_same_split_under_its_request_id_is_answered_and_not_done_again() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let left = fixture.open(LEFT);
        apply(&left, 1, &split(1, MIDDLE, 8));
        let again = apply(&left, 2, &split(1, MIDDLE, 8));
        assert_eq!((again.index, again.deduplicated, again.refused), (1, true, None));
        let other = apply(&left, 3, &split(1, MIDDLE / 2, 9)).refused.expect("another split");
        assert_eq!(other.kind, ErrorKind::Conflict);
        assert_eq!(left.range(), HashRange { first: 0, last: MIDDLE - 1 });
    });
}

#[test]
fn a_shard_without_a_place_for_others_does_not_apply_a_split() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let left = fixture.open_with(LEFT, small_options());
        let error = try_apply(&left, &[(1, &split(1, MIDDLE, 8))]).expect_err("it has no place");
        assert!(matches!(error, ShardError::NoPlace { shard: 8 }), "{error}");
        assert_eq!((error.kind(), left.applied_index()), (ErrorKind::Unavailable, 0));
    });
}

#[test]
fn what_names_a_point_of_another_shard_is_refused_with_positions_and_may_come_again_in_parts() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let left = fixture.open(LEFT);
        let (lower, upper) = ids();
        apply(&left, 1, &split(1, MIDDLE, 8));
        let right = fixture.open(8);
        let mixed = [lower[0], upper[0], lower[1], upper[1]];
        let merge = PayloadChange::Merge([("year".to_owned(), 2026.into())].into());
        let changes = |ids: &[PointId]| {
            let target = Target::Ids(ids.to_vec());
            let update = Change::UpdatePayload { target, change: merge.clone() };
            [Change::Upsert(fixture.points(ids)), update, Change::Delete(ids.to_vec())]
        };
        let mut index = 1;
        let requests = changes(&mixed).into_iter().zip(changes(&lower[..2])).zip(changes(&upper[..2]));
        for (number, ((whole, low), high)) in requests.enumerate() {
            let (id, again) = (100 + number as u128, whole.clone());
            index += 1;
            let outcome = apply(&left, index, &command(id, whole));
            assert!(outcome.is_misrouted() && outcome.applied == 0, "{outcome:?}");
            let problem = outcome.refused.expect("it is refused");
            assert_eq!(problem.kind, ErrorKind::Unavailable);
            assert!(problem.message.ends_with("look the route up again"), "{}", problem.message);
            let fields: Vec<_> = problem.violations.iter().map(|violation| violation.field.as_str()).collect();
            assert_eq!(fields, if number == 0 { ["points[1]", "points[3]"] } else { ["ids[1]", "ids[3]"] });
            index += 1;
            for (shard, part) in [(&left, low), (&right, high)] {
                let outcome = apply(shard, index, &command(id, part));
                assert_eq!((outcome.applied, outcome.refused, outcome.deduplicated), (2, None, false));
            }
            // By somebody who still goes by the old route: not for a reused id, which would be for good.
            index += 1;
            let outcome = apply(&left, index, &command(id, again));
            assert!(outcome.is_misrouted(), "{outcome:?}");
        }
    });
}

#[test]
fn a_request_from_before_a_split_comes_again_in_parts_and_is_not_done_again() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let left = fixture.open(LEFT);
        let (lower, upper) = ids();
        let all = [&lower[..], &upper].concat();
        apply(&left, 1, &command(1, Change::Upsert(fixture.points(&all))));
        apply(&left, 2, &command(2, Change::Delete(vec![lower[0], upper[0]])));
        apply(&left, 3, &split(3, MIDDLE, 8));
        let right = fixture.open(8);
        for (shard, part) in [(&left, &lower), (&right, &upper)] {
            let outcome = apply(shard, 4, &command(1, Change::Upsert(fixture.points(part))));
            assert!(outcome.deduplicated && outcome.refused.is_none(), "{outcome:?}");
            assert_eq!((shard.view().points(), shard.applied_index()), (49, 4));
            // What was used after the split is guarded as ever.
            apply(shard, 5, &command(5, Change::Delete(vec![part[1]])));
            let reused = apply(shard, 6, &command(5, Change::Delete(vec![part[2]])));
            assert_eq!(reused.refused.expect("another command").kind, ErrorKind::Conflict);
        }
    });
}

#[test]
fn the_new_shard_begins_where_the_split_was_and_in_no_group_yet() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let left = fixture.open(LEFT);
        let (lower, upper) = ids();
        apply(&left, 5, &command(1, Change::Upsert(fixture.points(&[&lower[..], &upper].concat()))));
        run_jobs(&left).expect("jobs end well");
        apply(&left, 9, &split(2, MIDDLE, 8));
        for _ in 0..2 {
            let right = fixture.open(8);
            let view = right.view();
            assert_eq!((view.applied_index(), view.applied_term(), right.born()), (9, 1, Some((9, 1))));
            assert_eq!((view.members(), view.points()), (None, 50));
            assert_eq!(view.range(), HashRange { first: MIDDLE, last: u64::MAX });
        }
        assert_eq!(left.view().members(), Some(&b"of the left"[..]));
        assert_eq!((left.view().points(), left.durable_index()), (50, 9));
        drop(left);
        assert_eq!(fixture.open(LEFT).range(), HashRange { first: 0, last: MIDDLE - 1 });
    });
}

/// The points of these ids that a shard has, by every way of finding them.
pub(super) fn found(shard: &Shard, ids: &[PointId]) -> Vec<PointId> {
    let view = shard.view();
    let selection = Selection::default();
    let scrolled = view.scroll(None, None, usize::MAX, &selection, &Never).expect("scrolled");
    let got: Vec<_> = view.get(ids, &selection).expect("read").iter().map(|record| record.id).collect();
    let mut sorted = got.clone();
    sorted.sort_unstable();
    assert_eq!(scrolled.iter().map(|record| record.id).collect::<Vec<_>>(), sorted);
    assert_eq!(view.points(), got.len() as u64);
    got
}

fn only_segment(shard: &Shard) -> PathBuf {
    let view = shard.view();
    let [built] = view.segments() else { panic!("{} segments", view.segments().len()) };
    built.segment.dir().to_path_buf()
}

#[test]
fn a_segment_from_a_replica_before_a_split_brings_neither_half_a_point_of_the_other() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let (here, there) = (fixture.beside("here"), fixture.beside("there"));
        let (behind, left) = (fixture.open_in(&there, LEFT), fixture.open_in(&here, LEFT));
        let (lower, upper) = ids();
        let all = [&lower[..], &upper].concat();
        let write = command(1, Change::Upsert(fixture.points(&all)));
        for shard in [&behind, &left] {
            apply(shard, 1, &write);
        }
        run_jobs(&behind).expect("jobs end well");
        let built = only_segment(&behind);
        apply(&left, 2, &split(2, MIDDLE, 8));
        let right = fixture.open_in(&here, 8);
        for (shard, half) in [(left, &lower), (right, &upper)] {
            let arrival = dir.join("arrival");
            copy(&built, &arrival);
            let adopted = shard.adopt(&arrival, &Never).expect("it is adopted");
            assert_eq!((adopted.rows, adopted.live), (100, 50));
            assert_eq!(found(&shard, &all), *half);
            run_jobs(&shard).expect("jobs end well");
            assert_eq!(found(&shard, &all), *half);
            shard.flush().expect("flushed");
            let number = if *half == lower { LEFT } else { 8 };
            drop(shard);
            assert_eq!(found(&fixture.open_in(&here, number), &all), *half);
        }
    });
}

#[test]
fn a_segment_from_a_replica_after_a_split_takes_nothing_from_one_before_it() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let (here, there) = (fixture.beside("here"), fixture.beside("there"));
        let (ahead, behind) = (fixture.open_in(&there, LEFT), fixture.open_in(&here, LEFT));
        let (lower, upper) = ids();
        let all = [&lower[..], &upper].concat();
        for shard in [&ahead, &behind] {
            apply(shard, 1, &command(1, Change::Upsert(fixture.points(&all))));
        }
        apply(&ahead, 2, &split(2, MIDDLE, 8));
        run_jobs(&ahead).expect("jobs end well");
        let arrival = dir.join("arrival");
        copy(&only_segment(&ahead), &arrival);
        let adopted = behind.adopt(&arrival, &Never).expect("it is adopted");
        assert_eq!((adopted.rows, adopted.live, found(&behind, &all)), (50, 50, all.clone()));
        apply(&behind, 2, &split(2, MIDDLE, 8));
        assert_eq!(found(&behind, &all), lower);
        assert_eq!(found(&fixture.open_in(&here, 8), &all), upper);
    });
}

#[test]
fn a_whole_state_is_of_before_a_split_or_of_after_it() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let left = fixture.open(LEFT);
        let (lower, upper) = ids();
        let all = [&lower[..], &upper].concat();
        apply(&left, 4, &command(1, Change::Upsert(fixture.points(&all))));
        let division = split(2, MIDDLE, 8);
        let (before, after) = (fixture.beside("before"), fixture.beside("after"));
        left.checkpoint(&before.join("7")).expect("a checkpoint");
        apply(&left, 9, &division);
        left.checkpoint(&after.join("7")).expect("a checkpoint");

        let fetched = fixture.open_in(&before, LEFT);
        assert_eq!((fetched.view().since(), fetched.view().split_from(8)), (0, None));
        assert_eq!(found(&fetched, &all), all);
        apply(&fetched, 9, &division);
        assert_eq!(found(&fixture.open_in(&before, 8), &all), upper);
        let later = fixture.open_in(&after, LEFT);
        assert!(!after.join("8").exists(), "the other half comes from its own group");
        for shard in [&fetched, &later] {
            let view = shard.view();
            assert_eq!((view.since(), view.split_from(8), view.born()), (9, Some((9, 1)), None));
            assert_eq!(found(shard, &all), lower);
        }
    });
}

#[test]
fn a_disk_that_is_full_at_any_moment_of_a_split_costs_nothing_but_another_try() {
    // Calls that still succeed before the disk is full: the last ones let the split pass.
    for calls in 0..12 {
        in_folder(|dir| {
            let fixture = Fixture::new(dir);
            let left = fixture.open(LEFT);
            let (lower, upper) = ids();
            let all = [&lower[..], &upper].concat();
            apply(&left, 1, &command(1, Change::Upsert(fixture.points(&all))));
            let delete = command(2, Change::Delete(vec![lower[0]]));
            let misrouted = command(4, Change::Delete(vec![upper[0]]));
            let reused = command(1, Change::Delete(vec![lower[1]]));
            let division = split(3, MIDDLE, 8);
            let entries: [(u64, &[u8]); 4] = [(2, &delete), (3, &reused), (4, &division), (5, &misrouted)];
            fixture.kv.inject(&database_dir(&dir.join("7")), Fault::DiskFull, calls);
            let tried = try_apply(&left, &entries);
            fixture.kv.heal(&database_dir(&dir.join("7")));
            let outcomes = match tried {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Overloaded, "{calls} calls: {error}");
                    try_apply(&left, &entries).expect("there is space")
                }
            };
            let refused: Vec<_> =
                outcomes.iter().map(|outcome| outcome.refused.as_ref().map(|problem| problem.kind)).collect();
            assert_eq!(refused, [None, Some(ErrorKind::Conflict), None, Some(ErrorKind::Unavailable)], "{calls} calls");
            assert_eq!(outcomes[0].applied, 1, "{calls} calls");
            let right = fixture.open(8);
            assert_eq!((left.view().points(), right.view().points()), (49, 50), "{calls} calls");
            assert!(!dir.join("7/half").exists(), "{calls} calls");
        });
    }
}

#[test]
fn what_was_prepared_is_kept_until_the_split_comes_or_is_forgotten_and_never_after_it() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let left = fixture.open(LEFT);
        let (lower, upper) = ids();
        apply(&left, 1, &command(1, Change::Upsert(fixture.points(&[&lower[..], &upper].concat()))));
        run_jobs(&left).expect("jobs end well");
        left.prepare_split(MIDDLE / 2).expect("it is prepared");
        assert_eq!((left.prepared_for(), left.durable_index()), (Some(MIDDLE / 2), 1));
        left.forget_split();
        assert_eq!(left.prepared_for(), None);
        left.prepare_split(MIDDLE).expect("it is prepared");
        let known = left.prepared.known(MIDDLE);
        assert_eq!((known.len(), left.view().segments().len()), (1, 1), "the rows of each segment");
        left.prepare_split(MIDDLE).expect("it is prepared");
        let again = left.prepared.known(MIDDLE);
        assert!(known.iter().all(|(id, rows)| Arc::ptr_eq(rows, &again[id])), "they were looked for once");
        apply(&left, 2, &split(2, MIDDLE, 8));
        assert_eq!(left.prepared_for(), None);
        let right = fixture.open(8);
        for shard in [&left, &right] {
            shard.prepare_split(MIDDLE).expect("there is nothing to do");
            assert_eq!(shard.prepared_for(), None, "nobody would take it");
        }
        assert_eq!(found(&left, &lower), lower);
    });
}

#[test]
fn a_folder_that_the_file_system_would_not_let_be_made_is_told_before_a_split_is_decided() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let nowhere = dir.join("nowhere");
        let left = fixture.open_with(LEFT, ShardOptions { siblings: Some(nowhere.clone()), ..small_options() });
        let error = left.prepare_split(MIDDLE).expect_err("nothing can be moved there");
        assert!(matches!(&error, ShardError::Io { path, .. } if path.starts_with(&nowhere)), "{error}");
        assert_eq!(left.prepared_for(), None);
        for _ in 0..2 {
            fs::create_dir_all(nowhere.join("7.tried.removed/of a crash")).expect("a folder");
            left.prepare_split(MIDDLE).expect("it is prepared");
            let names = |dir: &Path| fs::read_dir(dir).expect("a folder").count();
            assert_eq!((names(&nowhere), dir.join("7/half").exists(), dir.join("7/tried").exists()), (0, false, false));
        }
    });
}

#[test]
fn points_take_what_they_are_whatever_else_is_on_the_disk_and_halves_have_half_of_it_at_once() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let left = fixture.open(LEFT);
        assert_eq!(left.data_bytes(), 0);
        let (lower, upper) = ids();
        let points = fixture.points(&[&lower[..], &upper].concat());
        apply(&left, 1, &command(1, Change::Upsert(points.clone())));
        let of_vectors: usize = fixture.schema.vectors.values().map(|spec| 100 * spec.dim * 4).sum();
        assert_eq!(left.data_bytes(), of_vectors as u64, "payloads are not known yet");
        assert!(left.sample_payloads() && !left.sample_payloads(), "once is enough");
        let unsealed = left.data_bytes();
        let of_payload = |point: &Point| {
            let mut record = Vec::new();
            PointRecord::write(1, &point.payload, &mut record);
            record.len() as u64
        };
        let most = of_vectors as u64 + points.iter().map(of_payload).sum::<u64>();
        assert!((of_vectors as u64 + 100..=most).contains(&unsealed), "{unsealed} of {most}");
        // Each time the same points, and one after the other in the database.
        for index in 2..20 {
            apply(&left, index, &command(index.into(), Change::Upsert(points.clone())));
        }
        assert_eq!(left.data_bytes(), unsealed);
        run_jobs(&left).expect("jobs end well");
        let whole = left.data_bytes();
        assert!(whole > unsealed + of_vectors as u64 / 2, "an index has its size as well: {whole}");
        apply(&left, 20, &split(20, MIDDLE, 8));
        let right = fixture.open(8);
        for shard in [&left, &right] {
            assert!(shard.sample_payloads());
            let half = shard.data_bytes();
            assert!(half.abs_diff(whole / 2) < whole / 10, "{half} of {whole}");
            run_jobs(shard).expect("jobs end well");
            assert!(shard.data_bytes() < whole, "once the rest is removed: {}", shard.data_bytes());
        }
        // As many points as before, and larger ones.
        let mut larger = fixture.points(&lower);
        larger
            .iter_mut()
            .for_each(|point| drop(point.payload.insert("text".to_owned(), "x".repeat(10_000).as_str().into())));
        let before = left.data_bytes();
        apply(&left, 10_000, &command(10_000, Change::Upsert(larger)));
        assert!(left.sample_payloads());
        assert!(left.data_bytes() > before + lower.len() as u64 * 9_000, "{} after {before}", left.data_bytes());
    });
}
