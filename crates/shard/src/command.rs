use std::sync::Arc;

use sagitta_model::{Change, ErrorKind, ItemFailure, PointId, Problem};

/// Points that one command deletes by a filter at most: bounds the size of the atomic batch it becomes.
pub const MAX_DELETED_BY_FILTER: usize = 100_000;
/// Points whose payload one command changes by a filter at most; each is written anew, vectors included.
pub const MAX_UPDATED_BY_FILTER: usize = 10_000;
/// Failures that an outcome lists: it is kept for as long as its request may be repeated.
pub const MAX_LISTED_FAILURES: usize = 256;

/// One committed log entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Position in the log; positions ascend and may have gaps.
    pub index: u64,
    /// Term of the leader that appended it; kept with the position.
    pub term: u64,
    /// A sealed [`Command`]; empty for an entry that only moves the position.
    pub data: &'a [u8],
    /// Who belongs to the group of the shard's replicas from this entry on, if it changes that; kept with the position
    /// and not looked into.
    pub members: Option<&'a [u8]>,
}

/// What a log entry asks a shard to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Chosen by the requester and kept when the request is repeated: a command is applied once per request id.
    pub request_id: u128,
    /// For changes by a filter: only points with greater ids. A change by a filter reaches at most
    /// [`MAX_DELETED_BY_FILTER`] or [`MAX_UPDATED_BY_FILTER`] points; its outcome says where the next
    /// command, with a request id of its own, goes on.
    pub after: Option<PointId>,
    /// The change; shared with whoever may have to send it again.
    pub change: Arc<Change>,
}

/// Splits a shard in two by the hashes of its points' ids: it keeps those below `at`, and a new shard has the others, from this
/// entry on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// As [`Command::request_id`].
    pub request_id: u128,
    /// Lowest hash of the new shard. Neither half is empty of hashes.
    pub at: u64,
    /// Number of the new shard: an identity that is handed out once. Its collection is the same.
    pub right: u64,
}

/// What came of a [`Command`] or [`Split`]. The same on every replica.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteOutcome {
    /// Log index under which the command took effect (of its first occurrence).
    pub index: u64,
    /// Points that were inserted, replaced, changed or deleted.
    pub applied: u64,
    /// Points that could not be written while others were: the first [`MAX_LISTED_FAILURES`], by position in the request.
    pub failures: Vec<ItemFailure>,
    /// All points that could not be written.
    pub failed: u64,
    /// Why nothing of the command was done, if so.
    pub refused: Option<Problem>,
    /// A change by a filter stopped at its bound: points with greater ids may pass the filter, too.
    pub resume_after: Option<PointId>,
    /// The request id was seen before: nothing was done now, and this is what came of it then. Not stored.
    pub deduplicated: bool,
}

impl WriteOutcome {
    /// Whether nothing was done because points belong to another shard: the route is to be looked up again, and the request sent
    /// there, in parts if need be, under the same id. It is not remembered here.
    pub fn is_misrouted(&self) -> bool {
        self.refused.as_ref().is_some_and(|problem| problem.kind == ErrorKind::Unavailable)
    }
}
