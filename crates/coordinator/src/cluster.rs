//! What operators are told of the cluster: its nodes and shards, and how well they are.
//!
//! Put together from the control state and from what nodes last told of themselves. Of the latter each coordinator has its own
//! view, which may be a second old.

mod operations;
mod view;

use sagitta_cluster::{Command, Refusal};
use sagitta_consensus::Membership;
use sagitta_env::Deadline;
use sagitta_model::{ClusterInfo, CollectionName, ErrorKind, NodeInfo, ShardInfo};

use crate::client::{NodeClient, ShardError};
use crate::{Coordinator, Error};
use view::View;

/// Problems of a cluster that are told at most.
const MAX_PROBLEMS: usize = 100;

impl<C> Coordinator<C> {
    fn view(&self) -> View<'_> {
        View::new(self.control.state(), &self.reports, self.env.now())
    }

    /// The cluster as a whole, as this coordinator sees it.
    pub fn cluster_info(&self) -> ClusterInfo {
        let view = self.view();
        let group = self.control.group().status();
        let leader = group.leader.map(|leader| leader.0);
        let (health, mut problems) = view.health(leader);
        problems.truncate(MAX_PROBLEMS);
        // Until a change has ended nothing is decided without the voters before.
        let Membership { voters, outgoing, .. } = &group.membership;
        let voters = if outgoing.is_empty() { voters } else { outgoing };
        let mut voters: Vec<u64> = voters.iter().map(|voter| voter.0).collect();
        voters.sort_unstable();
        ClusterInfo {
            id: view.state.cluster_id(),
            coordinator: self.me,
            leader,
            term: group.term,
            applied: group.applied,
            voters,
            nodes: view.count_nodes(),
            collections: view.state.collections().len() as u32,
            shards: view.state.shards().count() as u32,
            health,
            problems,
        }
    }

    /// The first `limit` nodes after an id, in the order of their ids, and whether there are more.
    pub fn node_infos(&self, after: Option<u64>, limit: usize) -> (Vec<NodeInfo>, bool) {
        let view = self.view();
        let nodes = view.state.nodes().values().filter(|node| after.is_none_or(|after| node.id > after));
        let mut infos: Vec<_> = nodes.take(limit + 1).map(|node| view.node(node)).collect();
        let more = infos.len() > limit;
        infos.truncate(limit);
        (infos, more)
    }

    /// One node.
    pub fn node_info(&self, id: u64) -> Result<NodeInfo, Error> {
        let view = self.view();
        let node = view.state.nodes().get(&id).ok_or(Refusal::NoNode(id))?;
        Ok(view.node(node))
    }

    /// The first `limit` shards after an id, in the order of their ids, of a collection and on a node if these are given, and
    /// whether there are more.
    pub fn shard_infos(
        &self,
        collection: Option<&CollectionName>,
        node: Option<u64>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<(Vec<ShardInfo>, bool), Error> {
        let view = self.view();
        if let Some(name) = collection {
            view.state.collection(name)?;
        }
        if let Some(node) = node {
            view.state.nodes().get(&node).ok_or(Refusal::NoNode(node))?;
        }
        let shards = view.state.shards().filter(|(owner, shard)| {
            collection.is_none_or(|name| owner.name == *name)
                && after.is_none_or(|after| shard.id > after)
                && node.is_none_or(|node| shard.replicas.contains(&node) || view.told(node, shard.id).is_some())
        });
        let mut shards: Vec<_> = shards.collect();
        shards.sort_unstable_by_key(|(_, shard)| shard.id);
        let more = shards.len() > limit;
        Ok((shards.into_iter().take(limit).map(|(owner, shard)| view.shard(owner, shard)).collect(), more))
    }

    /// One shard.
    pub fn shard_info(&self, id: u64) -> Result<ShardInfo, Error> {
        let view = self.view();
        let (collection, shard) = view.state.shard(id)?;
        Ok(view.shard(collection, shard))
    }
}

impl<C: NodeClient> Coordinator<C> {
    /// Replaces the secret that a node must know to join by one of this digest.
    pub async fn set_join_token(&self, digest: [u8; 32], deadline: Deadline) -> Result<(), Error> {
        self.catch_up(deadline).await?;
        let replaces = self.control.state().join_token().copied().into();
        self.decide(Command::SetJoinToken { digest, replaces }, deadline).await.map(drop)
    }

    /// Has another replica lead a shard. When this succeeds, it has: whoever leads already says so itself, for what is reported may be
    /// out of date.
    pub async fn transfer_leader(&self, shard: u64, to: u64, deadline: Deadline) -> Result<(), Error> {
        self.catch_up(deadline).await?;
        let state = self.control.state();
        let (collection, descriptor) = state.shard(shard)?;
        if !descriptor.replicas.contains(&to) {
            let replicas: Vec<_> = descriptor.replicas.iter().map(u64::to_string).collect();
            let reason = format!("names node {to}, and the shard's replicas are on {}", replicas.join(", "));
            return Err(Refusal::Invalid { field: "to".to_owned(), reason }.into());
        }
        if self.reports.leader(shard).is_none() {
            let error = ShardError::new(ErrorKind::Unavailable, "no leader is known that could hand over");
            return Err(Error::Shard { shard, error });
        }
        let hand_over = |node, shard| self.nodes.hand_over(node, shard, to, deadline);
        self.at_leader(collection, descriptor, deadline, hand_over).await?;
        self.reports.note_leader(shard, to);
        Ok(())
    }
}
