//! A collection as the control plane knows it, and its form in JSON.

use std::collections::BTreeMap;

use sagitta_model::{CollectionName, FieldPath, HashRange, PointId, Schema, VectorSpec, Violation, shard_hash};
use serde::{Deserialize, Serialize};

use crate::hex::{hex, parse_id};

/// A named set of points with one schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    /// Identity: a UUID. A collection that is deleted and created again is another one.
    pub id: u128,
    /// Name, unique among the living collections.
    pub name: CollectionName,
    /// Vectors and declared fields.
    pub schema: Schema,
    /// Shards in the order of their hash ranges, which cover every hash once.
    pub shards: Vec<ShardDescriptor>,
    /// How many shards people want it to have at the least: as many as it was created with, one more for each split that somebody asked for,
    /// and one fewer, but never none, for each merge. What the cluster has split beyond that it may merge by itself.
    pub shards_wanted: u32,
    /// How many replicas each of them should have.
    pub replication: u32,
    /// When it was created, in microseconds since 1970.
    pub created_unix_micros: u64,
}

/// One shard of a collection as the control plane wants it to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardDescriptor {
    /// Identity, unique in the cluster and never handed out twice.
    pub id: u64,
    /// The hashes it is responsible for.
    #[serde(with = "RangeJson")]
    pub range: HashRange,
    /// Version of its placement: a request that names another is stale.
    pub epoch: u64,
    /// The nodes that should hold a replica, ascending.
    #[serde(default)]
    pub replicas: Vec<u64>,
    /// The first voters of its group. Never changes: a node that has no log of the group founds it with these.
    #[serde(default)]
    pub founders: Vec<u64>,
    /// Nodes that were members of its group once and left it, with where its log stood when they had. One that comes back founds
    /// nothing and has forgotten how it voted: see [`Floor`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left: BTreeMap<u64, Floor>,
    /// The entry of its log that split it last, or split it off from another; none if it never was. Its points are as of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Floor>,
    /// The shard that it was split off from: a node that has no log of the group founds it on what it has split off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
}

/// JSON form of a [`HashRange`].
#[derive(Serialize, Deserialize)]
#[serde(remote = "HashRange")]
struct RangeJson {
    first: u64,
    last: u64,
}

/// A place in a shard's log that is above everything that a member had seen when it left the group. Should that node become a member once
/// more, with nothing in its folder, it votes for nobody whose log ends before, and does not stand itself until its own log reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// A term that the group was in then.
    pub term: u64,
    /// An entry that was applied then.
    pub index: u64,
}

impl Collection {
    /// The shard that is responsible for a point.
    pub fn shard_of(&self, id: PointId) -> &ShardDescriptor {
        &self.shards[self.place_of(id)]
    }

    /// Whether it has more shards than people want.
    pub fn has_spare_shards(&self) -> bool {
        self.shards.len() > self.shards_wanted as usize
    }

    /// Where that shard stands in [`Collection::shards`].
    pub fn place_of(&self, id: PointId) -> usize {
        let hash = shard_hash(id);
        self.shards.partition_point(|shard| shard.range.first <= hash) - 1
    }
}

/// JSON form of a [`Collection`]; names instead of codes, so that a person can read a log.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CollectionJson {
    id: String,
    name: String,
    vectors: BTreeMap<String, VectorJson>,
    fields: BTreeMap<String, String>,
    shards: Vec<ShardDescriptor>,
    // None where it is their number, as it is before format 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shards_wanted: Option<u32>,
    // Format 1 has none.
    #[serde(default = "one")]
    replication: u32,
    created_unix_micros: u64,
}

fn one() -> u32 {
    1
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorJson {
    dim: usize,
    metric: String,
    index: String,
}

impl From<&Collection> for CollectionJson {
    fn from(collection: &Collection) -> Self {
        let schema = SchemaJson::from(&collection.schema);
        let shards_wanted = Some(collection.shards_wanted).filter(|_| collection.has_spare_shards());
        Self {
            id: hex(collection.id),
            name: collection.name.to_string(),
            vectors: schema.vectors,
            fields: schema.fields,
            shards: collection.shards.clone(),
            shards_wanted,
            replication: collection.replication,
            created_unix_micros: collection.created_unix_micros,
        }
    }
}

impl TryFrom<CollectionJson> for Collection {
    type Error = Violation;

    fn try_from(json: CollectionJson) -> Result<Self, Violation> {
        let count = u32::try_from(json.shards.len()).unwrap_or(u32::MAX);
        Ok(Self {
            id: parse_id(&json.id)?,
            name: json.name.parse()?,
            schema: SchemaJson { vectors: json.vectors, fields: json.fields }.try_into()?,
            shards: json.shards,
            shards_wanted: json.shards_wanted.unwrap_or(count),
            replication: json.replication,
            created_unix_micros: json.created_unix_micros,
        })
    }
}

/// JSON form of a [`Schema`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchemaJson {
    vectors: BTreeMap<String, VectorJson>,
    fields: BTreeMap<String, String>,
}

impl From<&Schema> for SchemaJson {
    fn from(schema: &Schema) -> Self {
        let vector = |spec: &VectorSpec| VectorJson {
            dim: spec.dim,
            metric: spec.metric.name().to_owned(),
            index: spec.index.name().to_owned(),
        };
        Self {
            vectors: schema.vectors.iter().map(|(name, spec)| (name.clone(), vector(spec))).collect(),
            fields: schema.fields.iter().map(|(path, kind)| (path.to_string(), kind.name().to_owned())).collect(),
        }
    }
}

impl TryFrom<SchemaJson> for Schema {
    type Error = Violation;

    fn try_from(json: SchemaJson) -> Result<Self, Violation> {
        let mut schema = Self::default();
        for (name, vector) in json.vectors {
            let spec = VectorSpec { dim: vector.dim, metric: vector.metric.parse()?, index: vector.index.parse()? };
            schema.vectors.insert(name, spec);
        }
        for (path, kind) in json.fields {
            schema.fields.insert(path.parse::<FieldPath>()?, kind.parse()?);
        }
        Ok(schema)
    }
}
