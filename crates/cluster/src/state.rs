//! The state itself and how commands change it.

mod collections;
mod merges;
mod nodes;
mod operations;
mod recovery;
mod splits;
mod under_way;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sagitta_model::CollectionName;

use crate::collection::{Collection, ShardDescriptor};
use crate::command::{Command, Replaces};
use crate::limits::REMEMBERED_REQUESTS;
use crate::merge::Merge;
use crate::node::{Node, NodeStatus};
use crate::operation::{Operation, OperationStep};
use crate::outcome::{Effect, Refusal};
use crate::placement::takes_replicas;
use crate::recovery::Recovery;
use crate::split::Split;

/// What the cluster is. Cheap to clone: a clone shares everything with the original until one of them changes.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub(crate) cluster_id: u128,
    /// Every node that ever joined: an id is never handed out twice.
    pub(crate) nodes: Arc<BTreeMap<u64, Arc<Node>>>,
    /// The node that founded the cluster: the control group's first voter.
    pub(crate) founder: Option<u64>,
    pub(crate) join_token: Option<[u8; 32]>,
    /// Who votes in the control group, ascending; empty until somebody has said so.
    pub(crate) voters: Vec<u64>,
    /// Of each time that the control group went on without its majority, the last entry of before that is kept.
    pub(crate) eras: Vec<u64>,
    pub(crate) collections: Arc<BTreeMap<CollectionName, Arc<Collection>>>,
    /// Deleted collections, by name, that may still take writes.
    pub(crate) leaving: Arc<BTreeMap<CollectionName, Leaving>>,
    /// How many collections were deleted and lost nodes given up.
    pub(crate) deletions: u64,
    pub(crate) next_shard_id: u64,
    /// Operations that are under way, and the latest that have ended.
    pub(crate) operations: Arc<BTreeMap<u64, Arc<Operation>>>,
    /// How many operations, splits and merges were begun: the last id that was handed out.
    pub(crate) begun_operations: u64,
    /// Splits that are under way, and the latest that have ended.
    pub(crate) splits: Arc<BTreeMap<u64, Arc<Split>>>,
    /// Lost nodes that were given up, with the number of that among the deletions.
    pub(crate) given_up: Arc<BTreeMap<u64, u64>>,
    /// Recoveries that are under way, by their shards.
    pub(crate) recoveries: Arc<BTreeMap<u64, Arc<Recovery>>>,
    /// Merges that are under way, and the latest that have ended.
    pub(crate) merges: Arc<BTreeMap<u64, Arc<Merge>>>,
    /// The latest requests that changed something, oldest first.
    pub(crate) requests: Arc<VecDeque<Request>>,
}

/// A deleted collection that may still take writes: through a coordinator that has not learned of the deletion, on nodes that have not
/// either. Its name stays taken until that is over, so that no write that is acknowledged can be meant for a younger collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Which deletion it was, counted from 1.
    pub deletion: u64,
    /// The members of each group of its shards.
    pub groups: Vec<Vec<u64>>,
}

/// A request that changed something.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    /// Its id.
    pub(crate) id: u128,
    /// The collection that it created or deleted.
    pub(crate) collection: u128,
    /// What it asked for; the oldest format does not say.
    pub(crate) asked: Option<Asked>,
}

/// What a request asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    Create(CollectionName),
    Delete(CollectionName),
}

impl State {
    /// The lowest shard id; below it are the ids of the cluster's own groups.
    pub const FIRST_SHARD_ID: u64 = 16;

    /// An empty cluster.
    pub fn new(cluster_id: u128) -> Self {
        let (nodes, voters, collections, leaving, requests) = Default::default();
        let (operations, splits, given_up, recoveries, merges) = Default::default();
        let (founder, join_token, eras) = (None, None, Vec::new());
        let (deletions, begun_operations, next_shard_id) = (0, 0, Self::FIRST_SHARD_ID);
        Self {
            cluster_id,
            nodes,
            founder,
            join_token,
            voters,
            eras,
            collections,
            leaving,
            deletions,
            next_shard_id,
            operations,
            begun_operations,
            splits,
            given_up,
            recoveries,
            merges,
            requests,
        }
    }

    /// Identity of the cluster: a UUID.
    pub fn cluster_id(&self) -> u128 {
        self.cluster_id
    }

    /// The nodes by id, with those that were removed.
    pub fn nodes(&self) -> &BTreeMap<u64, Arc<Node>> {
        &self.nodes
    }

    /// Whether a shard exists or did: an older state says no of a shard that is created later.
    pub fn has_placed(&self, shard: u64) -> bool {
        shard < self.next_shard_id
    }

    /// How many nodes take replicas: a shard can have as many at most.
    pub fn nodes_for_replicas(&self) -> usize {
        self.nodes.values().filter(|node| takes_replicas(node)).count()
    }

    /// The node that founded the cluster: the first that joined, and the control group's first voter.
    pub fn founder(&self) -> Option<u64> {
        self.founder
    }

    /// BLAKE3 of the token that lets nodes join; without one none may.
    pub fn join_token(&self) -> Option<&[u8; 32]> {
        self.join_token.as_ref()
    }

    /// Who votes in the control group, ascending, as it was noted last; empty if it never was.
    pub fn voters(&self) -> &[u64] {
        &self.voters
    }

    /// How often the control group went on with one coordinator, since it had lost its majority for ever. Of two states the one of the later era
    /// is the newer, whatever their places in the log: lost coordinators that come back may have gone on by themselves.
    pub fn era(&self) -> u64 {
        self.eras.len() as u64
    }

    /// The last entry of an era that is over which this state has; nothing of later ones of that era is in it. `None` while the era lasts.
    pub fn end_of_era(&self, era: u64) -> Option<u64> {
        self.eras.get(usize::try_from(era).ok()?).copied()
    }

    /// The living collections by name.
    pub fn collections(&self) -> &BTreeMap<CollectionName, Arc<Collection>> {
        &self.collections
    }

    /// How many collections were deleted and lost nodes given up so far: whoever has followed this state hosts nothing of the former, and
    /// neither asks nor hears the latter.
    pub fn deletions(&self) -> u64 {
        self.deletions
    }

    /// The deleted collections that may still take writes, by name.
    pub fn leaving(&self) -> &BTreeMap<CollectionName, Leaving> {
        &self.leaving
    }

    /// The nodes that keep a deleted collection from being known to take no more writes; none once it is. `followed` says up to
    /// which deletion a node has followed.
    pub fn awaited(&self, leaving: &Leaving, followed: impl Fn(u64) -> u64) -> Vec<u64> {
        // A node that was removed is gone for ever: that was for its operator to know.
        let removed = |node: &u64| self.nodes.get(node).is_some_and(|node| node.status == NodeStatus::Removed);
        let gone = |node: &u64| followed(*node) >= leaving.deletion || removed(node);
        let takes_writes = |members: &&Vec<u64>| {
            let present = members.iter().filter(|node| !gone(node)).count();
            // A group that lacks so many members for ever decides nothing any more.
            present > members.len() / 2
        };
        let awaited = leaving.groups.iter().filter(takes_writes).flatten().copied().filter(|node| !gone(node));
        awaited.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// A living collection.
    pub fn collection(&self, name: &CollectionName) -> Result<&Arc<Collection>, Refusal> {
        self.collections.get(name).ok_or_else(|| Refusal::NotFound(name.to_string()))
    }

    /// The shards of all collections, by the collection's name and the range of hashes.
    pub fn shards(&self) -> impl Iterator<Item = (&Arc<Collection>, &ShardDescriptor)> {
        self.collections.values().flat_map(|collection| collection.shards.iter().map(move |shard| (collection, shard)))
    }

    /// A shard of a living collection. Looks at all of them.
    pub fn shard(&self, id: u64) -> Result<(&Arc<Collection>, &ShardDescriptor), Refusal> {
        self.shards().find(|(_, shard)| shard.id == id).ok_or(Refusal::NoShard(id))
    }

    /// Applies an agreed command. A refusal changes nothing; a repeated request answers as it did the first time.
    pub fn apply(&mut self, command: Command) -> Result<Effect, Refusal> {
        let effect = match command {
            Command::CreateCollection { request_id, id, name, schema, shards, replication, unix_micros } => {
                let asked = Asked::Create(name.clone());
                let seen = self.seen(request_id, &asked)?;
                let (shards_wanted, created_unix_micros, shards) = (shards, unix_micros, Vec::new());
                let new = Collection { id, name, schema, shards, shards_wanted, replication, created_unix_micros };
                let collection = self.create(new, seen, request_id)?;
                self.remember(Request { id: request_id, collection: collection.id, asked: Some(asked) });
                Effect::Created(collection)
            }
            Command::DeleteCollection { request_id, name, keep_name } => {
                let asked = Asked::Delete(name.clone());
                let seen = self.seen(request_id, &asked)?;
                let (id, shards) = self.delete(&name, seen, keep_name)?;
                self.remember(Request { id: request_id, collection: id, asked: Some(asked) });
                Effect::Deleted { id, shards }
            }
            Command::FreeName { name, deletion } => self.free_name(&name, deletion),
            Command::Join { id, incarnation, run, place, unix_micros } => {
                let (status, joined_unix_micros) = (NodeStatus::Joining, unix_micros);
                self.join(Node { id, incarnation, run, place, status, joined_unix_micros })?
            }
            Command::SetNodeStatus { id, status } => self.set_node_status(id, status)?,
            Command::SetJoinToken { digest, replaces } => self.set_join_token(digest, &replaces)?,
            Command::SetVoters { voters } => self.set_voters(voters)?,
            Command::SetReplicas { shard, epoch, replicas } => self.set_replicas(shard, epoch, replicas)?,
            Command::BeginOperation { kind, shard, epoch, from, to, reason, unix_micros } => {
                let (step, begun_unix_micros) = (OperationStep::Join, unix_micros);
                let (id, cancelled, ended_unix_micros) = (0, false, None);
                let new = Operation {
                    id,
                    kind,
                    shard,
                    from,
                    to,
                    step,
                    reason,
                    cancelled,
                    begun_unix_micros,
                    ended_unix_micros,
                };
                self.begin_operation(new, epoch)?
            }
            Command::AdvanceOperation { id, from, to, at, unix_micros } => {
                self.advance_operation(id, (from, to), at, unix_micros)?
            }
            Command::BeginSplit { shard, epoch, at, reason, unix_micros, unasked } => {
                self.begin_split((shard, epoch, at), (reason, unasked), unix_micros)?
            }
            Command::AdvanceSplit { id, from, to, at, unix_micros } => {
                self.advance_split(id, (from, to), at, unix_micros)?
            }
            Command::BeginMerge { left, left_epoch, right, right_epoch, floor, reason, unix_micros, unasked } => {
                let shards = [(left, left_epoch), (right, right_epoch)];
                self.begin_merge(shards, floor, (reason, unasked), unix_micros)?
            }
            Command::AdvanceMerge { id, from, to, unix_micros } => self.advance_merge(id, (from, to), unix_micros)?,
            Command::CancelOperation { id } => self.cancel_operation(id)?,
            Command::GiveUpNode { id } => self.give_up_node(id)?,
            Command::RecoverShard { shard, epoch, survivor, term, at, unix_micros } => {
                self.recover_shard((shard, epoch), (survivor, term), at, unix_micros)?
            }
            Command::EndRecovery { shard, id } => self.end_recovery(shard, id),
            Command::RecoverControl { survivor, lost, era, ended } => {
                self.recover_control(survivor, &lost, era, ended)?
            }
        };
        Ok(effect)
    }

    fn set_join_token(&mut self, digest: [u8; 32], replaces: &Replaces) -> Result<Effect, Refusal> {
        let is_done = self.join_token == Some(digest);
        if !is_done && !replaces.holds(self.join_token.as_ref()) {
            return Err(Refusal::TokenReplaced);
        }
        self.join_token = Some(digest);
        Ok(Effect::JoinToken)
    }

    /// The collection that a request was about, if it was applied before; refused if it asked for something else then.
    fn seen(&self, request_id: u128, asked: &Asked) -> Result<Option<u128>, Refusal> {
        let Some(known) = self.requests.iter().find(|request| request.id == request_id) else { return Ok(None) };
        match &known.asked {
            Some(before) if before != asked => Err(Refusal::RequestIdReused(request_id)),
            _ => Ok(Some(known.collection)),
        }
    }

    fn remember(&mut self, request: Request) {
        if self.requests.iter().any(|known| known.id == request.id) {
            return;
        }
        let requests = Arc::make_mut(&mut self.requests);
        requests.push_back(request);
        if requests.len() > REMEMBERED_REQUESTS {
            requests.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
