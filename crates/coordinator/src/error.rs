//! Why a request failed.

use std::time::Duration;

use sagitta_cluster::Refusal;
use sagitta_model::ErrorKind;

use crate::client::ShardError;
use crate::control::ControlError;

/// Why a request failed, with what its caller can do about it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The control plane refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The control plane could not be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A shard failed.
    #[error("shard {shard}: {error}")]
    Shard {
        /// Which shard.
        shard: u64,
        /// What it said.
        error: ShardError,
    },
    /// There is no room for another shard.
    #[error(transparent)]
    NoRoom(ShardError),
    /// The deadline passed; of a write it is unknown whether it was applied.
    #[error(
        "the deadline passed before an answer; a write may or may not have been applied: retry it with the same request id"
    )]
    DeadlineExceeded,
}

impl Error {
    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(refusal) => refusal.kind(),
            Self::Control(error) => error.kind(),
            Self::Shard { error, .. } | Self::NoRoom(error) => error.kind,
            Self::DeadlineExceeded => ErrorKind::Unavailable,
        }
    }

    /// When to come back, where that helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Shard { error, .. } | Self::NoRoom(error) => error.retry_after,
            _ => None,
        }
    }
}
