//! What is said to a replica of a shard, and what it says when it does not answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{ErrorKind, Filter, PointId, Selection};

/// A shard, and the version of its placement that the caller goes by, and which points it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardRef {
    /// The shard.
    pub shard: u64,
    /// The epoch of its placement.
    pub epoch: u64,
    /// The entry of its log that split it last: it has its points as of that. 0 if there was none.
    pub split: u64,
}

/// What a read must see at the least.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tokens {
    /// Anything.
    #[default]
    Any,
    /// In each of these shards, everything up to this index of its log.
    AtLeast(Arc<[(u64, u64)]>),
    /// Everything acknowledged before the read began.
    Latest,
}

/// One page of a scroll.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The points after this one; from the start if `None`.
    pub after: Option<PointId>,
    /// At most so many.
    pub limit: usize,
    /// Those that this filter passes.
    pub filter: Option<Arc<Filter>>,
    /// These parts of them.
    pub selection: Selection,
}

/// Why a shard did not answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
    /// The request id was used for another request.
    pub request_id_reused: bool,
    /// When to come back, for a kind that may be retried.
    pub retry_after: Option<Duration>,
    /// Of a change: it may have been made all the same, or a part of it.
    pub in_doubt: bool,
    /// Set when this node cannot do it, and another one may.
    pub elsewhere: Option<Elsewhere>,
}

/// Why another node should be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// The node hosts no replica of the shard, or does not serve it yet.
    NotHosted,
    /// The shard has been placed anew since.
    Stale {
        /// The epoch that the node knows.
        epoch: u64,
    },
    /// The replica has its points as of another split than the caller goes by. That passes: a replica comes to the split, and the caller
    /// learns of the new route as soon as all of it is there.
    Divided,
    /// Only the leader can do this.
    NotLeader {
        /// Who leads, as far as the node knows.
        hint: Option<u64>,
    },
    /// The node could not be reached, and has seen nothing of the call.
    Unreachable,
}

impl Tokens {
    /// Up to where a shard must have applied its log, if that was asked for.
    pub fn index_of(&self, shard: u64) -> Option<u64> {
        match self {
            Self::AtLeast(places) => places.iter().filter(|(of, _)| *of == shard).map(|(_, index)| *index).max(),
            Self::Any | Self::Latest => None,
        }
    }
}

impl ShardError {
    /// An error of a kind that says what happened.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            request_id_reused: false,
            retry_after: None,
            in_doubt: false,
            elsewhere: None,
        }
    }

    /// Whether it is about the request itself, so that every replica would say the same. Everything else is about the replica
    /// or the moment: it is busy, damaged, too late.
    pub fn is_of_the_request(&self) -> bool {
        let of_the_request =
            matches!(self.kind, ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Denied);
        of_the_request && self.elsewhere.is_none()
    }
}

impl fmt::Display for ShardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ShardError {}
