//! Filters as trees in JSON, shaped like the messages of the API.

use sagitta_model::filter::Bounds;
use sagitta_model::value::{Object, Value};
use sagitta_model::{Condition, FieldPath, Filter, Number, PointId, Range, Scalar, Test, datetime};

use crate::data::parse_value;

/// Levels of filters within filters at most; the server allows far fewer.
const MAX_DEPTH: usize = 64;

/// Parses a tree. The message of a refusal begins with its path.
pub(super) fn parse(text: &str) -> Result<Filter, String> {
    let value = parse_value(text)?;
    filter(&value, "", 0)
        .map_err(|(path, problem)| if path.is_empty() { problem } else { format!("{path}: {problem}") })
}

/// The path of a problem, and the problem.
type Refusal = (String, String);

fn refuse<T>(path: &str, problem: impl Into<String>) -> Result<T, Refusal> {
    Err((path.to_owned(), problem.into()))
}

fn within(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn filter(value: &Value, path: &str, depth: usize) -> Result<Filter, Refusal> {
    let Value::Object(fields) = value else {
        return refuse(path, format!("expected an object with must, should or must_not, found {}", value.type_name()));
    };
    if depth > MAX_DEPTH {
        return refuse(path, format!("nests deeper than {MAX_DEPTH} levels"));
    }
    let mut filter = Filter::default();
    for (key, value) in fields {
        let list = match key.as_str() {
            "must" => &mut filter.must,
            "should" => &mut filter.should,
            "must_not" => &mut filter.must_not,
            _ => {
                return refuse(
                    &within(path, key),
                    "expected must, should or must_not; a condition goes into a list of one of them",
                );
            }
        };
        let path = within(path, key);
        for (at, value) in array(value, &path)?.iter().enumerate() {
            list.push(condition(value, &format!("{path}[{at}]"), depth)?);
        }
    }
    Ok(filter)
}

fn array<'v>(value: &'v Value, path: &str) -> Result<&'v [Value], Refusal> {
    match value {
        Value::Array(items) => Ok(items),
        other => refuse(path, format!("expected a list, found {}", other.type_name())),
    }
}

const TESTS: &str = "match, any, range, prefix, values_count, exists, is_null, has_id or filter";

fn condition(value: &Value, path: &str, depth: usize) -> Result<Condition, Refusal> {
    let Value::Object(fields) = value else {
        return refuse(
            path,
            format!("expected a condition, an object with one of {TESTS}, found {}", value.type_name()),
        );
    };
    let mut tests = fields.iter().filter(|(key, _)| *key != "field");
    let (Some((key, value)), None) = (tests.next(), tests.next()) else {
        return refuse(path, format!("expected exactly one of {TESTS}"));
    };
    let at = within(path, key);
    match (key.as_str(), fields.get("field")) {
        ("has_id", None) => {
            let ids = array(value, &at)?.iter().enumerate().map(|(index, value)| id(value, &format!("{at}[{index}]")));
            Ok(Condition::has_id(ids.collect::<Result<_, _>>()?))
        }
        ("filter", None) => Ok(Condition::Filter(Box::new(filter(value, &at, depth + 1)?))),
        ("has_id" | "filter", Some(_)) => refuse(path, format!("{key} is not about a field: leave `field` out")),
        (_, Some(Value::String(name))) => {
            let field = within(path, "field");
            let path: FieldPath = name.parse().map_err(|v: sagitta_model::Violation| (field, v.reason))?;
            Ok(Condition::Field { path, test: test(key, value, &at)? })
        }
        (_, _) => refuse(path, "expected `field` with the name of the field"),
    }
}

fn id(value: &Value, path: &str) -> Result<PointId, Refusal> {
    let id = match value {
        Value::Int(n) => u64::try_from(*n).ok().map(PointId::Num),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    id.ok_or_else(|| (path.to_owned(), "expected an id: an unsigned number or a UUID as text".to_owned()))
}

fn test(key: &str, value: &Value, path: &str) -> Result<Test, Refusal> {
    match (key, value) {
        ("match", value) => scalar(value, path).map(Test::Match),
        ("any", value) => {
            let scalars = array(value, path)?.iter().enumerate();
            let scalars = scalars.map(|(at, value)| scalar(value, &format!("{path}[{at}]")));
            scalars.collect::<Result<_, _>>().map(Test::Any)
        }
        ("range", Value::Object(bounds)) => range(bounds, path).map(Test::Range),
        ("range", other) => {
            refuse(path, format!("expected an object with gt, gte, lt or lte, found {}", other.type_name()))
        }
        ("prefix", Value::String(text)) => Ok(Test::Prefix(text.clone())),
        ("prefix", other) => {
            refuse(path, format!("expected the text that values begin with, found {}", other.type_name()))
        }
        ("values_count", Value::Object(bounds)) => counts(bounds, path).map(Test::ValuesCount),
        ("values_count", other) => {
            refuse(path, format!("expected an object with gt, gte, lt or lte, found {}", other.type_name()))
        }
        ("exists", Value::Bool(true)) => Ok(Test::Exists),
        ("is_null", Value::Bool(true)) => Ok(Test::IsNull),
        ("exists" | "is_null", _) => refuse(path, "expected true; put the condition into must_not for the opposite"),
        _ => refuse(path, format!("expected one of {TESTS}")),
    }
}

fn scalar(value: &Value, path: &str) -> Result<Scalar, Refusal> {
    match value {
        Value::Bool(b) => Ok(Scalar::Bool(*b)),
        Value::Int(n) => Ok(Scalar::Int(*n)),
        Value::String(text) => Ok(Scalar::String(text.clone())),
        Value::Float(_) => refuse(path, "floats have many spellings of one value: use a range"),
        other => refuse(path, format!("expected text, an integer or true or false, found {}", other.type_name())),
    }
}

fn range(bounds: &Object, path: &str) -> Result<Range, Refusal> {
    let mut numbers = Bounds { lower: None, upper: None };
    let mut times = Bounds { lower: None, upper: None };
    for (key, value) in bounds {
        let at = within(path, key);
        let (lower, inclusive) = end(key, &at)?;
        let twice = match value {
            Value::Int(n) => set(&mut numbers, lower, (Number::Int(*n), inclusive)),
            Value::Float(x) => set(&mut numbers, lower, (Number::Float(*x), inclusive)),
            Value::String(text) => match datetime::parse_micros(text) {
                Some(micros) => set(&mut times, lower, (micros, inclusive)),
                None => return refuse(&at, "expected a number or a time such as \"2026-01-01T00:00:00Z\""),
            },
            other => return refuse(&at, format!("expected a number or a time as text, found {}", other.type_name())),
        };
        if twice {
            return refuse(&at, TWICE);
        }
    }
    match (numbers.lower.or(numbers.upper), times.lower.or(times.upper)) {
        (Some(_), None) => Ok(Range::Number(numbers)),
        (None, Some(_)) => Ok(Range::Datetime(times)),
        (None, None) => refuse(path, NO_BOUND),
        (Some(_), Some(_)) => refuse(path, "expected two numbers or two times"),
    }
}

fn counts(bounds: &Object, path: &str) -> Result<Bounds<u64>, Refusal> {
    let mut counts = Bounds { lower: None, upper: None };
    for (key, value) in bounds {
        let at = within(path, key);
        let (lower, inclusive) = end(key, &at)?;
        let count = if let Value::Int(n) = value { u64::try_from(*n).ok() } else { None };
        let Some(count) = count else { return refuse(&at, "expected a count, a whole number from 0 on") };
        if set(&mut counts, lower, (count, inclusive)) {
            return refuse(&at, TWICE);
        }
    }
    if counts.lower.is_none() && counts.upper.is_none() {
        return refuse(path, NO_BOUND);
    }
    Ok(counts)
}

const TWICE: &str = "this end of the range has two bounds: leave one out";
const NO_BOUND: &str = "expected at least one of gt, gte, lt and lte";

/// Whether a bound is the lower one, and whether it is itself included.
fn end(key: &str, at: &str) -> Result<(bool, bool), Refusal> {
    match key {
        "gt" => Ok((true, false)),
        "gte" => Ok((true, true)),
        "lt" => Ok((false, false)),
        "lte" => Ok((false, true)),
        _ => refuse(at, "expected gt, gte, lt or lte"),
    }
}

/// Sets one end; true if it was set before.
fn set<T>(bounds: &mut Bounds<T>, lower: bool, bound: (T, bool)) -> bool {
    let end = if lower { &mut bounds.lower } else { &mut bounds.upper };
    end.replace(bound).is_some()
}
