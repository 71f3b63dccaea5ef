//! How a coordinator reaches shards: a direct call in one process, gRPC between processes, a twin in simulation.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagitta_env::Deadline;
use sagitta_model::{
    Change, CollectionStatistics, ErrorKind, Filter, PointId, Record, SearchQuery, SearchResult, Selection, Wait,
    WriteResult,
};

/// A shard, and the version of its placement that the caller goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardRef {
    /// The shard.
    pub shard: u64,
    /// The epoch of its placement.
    pub epoch: u64,
}

/// What a read must see, and until when it is wanted.
#[derive(Clone, Debug)]
pub struct Read {
    /// How fresh it must be.
    pub tokens: Tokens,
    /// When the caller stops waiting.
    pub deadline: Deadline,
}

/// What a read must see at the least.
#[derive(Clone, Debug, Default)]
pub enum Tokens {
    /// Anything.
    #[default]
    Any,
    /// In each of these shards, everything up to this index of its log.
    AtLeast(Arc<[(u64, u64)]>),
    /// Everything acknowledged before the read began.
    Latest,
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

/// Figures of one shard.
pub type ShardStatistics = CollectionStatistics;

/// Why a shard did not answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ShardError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
    /// The request id was used for another request.
    pub request_id_reused: bool,
    /// When to come back, for a kind that may be retried.
    pub retry_after: Option<Duration>,
    /// Set when nothing was done here, and another node may do it.
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
    /// Only the leader can do this.
    NotLeader {
        /// Who leads, as far as the node knows.
        hint: Option<u64>,
    },
    /// The node could not be reached, and has seen nothing of the call.
    Unreachable,
}

impl ShardError {
    /// An error of a kind that says what happened.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), request_id_reused: false, retry_after: None, elsewhere: None }
    }
}

/// The nodes that host replicas, wherever they are. A future that is dropped stops the work it stands for.
pub trait NodeClient: Send + Sync + 'static {
    /// Applies a change, at most once per request id. `applied` counts points; failures carry positions in the change.
    fn write(
        &self,
        node: u64,
        shard: ShardRef,
        request_id: u128,
        change: Arc<Change>,
        wait: Wait,
        deadline: Deadline,
    ) -> impl Future<Output = Result<WriteResult, ShardError>> + Send;

    /// Runs each query in each of the shards: for every shard one result per query, hydrated as selected, all as of one moment of
    /// the shard. One call, so that a query costs a node one hand-off however many shards it holds.
    fn search(
        &self,
        node: u64,
        shards: &[ShardRef],
        queries: Arc<[(SearchQuery, Selection)]>,
        explain: bool,
        read: Read,
    ) -> impl Future<Output = Vec<(u64, Result<Vec<SearchResult>, ShardError>)>> + Send;

    /// The points of these ids that exist, in the order of the ids.
    fn get(
        &self,
        node: u64,
        shard: ShardRef,
        ids: Vec<PointId>,
        selection: Selection,
        read: Read,
    ) -> impl Future<Output = Result<Vec<Record>, ShardError>> + Send;

    /// How many points pass the filter.
    fn count(
        &self,
        node: u64,
        shard: ShardRef,
        filter: Option<Arc<Filter>>,
        read: Read,
    ) -> impl Future<Output = Result<u64, ShardError>> + Send;

    /// The first `limit` points after an id that pass the filter, ascending by id; fewer when these fill a page by their
    /// weight ([`Record::fill_a_page`]).
    fn scroll(
        &self,
        node: u64,
        shard: ShardRef,
        page: Page,
        read: Read,
    ) -> impl Future<Output = Result<Vec<Record>, ShardError>> + Send;

    /// Figures of a replica.
    fn statistics(
        &self,
        node: u64,
        shard: ShardRef,
    ) -> impl Future<Output = Result<ShardStatistics, ShardError>> + Send;

    /// Has the leader of the control group agree on a command: see [`crate::Control::propose`].
    fn propose(
        &self,
        node: u64,
        command: Bytes,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Bytes, ShardError>> + Send;

    /// Asks the leader of the control group: see [`crate::Control::read_index`].
    fn read_index(&self, node: u64, deadline: Deadline) -> impl Future<Output = Result<u64, ShardError>> + Send;

    /// Has another voter lead the shard's group.
    fn hand_over(
        &self,
        node: u64,
        shard: ShardRef,
        to: u64,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), ShardError>> + Send;
}

/// One page of a scroll.
#[derive(Clone, Debug)]
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
