//! The state as bytes: what a coordinator keeps on disk and sends to others.

use std::sync::Arc;

use sagitta_model::{CollectionName, Violation};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::collection::{Collection, CollectionJson};
use crate::hex::{decode_digest, encode_digest, hex, parse_id};
use crate::merge::Merge;
use crate::node::{Node, NodeJson};
use crate::operation::{Operation, OperationJson};
use crate::recovery::Recovery;
use crate::split::Split;
use crate::state::{Asked, Leaving, Request, State};

/// The newest format of the snapshot that this build knows. It writes the oldest that can hold the state: 7 while a collection has more shards
/// than are wanted, or a split or merge is known that nobody asked for, and since the control group went on without its majority, 6 while a
/// merge is known, 5 since a lost node was given up, 4 since a shard that is there was split, or is to be, 3 since an operation was begun.
const FORMAT: u32 = 7;

/// Why bytes are not a snapshot or a command of this build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes were changed after they were written.
    #[error(
        "the control state's checksum does not match: the file is damaged; restore it from a backup or another coordinator"
    )]
    Damaged,
    /// A newer build wrote it.
    #[error(
        "the control state has format {found}, this build reads up to {FORMAT}: start it with the newer build that wrote it"
    )]
    Newer {
        /// The format found.
        found: u32,
    },
    /// The bytes do not say what they should.
    #[error("the control state is malformed: {0}")]
    Malformed(String),
}

impl From<Violation> for SnapshotError {
    fn from(violation: Violation) -> Self {
        Self::Malformed(violation.to_string())
    }
}

#[derive(Deserialize)]
struct FormatJson {
    #[serde(default)]
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct SnapshotJson {
    format: u32,
    applied_index: u64,
    applied_term: u64,
    cluster_id: String,
    next_shard_id: u64,
    // Format 1 knew no nodes.
    #[serde(default)]
    nodes: Vec<NodeJson>,
    #[serde(default)]
    founder: Option<u64>,
    #[serde(default)]
    join_token: Option<String>,
    #[serde(default)]
    voters: Vec<u64>,
    collections: Vec<CollectionJson>,
    // Format 2 at first had neither.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    leaving: Vec<LeavingJson>,
    #[serde(default, skip_serializing_if = "crate::node::is_zero")]
    deletions: u64,
    // Format 2 has neither.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    operations: Vec<OperationJson>,
    #[serde(default, skip_serializing_if = "crate::node::is_zero")]
    begun_operations: u64,
    // Format 3 has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    splits: Vec<Split>,
    // Format 4 has neither.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    given_up: Vec<GivenUpJson>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recoveries: Vec<Recovery>,
    // Format 5 has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    merges: Vec<Merge>,
    // Format 6 has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    eras: Vec<u64>,
    requests: Vec<RequestJson>,
}

#[derive(Serialize, Deserialize)]
struct LeavingJson {
    name: String,
    deletion: u64,
    groups: Vec<Vec<u64>>,
}

#[derive(Serialize, Deserialize)]
struct GivenUpJson {
    node: u64,
    deletion: u64,
}

#[derive(Serialize, Deserialize)]
struct RequestJson {
    request: String,
    collection: String,
    // Format 1 has neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deleted: Option<String>,
}

fn leaving_json(name: &CollectionName, leaving: &Leaving) -> LeavingJson {
    LeavingJson { name: name.to_string(), deletion: leaving.deletion, groups: leaving.groups.clone() }
}

impl From<&Request> for RequestJson {
    fn from(request: &Request) -> Self {
        let (created, deleted) = match &request.asked {
            Some(Asked::Create(name)) => (Some(name.to_string()), None),
            Some(Asked::Delete(name)) => (None, Some(name.to_string())),
            None => (None, None),
        };
        Self { request: hex(request.id), collection: hex(request.collection), created, deleted }
    }
}

impl TryFrom<RequestJson> for Request {
    type Error = Violation;

    fn try_from(json: RequestJson) -> Result<Self, Violation> {
        let asked = match (json.created, json.deleted) {
            (Some(name), _) => Some(Asked::Create(name.parse()?)),
            (None, Some(name)) => Some(Asked::Delete(name.parse()?)),
            (None, None) => None,
        };
        Ok(Self { id: parse_id(&json.request)?, collection: parse_id(&json.collection)?, asked })
    }
}

impl State {
    /// The state as of a place in the log: a JSON document, a line feed and its XXH3-64 in hexadecimal.
    pub fn encode(&self, applied_index: u64, applied_term: u64) -> Vec<u8> {
        let json = SnapshotJson {
            format: self.format(),
            applied_index,
            applied_term,
            cluster_id: hex(self.cluster_id),
            next_shard_id: self.next_shard_id,
            nodes: self.nodes.values().map(|node| NodeJson::from(&**node)).collect(),
            founder: self.founder,
            join_token: self.join_token.as_ref().map(encode_digest),
            voters: self.voters.clone(),
            collections: self.collections.values().map(|collection| CollectionJson::from(&**collection)).collect(),
            leaving: self.leaving.iter().map(|(name, leaving)| leaving_json(name, leaving)).collect(),
            deletions: self.deletions,
            operations: self.operations.values().map(|operation| OperationJson::from(&**operation)).collect(),
            begun_operations: self.begun_operations,
            splits: self.splits.values().map(|split| Split::clone(split)).collect(),
            given_up: self
                .given_up
                .iter()
                .map(|(node, deletion)| GivenUpJson { node: *node, deletion: *deletion })
                .collect(),
            recoveries: self.recoveries.values().map(|recovery| Recovery::clone(recovery)).collect(),
            merges: self.merges.values().map(|merge| Merge::clone(merge)).collect(),
            eras: self.eras.clone(),
            requests: self.requests.iter().map(RequestJson::from).collect(),
        };
        let mut bytes = serde_json::to_vec(&json).expect("invariant: maps with text keys and numbers always serialise");
        let sum = xxh3_64(&bytes);
        bytes.extend_from_slice(format!("\n{sum:016x}\n").as_bytes());
        bytes
    }

    fn format(&self) -> u32 {
        let knows_splits = !self.splits.is_empty() || self.shards().any(|(_, shard)| shard.split.is_some());
        match (self.given_up.is_empty(), knows_splits, self.begun_operations) {
            _ if self.knows_unasked() || !self.eras.is_empty() => FORMAT,
            _ if !self.merges.is_empty() => 6,
            (false, ..) => 5,
            (true, true, _) => 4,
            (true, false, 0) => 2,
            (true, false, _) => 3,
        }
    }

    /// Whether it has to be told what was asked for and what was not.
    fn knows_unasked(&self) -> bool {
        self.splits.values().any(|split| split.unasked)
            || self.merges.values().any(|merge| merge.unasked)
            || self.collections.values().any(|collection| collection.has_spare_shards())
    }

    /// Reads what [`State::encode`] wrote: the state, and the index and term it is as of.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u64, u64), SnapshotError> {
        const TRAILER_BYTES: usize = 18;
        let at = bytes.len().checked_sub(TRAILER_BYTES).ok_or(SnapshotError::Damaged)?;
        let (body, trailer) = bytes.split_at(at);
        if trailer != format!("\n{:016x}\n", xxh3_64(body)).as_bytes() {
            return Err(SnapshotError::Damaged);
        }
        let malformed = |e: serde_json::Error| SnapshotError::Malformed(e.to_string());
        // First the format alone: a newer one may have anything else.
        let FormatJson { format: found } = serde_json::from_slice(body).map_err(malformed)?;
        if found > FORMAT {
            return Err(SnapshotError::Newer { found });
        }
        let json: SnapshotJson = serde_json::from_slice(body).map_err(malformed)?;
        let mut state = Self::new(parse_id(&json.cluster_id)?);
        state.next_shard_id = json.next_shard_id;
        state.founder = json.founder;
        state.join_token = json.join_token.as_deref().map(decode_digest).transpose()?;
        state.voters = json.voters;
        let nodes = json.nodes.into_iter().map(|node| Node::try_from(node).map(|node| (node.id, Arc::new(node))));
        state.nodes = Arc::new(nodes.collect::<Result<_, _>>()?);
        let collections = json.collections.into_iter().map(|collection| {
            let collection = Collection::try_from(collection)?;
            Ok((collection.name.clone(), Arc::new(collection)))
        });
        state.collections = Arc::new(collections.collect::<Result<_, Violation>>()?);
        let leaving = json.leaving.into_iter().map(|json| {
            let LeavingJson { name, deletion, groups } = json;
            Ok((name.parse()?, Leaving { deletion, groups }))
        });
        state.leaving = Arc::new(leaving.collect::<Result<_, Violation>>()?);
        state.deletions = json.deletions;
        let operations = json.operations.into_iter().map(Operation::try_from);
        let operations = operations.map(|one| one.map(|operation| (operation.id, Arc::new(operation))));
        state.operations = Arc::new(operations.collect::<Result<_, Violation>>()?);
        state.begun_operations = json.begun_operations;
        state.splits = Arc::new(json.splits.into_iter().map(|split| (split.id, Arc::new(split))).collect());
        state.given_up = Arc::new(json.given_up.into_iter().map(|one| (one.node, one.deletion)).collect());
        state.recoveries = Arc::new(json.recoveries.into_iter().map(|one| (one.shard, Arc::new(one))).collect());
        state.merges = Arc::new(json.merges.into_iter().map(|merge| (merge.id, Arc::new(merge))).collect());
        state.eras = json.eras;
        let requests = json.requests.into_iter().map(Request::try_from);
        state.requests = Arc::new(requests.collect::<Result<_, _>>()?);
        Ok((state, json.applied_index, json.applied_term))
    }
}
