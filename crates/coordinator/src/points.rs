//! Points: written to the shards that are responsible for them, read back from there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sagitta_cluster::Collection;
use sagitta_env::Deadline;
use sagitta_model::{Change, Consistency, Filter, PointId, Record, Selection, Target, Wait, WriteResult};

use crate::client::{Read, ShardClient, Tokens};
use crate::{Coordinator, Error};

/// One write of one collection, resolved against its schema.
#[derive(Clone, Debug)]
pub struct Write {
    /// The caller's request id: the same request again changes nothing.
    pub request_id: u128,
    /// What to change.
    pub change: Change,
    /// What to wait for.
    pub wait: Wait,
    /// When the caller stops waiting.
    pub deadline: Deadline,
}

/// One page of a scroll.
#[derive(Clone, Debug)]
pub struct Page {
    /// The points after this one; from the start if `None`.
    pub after: Option<PointId>,
    /// At most so many.
    pub limit: usize,
    /// Those that this filter passes.
    pub filter: Option<Arc<Filter>>,
    /// These parts of them.
    pub selection: Selection,
}

impl<C: ShardClient> Coordinator<C> {
    /// Changes points. Each shard applies its part whole, or fails it whole.
    pub async fn write(&self, collection: &Collection, write: Write) -> Result<WriteResult, Error> {
        let mut result = WriteResult::default();
        for part in split(collection, write.change) {
            let written =
                self.shards.write(part.shard, write.request_id, part.change, write.wait, write.deadline).await;
            let mut written = written.map_err(Error::of_shard(part.shard))?;
            for failure in &mut written.failures {
                failure.index = part.positions.as_ref().map_or(failure.index, |positions| positions[failure.index]);
            }
            result.applied += written.applied;
            result.failures.append(&mut written.failures);
            result.tokens.append(&mut written.tokens);
        }
        result.failures.sort_by_key(|failure| failure.index);
        Ok(result)
    }

    /// The points of these ids that exist, in the order of the ids; an id given twice is answered twice.
    pub async fn get(
        &self,
        collection: &Collection,
        ids: Vec<PointId>,
        selection: Selection,
        consistency: &Consistency,
        deadline: Deadline,
    ) -> Result<Vec<Record>, Error> {
        let read = read(consistency, deadline);
        if let [shard] = &collection.shards[..] {
            let records = self.shards.get(shard.id, ids, selection, read).await;
            return records.map_err(Error::of_shard(shard.id));
        }
        let mut found = HashMap::new();
        for (shard, part) in by_shard(collection, ids.iter().copied()) {
            let records = self.shards.get(shard, part, selection.clone(), read.clone()).await;
            found.extend(records.map_err(Error::of_shard(shard))?.into_iter().map(|record| (record.id, record)));
        }
        Ok(ids.iter().filter_map(|id| found.get(id).cloned()).collect())
    }

    /// How many points pass the filter.
    pub async fn count(
        &self,
        collection: &Collection,
        filter: Option<Arc<Filter>>,
        consistency: &Consistency,
        deadline: Deadline,
    ) -> Result<u64, Error> {
        let read = read(consistency, deadline);
        let mut count = 0;
        for shard in &collection.shards {
            let part = self.shards.count(shard.id, filter.clone(), read.clone()).await;
            count += part.map_err(Error::of_shard(shard.id))?;
        }
        Ok(count)
    }

    /// One page of the points that pass the filter, ascending by id. It has fewer than `limit` points when these fill it by
    /// their weight, or when there are no more.
    pub async fn scroll(
        &self,
        collection: &Collection,
        page: Page,
        consistency: &Consistency,
        deadline: Deadline,
    ) -> Result<Vec<Record>, Error> {
        let read = read(consistency, deadline);
        let mut records = Vec::new();
        for shard in &collection.shards {
            let (filter, selection) = (page.filter.clone(), page.selection.clone());
            let part = self.shards.scroll(shard.id, page.after, filter, page.limit, selection, read.clone()).await;
            records.append(&mut part.map_err(Error::of_shard(shard.id))?);
        }
        if collection.shards.len() > 1 {
            // A shard that ended its part early filled a page alone, so this one is cut before anything would be missing.
            records.sort_unstable_by_key(|record| record.id);
            records.truncate(page.limit);
            Record::cut_to_a_page(&mut records);
        }
        Ok(records)
    }
}

/// What a read must see, from what its caller asked for.
pub(crate) fn read(consistency: &Consistency, deadline: Deadline) -> Read {
    let tokens = match consistency {
        Consistency::Eventual => Tokens::Any,
        Consistency::Session(tokens) => {
            Tokens::AtLeast(tokens.iter().map(|token| (token.shard, token.index)).collect())
        }
        Consistency::Strong => Tokens::Latest,
    };
    Read { tokens, deadline }
}

/// A shard's part of a change.
struct Part {
    shard: u64,
    change: Change,
    /// Where the part's items stood in the whole change; `None` where that is the same.
    positions: Option<Vec<usize>>,
}

fn split(collection: &Collection, change: Change) -> Vec<Part> {
    let whole = |shard, change| Part { shard, change, positions: None };
    if let [shard] = &collection.shards[..] {
        return vec![whole(shard.id, change)];
    }
    let to_all = |change: Change| collection.shards.iter().map(|shard| whole(shard.id, change.clone())).collect();
    match change {
        Change::Upsert(points) => {
            split_items(collection, points, |point| point.id).map(|(shard, (items, positions))| Part {
                shard,
                change: Change::Upsert(items),
                positions: Some(positions),
            })
        }
        .collect(),
        Change::Delete(ids) => split_items(collection, ids, |id| *id)
            .map(|(shard, (ids, positions))| Part { shard, change: Change::Delete(ids), positions: Some(positions) })
            .collect(),
        Change::UpdatePayload { target: Target::Ids(ids), change } => split_items(collection, ids, |id| *id)
            .map(|(shard, (ids, positions))| {
                let change = Change::UpdatePayload { target: Target::Ids(ids), change: change.clone() };
                Part { shard, change, positions: Some(positions) }
            })
            .collect(),
        change @ (Change::DeleteByFilter(_) | Change::UpdatePayload { .. }) => to_all(change),
    }
}

type Items<T> = (Vec<T>, Vec<usize>);

fn split_items<T>(
    collection: &Collection,
    items: Vec<T>,
    id: impl Fn(&T) -> PointId,
) -> impl Iterator<Item = (u64, Items<T>)> {
    let mut parts: BTreeMap<u64, Items<T>> = BTreeMap::new();
    for (at, item) in items.into_iter().enumerate() {
        let (items, positions) = parts.entry(collection.shard_of(id(&item)).id).or_default();
        items.push(item);
        positions.push(at);
    }
    parts.into_iter()
}

fn by_shard(collection: &Collection, ids: impl Iterator<Item = PointId>) -> BTreeMap<u64, Vec<PointId>> {
    let mut parts: BTreeMap<u64, Vec<PointId>> = BTreeMap::new();
    for id in ids {
        parts.entry(collection.shard_of(id).id).or_default().push(id);
    }
    parts
}
