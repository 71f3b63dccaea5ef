//! JSON to and from payload values and rows, with the place of whatever is wrong.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use sagitta_model::value::{Object, Value};
use sagitta_model::{NamedVectors, PointId};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::error::{BadValue, quoted};
use super::{Content, ReadOptions, Row};

/// A payload value that serialises as the JSON it stands for.
#[derive(Clone, Copy, Debug)]
pub struct Json<'v>(pub &'v Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Int(n) => serializer.serialize_i64(*n),
            Value::Float(x) => serializer.serialize_f64(*x),
            Value::String(text) => serializer.serialize_str(text),
            Value::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| seq.serialize_element(&Json(item)))?;
                seq.end()
            }
            Value::Object(fields) => JsonObject(fields).serialize(serializer),
        }
    }
}

/// A payload that serialises as the JSON object it stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonObject<'v>(pub(crate) &'v Object);

impl Serialize for JsonObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, value)| map.serialize_entry(name, &Json(value)))?;
        map.end()
    }
}

/// A point id as JSON: a number, or a UUID as text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonId(pub(crate) PointId);

impl Serialize for JsonId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            PointId::Num(n) => serializer.serialize_u64(n),
            uuid => serializer.collect_str(&uuid),
        }
    }
}

/// Parses one JSON value. The error says where it is wrong.
pub fn parse_value(text: &str) -> Result<Value, String> {
    let slot = Slot::default();
    let root = Place { parent: None, step: Step::Key("") };
    parse(text.as_bytes(), &slot, ValueSeed { place: &root, slot: &slot })
        .map_err(|bad| format!("{}expected {}, found {}", after_colon(&bad.column), bad.expected, bad.found))
}

/// Parses the JSON object in a row of a Parquet file's payload column.
pub(crate) fn parse_object(text: &[u8], column: &str) -> Result<Object, BadValue> {
    let slot = Slot::default();
    let root = Place { parent: None, step: Step::Key(column) };
    parse(text, &slot, ObjectSeed { place: &root, slot: &slot })
}

/// Parses one line of JSON as a row; `options` say which keys are id and vectors.
pub(crate) fn parse_row(line: &[u8], options: &ReadOptions) -> Result<Row, BadValue> {
    let slot = Slot::default();
    parse(line, &slot, RowSeed { options, slot: &slot })
}

fn after_colon(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!("{place}: ") }
}

fn parse<'de, S: DeserializeSeed<'de>>(text: &'de [u8], slot: &Slot, seed: S) -> Result<S::Value, BadValue> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let parsed = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    parsed.map_err(|error| match slot.take() {
        Some(Trouble::Bad(bad)) => bad,
        Some(Trouble::At(place)) => refusal(&place, text, &error),
        None => refusal("", text, &error),
    })
}

/// Puts an error of the JSON parser into our words.
fn refusal(place: &str, text: &[u8], error: &serde_json::Error) -> BadValue {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let place = if place.is_empty() { "line" } else { place };
    let character = error.column();
    if error.is_eof() {
        let found = format!("the end of the line after character {character}");
        return BadValue::new(
            place,
            "whole JSON",
            found,
            "the line is cut off, or an object spans several lines: write one object per line",
        );
    }
    if error.is_data()
        && let Some((found, expected)) = message.split_once(", expected ")
    {
        let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
        let (found, fix) = match (found, place) {
            ("sequence", "line") => ("a list", "write one object per line, as `jq -c '.[]'` does"),
            ("sequence", _) => ("a list", "mend the row or leave it out"),
            ("map", _) => ("an object", "mend the row or leave it out"),
            _ => (found, "mend the row or leave it out"),
        };
        return BadValue::new(place, expected, found, fix);
    }
    let rest = text.get(character.saturating_sub(1)..).unwrap_or_default();
    let rest = String::from_utf8_lossy(rest[..rest.len().min(80)].trim_ascii_end());
    let fix = match rest.trim_start_matches('-').chars().next() {
        Some('N' | 'I') => "JSON has no NaN or Infinity: mend the value or leave the row out",
        _ => "mend the line so that it is one JSON object",
    };
    BadValue::new(place, "valid JSON", format!("{} at character {character} ({message})", quoted(&rest)), fix)
}

/// What a visitor knew about an error that the JSON parser's own error type cannot carry.
#[derive(Default)]
struct Slot(RefCell<Option<Trouble>>);

enum Trouble {
    /// The parser failed here.
    At(String),
    /// This was refused.
    Bad(BadValue),
}

impl Slot {
    /// Notes where the parser failed, unless someone further in knew better.
    fn locate<T, E>(&self, place: &Place<'_>, result: Result<T, E>) -> Result<T, E> {
        if result.is_err() && self.0.borrow().is_none() {
            *self.0.borrow_mut() = Some(Trouble::At(place.to_string()));
        }
        result
    }

    fn refuse<T, E: de::Error>(&self, bad: BadValue) -> Result<T, E> {
        *self.0.borrow_mut() = Some(Trouble::Bad(bad));
        Err(E::custom("refused"))
    }

    fn take(&self) -> Option<Trouble> {
        self.0.borrow_mut().take()
    }
}

/// A path into the value being parsed, built on the stack and written out only for an error.
#[derive(Clone, Copy)]
struct Place<'p> {
    parent: Option<&'p Place<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

impl<'p> Place<'p> {
    fn key(&'p self, key: &'p str) -> Place<'p> {
        Place { parent: Some(self), step: Step::Key(key) }
    }

    fn index(&'p self, index: usize) -> Place<'p> {
        Place { parent: Some(self), step: Step::Index(index) }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => {
                let root = self.parent.is_none_or(|parent| matches!(parent.step, Step::Key("")));
                if root { f.write_str(key) } else { write!(f, ".{key}") }
            }
        }
    }
}

fn twice(place: &Place<'_>) -> BadValue {
    BadValue::new(place.to_string(), "each key once", "it twice", "leave one of the two out")
}

/// Reads any JSON value as a payload value.
struct ValueSeed<'a> {
    place: &'a Place<'a>,
    slot: &'a Slot,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::Int(n))
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Value, E> {
        match i64::try_from(n) {
            Ok(n) => Ok(Value::Int(n)),
            Err(_) => {
                let fix = "payload integers have 64 bits with sign: write it as text";
                let expected = format!("an integer up to {}", i64::MAX);
                self.slot.refuse(BadValue::new(self.place.to_string(), expected, n.to_string(), fix))
            }
        }
    }

    fn visit_f64<E>(self, x: f64) -> Result<Value, E> {
        Ok(Value::Float(x))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let place = self.place.index(items.len());
            let item = seq.next_element_seed(ValueSeed { place: &place, slot: self.slot });
            match self.slot.locate(&place, item)? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        ObjectSeed { place: self.place, slot: self.slot }.visit_map(map).map(Value::Object)
    }
}

/// Reads a JSON object as a payload.
struct ObjectSeed<'a> {
    place: &'a Place<'a>,
    slot: &'a Slot,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_> {
    type Value = Object;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Object, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_> {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut fields = Object::new();
        while let Some(key) = self.slot.locate(self.place, map.next_key::<String>())? {
            let place = self.place.key(&key);
            let value = map.next_value_seed(ValueSeed { place: &place, slot: self.slot });
            let value = self.slot.locate(&place, value)?;
            if fields.contains_key(&key) {
                return self.slot.refuse(twice(&place));
            }
            fields.insert(key, value);
        }
        Ok(fields)
    }
}

/// Reads a number or a text as a point id.
struct IdSeed<'a> {
    place: &'a Place<'a>,
    slot: &'a Slot,
}

impl IdSeed<'_> {
    fn refuse<E: de::Error>(&self, found: String) -> Result<PointId, E> {
        self.slot.refuse(bad_id(&self.place.to_string(), found))
    }
}

impl<'de> DeserializeSeed<'de> for IdSeed<'_> {
    type Value = PointId;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<PointId, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for IdSeed<'_> {
    type Value = PointId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an unsigned 64-bit number or a UUID")
    }

    fn visit_u64<E>(self, n: u64) -> Result<PointId, E> {
        Ok(PointId::Num(n))
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<PointId, E> {
        self.refuse(n.to_string())
    }

    fn visit_f64<E: de::Error>(self, x: f64) -> Result<PointId, E> {
        self.refuse(x.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PointId, E> {
        text.parse().or_else(|_| self.refuse(quoted(text)))
    }
}

/// Reads an array of numbers as a vector.
struct VectorSeed<'a> {
    place: &'a Place<'a>,
    slot: &'a Slot,
}

impl<'de> DeserializeSeed<'de> for VectorSeed<'_> {
    type Value = Vec<f32>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<f32>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for VectorSeed<'_> {
    type Value = Vec<f32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<f32>, A::Error> {
        let mut vector = Vec::new();
        loop {
            let place = self.place.index(vector.len());
            match self.slot.locate(&place, seq.next_element::<Component>())? {
                Some(Component(x)) if x.is_finite() => vector.push(x),
                Some(Component(x)) => {
                    let fix = "mend the vector or leave the row out";
                    return self.slot.refuse(BadValue::new(place.to_string(), "a finite float32", x.to_string(), fix));
                }
                None => return Ok(vector),
            }
        }
    }
}

struct Component(f32);

impl<'de> de::Deserialize<'de> for Component {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Component;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E>(self, x: f64) -> Result<Component, E> {
                Ok(Component(x as f32))
            }

            fn visit_i64<E>(self, n: i64) -> Result<Component, E> {
                Ok(Component(n as f32))
            }

            fn visit_u64<E>(self, n: u64) -> Result<Component, E> {
                Ok(Component(n as f32))
            }
        }
        // As f32, the text is rounded once; through f64 it would be rounded twice.
        deserializer.deserialize_f32(Number)
    }
}

/// Reads an object of vectors by name.
struct VectorsSeed<'a> {
    place: &'a Place<'a>,
    slot: &'a Slot,
}

impl<'de> DeserializeSeed<'de> for VectorsSeed<'_> {
    type Value = NamedVectors;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<NamedVectors, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for VectorsSeed<'_> {
    type Value = NamedVectors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of vectors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NamedVectors, A::Error> {
        let mut vectors = BTreeMap::new();
        while let Some(name) = self.slot.locate(self.place, map.next_key::<String>())? {
            let place = self.place.key(&name);
            let vector = map.next_value_seed(VectorSeed { place: &place, slot: self.slot });
            let vector = self.slot.locate(&place, vector)?;
            if vectors.contains_key(&name) {
                return self.slot.refuse(twice(&place));
            }
            vectors.insert(name, vector);
        }
        Ok(vectors)
    }
}

struct RowSeed<'a> {
    options: &'a ReadOptions,
    slot: &'a Slot,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Row;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Row, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut row = Row::default();
        let root = Place { parent: None, step: Step::Key("") };
        while let Some(key) = self.slot.locate(&root, map.next_key::<String>())? {
            let place = root.key(&key);
            let fresh = match self.role(&key) {
                Role::Ignored => {
                    self.slot.locate(&place, map.next_value::<de::IgnoredAny>())?;
                    true
                }
                Role::Id => {
                    let id = map.next_value_seed(IdSeed { place: &place, slot: self.slot });
                    row.id.replace(self.slot.locate(&place, id)?).is_none()
                }
                Role::Vector(name) => {
                    let vector = map.next_value_seed(VectorSeed { place: &place, slot: self.slot });
                    row.vectors.insert(name.to_owned(), self.slot.locate(&place, vector)?).is_none()
                }
                Role::Vectors => {
                    let vectors = map.next_value_seed(VectorsSeed { place: &place, slot: self.slot });
                    let vectors = self.slot.locate(&place, vectors)?;
                    extend_fresh(&mut row.vectors, vectors)
                }
                Role::Payload => {
                    let fields = map.next_value_seed(ObjectSeed { place: &place, slot: self.slot });
                    let fields = self.slot.locate(&place, fields)?;
                    extend_fresh(&mut row.payload, fields)
                }
                Role::Field => {
                    let value = map.next_value_seed(ValueSeed { place: &place, slot: self.slot });
                    let value = self.slot.locate(&place, value)?;
                    row.payload.insert(key.clone(), value).is_none()
                }
                Role::Misplaced => {
                    let fix = "import that file by itself, without --payload";
                    let found = "vectors in the payload file";
                    return self.slot.refuse(BadValue::new(place.to_string(), "fields of the payload", found, fix));
                }
            };
            if !fresh {
                return self.slot.refuse(twice(&place));
            }
        }
        Ok(row)
    }
}

/// What a key of a row's object is.
enum Role<'a> {
    Id,
    Vector(&'a str),
    Vectors,
    Payload,
    Field,
    Ignored,
    Misplaced,
}

impl<'a> RowSeed<'a> {
    fn role(&self, key: &str) -> Role<'a> {
        let named = &self.options.vector_columns;
        if self.options.ignored_columns.iter().any(|ignored| ignored == key) {
            return Role::Ignored;
        }
        if self.options.id_column.as_deref() == Some(key) {
            return Role::Id;
        }
        if let Some((name, _)) = named.iter().find(|(_, column)| column == key) {
            return Role::Vector(name);
        }
        match (key, self.options.content) {
            ("payload", _) => Role::Payload,
            ("vector", Content::Points) if named.is_empty() => Role::Vector(&self.options.vector_name),
            ("vectors", Content::Points) if named.is_empty() => Role::Vectors,
            ("vector" | "vectors", Content::Payloads) => Role::Misplaced,
            _ => Role::Field,
        }
    }
}

/// An id that is neither a number nor a UUID.
pub(crate) fn bad_id(column: &str, found: String) -> BadValue {
    let fix = "name the column with the ids by --id-column, or number the rows with --row-ids (the column then becomes payload)";
    BadValue::new(column, "an unsigned 64-bit number or a UUID", found, fix)
}

/// Adds entries to a map; false if one was there already.
fn extend_fresh<T>(map: &mut BTreeMap<String, T>, more: BTreeMap<String, T>) -> bool {
    let expected = map.len() + more.len();
    map.extend(more);
    map.len() == expected
}

#[cfg(test)]
mod tests;
