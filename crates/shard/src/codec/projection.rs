use std::collections::BTreeMap;

use sagitta_model::{FieldPath, Object, Value};

use super::value::{Token, read_fields, skip};
use super::{DecodeError, Encode, Reader};

/// Which part of a payload is wanted, ready to be applied to many payloads.
///
/// A path stands for what it reaches and all that is below it, going through the elements of lists as filters do. Where
/// only some paths are wanted, what none of them reaches is left out, and so is an object or list of which nothing would
/// remain. Where some are unwanted, exactly what they reach is left out.
#[derive(Clone, Debug, PartialEq)]
pub enum Projection {
    /// Nothing of it.
    Nothing,
    /// All of it.
    Everything,
    /// What the paths reach.
    Only(PathTree),
    /// What the paths do not reach.
    Without(PathTree),
}

/// Paths, sharing their beginnings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PathTree(BTreeMap<String, Branch>);

#[derive(Clone, Debug, PartialEq)]
enum Branch {
    /// A path ends here.
    End,
    Further(PathTree),
}

impl Projection {
    /// What the paths reach.
    pub fn only<'p>(paths: impl IntoIterator<Item = &'p FieldPath>) -> Self {
        Self::Only(PathTree::new(paths))
    }

    /// What the paths do not reach.
    pub fn without<'p>(paths: impl IntoIterator<Item = &'p FieldPath>) -> Self {
        Self::Without(PathTree::new(paths))
    }

    /// The wanted part of a payload in memory; [`super::PayloadRef::select`] gives the same from an encoded one.
    pub fn apply(&self, payload: &Object) -> Object {
        match self {
            Self::Nothing => Object::new(),
            Self::Everything => payload.clone(),
            Self::Only(tree) => tree.only(payload),
            Self::Without(tree) => tree.without(payload),
        }
    }
}

impl PathTree {
    fn new<'p>(paths: impl IntoIterator<Item = &'p FieldPath>) -> Self {
        let mut tree = Self::default();
        paths.into_iter().for_each(|path| tree.insert(path.as_str()));
        tree
    }

    fn insert(&mut self, path: &str) {
        let Some((name, rest)) = path.split_once('.') else {
            self.0.insert(path.to_owned(), Branch::End);
            return;
        };
        let branch = self.0.entry(name.to_owned()).or_insert_with(|| Branch::Further(Self::default()));
        if let Branch::Further(tree) = branch {
            tree.insert(rest);
        }
    }

    fn only(&self, fields: &Object) -> Object {
        let wanted = fields.iter().filter_map(|(name, value)| {
            let value = match self.0.get(name)? {
                Branch::End => Some(value.clone()),
                Branch::Further(tree) => tree.only_of_value(value),
            };
            Some((name.clone(), value?))
        });
        wanted.collect()
    }

    fn only_of_value(&self, value: &Value) -> Option<Value> {
        match value {
            Value::Object(fields) => non_empty_object(self.only(fields)),
            Value::Array(items) => {
                let objects = items.iter().filter(|item| matches!(item, Value::Object(_)));
                non_empty_array(objects.filter_map(|item| self.only_of_value(item)).collect())
            }
            _ => None,
        }
    }

    fn without(&self, fields: &Object) -> Object {
        let wanted = fields.iter().filter_map(|(name, value)| {
            let value = match self.0.get(name) {
                None => value.clone(),
                Some(Branch::End) => return None,
                Some(Branch::Further(tree)) => tree.without_in_value(value),
            };
            Some((name.clone(), value))
        });
        wanted.collect()
    }

    fn without_in_value(&self, value: &Value) -> Value {
        let within = |item: &Value| match item {
            Value::Object(fields) => Value::Object(self.without(fields)),
            other => other.clone(),
        };
        match value {
            Value::Array(items) => Value::Array(items.iter().map(within).collect()),
            other => within(other),
        }
    }

    pub(super) fn decode_only(&self, reader: &mut Reader<'_>) -> Result<Object, DecodeError> {
        let mut wanted = Object::new();
        read_fields(reader, |name, reader| {
            let value = match self.0.get(name) {
                None => return skip(reader),
                Some(Branch::End) => Some(Value::decode(reader)?),
                Some(Branch::Further(tree)) => tree.decode_only_of_value(reader)?,
            };
            wanted.extend(value.map(|value| (name.to_owned(), value)));
            Ok(())
        })?;
        Ok(wanted)
    }

    fn decode_only_of_value(&self, reader: &mut Reader<'_>) -> Result<Option<Value>, DecodeError> {
        match Token::read(reader)? {
            Token::Object => Ok(non_empty_object(reader.nested(|reader| self.decode_only(reader))?)),
            Token::Array => reader.nested(|reader| {
                let mut wanted = Vec::new();
                for _ in 0..reader.count(1)? {
                    wanted.extend(self.decode_only_of_item(reader)?);
                }
                Ok(non_empty_array(wanted))
            }),
            _ => Ok(None),
        }
    }

    /// As filters see it, a list directly within a list is a value and not a further level: paths do not go into it.
    fn decode_only_of_item(&self, reader: &mut Reader<'_>) -> Result<Option<Value>, DecodeError> {
        let mut ahead = reader.clone();
        match Token::read(&mut ahead)? {
            Token::Object => self.decode_only_of_value(reader),
            _ => skip(reader).map(|()| None),
        }
    }

    pub(super) fn decode_without(&self, reader: &mut Reader<'_>) -> Result<Object, DecodeError> {
        let mut wanted = Object::new();
        read_fields(reader, |name, reader| {
            let value = match self.0.get(name) {
                None => Value::decode(reader)?,
                Some(Branch::End) => return skip(reader),
                Some(Branch::Further(tree)) => tree.without_in_value(&Value::decode(reader)?),
            };
            wanted.insert(name.to_owned(), value);
            Ok(())
        })?;
        Ok(wanted)
    }
}

fn non_empty_object(fields: Object) -> Option<Value> {
    (!fields.is_empty()).then_some(Value::Object(fields))
}

fn non_empty_array(items: Vec<Value>) -> Option<Value> {
    (!items.is_empty()).then_some(Value::Array(items))
}
