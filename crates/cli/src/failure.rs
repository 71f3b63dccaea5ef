//! How a command fails: one clear line, a hint, and an exit code that scripts can branch on.

use std::fmt;
use std::io::Write;

use sagitta_console::failure_document;
use sagitta_model::ErrorKind;

use crate::data::DataError;
use crate::filter::FilterError;

/// Why the program ends, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something went wrong that is none of the others.
    Failed = 1,
    /// The arguments or the request are wrong.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// The server cannot be reached, is overloaded or did not answer in time: try again.
    Unavailable = 4,
    /// What was to be made exists already, or was changed meanwhile.
    Conflict = 5,
    /// The server does not allow it.
    Denied = 6,
    /// A data file is damaged or not as it should be.
    Data = 7,
    /// The cluster is degraded: all is answered, and less may fail than was asked for.
    Degraded = 8,
    /// Stopped by Ctrl-C.
    Interrupted = 130,
}

/// The exit codes, for help texts.
pub const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong arguments or request, 3 not found, 4 unavailable or timed out (try again), \
5 exists already, 6 not allowed, 7 data file refused, 8 cluster degraded, 130 interrupted. With --output json an error is one JSON \
document on standard error.";

/// A command that failed.
#[derive(Debug, PartialEq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong, in one line, naming the argument, field or file.
    pub message: String,
    /// Lines to show below the message as they are, such as a marked place in a filter.
    pub excerpt: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), excerpt: Vec::new(), hint: None }
    }

    /// Arguments that make no sense together.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Arguments that cannot be understood: what clap would print, in parts.
    pub fn arguments(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut message = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let lines = lines.take_while(|line| !line.starts_with("Usage: ") && !line.starts_with("For more information"));
        let (tips, mut excerpt): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("tip: "));
        // What is missing is told in a list, without which the message says nothing.
        if message.ends_with(':') {
            message = format!("{message} {}", std::mem::take(&mut excerpt).join(", "));
        }
        let hint = tips.first().map_or("--help shows the arguments", |tip| tip.trim_start_matches("tip: "));
        Self { excerpt: excerpt.into_iter().map(str::to_owned).collect(), ..Self::usage(message) }.hint(hint)
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A filter that cannot be understood, with its place marked.
    pub fn filter(argument: &str, text: &str, error: &FilterError) -> Self {
        let failure = Self::usage(format!("{argument}: {}", error.message));
        let hint = "sagitta search --help shows the filter syntax";
        // In a blank text there is no place to mark.
        let Some(at) = error.at.filter(|_| !text.trim().is_empty()) else { return failure.hint(hint) };
        // One line of the text with the place in its middle, as wide as a terminal takes.
        const BEFORE: usize = 50;
        const AFTER: usize = 30;
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        let before: Vec<char> = text[..at].chars().map(shown).collect();
        let cut = before.len().saturating_sub(BEFORE);
        let start: String = before[cut..].iter().collect();
        let end: String = text[at..].chars().map(shown).take(AFTER).collect();
        let width = unicode_width::UnicodeWidthStr::width(start.as_str());
        let excerpt = vec![format!("  {start}{end}"), format!("  {}^", " ".repeat(width))];
        Self { excerpt, ..failure }.hint(hint)
    }

    /// Writes the failure to people, or as one JSON document to programs; nothing if it has no message.
    pub fn report(&self, out: &mut dyn Write, as_json: bool, colour: bool) -> std::io::Result<()> {
        if self.message.is_empty() {
            return Ok(());
        }
        if as_json {
            let details: Vec<_> = self.excerpt.iter().map(|line| line.trim_start()).collect();
            let hint = self.hint.as_deref();
            return writeln!(out, "{}", failure_document(self.exit.name(), &self.message, &details, hint));
        }
        let [red, bold, dim, plain] = if colour { ["\x1b[31;1m", "\x1b[1m", "\x1b[2m", "\x1b[0m"] } else { [""; 4] };
        writeln!(out, "{red}error:{plain} {bold}{}{plain}", self.message)?;
        for line in &self.excerpt {
            writeln!(out, "{line}")?;
        }
        match &self.hint {
            Some(hint) => writeln!(out, "{dim}hint:{plain} {hint}"),
            None => Ok(()),
        }
    }
}

impl Exit {
    /// The stable name that JSON output uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "invalid",
            Self::NotFound => "not_found",
            Self::Unavailable => "unavailable",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Data => "data",
            Self::Degraded => "degraded",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid => Self::Usage,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::Overloaded | ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::Corrupt | ErrorKind::Internal => Self::Failed,
        }
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::new(Exit::Data, error.to_string()).hint(error.fix())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_shown_with_its_place_marked() {
        let text = "größe = 1 und b = 2";
        let error = crate::filter::parse(text).expect_err("refused");
        let failure = Failure::filter("--filter", text, &error);
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.excerpt, ["  größe = 1 und b = 2", "            ^"]);
        for blank in ["", "  "] {
            let error = crate::filter::parse(blank).expect_err("refused");
            assert!(Failure::filter("--filter", blank, &error).excerpt.is_empty());
        }
        let long = format!("{} und", "a = 1 and ".repeat(100) + "b = 1");
        let error = crate::filter::parse(&long).expect_err("refused");
        let failure = Failure::filter("--filter", &long, &error);
        assert!(failure.excerpt[0].len() < 90 && failure.excerpt[1].ends_with('^'));
        assert!(failure.excerpt[0][failure.excerpt[1].len() - 1..].starts_with("und"));
    }

    #[test]
    fn a_failure_without_a_message_is_not_worth_a_word() {
        let mut bytes = Vec::new();
        for as_json in [false, true] {
            Failure::new(Exit::Failed, "").report(&mut bytes, as_json, false).expect("writes");
        }
        assert!(bytes.is_empty());
    }

    #[test]
    fn people_get_lines_and_programs_get_one_document() {
        let failure = Failure::new(Exit::NotFound, "no \"x\"").hint("list them");
        let report = |as_json, colour| {
            let mut bytes = Vec::new();
            failure.report(&mut bytes, as_json, colour).expect("writes");
            String::from_utf8(bytes).expect("text")
        };
        assert_eq!(report(false, false), "error: no \"x\"\nhint: list them\n");
        assert!(report(false, true).starts_with("\x1b[31;1merror:\x1b[0m "));
        let parsed: serde_json::Value = serde_json::from_str(&report(true, true)).expect("JSON");
        assert_eq!(parsed["error"]["kind"], "not_found");
        assert_eq!(parsed["error"]["hint"], "list them");
        assert_eq!(parsed["error"]["details"], serde_json::json!([]));
    }
}
