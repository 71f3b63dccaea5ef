//! Errors of the coordinator as callers see them.

use sagitta_cluster::Refusal;
use sagitta_coordinator::Error;
use sagitta_model::{CollectionName, ErrorKind, Violation};
use sagitta_wire::{Failure, RequestId, reason};

/// What a caller is told of an error, with the thing in question named.
pub(crate) fn failure(error: Error, collection: Option<&CollectionName>) -> Failure {
    let failure = match &error {
        Error::Refused(Refusal::NotFound(name)) => Failure::no_collection(name),
        Error::Refused(Refusal::AlreadyExists(name)) => Failure::collection_exists(name),
        Error::Refused(Refusal::RequestIdReused(id)) => Failure::request_id_reused(RequestId(*id)),
        Error::Refused(refusal) if refusal.kind() == ErrorKind::Invalid => {
            let field = refusal.field().unwrap_or_default();
            let field = if collection.is_some() { format!("collection.{field}") } else { field.to_owned() };
            let reason = match refusal {
                Refusal::Invalid { reason, .. } => reason.clone(),
                other => other.to_string(),
            };
            Failure::invalid(Violation::new(field, reason))
        }
        Error::DeadlineExceeded => {
            Failure::new(ErrorKind::Unavailable, error.to_string()).with_reason(reason::DEADLINE_EXCEEDED)
        }
        Error::Shard { error: shard, .. } if shard.request_id_reused => {
            let failure = Failure::new(ErrorKind::Conflict, shard.message.clone());
            failure.with_reason(reason::REQUEST_ID_REUSED).with_resource("request", "")
        }
        Error::Refused(refusal) if refusal.lasts() => Failure::new(error.kind(), error.to_string()).lasting(),
        // What is only noticed in a shard concerns the request as a whole.
        _ if error.kind() == ErrorKind::Invalid => Failure::invalid(Violation::new("", error.to_string())),
        _ => Failure::new(error.kind(), error.to_string()),
    };
    if matches!(failure.kind, ErrorKind::Internal | ErrorKind::Corrupt) {
        tracing::error!(%error, collection = collection.map(CollectionName::as_str), "a call failed");
    }
    match error.retry_after() {
        Some(delay) => failure.with_retry_after(delay),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_refused_is_not_worth_asking_again_and_what_something_came_between_is() {
        let is_retryable = |refusal: Refusal| {
            assert_eq!(refusal.kind(), ErrorKind::Conflict);
            failure(Error::Refused(refusal), None).is_retryable()
        };
        assert!(!is_retryable(Refusal::HasMajority { shard: 16, nodes: vec![4, 5, 6] }));
        assert!(!is_retryable(Refusal::Wanted { node: 4, shard: 16, shards: 1 }));
        assert!(is_retryable(Refusal::Busy { shard: 16, operation: 1 }));
        assert!(is_retryable(Refusal::Stale { shard: 16, epoch: 3, expected: 2 }));
    }
}
