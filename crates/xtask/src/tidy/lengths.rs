//! How long files and functions are, counted in lines that hold code.

use crate::source::{Line, Source, is_word, words};

/// Lines of code in a file, before its tests. Longer, and a second idea lives in it.
const FILE_LINES: usize = 500;
/// The same for a file of tests, whose cases need less of an overview.
const TEST_FILE_LINES: usize = 1000;
/// Lines of code in a function.
const FUNCTION_LINES: usize = 70;

/// A file or function and its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Length {
    pub path: String,
    /// `None` speaks of the whole file.
    pub function: Option<String>,
    /// Where it starts, from 1.
    pub line: usize,
    /// Lines that hold code.
    pub lines: usize,
    /// How many there may be.
    pub limit: usize,
}

/// The lengths of the file and of each function in it that is not a test.
pub(crate) fn measure(source: &Source) -> Vec<Length> {
    let all_test = source.lines.iter().all(|line| line.test);
    let counted = source.lines.iter().filter(|line| line.has_code() && (all_test || !line.test)).count();
    let limit = if all_test { TEST_FILE_LINES } else { FILE_LINES };
    let file = Length { path: source.path.clone(), function: None, line: 0, lines: counted, limit };
    std::iter::once(file).chain(functions(source)).collect()
}

fn functions(source: &Source) -> Vec<Length> {
    let mut found = Vec::new();
    for (number, line) in source.numbered().filter(|(_, line)| !line.test) {
        for at in words(&line.code, "fn") {
            let name: String = line.code[at + 2..].trim_start().chars().take_while(|&c| is_word(c)).collect();
            if name.is_empty() {
                continue; // The type of a function pointer.
            }
            if let Some(lines) = body_lines(&source.lines[number - 1..], at) {
                let path = source.path.clone();
                found.push(Length { path, function: Some(name), line: number, lines, limit: FUNCTION_LINES });
            }
        }
    }
    found
}

/// Lines of code from the `fn` at byte `at` of the first line to its closing brace; `None` when it has no body.
fn body_lines(lines: &[Line], at: usize) -> Option<usize> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (index, line) in lines.iter().enumerate() {
        let code = if index == 0 { &line.code[at..] } else { &line.code };
        for c in code.chars() {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets = brackets.saturating_sub(1),
                ';' if braces == 0 && brackets == 0 => return None,
                '{' => braces += 1,
                '}' => {
                    braces = braces.saturating_sub(1);
                    if braces == 0 && brackets == 0 {
                        return Some(lines[..=index].iter().filter(|line| line.has_code()).count());
                    }
                }
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(path: &str, text: &str) -> Vec<(Option<String>, usize, usize)> {
        let measured = measure(&Source::parse(path, text));
        measured.into_iter().map(|length| (length.function, length.lines, length.limit)).collect()
    }

    #[test]
    fn comments_blank_lines_and_tests_do_not_count() {
        let text = "//! docs\n\nfn a() {\n    // why\n    b();\n}\n\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n";
        assert_eq!(lengths("crates/x/src/a.rs", text), [(None, 3, 500), (Some("a".into()), 3, 70)]);
    }

    #[test]
    fn a_file_of_tests_is_measured_whole() {
        assert_eq!(lengths("crates/x/src/a/tests.rs", "#[test]\nfn a() {}\n"), [(None, 2, 1000)]);
    }

    #[test]
    fn functions_end_at_their_own_brace() {
        let text = "\
trait T {
    fn declared(&self) -> [u8; { 1 }];
    fn given(&self) {
        if x { y(\"}\") }
    }
}
type F = fn(u8) -> u8;
fn long<const N: usize>(
    a: [u8; N],
) -> impl Fn()
where
    A: B,
{
    move || {}
}
";
        let found: Vec<_> = lengths("crates/x/src/a.rs", text).into_iter().skip(1).collect();
        assert_eq!(found, [(Some("given".into()), 3, 70), (Some("long".into()), 8, 70)]);
    }
}
