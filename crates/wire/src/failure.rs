//! Errors as callers see them, and the one table between kinds of errors and gRPC's status codes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use sagitta_model::{ErrorKind, Problem, Violation};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::common::Convert;
use crate::error::WireError;
use crate::v1;

/// The domain of every reason.
pub(crate) const DOMAIN: &str = "sagitta";

/// The words that programs may branch on, beyond those that say no more than the kind.
pub mod reason {
    /// The message is not well-formed protobuf, or nests too deep.
    pub const MALFORMED_MESSAGE: &str = "MALFORMED_MESSAGE";
    /// The page token is damaged or belongs to another request.
    pub const PAGE_TOKEN_INVALID: &str = "PAGE_TOKEN_INVALID";
    /// A version token is damaged.
    pub const VERSION_TOKEN_INVALID: &str = "VERSION_TOKEN_INVALID";
    /// The request id was used by a different request.
    pub const REQUEST_ID_REUSED: &str = "REQUEST_ID_REUSED";
    /// A chunk of an upload was larger than the credit that was left.
    pub const CREDIT_EXCEEDED: &str = "CREDIT_EXCEEDED";
    /// A message of an upload came out of order.
    pub const SEQUENCE_BROKEN: &str = "SEQUENCE_BROKEN";
    /// The process belongs to no cluster yet.
    pub const NO_CLUSTER: &str = "NO_CLUSTER";
    /// The process belongs to a cluster already.
    pub const CLUSTER_EXISTS: &str = "CLUSTER_EXISTS";
    /// The deadline passed; whether a write was done is unknown.
    pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
}

/// How long callers are asked to wait when nothing better is known.
pub const DEFAULT_RETRY_AFTER: Duration = Duration::from_millis(100);

/// An error on its way to or from a caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What the caller should do.
    pub kind: ErrorKind,
    /// For programs: one of [`reason`], or a word like the kind's.
    pub reason: Cow<'static, str>,
    /// For people.
    pub message: String,
    /// With kind `Invalid`: the offending fields.
    pub violations: Vec<Violation>,
    /// With kinds `NotFound` and `Conflict`: the thing in question.
    pub resource: Option<Box<Resource>>,
    /// With kinds `Overloaded` and `Unavailable`: how long to wait before trying again.
    pub retry_after: Option<Duration>,
    /// With kind `Conflict`: whether it stays until somebody changes something, so that asking again is in vain.
    pub lasts: bool,
}

/// What a request was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The type: `collection`, `request`, `cluster`, `node`, `shard`.
    pub kind: Cow<'static, str>,
    /// The name.
    pub name: String,
}

impl Failure {
    /// An error of a kind, with the reason that says no more than the kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            reason: Cow::Borrowed(plain_reason(kind)),
            message: message.into(),
            violations: Vec::new(),
            resource: None,
            retry_after: None,
            lasts: false,
        }
    }

    /// A request with an offending field.
    pub fn invalid(violation: Violation) -> Self {
        let message = violation.to_string();
        Self { violations: vec![violation], ..Self::new(ErrorKind::Invalid, message) }
    }

    /// A collection that does not exist.
    pub fn no_collection(name: &str) -> Self {
        let message = format!("there is no collection `{name:.160}`");
        Self::new(ErrorKind::NotFound, message).with_resource("collection", name)
    }

    /// A collection that exists already.
    pub fn collection_exists(name: &str) -> Self {
        let message = format!("there is a collection `{name:.160}` already");
        Self::new(ErrorKind::Conflict, message).with_resource("collection", name)
    }

    /// A request id that was used by a different request.
    pub fn request_id_reused(id: impl fmt::Display) -> Self {
        let id = id.to_string();
        let message = format!("request id {id} was used by a different request; make a new id for each request");
        Self::new(ErrorKind::Conflict, message).with_reason(reason::REQUEST_ID_REUSED).with_resource("request", id)
    }

    /// A process that belongs to no cluster yet.
    pub fn no_cluster() -> Self {
        let message = "this node belongs to no cluster yet: found one with `sagitta cluster init`, or start the node with \
                       --join and --join-token";
        Self::new(ErrorKind::NotFound, message).with_reason(reason::NO_CLUSTER).with_resource("cluster", "")
    }

    /// A process that belongs to a cluster already.
    pub fn cluster_exists(id: impl fmt::Display) -> Self {
        let id = id.to_string();
        let message = format!(
            "this node belongs to the cluster {id} already, which cannot be founded again; `sagitta cluster rotate-token` makes a \
             new token for nodes that are to join it"
        );
        Self::new(ErrorKind::Conflict, message).with_reason(reason::CLUSTER_EXISTS).with_resource("cluster", id)
    }

    /// A call whose time ran out.
    pub fn deadline_exceeded() -> Self {
        let message = "the deadline passed before the call was done; a write may have been applied all the same";
        Self::new(ErrorKind::Unavailable, message).with_reason(reason::DEADLINE_EXCEEDED)
    }

    /// With a more telling reason.
    #[must_use]
    pub fn with_reason(self, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), ..self }
    }

    /// With the thing in question.
    #[must_use]
    pub fn with_resource(self, kind: impl Into<Cow<'static, str>>, name: impl Into<String>) -> Self {
        Self { resource: Some(Box::new(Resource { kind: kind.into(), name: name.into() })), ..self }
    }

    /// With the time to wait before trying again.
    #[must_use]
    pub fn with_retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// Of a conflict that stays until somebody changes something.
    #[must_use]
    pub fn lasting(self) -> Self {
        Self { lasts: true, ..self }
    }

    /// Whether the same request, with the same request id, may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::Overloaded | ErrorKind::Unavailable => true,
            // A concurrent change, as opposed to a thing that exists and to what stays as it is.
            ErrorKind::Conflict => self.resource.is_none() && !self.lasts,
            ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Corrupt | ErrorKind::Internal => {
                false
            }
        }
    }

    /// The status code. The only place where kinds become codes; [`Failure::from_status`] is the way back.
    pub fn code(&self) -> Code {
        match self.kind {
            ErrorKind::Invalid => Code::InvalidArgument,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Conflict if self.resource.is_some() => Code::AlreadyExists,
            ErrorKind::Conflict if self.lasts => Code::FailedPrecondition,
            ErrorKind::Conflict => Code::Aborted,
            ErrorKind::Denied => Code::PermissionDenied,
            ErrorKind::Overloaded => Code::ResourceExhausted,
            ErrorKind::Unavailable if self.reason == reason::DEADLINE_EXCEEDED => Code::DeadlineExceeded,
            ErrorKind::Unavailable => Code::Unavailable,
            ErrorKind::Corrupt => Code::DataLoss,
            ErrorKind::Internal => Code::Internal,
        }
    }

    /// Reads a status as the caller gets it, from a server or from the transport on this side.
    pub fn from_status(status: &Status) -> Self {
        let details = status.check_error_details().unwrap_or_default();
        let ours = details.error_info().filter(|info| info.domain == DOMAIN);
        let (kind, plain) = match ours {
            Some(_) => from_code(status.code()),
            None => from_transport(status).unwrap_or_else(|| from_code(status.code())),
        };
        let mut failure = Self::new(kind, message_of(status)).with_reason(plain);
        if let Some(info) = ours {
            failure.reason = Cow::Owned(info.reason.clone());
        }
        if let Some(request) = details.bad_request() {
            let violations = request.field_violations.iter();
            failure.violations = violations.map(|v| Violation::new(&*v.field, &*v.description)).collect();
        }
        if let Some(info) = details.resource_info() {
            failure = failure.with_resource(info.resource_type.clone(), info.resource_name.clone());
        } else if status.code() == Code::AlreadyExists {
            // Not a concurrent change, so not worth a retry.
            failure = failure.with_resource("", "");
        }
        failure.lasts = status.code() == Code::FailedPrecondition;
        failure.retry_after = details.retry_info().and_then(|info| info.retry_delay);
        failure
    }
}

/// The message of a status. That of the transport on this side says what failed but not why, as only the last cause does.
fn message_of(status: &Status) -> String {
    let message = status.message();
    let causes = std::iter::successors(std::error::Error::source(status), |error| error.source());
    match causes.last().map(ToString::to_string) {
        Some(cause) if !message.contains(&cause) => format!("{message}: {cause}"),
        _ => message.to_owned(),
    }
}

/// What a status means that the transport on this side made up; such a status has a source.
fn from_transport(status: &Status) -> Option<(ErrorKind, &'static str)> {
    let source = std::error::Error::source(status)?;
    let mut chain = std::iter::successors(Some(source), |error| error.source());
    let late = chain.any(|error| error.is::<tonic::TimeoutExpired>());
    // Whatever code it has, the connection broke.
    Some((ErrorKind::Unavailable, if late { reason::DEADLINE_EXCEEDED } else { "CONNECTION_BROKEN" }))
}

/// Every status code as a kind, and the reason where the server gave none.
fn from_code(code: Code) -> (ErrorKind, &'static str) {
    match code {
        Code::InvalidArgument => (ErrorKind::Invalid, "INVALID"),
        Code::OutOfRange => (ErrorKind::Invalid, "OUT_OF_RANGE"),
        Code::Unimplemented => (ErrorKind::Invalid, "UNIMPLEMENTED"),
        Code::NotFound => (ErrorKind::NotFound, "NOT_FOUND"),
        Code::AlreadyExists => (ErrorKind::Conflict, "ALREADY_EXISTS"),
        Code::Aborted => (ErrorKind::Conflict, "ABORTED"),
        Code::FailedPrecondition => (ErrorKind::Conflict, "FAILED_PRECONDITION"),
        Code::PermissionDenied => (ErrorKind::Denied, "DENIED"),
        Code::Unauthenticated => (ErrorKind::Denied, "UNAUTHENTICATED"),
        Code::ResourceExhausted => (ErrorKind::Overloaded, "OVERLOADED"),
        Code::Unavailable => (ErrorKind::Unavailable, "UNAVAILABLE"),
        // Tonic's server says "cancelled" when the deadline passes before there is an answer.
        Code::DeadlineExceeded | Code::Cancelled => (ErrorKind::Unavailable, reason::DEADLINE_EXCEEDED),
        Code::DataLoss => (ErrorKind::Corrupt, "CORRUPT"),
        Code::Internal => (ErrorKind::Internal, "INTERNAL"),
        // What is no error, or says nothing, is not for the caller to act on.
        Code::Ok | Code::Unknown => (ErrorKind::Internal, "UNKNOWN"),
    }
}

fn plain_reason(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "INVALID",
        ErrorKind::NotFound => "NOT_FOUND",
        ErrorKind::Conflict => "CONFLICT",
        ErrorKind::Denied => "DENIED",
        ErrorKind::Overloaded => "OVERLOADED",
        ErrorKind::Unavailable => "UNAVAILABLE",
        ErrorKind::Corrupt => "CORRUPT",
        ErrorKind::Internal => "INTERNAL",
    }
}

// A status travels in HTTP/2 headers, of which peers accept 16 KiB in all. The message takes up to three bytes
// for one there and is repeated in the details, which take four bytes for three: with these bounds, 12 KiB at
// most.
/// Longest message or reason, in bytes.
const MAX_TEXT_BYTES: usize = 1_024;
/// Longest path or name, in bytes.
const MAX_PATH_BYTES: usize = 256;
/// Violations in a status; the first ones are the most telling.
const MAX_VIOLATIONS: usize = 4;

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut details = ErrorDetails::new();
        details.set_error_info(failure.reason.clone(), DOMAIN, HashMap::new());
        if failure.kind == ErrorKind::Invalid {
            let violations = failure.violations.iter().take(MAX_VIOLATIONS);
            let violations = violations.map(|violation| {
                let field = shorten(&violation.field, MAX_PATH_BYTES);
                FieldViolation::new(field, shorten(&violation.reason, MAX_TEXT_BYTES))
            });
            details.set_bad_request(violations.collect::<Vec<_>>());
        }
        if let Some(resource) = &failure.resource {
            details.set_resource_info(resource.kind.clone(), shorten(&resource.name, MAX_PATH_BYTES), "", "");
        }
        if matches!(failure.kind, ErrorKind::Overloaded | ErrorKind::Unavailable) {
            details.set_retry_info(Some(failure.retry_after.unwrap_or(DEFAULT_RETRY_AFTER)));
        }
        Status::with_error_details(failure.code(), shorten(&failure.message, MAX_TEXT_BYTES), details)
    }
}

/// The beginning of a text that is too long for a header.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    const ELLIPSIS: &str = "...";
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most - ELLIPSIS.len()).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
    format!("{}{ELLIPSIS}", &text[..end])
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self::invalid(violation)
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        let failure = Self::invalid(error.violation());
        match error {
            WireError::Invalid(_) => failure,
            WireError::PageToken(_) => failure.with_reason(reason::PAGE_TOKEN_INVALID),
            WireError::VersionToken { .. } => failure.with_reason(reason::VERSION_TOKEN_INVALID),
        }
    }
}

impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        Failure::from(error).into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { violations: problem.violations, ..Self::new(problem.kind, problem.message) }
    }
}

/// What a part of an answer says of an error; reason, resource and delay are for statuses only.
impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self { kind: failure.kind, message: failure.message, violations: failure.violations }
    }
}

impl Convert for Problem {
    type Proto = v1::Problem;
    type Error = Violation;

    fn from_proto(proto: v1::Problem) -> Result<Self, Violation> {
        let kind = kind_from(proto.kind()).unwrap_or(ErrorKind::Internal);
        let violations = proto.violations.into_iter().map(|v| Violation::new(v.field, v.reason));
        Ok(Self { kind, message: proto.message, violations: violations.collect() })
    }

    fn into_proto(self) -> v1::Problem {
        let violations = self.violations.into_iter();
        let violations = violations.map(|v| v1::FieldViolation { field: v.field, reason: v.reason });
        v1::Problem { kind: kind_into(self.kind).into(), message: self.message, violations: violations.collect() }
    }
}

/// The kind that a message names, if it names one.
pub(crate) fn kind_from(proto: v1::ErrorKind) -> Option<ErrorKind> {
    match proto {
        v1::ErrorKind::Unspecified => None,
        v1::ErrorKind::Invalid => Some(ErrorKind::Invalid),
        v1::ErrorKind::NotFound => Some(ErrorKind::NotFound),
        v1::ErrorKind::Conflict => Some(ErrorKind::Conflict),
        v1::ErrorKind::Denied => Some(ErrorKind::Denied),
        v1::ErrorKind::Overloaded => Some(ErrorKind::Overloaded),
        v1::ErrorKind::Unavailable => Some(ErrorKind::Unavailable),
        v1::ErrorKind::Corrupt => Some(ErrorKind::Corrupt),
        v1::ErrorKind::Internal => Some(ErrorKind::Internal),
    }
}

pub(crate) fn kind_into(kind: ErrorKind) -> v1::ErrorKind {
    match kind {
        ErrorKind::Invalid => v1::ErrorKind::Invalid,
        ErrorKind::NotFound => v1::ErrorKind::NotFound,
        ErrorKind::Conflict => v1::ErrorKind::Conflict,
        ErrorKind::Denied => v1::ErrorKind::Denied,
        ErrorKind::Overloaded => v1::ErrorKind::Overloaded,
        ErrorKind::Unavailable => v1::ErrorKind::Unavailable,
        ErrorKind::Corrupt => v1::ErrorKind::Corrupt,
        ErrorKind::Internal => v1::ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests;
