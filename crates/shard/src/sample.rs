//! Random values of every kind, small enough that equal ones meet. For tests.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sagitta_model::filter::{Bounds, Number};
use sagitta_model::{
    Condition, FieldPath, FieldType, Filter, Object, PointId, Range, Scalar, Schema, Test, Value, datetime,
};

/// Draws samples from a seed.
pub(crate) struct Sampler(pub(crate) SmallRng);

/// Field paths that samples use: of the top level, nested, and one that is the beginning of another.
pub(crate) const PATHS: [&str; 6] = ["a", "b", "c.d", "c.e", "c.e.f", "g"];

/// Numbers around which exact and rounding comparisons differ.
const INTS: [i64; 14] = [
    0,
    1,
    -1,
    2,
    3,
    7,
    i64::MIN,
    i64::MAX,
    i64::MAX - 1,
    1 << 53,
    (1 << 53) + 1,
    (1 << 53) - 1,
    -(1 << 53) - 1,
    1 << 62,
];
const FLOATS: [f64; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.5,
    3.0,
    1e300,
    -1e300,
    9_007_199_254_740_992.0,
    9_223_372_036_854_775_808.0,
    -9_223_372_036_854_775_808.0,
    f64::MIN_POSITIVE,
    1e-300,
    7.000_000_000_000_001,
];
const TEXTS: [&str; 8] = ["", "a", "ab", "b", "ä", "zz", "A", "rust"];
/// Some are the same moment, spelled differently.
const TIMES: [&str; 9] = [
    "2026-01-01T00:00:00Z",
    "2026-01-01T01:00:00+01:00",
    "2025-12-31T19:00:00.000-05:00",
    "2026-01-01T00:00:00.000001Z",
    "2026-01-01T00:00:00.0000011Z",
    "1969-12-31T23:59:59.999999Z",
    "1970-01-01T00:00:00Z",
    "2026-06-01T12:34:56.789Z",
    "-000001-01-01T00:00:00Z",
];

impl Sampler {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.random_range(0..bound)
    }

    pub(crate) fn one_in(&mut self, n: u32) -> bool {
        self.0.random_ratio(1, n)
    }

    pub(crate) fn choose<T: Clone>(&mut self, from: &[T]) -> T {
        from.choose(&mut self.0).expect("something to choose from").clone()
    }

    pub(crate) fn list<T>(&mut self, most: usize, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| draw(self)).collect()
    }

    pub(crate) fn int(&mut self) -> i64 {
        if self.one_in(3) { self.0.random() } else { self.choose(&INTS) }
    }

    pub(crate) fn float(&mut self) -> f64 {
        if self.one_in(3) { self.0.random_range(-10.0..10.0) } else { self.choose(&FLOATS) }
    }

    pub(crate) fn text(&mut self) -> String {
        if self.one_in(4) { format!("t{}", self.below(1000)) } else { self.choose(&TEXTS).to_owned() }
    }

    pub(crate) fn id(&mut self) -> PointId {
        match self.below(4) {
            0 => PointId::Num(self.0.random()),
            1 => PointId::Uuid(self.0.random()),
            _ => PointId::Num(self.below(100) as u64),
        }
    }

    /// Any value, nested at most so deep.
    pub(crate) fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => Value::Bool(self.one_in(2)),
            2 => Value::Int(self.int()),
            3 => Value::Float(self.float()),
            4 => Value::String(self.text()),
            5 => Value::String(self.choose(&TIMES).to_owned()),
            6 => Value::Array(self.list(4, |sampler| sampler.value(depth - 1))),
            _ => Value::Object(self.object(depth - 1)),
        }
    }

    /// Any object over the names that [`PATHS`] use, nested at most so deep.
    pub(crate) fn object(&mut self, depth: usize) -> Object {
        let fields = self.list(4, |sampler| {
            (sampler.choose(&["a", "b", "c", "d", "e", "f", "x.y"]).to_owned(), sampler.value(depth))
        });
        fields.into_iter().collect()
    }

    pub(crate) fn field_type(&mut self) -> FieldType {
        self.choose(&FieldType::ALL)
    }

    /// A value of a declared type, now and then null.
    pub(crate) fn typed(&mut self, field_type: FieldType) -> Value {
        if self.one_in(8) {
            return Value::Null;
        }
        match field_type {
            FieldType::Keyword => Value::String(self.text()),
            FieldType::Integer => Value::Int(self.int()),
            FieldType::Float if self.one_in(2) => Value::Int(self.int()),
            FieldType::Float => Value::Float(self.float()),
            FieldType::Bool => Value::Bool(self.one_in(2)),
            FieldType::Datetime => Value::String(self.choose(&TIMES).to_owned()),
        }
    }

    /// Declares some of [`PATHS`]; never both a path and one below it.
    pub(crate) fn declare_fields(&mut self, schema: &mut Schema) {
        for path in PATHS {
            if path != "c.e" && !self.one_in(4) {
                schema.fields.insert(field_path(path), self.field_type());
            }
        }
    }

    /// A payload whose declared fields have their types: scalars, lists, in lists of objects, or absent.
    pub(crate) fn payload(&mut self, schema: &Schema) -> Object {
        let mut payload = Object::new();
        for (path, field_type) in &schema.fields {
            if self.one_in(5) {
                continue;
            }
            let value = if self.one_in(3) {
                Value::Array(self.list(4, |sampler| sampler.typed(*field_type)))
            } else {
                self.typed(*field_type)
            };
            self.insert(&mut payload, path.as_str(), value);
        }
        if self.one_in(3) {
            payload.insert("undeclared".to_owned(), self.value(2));
        }
        payload
    }

    fn insert(&mut self, fields: &mut Object, path: &str, value: Value) {
        let Some((name, rest)) = path.split_once('.') else {
            fields.insert(path.to_owned(), value);
            return;
        };
        let inner = fields.entry(name.to_owned()).or_insert_with(|| Value::Object(Object::new()));
        if self.one_in(4)
            && let Value::Object(only) = inner
        {
            *inner = Value::Array(vec![Value::Object(std::mem::take(only)), Value::Object(Object::new())]);
        }
        match inner {
            Value::Object(fields) => self.insert(fields, rest, value),
            Value::Array(items) => {
                let at = self.below(items.len());
                if let Value::Object(fields) = &mut items[at] {
                    self.insert(fields, rest, value);
                }
            }
            _ => {}
        }
    }

    /// A filter that suits the schema; its ids are drawn from `ids`.
    pub(crate) fn filter(&mut self, schema: &Schema, ids: &[PointId], depth: usize) -> Filter {
        let draw = |sampler: &mut Self| sampler.condition(schema, ids, depth);
        Filter { must: self.list(2, draw), should: self.list(2, draw), must_not: self.list(2, draw) }
    }

    fn condition(&mut self, schema: &Schema, ids: &[PointId], depth: usize) -> Condition {
        let fields: Vec<_> = schema.fields.iter().map(|(path, field_type)| (path.clone(), *field_type)).collect();
        match self.below(8) {
            0 if depth > 0 => Condition::Filter(Box::new(self.filter(schema, ids, depth - 1))),
            1 => Condition::has_id(self.list(5, |sampler| {
                if ids.is_empty() || sampler.one_in(4) { sampler.id() } else { sampler.choose(ids) }
            })),
            _ if fields.is_empty() => Condition::has_id(ids.to_vec()),
            _ => {
                let (path, field_type) = self.choose(&fields);
                Condition::Field { path, test: self.test(field_type) }
            }
        }
    }

    fn test(&mut self, field_type: FieldType) -> Test {
        match (self.below(8), field_type) {
            (0, _) => Test::Exists,
            (1, _) => Test::IsNull,
            (6, _) => Test::ValuesCount(self.counts()),
            (_, FieldType::Datetime) => Test::Range(Range::Datetime(self.bounds(|sampler| {
                let text = sampler.choose(&TIMES);
                datetime::parse_micros(text).expect("a moment")
            }))),
            (2..=4, FieldType::Integer | FieldType::Float) => Test::Range(Range::Number(self.bounds(Self::number))),
            (2..=4, FieldType::Keyword) => Test::Prefix(self.prefix()),
            (5, _) => Test::Any(self.list(4, |sampler| sampler.scalar(field_type))),
            _ => Test::Match(self.scalar(field_type)),
        }
    }

    fn scalar(&mut self, field_type: FieldType) -> Scalar {
        match field_type {
            FieldType::Bool => Scalar::Bool(self.one_in(2)),
            FieldType::Keyword | FieldType::Datetime => Scalar::String(self.text()),
            FieldType::Integer | FieldType::Float => Scalar::Int(self.int()),
        }
    }

    /// The beginning of some text; now and then all of it.
    fn prefix(&mut self) -> String {
        let text = self.text();
        let chars = self.below(text.chars().count() + 1);
        text.chars().take(chars).collect()
    }

    fn number(&mut self) -> Number {
        if self.one_in(2) { Number::Int(self.int()) } else { Number::Float(self.float()) }
    }

    /// With a bound at least, around the lengths of the lists in payloads.
    fn counts(&mut self) -> Bounds<u64> {
        let bounds = self.bounds(|sampler| sampler.below(6) as u64);
        let lower = if bounds.upper.is_some() { bounds.lower } else { bounds.lower.or(Some((1, false))) };
        Bounds { lower, ..bounds }
    }

    fn bounds<T>(&mut self, mut draw: impl FnMut(&mut Self) -> T) -> Bounds<T> {
        let mut bound = || (!self.one_in(4)).then(|| (draw(self), self.one_in(2)));
        Bounds { lower: bound(), upper: bound() }
    }
}

pub(crate) fn field_path(path: &str) -> FieldPath {
    path.parse().expect("a valid path")
}
