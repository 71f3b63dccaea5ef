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
    #[error("shard {shard}: {error}{}", if error.in_doubt { IN_DOUBT } else { "" })]
    Shard {
        /// Which shard.
        shard: u64,
        /// What it said.
        error: ShardError,
    },
    /// A shard was split while it was asked, or merged with another: what its points are has to be asked of others.
    #[error("shard {shard} was split or merged meanwhile: try again{}", if *in_doubt { IN_DOUBT } else { "" })]
    Split {
        /// Which shard.
        shard: u64,
        /// Of a write: whether an earlier try may have made it.
        in_doubt: bool,
    },
    /// There is no room for another shard.
    #[error(transparent)]
    NoRoom(ShardError),
    /// The deadline passed; of a write it is unknown whether it was applied.
    #[error("the deadline passed before an answer{IN_DOUBT}")]
    DeadlineExceeded,
}

const IN_DOUBT: &str = "; a write may or may not have been applied: retry it with the same request id";

impl Error {
    /// Of a change that an earlier try may have made: that is what its caller must know.
    pub(crate) fn in_doubt_if(self, in_doubt: bool, shard: u64) -> Self {
        match self {
            error if !in_doubt => return error,
            Self::Split { shard, .. } => return Self::Split { shard, in_doubt },
            Self::Shard { shard, error } => return Self::Shard { shard, error: ShardError { in_doubt, ..error } },
            _ => {}
        }
        let error = ShardError::new(self.kind(), self.to_string());
        Self::Shard { shard, error: ShardError { in_doubt, retry_after: self.retry_after(), ..error } }
    }

    /// Of a read, which changes nothing that could be in doubt.
    pub(crate) fn of_a_read(self) -> Self {
        match self {
            Self::Shard { shard, error } => Self::Shard { shard, error: ShardError { in_doubt: false, ..error } },
            Self::Split { shard, .. } => Self::Split { shard, in_doubt: false },
            other => other,
        }
    }

    /// Whether a change may have been made all the same, or a part of it.
    pub(crate) fn is_in_doubt(&self) -> bool {
        match self {
            Self::Shard { error, .. } => error.in_doubt,
            Self::Control(error) => error.is_in_doubt(),
            Self::Split { in_doubt, .. } => *in_doubt,
            Self::DeadlineExceeded => true,
            Self::Refused(_) | Self::NoRoom(_) => false,
        }
    }

    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            _ if self.is_in_doubt() => ErrorKind::Unavailable,
            Self::Refused(refusal) => refusal.kind(),
            Self::Control(error) => error.kind(),
            Self::Shard { error, .. } | Self::NoRoom(error) => error.kind,
            Self::Split { .. } | Self::DeadlineExceeded => ErrorKind::Unavailable,
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
