//! What is longer than it should be, written down so that it can only get better.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::lengths::Length;
use crate::finding::Finding;

pub(crate) const PATH: &str = "crates/xtask/ratchet.txt";

const HEADER: &str = "\
# Files and functions that are longer than the limit, and how long each may be: `path lines` or `path function lines`.
# The list only shrinks: after a split run `cargo xtask tidy --shrink`. New code keeps to the limit.
";

/// The exceptions: a file, or a function of a file, and the lines it may have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ratchet {
    allowed: BTreeMap<(String, Option<String>), usize>,
}

impl Ratchet {
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(root.join(PATH)).with_context(|| format!("cannot read {PATH}"))?;
        Self::parse(&text).with_context(|| format!("in {PATH}"))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut allowed = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (key, lines) = match words[..] {
                [path, lines] => ((path.to_owned(), None), lines),
                [path, function, lines] => ((path.to_owned(), Some(function.to_owned())), lines),
                _ => bail!("`{line}` is neither `path lines` nor `path function lines`"),
            };
            let lines = lines.parse().with_context(|| format!("`{line}` does not end in a number"))?;
            ensure!(allowed.insert(key, lines).is_none(), "`{line}` is listed twice");
        }
        Ok(Self { allowed })
    }

    pub(crate) fn render(&self) -> String {
        let mut text = HEADER.to_owned();
        for ((path, function), lines) in &self.allowed {
            let function = function.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
            text.push_str(&format!("{path}{function} {lines}\n"));
        }
        text
    }

    /// What is too long without being listed, longer than listed, or listed with more lines than it needs.
    pub(crate) fn check(&self, lengths: &[Length]) -> Vec<Finding> {
        let mut findings: Vec<Finding> = lengths.iter().filter_map(|length| self.check_length(length)).collect();
        for ((path, function), needed) in self.shrunk(lengths).differs_from(self) {
            let name = function.as_ref().unwrap_or(path);
            let what = match needed {
                Some(lines) => format!("{path}: `{name}` has only {lines} lines now"),
                None => format!("{path}: `{name}` keeps to the limit now"),
            };
            findings.push(Finding::new(PATH, 0, what, "run `cargo xtask tidy --shrink` and commit the shorter list"));
        }
        findings
    }

    fn check_length(&self, length: &Length) -> Option<Finding> {
        let key = (length.path.clone(), length.function.clone());
        let listed = self.allowed.get(&key).copied();
        let allowed = listed.unwrap_or(length.limit);
        if length.lines <= allowed {
            return None;
        }
        let what = match &length.function {
            Some(name) => format!("function `{name}` has {} lines of code, {allowed} are allowed", length.lines),
            None => format!("{} lines of code, {allowed} are allowed", length.lines),
        };
        let mend = match listed {
            Some(_) => "it is on the list of long ones, which only shrinks: move the new idea elsewhere",
            None => "a second idea lives in it: give that one a name and a place of its own",
        };
        Some(Finding::new(&length.path, length.line, what, mend))
    }

    /// The same list with every entry lowered to what is needed; never a new entry, never a higher one.
    pub(crate) fn shrunk(&self, lengths: &[Length]) -> Self {
        let mut allowed = BTreeMap::new();
        for length in lengths.iter().filter(|length| length.lines > length.limit) {
            let key = (length.path.clone(), length.function.clone());
            if let Some(&listed) = self.allowed.get(&key) {
                // Functions of one name in one file share an entry: the longest decides.
                let needed: &mut usize = allowed.entry(key).or_default();
                *needed = length.lines.max(*needed).min(listed);
            }
        }
        Self { allowed }
    }

    /// Entries of `older` that are lower here (with their lines) or gone (without).
    fn differs_from<'a>(
        &'a self,
        older: &'a Self,
    ) -> impl Iterator<Item = (&'a (String, Option<String>), Option<usize>)> + 'a {
        older
            .allowed
            .iter()
            .map(|(key, &lines)| (key, lines, self.allowed.get(key).copied()))
            .filter(|&(_, lines, now)| now != Some(lines))
            .map(|(key, _, now)| (key, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(function: Option<&str>, lines: usize) -> Length {
        Length { path: "a.rs".into(), function: function.map(str::to_owned), line: 3, lines, limit: 70 }
    }

    fn findings(list: &str, lengths: &[Length]) -> Vec<String> {
        let ratchet = Ratchet::parse(list).expect("a well-formed list");
        ratchet.check(lengths).iter().map(|finding| format!("{}: {}", finding.path, finding.what)).collect()
    }

    #[test]
    fn what_is_too_long_is_found() {
        assert_eq!(findings("", &[length(None, 70), length(Some("f"), 70)]), [""; 0]);
        assert_eq!(
            findings("", &[length(None, 71), length(Some("f"), 72)]),
            ["a.rs: 71 lines of code, 70 are allowed", "a.rs: function `f` has 72 lines of code, 70 are allowed"]
        );
    }

    #[test]
    fn listed_lengths_only_shrink() {
        assert_eq!(findings("a.rs f 90\n", &[length(Some("f"), 90)]), [""; 0]);
        assert_eq!(
            findings("a.rs f 90\n", &[length(Some("f"), 91)]),
            ["a.rs: function `f` has 91 lines of code, 90 are allowed"]
        );
        assert_eq!(findings("a.rs f 90\n", &[length(Some("f"), 80)]).len(), 1, "an entry that is too generous");
        assert_eq!(findings("a.rs f 90\n", &[length(Some("f"), 70)]).len(), 1, "an entry that is no longer needed");
        assert_eq!(findings("a.rs f 90\n", &[]).len(), 1, "an entry of something that is gone");
    }

    #[test]
    fn shrinking_lowers_and_removes_and_never_adds() {
        let ratchet = Ratchet::parse("# why\n\na.rs f 90\na.rs g 90\na.rs 600\n").expect("a well-formed list");
        let now = [length(Some("f"), 75), length(Some("f"), 80), length(Some("h"), 99), length(None, 700)];
        assert_eq!(ratchet.shrunk(&now).render(), format!("{HEADER}a.rs 600\na.rs f 80\n"));
    }

    #[test]
    fn a_malformed_list_is_refused() {
        for list in ["a.rs", "a.rs f g 1", "a.rs many", "a.rs 1\na.rs 2"] {
            assert!(Ratchet::parse(list).is_err(), "{list}");
        }
    }
}
