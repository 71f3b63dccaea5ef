//! Carries raft's logging (slog) over to `tracing`, one level quieter: an election is news to raft, not to us.

use std::fmt::{self, Write};

use slog::KV as _;
use slog::{Drain, Key, Level, Logger, OwnedKVList, Record, Serializer};

/// The logger to hand to raft.
pub(crate) fn logger() -> Logger {
    Logger::root(ToTracing, slog::o!())
}

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), slog::Never> {
        // Formatting costs more than most of what raft does: only when somebody listens.
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{}", text(record, values)),
            Level::Warning => tracing::warn!(target: "raft", "{}", text(record, values)),
            Level::Info => tracing::debug!(target: "raft", "{}", text(record, values)),
            Level::Debug | Level::Trace => tracing::trace!(target: "raft", "{}", text(record, values)),
        }
        Ok(())
    }
}

fn text(record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut line = Line(record.msg().to_string());
    // Writing to a string does not fail; a value that cannot be shown is left out.
    let _ = record.kv().serialize(record, &mut line);
    let _ = values.serialize(record, &mut line);
    line.0
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}")?;
        Ok(())
    }
}
