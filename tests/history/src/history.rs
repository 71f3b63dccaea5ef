//! Operations of clients, and their form in JSON lines.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What clients did, in the order of their calls. An operation is named by its position.
#[derive(Clone, Debug, PartialEq)]
pub struct History<I, O> {
    /// The operations.
    pub operations: Vec<Operation<I, O>>,
}

/// One call of one client. Times are of one clock for all clients, in any unit; where they are equal, operations count
/// as overlapping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation<I, O> {
    /// Who called. For people: the check goes by times alone.
    pub client: u64,
    /// When, before anything was sent.
    pub called: u64,
    /// What was asked for.
    pub input: I,
    /// How old a state a read may have seen.
    #[serde(default)]
    pub freshness: Freshness,
    /// What came of it.
    pub outcome: Outcome<O>,
}

/// How old a state an operation may have worked on. A weaker read is one that may have happened before it was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Freshness {
    /// It takes effect between its call and its return.
    #[default]
    Strong,
    /// Not before the write at this position, which was acknowledged and whose token the read carried.
    Session(usize),
    /// At any time before its return.
    Eventual,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Outcome<O> {
    /// Answered.
    Ok {
        /// When the answer was there.
        returned: u64,
        /// What it said.
        output: O,
    },
    /// Certainly without effect: refused, or never sent. Of a read that brought nothing this is always true.
    Failed,
    /// It may take effect at any time after its call, even long after its client gave up, or never.
    Unknown,
}

impl<I, O> Operation<I, O> {
    /// When it returned.
    pub fn returned(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Ok { returned, .. } => Some(returned),
            Outcome::Failed | Outcome::Unknown => None,
        }
    }
}

impl<I: Serialize, O: Serialize> History<I, O> {
    /// Writes a line of JSON for each operation.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = String::new();
        for operation in &self.operations {
            writeln!(text, "{}", serde_json::to_string(operation)?).map_err(io::Error::other)?;
        }
        fs::write(path, text)
    }
}

impl<I: DeserializeOwned, O: DeserializeOwned> History<I, O> {
    /// Reads what [`History::write`] wrote.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let parse = |(index, line): (usize, &str)| {
            serde_json::from_str(line)
                .map_err(|error| io::Error::other(format!("{}:{}: {error}", path.display(), index + 1)))
        };
        Ok(Self { operations: text.lines().enumerate().map(parse).collect::<io::Result<_>>()? })
    }
}
