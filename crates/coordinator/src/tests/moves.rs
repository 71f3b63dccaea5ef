//! Replicas that are moved by hand.

use sagitta_cluster::Refusal;
use sagitta_cluster::schedule::ByHand;
use sagitta_model::{ErrorKind, OperationKind, OperationStep, Work};

use super::rig::{Rig, found};
use crate::Error;

#[tokio::test]
async fn a_move_is_begun_once_and_refused_where_it_cannot_be() {
    let rig = Rig::start(4, 1, 3, |call| Ok(found(call.shard))).await;
    let shard = rig.shards()[0];
    let ask = |from, to, dry_run| {
        let asked = ByHand { shard, from, to };
        rig.coordinator.move_replica(asked, dry_run, rig.deadline())
    };
    let error = ask(1, 4, false).await.expect_err("nobody leads it");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("it has no leader that tells who its members are: wait"), "{error}");
    rig.leads(2, 3);
    let error = ask(4, 1, false).await.expect_err("there is nothing to move");
    assert!(matches!(&error, Error::Refused(Refusal::Invalid { field, .. }) if field == "from"), "{error:?}");
    assert_eq!(ask(1, 4, true).await, Ok((None, Vec::new())));
    assert_eq!(rig.coordinator.operation_infos(None, 10).0, [], "nothing was begun");
    let (begun, _) = ask(1, 4, false).await.expect("begun");
    let begun = begun.expect("an operation");
    let work = Work::Replica { kind: OperationKind::Move, from: Some(1), to: 4, step: OperationStep::Join };
    assert_eq!((begun.id, begun.work), (1, work));
    assert_eq!(begun.waits_for, "the shard's leader to take node 4 into its group");
    let (again, _) = ask(1, 4, false).await.expect("it is under way");
    assert_eq!(again.map(|again| again.id), Some(1), "the first answer was lost");
    let error = ask(3, 4, false).await.expect_err("another one is under way");
    assert_eq!(error, Error::Refused(Refusal::Busy { shard, operation: 1 }));
}
