//! Filters: which points a search, count, scroll or delete is about.
//!
//! [`Filter::matches`] on a payload is the definition of every filter's meaning; indexes must agree with it.

use std::cmp::Ordering;

use crate::schema::{FieldType, Schema};
use crate::value::{Object, Value};
use crate::{FieldPath, PointId, Violation, datetime, limits};

/// A tree of conditions. The empty filter matches every point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// All of these hold.
    pub must: Vec<Condition>,
    /// At least one of these holds, if there are any.
    pub should: Vec<Condition>,
    /// None of these holds.
    pub must_not: Vec<Condition>,
}

/// One condition of a filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A test of the values that a payload path reaches: it holds if any of them passes, or as many are reached as it
    /// asks for.
    Field {
        /// Where in the payload; a declared field of the collection.
        path: FieldPath,
        /// What of it.
        test: Test,
    },
    /// The point's id is one of these, ascending and without duplicates ([`Condition::has_id`] sorts).
    HasId(Vec<PointId>),
    /// A filter within the filter.
    Filter(Box<Filter>),
}

/// What a field condition asks of a value, or of the number of values.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Equal to this.
    Match(Scalar),
    /// Equal to one of these.
    Any(Vec<Scalar>),
    /// Within these bounds.
    Range(Range),
    /// A keyword that begins with this text, byte for byte; every keyword begins with the empty one.
    Prefix(String),
    /// The number of values lies within these bounds, of which there is at least one. [`FieldPath::count`] says what is
    /// counted; a path that reaches nothing has 0 values, and so may pass.
    ValuesCount(Bounds<u64>),
    /// There is a value and it is not null.
    Exists,
    /// There is an explicit null.
    IsNull,
}

/// A value to compare with for equality.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// A bool field's value.
    Bool(bool),
    /// An integer field's value; also matches a float field of the same value.
    Int(i64),
    /// A keyword. (The same moment has many spellings: datetime fields are compared by range.)
    String(String),
}

/// A number as filters compare it: integers and floats mix exactly, without rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// 64-bit integer.
    Int(i64),
    /// Float; not NaN.
    Float(f64),
}

/// An interval; a bound that is absent does not constrain.
#[derive(Clone, Debug, PartialEq)]
pub enum Range {
    /// Of an integer or float field.
    Number(Bounds<Number>),
    /// Of a datetime field, in microseconds since 1970.
    Datetime(Bounds<i64>),
}

/// Lower and upper bound, each absent, inclusive or exclusive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds<T> {
    /// Lower bound and whether it is itself included.
    pub lower: Option<(T, bool)>,
    /// Upper bound and whether it is itself included.
    pub upper: Option<(T, bool)>,
}

impl<T: PartialOrd> Bounds<T> {
    /// Whether `value` lies within.
    pub fn contain(&self, value: &T) -> bool {
        // By order and not by `==`: to filters the integer 3 is the float 3.0.
        let above =
            self.lower.as_ref().is_none_or(|(bound, inclusive)| value > bound || (*inclusive && value >= bound));
        let below =
            self.upper.as_ref().is_none_or(|(bound, inclusive)| value < bound || (*inclusive && value <= bound));
        above && below
    }

    /// An interval without bounds asks for nothing: the caller forgot them, or another version knows more of them.
    fn check_any(&self) -> Result<(), Violation> {
        if self.lower.is_some() || self.upper.is_some() {
            return Ok(());
        }
        Err(Violation::new("", "has no bound: set at least one of `gt`, `gte`, `lt`, `lte`"))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (*self, *other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(&b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b),
            (Self::Int(a), Self::Float(b)) => compare_int_float(a, b),
            (Self::Float(a), Self::Int(b)) => compare_int_float(b, a).map(Ordering::reverse),
        }
    }
}

impl Number {
    /// Whether both are the same number, whatever their types.
    pub fn same(self, other: Self) -> bool {
        self.partial_cmp(&other) == Some(Ordering::Equal)
    }
}

/// Compares without rounding the integer to a float: 2^53 + 1 is greater than 2^53 as a float.
fn compare_int_float(a: i64, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    const TWO_63: f64 = 9_223_372_036_854_775_808.0;
    if b >= TWO_63 {
        return Some(Ordering::Less);
    }
    if b < -TWO_63 {
        return Some(Ordering::Greater);
    }
    let whole = b.trunc();
    Some(a.cmp(&(whole as i64)).then_with(|| 0.0f64.partial_cmp(&(b - whole)).unwrap_or(Ordering::Equal)))
}

impl Condition {
    /// A has-id condition over any list of ids.
    pub fn has_id(mut ids: Vec<PointId>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self::HasId(ids)
    }

    fn matches(&self, id: PointId, payload: &Object) -> bool {
        match self {
            Self::Field { path, test } => test.holds(path, payload),
            Self::HasId(ids) => ids.binary_search(&id).is_ok(),
            Self::Filter(filter) => filter.matches(id, payload),
        }
    }

    fn check(&self, schema: &Schema, depth: usize, conditions: &mut usize) -> Result<(), Violation> {
        *conditions += 1;
        if *conditions > limits::MAX_FILTER_CONDITIONS {
            let most = limits::MAX_FILTER_CONDITIONS;
            return Err(Violation::new(
                "",
                format!("a filter has at most {most} conditions: use `any` for alternatives"),
            ));
        }
        match self {
            Self::Field { path, test } => {
                let field_type = schema.field(path).map_err(|reason| Violation::new("field", reason))?;
                test.check(path, field_type)
            }
            Self::HasId(ids) => at_most("has_id", ids.len()),
            Self::Filter(filter) => filter.check(schema, depth + 1, conditions).map_err(|v| v.within("filter")),
        }
    }
}

fn at_most(field: &str, count: usize) -> Result<(), Violation> {
    let most = limits::MAX_FILTER_VALUES;
    if count > most {
        return Err(Violation::new(field, format!("has {count} values, at most {most} are allowed")));
    }
    Ok(())
}

impl Test {
    /// Whether what a path reaches in a payload passes.
    fn holds(&self, path: &FieldPath, payload: &Object) -> bool {
        match self {
            Self::Match(scalar) => path.any(payload, |value| scalar.equals(value)),
            Self::Any(scalars) => path.any(payload, |value| scalars.iter().any(|scalar| scalar.equals(value))),
            Self::Range(range) => path.any(payload, |value| range.contains(value)),
            Self::Prefix(prefix) => {
                let begins = |value: &Value| matches!(value, Value::String(text) if text.starts_with(prefix.as_str()));
                path.any(payload, begins)
            }
            Self::ValuesCount(bounds) => bounds.contain(&path.count(payload)),
            Self::Exists => path.any(payload, |value| !matches!(value, Value::Null)),
            Self::IsNull => path.any(payload, |value| matches!(value, Value::Null)),
        }
    }

    fn check(&self, path: &FieldPath, field_type: FieldType) -> Result<(), Violation> {
        let suits = |field: &str, suits: bool| {
            let reason = || format!("does not suit field `{path}`, which is declared as {field_type}");
            if suits { Ok(()) } else { Err(Violation::new(field, reason())) }
        };
        match self {
            Self::Match(scalar) => suits("match", scalar.suits(field_type)),
            Self::Any(scalars) => {
                at_most("any", scalars.len())?;
                suits("any", scalars.iter().all(|scalar| scalar.suits(field_type)))
            }
            Self::Range(Range::Number(bounds)) => {
                let nan = |bound: &Option<(Number, bool)>| matches!(bound, Some((Number::Float(x), _)) if x.is_nan());
                if nan(&bounds.lower) || nan(&bounds.upper) {
                    return Err(Violation::new("range", "a bound is not a number (NaN)"));
                }
                suits("range", matches!(field_type, FieldType::Integer | FieldType::Float))
            }
            Self::Range(Range::Datetime(_)) => suits("range", field_type == FieldType::Datetime),
            Self::Prefix(_) => suits("prefix", field_type == FieldType::Keyword),
            Self::ValuesCount(bounds) => bounds.check_any().map_err(|violation| violation.within("values_count")),
            Self::Exists | Self::IsNull => Ok(()),
        }
    }
}

impl Scalar {
    fn equals(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::Int(a), Value::Int(b)) => a == b,
            (Self::Int(a), Value::Float(b)) => Number::Int(*a).same(Number::Float(*b)),
            (Self::String(a), Value::String(b)) => a == b,
            _ => false,
        }
    }

    fn suits(&self, field_type: FieldType) -> bool {
        matches!(
            (self, field_type),
            (Self::Bool(_), FieldType::Bool)
                | (Self::Int(_), FieldType::Integer | FieldType::Float)
                | (Self::String(_), FieldType::Keyword)
        )
    }
}

impl Range {
    fn contains(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Number(bounds), Value::Int(n)) => bounds.contain(&Number::Int(*n)),
            (Self::Number(bounds), Value::Float(x)) => bounds.contain(&Number::Float(*x)),
            (Self::Datetime(bounds), Value::String(text)) => {
                datetime::parse_micros(text).is_some_and(|micros| bounds.contain(&micros))
            }
            _ => false,
        }
    }
}

impl Filter {
    /// Whether a point with this id and payload passes. The meaning of filters is defined here and nowhere else.
    pub fn matches(&self, id: PointId, payload: &Object) -> bool {
        self.must.iter().all(|condition| condition.matches(id, payload))
            && (self.should.is_empty() || self.should.iter().any(|condition| condition.matches(id, payload)))
            && !self.must_not.iter().any(|condition| condition.matches(id, payload))
    }

    /// Whether the filter has no conditions, and so passes everything.
    pub fn is_empty(&self) -> bool {
        self.must.is_empty() && self.should.is_empty() && self.must_not.is_empty()
    }

    /// Checks the filter's size and that each field condition suits a declared field.
    pub fn validate(&self, schema: &Schema) -> Result<(), Violation> {
        self.check(schema, 1, &mut 0)
    }

    fn check(&self, schema: &Schema, depth: usize, conditions: &mut usize) -> Result<(), Violation> {
        if depth > limits::MAX_FILTER_DEPTH {
            let most = limits::MAX_FILTER_DEPTH;
            return Err(Violation::new("", format!("filters nest at most {most} levels deep")));
        }
        for (name, list) in [("must", &self.must), ("should", &self.should), ("must_not", &self.must_not)] {
            for (at, condition) in list.iter().enumerate() {
                condition.check(schema, depth, conditions).map_err(|v| v.within(&format!("{name}[{at}]")))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
