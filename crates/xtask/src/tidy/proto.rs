//! The proto files are the API's documentation: everything that is declared in them is explained.

use crate::files::TextFile;
use crate::finding::Finding;

#[cfg(test)]
mod tests;

/// Statements that declare nothing which a reader would look up.
const SILENT: [&str; 7] = ["syntax", "edition", "package", "import", "option", "reserved", "extensions"];

pub(crate) fn check(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut statement = Statement::default();
    for (index, line) in file.text.lines().enumerate() {
        let (code, comment) = split(line);
        if code.trim().is_empty() {
            // A comment speaks of what follows at once; a blank line separates the two.
            statement.explained = comment.is_some() || (statement.is_open() && statement.explained);
            continue;
        }
        if !statement.is_open() {
            statement.line = index + 1;
        }
        statement.explained |= comment.is_some();
        for c in code.chars() {
            statement.push(c);
            if statement.is_complete() {
                findings.extend(statement.finish(&file.path));
            }
        }
        if !statement.is_open() {
            statement.explained = false;
        }
    }
    findings
}

/// What has been read since the last `;`, `{` or `}`.
#[derive(Debug, Default)]
struct Statement {
    text: String,
    /// Where it starts, from 1.
    line: usize,
    explained: bool,
    /// Depth of `[…]` and `(…)`, and of the `{…}` within them, in which signs end nothing.
    depth: usize,
}

impl Statement {
    fn is_open(&self) -> bool {
        !self.text.trim().is_empty()
    }

    fn push(&mut self, c: char) {
        match c {
            '[' | '(' => self.depth += 1,
            ']' | ')' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.text.push(c);
    }

    fn is_complete(&self) -> bool {
        self.depth == 0 && self.text.ends_with([';', '{', '}'])
    }

    fn finish(&mut self, path: &str) -> Option<Finding> {
        let text = std::mem::take(&mut self.text);
        let declared = declares(text.trim())?;
        let what = format!("{declared} without a comment");
        let mend = "say above it what it means, its unit, its limits and the errors it can cause";
        (!self.explained).then(|| Finding::new(path, self.line, what, mend))
    }
}

/// What a statement declares, or `None` when there is nothing to explain.
fn declares(statement: &str) -> Option<String> {
    let body = statement.trim_end_matches([';', '{', '}']).trim();
    let mut words = body.split_whitespace();
    let first = words.next()?;
    if SILENT.contains(&first) {
        return None;
    }
    let second = words.next().unwrap_or_default().split('(').next().unwrap_or_default();
    if matches!(first, "message" | "enum" | "service" | "rpc" | "oneof") && second != "=" {
        return Some(format!("{first} `{second}`"));
    }
    let (before, _) = body.split_once('=')?;
    let names: Vec<&str> = before.split_whitespace().collect();
    match names[..] {
        [value] => Some(format!("enum value `{value}`")),
        [.., name] => Some(format!("field `{name}`")),
        [] => None,
    }
}

/// The code of a line without the contents of its strings, and its comment.
fn split(line: &str) -> (String, Option<&str>) {
    let mut code = String::new();
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '/') if line[at..].starts_with("//") => return (code, Some(&line[at..])),
            (None, '"' | '\'') => quote = Some(c),
            (None, _) => code.push(c),
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
        }
    }
    (code, None)
}
