//! A filter in the short form, to show what a command is about.

use std::fmt::Write;

use sagitta_model::filter::Bounds;
use sagitta_model::{Condition, FieldPath, Filter, Number, PointId, Range, Scalar, Test, datetime};

use super::lexer::is_plain_name;

/// Writes a filter so that [`super::parse`] reads one of the same meaning. The empty filter has no short form and is
/// written as a tree.
pub fn print(filter: &Filter) -> String {
    let parts = parts(filter);
    if parts.is_empty() { "{}".to_owned() } else { parts.join(" and ") }
}

/// What a filter's conditions come to, each fit to be joined by `and`.
fn parts(filter: &Filter) -> Vec<String> {
    let mut parts: Vec<String> = filter.must.iter().map(condition).collect();
    if !filter.should.is_empty() {
        let any: Vec<String> = filter.should.iter().map(condition).collect();
        let any = any.join(" or ");
        parts.push(if filter.should.len() == 1 { any } else { format!("({any})") });
    }
    parts.extend(filter.must_not.iter().map(|one| format!("not {}", condition(one))));
    parts
}

fn condition(condition: &Condition) -> String {
    match condition {
        Condition::Field { path, test } => field(path, test),
        Condition::HasId(ids) => {
            let id = |id: &PointId| match id {
                PointId::Num(n) if i64::try_from(*n).is_ok() => n.to_string(),
                other => format!("\"{other}\""),
            };
            format!("id in [{}]", ids.iter().map(id).collect::<Vec<_>>().join(", "))
        }
        Condition::Filter(filter) => match &parts(filter)[..] {
            // What passes everything: nothing is in an empty list.
            [] => "not id in []".to_owned(),
            parts => format!("({})", parts.join(" and ")),
        },
    }
}

fn field(path: &FieldPath, test: &Test) -> String {
    let path = name(path.as_str());
    match test {
        Test::Match(value) => format!("{path} = {}", scalar(value)),
        Test::Any(values) => format!("{path} in [{}]", values.iter().map(scalar).collect::<Vec<_>>().join(", ")),
        Test::Prefix(text) => format!("{path} starts with {}", quote(text, '"')),
        Test::ValuesCount(Bounds { lower: None, upper: None }) => format!("count({path}) >= 0"),
        // Greater numbers than the parser reads are beyond every count, as the greatest that it reads is.
        Test::ValuesCount(bounds) => {
            range(&format!("count({path})"), bounds, |&count| count.min(i64::MAX as u64).to_string())
        }
        Test::Exists => format!("{path} exists"),
        Test::IsNull => format!("{path} is null"),
        Test::Range(Range::Number(bounds)) => range(&path, bounds, |n| match n {
            Number::Int(n) => n.to_string(),
            // `{:?}` keeps the point, so that it reads as a float again.
            Number::Float(x) => format!("{x:?}"),
        }),
        Test::Range(Range::Datetime(bounds)) => range(&path, bounds, |micros| {
            let text = datetime::format_micros(*micros).unwrap_or_else(|| format!("{micros} microseconds since 1970"));
            quote(&text, '"')
        }),
    }
}

/// Both bounds hold for the same value of a list, as the chained form says and two tests would not.
fn range<T>(path: &str, bounds: &Bounds<T>, value: impl Fn(&T) -> String) -> String {
    let sign = |bare: &'static str, inclusive: bool| if inclusive { format!("{bare}=") } else { bare.to_owned() };
    match (&bounds.lower, &bounds.upper) {
        (Some((low, low_in)), Some((high, high_in))) => {
            format!("{} {} {path} {} {}", value(low), sign("<", *low_in), sign("<", *high_in), value(high))
        }
        (Some((low, inclusive)), None) => format!("{path} {} {}", sign(">", *inclusive), value(low)),
        (None, Some((high, inclusive))) => format!("{path} {} {}", sign("<", *inclusive), value(high)),
        (None, None) => format!("{path} exists"),
    }
}

fn scalar(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Bool(b) => b.to_string(),
        Scalar::Int(n) => n.to_string(),
        Scalar::String(text) => quote(text, '"'),
    }
}

fn name(path: &str) -> String {
    let keyword = ["and", "or", "not", "in", "is", "exists", "null", "true", "false", "id"];
    let reserved = keyword.iter().any(|keyword| path.eq_ignore_ascii_case(keyword));
    if is_plain_name(path) && !reserved { path.to_owned() } else { quote(path, '`') }
}

fn quote(text: &str, mark: char) -> String {
    let mut quoted = String::from(mark);
    for c in text.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c == mark || c == '\\' => {
                let _ = write!(quoted, "\\{c}");
            }
            c => quoted.push(c),
        }
    }
    quoted.push(mark);
    quoted
}
