//! Collections: created, shown, listed and deleted through the control group.

use std::sync::Arc;
use std::time::Duration;

use sagitta_cluster::{Collection, Command, Effect, Leaving, Refusal};
use sagitta_env::Deadline;
use sagitta_model::{CollectionInfo, CollectionName, CollectionStatistics, ErrorKind, Schema};

use crate::client::{NodeClient, Read, ShardError, Tokens};
use crate::{Coordinator, Error};

/// A collection that is to be created.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCollection {
    /// Its name.
    pub name: CollectionName,
    /// Its vectors and declared fields.
    pub schema: Schema,
    /// Into how many shards its points are partitioned, unless that is left to the cluster.
    pub shards: Option<u32>,
    /// How many nodes hold each of them, unless that is left to the cluster.
    pub replication: Option<u32>,
}

/// Shards of a new collection, and replicas of each where there are as many nodes, unless the caller says otherwise.
const SHARDS: u32 = 1;
const REPLICATION: u32 = 3;

/// How long a deletion waits for nodes to follow it, which takes those that are up a fraction of a second.
const LEAVES_WITHIN: Duration = Duration::from_secs(3);

impl<C: NodeClient> Coordinator<C> {
    /// Creates a collection. Once this returns, points can be written to it.
    pub async fn create_collection(
        &self,
        request_id: u128,
        new: NewCollection,
        deadline: Deadline,
    ) -> Result<CollectionInfo, Error> {
        let NewCollection { name, schema, shards, replication } = new;
        self.await_name(&name, deadline).await?;
        let state = self.control.state();
        // One that is there takes no more room, and a repeated request is answered as before.
        if !state.collections().contains_key(&name) {
            self.room()?;
        }
        let (id, unix_micros) = (self.env.uuid(), self.env.unix_micros());
        let shards = shards.unwrap_or(SHARDS);
        let replication = replication.unwrap_or_else(|| REPLICATION.min(state.nodes_for_replicas() as u32).max(1));
        let command = Command::CreateCollection { request_id, id, name, schema, shards, replication, unix_micros };
        let Effect::Created(collection) = self.decide(command, deadline).await? else {
            unreachable!("invariant: creating has the effect of creation");
        };
        for shard in &collection.shards {
            let led = self.reports.find(|reports| reports.leader(shard.id));
            if self.env.until(deadline, led).await.is_err() {
                let what = "the collection was created, and its shard has no leader yet: too few of its nodes are up";
                let error = ShardError::new(ErrorKind::Unavailable, what);
                return Err(Error::Shard { shard: shard.id, error });
            }
        }
        Ok(info(&collection, None))
    }

    /// Whether any node takes data.
    fn room(&self) -> Result<(), Error> {
        let state = self.control.state();
        let reports: Vec<_> = state.nodes().keys().filter_map(|node| self.reports.of(*node)).collect();
        let short = reports.iter().find_map(|heard| heard.report.shortage.clone());
        match short {
            Some(shortage) if reports.iter().all(|heard| heard.report.shortage.is_some()) => {
                Err(Error::NoRoom(ShardError::new(ErrorKind::Overloaded, shortage)))
            }
            _ => Ok(()),
        }
    }

    /// A collection, with its statistics if they are asked for.
    pub async fn collection(
        &self,
        name: &CollectionName,
        statistics: bool,
        deadline: Deadline,
    ) -> Result<CollectionInfo, Error> {
        self.catch_up(deadline).await?;
        let collection = self.known(name)?;
        let statistics = if statistics { Some(self.statistics(&collection, deadline).await?) } else { None };
        Ok(info(&collection, statistics))
    }

    /// The first `limit` collections after a name, in the order of their names, and whether there are more.
    pub async fn collections(
        &self,
        after: Option<&CollectionName>,
        limit: usize,
        statistics: bool,
        deadline: Deadline,
    ) -> Result<(Vec<CollectionInfo>, bool), Error> {
        self.catch_up(deadline).await?;
        let state = self.control.state();
        let later =
            state.collections().values().filter(|collection| after.is_none_or(|after| collection.name > *after));
        let mut page: Vec<_> = later.take(limit + 1).cloned().collect();
        let more = page.len() > limit;
        page.truncate(limit);
        let mut infos = Vec::with_capacity(page.len());
        for collection in page {
            let statistics = if statistics { Some(self.statistics(&collection, deadline).await?) } else { None };
            infos.push(info(&collection, statistics));
        }
        Ok((infos, more))
    }

    /// Waits until a name can be used, should a collection of that name have been deleted: see [`sagitta_cluster::Leaving`].
    async fn await_name(&self, name: &CollectionName, deadline: Deadline) -> Result<(), Error> {
        // The leader knows of the latest deletion; if it cannot be asked, nothing can be decided either.
        self.catch_up(deadline).await?;
        let state = self.control.state();
        let Some(leaving) = state.leaving().get(name) else { return Ok(()) };
        let free = self.reports.find(|_| self.awaited(leaving).is_empty().then_some(()));
        if self.env.until(deadline, free).await.is_err() {
            let (name, nodes) = (name.to_string(), self.awaited(leaving));
            return Err(Refusal::StillLeaving { name, nodes }.into());
        }
        let command = Command::FreeName { name: name.clone(), deletion: leaving.deletion };
        self.decide(command, deadline).await.map(drop)
    }

    /// The nodes for which a deleted collection waits.
    pub(crate) fn awaited(&self, leaving: &Leaving) -> Vec<u64> {
        let followed = |node| self.reports.of(node).map_or(0, |heard| heard.report.deletions);
        self.control.state().awaited(leaving, followed)
    }

    /// Deletes a collection and its points, and waits a moment until no coordinator that has not learned of it can have anything
    /// written there. The nodes remove its replicas as they learn of it.
    pub async fn delete_collection(
        &self,
        request_id: u128,
        name: CollectionName,
        allow_missing: bool,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let leaving = name.clone();
        let command = Command::DeleteCollection { request_id, name, keep_name: true };
        match self.decide(command, deadline).await {
            // Nodes that cannot be reached keep the name, and not whoever is rid of the collection.
            Ok(_) => match self.env.timeout(LEAVES_WITHIN, self.await_name(&leaving, deadline)).await {
                Ok(Err(error)) => {
                    tracing::debug!(%error, name = %leaving, "a name is not free yet");
                    Ok(())
                }
                Ok(Ok(())) | Err(_) => Ok(()),
            },
            Err(Error::Refused(Refusal::NotFound(_))) if allow_missing => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn statistics(&self, collection: &Collection, deadline: Deadline) -> Result<CollectionStatistics, Error> {
        let mut total = CollectionStatistics { ready: true, ..CollectionStatistics::default() };
        for shard in &collection.shards {
            let read = Read { tokens: Tokens::Any, deadline };
            let statistics = |node, shard| self.nodes.statistics(node, shard);
            let one = self.at_replica(collection, shard, &read, statistics).await?;
            total.ready &= one.ready;
            total.points += one.points;
            total.indexed_points += one.indexed_points;
            total.dead_rows += one.dead_rows;
            total.growing_segments += one.growing_segments;
            total.sealed_segments += one.sealed_segments;
            total.disk_bytes += one.disk_bytes;
            total.memory_bytes += one.memory_bytes;
            total.refuses_data |= one.refuses_data;
            total.shards += 1;
        }
        Ok(total)
    }

    /// A collection by name: what requests are resolved against and routed by. One that this coordinator does not know of may
    /// have been created through another one just before.
    pub async fn find(&self, name: &CollectionName, deadline: Deadline) -> Result<Arc<Collection>, Error> {
        if let Ok(collection) = self.known(name) {
            return Ok(collection);
        }
        self.catch_up(deadline).await?;
        self.known(name)
    }

    fn known(&self, name: &CollectionName) -> Result<Arc<Collection>, Error> {
        self.control.state().collection(name).map(Arc::clone).map_err(Error::from)
    }
}

fn info(collection: &Collection, statistics: Option<CollectionStatistics>) -> CollectionInfo {
    CollectionInfo {
        name: collection.name.clone(),
        id: collection.id,
        schema: collection.schema.clone(),
        shards: collection.shards.len() as u32,
        replication: collection.replication,
        created_unix_micros: collection.created_unix_micros,
        statistics,
    }
}
