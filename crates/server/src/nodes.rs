//! Every node, for the coordinator of this process: its own by a direct call, the others over the network.

use std::sync::Arc;

use bytes::Bytes;
use sagitta_coordinator::{NodeClient, Page, Read, ShardError, ShardRef, ShardStatistics};
use sagitta_env::Deadline;
use sagitta_model::{Change, Filter, PointId, Record, SearchQuery, SearchResult, Selection, Wait, WriteResult};

/// The nodes of a cluster as this one reaches them.
pub(crate) struct Nodes<O, R> {
    me: u64,
    own: Arc<O>,
    remote: R,
}

impl<O, R> Nodes<O, R> {
    /// `own` is asked as the node `me`, `remote` as any other.
    pub(crate) fn new(me: u64, own: Arc<O>, remote: R) -> Self {
        Self { me, own, remote }
    }
}

/// The same call to the one or the other.
macro_rules! at {
    ($self:ident, $node:ident, $call:ident($($argument:expr),*)) => {
        if $node == $self.me {
            $self.own.$call($node, $($argument),*).await
        } else {
            $self.remote.$call($node, $($argument),*).await
        }
    };
}

impl<O: NodeClient, R: NodeClient> NodeClient for Nodes<O, R> {
    async fn write(
        &self,
        node: u64,
        shard: ShardRef,
        request_id: u128,
        change: Arc<Change>,
        wait: Wait,
        deadline: Deadline,
    ) -> Result<WriteResult, ShardError> {
        at!(self, node, write(shard, request_id, change, wait, deadline))
    }

    async fn search(
        &self,
        node: u64,
        shards: &[ShardRef],
        queries: Arc<[(SearchQuery, Selection)]>,
        explain: bool,
        read: Read,
    ) -> Vec<(u64, Result<Vec<SearchResult>, ShardError>)> {
        at!(self, node, search(shards, queries, explain, read))
    }

    async fn get(
        &self,
        node: u64,
        shard: ShardRef,
        ids: Vec<PointId>,
        selection: Selection,
        read: Read,
    ) -> Result<Vec<Record>, ShardError> {
        at!(self, node, get(shard, ids, selection, read))
    }

    async fn count(
        &self,
        node: u64,
        shard: ShardRef,
        filter: Option<Arc<Filter>>,
        read: Read,
    ) -> Result<u64, ShardError> {
        at!(self, node, count(shard, filter, read))
    }

    async fn scroll(&self, node: u64, shard: ShardRef, page: Page, read: Read) -> Result<Vec<Record>, ShardError> {
        at!(self, node, scroll(shard, page, read))
    }

    async fn statistics(&self, node: u64, shard: ShardRef) -> Result<ShardStatistics, ShardError> {
        at!(self, node, statistics(shard))
    }

    async fn propose(&self, node: u64, command: Bytes, deadline: Deadline) -> Result<Bytes, ShardError> {
        at!(self, node, propose(command, deadline))
    }

    async fn read_index(&self, node: u64, deadline: Deadline) -> Result<u64, ShardError> {
        at!(self, node, read_index(deadline))
    }

    async fn hand_over(&self, node: u64, shard: ShardRef, to: u64, deadline: Deadline) -> Result<(), ShardError> {
        at!(self, node, hand_over(shard, to, deadline))
    }

    async fn pull(&self, node: u64, shard: ShardRef, question: Bytes, deadline: Deadline) -> Result<Bytes, ShardError> {
        at!(self, node, pull(shard, question, deadline))
    }
}
