//! Words, numbers, texts and signs of a filter.

use super::FilterError;

/// One token and the byte position it begins at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// A field's name or a keyword.
    Word(String),
    /// A name in backticks, never a keyword.
    Quoted(String),
    Text(String),
    Int(i64),
    Float(f64),
    /// One of `= != < <= > >= ( ) [ ] ,`.
    Sign(&'static str),
    End,
}

impl Kind {
    /// How an error calls it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Quoted(name) => format!("the field `{name}`"),
            Self::Text(text) => format!("the text \"{text}\""),
            Self::Int(n) => format!("the number {n}"),
            Self::Float(x) => format!("the number {x}"),
            Self::Sign(sign) => format!("`{sign}`"),
            Self::End => "the end".to_owned(),
        }
    }
}

const SIGNS: [&str; 11] = ["!=", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", ","];

/// Splits a text into tokens; the last one is [`Kind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        let rest = &text[at..];
        let Some(first) = rest.chars().next() else {
            tokens.push(Token { at, kind: Kind::End });
            return Ok(tokens);
        };
        let (kind, length) = if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            // `==` is what programmers type.
            (Kind::Sign(sign), if rest.starts_with("==") { 2 } else { sign.len() })
        } else if matches!(first, '"' | '\'' | '`') {
            quoted(rest, at)?
        } else if first.is_ascii_digit() || matches!(first, '-' | '+' | '.') {
            number(rest, at)?
        } else if is_name_start(first) {
            let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            (Kind::Word(rest[..length].to_owned()), length)
        } else {
            let message = format!("`{first}` has no meaning here; text goes in quotes, unusual names in backticks");
            return Err(FilterError { at: Some(at), message });
        };
        tokens.push(Token { at, kind });
        at += length;
    }
}

fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// Whether a name in a path may go on with `c`; dots join names, hyphens are common in them.
pub(super) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// Whether a field's path needs no backticks.
pub(super) fn is_plain_name(path: &str) -> bool {
    path.chars().next().is_some_and(is_name_start) && path.chars().all(is_name)
}

fn quoted(rest: &str, at: usize) -> Result<(Kind, usize), FilterError> {
    let mut chars = rest.char_indices();
    let quote = chars.next().map_or('"', |(_, quote)| quote);
    let mut text = String::new();
    while let Some((offset, c)) = chars.next() {
        match c {
            c if c == quote => {
                let kind = if quote == '`' { Kind::Quoted(text) } else { Kind::Text(text) };
                return Ok((kind, offset + c.len_utf8()));
            }
            '\\' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, c @ ('\\' | '"' | '\'' | '`'))) => text.push(c),
                _ => {
                    let message = "expected \\\\, \\n, \\t or an escaped quote after a backslash".to_owned();
                    return Err(FilterError { at: Some(at + offset), message });
                }
            },
            c => text.push(c),
        }
    }
    Err(FilterError { at: Some(at), message: format!("this quote is not closed: expected a second {quote}") })
}

fn number(rest: &str, at: usize) -> Result<(Kind, usize), FilterError> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-');
    let length = rest.find(|c| !part(c)).unwrap_or(rest.len());
    let text = &rest[..length];
    if let Ok(n) = text.parse::<i64>() {
        return Ok((Kind::Int(n), length));
    }
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() && text.contains(['.', 'e', 'E']) => Ok((Kind::Float(x), length)),
        _ => {
            let message =
                format!("`{text}` is neither a 64-bit integer nor a float; text, times and UUIDs go in quotes");
            Err(FilterError { at: Some(at), message })
        }
    }
}
