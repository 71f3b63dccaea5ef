//! The state itself and how commands change it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sagitta_model::CollectionName;

use crate::collection::{Collection, ShardDescriptor};
use crate::command::{Command, Effect, Refusal};
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
        let (collections, requests) = Default::default();
        Self { cluster_id, collections, next_shard_id: Self::FIRST_SHARD_ID, requests }
    }

    /// Identity of the cluster: a UUID.
    pub fn cluster_id(&self) -> u128 {
        self.cluster_id
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
        let seen = self.requests.iter().find(|(seen, _)| *seen == request_id).map(|(_, collection)| *collection);
        let effect = match command {
            Command::CreateCollection { id, name, schema, shards, unix_micros, .. } => {
                let new = Collection { id, name, schema, shards: Vec::new(), created_unix_micros: unix_micros };
                self.create(new, shards, seen)?
            }
            Command::DeleteCollection { name, .. } => self.delete(&name, seen)?,
        };
        if seen.is_none() {
            let about = match &effect {
                Effect::Created(collection) => collection.id,
                Effect::Deleted { id, .. } => *id,
            };
            self.requests.push_back((request_id, about));
            if self.requests.len() > REMEMBERED_REQUESTS {
                self.requests.pop_front();
            }
        }
        Ok(effect)
    }

    fn create(&mut self, mut collection: Collection, shards: u32, seen: Option<u128>) -> Result<Effect, Refusal> {
        if let Some(existing) = self.collections.get(&collection.name) {
            if seen == Some(existing.id) {
                return Ok(Effect::Created(Arc::clone(existing)));
            }
            return Err(Refusal::AlreadyExists(collection.name.to_string()));
        }
        if self.collections.len() >= MAX_COLLECTIONS {
            return Err(Refusal::TooMany(self.collections.len()));
        }
        for range in HashRange::partition(shards.clamp(1, MAX_SHARDS)) {
            collection.shards.push(ShardDescriptor { id: self.next_shard_id, range, epoch: 1 });
            self.next_shard_id += 1;
        }
        let collection = Arc::new(collection);
        self.collections.insert(collection.name.clone(), Arc::clone(&collection));
        Ok(Effect::Created(collection))
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
