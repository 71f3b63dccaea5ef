//! Points, each a register: written, deleted, read.

use serde::{Deserialize, Serialize};

use crate::Model;

/// Every point for itself. Values should be unique, so that a read tells which write it saw.
///
/// A call about several points is recorded as one operation for each; what is atomic across them is not looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Points;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PointInput {
    /// Insert or replace.
    Upsert {
        /// Which point.
        id: u64,
        /// What stands for its vectors and payload.
        value: u64,
    },
    /// Delete; no error if there is none.
    Delete {
        /// Which point.
        id: u64,
    },
    /// Read.
    Get {
        /// Which point.
        id: u64,
    },
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PointOutput {
    /// Written or deleted.
    Done,
    /// Read.
    Found(Option<u64>),
}

impl PointInput {
    /// Which point it is about.
    pub fn id(&self) -> u64 {
        match self {
            Self::Upsert { id, .. } | Self::Delete { id } | Self::Get { id } => *id,
        }
    }

    /// What the point is after this write; `None` for a read.
    pub(crate) fn written(&self) -> Option<Option<u64>> {
        match self {
            Self::Upsert { value, .. } => Some(Some(*value)),
            Self::Delete { .. } => Some(None),
            Self::Get { .. } => None,
        }
    }
}

impl Model for Points {
    type Key = u64;
    type State = Option<u64>;
    type Input = PointInput;
    type Output = PointOutput;

    fn key(&self, input: &PointInput) -> u64 {
        input.id()
    }

    fn initial(&self, _: &u64) -> Option<u64> {
        None
    }

    fn step(&self, state: &Option<u64>, input: &PointInput, output: Option<&PointOutput>) -> Option<Option<u64>> {
        match (input.written(), output) {
            (Some(written), None | Some(PointOutput::Done)) => Some(written),
            (None, None) => Some(*state),
            (None, Some(PointOutput::Found(found))) if found == state => Some(*state),
            _ => None,
        }
    }

    fn is_read(&self, input: &PointInput) -> bool {
        matches!(input, PointInput::Get { .. })
    }

    /// A write leaves nothing of what was before, so only a read of just this value tells of it.
    fn may_reveal(&self, _: &PointInput, output: &PointOutput, lost: &PointInput) -> bool {
        matches!(output, PointOutput::Found(found) if lost.written() == Some(*found))
    }
}
