//! How a coordinator reaches shards: a direct call in one process, gRPC between processes, a twin in simulation.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sagitta_env::Deadline;
use sagitta_model::{
    Change, CollectionStatistics, ErrorKind, Filter, PointId, Record, Schema, SearchQuery, SearchResult, Selection,
    Wait, WriteResult,
};

/// What a shard is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardSpec {
    /// The shard.
    pub shard: u64,
    /// Identity of its collection.
    pub collection: u128,
    /// Vectors and declared fields.
    pub schema: Arc<Schema>,
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
}

impl ShardError {
    /// An error of a kind that says what happened.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), request_id_reused: false, retry_after: None }
    }
}

/// Shards, wherever they are. A future that is dropped stops the work it stands for.
pub trait ShardClient: Send + Sync + 'static {
    /// Whether there is room for another shard.
    fn room(&self) -> impl Future<Output = Result<(), ShardError>> + Send;

    /// Hosts a shard; one that is hosted already stays as it is.
    fn ensure(&self, spec: ShardSpec) -> impl Future<Output = Result<(), ShardError>> + Send;

    /// Removes a shard and its data; one that is not there is fine.
    fn remove(&self, shard: u64) -> impl Future<Output = Result<(), ShardError>> + Send;

    /// The shards that are hosted.
    fn hosted(&self) -> impl Future<Output = Result<Vec<u64>, ShardError>> + Send;

    /// Applies a change, at most once per request id. `affected` counts points; failures carry positions in the change.
    fn write(
        &self,
        shard: u64,
        request_id: u128,
        change: Change,
        wait: Wait,
        deadline: Deadline,
    ) -> impl Future<Output = Result<WriteResult, ShardError>> + Send;

    /// Runs each query in each of the shards: for every shard one result per query, hydrated as selected, all as of one moment of the shard.
    /// One call per node, so that a query costs a node one hand-off however many shards it holds.
    fn search(
        &self,
        shards: &[u64],
        queries: Arc<[(SearchQuery, Selection)]>,
        explain: bool,
        read: Read,
    ) -> impl Future<Output = Vec<(u64, Result<Vec<SearchResult>, ShardError>)>> + Send;

    /// The points of these ids that exist, in the order of the ids.
    fn get(
        &self,
        shard: u64,
        ids: Vec<PointId>,
        selection: Selection,
        read: Read,
    ) -> impl Future<Output = Result<Vec<Record>, ShardError>> + Send;

    /// How many points pass the filter.
    fn count(
        &self,
        shard: u64,
        filter: Option<Arc<Filter>>,
        read: Read,
    ) -> impl Future<Output = Result<u64, ShardError>> + Send;

    /// The first `limit` points after an id that pass the filter, ascending by id; fewer when these fill a page by their
    /// weight ([`Record::fill_a_page`]).
    fn scroll(
        &self,
        shard: u64,
        after: Option<PointId>,
        filter: Option<Arc<Filter>>,
        limit: usize,
        selection: Selection,
        read: Read,
    ) -> impl Future<Output = Result<Vec<Record>, ShardError>> + Send;

    /// Figures of a shard.
    fn statistics(&self, shard: u64) -> impl Future<Output = Result<ShardStatistics, ShardError>> + Send;
}
