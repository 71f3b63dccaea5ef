//! What can be agreed on, and what comes of it.

use std::sync::Arc;

use sagitta_model::{CollectionName, ErrorKind, Schema, Violation};
use serde::{Deserialize, Serialize};

use crate::collection::{Collection, CollectionJson, SchemaJson, parse_id};
use crate::node::{Node, NodeJson, NodeStatus, Place};
use crate::snapshot::SnapshotError;

/// A change of the cluster. Everything that is random or timed is in it, chosen by whoever proposed it.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Creates a collection.
    CreateCollection {
        /// The caller's request id: the same request again creates nothing new.
        request_id: u128,
        /// Identity of the new collection.
        id: u128,
        /// Its name.
        name: CollectionName,
        /// Its vectors and declared fields.
        schema: Schema,
        /// Into how many shards its points are partitioned.
        shards: u32,
        /// How many nodes hold each of them.
        replication: u32,
        /// Now, in microseconds since 1970.
        unix_micros: u64,
    },
    /// Deletes a collection and its points.
    DeleteCollection {
        /// The caller's request id: the same request again deletes nothing more.
        request_id: u128,
        /// Its name.
        name: CollectionName,
    },
    /// Lets a node in, or notes where one that is in is now.
    Join {
        /// Its name as a member of Raft groups.
        id: u64,
        /// UUID of its data folder.
        incarnation: u128,
        /// Where it is and what it does.
        place: Place,
        /// Now, in microseconds since 1970.
        unix_micros: u64,
    },
    /// Notes how a node stands to the cluster.
    SetNodeStatus {
        /// Which node.
        id: u64,
        /// How it stands from now on.
        status: NodeStatus,
    },
    /// Replaces the secret that a node must know to join.
    SetJoinToken {
        /// BLAKE3 of the token, which itself is kept nowhere.
        digest: [u8; 32],
    },
}

/// What an applied command asks of the node: the difference between before and after.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// This collection exists now (or already did, created by the same request).
    Created(Arc<Collection>),
    /// The collection with this id and these shards is gone.
    Deleted {
        /// Identity of the deleted collection.
        id: u128,
        /// Identities of its shards.
        shards: Vec<u64>,
    },
    /// This node is in the cluster, like this.
    Node(Arc<Node>),
    /// The token is another one from now on.
    JoinToken,
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name is taken.
    #[error("collection `{0}` already exists: choose another name, or delete it first")]
    AlreadyExists(String),
    /// There is no such collection.
    #[error("collection `{0}` does not exist")]
    NotFound(String),
    /// The cluster holds as many collections as it can.
    #[error("the cluster holds {0} collections, which is the most it can: delete one first")]
    TooMany(usize),
    /// There are not enough nodes for so many replicas.
    #[error(
        "{wanted} replicas need as many nodes that take data, and there are {nodes}: add nodes, or ask for fewer replicas"
    )]
    TooFewNodes {
        /// How many replicas were asked for.
        wanted: u32,
        /// How many nodes could take one.
        nodes: usize,
    },
    /// Another data folder has this id.
    #[error(
        "node {id} is the data folder {known:032x}, not {claimed:032x}: start it with an empty data folder, so that it joins as a new node"
    )]
    OtherIncarnation {
        /// The id.
        id: u64,
        /// The folder that has it.
        known: u128,
        /// The folder that claims it.
        claimed: u128,
    },
    /// The node was removed for ever.
    #[error(
        "node {0} was removed from the cluster and cannot come back: start it with an empty data folder, so that it joins as a new node"
    )]
    Removed(u64),
    /// There is no such node.
    #[error("node {0} is not in the cluster")]
    NoNode(u64),
}

impl Refusal {
    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::AlreadyExists(_) => ErrorKind::Conflict,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::TooMany(_) => ErrorKind::Overloaded,
            Self::TooFewNodes { .. } | Self::OtherIncarnation { .. } | Self::Removed(_) => ErrorKind::Conflict,
            Self::NoNode(_) => ErrorKind::NotFound,
        }
    }
}

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
    },
    Join {
        id: u64,
        incarnation: String,
        place: Place,
        unix_micros: u64,
    },
    SetNodeStatus {
        id: u64,
        status: NodeStatus,
    },
    SetJoinToken {
        digest: String,
    },
}

fn one() -> u32 {
    1
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

impl Command {
    /// The caller's request id, of a command that needs one for a repetition to be harmless.
    pub fn request_id(&self) -> Option<u128> {
        match self {
            Self::CreateCollection { request_id, .. } | Self::DeleteCollection { request_id, .. } => Some(*request_id),
            Self::Join { .. } | Self::SetNodeStatus { .. } | Self::SetJoinToken { .. } => None,
        }
    }

    /// The command as it is written to the log: one JSON document.
    pub fn encode(&self) -> Vec<u8> {
        let hex = |id: &u128| format!("{id:032x}");
        let json = match self {
            Self::CreateCollection { request_id, id, name, schema, shards, replication, unix_micros } => {
                CommandJson::CreateCollection {
                    request_id: hex(request_id),
                    id: hex(id),
                    name: name.to_string(),
                    schema: schema.into(),
                    shards: *shards,
                    replication: *replication,
                    unix_micros: *unix_micros,
                }
            }
            Self::Join { id, incarnation, place, unix_micros } => CommandJson::Join {
                id: *id,
                incarnation: hex(incarnation),
                place: place.clone(),
                unix_micros: *unix_micros,
            },
            Self::SetNodeStatus { id, status } => CommandJson::SetNodeStatus { id: *id, status: *status },
            Self::SetJoinToken { digest } => CommandJson::SetJoinToken { digest: encode_digest(digest) },
            Self::DeleteCollection { request_id, name } => {
                CommandJson::DeleteCollection { request_id: hex(request_id), name: name.to_string() }
            }
        };
        serde_json::to_vec(&json).expect("invariant: maps with text keys and numbers always serialise")
    }

    /// Reads what [`Command::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let json = serde_json::from_slice(bytes).map_err(|e| SnapshotError::Malformed(e.to_string()))?;
        let command = match json {
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
            CommandJson::Join { id, incarnation, place, unix_micros } => {
                Self::Join { id, incarnation: parse_id(&incarnation)?, place, unix_micros }
            }
            CommandJson::SetNodeStatus { id, status } => Self::SetNodeStatus { id, status },
            CommandJson::SetJoinToken { digest } => Self::SetJoinToken { digest: decode_digest(&digest)? },
            CommandJson::DeleteCollection { request_id, name } => {
                Self::DeleteCollection { request_id: parse_id(&request_id)?, name: name.parse()? }
            }
        };
        Ok(command)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", deny_unknown_fields)]
enum OutcomeJson {
    Created { collection: CollectionJson },
    Deleted { id: String, shards: Vec<u64> },
    AlreadyExists { name: String },
    NotFound { name: String },
    TooMany { collections: usize },
    Node { node: NodeJson },
    JoinToken,
    TooFewNodes { wanted: u32, nodes: usize },
    OtherIncarnation { id: u64, known: String, claimed: String },
    Removed { id: u64 },
    NoNode { id: u64 },
}

/// What came of a command, as a state machine answers it: one JSON document.
pub fn encode_outcome(outcome: &Result<Effect, Refusal>) -> Vec<u8> {
    let json = match outcome {
        Ok(Effect::Created(collection)) => OutcomeJson::Created { collection: (&**collection).into() },
        Ok(Effect::Deleted { id, shards }) => OutcomeJson::Deleted { id: format!("{id:032x}"), shards: shards.clone() },
        Err(Refusal::AlreadyExists(name)) => OutcomeJson::AlreadyExists { name: name.clone() },
        Err(Refusal::NotFound(name)) => OutcomeJson::NotFound { name: name.clone() },
        Err(Refusal::TooMany(collections)) => OutcomeJson::TooMany { collections: *collections },
        Ok(Effect::Node(node)) => OutcomeJson::Node { node: (&**node).into() },
        Ok(Effect::JoinToken) => OutcomeJson::JoinToken,
        Err(Refusal::TooFewNodes { wanted, nodes }) => OutcomeJson::TooFewNodes { wanted: *wanted, nodes: *nodes },
        Err(Refusal::OtherIncarnation { id, known, claimed }) => OutcomeJson::OtherIncarnation {
            id: *id,
            known: format!("{known:032x}"),
            claimed: format!("{claimed:032x}"),
        },
        Err(Refusal::Removed(id)) => OutcomeJson::Removed { id: *id },
        Err(Refusal::NoNode(id)) => OutcomeJson::NoNode { id: *id },
    };
    serde_json::to_vec(&json).expect("invariant: maps with text keys and numbers always serialise")
}

/// Reads what [`encode_outcome`] wrote.
pub fn decode_outcome(bytes: &[u8]) -> Result<Result<Effect, Refusal>, SnapshotError> {
    let json = serde_json::from_slice(bytes).map_err(|e| SnapshotError::Malformed(e.to_string()))?;
    Ok(match json {
        OutcomeJson::Created { collection } => Ok(Effect::Created(Arc::new(collection.try_into()?))),
        OutcomeJson::Deleted { id, shards } => Ok(Effect::Deleted { id: parse_id(&id)?, shards }),
        OutcomeJson::AlreadyExists { name } => Err(Refusal::AlreadyExists(name)),
        OutcomeJson::NotFound { name } => Err(Refusal::NotFound(name)),
        OutcomeJson::TooMany { collections } => Err(Refusal::TooMany(collections)),
        OutcomeJson::Node { node } => Ok(Effect::Node(Arc::new(node.try_into()?))),
        OutcomeJson::JoinToken => Ok(Effect::JoinToken),
        OutcomeJson::TooFewNodes { wanted, nodes } => Err(Refusal::TooFewNodes { wanted, nodes }),
        OutcomeJson::OtherIncarnation { id, known, claimed } => {
            Err(Refusal::OtherIncarnation { id, known: parse_id(&known)?, claimed: parse_id(&claimed)? })
        }
        OutcomeJson::Removed { id } => Err(Refusal::Removed(id)),
        OutcomeJson::NoNode { id } => Err(Refusal::NoNode(id)),
    })
}

/// 64 hexadecimal digits.
pub(crate) fn encode_digest(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn decode_digest(hex: &str) -> Result<[u8; 32], Violation> {
    let wrong = || Violation::new("digest", format!("`{hex}` is not 64 hexadecimal digits"));
    let mut digest = [0; 32];
    if hex.len() != 2 * digest.len() {
        return Err(wrong());
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        let pair = hex.get(2 * at..2 * at + 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(digest)
}
