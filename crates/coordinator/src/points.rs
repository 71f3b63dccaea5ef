//! Points: written to the shards that are responsible for them, read back from there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use sagitta_cluster::Collection;
use sagitta_env::Deadline;
use sagitta_model::{
    Change, CollectionName, Consistency, Filter, Point, PointId, Record, Schema, Selection, Target, VectorSelection, Violation,
    Wait, WriteResult,
};

use crate::client::{Read, ShardClient, Tokens};
use crate::collections::violation;
use crate::{Coordinator, Error};

/// One write of one collection.
#[derive(Clone, Debug)]
pub struct Write {
    /// The collection.
    pub collection: CollectionName,
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
    /// Changes points. Everything is checked before anything is written; then each shard applies its part whole, or fails it whole.
    pub async fn write(&self, mut write: Write) -> Result<WriteResult, Error> {
        let collection = self.find(&write.collection)?;
        prepare(&mut write.change, &collection.schema)?;
        let mut result = WriteResult::default();
        for part in split(&collection, write.change) {
            let written = self.shards.write(part.shard, write.request_id, part.change, write.wait, write.deadline).await;
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
        name: &CollectionName,
        ids: Vec<PointId>,
        selection: Selection,
        consistency: &Consistency,
        deadline: Deadline,
    ) -> Result<Vec<Record>, Error> {
        let collection = self.find(name)?;
        check_selection(&selection, &collection.schema)?;
        let read = read(consistency, deadline);
        if let [shard] = &collection.shards[..] {
            let records = self.shards.get(shard.id, ids, selection, read).await;
            return records.map_err(Error::of_shard(shard.id));
        }
        let mut found = HashMap::new();
        for (shard, part) in by_shard(&collection, ids.iter().copied()) {
            let records = self.shards.get(shard, part, selection.clone(), read.clone()).await;
            found.extend(records.map_err(Error::of_shard(shard))?.into_iter().map(|record| (record.id, record)));
        }
        Ok(ids.iter().filter_map(|id| found.get(id).cloned()).collect())
    }

    /// How many points pass the filter.
    pub async fn count(
        &self,
        name: &CollectionName,
        filter: Option<Arc<Filter>>,
        consistency: &Consistency,
        deadline: Deadline,
    ) -> Result<u64, Error> {
        let collection = self.find(name)?;
        check_filter(filter.as_deref(), &collection.schema)?;
        let read = read(consistency, deadline);
        let mut count = 0;
        for shard in &collection.shards {
            let part = self.shards.count(shard.id, filter.clone(), read.clone()).await;
            count += part.map_err(Error::of_shard(shard.id))?;
        }
        Ok(count)
    }

    /// One page of the points that pass the filter, ascending by id.
    pub async fn scroll(
        &self,
        name: &CollectionName,
        page: Page,
        consistency: &Consistency,
        deadline: Deadline,
    ) -> Result<Vec<Record>, Error> {
        let collection = self.find(name)?;
        check_filter(page.filter.as_deref(), &collection.schema)?;
        check_selection(&page.selection, &collection.schema)?;
        let read = read(consistency, deadline);
        let mut records = Vec::new();
        for shard in &collection.shards {
            let (filter, selection) = (page.filter.clone(), page.selection.clone());
            let part = self.shards.scroll(shard.id, page.after, filter, page.limit, selection, read.clone()).await;
            records.append(&mut part.map_err(Error::of_shard(shard.id))?);
        }
        if collection.shards.len() > 1 {
            records.sort_unstable_by_key(|record| record.id);
            records.truncate(page.limit);
        }
        Ok(records)
    }
}

/// What a read must see, from what its caller asked for.
pub(crate) fn read(consistency: &Consistency, deadline: Deadline) -> Read {
    let tokens = match consistency {
        Consistency::Eventual => Tokens::Any,
        Consistency::Session(tokens) => Tokens::AtLeast(tokens.iter().map(|token| (token.shard, token.index)).collect()),
        Consistency::Strong => Tokens::Latest,
    };
    Read { tokens, deadline }
}

fn check_filter(filter: Option<&Filter>, schema: &Schema) -> Result<(), Error> {
    let checked = filter.map_or(Ok(()), |filter| filter.validate(schema));
    checked.map_err(|v| v.within("filter").into())
}

pub(crate) fn check_selection(selection: &Selection, schema: &Schema) -> Result<(), Error> {
    if let VectorSelection::Names(names) = &selection.vectors {
        for (at, name) in names.iter().enumerate() {
            let known = schema.vector(name).map(drop);
            known.map_err(|v| Violation::new(format!("vectors.include.names[{at}]"), v.reason))?;
        }
    }
    Ok(())
}

/// Names unnamed vectors and checks the whole change against the schema.
fn prepare(change: &mut Change, schema: &Schema) -> Result<(), Error> {
    match change {
        Change::Upsert(points) => prepare_points(points, schema),
        Change::Delete(_) => Ok(()),
        Change::DeleteByFilter(filter) => check_filter(Some(filter), schema),
        Change::UpdatePayload { target: Target::Ids(_), .. } => Ok(()),
        Change::UpdatePayload { target: Target::Filter(filter), .. } => check_filter(Some(filter), schema),
    }
}

fn prepare_points(points: &mut [Point], schema: &Schema) -> Result<(), Error> {
    let mut seen = HashSet::with_capacity(points.len());
    for (at, point) in points.iter_mut().enumerate() {
        let place = || format!("points[{at}]");
        if !seen.insert(point.id) {
            let reason = format!("is {}, which occurs twice in this request: send each id once", point.id);
            return Err(violation(&format!("points[{at}].id"), reason));
        }
        point.name_vector(schema).map_err(|v| v.within(&place()))?;
        point.validate(schema).map_err(|v| v.within(&place()))?;
    }
    Ok(())
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

fn split_items<T>(collection: &Collection, items: Vec<T>, id: impl Fn(&T) -> PointId) -> impl Iterator<Item = (u64, Items<T>)> {
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
