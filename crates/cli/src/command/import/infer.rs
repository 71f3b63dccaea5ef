//! Which payload fields of a file are worth declaring, and as what.

use std::collections::{BTreeMap, HashSet};

use sagitta_model::{FieldPath, FieldType, Object, Value, datetime, limits};

/// What was found in the sampled rows.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Inferred {
    /// Fields to declare.
    pub(super) fields: BTreeMap<FieldPath, FieldType>,
    /// Fields to leave undeclared, and why.
    pub(super) left_out: BTreeMap<String, &'static str>,
}

/// Text longer than this on average is prose, not a keyword.
const LONGEST_KEYWORD: usize = 64;

/// From this many texts on, all different, a field is an identifier or prose and not worth an index per segment.
const MANY_TEXTS: usize = 100;

/// Looks at sample payloads. A field is declared if all of its values are of one type that filters know.
pub(super) fn infer<'p>(payloads: impl IntoIterator<Item = &'p Object>) -> Inferred {
    let mut seen = BTreeMap::<String, Seen>::new();
    for payload in payloads {
        payload.iter().for_each(|(name, value)| look(name.clone(), value, &mut seen));
    }
    let mut inferred = Inferred::default();
    for (name, seen) in seen {
        match (seen.field_type(), name.parse::<FieldPath>()) {
            (Err(reason), _) => inferred.left_out.insert(name, reason),
            (Ok(_), Err(_)) => inferred.left_out.insert(name, "the name is not a path"),
            (Ok(_), Ok(_)) if inferred.fields.len() == limits::MAX_FIELDS => {
                inferred.left_out.insert(name, "there are too many fields")
            }
            (Ok(None), _) => None,
            (Ok(Some(field_type)), Ok(path)) => {
                inferred.fields.insert(path, field_type);
                None
            }
        };
    }
    inferred
}

/// What was seen of one field.
#[derive(Default)]
struct Seen {
    bools: usize,
    integers: usize,
    floats: usize,
    texts: usize,
    times: usize,
    others: usize,
    objects: usize,
    bytes: usize,
    longest: usize,
    distinct: HashSet<String>,
}

fn look(path: String, value: &Value, seen: &mut BTreeMap<String, Seen>) {
    match value {
        Value::Object(fields) => {
            seen.entry(path.clone()).or_default().objects += 1;
            fields.iter().for_each(|(name, value)| look(format!("{path}.{name}"), value, seen));
        }
        Value::Array(items) => items.iter().for_each(|item| match item {
            Value::Array(_) => seen.entry(path.clone()).or_default().others += 1,
            item => look(path.clone(), item, seen),
        }),
        scalar => seen.entry(path).or_default().note(scalar),
    }
}

impl Seen {
    fn note(&mut self, value: &Value) {
        match value {
            Value::Bool(_) => self.bools += 1,
            Value::Int(_) => self.integers += 1,
            Value::Float(_) => self.floats += 1,
            Value::String(text) => {
                self.texts += 1;
                self.times += usize::from(datetime::parse_micros(text).is_some());
                self.bytes += text.len();
                self.longest = self.longest.max(text.len());
                self.distinct.insert(text.clone());
            }
            Value::Null => {}
            Value::Array(_) | Value::Object(_) => self.others += 1,
        }
    }

    /// The type to declare; none if only nulls were seen.
    fn field_type(&self) -> Result<Option<FieldType>, &'static str> {
        let kinds = [self.bools, self.integers + self.floats, self.texts, self.others];
        match kinds.map(|count| count > 0) {
            [false, false, false, false] => Ok(None),
            // What is below the objects may be declared all the same.
            _ if self.objects > 0 => Err("values of several types"),
            [true, false, false, false] => Ok(Some(FieldType::Bool)),
            [false, true, false, false] if self.floats > 0 => Ok(Some(FieldType::Float)),
            [false, true, false, false] => Ok(Some(FieldType::Integer)),
            [false, false, true, false] if self.times == self.texts => Ok(Some(FieldType::Datetime)),
            [false, false, true, false] if self.bytes > LONGEST_KEYWORD * self.texts => Err("long text"),
            [false, false, true, false] if self.longest > limits::MAX_KEYWORD_BYTES => Err("long text"),
            [false, false, true, false] if self.texts >= MANY_TEXTS && self.distinct.len() == self.texts => {
                Err("every value is different")
            }
            [false, false, true, false] => Ok(Some(FieldType::Keyword)),
            [.., true] => Err("lists within lists"),
            _ => Err("values of several types"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(n: i64) -> Object {
        let inner =
            Object::from([("born".to_owned(), Value::from("1815-12-10T00:00:00Z")), ("n".to_owned(), Value::Null)]);
        Object::from([
            ("source".to_owned(), ["a", "b"][n as usize % 2].into()),
            ("words".to_owned(), n.into()),
            ("score".to_owned(), if n % 2 == 0 { Value::Float(0.5) } else { Value::Int(1) }),
            ("draft".to_owned(), (n % 3 == 0).into()),
            ("text".to_owned(), Value::from("long ".repeat(20).as_str())),
            ("key".to_owned(), Value::from(format!("doc-{n}").as_str())),
            ("mixed".to_owned(), if n == 50 { "x".into() } else { 1.into() }),
            ("tags".to_owned(), Value::Array(vec!["x".into(), Value::Null, "y".into()])),
            ("matrix".to_owned(), Value::Array(vec![Value::Array(vec![1.into()])])),
            ("author".to_owned(), Value::Object(inner)),
            ("note".to_owned(), Value::Array(vec![1.into(), Value::Object([("by".to_owned(), "x".into())].into())])),
            ("".to_owned(), 1.into()),
        ])
    }

    #[test]
    fn fields_get_the_type_that_all_their_values_have() {
        let payloads: Vec<_> = (0..200).map(payload).collect();
        let inferred = infer(&payloads);
        let fields: Vec<_> = inferred.fields.iter().map(|(path, t)| format!("{path} {t}")).collect();
        let expected = "author.born datetime, draft bool, note.by keyword, score float, source keyword, tags keyword, words integer";
        assert_eq!(fields.join(", "), expected);
        let left_out: Vec<_> = inferred.left_out.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        let expected = [
            ": the name is not a path",
            "key: every value is different",
            "matrix: lists within lists",
            "mixed: values of several types",
            "note: values of several types",
            "text: long text",
        ];
        assert_eq!(left_out, expected);
    }

    #[test]
    fn no_more_fields_are_declared_than_a_collection_may_have() {
        let payload: Object = (0..100).map(|n| (format!("f{n}"), Value::Int(n))).collect();
        let inferred = infer([&payload]);
        assert_eq!((inferred.fields.len(), inferred.left_out.len()), (limits::MAX_FIELDS, 100 - limits::MAX_FIELDS));
    }
}
