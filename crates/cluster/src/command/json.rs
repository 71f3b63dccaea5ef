//! Commands as they are written to the log. Names instead of codes, so that a person can read a log.

use serde::{Deserialize, Serialize};

use super::{Command, Replaces};
use crate::collection::{Floor, SchemaJson};
use crate::hex::{decode_digest, encode_digest, hex, parse_id};
use crate::merge::{MergeStep, step_json as merge_step_json};
use crate::node::{NodeStatus, Place, status_json};
use crate::snapshot::SnapshotError;
use crate::split::{SplitStep, step_json};

#[derive(Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
enum CommandJson {
    CreateCollection {
        request_id: String,
        id: String,
        name: String,
        schema: SchemaJson,
        shards: u32,
        // The oldest form has none.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        replication: u32,
        unix_micros: u64,
    },
    DeleteCollection {
        request_id: String,
        name: String,
        // The oldest form has none.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        keep_name: bool,
    },
    FreeName {
        name: String,
        deletion: u64,
    },
    Join {
        id: u64,
        incarnation: String,
        // The oldest form has none.
        #[serde(default, skip_serializing_if = "crate::node::is_zero")]
        run: u64,
        place: Place,
        unix_micros: u64,
    },
    SetNodeStatus {
        id: u64,
        #[serde(with = "status_json")]
        status: NodeStatus,
    },
    SetJoinToken {
        digest: String,
        // The oldest form has none; the first token replaces an empty one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<String>,
    },
    SetVoters {
        voters: Vec<u64>,
    },
    SetReplicas {
        shard: u64,
        epoch: u64,
        replicas: Vec<u64>,
    },
    BeginOperation {
        kind: String,
        shard: u64,
        epoch: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
        to: u64,
        reason: String,
        unix_micros: u64,
    },
    AdvanceOperation {
        id: u64,
        from: String,
        to: String,
        at: Floor,
        unix_micros: u64,
    },
    BeginSplit {
        shard: u64,
        epoch: u64,
        at: u64,
        reason: String,
        unix_micros: u64,
        // The oldest form has none.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unasked: bool,
    },
    AdvanceSplit {
        id: u64,
        #[serde(with = "step_json")]
        from: SplitStep,
        #[serde(with = "step_json")]
        to: SplitStep,
        at: Floor,
        unix_micros: u64,
    },
    CancelOperation {
        id: u64,
    },
    GiveUpNode {
        id: u64,
    },
    RecoverShard {
        shard: u64,
        epoch: u64,
        survivor: u64,
        term: u64,
        at: Floor,
        unix_micros: u64,
    },
    EndRecovery {
        shard: u64,
        id: u64,
    },
    BeginMerge {
        left: u64,
        left_epoch: u64,
        right: u64,
        right_epoch: u64,
        floor: Floor,
        reason: String,
        unix_micros: u64,
        // The oldest form has none.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unasked: bool,
    },
    AdvanceMerge {
        id: u64,
        #[serde(with = "merge_step_json")]
        from: MergeStep,
        #[serde(with = "merge_step_json")]
        to: MergeStep,
        unix_micros: u64,
    },
    RecoverControl {
        survivor: u64,
        lost: Vec<u64>,
        era: u64,
        ended: u64,
    },
}

fn one() -> u32 {
    1
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

impl Command {
    /// The command as it is written to the log: one JSON document.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&CommandJson::from(self))
            .expect("invariant: maps with text keys and numbers always serialise")
    }

    /// Reads what [`Command::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let json: CommandJson = serde_json::from_slice(bytes).map_err(|e| SnapshotError::Malformed(e.to_string()))?;
        json.try_into()
    }
}

impl From<&Command> for CommandJson {
    fn from(command: &Command) -> Self {
        match command {
            Command::CreateCollection { request_id, id, name, schema, shards, replication, unix_micros } => {
                Self::CreateCollection {
                    request_id: hex(*request_id),
                    id: hex(*id),
                    name: name.to_string(),
                    schema: schema.into(),
                    shards: *shards,
                    replication: *replication,
                    unix_micros: *unix_micros,
                }
            }
            Command::DeleteCollection { request_id, name, keep_name } => {
                Self::DeleteCollection { request_id: hex(*request_id), name: name.to_string(), keep_name: *keep_name }
            }
            Command::FreeName { name, deletion } => Self::FreeName { name: name.to_string(), deletion: *deletion },
            Command::Join { id, incarnation, run, place, unix_micros } => Self::Join {
                id: *id,
                incarnation: hex(*incarnation),
                run: *run,
                place: place.clone(),
                unix_micros: *unix_micros,
            },
            Command::SetNodeStatus { id, status } => Self::SetNodeStatus { id: *id, status: *status },
            Command::SetJoinToken { digest, replaces } => {
                Self::SetJoinToken { digest: encode_digest(digest), replaces: replaces_json(replaces) }
            }
            Command::SetVoters { voters } => Self::SetVoters { voters: voters.clone() },
            Command::SetReplicas { shard, epoch, replicas } => {
                Self::SetReplicas { shard: *shard, epoch: *epoch, replicas: replicas.clone() }
            }
            &Command::BeginOperation { kind, shard, epoch, from, to, ref reason, unix_micros } => {
                let (kind, reason) = (kind.to_string(), reason.clone());
                Self::BeginOperation { kind, shard, epoch, from, to, reason, unix_micros }
            }
            &Command::AdvanceOperation { id, from, to, at, unix_micros } => {
                Self::AdvanceOperation { id, from: from.to_string(), to: to.to_string(), at, unix_micros }
            }
            &Command::BeginSplit { shard, epoch, at, ref reason, unix_micros, unasked } => {
                Self::BeginSplit { shard, epoch, at, reason: reason.clone(), unix_micros, unasked }
            }
            &Command::AdvanceSplit { id, from, to, at, unix_micros } => {
                Self::AdvanceSplit { id, from, to, at, unix_micros }
            }
            &Command::CancelOperation { id } => Self::CancelOperation { id },
            &Command::GiveUpNode { id } => Self::GiveUpNode { id },
            &Command::RecoverShard { shard, epoch, survivor, term, at, unix_micros } => {
                Self::RecoverShard { shard, epoch, survivor, term, at, unix_micros }
            }
            &Command::EndRecovery { shard, id } => Self::EndRecovery { shard, id },
            &Command::BeginMerge { left, left_epoch, right, right_epoch, floor, ref reason, unix_micros, unasked } => {
                let reason = reason.clone();
                Self::BeginMerge { left, left_epoch, right, right_epoch, floor, reason, unix_micros, unasked }
            }
            &Command::AdvanceMerge { id, from, to, unix_micros } => Self::AdvanceMerge { id, from, to, unix_micros },
            Command::RecoverControl { survivor, lost, era, ended } => {
                Self::RecoverControl { survivor: *survivor, lost: lost.clone(), era: *era, ended: *ended }
            }
        }
    }
}

fn replaces_json(replaces: &Replaces) -> Option<String> {
    match replaces {
        Replaces::Any => None,
        Replaces::Nothing => Some(String::new()),
        Replaces::Token(digest) => Some(encode_digest(digest)),
    }
}

impl TryFrom<CommandJson> for Command {
    type Error = SnapshotError;

    fn try_from(json: CommandJson) -> Result<Self, SnapshotError> {
        Ok(match json {
            CommandJson::CreateCollection { request_id, id, name, schema, shards, replication, unix_micros } => {
                Self::CreateCollection {
                    request_id: parse_id(&request_id)?,
                    id: parse_id(&id)?,
                    name: name.parse()?,
                    schema: schema.try_into()?,
                    shards,
                    replication,
                    unix_micros,
                }
            }
            CommandJson::DeleteCollection { request_id, name, keep_name } => {
                Self::DeleteCollection { request_id: parse_id(&request_id)?, name: name.parse()?, keep_name }
            }
            CommandJson::FreeName { name, deletion } => Self::FreeName { name: name.parse()?, deletion },
            CommandJson::Join { id, incarnation, run, place, unix_micros } => {
                Self::Join { id, incarnation: parse_id(&incarnation)?, run, place, unix_micros }
            }
            CommandJson::SetNodeStatus { id, status } => Self::SetNodeStatus { id, status },
            CommandJson::SetJoinToken { digest, replaces } => Self::SetJoinToken {
                digest: decode_digest(&digest)?,
                replaces: match replaces.as_deref() {
                    None => Replaces::Any,
                    Some("") => Replaces::Nothing,
                    Some(digest) => Replaces::Token(decode_digest(digest)?),
                },
            },
            CommandJson::SetVoters { voters } => Self::SetVoters { voters },
            CommandJson::SetReplicas { shard, epoch, replicas } => Self::SetReplicas { shard, epoch, replicas },
            CommandJson::BeginOperation { kind, shard, epoch, from, to, reason, unix_micros } => {
                Self::BeginOperation { kind: kind.parse()?, shard, epoch, from, to, reason, unix_micros }
            }
            CommandJson::AdvanceOperation { id, from, to, at, unix_micros } => {
                Self::AdvanceOperation { id, from: from.parse()?, to: to.parse()?, at, unix_micros }
            }
            CommandJson::BeginSplit { shard, epoch, at, reason, unix_micros, unasked } => {
                Self::BeginSplit { shard, epoch, at, reason, unix_micros, unasked }
            }
            CommandJson::AdvanceSplit { id, from, to, at, unix_micros } => {
                Self::AdvanceSplit { id, from, to, at, unix_micros }
            }
            CommandJson::CancelOperation { id } => Self::CancelOperation { id },
            CommandJson::GiveUpNode { id } => Self::GiveUpNode { id },
            CommandJson::RecoverShard { shard, epoch, survivor, term, at, unix_micros } => {
                Self::RecoverShard { shard, epoch, survivor, term, at, unix_micros }
            }
            CommandJson::EndRecovery { shard, id } => Self::EndRecovery { shard, id },
            CommandJson::BeginMerge { left, left_epoch, right, right_epoch, floor, reason, unix_micros, unasked } => {
                Self::BeginMerge { left, left_epoch, right, right_epoch, floor, reason, unix_micros, unasked }
            }
            CommandJson::AdvanceMerge { id, from, to, unix_micros } => Self::AdvanceMerge { id, from, to, unix_micros },
            CommandJson::RecoverControl { survivor, lost, era, ended } => {
                Self::RecoverControl { survivor, lost, era, ended }
            }
        })
    }
}
