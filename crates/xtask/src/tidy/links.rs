//! Links between the pages of the repository lead somewhere.

use std::collections::HashSet;
use std::path::{Component, Path};

use crate::files::{TextFile, Tree};
use crate::finding::Finding;
use crate::source::is_word;

pub(crate) fn check(file: &TextFile, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in prose(&file.text) {
        for target in targets(&without_code(line)) {
            if let Some(what) = broken(file, target, tree) {
                findings.push(Finding::new(
                    &file.path,
                    number,
                    what,
                    "name a file of this repository, relative to this page",
                ));
            }
        }
    }
    findings
}

/// Why the link leads nowhere. Addresses on the web are not followed.
fn broken(file: &TextFile, target: &str, tree: &Tree) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let Some(path) = resolve(&file.path, path) else {
        return Some(format!("the link `{target}` leads out of the repository"));
    };
    let folder = format!("{path}/");
    if !path.is_empty() && !tree.paths.iter().any(|known| *known == path || known.starts_with(&folder)) {
        return Some(format!("the link `{target}` leads to no file"));
    }
    let page = tree.texts.iter().find(|text| text.path == path && path.ends_with(".md"))?;
    let known = anchor.is_empty() || anchors(&page.text).contains(anchor);
    (!known).then(|| format!("the link `{target}` leads to no heading of {path}"))
}

/// `target` as seen from the page, as a path from the root; `None` when it climbs out.
fn resolve(page: &str, target: &str) -> Option<String> {
    if target.is_empty() {
        return Some(page.to_owned());
    }
    let joined = Path::new(page).parent().unwrap_or(Path::new("")).join(target);
    let mut parts: Vec<&str> = Vec::new();
    for component in joined.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// The lines outside of fenced code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((index + 1, line))
    })
}

/// The line without what stands between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// What stands in the parentheses of `[text](target)`, without a title.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, open)| {
        let inside = line[at + open.len()..].split(')').next()?;
        inside.split_whitespace().next()
    })
}

/// The names that a page's headings get: small letters, blanks as hyphens, other signs gone.
fn anchors(text: &str) -> HashSet<String> {
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    let title = |line: &str| line.trim_start_matches('#').trim().to_lowercase();
    let keep = |c: char| match c {
        ' ' => Some('-'),
        '-' => Some(c),
        c if is_word(c) => Some(c),
        _ => None,
    };
    headings.map(|(_, line)| title(line).chars().filter_map(keep).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let page = |path: &str, text: &str| TextFile { path: path.to_owned(), text: text.to_owned() };
        let texts = vec![page("docs/a.md", text), page("README.md", "# First steps: a, b\n")];
        let mut paths: Vec<String> = texts.iter().map(|file| file.path.clone()).collect();
        paths.push("proto/v1/x.proto".to_owned());
        let tree = Tree { paths, texts };
        check(&tree.texts[0], &tree).iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        let text = "# Here\n[a](../README.md), [b](../proto/v1), [c](../README.md#first-steps-a-b) [d](#here)\n\
                    [e](https://example.org/x) [f](a.md \"title\")\n```\n[g](nowhere)\n```\n`[h](nowhere)`\n";
        assert_eq!(found(text), [""; 0]);
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        assert_eq!(found("x\n[a](b.md)\n"), ["2: the link `b.md` leads to no file"]);
        assert_eq!(found("[a](../../x)\n"), ["1: the link `../../x` leads out of the repository"]);
        assert_eq!(found("[a](/README.md)\n"), ["1: the link `/README.md` leads out of the repository"]);
        assert_eq!(
            found("[a](../README.md#last)\n"),
            ["1: the link `../README.md#last` leads to no heading of README.md"]
        );
    }
}
