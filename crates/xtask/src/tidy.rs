//! `cargo xtask tidy`: what we want of every file, as checks.

mod lengths;
mod links;
mod proto;
mod ratchet;
mod rust;
mod text;

use std::path::Path;

use anyhow::{Context, Result};

use crate::files::{TextFile, Tree, read_tree};
use crate::finding::Finding;
use crate::source::Source;
use lengths::Length;
use ratchet::Ratchet;

/// The page that must stay readable in one sitting, and the number of lines it must stay below.
const MAP: &str = "ARCHITECTURE.md";
const MAP_LINES: usize = 250;

/// All findings, in the order of the files.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let tree = read_tree(root)?;
    let (sources, lengths) = measure(&tree);
    let mut findings = Vec::new();
    for source in &sources {
        findings.extend(rust::check(source));
    }
    for file in &tree.texts {
        findings.extend(text::check(file));
        if has_extension(file, "md") {
            findings.extend(links::check(file, &tree));
        }
        if has_extension(file, "proto") {
            findings.extend(proto::check(file));
        }
    }
    findings.extend(check_map(&tree));
    findings.extend(Ratchet::read(root)?.check(&lengths));
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(findings)
}

/// Lowers the ratchet to what the code needs now, then checks.
pub(crate) fn shrink(root: &Path) -> Result<Vec<Finding>> {
    let (_, lengths) = measure(&read_tree(root)?);
    let shrunk = Ratchet::read(root)?.shrunk(&lengths);
    std::fs::write(root.join(ratchet::PATH), shrunk.render())
        .with_context(|| format!("cannot write {}", ratchet::PATH))?;
    check(root)
}

fn measure(tree: &Tree) -> (Vec<Source>, Vec<Length>) {
    let rust = tree.texts.iter().filter(|file| has_extension(file, "rs"));
    let sources: Vec<Source> = rust.map(|file| Source::parse(&file.path, &file.text)).collect();
    let lengths = sources.iter().flat_map(lengths::measure).collect();
    (sources, lengths)
}

fn check_map(tree: &Tree) -> Option<Finding> {
    let Some(map) = tree.texts.iter().find(|file| file.path == MAP) else {
        return Some(Finding::new(MAP, 0, "is missing", "it is the first page that a newcomer reads"));
    };
    let lines = map.text.lines().count();
    (lines >= MAP_LINES).then(|| {
        let what = format!("{lines} lines; fewer than {MAP_LINES} are wanted");
        Finding::new(MAP, 0, what, "a map that shows everything shows nothing: move detail to the crate's own docs")
    })
}

fn has_extension(file: &TextFile, extension: &str) -> bool {
    Path::new(&file.path).extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(map_lines: usize) -> Tree {
        let file = TextFile { path: MAP.to_owned(), text: "line\n".repeat(map_lines) };
        Tree { paths: vec![file.path.clone()], texts: vec![file] }
    }

    #[test]
    fn the_map_stays_short() {
        assert_eq!(check_map(&tree(249)), None);
        assert!(check_map(&tree(250)).expect("too long").what.starts_with("250 lines"));
        let missing = Tree { paths: Vec::new(), texts: Vec::new() };
        assert_eq!(check_map(&missing).expect("missing").what, "is missing");
    }
}
