//! Where log lines go.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

/// The log level could not be understood.
#[derive(Debug, thiserror::Error)]
#[error("--log {filter}: {reason}; try `info`, `debug` or `info,sagitta_shard=debug`")]
pub struct FilterError {
    filter: String,
    reason: String,
}

/// Sends log lines to standard error, as text or as JSON. Called once per process; a second call changes nothing.
pub fn start(filter: &str, json: bool) -> Result<(), FilterError> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(parse(filter)?)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Fails only when something else in the process has taken the place already.
    let _ = if json { lines.json().try_init() } else { lines.try_init() };
    Ok(())
}

fn parse(filter: &str) -> Result<EnvFilter, FilterError> {
    let wrong = |reason: String| FilterError { filter: filter.to_owned(), reason };
    // The parser takes a word that is no level for the name of a module, and then logs nothing else at all.
    for directive in directives(filter) {
        let level = level_of(directive);
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(wrong(format!("`{level}` is no level: expected error, warn, info, debug, trace or off")));
        }
    }
    // It also splits at each comma, those between the fields of a span included; such directives are added one by one.
    let (several, plain): (Vec<_>, Vec<_>) = directives(filter).partition(|directive| directive.contains(','));
    let parsed = EnvFilter::try_new(plain.join(",")).map_err(|error| wrong(error.to_string()))?;
    several.into_iter().try_fold(parsed, |parsed, directive| {
        let directive = directive.parse().map_err(|error: ParseError| wrong(error.to_string()))?;
        Ok(parsed.add_directive(directive))
    })
}

/// The parts of a filter: between commas, but not those within braces, which enclose the fields of a span.
fn directives(filter: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let parts = filter.split(move |c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|directive| !directive.is_empty())
}

/// What stands where the level belongs: `level`, `module=level` or `module[span{field=value}]=level`.
fn level_of(directive: &str) -> &str {
    let rest = directive.rsplit_once(']').map_or(directive, |(_, rest)| rest);
    rest.rsplit_once('=').map_or(rest, |(_, level)| level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_with_the_levels() {
        for filter in ["verbose", "info,verbose", "sagitta_shard=loud", "x y", "bogus=", "[write{a=1,b=2}]"] {
            let error = start(filter, false).expect_err(filter).to_string();
            assert!(error.contains(filter) && error.contains("error, warn, info, debug"), "{error}");
        }
        for filter in ["info", "WARN", "off", "info,sagitta_shard=debug", "sagitta_node[search]=trace, error"] {
            start(filter, false).expect(filter);
        }
    }

    #[test]
    fn the_fields_of_a_span_are_not_taken_for_directives() {
        let parsed = |filter| parse(filter).map(|parsed| parsed.to_string());
        let several = "[write{shard=1,kind=2}]=debug";
        assert_eq!(parsed(several).expect(several), several);
        let mixed = parsed("warn, sagitta_node[write{shard=1,kind=2}]=trace ,sagitta_shard=info").expect("valid");
        for directive in ["warn", "sagitta_node[write{shard=1,kind=2}]=trace", "sagitta_shard=info"] {
            assert!(mixed.contains(directive), "{directive} is not in {mixed}");
        }
        for filter in ["[write{shard=1,}]=debug", "[write{shard=1"] {
            let error = parsed(filter).expect_err(filter).to_string();
            assert!(error.starts_with(&format!("--log {filter}: ")), "{error}");
        }
    }
}
