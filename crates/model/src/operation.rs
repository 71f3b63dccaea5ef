//! What a cluster does about its replicas and shards, as operators see it.

use std::fmt;
use std::str::FromStr;

use crate::{CollectionName, Violation};

/// Why a replica is made on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperationKind {
    /// The node that held it is lost.
    Repair,
    /// The node that holds it is to hold none.
    Drain,
    /// Somebody wants it elsewhere.
    Move,
    /// Nodes are to hold alike, or the shard's replicas to be in more zones.
    Rebalance,
}

/// How far an operation is. It is taken up from here after any crash, since each step says what should be and not what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperationStep {
    /// The node that gets the replica joins the shard's group, and receives.
    Join,
    /// It receives what it lacks.
    CatchUp,
    /// It votes, and the node that gives the replica up does not any more.
    Switch,
    /// The node that gave the replica up removes its data.
    Drop,
    /// It does not come about: the node that was to get the replica leaves the group again.
    Undo,
    /// It has ended, and the replica is on the other node.
    Done,
    /// It has ended, and all is as it was before.
    Cancelled,
}

/// How far a split of a shard is. It is taken up from here after any crash, since each step says what should be and not what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SplitStep {
    /// The new shard has its number, and the nodes learn of it. Until its end all can stay as it is.
    Prepare,
    /// The leader of the shard's group has it split.
    Divide,
    /// The nodes found the new shard's group. From the split on nobody is answered by the old route.
    Found,
    /// It has ended, and both shards are routed to.
    Done,
    /// It has ended, and nothing was done.
    Cancelled,
}

/// How far a merge of two shards is. It is taken up from here after any crash, since each step says what should be and not what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MergeStep {
    /// The new shard has its number, and its nodes found its group, with nothing.
    Prepare,
    /// It is filled with what both have, which take writes meanwhile.
    Copy,
    /// Both are frozen, and what is left of them is brought over.
    Freeze,
    /// It does not come about: both work on.
    Thaw,
    /// It has ended, and the new shard is routed to in the place of both.
    Done,
    /// It has ended, and all is as it was before.
    Cancelled,
}

/// What an operator makes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeChange {
    /// Its replicas are moved to others, and it gets none.
    Drain,
    /// It takes replicas again.
    Undrain,
    /// It never comes back.
    Remove,
    /// It is lost and never comes back, and what it holds is lost with it.
    GiveUp,
}

macro_rules! named {
    ($kind:ident, $field:literal, [$(($variant:ident, $name:literal)),+ $(,)?]) => {
        impl $kind {
            /// Every one, with its name.
            pub const NAMES: &[(Self, &str)] = &[$((Self::$variant, $name)),+];

            /// As people and logs name it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $kind {
            type Err = Violation;

            fn from_str(name: &str) -> Result<Self, Violation> {
                let found = Self::NAMES.iter().find(|(_, known)| *known == name).map(|(found, _)| *found);
                found.ok_or_else(|| Violation::new($field, format!("`{name}` is none of an operation")))
            }
        }
    };
}

named!(OperationKind, "kind", [(Repair, "repair"), (Drain, "drain"), (Move, "move"), (Rebalance, "rebalance")]);
named!(
    OperationStep,
    "step",
    [
        (Join, "join"),
        (CatchUp, "catch-up"),
        (Switch, "switch"),
        (Drop, "drop"),
        (Undo, "undo"),
        (Done, "done"),
        (Cancelled, "cancelled"),
    ]
);

named!(
    SplitStep,
    "step",
    [(Prepare, "prepare"), (Divide, "divide"), (Found, "found"), (Done, "done"), (Cancelled, "cancelled")]
);

named!(
    MergeStep,
    "step",
    [
        (Prepare, "prepare"),
        (Copy, "copy"),
        (Freeze, "freeze"),
        (Thaw, "thaw"),
        (Done, "done"),
        (Cancelled, "cancelled")
    ]
);

impl MergeStep {
    /// Whether nothing comes after it.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }

    /// Whether whoever asks for it can still have it cancelled. From [`MergeStep::Freeze`] on the shards may be frozen.
    pub fn can_be_cancelled(self) -> bool {
        matches!(self, Self::Prepare | Self::Copy)
    }
}

impl SplitStep {
    /// Whether nothing comes after it.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }
}

impl OperationStep {
    /// Whether nothing comes after it.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }

    /// Whether the operation can still be cancelled. From [`OperationStep::Switch`] on the group may have its new members already.
    pub fn can_be_cancelled(self) -> bool {
        matches!(self, Self::Join | Self::CatchUp)
    }
}

/// What an operation does, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A replica is made on another node.
    Replica {
        /// Why.
        kind: OperationKind,
        /// The node that gives its replica up, if one does.
        from: Option<u64>,
        /// The node that gets a replica.
        to: u64,
        /// How far it is.
        step: OperationStep,
    },
    /// The shard becomes two.
    Split {
        /// The shard that is split off.
        right: u64,
        /// Lowest hash of that.
        at: u64,
        /// How far it is.
        step: SplitStep,
    },
    /// The shard and its neighbour become one.
    Merge {
        /// The shard of the higher hashes.
        right: u64,
        /// The shard that they become.
        into: u64,
        /// How far it is.
        step: MergeStep,
    },
}

impl Work {
    /// As people and logs name what is done.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Replica { kind, .. } => kind.name(),
            Self::Split { .. } => "split",
            Self::Merge { .. } => "merge",
        }
    }

    /// As people and logs name how far it is.
    pub fn step(&self) -> &'static str {
        match self {
            Self::Replica { step, .. } => step.name(),
            Self::Split { step, .. } => step.name(),
            Self::Merge { step, .. } => step.name(),
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Replica { step, .. } => step.is_end(),
            Self::Split { step, .. } => step.is_end(),
            Self::Merge { step, .. } => step.is_end(),
        }
    }
}

/// An operation as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationInfo {
    /// Identity, never handed out twice.
    pub id: u64,
    /// What it does, and how far it is.
    pub work: Work,
    /// The collection; `None` once that is deleted.
    pub collection: Option<CollectionName>,
    /// The shard.
    pub shard: u64,
    /// Why it was begun, in words.
    pub reason: String,
    /// What it waits for, in words; empty when it has ended.
    pub waits_for: String,
    /// Whether somebody wants it cancelled.
    pub cancelled: bool,
    /// When it was begun, in microseconds since 1970.
    pub begun_unix_micros: u64,
    /// When it ended, in microseconds since 1970.
    pub ended_unix_micros: Option<u64>,
}
