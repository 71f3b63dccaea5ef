//! Nodes as the control plane knows them, and their form in JSON.

use std::fmt;
use std::str::FromStr;

use sagitta_model::Violation;
use serde::{Deserialize, Serialize};

use crate::collection::parse_id;

/// One node: a data folder and the process that runs over it. A folder that was wiped is another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name as a member of Raft groups. Never handed out twice.
    pub id: u64,
    /// UUID of its data folder.
    pub incarnation: u128,
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
    /// Where other nodes reach it, such as `http://10.0.0.7:6381`.
    pub peer_address: String,
    /// Where clients reach it, such as `http://10.0.0.7:6380`.
    pub api_address: String,
    /// What fails together with it: a rack, a data centre. Replicas of a shard are spread over zones.
    pub zone: String,
    /// What it does.
    pub roles: Roles,
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

/// How a node stands to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeStatus {
    /// Let in, and not yet heard of.
    Joining,
    /// Takes part.
    Up,
    /// Its replicas are moved away.
    Draining,
    /// It holds no replica, and gets none.
    Drained,
    /// Not heard of for so long that it gets no new replica.
    Lost,
    /// It never comes back: its id is refused.
    Removed,
}

impl NodeStatus {
    const NAMES: [(Self, &str); 6] = [
        (Self::Joining, "joining"),
        (Self::Up, "up"),
        (Self::Draining, "draining"),
        (Self::Drained, "drained"),
        (Self::Lost, "lost"),
        (Self::Removed, "removed"),
    ];

    /// As people and logs name it.
    pub fn name(self) -> &'static str {
        Self::NAMES.into_iter().find(|(status, _)| *status == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for NodeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NodeStatus {
    type Err = Violation;

    fn from_str(name: &str) -> Result<Self, Violation> {
        let found = Self::NAMES.into_iter().find(|(_, known)| *known == name).map(|(status, _)| status);
        found.ok_or_else(|| Violation::new("status", format!("`{name}` is no status of a node")))
    }
}

/// JSON form of a [`Node`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeJson {
    id: u64,
    incarnation: String,
    place: Place,
    status: NodeStatus,
    joined_unix_micros: u64,
}

impl From<&Node> for NodeJson {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id,
            incarnation: format!("{:032x}", node.incarnation),
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
            place: json.place,
            status: json.status,
            joined_unix_micros: json.joined_unix_micros,
        })
    }
}
