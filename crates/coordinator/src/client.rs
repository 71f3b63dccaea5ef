//! How a coordinator reaches shards: a direct call in one process, gRPC between processes, a twin in simulation.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use sagitta_env::Deadline;
use sagitta_model::{
    Change, CollectionStatistics, Filter, PointId, Record, SearchQuery, SearchResult, Selection, Wait, WriteResult,
};

pub use sagitta_model::{Elsewhere, Page, ShardError, ShardRef, Tokens};

/// What a read must see, and until when it is wanted.
#[derive(Clone, Debug)]
pub struct Read {
    /// How fresh it must be.
    pub tokens: Tokens,
    /// When the caller stops waiting.
    pub deadline: Deadline,
}

/// Figures of one shard.
pub type ShardStatistics = CollectionStatistics;

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

    /// Asks the leader of a shard that is merged what it has, for whoever fills the new one; in the words of shards.
    fn pull(
        &self,
        node: u64,
        shard: ShardRef,
        question: Bytes,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Bytes, ShardError>> + Send;
}
