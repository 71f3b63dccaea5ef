//! Why a call did not do what was asked.

use std::time::Duration;

use sagitta_model::{ErrorKind, Violation};
use sagitta_wire::{Failure, WireError};
use thiserror::Error;

/// Why a call did not do what was asked, after all retries that made sense.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{message}")]
pub struct ClientError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// A stable word that programs may branch on, such as `PAGE_TOKEN_INVALID` or `DEADLINE_EXCEEDED`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// With kind `Invalid`: the offending fields, as paths in the request.
    pub violations: Vec<Violation>,
    /// With kinds `Overloaded` and `Unavailable`: how long the server asks to be left alone.
    pub retry_after: Option<Duration>,
    /// How often the call was tried.
    pub attempts: u32,
    /// With the reason `DEADLINE_EXCEEDED`: what an attempt before the last one, for which there was no time left, was told.
    pub told_before: Option<String>,
    /// With kind `Unavailable` and several endpoints: those that failed, and why.
    pub unreached: Vec<Unreached>,
}

/// An endpoint that did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// As a URL with its port.
    pub endpoint: String,
    /// What was wrong when it was asked last.
    pub why: String,
}

impl ClientError {
    pub(crate) fn new(failure: Failure, attempts: u32) -> Self {
        Self {
            kind: failure.kind,
            reason: failure.reason.into_owned(),
            message: failure.message,
            violations: failure.violations,
            retry_after: failure.retry_after,
            attempts,
            told_before: None,
            unreached: Vec::new(),
        }
    }

    /// A request that was not sent because it cannot be right.
    pub(crate) fn unsent(violation: Violation) -> Self {
        Self::new(Failure::invalid(violation), 0)
    }

    /// An answer that this version does not understand.
    pub(crate) fn unreadable(error: impl Into<WireError>, attempts: u32) -> Self {
        let message = format!("the server's answer is not understood: {}", error.into());
        Self::new(Failure::new(ErrorKind::Internal, message).with_reason("ANSWER_UNREADABLE"), attempts)
    }
}
