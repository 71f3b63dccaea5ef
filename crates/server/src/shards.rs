//! The shards of this process, for the coordinator: a direct call instead of gRPC.

use std::sync::Arc;

use sagitta_coordinator::{Read, ShardClient, ShardError, ShardSpec, ShardStatistics, Tokens};
use sagitta_env::Deadline;
use sagitta_model::{Change, Filter, PointId, Record, SearchQuery, SearchResult, Selection, Wait, WriteResult};
use sagitta_node::{Freshness, Node, NodeError, Replica};

/// The replicas of a node in the same process.
pub(crate) struct LocalShards(Arc<Node>);

impl LocalShards {
    /// Asks this node.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self(node)
    }

    fn replica(&self, shard: u64) -> Result<Arc<Replica>, ShardError> {
        self.0.replica(shard).map_err(shard_error)
    }
}

fn shard_error(error: NodeError) -> ShardError {
    let mut mapped = ShardError::new(error.kind(), error.to_string());
    mapped.retry_after = error.retry_after();
    mapped.request_id_reused = error.is_request_id_reused();
    mapped
}

fn freshness(tokens: &Tokens, shard: u64) -> Freshness {
    match tokens {
        Tokens::Any => Freshness::Any,
        Tokens::AtLeast(places) => {
            let newest = places.iter().filter(|(of, _)| *of == shard).map(|(_, index)| *index).max();
            newest.map_or(Freshness::Any, Freshness::AtLeast)
        }
        Tokens::Latest => Freshness::Latest,
    }
}

impl ShardClient for LocalShards {
    async fn room(&self) -> Result<(), ShardError> {
        self.0.room().map_err(shard_error)
    }

    async fn ensure(&self, spec: ShardSpec) -> Result<(), ShardError> {
        let ShardSpec { shard, collection, schema } = spec;
        let spec = sagitta_shard::ShardSpec { collection, shard, schema: (*schema).clone() };
        self.0.ensure(spec).await.map_err(shard_error)
    }

    async fn remove(&self, shard: u64) -> Result<(), ShardError> {
        self.0.remove(shard).await.map_err(shard_error)
    }

    async fn hosted(&self) -> Result<Vec<u64>, ShardError> {
        self.0.hosted().map_err(shard_error)
    }

    async fn write(
        &self,
        shard: u64,
        request_id: u128,
        change: Change,
        wait: Wait,
        deadline: Deadline,
    ) -> Result<WriteResult, ShardError> {
        self.replica(shard)?.write(request_id, change, wait, deadline).await.map_err(shard_error)
    }

    async fn search(
        &self,
        shards: &[u64],
        queries: Arc<[(SearchQuery, Selection)]>,
        explain: bool,
        read: Read,
    ) -> Vec<(u64, Result<Vec<SearchResult>, ShardError>)> {
        let mut answers = Vec::with_capacity(shards.len());
        for &shard in shards {
            let answer = match self.replica(shard) {
                Ok(replica) => {
                    let found =
                        replica.search(queries.clone(), explain, freshness(&read.tokens, shard), read.deadline).await;
                    found.map_err(shard_error)
                }
                Err(error) => Err(error),
            };
            answers.push((shard, answer));
        }
        answers
    }

    async fn get(
        &self,
        shard: u64,
        ids: Vec<PointId>,
        selection: Selection,
        read: Read,
    ) -> Result<Vec<Record>, ShardError> {
        let replica = self.replica(shard)?;
        replica.get(ids, selection, freshness(&read.tokens, shard), read.deadline).await.map_err(shard_error)
    }

    async fn count(&self, shard: u64, filter: Option<Arc<Filter>>, read: Read) -> Result<u64, ShardError> {
        let replica = self.replica(shard)?;
        replica.count(filter, freshness(&read.tokens, shard), read.deadline).await.map_err(shard_error)
    }

    async fn scroll(
        &self,
        shard: u64,
        after: Option<PointId>,
        filter: Option<Arc<Filter>>,
        limit: usize,
        selection: Selection,
        read: Read,
    ) -> Result<Vec<Record>, ShardError> {
        let replica = self.replica(shard)?;
        let fresh = freshness(&read.tokens, shard);
        replica.scroll(after, filter, limit, selection, fresh, read.deadline).await.map_err(shard_error)
    }

    async fn statistics(&self, shard: u64) -> Result<ShardStatistics, ShardError> {
        Ok(self.replica(shard)?.statistics())
    }
}
