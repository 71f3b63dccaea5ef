//! Requests and answers of `CollectionService`.

use std::collections::BTreeMap;

use sagitta_model::{
    CollectionInfo, CollectionName, CollectionStatistics, FieldPath, FieldType, IndexPolicy, Metric, PointId, Schema,
    VectorSpec, Violation, limits,
};

use crate::common::{Convert, RequestId, each, entry, narrow, parse_uuid, required, unknown_enum, widen};
use crate::error::WireError;
use crate::filter::{micros_from, micros_into};
use crate::page::Page;
use crate::v1;

/// How much of a collection to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Everything but the statistics.
    Basic,
    /// Everything.
    Full,
}

/// Creates a collection.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateCollection {
    /// Its name.
    pub name: CollectionName,
    /// The shape of its points; valid.
    pub schema: Schema,
    /// Into how many shards its points are partitioned; the server's default if absent.
    pub shards: Option<u32>,
    /// How many nodes hold each shard; the server's default if absent.
    pub replication: Option<u32>,
    /// Identity of the request.
    pub request_id: Option<RequestId>,
}

/// Shows a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetCollection {
    /// Its name.
    pub name: CollectionName,
    /// How much to show.
    pub view: View,
}

/// Lists collections by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListCollections {
    /// How much to show of each.
    pub view: View,
}

/// One page of collections.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionPage {
    /// The collections, ascending by name.
    pub collections: Vec<CollectionInfo>,
    /// The token of the next page; empty when there is none.
    pub next_page_token: String,
}

/// Deletes a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteCollection {
    /// Its name.
    pub name: CollectionName,
    /// Whether its absence is success.
    pub allow_missing: bool,
    /// Identity of the request.
    pub request_id: Option<RequestId>,
}

impl CreateCollection {
    /// A collection with as many shards and replicas as the server likes.
    pub fn new(name: CollectionName, schema: Schema) -> Self {
        Self { name, schema, shards: None, replication: None, request_id: None }
    }
}

impl Convert for CollectionInfo {
    type Proto = v1::Collection;
    type Error = Violation;

    fn from_proto(proto: v1::Collection) -> Result<Self, Violation> {
        let time = required("create_time", proto.create_time)?;
        let created = micros_from(&time).map_err(|reason| Violation::new("create_time", reason))?;
        Ok(Self {
            name: proto.name.parse()?,
            id: parse_uuid(&proto.id).map_err(|violation| violation.within("id"))?,
            schema: schema_from(proto.vectors, proto.fields)?,
            shards: proto.shards,
            replication: proto.replication,
            created_unix_micros: u64::try_from(created).unwrap_or_default(),
            statistics: proto.statistics.map(statistics_from),
        })
    }

    fn into_proto(self) -> v1::Collection {
        let (vectors, fields) = schema_into(self.schema);
        let created = i64::try_from(self.created_unix_micros).unwrap_or(i64::MAX);
        v1::Collection {
            name: self.name.to_string(),
            id: PointId::Uuid(self.id).to_string(),
            vectors,
            fields,
            shards: self.shards,
            replication: self.replication,
            create_time: Some(micros_into(created)),
            statistics: self.statistics.map(statistics_into),
        }
    }
}

impl Convert for CreateCollection {
    type Proto = v1::CreateCollectionRequest;
    type Error = Violation;

    fn from_proto(proto: v1::CreateCollectionRequest) -> Result<Self, Violation> {
        let request_id = RequestId::optional(&proto.request_id)?;
        let collection = required("collection", proto.collection)?;
        let parsed = collection.name.parse().and_then(|name| {
            let schema = schema_from(collection.vectors, collection.fields)?;
            schema.validate()?;
            let shards = optional("shards", collection.shards, limits::MAX_SHARDS)?;
            let replication = optional("replication", collection.replication, limits::MAX_REPLICATION)?;
            Ok(Self { name, schema, shards, replication, request_id })
        });
        parsed.map_err(|violation: Violation| violation.within("collection"))
    }

    fn into_proto(self) -> v1::CreateCollectionRequest {
        let (vectors, fields) = schema_into(self.schema);
        let collection = v1::Collection {
            name: self.name.to_string(),
            vectors,
            fields,
            shards: self.shards.unwrap_or_default(),
            replication: self.replication.unwrap_or_default(),
            ..Default::default()
        };
        v1::CreateCollectionRequest {
            collection: Some(collection),
            request_id: RequestId::optional_text(self.request_id),
        }
    }
}

impl Convert for GetCollection {
    type Proto = v1::GetCollectionRequest;
    type Error = Violation;

    fn from_proto(proto: v1::GetCollectionRequest) -> Result<Self, Violation> {
        Ok(Self { name: proto.name.parse()?, view: view_from(proto.view, View::Full)? })
    }

    fn into_proto(self) -> v1::GetCollectionRequest {
        v1::GetCollectionRequest { name: self.name.to_string(), view: view_into(self.view) }
    }
}

impl ListCollections {
    /// Reads the request and which page it asks for.
    pub fn from_proto(proto: &v1::ListCollectionsRequest) -> Result<(Self, Page<CollectionName>), WireError> {
        let list = Self { view: view_from(proto.view, View::Basic)? };
        let page = Page::new(proto.page_size, &proto.page_token, &list.unpaged())?;
        Ok((list, page))
    }

    /// The request for a page of at most `page_size` (0: as many as the server likes) collections.
    pub fn into_proto(self, page_size: usize, page_token: String) -> v1::ListCollectionsRequest {
        v1::ListCollectionsRequest { page_size: narrow(page_size), page_token, ..self.unpaged() }
    }

    fn unpaged(&self) -> v1::ListCollectionsRequest {
        v1::ListCollectionsRequest { view: view_into(self.view), ..Default::default() }
    }
}

impl Convert for CollectionPage {
    type Proto = v1::ListCollectionsResponse;
    type Error = Violation;

    fn from_proto(proto: v1::ListCollectionsResponse) -> Result<Self, Violation> {
        let collections = each("collections", proto.collections, CollectionInfo::from_proto)?;
        Ok(Self { collections, next_page_token: proto.next_page_token })
    }

    fn into_proto(self) -> v1::ListCollectionsResponse {
        let collections = self.collections.into_iter().map(Convert::into_proto).collect();
        v1::ListCollectionsResponse { collections, next_page_token: self.next_page_token }
    }
}

impl Convert for DeleteCollection {
    type Proto = v1::DeleteCollectionRequest;
    type Error = Violation;

    fn from_proto(proto: v1::DeleteCollectionRequest) -> Result<Self, Violation> {
        Ok(Self {
            name: proto.name.parse()?,
            allow_missing: proto.allow_missing,
            request_id: RequestId::optional(&proto.request_id)?,
        })
    }

    fn into_proto(self) -> v1::DeleteCollectionRequest {
        v1::DeleteCollectionRequest {
            name: self.name.to_string(),
            allow_missing: self.allow_missing,
            request_id: RequestId::optional_text(self.request_id),
        }
    }
}

/// A number that is left to the server when it is 0.
fn optional(field: &str, number: u32, most: u32) -> Result<Option<u32>, Violation> {
    if number > most {
        return Err(Violation::new(field, format!("is {number}, expected 1 to {most}, or 0 for the default")));
    }
    Ok(Some(number).filter(|number| *number > 0))
}

type Vectors = BTreeMap<String, v1::VectorConfig>;
type Fields = BTreeMap<String, i32>;

fn schema_from(vectors: Vectors, fields: Fields) -> Result<Schema, Violation> {
    let vectors = vectors.into_iter().map(|(name, config)| match vector_from(&config) {
        Ok(spec) => Ok((name, spec)),
        Err(violation) => Err(violation.within(&entry("vectors", &name))),
    });
    let vectors = vectors.collect::<Result<_, _>>()?;
    let fields = fields.into_iter().map(|(path, field_type)| {
        let at = || entry("fields", &path);
        let parsed: FieldPath = path.parse().map_err(|violation: Violation| violation.within(&at()))?;
        let field_type = field_type_from(field_type).map_err(|reason| Violation::new(at(), reason))?;
        Ok((parsed, field_type))
    });
    Ok(Schema { vectors, fields: fields.collect::<Result<_, Violation>>()? })
}

fn schema_into(schema: Schema) -> (Vectors, Fields) {
    let vectors = schema.vectors.into_iter().map(|(name, spec)| (name, vector_into(spec)));
    let fields = schema.fields.into_iter();
    let fields = fields.map(|(path, field_type)| (path.to_string(), field_type_into(field_type).into()));
    (vectors.collect(), fields.collect())
}

fn vector_from(proto: &v1::VectorConfig) -> Result<VectorSpec, Violation> {
    let metric = match v1::Metric::try_from(proto.metric) {
        Ok(v1::Metric::Cosine) => Metric::Cosine,
        Ok(v1::Metric::InnerProduct) => Metric::InnerProduct,
        Ok(v1::Metric::L2) => Metric::L2,
        Ok(v1::Metric::Unspecified) => return Err(Violation::new("metric", "is missing")),
        Err(_) => return Err(unknown_enum("metric", proto.metric)),
    };
    let index = match v1::IndexPolicy::try_from(proto.index) {
        Ok(v1::IndexPolicy::Unspecified | v1::IndexPolicy::Auto) => IndexPolicy::Auto,
        Ok(v1::IndexPolicy::Flat) => IndexPolicy::Flat,
        Ok(v1::IndexPolicy::Graph) => IndexPolicy::Graph,
        Ok(v1::IndexPolicy::Compact) => IndexPolicy::Compact,
        Err(_) => return Err(unknown_enum("index", proto.index)),
    };
    Ok(VectorSpec { dim: widen(proto.dimension), metric, index })
}

fn vector_into(spec: VectorSpec) -> v1::VectorConfig {
    let metric = match spec.metric {
        Metric::Cosine => v1::Metric::Cosine,
        Metric::InnerProduct => v1::Metric::InnerProduct,
        Metric::L2 => v1::Metric::L2,
    };
    let index = match spec.index {
        IndexPolicy::Auto => v1::IndexPolicy::Auto,
        IndexPolicy::Flat => v1::IndexPolicy::Flat,
        IndexPolicy::Graph => v1::IndexPolicy::Graph,
        IndexPolicy::Compact => v1::IndexPolicy::Compact,
    };
    v1::VectorConfig { dimension: narrow(spec.dim), metric: metric.into(), index: index.into() }
}

fn field_type_from(proto: i32) -> Result<FieldType, String> {
    match v1::FieldType::try_from(proto) {
        Ok(v1::FieldType::Keyword) => Ok(FieldType::Keyword),
        Ok(v1::FieldType::Integer) => Ok(FieldType::Integer),
        Ok(v1::FieldType::Float) => Ok(FieldType::Float),
        Ok(v1::FieldType::Bool) => Ok(FieldType::Bool),
        Ok(v1::FieldType::Datetime) => Ok(FieldType::Datetime),
        Ok(v1::FieldType::Unspecified) => Err("has no type".to_owned()),
        Err(_) => Err(unknown_enum("", proto).reason),
    }
}

fn field_type_into(field_type: FieldType) -> v1::FieldType {
    match field_type {
        FieldType::Keyword => v1::FieldType::Keyword,
        FieldType::Integer => v1::FieldType::Integer,
        FieldType::Float => v1::FieldType::Float,
        FieldType::Bool => v1::FieldType::Bool,
        FieldType::Datetime => v1::FieldType::Datetime,
    }
}

fn view_from(proto: i32, default: View) -> Result<View, Violation> {
    match v1::CollectionView::try_from(proto) {
        Ok(v1::CollectionView::Unspecified) => Ok(default),
        Ok(v1::CollectionView::Basic) => Ok(View::Basic),
        Ok(v1::CollectionView::Full) => Ok(View::Full),
        Err(_) => Err(unknown_enum("view", proto)),
    }
}

fn view_into(view: View) -> i32 {
    match view {
        View::Basic => v1::CollectionView::Basic.into(),
        View::Full => v1::CollectionView::Full.into(),
    }
}

pub(crate) fn statistics_from(proto: v1::CollectionStatistics) -> CollectionStatistics {
    CollectionStatistics {
        ready: proto.ready,
        points: proto.points,
        indexed_points: proto.indexed_points,
        dead_rows: proto.dead_rows,
        growing_segments: proto.growing_segments,
        sealed_segments: proto.sealed_segments,
        disk_bytes: proto.disk_bytes,
        memory_bytes: proto.memory_bytes,
        refuses_data: proto.refuses_data,
        shards: proto.shards,
    }
}

pub(crate) fn statistics_into(statistics: CollectionStatistics) -> v1::CollectionStatistics {
    v1::CollectionStatistics {
        ready: statistics.ready,
        points: statistics.points,
        indexed_points: statistics.indexed_points,
        dead_rows: statistics.dead_rows,
        growing_segments: statistics.growing_segments,
        sealed_segments: statistics.sealed_segments,
        disk_bytes: statistics.disk_bytes,
        memory_bytes: statistics.memory_bytes,
        refuses_data: statistics.refuses_data,
        shards: statistics.shards,
    }
}
