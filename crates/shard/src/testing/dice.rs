//! Random points, filters, commands and queries: few values, so that equal ones, ties and overwrites are common.

use std::sync::Arc;

use sagitta_env::Env;
use sagitta_model::filter::{Bounds, Number};
use sagitta_model::{
    Change, Condition, Effort, Filter, Metric, Object, PayloadChange, Point, PointId, Range, Scalar, Schema,
    SearchQuery, Target, Test, Value, VectorSpec,
};

use crate::Command;

/// Draws from a seed.
#[derive(Clone)]
pub struct Dice(Env);

const COLORS: [&str; 4] = ["red", "green", "blue", ""];
const TIMES: [&str; 3] = ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2026-06-01T12:30:00.5Z"];

impl Dice {
    /// Of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Env::seeded(seed).0)
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.0.random_below(bound)
    }

    /// True once in `n` times.
    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// A request id.
    pub fn request_id(&self) -> u128 {
        self.0.uuid()
    }

    /// One of about 200 ids, numbers and UUIDs.
    pub fn id(&self) -> PointId {
        match self.below(4) {
            0 => PointId::Uuid(u128::from(self.below(60)) << 70),
            _ => PointId::Num(self.below(140) * 3),
        }
    }

    /// Several ids, perhaps the same.
    pub fn ids(&self, most: u64) -> Vec<PointId> {
        (0..self.below(most) + 1).map(|_| self.id()).collect()
    }

    /// A vector of small whole numbers.
    pub fn vector(&self, spec: &VectorSpec) -> Vec<f32> {
        let mut vector: Vec<f32> = (0..spec.dim).map(|_| self.below(7) as f32 - 3.0).collect();
        if spec.metric == Metric::Cosine && vector.iter().all(|x| *x == 0.0) {
            vector[0] = 1.0;
        }
        vector
    }

    /// A point with a payload in which any field may be missing, null, or a list.
    pub fn point(&self, schema: &Schema) -> Point {
        let vectors = schema.vectors.iter().map(|(name, spec)| (name.clone(), self.vector(spec)));
        Point { id: self.id(), vectors: vectors.collect(), payload: self.payload() }
    }

    /// A payload that suits [`super::schema`].
    pub fn payload(&self) -> Object {
        let mut payload = Object::new();
        self.maybe(&mut payload, "color", || (*self.pick(&COLORS)).into());
        self.maybe(&mut payload, "year", || Value::Int(2020 + self.below(5) as i64));
        self.maybe(&mut payload, "price", || match self.below(2) {
            0 => Value::Int(self.below(4) as i64),
            _ => Value::Float(self.below(8) as f64 / 2.0),
        });
        self.maybe(&mut payload, "sold", || Value::Bool(self.one_in(2)));
        self.maybe(&mut payload, "at", || (*self.pick(&TIMES)).into());
        self.maybe(&mut payload, "note", || Value::Float(self.below(1_000) as f64));
        if self.one_in(2) {
            let mut made = Object::new();
            self.maybe(&mut made, "by", || (*self.pick(&COLORS)).into());
            payload.insert("made".to_owned(), Value::Object(made));
        }
        payload
    }

    fn maybe(&self, object: &mut Object, name: &str, value: impl Fn() -> Value) {
        let value = match self.below(8) {
            0 => return,
            1 => Value::Null,
            2 => Value::Array((0..self.below(3)).map(|_| value()).collect()),
            _ => value(),
        };
        object.insert(name.to_owned(), value);
    }

    /// A filter of at most three levels.
    pub fn filter(&self) -> Filter {
        self.filter_of_depth(2)
    }

    fn filter_of_depth(&self, depth: u64) -> Filter {
        let conditions = |most: u64| (0..self.below(most)).map(|_| self.condition(depth)).collect::<Vec<_>>();
        Filter { must: conditions(3), should: conditions(3), must_not: conditions(2) }
    }

    fn condition(&self, depth: u64) -> Condition {
        let field = |path: &str, test| Condition::Field { path: path.parse().expect("a path"), test };
        let string = || Scalar::String((*self.pick(&COLORS)).to_owned());
        match self.below(12) {
            0 => field("color", Test::Match(string())),
            1 => field("color", Test::Any(vec![string(), string()])),
            2 => field("year", Test::Match(Scalar::Int(2020 + self.below(6) as i64))),
            3 => field("year", Test::Range(Range::Number(self.bounds(|n| Number::Int(2020 + n as i64))))),
            4 => field("price", Test::Range(Range::Number(self.bounds(|n| Number::Float(n as f64 / 2.0))))),
            5 => field("sold", Test::Match(Scalar::Bool(self.one_in(2)))),
            6 => field("made.by", Test::Match(string())),
            7 => {
                let path = *self.pick(&["color", "at", "price", "made.by"]);
                field(path, if self.one_in(2) { Test::Exists } else { Test::IsNull })
            }
            8 => field("color", Test::Prefix((*self.pick(&["", "r", "gre", "blue", "reds"])).to_owned())),
            9 => {
                let path = *self.pick(&["color", "year", "sold", "made.by"]);
                let bounds = self.bounds(|n| n);
                // An interval without any bound would be refused.
                let lower = bounds.lower.or(bounds.upper.is_none().then_some((1, true)));
                field(path, Test::ValuesCount(Bounds { lower, ..bounds }))
            }
            10 if depth > 0 => Condition::Filter(Box::new(self.filter_of_depth(depth - 1))),
            _ => Condition::has_id(self.ids(30)),
        }
    }

    fn bounds<T>(&self, number: impl Fn(u64) -> T) -> Bounds<T> {
        let bound = || (!self.one_in(3)).then(|| (number(self.below(5)), self.one_in(2)));
        Bounds { lower: bound(), upper: bound() }
    }

    /// A command; now and then one that is wrong as a whole or for some of its points.
    pub fn command(&self, schema: &Schema) -> Command {
        let change = match self.below(20) {
            0..=10 => Change::Upsert(self.points(schema)),
            11..=13 => Change::Delete(self.ids(12)),
            14 => Change::DeleteByFilter(self.narrow_filter()),
            15..=17 => Change::UpdatePayload { target: Target::Ids(self.ids(8)), change: self.payload_change() },
            _ => Change::UpdatePayload { target: Target::Filter(self.narrow_filter()), change: self.payload_change() },
        };
        let after = self.one_in(4).then(|| self.id());
        Command { request_id: self.request_id(), after, change: change.into() }
    }

    fn points(&self, schema: &Schema) -> Vec<Point> {
        let count = if self.one_in(12) { 60 } else { 1 + self.below(12) };
        let mut points: Vec<_> = (0..count).map(|_| self.point(schema)).collect();
        if self.one_in(15) {
            points[0].vectors.pop_first();
        }
        points
    }

    /// A filter that leaves something to go on with.
    fn narrow_filter(&self) -> Filter {
        let mut filter = self.filter();
        filter.must.push(Condition::has_id(self.ids(80)));
        if self.one_in(10) {
            let path = "undeclared".parse().expect("a path");
            filter.must.push(Condition::Field { path, test: Test::Exists });
        }
        filter
    }

    fn payload_change(&self) -> PayloadChange {
        match self.below(6) {
            0 => PayloadChange::Replace(self.payload()),
            1 => PayloadChange::Delete(vec!["color".parse().expect("a path"), "made.by".parse().expect("a path")]),
            2 => PayloadChange::Merge([("year".to_owned(), "not a number".into())].into()),
            _ => PayloadChange::Merge(self.payload()),
        }
    }

    /// A query of some effort.
    pub fn query(&self, schema: &Schema) -> SearchQuery {
        let names: Vec<_> = schema.vectors.iter().collect();
        let (name, spec) = *self.pick(&names);
        SearchQuery {
            vector_name: name.clone(),
            vector: self.vector(spec),
            k: *self.pick(&[1, 2, 5, 10, 40, 1_000]),
            min_similarity: self.one_in(5).then(|| self.below(9) as f32 / 4.0 - 1.0),
            filter: self.one_in(2).then(|| Arc::new(self.filter())),
            effort: if self.one_in(2) { Effort::Exact } else { Effort::default() },
            group_by: None,
        }
    }
}

/// Points of this year.
pub(super) fn of_year(year: i64) -> Filter {
    let path = "year".parse().expect("a path");
    Filter { must: vec![Condition::Field { path, test: Test::Match(Scalar::Int(year)) }], ..Filter::default() }
}
