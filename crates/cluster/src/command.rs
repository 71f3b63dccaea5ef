//! What can be agreed on, and what comes of it.

use std::sync::Arc;

use sagitta_model::{CollectionName, ErrorKind, Schema};
use serde::{Deserialize, Serialize};

use crate::collection::{Collection, CollectionJson, SchemaJson, parse_id};
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
}

impl Refusal {
    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::AlreadyExists(_) => ErrorKind::Conflict,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::TooMany(_) => ErrorKind::Overloaded,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
enum CommandJson {
    CreateCollection { request_id: String, id: String, name: String, schema: SchemaJson, shards: u32, unix_micros: u64 },
    DeleteCollection { request_id: String, name: String },
}

impl Command {
    /// The caller's request id.
    pub fn request_id(&self) -> u128 {
        match self {
            Self::CreateCollection { request_id, .. } | Self::DeleteCollection { request_id, .. } => *request_id,
        }
    }

    /// The command as it is written to the log: one JSON document.
    pub fn encode(&self) -> Vec<u8> {
        let hex = |id: &u128| format!("{id:032x}");
        let json = match self {
            Self::CreateCollection { request_id, id, name, schema, shards, unix_micros } => {
                CommandJson::CreateCollection {
                    request_id: hex(request_id),
                    id: hex(id),
                    name: name.to_string(),
                    schema: schema.into(),
                    shards: *shards,
                    unix_micros: *unix_micros,
                }
            }
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
            CommandJson::CreateCollection { request_id, id, name, schema, shards, unix_micros } => {
                Self::CreateCollection {
                    request_id: parse_id(&request_id)?,
                    id: parse_id(&id)?,
                    name: name.parse()?,
                    schema: schema.try_into()?,
                    shards,
                    unix_micros,
                }
            }
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
}

/// What came of a command, as a state machine answers it: one JSON document.
pub fn encode_outcome(outcome: &Result<Effect, Refusal>) -> Vec<u8> {
    let json = match outcome {
        Ok(Effect::Created(collection)) => OutcomeJson::Created { collection: (&**collection).into() },
        Ok(Effect::Deleted { id, shards }) => OutcomeJson::Deleted { id: format!("{id:032x}"), shards: shards.clone() },
        Err(Refusal::AlreadyExists(name)) => OutcomeJson::AlreadyExists { name: name.clone() },
        Err(Refusal::NotFound(name)) => OutcomeJson::NotFound { name: name.clone() },
        Err(Refusal::TooMany(collections)) => OutcomeJson::TooMany { collections: *collections },
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
    })
}
