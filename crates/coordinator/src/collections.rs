//! Collections: created, shown, listed and deleted through the control group.

use std::collections::HashSet;
use std::sync::Arc;

use sagitta_cluster::{Collection, Command, Effect, Refusal};
use sagitta_env::Deadline;
use sagitta_model::{CollectionInfo, CollectionName, CollectionStatistics, Schema};

use crate::client::{ShardClient, ShardSpec};
use crate::{Coordinator, Error};

/// Shards of a new collection: one, until splitting them is automatic.
const SHARDS: u32 = 1;

impl<C: ShardClient> Coordinator<C> {
    /// Creates a collection. Once this returns, points can be written to it.
    pub async fn create_collection(
        &self,
        request_id: u128,
        name: CollectionName,
        schema: Schema,
        deadline: Deadline,
    ) -> Result<CollectionInfo, Error> {
        // One that is there takes no more room, and a repeated request is answered as before.
        if !self.control.state().collections().contains_key(&name) {
            self.shards.room().await.map_err(Error::NoRoom)?;
        }
        let (id, unix_micros) = (self.env.uuid(), self.env.unix_micros());
        let command = Command::CreateCollection { request_id, id, name, schema, shards: SHARDS, replication: 1, unix_micros };
        let Effect::Created(collection) = self.control.propose(command, deadline).await? else {
            unreachable!("invariant: creating has the effect of creation");
        };
        self.host(&collection).await?;
        Ok(info(&collection, None))
    }

    /// A collection, with its statistics if they are asked for.
    pub async fn collection(&self, name: &CollectionName, statistics: bool) -> Result<CollectionInfo, Error> {
        let collection = self.find(name)?;
        let statistics = if statistics { Some(self.statistics(&collection).await?) } else { None };
        Ok(info(&collection, statistics))
    }

    /// The first `limit` collections after a name, in the order of their names, and whether there are more.
    pub async fn collections(
        &self,
        after: Option<&CollectionName>,
        limit: usize,
        statistics: bool,
    ) -> Result<(Vec<CollectionInfo>, bool), Error> {
        let state = self.control.state();
        let later =
            state.collections().values().filter(|collection| after.is_none_or(|after| collection.name > *after));
        let mut page: Vec<_> = later.take(limit + 1).cloned().collect();
        let more = page.len() > limit;
        page.truncate(limit);
        let mut infos = Vec::with_capacity(page.len());
        for collection in page {
            let statistics = if statistics { Some(self.statistics(&collection).await?) } else { None };
            infos.push(info(&collection, statistics));
        }
        Ok((infos, more))
    }

    /// Deletes a collection and its points.
    pub async fn delete_collection(
        &self,
        request_id: u128,
        name: CollectionName,
        allow_missing: bool,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let command = Command::DeleteCollection { request_id, name };
        match self.control.propose(command, deadline).await {
            Ok(_) => self.reconcile().await,
            Err(Error::Refused(Refusal::NotFound(_))) if allow_missing => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hosts every shard that should be and removes every one that should not. Changes nothing when all is as it should be,
    /// so it mends what a crash between a decision and its execution left.
    pub(crate) async fn reconcile(&self) -> Result<(), Error> {
        let state = self.control.state();
        let mut wanted = HashSet::new();
        for collection in state.collections().values() {
            wanted.extend(collection.shards.iter().map(|shard| shard.id));
            self.host(collection).await?;
        }
        let hosted = self.shards.hosted().await.map_err(Error::of_shard(0))?;
        for shard in hosted.into_iter().filter(|shard| !wanted.contains(shard)) {
            self.shards.remove(shard).await.map_err(Error::of_shard(shard))?;
        }
        Ok(())
    }

    async fn host(&self, collection: &Collection) -> Result<(), Error> {
        let schema = Arc::new(collection.schema.clone());
        for shard in &collection.shards {
            let spec = ShardSpec { shard: shard.id, collection: collection.id, schema: schema.clone() };
            self.shards.ensure(spec).await.map_err(Error::of_shard(shard.id))?;
        }
        Ok(())
    }

    async fn statistics(&self, collection: &Collection) -> Result<CollectionStatistics, Error> {
        let mut total = CollectionStatistics { ready: true, ..CollectionStatistics::default() };
        for shard in &collection.shards {
            let one = self.shards.statistics(shard.id).await.map_err(Error::of_shard(shard.id))?;
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

    /// A collection by name: what requests are resolved against and routed by.
    pub fn find(&self, name: &CollectionName) -> Result<Arc<Collection>, Error> {
        self.control.state().collection(name).map(Arc::clone).map_err(Error::from)
    }
}

fn info(collection: &Collection, statistics: Option<CollectionStatistics>) -> CollectionInfo {
    CollectionInfo {
        name: collection.name.clone(),
        id: collection.id,
        schema: collection.schema.clone(),
        created_unix_micros: collection.created_unix_micros,
        statistics,
    }
}
