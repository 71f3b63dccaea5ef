//! House rules of Rust files that clippy does not know.

use crate::finding::Finding;
use crate::source::{Line, Source, words};

#[cfg(test)]
mod tests;

/// The only places where the compiler's guarantees may be given up: a crate's folder, or a file.
const UNSAFE_ALLOWED: [&str; 3] = ["crates/engine-faiss/", "crates/engine/src/mapped.rs", "tests/simulation/clock.rs"];

pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(check_crate_docs(source));
    for (number, line) in source.numbered() {
        findings.extend(check_unsafe(source, number, line));
        findings.extend(check_allow(source, number, line));
        findings.extend(check_sleep(source, number, line));
    }
    findings
}

/// Every crate, and every library that tests share, says what it is and what it may not know, where its reader starts.
fn check_crate_docs(source: &Source) -> Option<Finding> {
    let mut parts = source.path.split('/');
    let is_root = matches!(
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()),
        (Some("crates" | "tests"), Some(_), Some("src"), Some("lib.rs" | "main.rs"), None)
    );
    if !is_root {
        return None;
    }
    let docs = || source.lines.iter().take_while(|line| line.comment.starts_with("//!"));
    let what = if docs().next().is_none() {
        "the crate's first lines are not its documentation"
    } else if !docs().any(|line| line.comment.contains("May not know:")) {
        "the crate does not say what it may not know"
    } else {
        return None;
    };
    Some(Finding::new(&source.path, 1, what, "start with `//!`: what the crate is, and a sentence `May not know: …`"))
}

fn check_unsafe(source: &Source, number: usize, line: &Line) -> Vec<Finding> {
    let mut findings = Vec::new();
    for at in words(&line.code, "unsafe") {
        if !UNSAFE_ALLOWED.iter().any(|allowed| source.path.starts_with(allowed)) {
            let mend = "unsafe code lives in crates/engine-faiss, the one mmap of crates/engine/src/mapped.rs and the clock of tests/simulation";
            findings.push(Finding::new(&source.path, number, "`unsafe`", mend));
        } else if asks_for_reason(&line.code[at..]) && !has_safety_comment(source, number) {
            let mend =
                "say in a comment `// SAFETY: …` right above why it is sound (`# Safety` in the docs of an unsafe fn)";
            findings.push(Finding::new(&source.path, number, "`unsafe` without a SAFETY comment", mend));
        }
    }
    findings
}

/// A block, an impl, a trait or a named function; not the type of a function pointer, and not `#[unsafe(no_mangle)]`.
fn asks_for_reason(code: &str) -> bool {
    let rest = code["unsafe".len()..].trim_start();
    let rest =
        rest.strip_prefix("extern").map_or(rest, |rest| rest.trim_start().trim_start_matches("\"\"").trim_start());
    let pointer = rest.strip_prefix("fn").is_some_and(|rest| rest.trim_start().starts_with('('));
    !pointer && !rest.starts_with('(')
}

/// A SAFETY comment on the line itself or right above: above its attributes, or above the statement that it continues.
fn has_safety_comment(source: &Source, number: usize) -> bool {
    let says_why = |line: &Line| line.comment.contains("SAFETY:") || line.comment.contains("# Safety");
    if says_why(&source.lines[number - 1]) {
        return true;
    }
    for line in source.lines[..number - 1].iter().rev() {
        let code = line.code.trim();
        let statement_ends = code.ends_with([';', '{', '}', ',']);
        if says_why(line) {
            return !statement_ends;
        }
        let blank = code.is_empty() && line.comment.is_empty();
        if blank || (statement_ends && !code.starts_with("#[")) {
            return false;
        }
    }
    false
}

fn check_allow(source: &Source, number: usize, line: &Line) -> Vec<Finding> {
    let mut findings = Vec::new();
    for word in ["allow", "expect"] {
        for at in words(&line.code, word) {
            let is_attribute = in_attribute(&line.code[..at]) && line.code[at + word.len()..].starts_with('(');
            if is_attribute && !arguments(source, number, at).contains("reason =") {
                let what = format!("`#[{word}(…)]` without a reason");
                let mend = format!("write `#[{word}(…, reason = \"…\")]`, or mend what the lint complains of");
                findings.push(Finding::new(&source.path, number, what, mend));
            }
        }
    }
    findings
}

/// What stands before a lint level in an attribute: `#[`, `#![`, or a `cfg_attr(…, `.
fn in_attribute(before: &str) -> bool {
    let before = before.trim_start();
    let opened = before.starts_with("#[") || before.starts_with("#![");
    opened && (before.ends_with('[') || before.contains("cfg_attr"))
}

/// The code from byte `at` of the line to the parenthesis that closes what is opened there.
fn arguments(source: &Source, number: usize, at: usize) -> String {
    let mut text = String::new();
    let mut depth = 0_usize;
    for (index, line) in source.lines[number - 1..].iter().enumerate() {
        for c in line.code[if index == 0 { at } else { 0 }..].chars() {
            text.push(c);
            match c {
                '(' => depth += 1,
                ')' if depth == 1 => return text,
                ')' => depth -= 1,
                _ => {}
            }
        }
    }
    text
}

fn check_sleep(source: &Source, number: usize, line: &Line) -> Option<Finding> {
    // A benchmark passes or fails by nothing, and must let threads come to rest before it reads what they used.
    let test = line.test && !source.path.starts_with("benches/");
    let sleeps = test && words(&line.code, "sleep").any(|at| line.code[at + "sleep".len()..].starts_with('('));
    let mend =
        "await the condition itself: a test that sleeps is slow when it passes and wrong when the machine is busy";
    sleeps.then(|| Finding::new(&source.path, number, "a test sleeps", mend))
}
