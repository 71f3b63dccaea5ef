//! Dotted paths into payloads.

use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;

use crate::value::{Object, Value};
use crate::{Violation, limits};

/// A path into a payload: field names joined by dots. Arrays on the way stand for each of their elements, so
/// `authors.name` reaches every name in a list of authors.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(String);

impl FieldPath {
    /// The dotted text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Calls `visit` with each value that the path reaches, arrays at its end flattened by one level,
    /// until `visit` breaks. A path that leads nowhere reaches nothing.
    pub fn visit<'v>(
        &self,
        payload: &'v Object,
        visit: &mut dyn FnMut(&'v Value) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (name, rest) = split(&self.0);
        match payload.get(name) {
            Some(value) => descend(value, rest, visit),
            None => ControlFlow::Continue(()),
        }
    }

    /// How many values the path reaches: as many as a list at its end has elements, nulls and lists among them, and
    /// none for a null that stands alone. (To [`FieldPath::visit`] a null by itself and a list of one null are the same.)
    pub fn count(&self, payload: &Object) -> u64 {
        let (name, rest) = split(&self.0);
        payload.get(name).map_or(0, |value| count(value, rest))
    }

    /// Removes what the path leads to, in every element of the arrays on the way.
    pub fn remove(&self, payload: &mut Object) {
        remove(payload, &self.0);
    }

    /// Whether any value that the path reaches passes `test`.
    pub fn any(&self, payload: &Object, mut test: impl FnMut(&Value) -> bool) -> bool {
        self.visit(payload, &mut |value| if test(value) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            .is_break()
    }
}

fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    }
}

fn remove(fields: &mut Object, path: &str) {
    let (name, Some(rest)) = split(path) else {
        fields.remove(path);
        return;
    };
    match fields.get_mut(name) {
        Some(Value::Object(inner)) => remove(inner, rest),
        Some(Value::Array(items)) => {
            for item in items {
                if let Value::Object(inner) = item {
                    remove(inner, rest);
                }
            }
        }
        _ => {}
    }
}

fn descend<'v>(
    value: &'v Value,
    rest: Option<&str>,
    visit: &mut dyn FnMut(&'v Value) -> ControlFlow<()>,
) -> ControlFlow<()> {
    match (value, rest) {
        (Value::Array(items), _) => items.iter().try_for_each(|item| match (item, rest) {
            // A list directly within a list is one value to a filter, not a further level of elements.
            (Value::Array(_), _) | (_, None) => visit(item),
            (item, rest) => descend(item, rest, visit),
        }),
        (value, None) => visit(value),
        (Value::Object(fields), Some(rest)) => {
            let (name, rest) = split(rest);
            match fields.get(name) {
                Some(value) => descend(value, rest, visit),
                None => ControlFlow::Continue(()),
            }
        }
        _ => ControlFlow::Continue(()),
    }
}

/// Reaches what [`descend`] does.
fn count(value: &Value, rest: Option<&str>) -> u64 {
    match (value, rest) {
        (Value::Array(items), None) => items.len() as u64,
        (Value::Array(items), rest) => items.iter().fold(0, |sum, item| match item {
            Value::Array(_) => sum + 1,
            item => sum + count(item, rest),
        }),
        (Value::Null, None) => 0,
        (_, None) => 1,
        (Value::Object(fields), Some(rest)) => {
            let (name, rest) = split(rest);
            fields.get(name).map_or(0, |value| count(value, rest))
        }
        (_, Some(_)) => 0,
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FieldPath {
    type Err = Violation;

    fn from_str(s: &str) -> Result<Self, Violation> {
        if s.len() > limits::MAX_PATH_BYTES {
            return Err(Violation::new("", format!("a field path has at most {} bytes", limits::MAX_PATH_BYTES)));
        }
        if s.split('.').any(str::is_empty) {
            return Err(Violation::new("", format!("`{s}` is not a field path: expected names joined by single dots")));
        }
        Ok(Self(s.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(fields: &[(&str, Value)]) -> Object {
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn reached(path: &str, payload: &Object) -> Vec<Value> {
        let mut found = Vec::new();
        let path: FieldPath = path.parse().expect("valid path");
        let flow = path.visit(payload, &mut |value| {
            found.push(value.clone());
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
        found
    }

    #[test]
    fn paths_reach_through_objects_and_arrays() {
        let author = |name: &str| Value::Object(object(&[("name", name.into())]));
        let payload = object(&[
            ("year", 2026.into()),
            ("tags", Value::Array(vec!["a".into(), Value::Null])),
            ("authors", Value::Array(vec![author("Ada"), author("Kurt"), 3.into()])),
            ("matrix", Value::Array(vec![Value::Array(vec![1.into()])])),
        ]);
        assert_eq!(reached("year", &payload), [Value::Int(2026)]);
        assert_eq!(reached("tags", &payload), [Value::from("a"), Value::Null]);
        assert_eq!(reached("authors.name", &payload), [Value::from("Ada"), Value::from("Kurt")]);
        assert_eq!(reached("matrix", &payload), [Value::Array(vec![1.into()])]);
        for nowhere in ["month", "year.month", "authors.name.first", "tags.x"] {
            assert_eq!(reached(nowhere, &payload), [], "{nowhere}");
        }
    }

    #[test]
    fn a_count_is_of_what_is_reached_without_nulls_that_stand_alone() {
        let tags = |tags: Vec<Value>| Value::Object(object(&[("tags", Value::Array(tags))]));
        let name = |name: Value| Value::Object(object(&[("name", name)]));
        let payload = object(&[
            ("year", 2026.into()),
            ("gone", Value::Null),
            ("none", Value::Array(vec![])),
            ("tags", Value::Array(vec!["a".into(), "a".into(), Value::Null])),
            ("nulls", Value::Array(vec![Value::Null])),
            ("matrix", Value::Array(vec![Value::Array(vec![1.into(), 2.into()]), Value::Array(vec![])])),
            ("authors", Value::Array(vec![name("Ada".into()), name(Value::Null), name("Kurt".into()), 3.into()])),
            ("parts", Value::Array(vec![tags(vec!["a".into(), Value::Null]), tags(vec![]), tags(vec!["a".into()])])),
            ("place", name("Rome".into())),
        ]);
        let cases = [
            ("year", 1),
            ("gone", 0),
            ("none", 0),
            ("tags", 3),
            ("nulls", 1),
            ("matrix", 2),
            ("matrix.x", 2),
            ("authors", 4),
            ("authors.name", 2),
            ("parts.tags", 3),
            ("place", 1),
            ("place.name", 1),
            ("month", 0),
            ("year.month", 0),
            ("gone.month", 0),
            ("place.country", 0),
        ];
        for (text, expected) in cases {
            let path: FieldPath = text.parse().expect("valid path");
            assert_eq!(path.count(&payload), expected, "{text}");
            let alone = ["gone", "authors.name"].contains(&text);
            assert_eq!(reached(text, &payload).len() as u64, expected + u64::from(alone), "{text}");
        }
    }

    #[test]
    fn removing_reaches_where_visiting_does() {
        let author =
            |fields: &[&str]| Value::Object(object(&fields.iter().map(|f| (*f, 1.into())).collect::<Vec<_>>()));
        let mut payload =
            object(&[("a", author(&["x", "y"])), ("b", Value::Array(vec![author(&["x"]), author(&["x", "y"])]))]);
        for path in ["a.x", "b.x", "c", "a.y.z"] {
            path.parse::<FieldPath>().expect("path").remove(&mut payload);
        }
        assert_eq!(payload, object(&[("a", author(&["y"])), ("b", Value::Array(vec![author(&[]), author(&["y"])]))]));
    }

    #[test]
    fn malformed_paths_are_refused() {
        for bad in ["", ".", "a.", ".a", "a..b", &"x".repeat(limits::MAX_PATH_BYTES + 1)] {
            assert!(bad.parse::<FieldPath>().is_err(), "{bad}");
        }
    }
}
