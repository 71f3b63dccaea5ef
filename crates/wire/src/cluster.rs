//! Requests and answers of `ClusterService`.

mod operation;
mod shard;

pub use operation::{
    CancelOperation, ChangeNode, ListOperations, MergeShards, MoveReplica, NodeChanged, OperationPage, RecoverShard,
    ReplicaMoved, ShardRecovered, ShardSplit, ShardsMerged, SplitShard,
};

use sagitta_model::{
    ClusterInfo, CollectionName, Health, NewCluster, NodeInfo, NodeStatus, PointId, ShardInfo, Violation,
};

use crate::common::{Convert, collection_name, each, narrow, parse_uuid, required, unknown_enum};
use crate::error::WireError;
use crate::filter::{micros_from, micros_into};
use crate::page::{NodePlace, Page, ShardPlace};
use crate::v1;

/// Lists the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListNodes;

/// Lists shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListShards {
    /// Of this collection only.
    pub collection: Option<CollectionName>,
    /// On this node only.
    pub node: Option<u64>,
}

/// One page of nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePage {
    /// The nodes, ascending by id.
    pub nodes: Vec<NodeInfo>,
    /// The token of the next page; empty when there is none.
    pub next_page_token: String,
}

/// One page of shards.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardPage {
    /// The shards, ascending by id.
    pub shards: Vec<ShardInfo>,
    /// The token of the next page; empty when there is none.
    pub next_page_token: String,
}

/// Has another replica lead a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferLeader {
    /// The shard.
    pub shard: u64,
    /// The node that is to lead it.
    pub to: u64,
}

impl Convert for NewCluster {
    type Proto = v1::InitClusterResponse;
    type Error = Violation;

    fn from_proto(proto: v1::InitClusterResponse) -> Result<Self, Violation> {
        Ok(Self { id: uuid("cluster_id", &proto.cluster_id)?, join_token: proto.join_token })
    }

    fn into_proto(self) -> v1::InitClusterResponse {
        v1::InitClusterResponse { cluster_id: PointId::Uuid(self.id).to_string(), join_token: self.join_token }
    }
}

impl Convert for ClusterInfo {
    type Proto = v1::Cluster;
    type Error = Violation;

    fn from_proto(proto: v1::Cluster) -> Result<Self, Violation> {
        let count = |one: v1::NodeCount| Ok::<_, Violation>((status_from("status", one.status)?, one.count));
        Ok(Self {
            id: uuid("id", &proto.id)?,
            coordinator: proto.coordinator,
            leader: proto.leader,
            term: proto.term,
            applied: proto.applied_index,
            voters: proto.voters,
            nodes: each("nodes", proto.nodes, count)?,
            collections: proto.collections,
            shards: proto.shards,
            health: health_from(proto.health)?,
            problems: proto.problems,
        })
    }

    fn into_proto(self) -> v1::Cluster {
        let nodes = self.nodes.into_iter();
        let nodes = nodes.map(|(status, count)| v1::NodeCount { status: status_into(status), count });
        v1::Cluster {
            id: PointId::Uuid(self.id).to_string(),
            coordinator: self.coordinator,
            leader: self.leader,
            term: self.term,
            applied_index: self.applied,
            voters: self.voters,
            nodes: nodes.collect(),
            collections: self.collections,
            shards: self.shards,
            health: health_into(self.health),
            problems: self.problems,
        }
    }
}

impl Convert for NodeInfo {
    type Proto = v1::Node;
    type Error = Violation;

    fn from_proto(proto: v1::Node) -> Result<Self, Violation> {
        let time = required("join_time", proto.join_time)?;
        let joined = micros_from(&time).map_err(|reason| Violation::new("join_time", reason))?;
        Ok(Self {
            id: proto.id,
            incarnation: uuid("incarnation", &proto.incarnation)?,
            peer_address: proto.peer_address,
            api_address: proto.api_address,
            zone: proto.zone,
            coordinator: proto.coordinator,
            shard: proto.shard,
            status: status_from("status", proto.status)?,
            joined_unix_micros: u64::try_from(joined).unwrap_or_default(),
            voter: proto.voter,
            silent_ms: proto.silent_ms,
            wanted_replicas: proto.wanted_replicas,
            hosted_replicas: proto.hosted_replicas,
            led_shards: proto.led_shards,
            waiting_searches: proto.waiting_searches,
            problems: proto.problems,
        })
    }

    fn into_proto(self) -> v1::Node {
        let joined = i64::try_from(self.joined_unix_micros).unwrap_or(i64::MAX);
        v1::Node {
            id: self.id,
            incarnation: PointId::Uuid(self.incarnation).to_string(),
            peer_address: self.peer_address,
            api_address: self.api_address,
            zone: self.zone,
            coordinator: self.coordinator,
            shard: self.shard,
            status: status_into(self.status),
            join_time: Some(micros_into(joined)),
            voter: self.voter,
            silent_ms: self.silent_ms,
            wanted_replicas: self.wanted_replicas,
            hosted_replicas: self.hosted_replicas,
            led_shards: self.led_shards,
            waiting_searches: self.waiting_searches,
            problems: self.problems,
        }
    }
}

impl ListNodes {
    /// Reads the request and which page it asks for.
    pub fn from_proto(proto: &v1::ListNodesRequest) -> Result<(Self, Page<NodePlace>), WireError> {
        let page = Page::new(proto.page_size, &proto.page_token, &v1::ListNodesRequest::default())?;
        Ok((Self, page))
    }

    /// The request for a page of at most `page_size` (0: as many as the server likes) nodes.
    pub fn into_proto(self, page_size: usize, page_token: String) -> v1::ListNodesRequest {
        v1::ListNodesRequest { page_size: narrow(page_size), page_token }
    }
}

impl ListShards {
    /// Reads the request and which page it asks for.
    pub fn from_proto(proto: &v1::ListShardsRequest) -> Result<(Self, Page<ShardPlace>), WireError> {
        let collection = match proto.collection.as_str() {
            "" => None,
            name => Some(collection_name(name)?),
        };
        let list = Self { collection, node: proto.node };
        let page = Page::new(proto.page_size, &proto.page_token, &list.unpaged())?;
        Ok((list, page))
    }

    /// The request for a page of at most `page_size` (0: as many as the server likes) shards.
    pub fn into_proto(self, page_size: usize, page_token: String) -> v1::ListShardsRequest {
        v1::ListShardsRequest { page_size: narrow(page_size), page_token, ..self.unpaged() }
    }

    fn unpaged(&self) -> v1::ListShardsRequest {
        let collection = self.collection.as_ref().map(ToString::to_string).unwrap_or_default();
        v1::ListShardsRequest { collection, node: self.node, ..Default::default() }
    }
}

impl Convert for NodePage {
    type Proto = v1::ListNodesResponse;
    type Error = Violation;

    fn from_proto(proto: v1::ListNodesResponse) -> Result<Self, Violation> {
        let nodes = each("nodes", proto.nodes, NodeInfo::from_proto)?;
        Ok(Self { nodes, next_page_token: proto.next_page_token })
    }

    fn into_proto(self) -> v1::ListNodesResponse {
        let nodes = self.nodes.into_iter().map(Convert::into_proto).collect();
        v1::ListNodesResponse { nodes, next_page_token: self.next_page_token }
    }
}

impl Convert for ShardPage {
    type Proto = v1::ListShardsResponse;
    type Error = Violation;

    fn from_proto(proto: v1::ListShardsResponse) -> Result<Self, Violation> {
        let shards = each("shards", proto.shards, ShardInfo::from_proto)?;
        Ok(Self { shards, next_page_token: proto.next_page_token })
    }

    fn into_proto(self) -> v1::ListShardsResponse {
        let shards = self.shards.into_iter().map(Convert::into_proto).collect();
        v1::ListShardsResponse { shards, next_page_token: self.next_page_token }
    }
}

impl Convert for TransferLeader {
    type Proto = v1::TransferLeaderRequest;
    type Error = Violation;

    fn from_proto(proto: v1::TransferLeaderRequest) -> Result<Self, Violation> {
        Ok(Self { shard: id_from("shard", proto.shard)?, to: id_from("to", proto.to)? })
    }

    fn into_proto(self) -> v1::TransferLeaderRequest {
        v1::TransferLeaderRequest { shard: self.shard, to: self.to }
    }
}

/// The id of a node or a shard; none of them is 0.
pub fn id_from(field: &str, id: u64) -> Result<u64, Violation> {
    if id == 0 { Err(Violation::new(field, "is missing")) } else { Ok(id) }
}

fn uuid(field: &str, text: &str) -> Result<u128, Violation> {
    parse_uuid(text).map_err(|violation| violation.within(field))
}

fn status_from(field: &str, proto: i32) -> Result<NodeStatus, Violation> {
    match v1::NodeStatus::try_from(proto) {
        Ok(v1::NodeStatus::Joining) => Ok(NodeStatus::Joining),
        Ok(v1::NodeStatus::Up) => Ok(NodeStatus::Up),
        Ok(v1::NodeStatus::Draining) => Ok(NodeStatus::Draining),
        Ok(v1::NodeStatus::Drained) => Ok(NodeStatus::Drained),
        Ok(v1::NodeStatus::Lost) => Ok(NodeStatus::Lost),
        Ok(v1::NodeStatus::Removed) => Ok(NodeStatus::Removed),
        Ok(v1::NodeStatus::Unspecified) => Err(Violation::new(field, "is missing")),
        Err(_) => Err(unknown_enum(field, proto)),
    }
}

fn status_into(status: NodeStatus) -> i32 {
    let status = match status {
        NodeStatus::Joining => v1::NodeStatus::Joining,
        NodeStatus::Up => v1::NodeStatus::Up,
        NodeStatus::Draining => v1::NodeStatus::Draining,
        NodeStatus::Drained => v1::NodeStatus::Drained,
        NodeStatus::Lost => v1::NodeStatus::Lost,
        NodeStatus::Removed => v1::NodeStatus::Removed,
    };
    status.into()
}

fn health_from(proto: i32) -> Result<Health, Violation> {
    match v1::Health::try_from(proto) {
        Ok(v1::Health::Healthy) => Ok(Health::Healthy),
        Ok(v1::Health::Degraded) => Ok(Health::Degraded),
        Ok(v1::Health::Unavailable) => Ok(Health::Unavailable),
        Ok(v1::Health::Unspecified) => Err(Violation::new("health", "is missing")),
        Err(_) => Err(unknown_enum("health", proto)),
    }
}

fn health_into(health: Health) -> i32 {
    let health = match health {
        Health::Healthy => v1::Health::Healthy,
        Health::Degraded => v1::Health::Degraded,
        Health::Unavailable => v1::Health::Unavailable,
    };
    health.into()
}
