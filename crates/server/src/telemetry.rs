//! Where log lines go.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The log level could not be understood.
#[derive(Debug, thiserror::Error)]
#[error("--log {filter}: {reason}; try `info`, `debug` or `info,sagitta_shard=debug`")]
pub struct FilterError {
    filter: String,
    reason: String,
}

/// Sends log lines to standard error, as text or as JSON. Called once per process; a second call changes nothing.
pub fn start(filter: &str, json: bool) -> Result<(), FilterError> {
    let wrong = |reason: String| FilterError { filter: filter.to_owned(), reason };
    // The parser takes a word that is no level for the name of a module, and then logs nothing else at all.
    for directive in filter.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(wrong(format!("`{level}` is no level: expected error, warn, info, debug, trace or off")));
        }
    }
    let parsed = EnvFilter::try_new(filter).map_err(|error| wrong(error.to_string()))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Fails only when something else in the process has taken the place already.
    let _ = if json { lines.json().try_init() } else { lines.try_init() };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_with_the_levels() {
        for filter in ["verbose", "info,verbose", "sagitta_shard=loud", "x y", "bogus="] {
            let error = start(filter, false).expect_err(filter).to_string();
            assert!(error.contains(filter) && error.contains("error, warn, info, debug"), "{error}");
        }
        for filter in ["info", "WARN", "off", "info,sagitta_shard=debug", "sagitta_node[search]=trace, error"] {
            start(filter, false).expect(filter);
        }
    }
}
