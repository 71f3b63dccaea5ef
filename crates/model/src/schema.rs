//! What a collection holds: its named vectors and the payload fields that filters may use.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;

use crate::value::{Object, Value};
use crate::{FieldPath, Metric, Violation, datetime, limits};

/// The vectors and filterable fields of a collection. Fixed when the collection is created.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// Vectors by name; every point has each of them.
    pub vectors: BTreeMap<String, VectorSpec>,
    /// Types of the payload fields that filters and grouping may use.
    pub fields: BTreeMap<FieldPath, FieldType>,
}

/// One named vector of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorSpec {
    /// Number of components.
    pub dim: usize,
    /// How vectors are compared.
    pub metric: Metric,
    /// How sealed segments index it.
    pub index: IndexPolicy,
}

/// How a vector is indexed in sealed segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IndexPolicy {
    /// Chosen per segment: flat while it is small, then a graph.
    #[default]
    Auto,
    /// No structure: every row's code is compared. Exact after re-ranking, linear in the rows.
    Flat,
    /// A navigable graph over byte codes: the fastest searches.
    Graph,
    /// Inverted lists of quantised codes: the least memory.
    Compact,
}

/// Type of a declared payload field. Lists of the type are accepted wherever the type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// Text compared for equality.
    Keyword,
    /// 64-bit integers.
    Integer,
    /// Numbers.
    Float,
    /// True or false.
    Bool,
    /// RFC 3339 timestamps.
    Datetime,
}

/// The name of a collection: lower-case letters, digits, `-` and `_`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionName(String);

impl Schema {
    /// Checks names, dimensions and bounds.
    pub fn validate(&self) -> Result<(), Violation> {
        if self.vectors.is_empty() {
            return Err(Violation::new("vectors", "a collection needs at least one vector"));
        }
        bounded("vectors", self.vectors.len(), limits::MAX_VECTORS)?;
        bounded("fields", self.fields.len(), limits::MAX_FIELDS)?;
        for (name, spec) in &self.vectors {
            let at = || format!("vectors[\"{name}\"]");
            check_name(name).map_err(|v| v.within(&at()))?;
            if spec.dim == 0 || spec.dim > limits::MAX_DIMENSION {
                let reason = format!("is {}, expected 1 to {}", spec.dim, limits::MAX_DIMENSION);
                return Err(Violation::new("dimension", reason).within(&at()));
            }
        }
        Ok(())
    }

    /// The type of a declared field, or why a filter cannot use the path.
    pub fn field(&self, path: &FieldPath) -> Result<FieldType, String> {
        self.fields.get(path).copied().ok_or_else(|| {
            let declared: Vec<_> = self.fields.keys().map(FieldPath::as_str).collect();
            let declared = if declared.is_empty() { "none".to_owned() } else { declared.join(", ") };
            format!("`{path}` is not a declared field of this collection (declared: {declared}); declare fields when creating it")
        })
    }

    /// The vector that a request means: the named one, or with an empty name the only one.
    pub fn vector(&self, name: &str) -> Result<(&str, &VectorSpec), Violation> {
        let found = if name.is_empty() && self.vectors.len() == 1 {
            self.vectors.iter().next()
        } else {
            self.vectors.get_key_value(name)
        };
        found.map(|(name, spec)| (name.as_str(), spec)).ok_or_else(|| {
            let known: Vec<_> = self.vectors.keys().map(String::as_str).collect();
            let known = known.join(", ");
            let reason = if name.is_empty() {
                format!("the collection has several vectors ({known}): name one")
            } else {
                format!("`{name}` is not a vector of this collection (it has: {known})")
            };
            Violation::new("vector_name", reason)
        })
    }

    /// Checks that each declared field in a payload has its declared type.
    pub fn check_payload(&self, payload: &Object) -> Result<(), Violation> {
        for (path, field_type) in &self.fields {
            let mut wrong = None;
            let _ = path.visit(payload, &mut |value| {
                if field_type.accepts(value) {
                    return ControlFlow::Continue(());
                }
                wrong = Some(value);
                ControlFlow::Break(())
            });
            if let Some(value) = wrong {
                return Err(Violation::new(path.as_str(), field_type.refusal(value)).within("payload"));
            }
        }
        Ok(())
    }
}

impl VectorSpec {
    /// Checks one vector's length and components; under cosine a zero vector has no direction and is refused.
    pub fn check(&self, vector: &[f32]) -> Result<(), Violation> {
        if vector.len() != self.dim {
            let reason = format!("has {} dimensions, the collection expects {}", vector.len(), self.dim);
            return Err(Violation::new("", reason));
        }
        // In the order of their bits, magnitudes are in their own order, then come infinity and NaN. Unlike a sum or a
        // maximum of floats, that of integers does not depend on the order, so the compiler vectorises it.
        let magnitude = |x: &f32| (x.to_bits() << 1) >> 1;
        let largest = vector.iter().map(magnitude).max().unwrap_or_default();
        if largest > limits::MAX_MAGNITUDE.to_bits() {
            let refused = |x: &f32| magnitude(x) > limits::MAX_MAGNITUDE.to_bits();
            let at = vector.iter().position(refused).unwrap_or_default();
            let reason = if vector[at].is_finite() {
                format!("is {}, at most {} in magnitude is allowed", vector[at], limits::MAX_MAGNITUDE)
            } else {
                format!("is {}, expected a finite number", vector[at])
            };
            return Err(Violation::new(format!("[{at}]"), reason));
        }
        if self.metric == Metric::Cosine && norm(vector) < limits::MIN_NORM {
            let reason = "is a zero vector (or nearly), which has no direction under the cosine metric";
            return Err(Violation::new("", reason));
        }
        Ok(())
    }
}

/// The Euclidean length, summed in lanes that the compiler vectorises.
fn norm(vector: &[f32]) -> f32 {
    const LANES: usize = 8;
    let (chunks, rest) = vector.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x * x);
    }
    let rest: f32 = rest.iter().map(|x| x * x).sum();
    (sums.iter().sum::<f32>() + rest).sqrt()
}

impl FieldType {
    /// All of them, in the order they are documented.
    pub const ALL: [Self; 5] = [Self::Keyword, Self::Integer, Self::Float, Self::Bool, Self::Datetime];

    /// The name in text: `keyword`, `integer`, `float`, `bool`, `datetime`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keyword => "keyword",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Datetime => "datetime",
        }
    }

    fn accepts(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) => true,
            (Self::Keyword, Value::String(text)) => text.len() <= limits::MAX_KEYWORD_BYTES,
            (Self::Integer, Value::Int(_)) | (Self::Float, Value::Int(_) | Value::Float(_)) => true,
            (Self::Bool, Value::Bool(_)) => true,
            (Self::Datetime, Value::String(text)) => datetime::parse_micros(text).is_some(),
            _ => false,
        }
    }

    fn refusal(self, value: &Value) -> String {
        match (self, value) {
            (Self::Keyword, Value::String(text)) => {
                format!("is a keyword of {} bytes, at most {} are allowed", text.len(), limits::MAX_KEYWORD_BYTES)
            }
            (Self::Datetime, Value::String(text)) => {
                format!("is `{text:.40}`, expected an RFC 3339 timestamp such as 2026-01-31T12:00:00Z")
            }
            _ => format!("is declared as {self}, found {}", value.type_name()),
        }
    }
}

impl IndexPolicy {
    /// All of them, in the order they are documented.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Flat, Self::Graph, Self::Compact];

    /// The name in text: `auto`, `flat`, `graph`, `compact`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Flat => "flat",
            Self::Graph => "graph",
            Self::Compact => "compact",
        }
    }
}

impl CollectionName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for IndexPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CollectionName {
    type Err = Violation;

    fn from_str(s: &str) -> Result<Self, Violation> {
        check_name(s).map(|()| Self(s.to_owned()))
    }
}

impl FromStr for FieldType {
    type Err = Violation;

    fn from_str(s: &str) -> Result<Self, Violation> {
        let known = Self::ALL.into_iter().find(|field_type| field_type.name() == s);
        let reason = || format!("`{s}` is not a field type: expected keyword, integer, float, bool or datetime");
        known.ok_or_else(|| Violation::new("", reason()))
    }
}

impl FromStr for IndexPolicy {
    type Err = Violation;

    fn from_str(s: &str) -> Result<Self, Violation> {
        let known = Self::ALL.into_iter().find(|policy| policy.name() == s);
        known.ok_or_else(|| {
            Violation::new("", format!("`{s}` is not an index policy: expected auto, flat, graph or compact"))
        })
    }
}

fn bounded(field: &str, count: usize, most: usize) -> Result<(), Violation> {
    if count > most {
        return Err(Violation::new(field, format!("has {count} entries, at most {most} are allowed")));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Violation> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if first && rest && name.len() <= limits::MAX_NAME_BYTES {
        return Ok(());
    }
    let most = limits::MAX_NAME_BYTES;
    let reason = format!(
        "`{name:.160}` is not a name: expected 1 to {most} of a-z, 0-9, `-` and `_`, beginning with a letter or digit"
    );
    Err(Violation::new("name", reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: VectorSpec = VectorSpec { dim: 2, metric: Metric::Cosine, index: IndexPolicy::Auto };

    #[test]
    fn vectors_that_cannot_be_compared_are_refused_with_the_place() {
        assert_eq!(SPEC.check(&[1.0, 0.0]), Ok(()));
        let refusal = |vector: &[f32]| SPEC.check(vector).expect_err("refused").to_string();
        assert_eq!(refusal(&[1.0]), "has 1 dimensions, the collection expects 2");
        assert_eq!(refusal(&[1.0, f32::NAN]), "[1]: is NaN, expected a finite number");
        assert_eq!(refusal(&[f32::NEG_INFINITY, 1.0]), "[0]: is -inf, expected a finite number");
        assert!(refusal(&[0.0, 0.0]).contains("zero vector"));
        assert_eq!(
            refusal(&[1.0, -1e16]),
            "[1]: is -10000000000000000, at most 1000000000000000 in magnitude is allowed"
        );
        assert!(refusal(&[1e-16, 0.0]).contains("zero vector"));
        assert_eq!(VectorSpec { metric: Metric::L2, ..SPEC }.check(&[0.0, 0.0]), Ok(()));
    }

    #[test]
    fn every_component_is_looked_at_and_the_first_bad_one_is_named() {
        for dim in 1..=35 {
            let spec = VectorSpec { dim, ..SPEC };
            for at in 0..dim {
                let mut vector = vec![0.0; dim];
                vector[at] = -1.0;
                assert_eq!(spec.check(&vector), Ok(()), "only [{at}] of {dim} is not zero");
                vector[dim - 1] = f32::INFINITY;
                vector[at] = f32::NAN;
                assert_eq!(spec.check(&vector).expect_err("refused").field, format!("[{at}]"));
                vector[at] = limits::MAX_MAGNITUDE * -1.01;
                assert_eq!(spec.check(&vector).expect_err("refused").field, format!("[{at}]"));
            }
        }
    }

    #[test]
    fn payloads_keep_to_their_declared_types() {
        let mut schema = Schema::default();
        schema.fields.insert("year".parse().expect("path"), FieldType::Integer);
        schema.fields.insert("when".parse().expect("path"), FieldType::Datetime);
        let check = |name: &str, value: Value| {
            schema.check_payload(&Object::from([(name.to_owned(), value)])).map_err(|v| v.to_string())
        };
        assert_eq!(check("year", 3.into()), Ok(()));
        assert_eq!(check("year", Value::Array(vec![3.into(), Value::Null])), Ok(()));
        assert_eq!(check("other", "anything".into()), Ok(()));
        assert_eq!(check("year", "x".into()), Err("payload.year: is declared as integer, found string".into()));
        let array = check("year", Value::Array(vec![3.into(), 0.5.into()]));
        assert_eq!(array, Err("payload.year: is declared as integer, found float".into()));
        assert!(check("when", "noon".into()).expect_err("not a time").contains("RFC 3339"));
    }

    #[test]
    fn a_vector_may_go_unnamed_only_when_it_is_the_only_one() {
        let mut schema = Schema::default();
        schema.vectors.insert("title".into(), SPEC);
        assert_eq!(schema.vector("").map(|(name, _)| name), Ok("title"));
        schema.vectors.insert("body".into(), SPEC);
        assert!(schema.vector("").expect_err("ambiguous").reason.contains("body, title"));
        assert!(schema.vector("text").expect_err("unknown").reason.contains("body, title"));
        assert_eq!(schema.vector("body").map(|(name, _)| name), Ok("body"));
    }

    #[test]
    fn names_and_bounds_are_checked() {
        for bad in ["", "A", "a b", "-a", "a/b", "é", &"a".repeat(limits::MAX_NAME_BYTES + 1)] {
            assert!(bad.parse::<CollectionName>().is_err(), "{bad}");
        }
        assert!("0a-b_c".parse::<CollectionName>().is_ok());
        assert!(Schema::default().validate().expect_err("no vectors").field.contains("vectors"));
        let mut schema = Schema::default();
        schema.vectors.insert("v".into(), VectorSpec { dim: 0, ..SPEC });
        assert_eq!(schema.validate().expect_err("no dimensions").field, "vectors[\"v\"].dimension");
    }
}
