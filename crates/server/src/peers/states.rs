//! Whole states on their way from node to node: files of what a [`Shelf`](sagitta_consensus::Shelf) has, streamed on connections
//! of their own, so that no message of a group waits behind them.

mod desk;
mod fetcher;
mod writing;

pub(super) use desk::StateDesk;
pub use fetcher::StateFetcher;

/// Bytes of a message: large enough to cost nothing beside its contents.
const CHUNK_BYTES: usize = 512 << 10;
