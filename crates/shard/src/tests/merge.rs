use std::sync::Arc;

use sagitta_engine::index::Never;
use sagitta_engine::index::exact::ExactEngine;
use sagitta_model::{
    Change, ErrorKind, Filter, HashRange, PayloadChange, PayloadSelection, PointId, Selection, Target, VectorSelection,
    shard_hash,
};

use super::in_folder;
use super::split::{Fixture, LEFT, MIDDLE, apply, command, found, ids, split};
use crate::codec::Record as _;
use crate::testing::{run_jobs, small_options, spec};
use crate::{
    Beginning, Engines, Entry, Filling, Frozen, Import, MergeEntry, RememberedRequest, Shard, ShardError, ShardOptions,
    ShardSpec, WriteOutcome,
};

const INTO: u64 = 9;
const MERGE: u64 = 5;
const FLOOR: u64 = 1_000;

impl Fixture<'_> {
    fn open_filling(&self) -> Arc<Shard> {
        let engines = Engines { kv: Arc::new(self.kv.clone()), index: Arc::new(ExactEngine) };
        let spec = ShardSpec { shard: INTO, ..spec(&self.schema) };
        let options = ShardOptions { siblings: Some(self.dir.to_path_buf()), ..small_options() };
        let beginning = Beginning { merge: MERGE, range: HashRange::FULL, index: FLOOR, term: 3 };
        let dir = self.dir.join(INTO.to_string());
        Shard::open_filling(&dir, spec, beginning, engines, self.env.clone(), options).expect("it opens")
    }

    /// A shard with all of the points in halves, split.
    fn halves(&self) -> [Arc<Shard>; 2] {
        let left = self.open(LEFT);
        let (lower, upper) = ids();
        apply(&left, 1, &command(1, Change::Upsert(self.points(&[&lower[..], &upper].concat()))));
        apply(&left, 2, &split(2, MIDDLE, 8));
        [left, self.open(8)]
    }
}

fn freeze(merge: u64) -> Vec<u8> {
    MergeEntry::Freeze { merge }.to_sealed()
}

fn thaw(merge: u64) -> Vec<u8> {
    MergeEntry::Thaw { merge }.to_sealed()
}

fn complete(step: u64, above: u64) -> Vec<u8> {
    MergeEntry::Complete { merge: MERGE, step, above }.to_sealed()
}

/// All that a shard has, in one import.
fn all_of(shard: &Shard, step: u64) -> Import {
    let view = shard.view();
    let selection = Selection { payload: PayloadSelection::All, vectors: VectorSelection::All };
    let records = view.scroll(None, None, usize::MAX, &selection, &Never).expect("points are listed");
    let requests = view.requests_after(0, usize::MAX).expect("requests are read");
    let (imported, next) = view.imported_from(0, usize::MAX).expect("requests are read");
    assert_eq!(next, None);
    let mut import = Import { merge: MERGE, step, ..Import::default() };
    import.requests = imported.into_iter().chain(requests.into_iter().map(|(_, request)| request)).collect();
    for record in records {
        import.versions.push(record.version);
        let payload = record.payload.expect("it was selected");
        import.points.push(sagitta_model::Point { id: record.id, vectors: record.vectors, payload });
    }
    import
}

fn import(import: Import) -> Vec<u8> {
    MergeEntry::Import(import).to_sealed()
}

/// Fills a shard with two others, which are frozen.
fn merge(halves: &[Arc<Shard>; 2], into: &Shard) {
    let mut index = FLOOR;
    for (step, half) in halves.iter().enumerate() {
        assert_eq!(apply(half, half.applied_index() + 1, &freeze(MERGE)).refused, None);
        index += 1;
        assert_eq!(apply(into, index, &import(all_of(half, step as u64))).refused, None);
    }
    assert_eq!(apply(into, index + 1, &complete(2, FLOOR)).refused, None);
}

fn kind(outcome: &WriteOutcome) -> Option<ErrorKind> {
    outcome.refused.as_ref().map(|problem| problem.kind)
}

#[test]
fn a_shard_that_is_filled_begins_above_the_others_and_takes_no_command_before_it_is_complete() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let halves = fixture.halves();
        for _ in 0..2 {
            let into = fixture.open_filling();
            let view = into.view();
            assert_eq!((view.applied_index(), view.applied_term(), into.durable_index()), (FLOOR, 3, FLOOR));
            assert_eq!((view.born(), view.filling()), (Some((FLOOR, 3)), Some(Filling { merge: MERGE, step: 0 })));
            assert!(matches!(view.is_open(), Err(ShardError::Merging { shard: INTO, merge: MERGE })));
        }
        let into = fixture.open_filling();
        let (lower, _) = ids();
        let write = command(77, Change::Upsert(fixture.points(&lower[..2])));
        assert!(apply(&into, FLOOR + 1, &write).is_misrouted());
        assert!(apply(&into, FLOOR + 2, &split(78, MIDDLE, 10)).is_misrouted());
        assert_eq!(kind(&apply(&into, FLOOR + 3, &freeze(7))), Some(ErrorKind::Conflict));
        let [left, right] = &halves;
        apply(left, 5, &freeze(MERGE));
        apply(right, 6, &freeze(MERGE));
        assert_eq!(apply(&into, FLOOR + 4, &import(all_of(left, 0))).refused, None);
        assert_eq!(apply(&into, FLOOR + 5, &import(all_of(right, 1))).refused, None);
        assert_eq!(kind(&apply(&into, FLOOR + 6, &complete(2, FLOOR + 6))), Some(ErrorKind::Invalid));
        assert_eq!(apply(&into, FLOOR + 7, &complete(2, FLOOR + 6)).refused, None);
        let again = apply(&into, FLOOR + 8, &complete(2, FLOOR + 6));
        assert_eq!((again.refused, again.deduplicated), (None, true));
        // What was refused before is not remembered.
        assert_eq!(apply(&into, FLOOR + 9, &write).applied, 2);
        let (lower, upper) = ids();
        let all = [lower, upper].concat();
        assert_eq!(found(&into, &all), all);
        into.flush().expect("flushed");
        drop(into);
        let into = fixture.open_filling();
        assert!(into.view().is_open().is_ok() && into.view().filled_by() == Some(MERGE));
        assert_eq!(found(&into, &all), all);
    });
}

#[test]
fn points_come_with_their_versions_and_their_segments_stay_what_they_say() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let (halves, into) = (fixture.halves(), fixture.open_filling());
        merge(&halves, &into);
        run_jobs(&into).expect("jobs end well");
        let versions = into.view().versions(None, usize::MAX).expect("versions are read");
        assert_eq!(versions.len(), 100);
        assert!(versions.iter().all(|(_, version)| *version == 1), "{versions:?}");
        let (lower, _) = ids();
        apply(&into, FLOOR + 9, &command(9, Change::Upsert(fixture.points(&lower[..1]))));
        let page = into.view().versions(None, usize::MAX).expect("versions are read");
        assert!(page.contains(&(lower[0], FLOOR + 9)));
        assert!(into.view().indexed_index() >= FLOOR + 8, "what came in is sealed");
    });
}

#[test]
fn an_import_that_others_came_before_or_that_does_not_fit_is_refused_whole() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let ([left, _], into) = (fixture.halves(), fixture.open_filling());
        let sound = all_of(&left, 0);
        assert_eq!(apply(&into, FLOOR + 1, &import(sound.clone())).refused, None);
        let refused = |index: u64, change: Import| {
            let outcome = apply(&into, index, &import(change));
            assert_eq!((into.view().points(), into.view().filling().map(|filling| filling.step)), (50, Some(1)));
            kind(&outcome)
        };
        assert_eq!(refused(FLOOR + 2, sound.clone()), Some(ErrorKind::Conflict), "the same once more");
        let next = Import { step: 1, ..sound };
        assert_eq!(refused(FLOOR + 3, Import { merge: MERGE + 1, ..next.clone() }), Some(ErrorKind::Conflict));
        assert_eq!(refused(FLOOR + 4, Import { step: 2, ..next.clone() }), Some(ErrorKind::Conflict));
        let mut newer = next.clone();
        newer.versions[3] = FLOOR + 5;
        assert_eq!(refused(FLOOR + 5, newer), Some(ErrorKind::Invalid));
        let mut half = next;
        half.points[4].vectors.pop_first();
        assert_eq!(refused(FLOOR + 6, half), Some(ErrorKind::Invalid));
        assert_eq!(kind(&apply(&into, FLOOR + 7, &complete(2, 0))), Some(ErrorKind::Conflict));
        assert_eq!(
            kind(&apply(&left, 9, &import(Import { merge: MERGE, ..Import::default() }))),
            Some(ErrorKind::Conflict)
        );
    });
}

#[test]
fn a_frozen_shard_changes_nothing_and_works_on_once_it_is_thawed() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let [left, _] = fixture.halves();
        let (lower, _) = ids();
        assert_eq!(apply(&left, 3, &freeze(MERGE)).refused, None);
        assert!(apply(&left, 4, &freeze(MERGE)).deduplicated);
        let frozen = Some(Frozen { merge: MERGE, index: 3 });
        left.flush().expect("flushed");
        drop(left);
        let left = fixture.open(LEFT);
        assert_eq!(left.view().frozen_by(), frozen, "after a restart as well");
        assert!(matches!(left.view().is_open(), Err(ShardError::Merging { shard: LEFT, merge: MERGE })));
        let delete = command(10, Change::Delete(lower[..3].to_vec()));
        assert!(apply(&left, 5, &delete).is_misrouted());
        assert!(apply(&left, 6, &command(11, Change::DeleteByFilter(Filter::default()))).is_misrouted());
        assert!(apply(&left, 7, &split(12, MIDDLE / 2, 11)).is_misrouted());
        assert_eq!(kind(&apply(&left, 8, &freeze(MERGE + 1))), Some(ErrorKind::Conflict));
        assert_eq!((left.view().points(), left.view().frozen_by()), (50, frozen));
        // An older merge has nothing to thaw here.
        assert_eq!(apply(&left, 9, &thaw(MERGE - 1)).refused, None);
        assert_eq!(left.view().frozen_by(), frozen);
        assert_eq!(apply(&left, 10, &thaw(MERGE)).refused, None);
        assert_eq!(apply(&left, 11, &delete).applied, 3);
        assert_eq!(kind(&apply(&left, 12, &freeze(MERGE))), Some(ErrorKind::Conflict), "it was on its way for long");
        assert!(left.view().is_open().is_ok());
        assert_eq!(apply(&left, 13, &freeze(MERGE + 1)).refused, None);
    });
}

#[test]
fn a_request_that_one_of_the_shards_had_applied_is_done_for_the_rest_and_never_again() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let (halves, into) = (fixture.halves(), fixture.open_filling());
        let [left, right] = &halves;
        let (lower, upper) = ids();
        let mixed = |from: usize, to: usize| [&upper[from..to], &lower[from..to]].concat();
        let missing = (1_000_000..).map(PointId::Num).find(|id| shard_hash(*id) >= MIDDLE).expect("there are many");
        let set = |year: i64| PayloadChange::Merge([("year".to_owned(), year.into())].into());
        let update = |ids: Vec<PointId>, year| Change::UpdatePayload { target: Target::Ids(ids), change: set(year) };
        // By the left one alone, by both, and by none.
        apply(left, 3, &command(20, Change::Delete(lower[..2].to_vec())));
        apply(left, 4, &command(21, Change::Delete(lower[2..4].to_vec())));
        apply(right, 4, &command(21, Change::Delete(upper[2..4].to_vec())));
        apply(left, 5, &command(22, update(vec![lower[4], lower[0], lower[5], lower[0]], 1)));
        merge(&halves, &into);
        let before = into.view().points();
        assert_eq!(before, 100 - 2 - 4);
        let mut index = FLOOR + 10;
        let mut send = |id: u128, change: Change| {
            index += 1;
            apply(&into, index, &command(id, change))
        };
        let outcome = send(20, Change::Delete(mixed(0, 2)));
        assert_eq!((outcome.applied, outcome.deduplicated, into.view().points()), (4, false, before - 2));
        let again = send(20, Change::Delete(mixed(0, 2)));
        assert_eq!((again.applied, again.deduplicated, again.index), (4, true, outcome.index));
        let outcome = send(21, Change::Delete(mixed(2, 4)));
        assert_eq!((outcome.applied, outcome.deduplicated, outcome.index), (4, true, 4));
        let ids = vec![upper[4], lower[4], lower[0], missing, lower[5], lower[0]];
        let outcome = send(22, update(ids.clone(), 1));
        let positions: Vec<_> = outcome.failures.iter().map(|failure| (failure.index, failure.id)).collect();
        assert_eq!((outcome.applied, outcome.failed), (3, 3));
        assert_eq!(positions, [(2, lower[0]), (3, missing), (5, lower[0])]);
        let version = |id| into.view().get(&[id], &Selection::default()).expect("it is read")[0].version;
        assert_eq!((version(lower[4]), version(upper[4])), (5, outcome.index));
        // A change by a filter: of those points that the left one has not.
        assert_eq!(send(23, Change::Delete(mixed(6, 8))).applied, 4);
        assert_eq!(
            send(23, Change::Delete(mixed(8, 9))).refused.map(|problem| problem.kind),
            Some(ErrorKind::Conflict)
        );
    });
}

#[test]
fn a_change_by_a_filter_that_one_of_the_shards_had_applied_is_done_for_the_points_of_the_other() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let (halves, into) = (fixture.halves(), fixture.open_filling());
        let all = command(30, Change::DeleteByFilter(Filter::default()));
        assert_eq!(apply(&halves[0], 3, &all).applied, 50);
        let (lower, upper) = ids();
        // What came later is not of the request.
        apply(&halves[0], 4, &command(31, Change::Upsert(fixture.points(&lower[..7]))));
        merge(&halves, &into);
        assert_eq!(into.view().points(), 57);
        let outcome = apply(&into, FLOOR + 10, &all);
        assert_eq!((outcome.applied, outcome.deduplicated), (100, false));
        assert_eq!(found(&into, &[lower.clone(), upper].concat()), lower[..7]);
        assert!(apply(&into, FLOOR + 11, &all).deduplicated);
        let both = command(32, Change::DeleteByFilter(Filter::default()));
        assert_eq!(apply(&into, FLOOR + 12, &both).applied, 7);
    });
}

#[test]
fn requests_of_merged_shards_are_known_to_both_halves_after_a_split_and_to_the_next_merge() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let (halves, into) = (fixture.halves(), fixture.open_filling());
        let (lower, upper) = ids();
        apply(&halves[0], 3, &command(40, Change::Delete(lower[..2].to_vec())));
        merge(&halves, &into);
        apply(&into, FLOOR + 10, &split(41, MIDDLE / 2, 10));
        let right = fixture.open(10);
        let high: Vec<_> = lower[..2].iter().copied().filter(|id| right.range().holds(*id)).collect();
        let rest = [&high[..], &upper[..2]].concat();
        let outcome = apply(&right, FLOOR + 12, &command(40, Change::Delete(rest.clone())));
        assert_eq!((outcome.applied, outcome.deduplicated), (2 + 2, false));
        let (parts, _) = right.view().imported_from(0, usize::MAX).expect("requests are read");
        let of = |id: u128| parts.iter().filter(|part| part.id == id).map(|part| part.range).collect::<Vec<_>>();
        assert_eq!(of(40), [HashRange { first: MIDDLE / 2, last: MIDDLE - 1 }]);
        let natively = right.view().requests_after(FLOOR + 10, 9).expect("requests are read");
        let expected = RememberedRequest { id: 40, range: right.range(), outcome };
        assert_eq!(natively, [(FLOOR + 12, expected)]);
    });
}

#[test]
fn imported_requests_are_forgotten_together_once_as_many_others_have_come() {
    in_folder(|dir| {
        let fixture = Fixture::new(dir);
        let (halves, into) = (fixture.halves(), fixture.open_filling());
        let (lower, upper) = ids();
        let delete = |ids: &[PointId]| Change::Delete(ids.to_vec());
        apply(&halves[0], 3, &command(50, delete(&lower[..1])));
        apply(&halves[0], 4, &command(51, delete(&lower[1..2])));
        merge(&halves, &into);
        let most = crate::requests::MAX_REQUESTS as u64;
        let fill = |first: u64, last: u64, together: usize| {
            let data: Vec<_> = (first..last).map(|n| (n, command(u128::from(n), delete(&[])))).collect();
            for batch in data.chunks(together) {
                let entries: Vec<_> =
                    batch.iter().map(|(index, data)| Entry { index: *index, term: 9, data, members: None }).collect();
                into.apply(&entries).expect("they apply");
            }
        };
        let first = FLOOR + 10;
        fill(first, first + most - 1, 1_000);
        let rest = apply(&into, first + most, &command(50, delete(&[upper[0], lower[0]])));
        assert_eq!((rest.applied, rest.deduplicated), (2, false), "the last one that is remembered");
        let forgotten = apply(&into, first + most + 1, &command(51, delete(&[upper[1], lower[1]])));
        assert_eq!(forgotten.applied, 1, "the other one is gone already");
        assert_eq!(into.view().imported_from(0, 9).expect("requests are read"), (Vec::new(), None));
    });
}
