//! Payload values.

use std::collections::BTreeMap;

use sagitta_model::{Object, Value, Violation, limits};

use crate::common::{Convert, entry};
use crate::v1;
use crate::v1::value::Kind;

impl Convert for Value {
    type Proto = v1::Value;
    type Error = Violation;

    fn from_proto(proto: v1::Value) -> Result<Self, Violation> {
        value_from(proto, limits::MAX_PAYLOAD_DEPTH)
    }

    fn into_proto(self) -> v1::Value {
        let kind = match self {
            Self::Null => Kind::NullValue(v1::NullValue::NullValue.into()),
            Self::Bool(value) => Kind::BoolValue(value),
            Self::Int(value) => Kind::IntegerValue(value),
            Self::Float(value) => Kind::FloatValue(value),
            Self::String(value) => Kind::StringValue(value),
            Self::Array(values) => {
                Kind::ArrayValue(v1::ArrayValue { values: values.into_iter().map(Convert::into_proto).collect() })
            }
            Self::Object(fields) => Kind::ObjectValue(v1::ObjectValue { entries: object_into(fields) }),
        };
        v1::Value { kind: Some(kind) }
    }
}

/// Reads a payload that is not larger than one may be. Whether it suits a collection is for
/// `Schema::check_payload` to say.
pub(crate) fn payload_from(field: &str, entries: BTreeMap<String, v1::Value>) -> Result<Object, Violation> {
    let bytes = encoded_len(&entries);
    if bytes > limits::MAX_PAYLOAD_BYTES {
        let reason = format!("has {bytes} bytes when encoded, at most {} are allowed", limits::MAX_PAYLOAD_BYTES);
        return Err(Violation::new(field, reason));
    }
    object_from(field, entries, limits::MAX_PAYLOAD_DEPTH)
}

pub(crate) fn object_into(fields: Object) -> BTreeMap<String, v1::Value> {
    fields.into_iter().map(|(name, value)| (name, value.into_proto())).collect()
}

fn encoded_len(entries: &BTreeMap<String, v1::Value>) -> usize {
    prost::encoding::btree_map::encoded_len(
        prost::encoding::string::encoded_len,
        prost::encoding::message::encoded_len,
        1,
        entries,
    )
}

/// `levels`: how many levels of arrays and objects there may be, this one included.
fn object_from(field: &str, entries: BTreeMap<String, v1::Value>, levels: usize) -> Result<Object, Violation> {
    let levels = descend(levels)?;
    let fields = entries.into_iter().map(|(name, value)| match value_from(value, levels) {
        Ok(value) => Ok((name, value)),
        Err(violation) => Err(violation.within(&entry(field, &name))),
    });
    fields.collect()
}

/// Recursion is bounded twice: by the levels counted here and, before, by the decoder's limit on nesting.
fn value_from(proto: v1::Value, levels: usize) -> Result<Value, Violation> {
    match proto.kind {
        Some(Kind::NullValue(_)) => Ok(Value::Null),
        Some(Kind::BoolValue(value)) => Ok(Value::Bool(value)),
        Some(Kind::IntegerValue(value)) => Ok(Value::Int(value)),
        Some(Kind::FloatValue(value)) if !value.is_finite() => {
            Err(Violation::new("", format!("is {value}, expected a finite number")))
        }
        Some(Kind::FloatValue(value)) => Ok(Value::Float(value)),
        Some(Kind::StringValue(value)) => Ok(Value::String(value)),
        Some(Kind::ArrayValue(array)) => {
            let levels = descend(levels)?;
            let values = array.values.into_iter().enumerate();
            let values = values
                .map(|(at, value)| value_from(value, levels).map_err(|violation| violation.within(&format!("[{at}]"))));
            values.collect::<Result<_, _>>().map(Value::Array)
        }
        Some(Kind::ObjectValue(object)) => object_from("", object.entries, levels).map(Value::Object),
        None => Err(Violation::new("", "has no value that this version knows")),
    }
}

fn descend(levels: usize) -> Result<usize, Violation> {
    levels.checked_sub(1).ok_or_else(|| {
        let reason = format!("nests deeper than {} levels of objects and lists", limits::MAX_PAYLOAD_DEPTH);
        Violation::new("", reason)
    })
}
