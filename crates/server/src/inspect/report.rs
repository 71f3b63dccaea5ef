//! What is told of a data folder. Its form as JSON is for programs: ids are text, since they have more digits than readers of
//! JSON keep of a number.

use std::collections::BTreeMap;
use std::path::Path;

use sagitta_cluster::{Collection, Node};
use sagitta_model::PointId;
use serde::Serialize;

/// Everything that was seen of a data folder.
#[derive(Clone, Debug, Serialize)]
pub struct InspectReport {
    /// The folder.
    pub folder: String,
    /// Whether every byte was read and verified.
    pub verified: bool,
    /// Whose folder it is, if that can be read.
    pub node: Option<NodeReport>,
    /// What the cluster is, as this node knew it.
    pub control: ControlReport,
    /// The replicas, by shard.
    pub shards: Vec<ShardReport>,
    /// The Raft log, if it can be read.
    pub log: Option<LogReport>,
    /// What is not as it should be, the most serious first.
    pub problems: Vec<Problem>,
    /// How the node is started.
    pub start: String,
}

/// Whose folder it is.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReport {
    /// Name of the node in the cluster.
    pub id: String,
    /// UUID of the folder.
    pub incarnation: String,
    /// UUID of the cluster, once it belongs to one.
    pub cluster: Option<String>,
    /// Whether it founded the cluster.
    pub founder: bool,
    /// As the newest control state here names it.
    pub known_as: Option<MemberReport>,
}

/// A node, as the control state names it.
#[derive(Clone, Debug, Serialize)]
pub struct MemberReport {
    /// Its name.
    pub id: String,
    /// How it stands to the cluster.
    pub status: String,
    /// Whether it is a coordinator.
    pub coordinator: bool,
    /// Whether it holds replicas.
    pub shard: bool,
    /// What fails together with it.
    pub zone: String,
    /// Where clients reach it.
    pub api_address: String,
    /// Where other nodes reach it.
    pub peer_address: String,
}

/// The control states that the folder holds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ControlReport {
    /// As a coordinator has applied it.
    pub applied: Option<StateReport>,
    /// As the node has followed it.
    pub followed: Option<StateReport>,
}

/// One control state.
#[derive(Clone, Debug, Serialize)]
pub struct StateReport {
    /// The entry of its log up to which it has everything.
    pub index: u64,
    /// The coordinators that vote.
    pub voters: Vec<String>,
    /// The nodes, by id.
    pub nodes: Vec<MemberReport>,
    /// The collections, by name.
    pub collections: Vec<CollectionReport>,
}

/// A collection, as the control state names it.
#[derive(Clone, Debug, Serialize)]
pub struct CollectionReport {
    /// Its name.
    pub name: String,
    /// UUID.
    pub id: String,
    /// How many replicas each shard should have.
    pub replication: u32,
    /// Its shards.
    pub shards: Vec<u64>,
}

/// A replica.
#[derive(Clone, Debug, Serialize)]
pub struct ShardReport {
    /// Number of the shard.
    pub shard: u64,
    /// Name of the collection, if the control state here knows it.
    pub collection: Option<String>,
    /// UUID of the collection, if that can be read.
    pub collection_id: Option<String>,
    /// The hashes that it is responsible for, if the control state here knows them: 16 hexadecimal digits.
    pub first_hash: Option<String>,
    /// The last of them.
    pub last_hash: Option<String>,
    /// Whether the control state wants the replica here; `None` if it does not know the shard.
    pub wanted: Option<bool>,
    /// Log index up to which everything is in the database.
    pub applied_index: Option<u64>,
    /// Term of the entry there.
    pub applied_term: Option<u64>,
    /// Points that exist.
    pub points: Option<u64>,
    /// Of these, the ones that are in no segment yet.
    pub unsealed: u64,
    /// All files of the replica.
    pub bytes: u64,
    /// The segments, by number.
    pub segments: Vec<SegmentReport>,
    /// Segments that were set aside because they were damaged.
    pub quarantined: Vec<u64>,
    /// `sound`, `rebuilds` if derived files are damaged, or `damaged` if the replica does not open.
    pub condition: &'static str,
}

/// A segment.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentReport {
    /// Its number.
    pub segment: u64,
    /// Rows, dead ones included.
    pub rows: u64,
    /// Of these, the ones that are points: neither deleted nor replaced.
    pub points: Option<u64>,
    /// All files of it.
    pub bytes: u64,
    /// How it finds neighbours, by the vector's name: `flat`, `graph`, `compact`, or `damaged`.
    pub indexes: BTreeMap<String, &'static str>,
}

/// The Raft log.
#[derive(Clone, Debug, Serialize)]
pub struct LogReport {
    /// All files of it.
    pub bytes: u64,
    /// The groups that have a log.
    pub groups: Vec<GroupReport>,
}

/// What the log holds of a group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    /// Its number: 1 is the control group, others are shards.
    pub group: u64,
    /// Its first entry; `None` if it holds none.
    pub first_index: Option<u64>,
    /// Its last entry, or the one after which it begins.
    pub last_index: u64,
    /// Of the last entry.
    pub last_term: u64,
    /// The last entry that is noted as decided; the note is written with later entries, so it may lag behind what was applied.
    pub commit: u64,
    /// The newest term that the node has seen.
    pub term: u64,
    /// The node that it gave its vote in that term.
    pub vote: Option<String>,
    /// The entry up to which its state machine has everything, if that can be read.
    pub applied_index: Option<u64>,
    /// The entries after it, which are applied when the node starts, as far as they turn out to be decided.
    pub to_apply: Option<u64>,
    /// The nodes that vote, as the last applied change of members said.
    pub voters: Vec<String>,
    /// The first voters, which the group was founded with.
    pub founders: Vec<String>,
    /// The nodes that only receive.
    pub learners: Vec<String>,
    /// Whether the log goes on where its state machine stands; `None` if there is none here.
    pub continues: Option<bool>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// What comes of it.
    pub seriousness: Seriousness,
    /// What was found, with the file.
    pub what: String,
    /// What to do.
    pub help: String,
}

/// What comes of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seriousness {
    /// Nothing.
    Note,
    /// The node mends it when it starts.
    Mends,
    /// The node, or a replica, does not start.
    Damage,
}

impl InspectReport {
    pub(super) fn of(folder: &Path, verified: bool) -> Self {
        Self {
            folder: folder.display().to_string(),
            verified,
            node: None,
            control: ControlReport::default(),
            shards: Vec::new(),
            log: None,
            problems: Vec::new(),
            start: String::new(),
        }
    }

    /// The most serious of the problems.
    pub fn worst(&self) -> Option<Seriousness> {
        self.problems.iter().map(|problem| problem.seriousness).max()
    }
}

impl MemberReport {
    pub(super) fn of(node: &Node) -> Self {
        Self {
            id: node.id.to_string(),
            status: node.status.to_string(),
            coordinator: node.place.roles.coordinator,
            shard: node.place.roles.shard,
            zone: node.place.zone.clone(),
            api_address: node.place.api_address.clone(),
            peer_address: node.place.peer_address.clone(),
        }
    }
}

impl CollectionReport {
    pub(super) fn of(collection: &Collection) -> Self {
        Self {
            name: collection.name.to_string(),
            id: PointId::Uuid(collection.id).to_string(),
            replication: collection.replication,
            shards: collection.shards.iter().map(|shard| shard.id).collect(),
        }
    }
}
