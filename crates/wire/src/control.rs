//! Messages of `ControlService`, between nodes and coordinators; see `proto/sagitta/internal/v1/control.proto`.

use std::fmt;

use bytes::Bytes;
use sagitta_cluster::{
    Floor, GroupMembers, MergeReport, MergeStage, Place, ReplicaLoad, ReplicaReport, ReplicaRole, Report, Roles, State,
};
use sagitta_model::{ErrorKind, Violation};
use tonic::codegen::http::Uri;

use crate::common::{Convert, count, each, node, required, text, unknown_enum, uuid, uuid_bytes};
use crate::failure::{Failure, shorten};
use crate::internal as p;
use crate::peer::{PROTOCOL, Run, refusal};
use crate::shard::{Answer, Answered, fields, outcome};

/// The largest state of the control group as it is sent.
pub const MAX_STATE_BYTES: usize = 64 << 20;
/// The largest message of a node: its report, at a few dozen bytes for a replica.
pub const MAX_REPORT_BYTES: usize = 16 << 20;

/// The largest command of the control group, and the largest outcome. Both are about one collection or node.
const MAX_COMMAND_BYTES: usize = 1 << 20;
/// Longest token. Ours are much shorter.
const MAX_TOKEN_BYTES: usize = 256;
/// Longest address: the longest name of a host, and what surrounds it.
const MAX_ADDRESS_BYTES: usize = 512;
/// Longest name of a zone.
const MAX_ZONE_BYTES: usize = 128;
/// Coordinators of a cluster: far more than can vote.
const MAX_COORDINATORS: usize = 64;
/// Replicas on one node: far more than it can open.
const MAX_REPLICAS: usize = 65_536;
/// Members of a group: far more than replicas there can be of a shard.
const MAX_MEMBERS: usize = 64;
/// Longest text for people. What is sent is cut to it.
const MAX_TEXT_BYTES: usize = 1_024;

/// A node that wants to be let in.
#[derive(Clone, PartialEq, Eq)]
pub struct Join {
    /// The secret that lets nodes in.
    pub token: String,
    /// The node's id.
    pub node: u64,
    /// UUID of its data folder.
    pub incarnation: u128,
    /// Where it is and what it does.
    pub place: Place,
    /// UUID of the cluster that its data folder belongs to, if it belongs to one.
    pub cluster: Option<u128>,
    /// Which run of its data folder it is.
    pub run: Run,
}

/// What a node learns when it is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// UUID of the cluster.
    pub cluster: u128,
    /// The coordinators' node ids and peer addresses.
    pub coordinators: Vec<(u64, String)>,
}

/// Without the token, which lets nodes in.
impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token: _, node, incarnation, place, cluster, run } = self;
        let mut join = f.debug_struct("Join");
        join.field("node", node).field("incarnation", incarnation).field("place", place);
        join.field("cluster", cluster).field("run", run).finish_non_exhaustive()
    }
}

impl Convert for Join {
    type Proto = p::JoinRequest;
    type Error = Failure;

    fn from_proto(proto: p::JoinRequest) -> Result<Self, Failure> {
        if proto.protocol != PROTOCOL {
            let message = format!("the caller speaks protocol {} between nodes, this is {PROTOCOL}", proto.protocol);
            return Err(Failure::new(ErrorKind::Invalid, message).with_reason(refusal::OTHER_PROTOCOL));
        }
        let place = Place::from_proto(required("place", proto.place)?).map_err(|v| v.within("place"))?;
        Ok(Self {
            token: text("token", proto.token, 1, MAX_TOKEN_BYTES)?,
            node: node("node", proto.node)?,
            incarnation: uuid("incarnation", &proto.incarnation)?,
            place,
            cluster: if proto.cluster.is_empty() { None } else { Some(uuid("cluster", &proto.cluster)?) },
            run: Run::from_proto(required("run", proto.run)?).map_err(|v| v.within("run"))?,
        })
    }

    fn into_proto(self) -> p::JoinRequest {
        p::JoinRequest {
            protocol: PROTOCOL,
            token: self.token,
            node: self.node,
            incarnation: uuid_bytes(self.incarnation),
            place: Some(self.place.into_proto()),
            cluster: self.cluster.map(uuid_bytes).unwrap_or_default(),
            run: Some(self.run.into_proto()),
        }
    }
}

impl Convert for Place {
    type Proto = p::NodePlace;
    type Error = Violation;

    fn from_proto(proto: p::NodePlace) -> Result<Self, Violation> {
        Ok(Self {
            peer_address: address("peer_address", proto.peer_address)?,
            api_address: address("api_address", proto.api_address)?,
            zone: text("zone", proto.zone, 0, MAX_ZONE_BYTES)?,
            roles: Roles { coordinator: proto.coordinator, shard: proto.shard },
        })
    }

    fn into_proto(self) -> p::NodePlace {
        p::NodePlace {
            peer_address: self.peer_address,
            api_address: self.api_address,
            zone: self.zone,
            coordinator: self.roles.coordinator,
            shard: self.roles.shard,
        }
    }
}

fn address(field: &str, address: String) -> Result<String, Violation> {
    let address = text(field, address, 1, MAX_ADDRESS_BYTES)?;
    let complete = |uri: &Uri| uri.scheme().is_some() && uri.host().is_some_and(|host| !host.is_empty());
    if address.parse().is_ok_and(|uri| complete(&uri)) {
        return Ok(address);
    }
    Err(Violation::new(field, "is no address such as `http://10.0.0.7:6381`"))
}

impl Convert for Joined {
    type Proto = p::JoinResponse;
    type Error = Violation;

    fn from_proto(proto: p::JoinResponse) -> Result<Self, Violation> {
        count("coordinators", proto.coordinators.len(), 1, MAX_COORDINATORS)?;
        Ok(Self {
            cluster: uuid("cluster", &proto.cluster)?,
            coordinators: each("coordinators", proto.coordinators, |coordinator| {
                let at = address("peer_address", coordinator.peer_address)?;
                Ok::<_, Violation>((node("node", coordinator.node)?, at))
            })?,
        })
    }

    fn into_proto(self) -> p::JoinResponse {
        let coordinators = self.coordinators.into_iter();
        let coordinators = coordinators.map(|(node, peer_address)| p::CoordinatorAddress { node, peer_address });
        p::JoinResponse { cluster: uuid_bytes(self.cluster), coordinators: coordinators.collect() }
    }
}

impl Convert for Report {
    type Proto = p::NodeReport;
    type Error = Violation;

    fn from_proto(proto: p::NodeReport) -> Result<Self, Violation> {
        count("replicas", proto.replicas.len(), 0, MAX_REPLICAS)?;
        let replicas = each("replicas", proto.replicas, ReplicaReport::from_proto)?;
        if let Some(at) = replicas.windows(2).position(|pair| pair[0].shard >= pair[1].shard) {
            let field = format!("replicas[{}].shard", at + 1);
            return Err(Violation::new(field, "is not above the one before"));
        }
        let shortage = optional_text("shortage", proto.shortage)?;
        count("merges", proto.merges.len(), 0, MAX_REPLICAS)?;
        let merges = each("merges", proto.merges, MergeReport::from_proto)?;
        let p::NodeReport { searches_waiting, search_threads, deletions, .. } = proto;
        Ok(Self { replicas, searches_waiting, search_threads, shortage, deletions, merges })
    }

    fn into_proto(self) -> p::NodeReport {
        p::NodeReport {
            replicas: self.replicas.into_iter().map(Convert::into_proto).collect(),
            searches_waiting: self.searches_waiting,
            shortage: self.shortage.map(|text| shorten(&text, MAX_TEXT_BYTES)),
            deletions: self.deletions,
            search_threads: self.search_threads,
            merges: self.merges.into_iter().map(Convert::into_proto).collect(),
        }
    }
}

impl Convert for MergeReport {
    type Proto = p::MergeReport;
    type Error = Violation;

    fn from_proto(proto: p::MergeReport) -> Result<Self, Violation> {
        let stage = match p::MergeStage::try_from(proto.stage) {
            Ok(p::MergeStage::Ready) => MergeStage::Ready,
            Ok(p::MergeStage::Filled) => MergeStage::Filled,
            Ok(p::MergeStage::Frozen) => MergeStage::Frozen,
            Ok(p::MergeStage::Thawed) => MergeStage::Thawed,
            Ok(p::MergeStage::Unspecified) | Err(_) => return Err(unknown_enum("stage", proto.stage)),
        };
        Ok(Self { shard: proto.shard, merge: proto.merge, stage })
    }

    fn into_proto(self) -> p::MergeReport {
        let stage = match self.stage {
            MergeStage::Ready => p::MergeStage::Ready,
            MergeStage::Filled => p::MergeStage::Filled,
            MergeStage::Frozen => p::MergeStage::Frozen,
            MergeStage::Thawed => p::MergeStage::Thawed,
        };
        p::MergeReport { shard: self.shard, merge: self.merge, stage: stage.into() }
    }
}

impl Convert for ReplicaReport {
    type Proto = p::ReplicaReport;
    type Error = Violation;

    fn from_proto(proto: p::ReplicaReport) -> Result<Self, Violation> {
        let role = match p::ReplicaRole::try_from(proto.role) {
            Ok(p::ReplicaRole::Leader) => ReplicaRole::Leader,
            Ok(p::ReplicaRole::Follower) => ReplicaRole::Follower,
            Ok(p::ReplicaRole::Learner) => ReplicaRole::Learner,
            Ok(p::ReplicaRole::Unspecified) | Err(_) => return Err(unknown_enum("role", proto.role)),
        };
        Ok(Self {
            shard: proto.shard,
            epoch: proto.epoch,
            role,
            leader: proto.leader.map(|leader| node("leader", leader)).transpose()?,
            term: proto.term,
            applied: proto.applied,
            points: proto.points,
            disk_bytes: proto.disk_bytes,
            data_bytes: proto.data_bytes,
            load: ReplicaLoad { recent_us: proto.load_us, lasting_us: proto.lasting_load_us },
            problem: optional_text("problem", proto.problem)?,
            split: proto.split.map(|split| Floor { term: split.term, index: split.index }),
            members: proto.members.map(GroupMembers::from_proto).transpose().map_err(|v| v.within("members"))?,
            last: Floor { term: proto.last_term, index: proto.last_index },
        })
    }

    fn into_proto(self) -> p::ReplicaReport {
        let role = match self.role {
            ReplicaRole::Leader => p::ReplicaRole::Leader,
            ReplicaRole::Follower => p::ReplicaRole::Follower,
            ReplicaRole::Learner => p::ReplicaRole::Learner,
        };
        p::ReplicaReport {
            shard: self.shard,
            epoch: self.epoch,
            role: role.into(),
            leader: self.leader,
            term: self.term,
            applied: self.applied,
            points: self.points,
            disk_bytes: self.disk_bytes,
            problem: self.problem.map(|text| shorten(&text, MAX_TEXT_BYTES)),
            split: self.split.map(|split| p::SplitPoint { term: split.term, index: split.index }),
            members: self.members.map(Convert::into_proto),
            data_bytes: self.data_bytes,
            load_us: self.load.recent_us,
            lasting_load_us: self.load.lasting_us,
            last_term: self.last.term,
            last_index: self.last.index,
        }
    }
}

impl Convert for GroupMembers {
    type Proto = p::GroupMembers;
    type Error = Violation;

    fn from_proto(proto: p::GroupMembers) -> Result<Self, Violation> {
        let members = |field: &str, ids: Vec<u64>| {
            count(field, ids.len(), 0, MAX_MEMBERS)?;
            let ids = each(field, ids, |id| node("", id))?;
            match ids.windows(2).position(|pair| pair[0] >= pair[1]) {
                Some(at) => Err(Violation::new(format!("{field}[{}]", at + 1), "is not above the one before")),
                None => Ok(ids),
            }
        };
        Ok(Self { voters: members("voters", proto.voters)?, learners: members("learners", proto.learners)? })
    }

    fn into_proto(self) -> p::GroupMembers {
        p::GroupMembers { voters: self.voters, learners: self.learners }
    }
}

fn optional_text(field: &str, value: Option<String>) -> Result<Option<String>, Violation> {
    value.map(|value| text(field, value, 0, MAX_TEXT_BYTES)).transpose()
}

/// The message that tells a state as of an entry of the control group's log.
pub fn state_message(applied_index: u64, state: &State) -> p::ControlState {
    // Whoever reads it goes by the index; the term matters to those who vote, who have their own.
    const TERM: u64 = 0;
    p::ControlState { applied_index, state: state.encode(applied_index, TERM).into() }
}

/// Reads a state and the entry that it is as of.
pub fn state_from(proto: &p::ControlState) -> Result<(u64, State), Violation> {
    let decoded = State::decode(&proto.state).map_err(|error| Violation::new("state", error.to_string()));
    let (state, applied_index, _) = decoded?;
    if applied_index != proto.applied_index {
        let reason = format!("is {}, the state itself is as of {applied_index}", proto.applied_index);
        return Err(Violation::new("applied_index", reason));
    }
    Ok((applied_index, state))
}

/// Reads a command for the control group.
pub fn command_from(proto: p::ProposeRequest) -> Result<Bytes, Violation> {
    sized("command", proto.command, 1)
}

/// The answer to a command.
pub fn propose_answer(answer: Answer<Bytes>) -> p::ProposeResponse {
    let (outcome, error) = fields(answer);
    p::ProposeResponse { outcome: outcome.unwrap_or_default(), error }
}

impl Answered for p::ProposeResponse {
    type Asked = ();
    type Value = Answer<Bytes>;

    fn answered(self, (): &()) -> Result<Self::Value, Violation> {
        outcome(self.error, || sized("outcome", self.outcome, 0))
    }
}

fn sized(field: &str, bytes: Bytes, least: usize) -> Result<Bytes, Violation> {
    if (least..=MAX_COMMAND_BYTES).contains(&bytes.len()) {
        return Ok(bytes);
    }
    Err(Violation::new(field, format!("has {} bytes, expected {least} to {MAX_COMMAND_BYTES}", bytes.len())))
}

/// The answer to a request for an index.
pub fn read_index_answer(answer: Answer<u64>) -> p::ReadIndexResponse {
    let (index, error) = fields(answer);
    p::ReadIndexResponse { index: index.unwrap_or_default(), error }
}

impl Answered for p::ReadIndexResponse {
    type Asked = ();
    type Value = Answer<u64>;

    fn answered(self, (): &()) -> Result<Self::Value, Violation> {
        outcome(self.error, || Ok(self.index))
    }
}
