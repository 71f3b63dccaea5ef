//! Changes that may have been made although nobody said so.

use std::sync::atomic::{AtomicUsize, Ordering};

use sagitta_model::ErrorKind;

use super::NODES;
use super::rig::{Rig, found};
use crate::control::{ControlError, Decided};
use crate::{Error, ShardError};

fn in_doubt() -> ShardError {
    ShardError { in_doubt: true, ..ShardError::new(ErrorKind::Unavailable, "the connection broke") }
}

/// What later tries are told, and the kind that the caller must be told.
const LATER: [(ErrorKind, ErrorKind); 4] = [
    (ErrorKind::Overloaded, ErrorKind::Unavailable),
    (ErrorKind::Internal, ErrorKind::Unavailable),
    // These tell of the first try, too: it would have been refused alike, or have taken the request id.
    (ErrorKind::Invalid, ErrorKind::Invalid),
    (ErrorKind::Conflict, ErrorKind::Conflict),
];

#[tokio::test]
async fn a_write_that_may_have_been_applied_is_in_doubt_whoever_refuses_its_next_try() {
    for (later, expected) in LATER {
        let tries = AtomicUsize::new(0);
        let rig = Rig::start(NODES, 1, 3, move |_| match tries.fetch_add(1, Ordering::Relaxed) {
            0 => Err(in_doubt()),
            _ => Err(ShardError::new(later, "planted")),
        })
        .await;
        let error = rig.write(1).await.expect_err("refused");
        assert_eq!(error.kind(), expected, "{later:?}: {error}");
        let told = error.to_string();
        assert_eq!(told.contains("may or may not have been applied"), expected == ErrorKind::Unavailable, "{told}");
        assert!(told.contains("planted"), "{told}");
    }
}

#[tokio::test]
async fn a_write_that_was_refused_is_not_in_doubt() {
    let rig = Rig::start(NODES, 1, 3, |_| Err(ShardError::new(ErrorKind::Overloaded, "planted"))).await;
    let error = rig.write(1).await.expect_err("refused");
    assert_eq!((error.kind(), error.to_string().contains("may not")), (ErrorKind::Overloaded, false), "{error}");
}

#[tokio::test]
async fn a_write_that_may_have_been_applied_is_in_doubt_though_its_collection_is_gone() {
    let rig = Rig::start(NODES, 1, 3, |_| Err(in_doubt())).await;
    let collection = rig.collection();
    let deleted = async {
        while rig.request_ids().is_empty() {
            tokio::task::yield_now().await;
        }
        rig.coordinator.delete_collection(5, collection.name.clone(), false, rig.deadline()).await
    };
    let (written, deleted) = tokio::join!(rig.write(1), deleted);
    deleted.expect("deleted");
    let error = written.expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn of_several_parts_one_in_doubt_is_told_rather_than_one_that_was_refused() {
    let lowest = AtomicUsize::new(0);
    let rig = Rig::start(NODES, 2, 1, move |call| {
        // The part that is asked for first is refused, the other one is in doubt.
        let shard = call.shard as usize;
        match lowest.compare_exchange(0, shard, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Err(ShardError::new(ErrorKind::Overloaded, "planted")),
            Err(first) if first == shard => Err(ShardError::new(ErrorKind::Overloaded, "planted")),
            Err(_) => Err(in_doubt()),
        }
    })
    .await;
    let error = rig.write_everywhere(1).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_decision_that_may_have_been_taken_is_in_doubt_whoever_refuses_its_next_try() {
    let rig = Rig::start(NODES, 1, 1, |call| Ok(found(call.shard))).await;
    for (later, _) in LATER {
        let tries = AtomicUsize::new(0);
        let here = || async {
            match tries.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(Decided::NotLeader(Some(1))),
                _ => Err(ControlError::new(later, "planted")),
            }
        };
        let asked = rig.coordinator.ask_leader::<(), _, _>(here, |_| async { Err(in_doubt()) }).await;
        let Err(error @ Error::Control(_)) = asked else { panic!("{asked:?}") };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{later:?}: {error}");
    }
}
