//! Many Raft groups in one process: one owner thread, one log, one fsync for everything that arrived together.
//!
//! A [`Host`] drives any number of groups. Each group joins a [`StateMachine`] to its part of a [`LogStore`];
//! members reach each other through a [`Transport`]. Callers hold a [`GroupHandle`]: they propose bytes and learn
//! what became of them. The only crate that names `raft` and `raft-engine`; nobody else needs to.
//!
//! May not know: what the proposed bytes mean (vectors, collections, the control plane), the network, RocksDB.
//!
//! The life of a proposal: [`GroupHandle::propose`] puts it in the host's bounded inbox; the driver takes
//! everything that has arrived, lets each group append, writes the entries of all groups to the log with one
//! fsync, and hands what is committed to the apply thread, which answers the callers. Meanwhile the next batch
//! gathers behind the next fsync. The order of those steps is written once, in `driver/ready.rs`.

mod admission;
mod apply;
mod codec;
mod drain;
mod driver;
mod envelope;
mod error;
mod files;
mod group;
mod handle;
mod host;
mod ids;
mod log;
mod machine;
mod mark;
mod membership;
mod outcome;
mod reads;
mod settings;
mod sizes;
mod storage;
mod transport;
mod turns;

#[cfg(test)]
mod testing;

pub use error::{ConsensusError, LogError};
pub use files::{
    Checking, FilesError, MAX_PARTS, Manifest, Order, Part, PartKeeper, Parts, Question, Shelf, StateFile, StateSource,
    States, replace, sync_parent, write_whole,
};
pub use handle::{GroupHandle, HostHandle};
pub use host::Host;
pub use ids::{ClusterId, GroupId, NodeId, Position};
pub use log::engine::{RaftEngineLog, RaftEngineSettings};
pub use log::inspect::LogInspector;
pub use log::memory::{Fault, MemoryLog};
pub use log::{GroupMeta, GroupState, GroupWrite, LogBatch, LogStore};
pub use machine::{ApplyError, Committed, Fetching, Offer, Offering, StateMachine};
pub use mark::LogMark;
pub use membership::{Members, Membership};
pub use outcome::{Applied, Doubt, HandoverOutcome, Outcome, ReadOutcome, Refusal};
pub use settings::{GroupSpec, HostSettings, MAX_PROPOSAL_BYTES};
pub use transport::memory::{MemoryNetwork, MemoryTransport};
pub use transport::{SilentTransport, Transport};

pub use driver::change::Peer;
pub use group::{Condition, GroupStatus, Role};
pub use host::HostStats;
