//! Filters.

use prost_types::Timestamp;
use sagitta_model::filter::Bounds;
use sagitta_model::{Condition, FieldPath, Filter, Number, PointId, Range, Scalar, Test, Violation, limits};

use crate::common::{Convert, each, required};
use crate::v1;
use crate::v1::{bound, condition, count_range, range, scalar};

impl Convert for Filter {
    type Proto = v1::Filter;
    type Error = Violation;

    fn from_proto(proto: v1::Filter) -> Result<Self, Violation> {
        filter_from(proto, 1, &mut 0)
    }

    fn into_proto(self) -> v1::Filter {
        let list = |conditions: Vec<Condition>| conditions.into_iter().map(condition_into).collect();
        v1::Filter { must: list(self.must), should: list(self.should), must_not: list(self.must_not) }
    }
}

/// `depth` and `conditions` count what was entered so far, so that the limits hold before anything is built.
fn filter_from(proto: v1::Filter, depth: usize, conditions: &mut usize) -> Result<Filter, Violation> {
    if depth > limits::MAX_FILTER_DEPTH {
        return Err(Violation::new("", format!("filters nest at most {} levels deep", limits::MAX_FILTER_DEPTH)));
    }
    let mut list = |name, protos| each(name, protos, |proto| condition_from(proto, depth, conditions));
    Ok(Filter {
        must: list("must", proto.must)?,
        should: list("should", proto.should)?,
        must_not: list("must_not", proto.must_not)?,
    })
}

fn condition_from(proto: v1::Condition, depth: usize, conditions: &mut usize) -> Result<Condition, Violation> {
    *conditions += 1;
    if *conditions > limits::MAX_FILTER_CONDITIONS {
        let most = limits::MAX_FILTER_CONDITIONS;
        let reason = format!("a filter has at most {most} conditions: use `any` for alternatives");
        return Err(Violation::new("", reason));
    }
    let test = match proto.test {
        Some(condition::Test::HasId(list)) => {
            no_field(&proto.field, "has_id")?;
            at_most("has_id.ids", list.ids.len())?;
            let ids = each("has_id.ids", list.ids, PointId::from_proto)?;
            return Ok(Condition::has_id(ids));
        }
        Some(condition::Test::Filter(filter)) => {
            no_field(&proto.field, "filter")?;
            let filter = filter_from(filter, depth + 1, conditions).map_err(|v| v.within("filter"))?;
            return Ok(Condition::Filter(Box::new(filter)));
        }
        Some(condition::Test::Match(scalar)) => Test::Match(scalar_from(scalar).map_err(|v| v.within("match"))?),
        Some(condition::Test::Any(list)) => {
            at_most("any.values", list.values.len())?;
            Test::Any(each("any.values", list.values, scalar_from)?)
        }
        Some(condition::Test::Range(range)) => Test::Range(range_from(range).map_err(|v| v.within("range"))?),
        Some(condition::Test::Prefix(text)) => Test::Prefix(keyword(text).map_err(|v| v.within("prefix"))?),
        Some(condition::Test::ValuesCount(range)) => {
            Test::ValuesCount(counts_from(&range).map_err(|v| v.within("values_count"))?)
        }
        Some(condition::Test::Exists(v1::Exists {})) => Test::Exists,
        Some(condition::Test::IsNull(v1::IsNull {})) => Test::IsNull,
        None => return Err(Violation::new("", "has no test that this version knows")),
    };
    if proto.field.is_empty() {
        return Err(Violation::new("field", "is missing: name the payload field to test"));
    }
    let path: FieldPath = proto.field.parse().map_err(|v: Violation| v.within("field"))?;
    Ok(Condition::Field { path, test })
}

fn no_field(field: &str, test: &str) -> Result<(), Violation> {
    if field.is_empty() {
        return Ok(());
    }
    Err(Violation::new("field", format!("is set, but `{test}` does not test a field; leave it empty")))
}

fn at_most(field: &str, count: usize) -> Result<(), Violation> {
    crate::common::count(field, count, 0, limits::MAX_FILTER_VALUES)
}

fn condition_into(condition: Condition) -> v1::Condition {
    let (field, test) = match condition {
        Condition::Field { path, test } => (path.as_str().to_owned(), test_into(test)),
        Condition::HasId(ids) => {
            let ids = ids.into_iter().map(Convert::into_proto).collect();
            (String::new(), condition::Test::HasId(v1::PointIdList { ids }))
        }
        Condition::Filter(filter) => (String::new(), condition::Test::Filter(filter.into_proto())),
    };
    v1::Condition { field, test: Some(test) }
}

fn test_into(test: Test) -> condition::Test {
    match test {
        Test::Match(scalar) => condition::Test::Match(scalar_into(scalar)),
        Test::Any(scalars) => {
            condition::Test::Any(v1::ScalarList { values: scalars.into_iter().map(scalar_into).collect() })
        }
        Test::Range(range) => condition::Test::Range(range_into(&range)),
        Test::Prefix(text) => condition::Test::Prefix(text),
        Test::ValuesCount(bounds) => condition::Test::ValuesCount(counts_into(&bounds)),
        Test::Exists => condition::Test::Exists(v1::Exists {}),
        Test::IsNull => condition::Test::IsNull(v1::IsNull {}),
    }
}

fn scalar_from(proto: v1::Scalar) -> Result<Scalar, Violation> {
    match proto.kind {
        Some(scalar::Kind::BoolValue(value)) => Ok(Scalar::Bool(value)),
        Some(scalar::Kind::IntegerValue(value)) => Ok(Scalar::Int(value)),
        Some(scalar::Kind::StringValue(value)) => keyword(value).map(Scalar::String),
        None => Err(Violation::new("", "has no value that this version knows")),
    }
}

/// Text that keywords are compared with.
fn keyword(text: String) -> Result<String, Violation> {
    let most = limits::MAX_KEYWORD_BYTES;
    if text.len() > most {
        return Err(Violation::new("", format!("has {} bytes, at most {most} are allowed", text.len())));
    }
    Ok(text)
}

fn scalar_into(scalar: Scalar) -> v1::Scalar {
    let kind = match scalar {
        Scalar::Bool(value) => scalar::Kind::BoolValue(value),
        Scalar::Int(value) => scalar::Kind::IntegerValue(value),
        Scalar::String(value) => scalar::Kind::StringValue(value),
    };
    v1::Scalar { kind: Some(kind) }
}

/// One end of an interval, before both are known to be of the same type.
#[derive(Clone, Copy)]
enum End {
    Number(Number),
    Datetime(i64),
}

fn range_from(proto: v1::Range) -> Result<Range, Violation> {
    let lower = match proto.lower {
        Some(range::Lower::Gt(bound)) => Some((end_from("gt", bound)?, false)),
        Some(range::Lower::Gte(bound)) => Some((end_from("gte", bound)?, true)),
        None => None,
    };
    let upper = match proto.upper {
        Some(range::Upper::Lt(bound)) => Some((end_from("lt", bound)?, false)),
        Some(range::Upper::Lte(bound)) => Some((end_from("lte", bound)?, true)),
        None => None,
    };
    match (lower, upper) {
        (None, None) => Err(no_bound()),
        (Some((End::Number(_), _)) | None, Some((End::Number(_), _)) | None) => {
            Ok(Range::Number(Bounds { lower: lower.and_then(number), upper: upper.and_then(number) }))
        }
        (Some((End::Datetime(_), _)) | None, Some((End::Datetime(_), _)) | None) => {
            Ok(Range::Datetime(Bounds { lower: lower.and_then(datetime), upper: upper.and_then(datetime) }))
        }
        _ => Err(Violation::new("", "has a number at one end and an instant at the other")),
    }
}

fn no_bound() -> Violation {
    Violation::new("", "has no bound: set at least one of `gt`, `gte`, `lt`, `lte`")
}

fn number((end, inclusive): (End, bool)) -> Option<(Number, bool)> {
    match end {
        End::Number(number) => Some((number, inclusive)),
        End::Datetime(_) => None,
    }
}

fn datetime((end, inclusive): (End, bool)) -> Option<(i64, bool)> {
    match end {
        End::Datetime(micros) => Some((micros, inclusive)),
        End::Number(_) => None,
    }
}

fn end_from(field: &str, proto: v1::Bound) -> Result<End, Violation> {
    match required(field, proto.value)? {
        bound::Value::IntegerValue(value) => Ok(End::Number(Number::Int(value))),
        bound::Value::FloatValue(value) if value.is_nan() => Err(Violation::new(field, "is not a number (NaN)")),
        bound::Value::FloatValue(value) => Ok(End::Number(Number::Float(value))),
        bound::Value::DatetimeValue(time) => {
            micros_from(&time).map(End::Datetime).map_err(|reason| Violation::new(field, reason))
        }
    }
}

fn range_into(range: &Range) -> v1::Range {
    fn bounds<T: Copy>(bounds: &Bounds<T>, value: impl Fn(T) -> bound::Value) -> v1::Range {
        let bound = |end| v1::Bound { value: Some(value(end)) };
        let lower = bounds.lower.map(|(end, inclusive)| match inclusive {
            true => range::Lower::Gte(bound(end)),
            false => range::Lower::Gt(bound(end)),
        });
        let upper = bounds.upper.map(|(end, inclusive)| match inclusive {
            true => range::Upper::Lte(bound(end)),
            false => range::Upper::Lt(bound(end)),
        });
        v1::Range { lower, upper }
    }
    match range {
        Range::Number(numbers) => bounds(numbers, |number| match number {
            Number::Int(value) => bound::Value::IntegerValue(value),
            Number::Float(value) => bound::Value::FloatValue(value),
        }),
        Range::Datetime(micros) => bounds(micros, |micros| bound::Value::DatetimeValue(micros_into(micros))),
    }
}

fn counts_from(proto: &v1::CountRange) -> Result<Bounds<u64>, Violation> {
    let lower = proto.lower.map(|lower| match lower {
        count_range::Lower::Gt(count) => (count, false),
        count_range::Lower::Gte(count) => (count, true),
    });
    let upper = proto.upper.map(|upper| match upper {
        count_range::Upper::Lt(count) => (count, false),
        count_range::Upper::Lte(count) => (count, true),
    });
    if lower.is_none() && upper.is_none() {
        return Err(no_bound());
    }
    Ok(Bounds { lower, upper })
}

fn counts_into(bounds: &Bounds<u64>) -> v1::CountRange {
    let lower = bounds.lower.map(|(count, inclusive)| match inclusive {
        true => count_range::Lower::Gte(count),
        false => count_range::Lower::Gt(count),
    });
    let upper = bounds.upper.map(|(count, inclusive)| match inclusive {
        true => count_range::Upper::Lte(count),
        false => count_range::Upper::Lt(count),
    });
    v1::CountRange { lower, upper }
}

const MICROS_PER_SECOND: i64 = 1_000_000;
const NANOS_PER_MICRO: i32 = 1_000;
const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// Microseconds since 1970 of a timestamp.
pub(crate) fn micros_from(time: &Timestamp) -> Result<i64, String> {
    if !(0..NANOS_PER_SECOND).contains(&time.nanos) {
        return Err(format!("has {} nanoseconds, expected 0 to 999,999,999", time.nanos));
    }
    if time.nanos % NANOS_PER_MICRO != 0 {
        return Err("is finer than a microsecond, which instants are compared to".to_owned());
    }
    // In 128 bits: the first microseconds of an i64 are less than a whole number of its seconds.
    let micros = i128::from(time.seconds) * i128::from(MICROS_PER_SECOND);
    let micros = micros + i128::from(time.nanos / NANOS_PER_MICRO);
    i64::try_from(micros).map_err(|_| format!("is {} seconds from 1970, which is out of range", time.seconds))
}

/// The timestamp of a number of microseconds since 1970.
pub(crate) fn micros_into(micros: i64) -> Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(MICROS_PER_SECOND)).unwrap_or_default() * NANOS_PER_MICRO;
    Timestamp { seconds: micros.div_euclid(MICROS_PER_SECOND), nanos }
}
