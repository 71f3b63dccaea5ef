//! Whole states on their way from node to node: files of what a [`Shelf`](sagitta_consensus::Shelf) has, streamed on connections
//! of their own, so that no message of a group waits behind them.

mod desk;
mod fetcher;
mod writing;

use sagitta_consensus::Shelf;

use super::Throttle;

pub(super) use desk::StateDesk;
pub use fetcher::StateFetcher;

/// What other nodes get from here whole, and how fast.
#[derive(Clone, Debug)]
pub struct Lending {
    /// What there is.
    pub shelf: Shelf,
    /// All files together go no faster than this.
    pub throttle: Throttle,
}

impl From<Shelf> for Lending {
    /// As fast as it goes.
    fn from(shelf: Shelf) -> Self {
        Self { shelf, throttle: Throttle::default() }
    }
}

/// Bytes of a message: large enough to cost nothing beside its contents.
const CHUNK_BYTES: usize = 512 << 10;
