//! What can be wrong with a message.

use sagitta_model::Violation;
use thiserror::Error;

/// Why a message could not be converted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// A field breaks a rule.
    #[error("{0}")]
    Invalid(Violation),
    /// The page token is of no use here.
    #[error("page_token: {0}")]
    PageToken(TokenFault),
    /// A version token is of no use here.
    #[error("{field}: {fault}")]
    VersionToken {
        /// Where it was, as a path in the message.
        field: String,
        /// What is wrong with it.
        fault: TokenFault,
    },
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenFault {
    /// It is not what this system made: cut off, changed, or something else altogether.
    #[error("is damaged or no such token; pass back exactly what an answer contained")]
    Damaged,
    /// It is intact and of a format that this version does not know.
    #[error("was made by another version of the server; start over without it")]
    Version,
    /// It is intact and belongs to another request.
    #[error("belongs to another request; pass it with the request that it came from, or start over without it")]
    Foreign,
    /// It is intact and what it names is nonsense.
    #[error("names too many places; keep only the newest tokens")]
    TooLong,
}

impl WireError {
    /// The same error seen from one level further out in the message; see [`Violation::within`].
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        match self {
            Self::Invalid(violation) => Self::Invalid(violation.within(parent)),
            Self::VersionToken { field, fault } => {
                Self::VersionToken { field: Violation::new(field, "").within(parent).field, fault }
            }
            // A page token is on the first level of every request that has one.
            Self::PageToken(fault) => Self::PageToken(fault),
        }
    }

    /// The offending field and what is wrong with it.
    pub fn violation(&self) -> Violation {
        match self {
            Self::Invalid(violation) => violation.clone(),
            Self::PageToken(fault) => Violation::new("page_token", fault.to_string()),
            Self::VersionToken { field, fault } => Violation::new(field.clone(), fault.to_string()),
        }
    }
}

impl From<Violation> for WireError {
    fn from(violation: Violation) -> Self {
        Self::Invalid(violation)
    }
}
