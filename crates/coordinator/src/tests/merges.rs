//! Calls that go by a route from before a merge.

use std::sync::Arc;

use sagitta_cluster::{Collection, Command, Floor, MergeStep};
use sagitta_model::{
    Change, Consistency, ErrorKind, Filter, PayloadChange, Point, PointId, Selection, Target, VersionToken, Wait,
    shard_hash,
};

use super::NODES;
use super::rig::{Call, Rig, failing, found, query};
use crate::{Elsewhere, Page, ShardError, Write};

const LEFT: u64 = 16;
const RIGHT: u64 = 17;
const INTO: u64 = 18;

/// A cluster whose two shards were merged, and the collection as it was before. The nodes of the old ones have removed them.
async fn after_a_merge() -> (Rig, Arc<Collection>) {
    let rig = Rig::start(NODES, 2, 3, answer).await;
    let before = rig.collection();
    merge(&rig).await;
    (rig, before)
}

fn answer(call: &Call) -> Result<sagitta_model::SearchResult, ShardError> {
    if call.shard == INTO { Ok(found(INTO)) } else { Err(failing(Elsewhere::NotHosted)) }
}

/// A left shard that takes writes until it is removed, beside a right one that is frozen.
fn frozen_on_the_right(call: &Call) -> Result<sagitta_model::SearchResult, ShardError> {
    if call.shard == RIGHT { Err(failing(Elsewhere::Divided)) } else { Ok(found(call.shard)) }
}

async fn merge(rig: &Rig) {
    merge_up_to(rig, MergeStep::Done).await;
    assert_eq!(rig.shards(), [INTO]);
}

async fn merge_up_to(rig: &Rig, last: MergeStep) {
    let (floor, reason) = (Floor { term: 1, index: 5_000 }, String::new());
    let (left, right, left_epoch, right_epoch, unix_micros, unasked) = (LEFT, RIGHT, 1, 1, 1, false);
    rig.decide(Command::BeginMerge { left, left_epoch, right, right_epoch, floor, reason, unix_micros, unasked }).await;
    let steps = [MergeStep::Prepare, MergeStep::Copy, MergeStep::Freeze, MergeStep::Done];
    let count = steps.iter().position(|step| *step == last).expect("a step") + 1;
    advance(rig, &steps[..count]).await;
}

async fn advance(rig: &Rig, steps: &[MergeStep]) {
    for pair in steps.windows(2) {
        rig.decide(Command::AdvanceMerge { id: 1, from: pair[0], to: pair[1], unix_micros: 2 }).await;
    }
}

fn ids() -> Vec<PointId> {
    (0..20).map(PointId::Num).collect()
}

fn changes() -> [Change; 4] {
    let points = ids().into_iter().map(|id| Point { id, vectors: Default::default(), payload: Default::default() });
    let target = Target::Ids(ids());
    [
        Change::Upsert(points.collect()),
        Change::Delete(ids()),
        Change::UpdatePayload { target, change: PayloadChange::Merge(Default::default()) },
        Change::DeleteByFilter(Filter::default()),
    ]
}

fn write(rig: &Rig, change: Change) -> Write {
    Write { request_id: 9, change, wait: Wait::Committed, deadline: rig.deadline() }
}

/// The new shard remembers a request as one: two parts of it would look like two requests of the same id.
#[tokio::test]
async fn a_write_in_parts_comes_whole_to_the_shard_that_they_became_one_of() {
    for change in changes() {
        let (rig, before) = after_a_merge().await;
        let written = rig.coordinator.write(&before, write(&rig, change.clone())).await.expect("written");
        assert_eq!(written.tokens, [VersionToken { shard: INTO, index: 1_000 }]);
        let asked: Vec<_> = rig.changes().into_iter().filter(|(shard, _)| *shard == INTO).collect();
        let [(_, whole)] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(**whole, change, "in the order of the request");
        assert!(rig.request_ids().iter().all(|id| *id == 9));
    }
}

#[tokio::test]
async fn a_write_that_one_shard_took_before_the_other_was_frozen_waits_and_comes_whole() {
    for change in changes() {
        let rig = Rig::start(NODES, 2, 3, frozen_on_the_right).await;
        let before = rig.collection();
        merge_up_to(&rig, MergeStep::Freeze).await;
        let written = rig.coordinator.write(&before, write(&rig, change.clone()));
        let merged = async {
            rig.settle().await;
            advance(&rig, &[MergeStep::Freeze, MergeStep::Done]).await;
        };
        let (written, ()) = tokio::join!(written, merged);
        assert_eq!(written.expect("written").tokens, [VersionToken { shard: INTO, index: 1_000 }]);
        let asked = rig.changes();
        assert!(asked.iter().any(|(shard, _)| *shard == LEFT), "{asked:?}");
        let (_, last) = asked.last().expect("it was asked");
        assert_eq!(**last, change);
    }
}

#[tokio::test]
async fn reads_by_the_old_route_are_answered_by_the_new_shard_alone() {
    let (rig, before) = after_a_merge().await;
    for consistency in [Consistency::Eventual, Consistency::Strong] {
        let mut search = query(10);
        (search.consistency, search.deadline) = (consistency.clone(), rig.deadline());
        let (results, coverage) = rig.coordinator.search(&before, search).await.expect("found");
        let hits: Vec<_> = results[0].hits.iter().map(|hit| hit.id).collect();
        assert_eq!((hits, coverage.shards), (vec![PointId::Num(INTO)], 1), "{consistency:?}");
        let counted = rig.coordinator.count(&before, None, &consistency, rig.deadline()).await;
        assert_eq!(counted.expect("counted"), 1, "{consistency:?}");
        let got = rig.coordinator.get(&before, ids(), Selection::default(), &consistency, rig.deadline()).await;
        let got: Vec<_> = got.expect("read").iter().map(|record| record.id).collect();
        assert_eq!(got, ids(), "{consistency:?}");
        let page = Page { after: None, limit: 5, filter: None, selection: Selection::default() };
        let scrolled = rig.coordinator.scroll(&before, page, &consistency, rig.deadline()).await;
        assert_eq!(scrolled.expect("read").len(), 1, "{consistency:?}");
    }
}

#[tokio::test]
async fn a_session_that_wrote_to_the_new_shard_is_answered_by_it_whichever_coordinator_is_asked() {
    // Replicas that have not come to the entry that froze them answer with what they have.
    for known in [None, Some(MergeStep::Freeze)] {
        let rig = Rig::start(NODES, 2, 3, |call: &Call| Ok(found(call.shard))).await;
        let before = rig.collection();
        let (other, learn) = match known {
            None => {
                let behind = rig.behind();
                merge(&rig).await;
                behind
            }
            Some(step) => {
                merge_up_to(&rig, step).await;
                let behind = rig.behind();
                advance(&rig, &[step, MergeStep::Done]).await;
                behind
            }
        };
        rig.settle().await;
        let session = Consistency::Session(vec![VersionToken { shard: INTO, index: 6_000 }]);
        let read = async { other.count(&before, None, &session, rig.deadline()).await.expect("counted") };
        let (counted, ()) = tokio::join!(read, async { learn() });
        assert_eq!((counted, rig.asked()), (1, vec![(INTO, 0)]), "{known:?}");
        // What the old shards promised the new one has.
        let old = [LEFT, RIGHT].map(|shard| VersionToken { shard, index: 900 });
        let now = rig.collection();
        let counted = rig.coordinator.count(&now, None, &Consistency::Session(old.to_vec()), rig.deadline()).await;
        assert_eq!((counted.expect("counted"), rig.asked()), (1, vec![(INTO, 0)]), "{known:?}");
    }
}

#[tokio::test]
async fn a_collection_that_is_deleted_is_not_taken_for_one_whose_shards_were_merged() {
    let rig = Rig::start(NODES, 2, 3, answer).await;
    let before = rig.collection();
    let name = before.name.clone();
    rig.decide(Command::DeleteCollection { request_id: 7, name, keep_name: true }).await;
    let refused = rig.coordinator.write(&before, write(&rig, Change::Delete(ids()))).await.expect_err("it is gone");
    assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
    assert!(ids().iter().any(|id| shard_hash(*id) < 1 << 63), "both shards have a part");
}
