//! A shard and its replicas.

use sagitta_model::{ReplicaInfo, ReplicaLoad, ReplicaRole, ReplicaTold, ShardInfo, Violation};

use super::{health_from, health_into};
use crate::common::{Convert, collection_name, each, unknown_enum};
use crate::v1;

impl Convert for ShardInfo {
    type Proto = v1::Shard;
    type Error = Violation;

    fn from_proto(proto: v1::Shard) -> Result<Self, Violation> {
        Ok(Self {
            id: proto.id,
            collection: collection_name(&proto.collection)?,
            first_hash: proto.first_hash,
            last_hash: proto.last_hash,
            epoch: proto.epoch,
            replicas: each("replicas", proto.replicas, ReplicaInfo::from_proto)?,
            leader: proto.leader,
            applied: proto.applied_index,
            points: proto.points,
            disk_bytes: proto.disk_bytes,
            data_bytes: proto.data_bytes,
            load: ReplicaLoad { recent_us: proto.load_us, lasting_us: proto.lasting_load_us },
            health: health_from(proto.health)?,
            problems: proto.problems,
        })
    }

    fn into_proto(self) -> v1::Shard {
        v1::Shard {
            id: self.id,
            collection: self.collection.to_string(),
            first_hash: self.first_hash,
            last_hash: self.last_hash,
            epoch: self.epoch,
            replicas: self.replicas.into_iter().map(Convert::into_proto).collect(),
            leader: self.leader,
            applied_index: self.applied,
            points: self.points,
            disk_bytes: self.disk_bytes,
            health: health_into(self.health),
            problems: self.problems,
            data_bytes: self.data_bytes,
            load_us: self.load.recent_us,
            lasting_load_us: self.load.lasting_us,
        }
    }
}

impl Convert for ReplicaInfo {
    type Proto = v1::Replica;
    type Error = Violation;

    fn from_proto(proto: v1::Replica) -> Result<Self, Violation> {
        let role = match v1::ReplicaRole::try_from(proto.role) {
            Ok(v1::ReplicaRole::Leader) => Some(ReplicaRole::Leader),
            Ok(v1::ReplicaRole::Follower) => Some(ReplicaRole::Follower),
            Ok(v1::ReplicaRole::Learner) => Some(ReplicaRole::Learner),
            Ok(v1::ReplicaRole::Unspecified) => None,
            Err(_) => return Err(unknown_enum("role", proto.role)),
        };
        let told = role.map(|role| ReplicaTold {
            role,
            epoch: proto.epoch,
            term: proto.term,
            applied: proto.applied_index,
            lag_entries: proto.lag_entries,
            points: proto.points,
            disk_bytes: proto.disk_bytes,
            data_bytes: proto.data_bytes,
            load: ReplicaLoad { recent_us: proto.load_us, lasting_us: proto.lasting_load_us },
            problem: Some(proto.problem).filter(|problem| !problem.is_empty()),
        });
        Ok(Self { node: proto.node, wanted: proto.wanted, told })
    }

    fn into_proto(self) -> v1::Replica {
        let bare = v1::Replica { node: self.node, wanted: self.wanted, ..Default::default() };
        let Some(told) = self.told else { return bare };
        let role = match told.role {
            ReplicaRole::Leader => v1::ReplicaRole::Leader,
            ReplicaRole::Follower => v1::ReplicaRole::Follower,
            ReplicaRole::Learner => v1::ReplicaRole::Learner,
        };
        v1::Replica {
            role: role.into(),
            epoch: told.epoch,
            term: told.term,
            applied_index: told.applied,
            lag_entries: told.lag_entries,
            points: told.points,
            disk_bytes: told.disk_bytes,
            problem: told.problem.unwrap_or_default(),
            data_bytes: told.data_bytes,
            load_us: told.load.recent_us,
            lasting_load_us: told.load.lasting_us,
            ..bare
        }
    }
}
