//! Points: written to the shards that are responsible for them, read back from there.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use sagitta_cluster::{Collection, ShardDescriptor};
use sagitta_env::Deadline;
use sagitta_model::{Change, Consistency, Filter, HashRange, PointId, Record, Selection, Target, Wait, WriteResult};

use crate::client::{NodeClient, Page, Read, Tokens};
use crate::router::present;
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

impl<C: NodeClient> Coordinator<C> {
    /// Changes points. Each shard applies its part whole, or fails it whole; all parts are written at once, and when some fail
    /// the others stand: the same request again completes them.
    pub async fn write(&self, collection: &Collection, write: Write) -> Result<WriteResult, Error> {
        let Write { request_id, change, wait, deadline } = write;
        let call = Call { request_id, wait, deadline };
        // To their end, whatever becomes of the others: one that is cut short would be in doubt.
        gather(self.write_parts(collection, HashRange::FULL, change, call).await)
    }

    /// Writes a change that concerns no other points than those of these hashes.
    async fn write_parts(&self, collection: &Collection, range: HashRange, change: Change, call: Call) -> Answers {
        let (mut collection, mut change, mut doubt) = (Cow::Borrowed(collection), change, None);
        loop {
            let parts = split(&collection, range, change);
            let written = join_all(parts.iter().map(|part| self.write_part(&collection, part, call))).await;
            let answers: Answers = written.into_iter().flatten().collect();
            let merged = answers.iter().flat_map(|answer| answer.as_ref().err()).find(|error| is_merged(error));
            let Some(Error::Split { shard, .. }) = merged else {
                let doubting = |error: Error| error.in_doubt_if(doubt.is_some(), doubt.unwrap_or_default());
                return answers.into_iter().map(|answer| answer.map_err(doubting)).collect();
            };
            let merged = *shard;
            let in_doubt = answers.iter().flat_map(|answer| answer.as_ref().err()).any(Error::is_in_doubt);
            doubt = doubt.or(in_doubt.then_some(merged));
            let present = match present(&self.control, &collection) {
                Ok(present) => present,
                Err(gone) => return vec![Err(gone.in_doubt_if(doubt.is_some(), merged))],
            };
            if !has_alone(&present, range) {
                return vec![Err(Error::Split { shard: merged, in_doubt: doubt.is_some() })];
            }
            // The shard that it is part of now remembers the request as one. What the others have done they do not do again.
            change = whole(parts);
            collection = Cow::Owned(Arc::unwrap_or_clone(present));
        }
    }

    async fn write_part(&self, collection: &Collection, part: &Part<'_>, call: Call) -> Answers {
        let Call { request_id, wait, deadline } = call;
        let Part { shard, change, positions } = part;
        let written = self.at_leader(collection, shard, deadline, |node, shard| {
            self.nodes.write(node, shard, request_id, change.clone(), wait, deadline)
        });
        let mut answers = match written.await {
            Err(error @ Error::Split { .. }) if !self.has_alone_by_now(collection, shard.range) => vec![Err(error)],
            Err(Error::Split { in_doubt, .. }) => {
                let halves = self.write_halves(collection, shard, change.clone(), call).await.into_iter();
                halves.map(|half| half.map_err(|error| error.in_doubt_if(in_doubt, shard.id))).collect()
            }
            Ok(mut result) => {
                only_of(change, &mut result);
                vec![Ok(Written { before: before_split(collection, shard, &result), result })]
            }
            Err(error) => vec![Err(error)],
        };
        if let Some(positions) = positions {
            let failures = answers.iter_mut().flatten().flat_map(|written| &mut written.result.failures);
            failures.for_each(|failure| failure.index = positions[failure.index]);
        }
        answers
    }

    /// Whether by now hashes have shards that have no others; so they have not if one of these was merged with another.
    fn has_alone_by_now(&self, collection: &Collection, range: HashRange) -> bool {
        present(&self.control, collection).map_or(true, |present| has_alone(&present, range))
    }

    /// Writes a shard's part to the shards that have its hashes by now.
    fn write_halves<'a>(
        &'a self,
        collection: &'a Collection,
        shard: &'a ShardDescriptor,
        change: Arc<Change>,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Answers> + Send + 'a>> {
        Box::pin(async move {
            match present(&self.control, collection) {
                Ok(present) => self.write_parts(&present, shard.range, Arc::unwrap_or_clone(change), call).await,
                Err(error) => vec![Err(error)],
            }
        })
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
        let mut collection = self.with_all_of(collection, &read.tokens, deadline).await?;
        loop {
            match self.get_once(&collection, &ids, &selection, &read).await {
                Err(Error::Split { .. }) => collection = self.split_meanwhile(&collection)?,
                found => return found,
            }
        }
    }

    async fn get_once(
        &self,
        collection: &Collection,
        ids: &[PointId],
        selection: &Selection,
        read: &Read,
    ) -> Result<Vec<Record>, Error> {
        let from = |shard, ids: Vec<PointId>| async move {
            let get = |node, shard| self.nodes.get(node, shard, ids.clone(), selection.clone(), read.clone());
            self.at_replica(collection, shard, read, get).await
        };
        if let [shard] = &collection.shards[..] {
            return from(shard, ids.to_vec()).await;
        }
        let parts = split_items(collection, ids.iter().copied(), |id| *id);
        let parts = parts.map(|(shard, (ids, _))| from(shard, ids));
        let found = try_join_all(parts).await?.into_iter().flatten();
        let found: HashMap<_, _> = found.map(|record| (record.id, record)).collect();
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
        let mut collection = self.with_all_of(collection, &read.tokens, deadline).await?;
        loop {
            match self.count_once(&collection, &filter, &read).await {
                Err(Error::Split { .. }) => collection = self.split_meanwhile(&collection)?,
                counted => return counted,
            }
        }
    }

    async fn count_once(
        &self,
        collection: &Collection,
        filter: &Option<Arc<Filter>>,
        read: &Read,
    ) -> Result<u64, Error> {
        let parts = collection.shards.iter().map(|shard| {
            let count = |node, shard| self.nodes.count(node, shard, filter.clone(), read.clone());
            self.at_replica(collection, shard, read, count)
        });
        Ok(try_join_all(parts).await?.into_iter().sum())
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
        let mut collection = self.with_all_of(collection, &read.tokens, deadline).await?;
        loop {
            match self.scroll_once(&collection, &page, &read).await {
                Err(Error::Split { .. }) => collection = self.split_meanwhile(&collection)?,
                records => return records,
            }
        }
    }

    /// The collection to read by. A session may have written to a shard that was split off from another one, or merged of two, since this
    /// coordinator looked: whoever went by the route from before could be answered by a replica from before, which has nothing of that.
    pub(crate) async fn with_all_of<'a>(
        &self,
        collection: &'a Collection,
        tokens: &Tokens,
        deadline: Deadline,
    ) -> Result<Cow<'a, Collection>, Error> {
        let Tokens::AtLeast(tokens) = tokens else { return Ok(Cow::Borrowed(collection)) };
        let has_all = |collection: &Collection| {
            tokens.iter().all(|(wanted, _)| collection.shards.iter().any(|shard| shard.id == *wanted))
        };
        if has_all(collection) {
            return Ok(Cow::Borrowed(collection));
        }
        // First: a split that is under way by it and over by what comes next must not be missed.
        let state = self.control.state();
        let present = self.split_meanwhile(collection)?;
        if has_all(&present) {
            return Ok(present);
        }
        // One that is gone, or of another collection, promises nothing here.
        let is_to_come = |shard: u64| {
            !state.has_placed(shard)
                || state.splits_under_way().any(|split| split.right.id == shard)
                || state.merges_under_way().any(|merge| merge.into.id == shard)
        };
        if !tokens.iter().any(|(shard, _)| is_to_come(*shard)) {
            return Ok(present);
        }
        self.catch_up(deadline).await?;
        self.split_meanwhile(collection)
    }

    /// The collection with what a shard was split into, or became part of.
    pub(crate) fn split_meanwhile(&self, collection: &Collection) -> Result<Cow<'static, Collection>, Error> {
        Ok(Cow::Owned(Arc::unwrap_or_clone(present(&self.control, collection)?)))
    }

    async fn scroll_once(&self, collection: &Collection, page: &Page, read: &Read) -> Result<Vec<Record>, Error> {
        let parts = collection.shards.iter().map(|shard| {
            let scroll = |node, shard| self.nodes.scroll(node, shard, page.clone(), read.clone());
            self.at_replica(collection, shard, read, scroll)
        });
        let mut records: Vec<Record> = try_join_all(parts).await?.into_iter().flatten().collect();
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

/// What all parts of a write have in common.
#[derive(Clone, Copy)]
struct Call {
    request_id: u128,
    wait: Wait,
    deadline: Deadline,
}

/// What shards said of their parts of a write.
type Answers = Vec<Result<Written, Error>>;

/// What came of a part of a write.
struct Written {
    result: WriteResult,
    /// The entry that did this before the shard was split, if one did: of which shard's log, and its index. Whatever was split off from that
    /// shard since answers the same, and `applied` is of all of it.
    before: Option<(u64, u64)>,
}

/// What came of all parts.
fn gather(mut parts: Answers) -> Result<WriteResult, Error> {
    let mut all = WriteResult::default();
    let mut counted = BTreeSet::new();
    // Of several failures one in doubt is told: whoever is told of a refusal may think that nothing was done.
    parts.sort_by_key(|part| !part.as_ref().is_err_and(Error::is_in_doubt));
    for written in parts {
        let Written { mut result, before } = written?;
        if before.is_none_or(|entry| counted.insert(entry)) {
            all.applied += result.applied;
        }
        all.failures.append(&mut result.failures);
        all.tokens.append(&mut result.tokens);
    }
    all.failures.sort_by_key(|failure| failure.index);
    Ok(all)
}

/// See [`Written::before`]. Of shards that were split more than once, entries with the same index of both halves cannot be told apart, which makes the
/// count of a repeated request too small in the worst case.
fn before_split(collection: &Collection, shard: &ShardDescriptor, result: &WriteResult) -> Option<(u64, u64)> {
    let written = result.tokens.iter().find(|token| token.shard == shard.id)?;
    if written.index >= shard.split?.index {
        return None;
    }
    let parent = |shard: &&ShardDescriptor| collection.shards.iter().find(|one| Some(one.id) == shard.parent);
    let first = std::iter::successors(Some(shard), parent).last()?;
    Some((first.id, written.index))
}

/// Leaves of the failures those of this change: a shard that was split since it applied the same request answers each half of it with what
/// came of the whole.
pub(crate) fn only_of(change: &Change, written: &mut WriteResult) {
    let ids: Vec<PointId> = match change {
        Change::Upsert(points) => points.iter().map(|point| point.id).collect(),
        Change::Delete(ids) | Change::UpdatePayload { target: Target::Ids(ids), .. } => ids.clone(),
        Change::DeleteByFilter(_) | Change::UpdatePayload { .. } => return,
    };
    written.failures.retain_mut(|failure| {
        if ids.get(failure.index) == Some(&failure.id) {
            return true;
        }
        let found = ids.iter().position(|id| *id == failure.id);
        failure.index = found.unwrap_or_default();
        found.is_some()
    });
}

/// A shard's part of a change.
struct Part<'a> {
    shard: &'a ShardDescriptor,
    change: Arc<Change>,
    /// Where the part's items stood in the whole change; `None` where that is the same.
    positions: Option<Vec<usize>>,
}

/// The parts of a change that concerns no other points than those of these hashes.
fn split(collection: &Collection, range: HashRange, change: Change) -> Vec<Part<'_>> {
    let whole = |shard, change| Part { shard, change: Arc::new(change), positions: None };
    if let [shard] = &collection.shards[..] {
        return vec![whole(shard, change)];
    }
    let part = |shard, change, positions| Part { shard, change: Arc::new(change), positions: Some(positions) };
    match change {
        Change::Upsert(points) => split_items(collection, points, |point| point.id)
            .map(|(shard, (points, positions))| part(shard, Change::Upsert(points), positions))
            .collect(),
        Change::Delete(ids) => split_items(collection, ids, |id| *id)
            .map(|(shard, (ids, positions))| part(shard, Change::Delete(ids), positions))
            .collect(),
        Change::UpdatePayload { target: Target::Ids(ids), change } => split_items(collection, ids, |id| *id)
            .map(|(shard, (ids, positions))| {
                part(shard, Change::UpdatePayload { target: Target::Ids(ids), change: change.clone() }, positions)
            })
            .collect(),
        change @ (Change::DeleteByFilter(_) | Change::UpdatePayload { .. }) => {
            let within = |shard: &&ShardDescriptor| range.contains(shard.range.first);
            collection.shards.iter().filter(within).map(|shard| whole(shard, change.clone())).collect()
        }
    }
}

/// What [`split`] made parts of.
fn whole(parts: Vec<Part<'_>>) -> Change {
    let mut parts = parts.into_iter().map(|part| (Arc::unwrap_or_clone(part.change), part.positions));
    let Some((mut change, positions)) = parts.next() else { return Change::Delete(Vec::new()) };
    let Some(mut positions) = positions else { return change };
    for (more, at) in parts {
        match (&mut change, more) {
            (Change::Upsert(points), Change::Upsert(more)) => points.extend(more),
            (Change::Delete(ids), Change::Delete(more)) => ids.extend(more),
            (
                Change::UpdatePayload { target: Target::Ids(ids), .. },
                Change::UpdatePayload { target: Target::Ids(more), .. },
            ) => ids.extend(more),
            _ => {}
        }
        positions.extend(at.into_iter().flatten());
    }
    match &mut change {
        Change::Upsert(points) => in_order(points, &positions),
        Change::Delete(ids) | Change::UpdatePayload { target: Target::Ids(ids), .. } => in_order(ids, &positions),
        Change::DeleteByFilter(_) | Change::UpdatePayload { .. } => {}
    }
    change
}

/// Puts items where they stood: one position for each.
fn in_order<T>(items: &mut Vec<T>, positions: &[usize]) {
    let mut placed: Vec<_> = positions.iter().copied().zip(items.drain(..)).collect();
    placed.sort_unstable_by_key(|(at, _)| *at);
    items.extend(placed.into_iter().map(|(_, item)| item));
}

/// Whether these hashes have shards that have no others.
fn has_alone(collection: &Collection, range: HashRange) -> bool {
    let touches = |shard: &&ShardDescriptor| shard.range.first <= range.last && range.first <= shard.range.last;
    let is_within = |shard: &ShardDescriptor| range.first <= shard.range.first && shard.range.last <= range.last;
    collection.shards.iter().filter(touches).all(is_within)
}

/// Whether a part has to be written anew together with others.
fn is_merged(error: &Error) -> bool {
    matches!(error, Error::Split { .. })
}

type Items<T> = (Vec<T>, Vec<usize>);

/// The items by the shard that is responsible for them, each with where it stood.
fn split_items<T>(
    collection: &Collection,
    items: impl IntoIterator<Item = T>,
    id: impl Fn(&T) -> PointId,
) -> impl Iterator<Item = (&ShardDescriptor, Items<T>)> {
    let mut parts: Vec<Items<T>> = collection.shards.iter().map(|_| Items::default()).collect();
    for (at, item) in items.into_iter().enumerate() {
        let (items, positions) = &mut parts[collection.place_of(id(&item))];
        items.push(item);
        positions.push(at);
    }
    collection.shards.iter().zip(parts).filter(|(_, (items, _))| !items.is_empty())
}
