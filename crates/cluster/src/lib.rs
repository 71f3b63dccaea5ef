//! The control plane's state machine: what the cluster *is*, as a pure function of the commands it agreed on.
//!
//! `State::apply(command) -> effect`, without I/O, time or chance: whoever proposes a command puts ids and timestamps into it,
//! so every coordinator that applies the same log holds the same state. May not know: Raft, storage, the network, shard contents.

pub mod collection;
pub mod command;
mod hex;
mod invariants;
pub mod limits;
pub mod merge;
pub mod node;
pub mod operation;
pub mod outcome;
mod placement;
pub mod recovery;
pub mod report;
pub mod schedule;
pub mod snapshot;
pub mod split;
pub mod state;

pub use collection::{Collection, Floor, ShardDescriptor};
pub use command::{Command, Replaces};
pub use merge::{Merge, MergeStep};
pub use node::{Node, NodeStatus, Place, Roles};
pub use operation::{MemberChange, Operation, OperationKind, OperationStep};
pub use outcome::{Effect, Refusal, decode_outcome, encode_outcome};
pub use recovery::Recovery;
pub use report::{GroupMembers, MergeReport, MergeStage, ReplicaLoad, ReplicaReport, ReplicaRole, Report};
pub use schedule::{Limits, Plan, Told, plan};
pub use snapshot::SnapshotError;
pub use split::{Split, SplitStep};
pub use state::{Leaving, State};
