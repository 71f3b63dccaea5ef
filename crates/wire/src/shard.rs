//! Requests and answers of `ShardService`, between a coordinator and the nodes; see `proto/sagitta/internal/v1/shard.proto`.

use std::sync::Arc;

use bytes::Bytes;
use sagitta_model::{
    Change, CollectionStatistics, Filter, Page, PayloadChange, PointId, Record, Selection, ShardError, ShardRef,
    Target, Tokens, Violation, Wait, WriteResult, limits,
};

use crate::collections::{statistics_from, statistics_into};
use crate::common::{Convert, bounded, count, each, ids_from, ids_into, narrow, node, required, uuid, uuid_bytes};
use crate::internal as p;
use crate::points::{
    optional_filter_from, optional_filter_into, points_from, record_from, record_into, wait_from, wait_into,
};
use crate::read::{paths_from, paths_into, selection_from, selection_into};
use crate::v1;
use crate::value::{object_into, payload_from};
use crate::version::MAX_PLACES;

mod error;
mod search;

pub use search::{MAX_SHARDS, Search, search_answer, search_request};

/// The largest request: the largest public one with the names of vectors written out.
pub const MAX_REQUEST_BYTES: usize = 80 << 20;
/// The largest answer. Larger than a public one, because a coordinator picks the best out of the answers of several shards.
pub const MAX_ANSWER_BYTES: usize = limits::MAX_ANSWER_WEIGHT;
/// The largest question to a shard that is merged: a few thousand ids.
const MAX_QUESTION_BYTES: usize = 1 << 20;

/// What a replica answers.
pub type Answer<T> = Result<T, ShardError>;

/// Changes points of a shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Where.
    pub shard: ShardRef,
    /// Identity of the write over its retries.
    pub request_id: u128,
    /// What to change.
    pub change: Change,
    /// What to wait for.
    pub wait: Wait,
}

/// Reads points of a shard by id.
#[derive(Clone, Debug, PartialEq)]
pub struct Get {
    /// Where.
    pub shard: ShardRef,
    /// The ids.
    pub ids: Vec<PointId>,
    /// What to return of each.
    pub selection: Selection,
    /// What the shard must have seen.
    pub tokens: Tokens,
}

/// Counts points of a shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Count {
    /// Where.
    pub shard: ShardRef,
    /// Which points; `None` for all.
    pub filter: Option<Arc<Filter>>,
    /// What the shard must have seen.
    pub tokens: Tokens,
}

/// Reads a page of a shard's points.
#[derive(Clone, Debug, PartialEq)]
pub struct Scroll {
    /// Where.
    pub shard: ShardRef,
    /// Which page.
    pub page: Page,
    /// What the shard must have seen.
    pub tokens: Tokens,
}

/// Has another voter lead the group of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// Where.
    pub shard: ShardRef,
    /// The voter.
    pub to: u64,
}

/// Asks the leader of a shard that is merged what it has. Neither the question nor the answer is looked into on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// Where.
    pub shard: ShardRef,
    /// The question.
    pub question: Bytes,
}

impl Convert for ShardRef {
    type Proto = p::ShardRef;
    type Error = Violation;

    fn from_proto(proto: p::ShardRef) -> Result<Self, Violation> {
        if proto.shard == 0 {
            return Err(Violation::new("shard", "is 0, which is no shard"));
        }
        Ok(Self { shard: proto.shard, epoch: proto.epoch, split: proto.split })
    }

    fn into_proto(self) -> p::ShardRef {
        p::ShardRef { shard: self.shard, epoch: self.epoch, split: self.split }
    }
}

/// Reads the field `shard`.
pub fn shard_from(proto: Option<p::ShardRef>) -> Result<ShardRef, Violation> {
    ShardRef::from_proto(required("shard", proto)?).map_err(|violation| violation.within("shard"))
}

/// Reads the field `freshness`.
fn tokens_from(proto: Option<p::Freshness>) -> Result<Tokens, Violation> {
    match proto.and_then(|freshness| freshness.level) {
        None => Ok(Tokens::Any),
        Some(p::freshness::Level::Latest(p::Latest {})) => Ok(Tokens::Latest),
        Some(p::freshness::Level::AtLeast(p::Places { places })) => {
            count("freshness.at_least.places", places.len(), 0, MAX_PLACES)?;
            Ok(Tokens::AtLeast(places.into_iter().map(|place| (place.shard, place.index)).collect()))
        }
    }
}

fn tokens_into(tokens: &Tokens) -> Option<p::Freshness> {
    let level = match tokens {
        Tokens::Any => return None,
        Tokens::Latest => p::freshness::Level::Latest(p::Latest {}),
        Tokens::AtLeast(places) => {
            let places = places.iter().map(|&(shard, index)| p::places::Place { shard, index });
            p::freshness::Level::AtLeast(p::Places { places: places.collect() })
        }
    };
    Some(p::Freshness { level: Some(level) })
}

impl Convert for Write {
    type Proto = p::ShardWriteRequest;
    type Error = Violation;

    fn from_proto(proto: p::ShardWriteRequest) -> Result<Self, Violation> {
        use p::shard_write_request::Change as C;
        let change = match required("change", proto.change)? {
            C::Upsert(p::ShardPoints { points }) => {
                Change::Upsert(points_from(points).map_err(|violation| violation.within("upsert"))?)
            }
            C::Delete(list) => Change::Delete(ids_from("delete.ids", list.ids)?),
            C::DeleteByFilter(filter) => {
                Change::DeleteByFilter(Filter::from_proto(filter).map_err(|v| v.within("delete_by_filter"))?)
            }
            C::UpdatePayload(update) => update_from(update).map_err(|v| v.within("update_payload"))?,
        };
        Ok(Self {
            shard: shard_from(proto.shard)?,
            request_id: uuid("request_id", &proto.request_id)?,
            change,
            wait: wait_from(proto.wait)?,
        })
    }

    fn into_proto(self) -> p::ShardWriteRequest {
        use p::shard_write_request::Change as C;
        let change = match self.change {
            Change::Upsert(points) => {
                C::Upsert(p::ShardPoints { points: points.into_iter().map(Convert::into_proto).collect() })
            }
            Change::Delete(ids) => C::Delete(v1::PointIdList { ids: ids_into(ids) }),
            Change::DeleteByFilter(filter) => C::DeleteByFilter(filter.into_proto()),
            Change::UpdatePayload { target, change } => C::UpdatePayload(update_into(target, change)),
        };
        p::ShardWriteRequest {
            shard: Some(self.shard.into_proto()),
            request_id: uuid_bytes(self.request_id),
            wait: wait_into(self.wait),
            change: Some(change),
        }
    }
}

fn update_from(proto: p::PayloadUpdate) -> Result<Change, Violation> {
    use p::payload_update as u;
    let target = match required("target", proto.target)? {
        u::Target::Ids(list) => Target::Ids(ids_from("ids.ids", list.ids)?),
        u::Target::Filter(filter) => Target::Filter(Filter::from_proto(filter).map_err(|v| v.within("filter"))?),
    };
    let change = match required("change", proto.change)? {
        u::Change::Merge(object) => PayloadChange::Merge(payload_from("merge", object.entries)?),
        u::Change::Replace(object) => PayloadChange::Replace(payload_from("replace", object.entries)?),
        u::Change::Delete(list) => PayloadChange::Delete(paths_from(list).map_err(|v| v.within("delete"))?),
    };
    Ok(Change::UpdatePayload { target, change })
}

fn update_into(target: Target, change: PayloadChange) -> p::PayloadUpdate {
    use p::payload_update as u;
    let target = match target {
        Target::Ids(ids) => u::Target::Ids(v1::PointIdList { ids: ids_into(ids) }),
        Target::Filter(filter) => u::Target::Filter(filter.into_proto()),
    };
    let object = |fields| v1::ObjectValue { entries: object_into(fields) };
    let change = match change {
        PayloadChange::Merge(fields) => u::Change::Merge(object(fields)),
        PayloadChange::Replace(fields) => u::Change::Replace(object(fields)),
        PayloadChange::Delete(paths) => u::Change::Delete(paths_into(&paths)),
    };
    p::PayloadUpdate { target: Some(target), change: Some(change) }
}

impl Convert for Get {
    type Proto = p::ShardGetRequest;
    type Error = Violation;

    fn from_proto(proto: p::ShardGetRequest) -> Result<Self, Violation> {
        Ok(Self {
            shard: shard_from(proto.shard)?,
            ids: ids_from("ids", proto.ids)?,
            selection: selection_from(proto.payload, proto.vectors)?,
            tokens: tokens_from(proto.freshness)?,
        })
    }

    fn into_proto(self) -> p::ShardGetRequest {
        let (payload, vectors) = selection_into(self.selection);
        p::ShardGetRequest {
            shard: Some(self.shard.into_proto()),
            ids: ids_into(self.ids),
            payload,
            vectors,
            freshness: tokens_into(&self.tokens),
        }
    }
}

impl Convert for Count {
    type Proto = p::ShardCountRequest;
    type Error = Violation;

    fn from_proto(proto: p::ShardCountRequest) -> Result<Self, Violation> {
        Ok(Self {
            shard: shard_from(proto.shard)?,
            filter: optional_filter_from(proto.filter)?,
            tokens: tokens_from(proto.freshness)?,
        })
    }

    fn into_proto(self) -> p::ShardCountRequest {
        p::ShardCountRequest {
            shard: Some(self.shard.into_proto()),
            filter: optional_filter_into(self.filter),
            freshness: tokens_into(&self.tokens),
        }
    }
}

impl Convert for Scroll {
    type Proto = p::ShardScrollRequest;
    type Error = Violation;

    fn from_proto(proto: p::ShardScrollRequest) -> Result<Self, Violation> {
        let after = proto.after.map(PointId::from_proto).transpose().map_err(|v| v.within("after"))?;
        let page = Page {
            after,
            limit: bounded("limit", proto.limit, limits::MAX_PAGE)?,
            filter: optional_filter_from(proto.filter)?,
            selection: selection_from(proto.payload, proto.vectors)?,
        };
        Ok(Self { shard: shard_from(proto.shard)?, page, tokens: tokens_from(proto.freshness)? })
    }

    fn into_proto(self) -> p::ShardScrollRequest {
        let (payload, vectors) = selection_into(self.page.selection);
        p::ShardScrollRequest {
            shard: Some(self.shard.into_proto()),
            after: self.page.after.map(Convert::into_proto),
            limit: narrow(self.page.limit),
            filter: optional_filter_into(self.page.filter),
            payload,
            vectors,
            freshness: tokens_into(&self.tokens),
        }
    }
}

impl Convert for HandOver {
    type Proto = p::HandOverRequest;
    type Error = Violation;

    fn from_proto(proto: p::HandOverRequest) -> Result<Self, Violation> {
        Ok(Self { shard: shard_from(proto.shard)?, to: node("to", proto.to)? })
    }

    fn into_proto(self) -> p::HandOverRequest {
        p::HandOverRequest { shard: Some(self.shard.into_proto()), to: self.to }
    }
}

impl Convert for Pull {
    type Proto = p::PullRequest;
    type Error = Violation;

    fn from_proto(proto: p::PullRequest) -> Result<Self, Violation> {
        let (bytes, most) = (proto.question.len(), MAX_QUESTION_BYTES);
        if bytes > most {
            return Err(Violation::new("question", format!("has {bytes} bytes, at most {most} are allowed")));
        }
        Ok(Self { shard: shard_from(proto.shard)?, question: proto.question })
    }

    fn into_proto(self) -> p::PullRequest {
        p::PullRequest { shard: Some(self.shard.into_proto()), question: self.question }
    }
}

/// An answer that can be read from its message, given what it was asked for.
pub trait Answered: Sized {
    /// What must be known of the request.
    type Asked: ?Sized;
    /// What the replica answers.
    type Value;

    /// Reads the answer.
    fn answered(self, asked: &Self::Asked) -> Result<Self::Value, Violation>;
}

/// Reads an answer that is either an error or a value.
pub(crate) fn outcome<T>(
    error: Option<p::ShardError>,
    value: impl FnOnce() -> Result<T, Violation>,
) -> Result<Answer<T>, Violation> {
    match error {
        Some(error) => ShardError::from_proto(error).map(Err).map_err(|violation| violation.within("error")),
        None => value().map(Ok),
    }
}

/// The two fields of an answer.
pub(crate) fn fields<T>(answer: Answer<T>) -> (Option<T>, Option<p::ShardError>) {
    match answer {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some(error.into_proto())),
    }
}

/// The answer to a [`Write`].
pub fn write_answer(answer: Answer<WriteResult>) -> p::ShardWriteResponse {
    let (result, error) = fields(answer);
    p::ShardWriteResponse { result: result.map(Convert::into_proto), error }
}

impl Answered for p::ShardWriteResponse {
    type Asked = ();
    type Value = Answer<WriteResult>;

    fn answered(self, (): &()) -> Result<Self::Value, Violation> {
        outcome(self.error, || {
            let result = WriteResult::from_proto(required("result", self.result)?);
            result.map_err(|error| error.violation().within("result"))
        })
    }
}

/// The answer to a [`Get`].
pub fn get_answer(answer: Answer<Vec<Record>>) -> p::ShardGetResponse {
    let (points, error) = fields(answer);
    let points = points.unwrap_or_default().into_iter().map(record_into).collect();
    fitting(p::ShardGetResponse { points, error }, |error| p::ShardGetResponse { points: Vec::new(), error })
}

impl Answered for p::ShardGetResponse {
    /// How many points there are at most, and what was to be returned of them.
    type Asked = (usize, Selection);
    type Value = Answer<Vec<Record>>;

    fn answered(self, (most, selection): &Self::Asked) -> Result<Self::Value, Violation> {
        outcome(self.error, || records_from(self.points, *most, selection))
    }
}

fn records_from(points: Vec<v1::Point>, most: usize, selection: &Selection) -> Result<Vec<Record>, Violation> {
    count("points", points.len(), 0, most)?;
    each("points", points, |point| record_from(point, selection))
}

/// The answer to a [`Count`].
pub fn count_answer(answer: Answer<u64>) -> p::ShardCountResponse {
    let (count, error) = fields(answer);
    p::ShardCountResponse { count: count.unwrap_or_default(), error }
}

impl Answered for p::ShardCountResponse {
    type Asked = ();
    type Value = Answer<u64>;

    fn answered(self, (): &()) -> Result<Self::Value, Violation> {
        outcome(self.error, || Ok(self.count))
    }
}

/// The answer to a [`Scroll`].
pub fn scroll_answer(answer: Answer<Vec<Record>>) -> p::ShardScrollResponse {
    let (points, error) = fields(answer);
    let points = points.unwrap_or_default().into_iter().map(record_into).collect();
    fitting(p::ShardScrollResponse { points, error }, |error| p::ShardScrollResponse { points: Vec::new(), error })
}

impl Answered for p::ShardScrollResponse {
    /// As for a `Get`.
    type Asked = (usize, Selection);
    type Value = Answer<Vec<Record>>;

    fn answered(self, (most, selection): &Self::Asked) -> Result<Self::Value, Violation> {
        outcome(self.error, || records_from(self.points, *most, selection))
    }
}

/// The answer to a request for statistics.
pub fn statistics_answer(answer: Answer<CollectionStatistics>) -> p::ShardStatisticsResponse {
    let (statistics, error) = fields(answer);
    p::ShardStatisticsResponse { statistics: statistics.map(statistics_into), error }
}

impl Answered for p::ShardStatisticsResponse {
    type Asked = ();
    type Value = Answer<CollectionStatistics>;

    fn answered(self, (): &()) -> Result<Self::Value, Violation> {
        outcome(self.error, || Ok(statistics_from(required("statistics", self.statistics)?)))
    }
}

/// The answer to a [`HandOver`].
pub fn hand_over_answer(answer: Answer<()>) -> p::HandOverResponse {
    p::HandOverResponse { error: fields(answer).1 }
}

impl Answered for p::HandOverResponse {
    type Asked = ();
    type Value = Answer<()>;

    fn answered(self, (): &()) -> Result<Self::Value, Violation> {
        outcome(self.error, || Ok(()))
    }
}

/// The answer to a [`Pull`].
pub fn pull_answer(answer: Answer<Bytes>) -> p::PullResponse {
    let (answer, error) = fields(answer);
    p::PullResponse { answer: answer.unwrap_or_default(), error }
}

impl Answered for p::PullResponse {
    type Asked = ();
    type Value = Answer<Bytes>;

    fn answered(self, (): &()) -> Result<Self::Value, Violation> {
        outcome(self.error, || Ok(self.answer))
    }
}

/// The message, or one that says that it is too large to be sent.
fn fitting<M: prost::Message>(message: M, instead: impl FnOnce(Option<p::ShardError>) -> M) -> M {
    if message.encoded_len() <= MAX_ANSWER_BYTES { message } else { instead(Some(error::too_heavy())) }
}
