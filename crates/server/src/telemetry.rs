//! Where log lines go.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// The log level could not be understood.
#[derive(Debug, thiserror::Error)]
#[error("--log {filter}: {reason}; try `info`, `debug` or `info,sagitta_shard=debug`")]
pub struct FilterError {
    filter: String,
    reason: String,
}

/// Sends log lines to standard error, as text or as JSON. Called once per process; a second call changes nothing.
pub fn start(filter: &str, json: bool) -> Result<(), FilterError> {
    let parsed = EnvFilter::try_new(filter);
    let parsed = parsed.map_err(|error| FilterError { filter: filter.to_owned(), reason: error.to_string() })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Fails only when something else in the process has taken the place already.
    let _ = if json { lines.json().try_init() } else { lines.try_init() };
    Ok(())
}
