//! Requests and answers of `PointService`. Its stream is in [`crate::upload`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sagitta_model::{
    Change, CollectionName, Consistency, Filter, ItemFailure, NamedVectors, PayloadChange, PayloadSelection, Point,
    PointId, Problem, Record, Schema, Selection, Target, Violation, Wait, WriteResult, limits,
};

use crate::common::{
    Convert, RequestId, collection_name, count, each, entry, ids_from, ids_into, narrow, required, unknown_enum, widen,
};
use crate::error::WireError;
use crate::page::Page;
use crate::read::{check_selection, consistency_from, paths_from, paths_into, selection_from, selection_into};
use crate::v1;
use crate::value::{object_into, payload_from};
use crate::version;

/// Any of the unary writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Of which collection.
    pub collection: CollectionName,
    /// What to change.
    pub change: Change,
    /// What to wait for.
    pub wait: Wait,
    /// Identity of the request.
    pub request_id: Option<RequestId>,
}

/// The request of one of the unary writes.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "named like the RPCs that they are the requests of")]
pub enum WriteRequest {
    Upsert(v1::UpsertRequest),
    Delete(v1::DeleteRequest),
    DeleteByFilter(v1::DeleteByFilterRequest),
    UpdatePayload(v1::UpdatePayloadRequest),
}

/// Reads points by id.
#[derive(Clone, Debug, PartialEq)]
pub struct Get {
    /// Of which collection.
    pub collection: CollectionName,
    /// The ids.
    pub ids: Vec<PointId>,
    /// What to return of each.
    pub selection: Selection,
    /// How fresh.
    pub consistency: Consistency,
}

/// Counts points.
#[derive(Clone, Debug, PartialEq)]
pub struct Count {
    /// Of which collection.
    pub collection: CollectionName,
    /// Which points; `None` for all.
    pub filter: Option<Arc<Filter>>,
    /// How fresh.
    pub consistency: Consistency,
}

/// Reads all points, page by page, ascending by id.
#[derive(Clone, Debug, PartialEq)]
pub struct Scroll {
    /// Of which collection.
    pub collection: CollectionName,
    /// Which points; `None` for all.
    pub filter: Option<Arc<Filter>>,
    /// What to return of each.
    pub selection: Selection,
    /// How fresh.
    pub consistency: Consistency,
}

/// One page of points.
#[derive(Clone, Debug, PartialEq)]
pub struct PointPage {
    /// The points, ascending by id.
    pub points: Vec<Record>,
    /// The token of the next page; empty when there is none.
    pub next_page_token: String,
}

impl Write {
    /// Reads an upsert.
    pub fn from_upsert(proto: v1::UpsertRequest) -> Result<Self, Violation> {
        let change = Change::Upsert(points_from(proto.points)?);
        Self::new(&proto.collection, change, proto.wait, &proto.request_id)
    }

    /// Reads a delete by id.
    pub fn from_delete(proto: v1::DeleteRequest) -> Result<Self, Violation> {
        let change = Change::Delete(ids_from("ids", proto.ids)?);
        Self::new(&proto.collection, change, proto.wait, &proto.request_id)
    }

    /// Reads a delete by filter.
    pub fn from_delete_by_filter(proto: v1::DeleteByFilterRequest) -> Result<Self, Violation> {
        let filter = Filter::from_proto(required("filter", proto.filter)?).map_err(|v| v.within("filter"))?;
        Self::new(&proto.collection, Change::DeleteByFilter(filter), proto.wait, &proto.request_id)
    }

    /// Reads a change of payloads.
    pub fn from_update_payload(proto: v1::UpdatePayloadRequest) -> Result<Self, Violation> {
        use v1::update_payload_request as p;
        let target = match proto.target {
            Some(p::Target::Ids(list)) => Target::Ids(ids_from("ids.ids", list.ids)?),
            Some(p::Target::Filter(filter)) => {
                Target::Filter(Filter::from_proto(filter).map_err(|v| v.within("filter"))?)
            }
            None => return Err(Violation::new("target", "is missing: set `ids` or `filter`")),
        };
        let change = match proto.change {
            Some(p::Change::Merge(object)) => PayloadChange::Merge(payload_from("merge", object.entries)?),
            Some(p::Change::Replace(object)) => PayloadChange::Replace(payload_from("replace", object.entries)?),
            Some(p::Change::Delete(list)) => PayloadChange::Delete(paths_from(list).map_err(|v| v.within("delete"))?),
            None => {
                return Err(Violation::new("change", "is missing: set `merge`, `replace` or `delete`"));
            }
        };
        let change = Change::UpdatePayload { target, change };
        Self::new(&proto.collection, change, proto.wait, &proto.request_id)
    }

    fn new(collection: &str, change: Change, wait: i32, request_id: &str) -> Result<Self, Violation> {
        Ok(Self {
            collection: collection_name(collection)?,
            change,
            wait: wait_from(wait)?,
            request_id: RequestId::optional(request_id)?,
        })
    }

    /// The request that asks for it.
    pub fn into_proto(self) -> WriteRequest {
        use v1::update_payload_request as p;
        let collection = self.collection.to_string();
        let wait = wait_into(self.wait);
        let request_id = RequestId::optional_text(self.request_id);
        match self.change {
            Change::Upsert(points) => {
                let points = points.into_iter().map(Convert::into_proto).collect();
                WriteRequest::Upsert(v1::UpsertRequest { collection, points, wait, request_id })
            }
            Change::Delete(ids) => {
                WriteRequest::Delete(v1::DeleteRequest { collection, ids: ids_into(ids), wait, request_id })
            }
            Change::DeleteByFilter(filter) => {
                let filter = Some(filter.into_proto());
                WriteRequest::DeleteByFilter(v1::DeleteByFilterRequest { collection, filter, wait, request_id })
            }
            Change::UpdatePayload { target, change } => {
                let target = Some(match target {
                    Target::Ids(ids) => p::Target::Ids(v1::PointIdList { ids: ids_into(ids) }),
                    Target::Filter(filter) => p::Target::Filter(filter.into_proto()),
                });
                let object = |fields| v1::ObjectValue { entries: object_into(fields) };
                let change = Some(match change {
                    PayloadChange::Merge(fields) => p::Change::Merge(object(fields)),
                    PayloadChange::Replace(fields) => p::Change::Replace(object(fields)),
                    PayloadChange::Delete(paths) => p::Change::Delete(paths_into(&paths)),
                });
                let request = v1::UpdatePayloadRequest { collection, target, change, wait, request_id };
                WriteRequest::UpdatePayload(request)
            }
        }
    }

    /// Names unnamed vectors and checks points, filters and payload fields against the schema.
    pub fn resolve(&mut self, schema: &Schema) -> Result<(), Violation> {
        match &mut self.change {
            Change::Upsert(points) => resolve_points(points, schema),
            Change::Delete(_) => Ok(()),
            Change::DeleteByFilter(filter) => check_filter(Some(filter), schema),
            Change::UpdatePayload { target, change } => {
                if let Target::Filter(filter) = target {
                    check_filter(Some(filter), schema)?;
                }
                match change {
                    PayloadChange::Merge(fields) => check_fields("merge", fields, schema),
                    PayloadChange::Replace(fields) => check_fields("replace", fields, schema),
                    PayloadChange::Delete(_) => Ok(()),
                }
            }
        }
    }
}

fn check_filter(filter: Option<&Filter>, schema: &Schema) -> Result<(), Violation> {
    filter.map_or(Ok(()), |filter| filter.validate(schema).map_err(|violation| violation.within("filter")))
}

fn check_fields(field: &str, fields: &sagitta_model::Object, schema: &Schema) -> Result<(), Violation> {
    schema.check_payload(fields).map_err(|violation| {
        // The model speaks of a point's payload; here it is what the request calls it.
        let path = violation.field.strip_prefix("payload").unwrap_or(&violation.field);
        Violation::new(format!("{field}{path}"), violation.reason)
    })
}

/// Names unnamed vectors and checks every point against the schema.
pub(crate) fn resolve_points(points: &mut [Point], schema: &Schema) -> Result<(), Violation> {
    for (at, point) in points.iter_mut().enumerate() {
        let checked = point.name_vector(schema).and_then(|()| point.validate(schema));
        checked.map_err(|violation| violation.within(&format!("points[{at}]")))?;
    }
    Ok(())
}

impl Convert for WriteResult {
    type Proto = v1::WriteResponse;
    type Error = WireError;

    fn from_proto(proto: v1::WriteResponse) -> Result<Self, WireError> {
        let tokens = version::decode(&proto.version_token)
            .map_err(|fault| WireError::VersionToken { field: "version_token".to_owned(), fault })?;
        Ok(Self {
            applied: proto.applied,
            failures: each("failures", proto.failures, ItemFailure::from_proto)?,
            tokens,
        })
    }

    fn into_proto(self) -> v1::WriteResponse {
        v1::WriteResponse {
            applied: self.applied,
            failures: self.failures.into_iter().map(Convert::into_proto).collect(),
            version_token: version::encode(self.tokens),
        }
    }
}

impl Convert for ItemFailure {
    type Proto = v1::ItemFailure;
    type Error = Violation;

    fn from_proto(proto: v1::ItemFailure) -> Result<Self, Violation> {
        Ok(Self {
            index: widen(proto.index),
            id: id_from(proto.id)?,
            problem: Problem::from_proto(required("problem", proto.problem)?)?,
        })
    }

    fn into_proto(self) -> v1::ItemFailure {
        v1::ItemFailure {
            index: narrow(self.index),
            id: Some(self.id.into_proto()),
            problem: Some(self.problem.into_proto()),
        }
    }
}

impl Get {
    /// Checks that the collection has the selected vectors.
    pub fn resolve(&self, schema: &Schema) -> Result<(), Violation> {
        check_selection(&self.selection, schema)
    }
}

impl Convert for Get {
    type Proto = v1::GetRequest;
    type Error = WireError;

    fn from_proto(proto: v1::GetRequest) -> Result<Self, WireError> {
        Ok(Self {
            collection: collection_name(&proto.collection)?,
            ids: ids_from("ids", proto.ids)?,
            selection: selection_from(proto.payload, proto.vectors)?,
            consistency: consistency_from(proto.consistency)?,
        })
    }

    fn into_proto(self) -> v1::GetRequest {
        let (payload, vectors) = selection_into(self.selection);
        v1::GetRequest {
            collection: self.collection.to_string(),
            ids: ids_into(self.ids),
            payload,
            vectors,
            consistency: Some(self.consistency.into_proto()),
        }
    }
}

/// The answer to a [`Get`]: the points that exist, in the order of the ids.
pub fn get_response(points: Vec<Record>) -> v1::GetResponse {
    v1::GetResponse { points: points.into_iter().map(record_into).collect() }
}

/// Reads the answer to a [`Get`] with this selection.
pub fn points_of(proto: v1::GetResponse, selection: &Selection) -> Result<Vec<Record>, Violation> {
    each("points", proto.points, |point| record_from(point, selection))
}

impl Count {
    /// Checks the filter against the schema.
    pub fn resolve(&self, schema: &Schema) -> Result<(), Violation> {
        check_filter(self.filter.as_deref(), schema)
    }
}

impl Convert for Count {
    type Proto = v1::CountRequest;
    type Error = WireError;

    fn from_proto(proto: v1::CountRequest) -> Result<Self, WireError> {
        Ok(Self {
            collection: collection_name(&proto.collection)?,
            filter: optional_filter_from(proto.filter)?,
            consistency: consistency_from(proto.consistency)?,
        })
    }

    fn into_proto(self) -> v1::CountRequest {
        v1::CountRequest {
            collection: self.collection.to_string(),
            filter: optional_filter_into(self.filter),
            consistency: Some(self.consistency.into_proto()),
        }
    }
}

impl Scroll {
    /// Reads the request and which page it asks for.
    pub fn from_proto(proto: v1::ScrollRequest) -> Result<(Self, Page<PointId>), WireError> {
        let scroll = Self {
            collection: collection_name(&proto.collection)?,
            filter: optional_filter_from(proto.filter)?,
            selection: selection_from(proto.payload, proto.vectors)?,
            consistency: consistency_from(proto.consistency)?,
        };
        let page = Page::new(proto.page_size, &proto.page_token, &scroll.clone().unpaged())?;
        Ok((scroll, page))
    }

    /// Checks filter and selection against the schema.
    pub fn resolve(&self, schema: &Schema) -> Result<(), Violation> {
        check_filter(self.filter.as_deref(), schema)?;
        check_selection(&self.selection, schema)
    }

    /// The request for a page of at most `page_size` (0: as many as the server likes) points.
    pub fn into_proto(self, page_size: usize, page_token: String) -> v1::ScrollRequest {
        let consistency = Some(self.consistency.clone().into_proto());
        v1::ScrollRequest { page_size: narrow(page_size), page_token, consistency, ..self.unpaged() }
    }

    /// What must stay the same from page to page.
    fn unpaged(self) -> v1::ScrollRequest {
        let (payload, vectors) = selection_into(self.selection);
        v1::ScrollRequest {
            collection: self.collection.to_string(),
            filter: optional_filter_into(self.filter),
            payload,
            vectors,
            ..Default::default()
        }
    }
}

impl PointPage {
    /// The answer that carries the page.
    pub fn into_proto(self) -> v1::ScrollResponse {
        let points = self.points.into_iter().map(record_into).collect();
        v1::ScrollResponse { points, next_page_token: self.next_page_token }
    }

    /// Reads the answer to a [`Scroll`] with this selection.
    pub fn from_proto(proto: v1::ScrollResponse, selection: &Selection) -> Result<Self, Violation> {
        let points = each("points", proto.points, |point| record_from(point, selection))?;
        Ok(Self { points, next_page_token: proto.next_page_token })
    }
}

impl Convert for Point {
    type Proto = v1::Point;
    type Error = Violation;

    fn from_proto(proto: v1::Point) -> Result<Self, Violation> {
        Ok(Self {
            id: id_from(proto.id)?,
            vectors: named_vectors_from(proto.vectors)?,
            payload: payload_from("payload", proto.payload)?,
        })
    }

    fn into_proto(self) -> v1::Point {
        v1::Point {
            id: Some(self.id.into_proto()),
            vectors: named_vectors_into(self.vectors),
            payload: object_into(self.payload),
            version: 0,
        }
    }
}

pub(crate) fn record_into(record: Record) -> v1::Point {
    v1::Point {
        id: Some(record.id.into_proto()),
        vectors: named_vectors_into(record.vectors),
        payload: object_into(record.payload.unwrap_or_default()),
        version: record.version,
    }
}

pub(crate) fn record_from(proto: v1::Point, selection: &Selection) -> Result<Record, Violation> {
    let version = proto.version;
    let point = Point::from_proto(proto)?;
    let selected = selection.payload != PayloadSelection::None;
    Ok(Record { id: point.id, version, payload: selected.then_some(point.payload), vectors: point.vectors })
}

/// Reads a field `id`.
pub(crate) fn id_from(proto: Option<v1::PointId>) -> Result<PointId, Violation> {
    PointId::from_proto(required("id", proto)?).map_err(|violation| violation.within("id"))
}

type VectorMap = BTreeMap<String, v1::Vector>;

/// Reads a field `vectors`.
pub(crate) fn named_vectors_from(vectors: VectorMap) -> Result<NamedVectors, Violation> {
    count("vectors", vectors.len(), 0, limits::MAX_VECTORS)?;
    let vectors = vectors.into_iter().map(|(name, vector)| match Vec::from_proto(vector) {
        Ok(vector) => Ok((name, vector)),
        Err(violation) => Err(violation.within(&entry("vectors", &name))),
    });
    vectors.collect()
}

pub(crate) fn named_vectors_into(vectors: NamedVectors) -> VectorMap {
    vectors.into_iter().map(|(name, vector)| (name, vector.into_proto())).collect()
}

/// Reads the points of a write: 1 to [`limits::MAX_BATCH_POINTS`], each id once.
pub(crate) fn points_from(protos: Vec<v1::Point>) -> Result<Vec<Point>, Violation> {
    count("points", protos.len(), 1, limits::MAX_BATCH_POINTS)?;
    let points = each("points", protos, Point::from_proto)?;
    // Bulk loads come in the order of their ids, where no set is needed to see that none repeats.
    if points.is_sorted_by(|a, b| a.id < b.id) {
        return Ok(points);
    }
    let mut seen = HashMap::with_capacity(points.len());
    for (at, point) in points.iter().enumerate() {
        if let Some(first) = seen.insert(point.id, at) {
            let reason = format!("is {}, which points[{first}] has too; name each point once", point.id);
            return Err(Violation::new(format!("points[{at}].id"), reason));
        }
    }
    Ok(points)
}

pub(crate) fn wait_from(proto: i32) -> Result<Wait, Violation> {
    match v1::WriteWait::try_from(proto) {
        Ok(v1::WriteWait::Unspecified | v1::WriteWait::Committed) => Ok(Wait::Committed),
        Ok(v1::WriteWait::Indexed) => Ok(Wait::Indexed),
        Err(_) => Err(unknown_enum("wait", proto)),
    }
}

pub(crate) fn wait_into(wait: Wait) -> i32 {
    match wait {
        Wait::Committed => v1::WriteWait::Committed.into(),
        Wait::Indexed => v1::WriteWait::Indexed.into(),
    }
}

pub(crate) fn optional_filter_from(proto: Option<v1::Filter>) -> Result<Option<Arc<Filter>>, Violation> {
    let filter = proto.map(Filter::from_proto).transpose().map_err(|v| v.within("filter"))?;
    Ok(filter.map(Arc::new))
}

pub(crate) fn optional_filter_into(filter: Option<Arc<Filter>>) -> Option<v1::Filter> {
    filter.map(|filter| Arc::unwrap_or_clone(filter).into_proto())
}
