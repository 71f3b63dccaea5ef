//! What a group replicates.

use bytes::Bytes;

use crate::ids::Position;
use crate::membership::Membership;

/// A deterministic state that advances entry by entry: a shard's points, or the control plane.
///
/// It must store, atomically with the effects of a batch, the position and the membership that the batch leads to.
/// It need not be durable at once: the log is kept until [`StateMachine::durable`] has passed it, and after a crash
/// the entries after [`StateMachine::applied`] are handed over again.
///
/// Snapshots will add two methods here: one that names the files of a consistent state and one that installs such
/// files; nothing else in this trait will change for them.
pub trait StateMachine: Send {
    /// Applies a batch in order: all of it, or on an error nothing. Returns one response per entry.
    ///
    /// The same command may come twice, under two indexes, when a client retried: recognise it by the request id
    /// within and answer as the first time.
    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Bytes>, ApplyError>;

    /// The last entry applied, as its own storage has it; [`Position::default`] when fresh.
    fn applied(&self) -> Position;

    /// The index up to which a crash loses nothing. The log is truncated only below it.
    fn durable(&self) -> u64;

    /// The membership as of [`StateMachine::applied`], if an applied entry changed it since the founding.
    fn membership(&self) -> Option<Membership>;

    /// Makes what is applied durable. With `wait` returns when that is done; without, it is a hint that the log
    /// grows long, and starting is enough.
    fn flush(&mut self, wait: bool) -> Result<(), ApplyError>;
}

/// One committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Without gaps, from one batch to the next.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
    /// The proposal; empty for entries of the protocol's own, which only move the position.
    pub data: Bytes,
    /// The group's membership from this entry on, if it changes it.
    pub membership: Option<Membership>,
}

/// Why a batch was not applied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApplyError {
    /// No room on disk. The batch is held and tried again until there is.
    #[error("no room on disk: {0}")]
    Full(String),
    /// Stored data failed its checks. The group stops.
    #[error("damaged data: {0}")]
    Corrupt(String),
    /// Anything else. The group stops.
    #[error("{0}")]
    Failed(String),
}
