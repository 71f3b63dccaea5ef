//! Where results go: tables to people, one JSON document to programs.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::str::FromStr;

use serde::Serialize;
use serde_json::json;

use crate::table::Table;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Tables and sentences, for people.
    Table,
    /// One JSON document with stable field names, for programs.
    Json,
}

/// Standard output with what is known about who reads it.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// How results are written.
    pub format: Format,
    /// Whether to colour.
    pub colour: bool,
    /// Columns of the terminal; absent if it is none.
    pub width: Option<usize>,
}

/// Narrowest terminal that tables are cut for.
const NARROWEST_TERMINAL: usize = 40;

impl Format {
    /// As arguments name them.
    pub const NAMES: [&'static str; 2] = ["table", "json"];
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => Err("expected table or json".to_owned()),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Json => "json",
        })
    }
}

impl Output {
    /// Looks at standard output. Colour only on a terminal, and not if `NO_COLOR` is set (<https://no-color.org>).
    pub fn detect(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        let width = terminal_size::terminal_size().map(|(terminal_size::Width(w), _)| usize::from(w));
        let width = width.filter(|_| terminal).map(|w| w.max(NARROWEST_TERMINAL));
        Self { format, colour: terminal && may_colour(), width }
    }

    /// Writes a result: `document` to programs, what `people` writes to people.
    ///
    /// # Errors
    /// What the system said. A reader that has had enough, such as `head`, is a broken pipe.
    pub fn write(
        &self,
        document: &impl Serialize,
        people: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        match self.format {
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, document)?;
                writeln!(out)?;
            }
            Format::Table => people(&mut out)?,
        }
        out.flush()
    }

    /// Writes a table to people.
    pub fn table(&self, out: &mut dyn Write, table: &Table) -> io::Result<()> {
        table.write(out, self.width, self.colour)
    }
}

/// A failure as programs read it on standard error.
pub fn failure_document(kind: &str, message: &str, details: &[&str], hint: Option<&str>) -> String {
    let error = json!({ "kind": kind, "message": message, "details": details, "hint": hint });
    json!({ "error": error }).to_string()
}

/// Whether standard error may be coloured.
pub fn colour_errors() -> bool {
    io::stderr().is_terminal() && may_colour()
}

fn may_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_read_back_by_their_names() {
        for name in Format::NAMES {
            assert_eq!(name.parse::<Format>().map(|format| format.to_string()).as_deref(), Ok(name));
        }
        assert!("yaml".parse::<Format>().is_err());
    }
}
