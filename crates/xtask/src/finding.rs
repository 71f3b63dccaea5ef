//! What a check found.

use std::fmt;

/// One thing to mend, at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Path from the root of the workspace.
    pub path: String,
    /// Counted from 1; 0 speaks of the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// How to put it right.
    pub mend: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into(), mend: mend.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}\n    {}", self.path, self.what, self.mend),
            line => write!(f, "{}:{line}: {}\n    {}", self.path, self.what, self.mend),
        }
    }
}

/// "1 thing", "2 things".
pub(crate) fn count(things: usize) -> String {
    if things == 1 { "1 thing".to_owned() } else { format!("{things} things") }
}
