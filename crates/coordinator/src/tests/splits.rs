//! Calls that go by a route from before a split.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sagitta_cluster::{Collection, Command, Floor, NodeStatus, SplitStep};
use sagitta_model::{
    Change, Consistency, ErrorKind, Filter, ItemFailure, Point, PointId, Problem, Record, Selection, VersionToken,
    Wait, Work, WriteResult, shard_hash,
};

use super::NODES;
use tokio::sync::Notify;

use super::rig::{Call, Rig, failing, found, query};
use crate::points::only_of;
use crate::{Elsewhere, Error, Page, ShardError, Write};

const MIDDLE: u64 = 1 << 63;
const LEFT: u64 = 16;
const RIGHT: u64 = 17;

/// A cluster whose only shard was split, and the collection as it was before. Nodes answer who goes by the split.
async fn after_a_split() -> (Rig, Arc<Collection>) {
    let rig = Rig::start(NODES, 1, 3, answer).await;
    let before = rig.collection();
    split(&rig).await;
    (rig, before)
}

fn answer(call: &Call) -> Result<sagitta_model::SearchResult, ShardError> {
    match (call.shard, call.split) {
        (LEFT | RIGHT, 70) => Ok(found(call.shard)),
        _ => Err(failing(Elsewhere::NotHosted)),
    }
}

async fn split(rig: &Rig) {
    split_up_to(rig, SplitStep::Done).await;
    assert_eq!(rig.shards(), [LEFT, RIGHT]);
}

async fn split_up_to(rig: &Rig, last: SplitStep) {
    let reason = String::new();
    rig.decide(Command::BeginSplit { shard: LEFT, epoch: 1, at: MIDDLE, reason, unix_micros: 1, unasked: false }).await;
    let steps = [SplitStep::Prepare, SplitStep::Divide, SplitStep::Found, SplitStep::Done];
    let count = steps.iter().position(|step| *step == last).expect("a step") + 1;
    advance(rig, &steps[..count]).await;
}

async fn advance(rig: &Rig, steps: &[SplitStep]) {
    for pair in steps.windows(2) {
        let (from, to, at) = (pair[0], pair[1], Floor { term: 3, index: 70 });
        rig.decide(Command::AdvanceSplit { id: 1, from, to, at, unix_micros: 2 }).await;
    }
}

fn ids() -> Vec<PointId> {
    (0..20).map(PointId::Num).collect()
}

#[tokio::test]
async fn a_write_goes_on_in_parts_under_the_same_request_id() {
    let (rig, before) = after_a_split().await;
    let points = ids().into_iter().map(|id| Point { id, vectors: Default::default(), payload: Default::default() });
    let changes = [Change::Upsert(points.collect()), Change::Delete(ids()), Change::DeleteByFilter(Filter::default())];
    for (number, change) in changes.into_iter().enumerate() {
        rig.changes();
        let write = Write { request_id: 9, change, wait: Wait::Committed, deadline: rig.deadline() };
        let written = rig.coordinator.write(&before, write).await.expect("written");
        let shards: Vec<_> = written.tokens.iter().map(|token| token.shard).collect();
        assert_eq!((written.applied, shards), (2, vec![LEFT, RIGHT]));
        let changes = rig.changes();
        let [.., (left, lower), (right, upper)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((*left, *right), (LEFT, RIGHT));
        let ids_of = |change: &Change| match change {
            Change::Upsert(points) => points.iter().map(|point| point.id).collect(),
            Change::Delete(ids) => ids.clone(),
            _ => Vec::new(),
        };
        let (below, above): (Vec<_>, Vec<_>) = ids().into_iter().partition(|id| shard_hash(*id) < MIDDLE);
        let expected = if number == 2 { (Vec::new(), Vec::new()) } else { (below, above) };
        assert_eq!((ids_of(lower), ids_of(upper)), expected);
    }
    assert!(rig.request_ids().iter().all(|id| *id == 9));
}

#[tokio::test]
async fn no_read_takes_half_of_the_points_for_all() {
    let (rig, before) = after_a_split().await;
    for consistency in [Consistency::Eventual, Consistency::Strong] {
        let mut search = query(10);
        (search.consistency, search.deadline) = (consistency.clone(), rig.deadline());
        let (results, coverage) = rig.coordinator.search(&before, search).await.expect("found");
        let hits: Vec<_> = results[0].hits.iter().map(|hit| hit.id).collect();
        assert_eq!((hits, coverage.shards), (vec![PointId::Num(LEFT), PointId::Num(RIGHT)], 2), "{consistency:?}");
        let counted = rig.coordinator.count(&before, None, &consistency, rig.deadline()).await;
        assert_eq!(counted.expect("counted"), 2, "{consistency:?}");
        let ids_of = |records: Vec<Record>| records.iter().map(|record| record.id).collect::<Vec<_>>();
        rig.asked();
        let got = rig.coordinator.get(&before, ids(), Selection::default(), &consistency, rig.deadline()).await;
        assert_eq!(ids_of(got.expect("read")), ids(), "{consistency:?}");
        assert_eq!(by_the_split(rig.asked()), [LEFT, RIGHT], "{consistency:?}");
        let page = Page { after: None, limit: 5, filter: None, selection: Selection::default() };
        let scrolled = rig.coordinator.scroll(&before, page, &consistency, rig.deadline()).await;
        assert_eq!(ids_of(scrolled.expect("read")), [PointId::Num(LEFT), PointId::Num(RIGHT)], "{consistency:?}");
        assert_eq!(by_the_split(rig.asked()), [LEFT, RIGHT], "{consistency:?}");
    }
}

/// The shards that were asked by who knew of the split.
fn by_the_split(asked: Vec<(u64, u64)>) -> Vec<u64> {
    asked.into_iter().filter(|(_, split)| *split == 70).map(|(shard, _)| shard).collect()
}

#[tokio::test]
async fn a_session_that_wrote_to_the_new_shard_is_answered_by_it_whichever_coordinator_is_asked() {
    // A replica that has not come to the split yet answers who does not know of it either, with what it has.
    let old = |call: &Call| if call.split == 0 { Ok(found(call.shard)) } else { answer(call) };
    for reads in 0..4 {
        let rig = Rig::start(NODES, 1, 3, old).await;
        let before = rig.collection();
        // Which step it was at when the other coordinator heard of it last.
        let (other, learn) = if reads % 2 == 0 {
            let behind = rig.behind();
            split(&rig).await;
            behind
        } else {
            split_up_to(&rig, SplitStep::Found).await;
            let behind = rig.behind();
            advance(&rig, &[SplitStep::Found, SplitStep::Done]).await;
            behind
        };
        rig.settle().await;
        let session = Consistency::Session(vec![VersionToken { shard: RIGHT, index: 250 }]);
        let read = async {
            match reads {
                0 => other.count(&before, None, &session, rig.deadline()).await.expect("counted"),
                1 => {
                    let page = Page { after: None, limit: 5, filter: None, selection: Selection::default() };
                    other.scroll(&before, page, &session, rig.deadline()).await.expect("read").len() as u64
                }
                2 => {
                    let selection = Selection::default();
                    other.get(&before, ids(), selection, &session, rig.deadline()).await.expect("read");
                    2
                }
                _ => {
                    let mut search = query(10);
                    (search.consistency, search.deadline) = (session.clone(), rig.deadline());
                    other.search(&before, search).await.expect("found").0[0].hits.len() as u64
                }
            }
        };
        // It hears of the split once it has been asked.
        let (counted, ()) = tokio::join!(read, async { learn() });
        assert_eq!((counted, rig.asked()), (2, vec![(LEFT, 70), (RIGHT, 70)]), "read {reads}");
    }
}

#[tokio::test]
async fn a_session_of_shards_that_are_gone_or_of_another_collection_asks_nobody_what_is_new() {
    let (rig, before) = after_a_split().await;
    let (other, _never_learns) = rig.behind();
    rig.decide(Command::SetNodeStatus { id: 1, status: NodeStatus::Lost }).await;
    rig.settle().await;
    // The first is of no collection, as all that were numbered before these.
    for tokens in [vec![(3, 9)], vec![(3, 9), (LEFT, 80), (RIGHT, 80)]] {
        let tokens = tokens.into_iter().map(|(shard, index)| VersionToken { shard, index }).collect();
        let session = Consistency::Session(tokens);
        let counted = other.count(&before, None, &session, rig.deadline()).await;
        assert_eq!(counted.expect("counted"), 2);
    }
}

#[tokio::test]
async fn a_write_from_before_a_split_that_comes_again_is_counted_once() {
    let (rig, before) = after_a_split().await;
    let told = |shard, index, applied| WriteResult {
        applied,
        tokens: vec![VersionToken { shard, index }],
        ..WriteResult::default()
    };
    let present = rig.collection();
    let (lower, upper): (Vec<_>, Vec<_>) = ids().into_iter().partition(|id| shard_hash(*id) < MIDDLE);
    let write = async |collection: &Collection, ids: &[PointId]| {
        let change = Change::Delete(ids.to_vec());
        let write = Write { request_id: 9, change, wait: Wait::Committed, deadline: rig.deadline() };
        rig.coordinator.write(collection, write).await.expect("written").applied
    };
    // Of the points only five existed. Both halves remember that, and neither whose they were.
    rig.wrote(LEFT, told(LEFT, 69, 5));
    rig.wrote(RIGHT, told(RIGHT, 69, 5));
    for collection in [&before, &present] {
        assert_eq!(write(collection, &ids()).await, 5);
        assert_eq!((write(collection, &lower).await, write(collection, &upper).await), (5, 5));
    }
    // Since the split each counts its own.
    rig.wrote(LEFT, told(LEFT, 71, 2));
    rig.wrote(RIGHT, told(RIGHT, 71, 3));
    assert_eq!(write(&present, &ids()).await, 5);
}

#[tokio::test]
async fn a_read_waits_until_all_of_a_split_is_there() {
    for reads in 0..2 {
        let enough = Arc::new(Notify::new());
        let (calls, told) = (AtomicU64::new(0), enough.clone());
        let rig = Rig::start(NODES, 1, 3, move |call| {
            // More rounds than a shard is asked otherwise.
            if calls.fetch_add(1, Ordering::Relaxed) == 3 * 7 {
                told.notify_one();
            }
            match (call.split, call.node) {
                (70, _) => Ok(found(call.shard)),
                // The others would have been given up by the time that it takes.
                (_, 2) => Err(failing(Elsewhere::Divided)),
                _ => Err(failing(Elsewhere::Unreachable)),
            }
        })
        .await;
        let before = rig.collection();
        let read = async {
            let mut search = query(10);
            search.deadline = rig.deadline();
            match reads {
                0 => rig.coordinator.search(&before, search).await.expect("found").0[0].hits.len() as u64,
                _ => {
                    let (eventual, deadline) = (&Consistency::Eventual, rig.deadline());
                    rig.coordinator.count(&before, None, eventual, deadline).await.expect("counted")
                }
            }
        };
        let split = async {
            enough.notified().await;
            split(&rig).await;
        };
        let (found, ()) = tokio::join!(read, split);
        assert_eq!(found, 2);
    }
}

#[tokio::test]
async fn a_write_that_may_have_been_made_before_the_split_stays_in_doubt_whatever_refuses_it_then() {
    let calls = AtomicU64::new(0);
    let rig = Rig::start(NODES, 1, 3, move |call| match (call.split, calls.fetch_add(1, Ordering::Relaxed)) {
        (0, 0) => Err(ShardError { in_doubt: true, ..failing(Elsewhere::NotHosted) }),
        (0, _) => Err(failing(Elsewhere::NotHosted)),
        _ => Err(ShardError::new(ErrorKind::Overloaded, "planted")),
    })
    .await;
    let before = rig.collection();
    split(&rig).await;
    let write = Write { request_id: 9, change: Change::Delete(ids()), wait: Wait::Committed, deadline: rig.deadline() };
    let error = rig.coordinator.write(&before, write).await.expect_err("refused");
    assert!(error.is_in_doubt() && error.kind() == ErrorKind::Unavailable, "{error}");
    assert!(matches!(&error, Error::Shard { error, .. } if error.message == "planted"), "{error:?}");
}

#[test]
fn a_half_that_answers_with_what_came_of_the_whole_is_told_only_of_its_own() {
    let failure = |index, id| {
        let problem = Problem { kind: ErrorKind::NotFound, message: String::new(), violations: Vec::new() };
        ItemFailure { index, id: PointId::Num(id), problem }
    };
    // Of the request for the points 1 to 6, of which this half has 2, 4 and 6.
    let half = Change::Delete([2, 4, 6].map(PointId::Num).to_vec());
    let mut written =
        WriteResult { applied: 4, failures: vec![failure(0, 1), failure(3, 4)], ..WriteResult::default() };
    only_of(&half, &mut written);
    assert_eq!(written.failures, [failure(1, 4)]);
    let all = WriteResult { applied: 4, failures: vec![failure(3, 4)], ..WriteResult::default() };
    let mut whole = all.clone();
    only_of(&Change::DeleteByFilter(Filter::default()), &mut whole);
    assert_eq!(whole, all);
}

#[tokio::test]
async fn a_split_is_begun_once_for_each_placement_that_whoever_asks_has_seen() {
    let rig = Rig::start(NODES, 1, 3, answer).await;
    let ask = |epoch, dry_run| rig.coordinator.split_shard(LEFT, epoch, dry_run, rig.deadline());
    let error = ask(1, false).await.expect_err("nobody leads it");
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("it has no leader"), "{error}");
    rig.leads(1, 3);
    let (none, notes) = ask(1, true).await.expect("it could be");
    assert!(none.is_none() && notes[0].contains("the new shard has those from 8000000000000000 on"), "{notes:?}");
    assert_eq!(rig.coordinator.operation_infos(None, 10).0, [], "nothing was begun");
    let (begun, _) = ask(1, false).await.expect("begun");
    let begun = begun.expect("an operation");
    let work = |step| Work::Split { right: RIGHT, at: MIDDLE, step };
    assert_eq!((begun.id, begun.shard, begun.work, begun.cancelled), (1, LEFT, work(SplitStep::Prepare), false));
    assert_eq!(begun.waits_for, "the step divide, which is being agreed on");
    let advance = async |id, steps: &[SplitStep]| {
        for pair in steps.windows(2) {
            let (from, to, at) = (pair[0], pair[1], Floor { term: 3, index: 70 });
            rig.decide(Command::AdvanceSplit { id, from, to, at, unix_micros: 2 }).await;
        }
    };
    advance(1, &[SplitStep::Prepare, SplitStep::Divide]).await;
    let known = rig.coordinator.operation_info(1).expect("known");
    assert_eq!(known.waits_for, "the leader of the shard's group to split it");
    let refused = rig.coordinator.cancel_operation(1, false, rig.deadline()).await.expect_err("it may have come about");
    assert!(refused.to_string().contains("wait until it is done"), "{refused}");
    advance(1, &[SplitStep::Divide, SplitStep::Found, SplitStep::Done]).await;
    assert_eq!(rig.shards(), [LEFT, RIGHT]);
    // The answer was lost, and comes again: else the half would be halved.
    let (again, _) = ask(1, false).await.expect("it was done");
    assert_eq!(again.map(|again| (again.id, again.work)), Some((1, work(SplitStep::Done))));
    let (next, _) = ask(2, false).await.expect("begun");
    assert_eq!(next.map(|next| next.id), Some(2));
    let stale = ask(3, false).await.expect_err("nobody can have seen that");
    assert_eq!(stale.kind(), ErrorKind::Conflict, "{stale}");
    let cancelled = rig.coordinator.cancel_operation(2, true, rig.deadline()).await.expect("it could be");
    assert!(!cancelled.cancelled && !cancelled.work.has_ended());
    let cancelled = rig.coordinator.cancel_operation(2, false, rig.deadline()).await.expect("it has just begun");
    assert!(cancelled.cancelled && cancelled.work.has_ended() && cancelled.waits_for.is_empty(), "{cancelled:?}");
    let ids = |after, limit| {
        let (page, more) = rig.coordinator.operation_infos(after, limit);
        (page.iter().map(|one| one.id).collect::<Vec<_>>(), more)
    };
    assert_eq!((ids(None, 1), ids(Some(1), 1), ids(None, 2)), ((vec![1], true), (vec![2], false), (vec![1, 2], false)));
}
