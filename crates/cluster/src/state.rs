//! The state itself and how commands change it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sagitta_model::CollectionName;

use crate::collection::{Collection, ShardDescriptor};
use crate::command::{Command, Effect, Refusal};
use crate::node::{Node, NodeStatus, Place};
use crate::placement::{place, takes_replicas};
use crate::route::HashRange;

/// Collections that a cluster holds at most: each costs a Raft group and a database.
pub const MAX_COLLECTIONS: usize = 1_000;
/// Shards that a collection has at most.
pub const MAX_SHARDS: u32 = 1_024;
/// Request ids that are remembered: retries come within seconds, administrators act a few times a minute.
const REMEMBERED_REQUESTS: usize = 1_024;

/// What the cluster is.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub(crate) cluster_id: u128,
    /// Every node that ever joined: an id is never handed out twice.
    pub(crate) nodes: BTreeMap<u64, Arc<Node>>,
    /// The node that founded the cluster: the control group's first voter.
    pub(crate) founder: Option<u64>,
    pub(crate) join_token: Option<[u8; 32]>,
    pub(crate) collections: BTreeMap<CollectionName, Arc<Collection>>,
    pub(crate) next_shard_id: u64,
    /// The latest requests that changed something, oldest first, with the id of the collection they were about.
    pub(crate) requests: VecDeque<(u128, u128)>,
}

impl State {
    /// The lowest shard id; below it are the ids of the cluster's own groups.
    pub const FIRST_SHARD_ID: u64 = 16;

    /// An empty cluster.
    pub fn new(cluster_id: u128) -> Self {
        let (nodes, collections, requests) = Default::default();
        let next_shard_id = Self::FIRST_SHARD_ID;
        Self { cluster_id, nodes, founder: None, join_token: None, collections, next_shard_id, requests }
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

    /// The living collections by name.
    pub fn collections(&self) -> &BTreeMap<CollectionName, Arc<Collection>> {
        &self.collections
    }

    /// A living collection.
    pub fn collection(&self, name: &CollectionName) -> Result<&Arc<Collection>, Refusal> {
        self.collections.get(name).ok_or_else(|| Refusal::NotFound(name.to_string()))
    }

    /// Applies an agreed command. A refusal changes nothing; a repeated request answers as it did the first time.
    pub fn apply(&mut self, command: Command) -> Result<Effect, Refusal> {
        let request_id = command.request_id();
        let known = self.requests.iter().find(|(known, _)| Some(*known) == request_id);
        let seen = known.map(|(_, collection)| *collection);
        let effect = match command {
            Command::CreateCollection { id, name, schema, shards, replication, unix_micros, .. } => {
                let new = Collection { id, name, schema, shards: Vec::new(), created_unix_micros: unix_micros };
                self.create(new, shards, replication, seen)?
            }
            Command::DeleteCollection { name, .. } => self.delete(&name, seen)?,
            Command::Join { id, incarnation, place, unix_micros } => self.join(id, incarnation, place, unix_micros)?,
            Command::SetNodeStatus { id, status } => self.set_node_status(id, status)?,
            Command::SetJoinToken { digest } => {
                self.join_token = Some(digest);
                Effect::JoinToken
            }
        };
        let about = match &effect {
            Effect::Created(collection) => Some(collection.id),
            Effect::Deleted { id, .. } => Some(*id),
            Effect::Node(_) | Effect::JoinToken => None,
        };
        if let (Some(request_id), Some(about), None) = (request_id, about, seen) {
            self.requests.push_back((request_id, about));
            if self.requests.len() > REMEMBERED_REQUESTS {
                self.requests.pop_front();
            }
        }
        Ok(effect)
    }

    fn create(
        &mut self,
        mut collection: Collection,
        shards: u32,
        replication: u32,
        seen: Option<u128>,
    ) -> Result<Effect, Refusal> {
        if let Some(existing) = self.collections.get(&collection.name) {
            if seen == Some(existing.id) {
                return Ok(Effect::Created(Arc::clone(existing)));
            }
            return Err(Refusal::AlreadyExists(collection.name.to_string()));
        }
        if self.collections.len() >= MAX_COLLECTIONS {
            return Err(Refusal::TooMany(self.collections.len()));
        }
        let mut load = self.replica_counts();
        let mut id = self.next_shard_id;
        for range in HashRange::partition(shards.clamp(1, MAX_SHARDS)) {
            let wanted = replication.max(1);
            let too_few = || Refusal::TooFewNodes { wanted, nodes: self.nodes_for_replicas() };
            let replicas = place(&self.nodes, &load, wanted as usize).ok_or_else(too_few)?;
            for node in &replicas {
                *load.entry(*node).or_default() += 1;
            }
            collection.shards.push(ShardDescriptor { id, range, epoch: 1, founders: replicas.clone(), replicas });
            id += 1;
        }
        self.next_shard_id = id;
        let collection = Arc::new(collection);
        self.collections.insert(collection.name.clone(), Arc::clone(&collection));
        Ok(Effect::Created(collection))
    }

    /// How many replicas each node should hold.
    fn replica_counts(&self) -> BTreeMap<u64, usize> {
        let mut counts = BTreeMap::new();
        let shards = self.collections.values().flat_map(|collection| &collection.shards);
        for node in shards.flat_map(|shard| &shard.replicas) {
            *counts.entry(*node).or_default() += 1;
        }
        counts
    }

    fn join(&mut self, id: u64, incarnation: u128, place: Place, unix_micros: u64) -> Result<Effect, Refusal> {
        let node = match self.nodes.get(&id) {
            Some(known) if known.incarnation != incarnation => {
                let (known, claimed) = (known.incarnation, incarnation);
                return Err(Refusal::OtherIncarnation { id, known, claimed });
            }
            Some(known) if known.status == NodeStatus::Removed => return Err(Refusal::Removed(id)),
            Some(known) => Node { place, ..Node::clone(known) },
            None => {
                let status = NodeStatus::Joining;
                Node { id, incarnation, place, status, joined_unix_micros: unix_micros }
            }
        };
        if self.founder.is_none() {
            self.founder = Some(id);
            self.settle_on(id);
        }
        let node = Arc::new(node);
        self.nodes.insert(id, node.clone());
        Ok(Effect::Node(node))
    }

    /// Shards that were made before nodes were known are on the only node that there was.
    fn settle_on(&mut self, node: u64) {
        for collection in self.collections.values_mut() {
            for shard in &mut Arc::make_mut(collection).shards {
                if shard.replicas.is_empty() {
                    (shard.replicas, shard.founders) = (vec![node], vec![node]);
                }
            }
        }
    }

    fn set_node_status(&mut self, id: u64, status: NodeStatus) -> Result<Effect, Refusal> {
        let node = self.nodes.get_mut(&id).ok_or(Refusal::NoNode(id))?;
        if node.status == NodeStatus::Removed {
            return Err(Refusal::Removed(id));
        }
        Arc::make_mut(node).status = status;
        Ok(Effect::Node(node.clone()))
    }

    fn delete(&mut self, name: &CollectionName, seen: Option<u128>) -> Result<Effect, Refusal> {
        // A late repetition must not delete a younger collection of the same name.
        if let Some(id) = seen {
            return Ok(Effect::Deleted { id, shards: Vec::new() });
        }
        let gone = self.collections.remove(name).ok_or_else(|| Refusal::NotFound(name.to_string()))?;
        Ok(Effect::Deleted { id: gone.id, shards: gone.shards.iter().map(|shard| shard.id).collect() })
    }
}

#[cfg(test)]
mod tests;
