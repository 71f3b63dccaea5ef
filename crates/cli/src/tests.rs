use clap::{CommandFactory, Parser};

use crate::cli::Cli;

fn refusal(args: &[&str]) -> String {
    let args = [&["sagitta"], args].concat();
    let error = Cli::try_parse_from(&args).err().unwrap_or_else(|| panic!("{args:?} parses"));
    assert_eq!(error.exit_code(), 2, "{args:?}");
    error.to_string()
}

#[test]
fn the_arguments_are_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_teaches_by_example() {
    fn check(command: &clap::Command, path: &str) {
        let subcommands: Vec<_> = command.get_subcommands().collect();
        if subcommands.is_empty() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:\n  ") && help.contains("sagitta "), "{path} shows no examples");
            // Help is wrapped to the terminal, and an example that is wrapped cannot be copied. Prose may be.
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                assert!(line.chars().count() <= 80, "{path}: {line}");
            }
        }
        for subcommand in subcommands {
            let path = format!("{path} {}", subcommand.get_name());
            assert!(subcommand.get_about().is_some(), "{path} says nothing about itself");
            check(subcommand, &path);
        }
    }
    check(&Cli::command(), "sagitta");
}

#[test]
fn examples_in_help_texts_are_accepted() {
    fn examples(command: &clap::Command, found: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default().replace("\\\n", "");
        let lines = help.lines().filter_map(|line| line.trim_start().strip_prefix("sagitta "));
        found.extend(lines.map(str::to_owned));
        command.get_subcommands().for_each(|subcommand| examples(subcommand, found));
    }
    let mut found = Vec::new();
    examples(&Cli::command(), &mut found);
    assert!(found.len() > 30);
    for line in found {
        let words = shell_words(&line);
        let parsed = Cli::try_parse_from(std::iter::once("sagitta").chain(words.iter().map(String::as_str)));
        assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("refused"));
        for filter in words.windows(2).filter(|pair| pair[0] == "--filter") {
            assert!(crate::filter::parse(&filter[1]).is_ok(), "{line}");
        }
    }
}

/// Splits an example as a shell would: quotes, comments, pipes.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            ('#' | '|' | '<' | '>' | '&', None) => break,
            (' ', None) => words.push(String::new()),
            (c, _) => words.last_mut().expect("a word").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn arguments_that_make_no_sense_are_refused_with_what_would() {
    let cases: [(&[&str], &str); 16] = [
        (&[], "Usage:"),
        (&["serach"], "search"),
        (&["collection", "create", "Docs", "--dim", "3"], "a-z"),
        (&["collection", "create", "docs"], "--dim <N>|--vector <NAME=DIM"),
        (&["collection", "create", "docs", "--dim", "0"], "at least 1"),
        (&["collection", "create", "docs", "--dim", "3", "--metric", "manhattan"], "cosine"),
        (&["collection", "create", "docs", "--dim", "3", "--field", "a=int"], "integer"),
        (&["search", "docs"], "--vector <JSON>"),
        (&["search", "docs", "--like", "3", "--vector", "[1]"], "cannot be used with"),
        (&["search", "docs", "--like", "x"], "UUID"),
        (&["search", "docs", "--like", "3", "--exact", "--recall", "0.9"], "cannot be used with"),
        (&["search", "docs", "--like", "3", "--recall", "2"], "at most 1"),
        (&["delete", "docs"], "<ID|--filter <FILTER>>"),
        (&["count", "docs", "--timeout", "soon"], "500ms"),
        (&["shard", "split", "docs"], "<SHARD>"),
        (&["shard", "split", "docs", "upper"], "invalid digit"),
    ];
    for (args, expected) in cases {
        let text = refusal(args);
        assert!(text.contains(expected), "{args:?}: {text}");
    }
}
