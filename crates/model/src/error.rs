//! What every error boils down to for a caller: one of eight kinds, each an instruction.

use std::fmt;

/// What the caller should do about an error; the only part of an error that code may branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong: mend it, do not retry.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// The request collides with the present state (already exists, changed meanwhile).
    Conflict,
    /// The caller may not do this.
    Denied,
    /// Too much at once: retry later, with the same request id.
    Overloaded,
    /// The serving part is away for the moment: retry, with the same request id.
    Unavailable,
    /// Stored data failed its checks: an operator must look.
    Corrupt,
    /// A bug: report it.
    Internal,
}

/// One thing that is wrong with a request: where, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field within the request, for instance `points[3].vectors["title"]`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

impl Violation {
    /// Names the field and the reason.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// The same violation seen from one level further out: `points[3]` + `id` is `points[3].id`.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        let field = match (parent.is_empty(), self.field.is_empty()) {
            (true, _) => self.field,
            (_, true) => parent.to_owned(),
            _ if self.field.starts_with('[') => format!("{parent}{}", self.field),
            _ => format!("{parent}.{}", self.field),
        };
        Self { field, reason: self.reason }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.field, self.reason) }
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_nest_into_paths() {
        let inner = Violation::new("id", "is missing");
        assert_eq!(inner.clone().within("points[3]").field, "points[3].id");
        assert_eq!(Violation::new("[3]", "x").within("points").field, "points[3]");
        assert_eq!(Violation::new("", "x").within("points").field, "points");
        assert_eq!(inner.within("").to_string(), "id: is missing");
    }
}
