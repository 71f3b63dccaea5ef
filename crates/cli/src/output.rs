//! Where results go: tables to people, one JSON document to programs.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::table::Table;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
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

impl Output {
    /// Looks at standard output. Colour only on a terminal, and not if `NO_COLOR` is set (<https://no-color.org>).
    pub fn detect(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        let width = terminal_size::terminal_size().map(|(terminal_size::Width(w), _)| usize::from(w));
        let width = width.filter(|_| terminal).map(|w| w.max(NARROWEST_TERMINAL));
        Self { format, colour: terminal && may_colour(), width }
    }

    /// Writes a result: `document` to programs, what `people` writes to people.
    pub fn write(
        &self,
        document: &impl Serialize,
        people: impl FnOnce(&mut dyn Write, &Self) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        let written = match self.format {
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, document).map_err(io::Error::from).and_then(|()| writeln!(out))
            }
            Format::Table => people(&mut out, self),
        };
        written.and_then(|()| out.flush()).map_err(stdout_failed)
    }

    /// Writes a table to people.
    pub fn table(&self, out: &mut dyn Write, table: &Table) -> io::Result<()> {
        table.write(out, self.width, self.colour)
    }
}

/// Whether standard error may be coloured.
pub fn colour_errors() -> bool {
    io::stderr().is_terminal() && may_colour()
}

fn may_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A reader that has had enough, such as `head`, is no failure worth a word.
fn stdout_failed(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::new(Exit::Failed, String::new());
    }
    Failure::new(Exit::Failed, format!("cannot write the result: {error}"))
}
