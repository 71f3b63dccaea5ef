//! Where results go, and what becomes of a result that cannot be written.

use std::io::{self, Write};
use std::ops::Deref;

use sagitta_console::Format;
use serde::Serialize;

use crate::failure::{Exit, Failure};

/// Standard output with what is known about who reads it.
#[derive(Clone, Copy, Debug)]
pub struct Output(sagitta_console::Output);

impl Output {
    /// Looks at standard output.
    pub fn detect(format: Format) -> Self {
        Self(sagitta_console::Output::detect(format))
    }

    /// Writes a result: `document` to programs, what `people` writes to people.
    pub fn write(
        &self,
        document: &impl Serialize,
        people: impl FnOnce(&mut dyn Write, &Self) -> io::Result<()>,
    ) -> Result<(), Failure> {
        self.0.write(document, |out| people(out, self)).map_err(stdout_failed)
    }
}

impl Deref for Output {
    type Target = sagitta_console::Output;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A reader that has had enough, such as `head`, is no failure worth a word.
fn stdout_failed(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::new(Exit::Failed, String::new());
    }
    Failure::new(Exit::Failed, format!("cannot write the result: {error}"))
}
