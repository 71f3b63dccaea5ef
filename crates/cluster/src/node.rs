//! Nodes as the control plane knows them, and their form in JSON.

pub use sagitta_model::NodeStatus;
use sagitta_model::Violation;
use serde::{Deserialize, Serialize};

use crate::hex::{hex, parse_id};
use crate::limits;
use crate::outcome::Refusal;

/// One node: a data folder and the process that runs over it. A folder that was wiped is another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name as a member of Raft groups. Never handed out twice.
    pub id: u64,
    /// UUID of its data folder.
    pub incarnation: u128,
    /// Which start of its folder that was, counted from 1; 0 if it did not say.
    pub run: u64,
    /// Where it is and what it does, as it said when it last joined.
    pub place: Place,
    /// How it stands to the cluster.
    pub status: NodeStatus,
    /// When it first joined, in microseconds since 1970.
    pub joined_unix_micros: u64,
}

/// Where a node is and what it does. A restart may change all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Where other nodes reach it, such as `http://10.0.0.7:6381`; empty if they cannot, or when another node has taken the address over.
    pub peer_address: String,
    /// Where clients reach it, such as `http://10.0.0.7:6380`; empty if they cannot, or when another node has taken the address over.
    pub api_address: String,
    /// What fails together with it: a rack, a data centre. Replicas of a shard are spread over zones.
    pub zone: String,
    /// What it does.
    pub roles: Roles,
}

impl Place {
    /// Whether one of its addresses is this one; hosts are the same in upper and lower case.
    pub(crate) fn has(&self, address: &str) -> bool {
        !address.is_empty() && self.addresses().into_iter().any(|own| own.eq_ignore_ascii_case(address))
    }

    pub(crate) fn addresses(&self) -> [&str; 2] {
        [&self.peer_address, &self.api_address]
    }

    /// Says what can never be right.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let plain = |field: &str, text: &str, most: usize| {
            if text.len() > most {
                return Err(Refusal::invalid(field, format!("has {} bytes, at most {most} are allowed", text.len())));
            }
            match text.chars().find(|c| c.is_control() || c.is_whitespace()) {
                Some(found) => {
                    Err(Refusal::invalid(field, format!("has the character {found:?}, which it cannot have")))
                }
                None => Ok(()),
            }
        };
        plain("peer_address", &self.peer_address, limits::MAX_ADDRESS_BYTES)?;
        plain("api_address", &self.api_address, limits::MAX_ADDRESS_BYTES)?;
        plain("zone", &self.zone, limits::MAX_ZONE_BYTES)?;
        if !self.peer_address.is_empty() && self.peer_address.eq_ignore_ascii_case(&self.api_address) {
            return Err(Refusal::invalid("peer_address", "is the api_address, too: nodes and clients need one each"));
        }
        if self.roles == (Roles { coordinator: false, shard: false }) {
            return Err(Refusal::invalid("roles", "are none: a node is a coordinator, hosts shards, or both"));
        }
        Ok(())
    }
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    /// Votes in the control group and routes requests.
    pub coordinator: bool,
    /// Hosts replicas.
    pub shard: bool,
}

/// Whether a node may come from one status to another, as far as that depends on nothing else. The same again is always
/// allowed.
pub fn may_become(from: NodeStatus, to: NodeStatus) -> bool {
    use NodeStatus::*;
    let next: &[NodeStatus] = match from {
        Joining => &[Up, Lost, Removed],
        Up => &[Draining, Lost],
        // Its replicas are moved away whether it is heard of or not, so it need not be lost.
        Draining => &[Up, Drained],
        Drained => &[Up, Removed],
        Lost => &[Up, Draining, Removed],
        Removed => &[],
    };
    from == to || next.contains(&to)
}

/// What to do instead of a change of status that is not allowed.
pub(crate) fn hint(from: NodeStatus, to: NodeStatus) -> &'static str {
    use NodeStatus::*;
    match (from, to) {
        (Removed, _) => "start it with an empty data folder, so that it joins as a new node",
        (_, Joining) => "a node joins once",
        (Joining, Draining | Drained) => "it has not been heard of and holds nothing: remove it",
        (Drained, Draining) => "it holds no replica any more",
        (Draining | Drained, Lost) => "its replicas are moved away whether it is heard of or not",
        (Draining, Removed) => "wait until it is drained",
        _ => "drain it first",
    }
}

/// Whether another node may take the place of one of this status: its address, and its turn among the coordinators.
pub(crate) fn out_of_service(status: NodeStatus) -> bool {
    matches!(status, NodeStatus::Drained | NodeStatus::Lost | NodeStatus::Removed)
}

/// The form of a status in JSON: its name.
pub(crate) mod status_json {
    use sagitta_model::{NodeStatus, Violation};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(status: &NodeStatus, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(status.name())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeStatus, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(|violation: Violation| D::Error::custom(violation))
    }
}

/// For numbers that are left out of JSON when they are 0.
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// JSON form of a [`Node`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeJson {
    id: u64,
    incarnation: String,
    // Nodes that joined by the oldest form have none.
    #[serde(default, skip_serializing_if = "is_zero")]
    run: u64,
    place: Place,
    #[serde(with = "status_json")]
    status: NodeStatus,
    joined_unix_micros: u64,
}

impl From<&Node> for NodeJson {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id,
            incarnation: hex(node.incarnation),
            run: node.run,
            place: node.place.clone(),
            status: node.status,
            joined_unix_micros: node.joined_unix_micros,
        }
    }
}

impl TryFrom<NodeJson> for Node {
    type Error = Violation;

    fn try_from(json: NodeJson) -> Result<Self, Violation> {
        Ok(Self {
            id: json.id,
            incarnation: parse_id(&json.incarnation)?,
            run: json.run,
            place: json.place,
            status: json.status,
            joined_unix_micros: json.joined_unix_micros,
        })
    }
}
