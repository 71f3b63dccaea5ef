//! The node of this process, for a coordinator in the same process or at the other end of a connection: a direct call.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use sagitta_cluster::Command;
use sagitta_consensus::{NodeId, Refusal};
use sagitta_coordinator::{
    Control, Decided, Elsewhere, NodeClient, Page, Read, ShardError, ShardRef, ShardStatistics, Tokens,
};
use sagitta_env::Deadline;
use sagitta_model::{
    Change, ErrorKind, Filter, PointId, Record, SearchQuery, SearchResult, Selection, Wait, WriteResult,
};
use sagitta_node::{Freshness, Node, NodeError, Pull, Replica, Sight};
use sagitta_shard::codec::Record as _;

use crate::agent::Placed;

/// The node of this process, and its part of the control group if it has one.
pub(crate) struct OwnNode {
    node: Arc<Node>,
    placed: Placed,
    control: Option<Control>,
}

impl OwnNode {
    pub(crate) fn new(node: Arc<Node>, placed: Placed, control: Option<Control>) -> Self {
        Self { node, placed, control }
    }

    /// The replica of a shard, if it should be here and the caller's route to it is the present one. What is about to be removed
    /// takes nothing any more: a caller that does not know yet would lose it.
    fn replica(&self, asked: ShardRef) -> Result<Arc<Replica>, ShardError> {
        let epoch = self.placed.epoch(asked.shard);
        let epoch = epoch.ok_or_else(|| shard_error(NodeError::NotHosted { shard: asked.shard }))?;
        if epoch > asked.epoch {
            let message = format!("shard {} was placed anew: epoch {epoch}, not {}", asked.shard, asked.epoch);
            let elsewhere = Some(Elsewhere::Stale { epoch });
            return Err(ShardError { elsewhere, ..ShardError::new(ErrorKind::Unavailable, message) });
        }
        self.node.replica(asked.shard).map_err(|error| match self.placed.problem(asked.shard) {
            Some((kind, message)) => {
                ShardError { elsewhere: Some(Elsewhere::NotHosted), ..ShardError::new(kind, message) }
            }
            None => shard_error(error),
        })
    }

    fn control(&self) -> Result<&Control, ShardError> {
        let none = "this node is no coordinator";
        self.control.as_ref().ok_or_else(|| ShardError::new(ErrorKind::Conflict, none))
    }
}

fn shard_error(error: NodeError) -> ShardError {
    let mut mapped = ShardError::new(error.kind(), error.to_string());
    mapped.retry_after = error.retry_after();
    mapped.request_id_reused = error.is_request_id_reused();
    mapped.in_doubt = error.is_in_doubt();
    mapped.elsewhere = match error.cause() {
        NodeError::NotHosted { .. } | NodeError::Refused(Refusal::Absent) => Some(Elsewhere::NotHosted),
        error if error.is_of_other_points() => Some(Elsewhere::Divided),
        NodeError::NotLeader { hint } => Some(Elsewhere::NotLeader { hint: hint.map(|node| node.0) }),
        _ => None,
    };
    mapped
}

fn sight(tokens: &Tokens, shard: ShardRef) -> Sight {
    let freshness = match tokens {
        Tokens::Latest => Freshness::Latest,
        tokens => tokens.index_of(shard.shard).map_or(Freshness::Any, Freshness::AtLeast),
    };
    Sight { freshness, split: shard.split }
}

/// What only the leader of the control group can answer.
fn of_leader<T>(decided: Result<Decided<T>, sagitta_coordinator::ControlError>) -> Result<T, ShardError> {
    match decided {
        Ok(Decided::Done(answer)) => Ok(answer),
        Ok(Decided::NotLeader(hint)) => {
            let error = ShardError::new(ErrorKind::Unavailable, "this coordinator does not lead the control group");
            Err(ShardError { elsewhere: Some(Elsewhere::NotLeader { hint }), ..error })
        }
        Err(error) => {
            Err(ShardError { in_doubt: error.is_in_doubt(), ..ShardError::new(error.kind(), error.to_string()) })
        }
    }
}

impl NodeClient for OwnNode {
    async fn write(
        &self,
        _node: u64,
        shard: ShardRef,
        request_id: u128,
        change: Arc<Change>,
        wait: Wait,
        deadline: Deadline,
    ) -> Result<WriteResult, ShardError> {
        self.replica(shard)?.write_as_of(shard.split, request_id, change, wait, deadline).await.map_err(shard_error)
    }

    async fn search(
        &self,
        _node: u64,
        shards: &[ShardRef],
        queries: Arc<[(SearchQuery, Selection)]>,
        explain: bool,
        read: Read,
    ) -> Vec<(u64, Result<Vec<SearchResult>, ShardError>)> {
        let search = |shard: ShardRef| {
            let (queries, tokens, deadline) = (queries.clone(), &read.tokens, read.deadline);
            async move {
                let found = match self.replica(shard) {
                    Ok(replica) => {
                        let fresh = sight(tokens, shard);
                        replica.search(queries, explain, fresh, deadline).await.map_err(shard_error)
                    }
                    Err(error) => Err(error),
                };
                (shard.shard, found)
            }
        };
        match shards {
            [shard] => vec![search(*shard).await],
            shards => join_all(shards.iter().map(|shard| search(*shard))).await,
        }
    }

    async fn get(
        &self,
        _node: u64,
        shard: ShardRef,
        ids: Vec<PointId>,
        selection: Selection,
        read: Read,
    ) -> Result<Vec<Record>, ShardError> {
        let replica = self.replica(shard)?;
        replica.get(ids, selection, sight(&read.tokens, shard), read.deadline).await.map_err(shard_error)
    }

    async fn count(
        &self,
        _node: u64,
        shard: ShardRef,
        filter: Option<Arc<Filter>>,
        read: Read,
    ) -> Result<u64, ShardError> {
        let replica = self.replica(shard)?;
        replica.count(filter, sight(&read.tokens, shard), read.deadline).await.map_err(shard_error)
    }

    async fn scroll(&self, _node: u64, shard: ShardRef, page: Page, read: Read) -> Result<Vec<Record>, ShardError> {
        let replica = self.replica(shard)?;
        let Page { after, limit, filter, selection } = page;
        let fresh = sight(&read.tokens, shard);
        replica.scroll(after, filter, limit, selection, fresh, read.deadline).await.map_err(shard_error)
    }

    async fn statistics(&self, _node: u64, shard: ShardRef) -> Result<ShardStatistics, ShardError> {
        Ok(self.replica(shard)?.statistics())
    }

    async fn propose(&self, _node: u64, command: Bytes, deadline: Deadline) -> Result<Bytes, ShardError> {
        let control = self.control()?;
        match Command::decode(&command) {
            Ok(command) if command.may_be_asked_for() => {}
            Ok(_) => {
                let what = "only the leader of the control group decides this, by what it finds itself";
                return Err(ShardError::new(ErrorKind::Denied, what));
            }
            // It would stop every coordinator that applies it.
            Err(error) => return Err(ShardError::new(ErrorKind::Invalid, error.to_string())),
        }
        of_leader(control.propose(command, deadline).await)
    }

    async fn read_index(&self, _node: u64, deadline: Deadline) -> Result<u64, ShardError> {
        of_leader(self.control()?.read_index(deadline).await)
    }

    async fn hand_over(&self, _node: u64, shard: ShardRef, to: u64, deadline: Deadline) -> Result<(), ShardError> {
        self.replica(shard)?.hand_over(NodeId(to), deadline).await.map_err(shard_error)
    }

    async fn pull(
        &self,
        _node: u64,
        shard: ShardRef,
        question: Bytes,
        deadline: Deadline,
    ) -> Result<Bytes, ShardError> {
        let question = Pull::from_sealed(&question);
        let question = question.map_err(|error| ShardError::new(ErrorKind::Invalid, error.to_string()))?;
        let pulled = self.replica(shard)?.pull(question, deadline).await.map_err(shard_error)?;
        Ok(pulled.to_sealed().into())
    }
}

#[cfg(test)]
mod tests;
