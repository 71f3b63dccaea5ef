//! Splits Rust source into what is code and what is comment, line by line.
//!
//! A lexer and no parser: it knows comments, strings, characters and lifetimes, which is what the checks need so as not to take a
//! word in a string for code. Strings keep their quotes and lose their contents.

#[cfg(test)]
mod tests;

/// One Rust file.
#[derive(Debug)]
pub(crate) struct Source {
    pub path: String,
    pub lines: Vec<Line>,
}

/// One line of it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Line {
    /// The line without comments and without the contents of strings and characters.
    pub code: String,
    /// The comment on the line, with its slashes.
    pub comment: String,
    /// Compiled only for tests: below `#[cfg(test)]`, or in a file of tests.
    pub test: bool,
}

impl Line {
    /// Has any code on it.
    pub(crate) fn has_code(&self) -> bool {
        !self.code.trim().is_empty()
    }
}

impl Source {
    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let mut lines = Lexer::new(text).lines();
        if is_test_path(path) {
            lines.iter_mut().for_each(|line| line.test = true);
        } else {
            mark_tests(&mut lines);
        }
        Self { path: path.to_owned(), lines }
    }

    /// The lines with their numbers, from 1.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// Files that hold nothing but tests: `tests.rs`, anything in a folder `tests`, and the benchmarks.
pub(crate) fn is_test_path(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || path.starts_with("tests/")
        || path.contains("/tests/")
        || path.starts_with("benches/")
}

/// The places where `word` stands in `code` as a whole word, as byte offsets.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Marks what stands below a `#[cfg(test)]`: up to the end of the item's braces, or its semicolon.
fn mark_tests(lines: &mut [Line]) {
    let mut index = 0;
    while index < lines.len() {
        if !lines[index].code.trim_start().starts_with("#[cfg(test)]") {
            index += 1;
            continue;
        }
        let end = item_end(lines, index);
        lines[index..=end].iter_mut().for_each(|line| line.test = true);
        index = end + 1;
    }
}

/// The last line of the item whose attributes start at `start`.
fn item_end(lines: &[Line], start: usize) -> usize {
    let mut depth = 0_usize;
    for (index, line) in lines.iter().enumerate().skip(start) {
        for c in line.code.chars() {
            match c {
                '{' | '(' | '[' => depth += 1,
                ')' | ']' => depth = depth.saturating_sub(1),
                '}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return index;
                    }
                }
                ';' if depth == 0 => return index,
                _ => {}
            }
        }
    }
    lines.len() - 1
}

struct Lexer<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    done: Vec<Line>,
    line: Line,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text.chars().peekable(), done: Vec::new(), line: Line::default() }
    }

    fn lines(mut self) -> Vec<Line> {
        while let Some(c) = self.rest.next() {
            match (c, self.rest.peek().copied()) {
                ('/', Some('/')) => self.line_comment(),
                ('/', Some('*')) => self.block_comment(),
                ('"', _) => self.string(),
                ('\'', _) => self.quote(),
                ('r' | 'b' | 'c', Some('"' | '#' | 'r' | '\'')) if !self.in_word() => self.prefixed(c),
                ('\n', _) => self.end_line(),
                _ => self.line.code.push(c),
            }
        }
        if !self.line.code.is_empty() || !self.line.comment.is_empty() {
            self.end_line();
        }
        self.done
    }

    /// The character just read continues a word, so that it cannot be the prefix of a string.
    fn in_word(&self) -> bool {
        self.line.code.chars().next_back().is_some_and(is_word)
    }

    fn end_line(&mut self) {
        self.done.push(std::mem::take(&mut self.line));
    }

    fn line_comment(&mut self) {
        self.line.comment.push('/');
        while let Some(c) = self.rest.next_if(|&c| c != '\n') {
            self.line.comment.push(c);
        }
    }

    fn block_comment(&mut self) {
        self.line.comment.push('/');
        let mut depth = 0_usize;
        let mut last = '/';
        while let Some(c) = self.rest.next() {
            match (last, c) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {}
            }
            // A character belongs to one delimiter only: `/*/` opens and does not close.
            last = if matches!((last, c), ('/', '*') | ('*', '/')) { ' ' } else { c };
            if c == '\n' {
                self.end_line();
            } else {
                self.line.comment.push(c);
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// A string whose opening quote has been read.
    fn string(&mut self) {
        self.line.code.push('"');
        while let Some(c) = self.rest.next() {
            match c {
                '"' => break,
                '\n' => self.end_line(),
                '\\' if self.rest.next() == Some('\n') => self.end_line(),
                _ => {}
            }
        }
        self.line.code.push('"');
    }

    /// `r"…"`, `br#"…"#`, `b"…"`, `b'…'`, `r#name`, or just a letter.
    fn prefixed(&mut self, first: char) {
        self.line.code.push(first);
        let raw = first == 'r' || self.rest.next_if_eq(&'r').inspect(|&c| self.line.code.push(c)).is_some();
        let mut hashes = 0;
        while raw && self.rest.next_if_eq(&'#').is_some() {
            hashes += 1;
        }
        match self.rest.peek() {
            Some('"') if raw => self.raw_string(hashes),
            Some('"') => {
                self.rest.next();
                self.string();
            }
            // A byte character, a raw name or a plain word: the main loop goes on from here.
            _ => self.line.code.extend(std::iter::repeat_n('#', hashes)),
        }
    }

    fn raw_string(&mut self, hashes: usize) {
        self.rest.next();
        self.line.code.push('"');
        while let Some(c) = self.rest.next() {
            if c == '\n' {
                self.end_line();
            } else if c == '"' {
                let mut seen = 0;
                while seen < hashes && self.rest.next_if_eq(&'#').is_some() {
                    seen += 1;
                }
                if seen == hashes {
                    break;
                }
            }
        }
        self.line.code.push('"');
    }

    /// A character or a lifetime, after its `'`.
    fn quote(&mut self) {
        self.line.code.push('\'');
        match self.rest.next() {
            Some('\\') => {
                self.rest.next();
                while self.rest.next().is_some_and(|c| c != '\'') {}
                self.line.code.push('\'');
            }
            Some(c) => {
                if self.rest.next_if_eq(&'\'').is_some() {
                    self.line.code.push('\'');
                } else {
                    // A lifetime; its name cannot hold anything that a check looks for but a keyword such as 'static.
                    self.line.code.push(c);
                }
            }
            None => {}
        }
    }
}
