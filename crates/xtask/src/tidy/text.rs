//! Rules for every text file: white space, unfinished work, and paths of somebody's machine.

use std::path::Path;

use crate::files::TextFile;
use crate::finding::Finding;
use crate::source::{is_word, words};

/// Words that mark unfinished work. Taken apart so that this file does not trip over itself.
const MARKERS: [&str; 4] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("HA", "CK")];
/// Folders of one machine, taken apart for the same reason.
const MACHINE_PATHS: [&str; 3] = [concat!("/ro", "ot"), concat!("/ho", "me"), concat!("/wo", "rk")];
/// Files written by a program, or by somebody else whose text must stay as it is.
const NOT_OURS: [&str; 3] = ["Cargo.lock", "LICENSE", "tests/data/licenses/"];
/// Data, whose bytes are what they are.
const DATA: [&str; 3] = ["csv", "json", "jsonl"];
/// Files in which a tab has a meaning.
const TABS_ALLOWED: [&str; 1] = ["Makefile"];

pub(crate) fn check(file: &TextFile) -> Vec<Finding> {
    if NOT_OURS.iter().any(|path| file.path.starts_with(path)) {
        return Vec::new();
    }
    let extension = Path::new(&file.path).extension().unwrap_or_default();
    let is_data = DATA.iter().any(|data| extension == *data);
    let mut findings = Vec::new();
    for (index, line) in file.text.split('\n').enumerate() {
        let mut found = |what: String, mend: &str| findings.push(Finding::new(&file.path, index + 1, what, mend));
        if !is_data {
            check_whitespace(file, line, &mut found);
        }
        for marker in MARKERS {
            if words(line, marker).next().is_some() {
                found(
                    format!("`{marker}`"),
                    "finish it, or write down what is missing where users look: the docs or an issue",
                );
            }
        }
        if let Some(path) = MACHINE_PATHS.into_iter().find(|path| names_path(line, path)) {
            found(format!("`{path}`, a folder of one machine"), "take it from an argument or an environment variable");
        }
    }
    if !is_data && !file.text.is_empty() && (!file.text.ends_with('\n') || file.text.ends_with("\n\n")) {
        let what = "the file does not end in exactly one line break";
        findings.push(Finding::new(&file.path, file.text.lines().count(), what, "end it with one"));
    }
    findings
}

fn check_whitespace(file: &TextFile, line: &str, found: &mut impl FnMut(String, &str)) {
    if line.ends_with('\r') {
        found("a Windows line end".to_owned(), "save the file with plain line breaks");
    } else if line.ends_with([' ', '\t']) {
        found("blanks at the end of the line".to_owned(), "remove them");
    }
    let name = Path::new(&file.path).file_name().unwrap_or_default();
    if line.contains('\t') && !TABS_ALLOWED.iter().any(|allowed| name == *allowed) {
        found("a tab".to_owned(), "indent with spaces; write `\\t` in a string");
    }
}

/// `path` stands in `line` as the start of an absolute path.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        let inside = before.is_some_and(|c| is_word(c) || matches!(c, '.' | '}' | ')' | '~' | '-' | '*' | '/'));
        !inside && !after.is_some_and(|c| is_word(c) || c == '-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let file = TextFile { path: path.to_owned(), text: text.to_owned() };
        check(&file).iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
    }

    #[test]
    fn white_space_is_plain() {
        assert_eq!(found("a.md", "one\n\ntwo\n"), [""; 0]);
        assert_eq!(found("a.md", ""), [""; 0]);
        assert_eq!(found("a.md", "one \ntwo\r\n"), ["1: blanks at the end of the line", "2: a Windows line end"]);
        assert_eq!(found("a.rs", "\tone\n"), ["1: a tab"]);
        assert_eq!(found("Makefile", "\tone\n"), [""; 0]);
        assert_eq!(found("a.md", "one"), ["1: the file does not end in exactly one line break"]);
        assert_eq!(found("a.md", "one\n\n"), ["2: the file does not end in exactly one line break"]);
    }

    #[test]
    fn unfinished_work_is_found() {
        for marker in MARKERS {
            assert_eq!(found("a.md", &format!("// {marker}: later\n")), [format!("1: `{marker}`")]);
            assert_eq!(found("a.md", &format!("A{marker}S\n")), [""; 0]);
        }
    }

    #[test]
    fn folders_of_one_machine_are_found() {
        for path in MACHINE_PATHS {
            assert_eq!(found("a.sh", &format!("cd {path}/main\n")).len(), 1, "{path}");
            assert_eq!(found("a.sh", &format!("cd \"{path}\"\n")).len(), 1, "{path}");
            assert_eq!(
                found("a.md", &format!("see a{path}/b, {path}shop, ${{HOME}}{path}, https://x.org{path}\n")),
                [""; 0]
            );
        }
    }

    #[test]
    fn data_and_texts_of_others_are_left_alone() {
        assert_eq!(found("golden.json", "{}"), [""; 0]);
        assert_eq!(found("tests/data/licenses/a.txt", "one \t\n"), [""; 0]);
    }
}
