//! Filters as people write them: `source = "rust-docs" and words >= 50`, or the tree as JSON.
//!
//! ```text
//! filter     = and-group { "or" and-group }
//! and-group  = unary { "and" unary }
//! unary      = "not" unary | "(" filter ")" | test
//! test       = compared ("=" | "!=" | "<" | "<=" | ">" | ">=") value
//!            | value ("<" | "<=") compared [("<" | "<=") value]   also with > and >=
//!            | field ["not"] "in" "[" [ value { "," value } ] "]"
//!            | field ["not"] "starts" "with" text
//!            | field "exists" | field "is" "null"
//! compared   = field | "count" "(" field ")"     the values of a field, or how many it has
//! field      = name | `name in backticks`        the bare name id is the point's id
//! value      = text | number | true | false
//! text       = "text" | 'text'
//! ```
//!
//! A field that holds a list passes a test if any element does; `count(field)` is the length of the list, 1 for a value
//! that is no list, and 0 for none or null, and its value a whole number from 0 on. `!=`, `not in` and
//! `not starts with` are negations of the whole test.

mod lexer;
mod parser;
mod print;
mod tree;

use sagitta_model::{Condition, Filter};

pub use print::print;

/// Where a filter's text cannot be understood, and what would be right there.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterError {
    /// Byte position in the text; its length if the text ends too early. `None` for a tree in JSON, whose place is in
    /// the message.
    pub at: Option<usize>,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Parses a filter in either form; JSON is known by its first brace.
pub fn parse(text: &str) -> Result<Filter, FilterError> {
    if text.trim_start().starts_with('{') {
        return tree::parse(text).map_err(|message| FilterError { at: None, message });
    }
    parser::parse(text)
}

/// The syntax in one screen, for help texts.
pub const SYNTAX: &str = r#"Filter syntax:
  source = "rust-docs"                  text goes in double or single quotes
  words >= 50 and depth < 3             numbers; `and` binds tighter than `or`
  50 <= words < 100                     both bounds at once
  lang in ["c", "rust"] or year = 2026  any of several values
  source starts with "python"           text that begins so; case matters
  count(tags) >= 2                      how many values; 0 if absent or null
  not (depth > 5) and draft != true     negation
  published >= "2026-01-01T00:00:00Z"   times are RFC 3339 text
  author.name exists                    nested; `is null` finds an explicit null
  id in [7, 9]                          ids; a field called id: `id`
Fields must have been declared when the collection was created. The same as a tree of conditions:
  {"must": [{"field": "words", "range": {"gte": 50}}], "must_not": []}"#;

/// A filter of one condition, unwrapping what need not be wrapped.
fn only(condition: Condition) -> Filter {
    match condition {
        Condition::Filter(filter) => *filter,
        condition => Filter { must: vec![condition], ..Filter::default() },
    }
}

/// A filter as a condition within another, unwrapping what need not be wrapped.
fn condition(mut filter: Filter) -> Condition {
    if filter.should.is_empty() && filter.must_not.is_empty() && filter.must.len() == 1 {
        return filter.must.remove(0);
    }
    Condition::Filter(Box::new(filter))
}

#[cfg(test)]
mod tests;
