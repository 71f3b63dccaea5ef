use std::ops::ControlFlow;

use sagitta_model::{FieldPath, FieldType, Object, Value, datetime};

/// A value of a declared field in the form in which it is indexed and grouped by: equal values have equal keys, however
/// they are spelled. Numbers that are whole are integers whatever their type, so that 3 and 3.0, or 0.0 and -0.0, are one;
/// moments are microseconds since 1970; `false` and `true` are 0 and 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An integer, a whole float, a bool or a moment.
    Int(i64),
    /// A float that is no 64-bit integer.
    Float(SortedFloat),
    /// A keyword.
    Text(Box<str>),
}

/// A float as an integer of the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SortedFloat(u64);

/// A [`Key`] that borrows its text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum KeyRef<'a> {
    Int(i64),
    Float(SortedFloat),
    Text(&'a str),
}

impl Key {
    /// The key as a value of a field of the type, in its usual spelling.
    pub fn to_value(&self, field_type: FieldType) -> Value {
        match self {
            Self::Int(n) => match field_type {
                FieldType::Bool => Value::Bool(*n != 0),
                FieldType::Datetime => datetime::format_micros(*n).map_or(Value::Null, Value::String),
                FieldType::Keyword | FieldType::Integer | FieldType::Float => Value::Int(*n),
            },
            Self::Float(x) => Value::Float(x.get()),
            Self::Text(text) => Value::String(text.to_string()),
        }
    }

    /// The keys of a field in a payload: each once, ascending.
    pub fn of_payload(path: &FieldPath, field_type: FieldType, payload: &Object) -> Vec<Self> {
        let mut keys = Vec::new();
        let _ = path.visit(payload, &mut |value| {
            keys.extend(KeyRef::of(field_type, value).map(KeyRef::to_key));
            ControlFlow::Continue(())
        });
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

impl<'a> KeyRef<'a> {
    /// The key of one value that the field's path reaches; none if it is null or not of the field's type.
    pub(super) fn of(field_type: FieldType, value: &'a Value) -> Option<Self> {
        match (field_type, value) {
            (FieldType::Keyword, Value::String(text)) => Some(Self::Text(text)),
            (FieldType::Integer | FieldType::Float, Value::Int(n)) => Some(Self::Int(*n)),
            (FieldType::Integer | FieldType::Float, Value::Float(x)) => Self::of_float(*x),
            (FieldType::Bool, Value::Bool(b)) => Some(Self::Int(i64::from(*b))),
            (FieldType::Datetime, Value::String(text)) => datetime::parse_micros(text).map(Self::Int),
            _ => None,
        }
    }

    fn of_float(x: f64) -> Option<Self> {
        const TWO_63: f64 = 9_223_372_036_854_775_808.0;
        if x.is_nan() {
            // Equal to nothing and in no interval.
            return None;
        }
        if x.trunc() == x && (-TWO_63..TWO_63).contains(&x) {
            return Some(Self::Int(x as i64));
        }
        Some(Self::Float(SortedFloat::new(x)))
    }

    pub(super) fn to_key(self) -> Key {
        match self {
            Self::Int(n) => Key::Int(n),
            Self::Float(x) => Key::Float(x),
            Self::Text(text) => Key::Text(text.into()),
        }
    }
}

impl SortedFloat {
    const SIGN: u64 = 1 << 63;

    /// The float's place in the order of floats.
    pub fn new(x: f64) -> Self {
        let bits = x.to_bits();
        Self(if bits & Self::SIGN == 0 { bits | Self::SIGN } else { !bits })
    }

    /// As it is stored.
    pub(super) fn to_bits(self) -> u64 {
        self.0
    }

    /// The inverse of [`SortedFloat::to_bits`].
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The float.
    pub fn get(self) -> f64 {
        f64::from_bits(if self.0 & Self::SIGN == 0 { !self.0 } else { self.0 & !Self::SIGN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_filters_hold_equal_have_one_key() {
        let key = |field_type, value: Value| KeyRef::of(field_type, &value).map(KeyRef::to_key);
        let float = |x: f64| key(FieldType::Float, Value::Float(x));
        assert_eq!(float(3.0), Some(Key::Int(3)));
        assert_eq!(float(-0.0), Some(Key::Int(0)));
        assert_eq!(float(i64::MIN as f64), Some(Key::Int(i64::MIN)));
        assert_eq!(float(9_223_372_036_854_775_808.0), Some(Key::Float(SortedFloat::new(9_223_372_036_854_775_808.0))));
        assert_eq!(float(f64::NAN), None);
        let big = (1 << 53) + 1;
        assert_eq!(key(FieldType::Float, Value::Int(big)), Some(Key::Int(big)));
        let noon = key(FieldType::Datetime, "2026-01-01T12:00:00Z".into());
        assert_eq!(key(FieldType::Datetime, "2026-01-01T13:00:00.0+01:00".into()), noon);
        assert_eq!(noon.expect("a moment").to_value(FieldType::Datetime), "2026-01-01T12:00:00Z".into());
        assert_eq!(key(FieldType::Keyword, 3.into()), None);
        assert_eq!(key(FieldType::Bool, true.into()).expect("bool").to_value(FieldType::Bool), Value::Bool(true));
    }

    #[test]
    fn floats_sort_as_their_keys() {
        let ordered =
            [f64::NEG_INFINITY, -1e300, -1.5, -f64::MIN_POSITIVE, f64::MIN_POSITIVE, 0.5, 1e19, f64::INFINITY];
        for pair in ordered.windows(2) {
            assert!(SortedFloat::new(pair[0]) < SortedFloat::new(pair[1]), "{pair:?}");
        }
        for x in ordered {
            assert_eq!(SortedFloat::new(x).get().to_bits(), x.to_bits());
        }
    }
}
