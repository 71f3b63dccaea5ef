//! Parquet values as payload values.

use parquet::basic::{LogicalType, TimeUnit};
use parquet::record::Field;
use parquet::schema::types::Type;
use sagitta_model::value::{Object, Value};

use super::super::error::BadValue;

/// Converts a field of the given type; `place` is its path for a refusal.
///
/// Timestamps become RFC 3339 text in UTC, also those without a time zone; dates their midnight; UUIDs and decimals
/// text. Numbers stay exact: what neither a 64-bit integer nor a finite float holds is refused.
pub(super) fn convert(place: &str, field: Field, field_type: &Type) -> Result<Value, BadValue> {
    let logical = field_type.get_basic_info().logical_type_ref();
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(b) => Value::Bool(b),
        Field::Byte(n) => Value::Int(n.into()),
        Field::Short(n) => Value::Int(n.into()),
        Field::Int(n) => Value::Int(n.into()),
        Field::UByte(n) => Value::Int(n.into()),
        Field::UShort(n) => Value::Int(n.into()),
        Field::UInt(n) => Value::Int(n.into()),
        Field::Long(n) => match logical {
            Some(LogicalType::Timestamp(stamp)) if stamp.unit == TimeUnit::NANOS => timestamp(place, n.into())?,
            Some(LogicalType::Time(time)) if time.unit == TimeUnit::NANOS => time_of_day(place, n)?,
            _ => Value::Int(n),
        },
        Field::ULong(n) => Value::Int(i64::try_from(n).map_err(|_| {
            refusal(place, &format!("an integer up to {}", i64::MAX), n.to_string(), "write it as text")
        })?),
        Field::Float16(x) => float(place, x.into())?,
        Field::Float(x) => float(place, x.into())?,
        Field::Double(x) => float(place, x)?,
        Field::Decimal(_) => Value::String(field.to_string()),
        Field::Str(text) => Value::String(text),
        Field::Bytes(bytes) => return binary(place, bytes.data(), logical),
        Field::Date(days) => timestamp(place, i128::from(days) * 86_400 * 1_000_000_000)?,
        Field::TimestampMillis(millis) => timestamp(place, i128::from(millis) * 1_000_000)?,
        Field::TimestampMicros(micros) => timestamp(place, i128::from(micros) * 1_000)?,
        Field::TimeMillis(millis) => time_of_day(place, i64::from(millis) * 1_000_000)?,
        Field::TimeMicros(micros) => time_of_day(place, micros.saturating_mul(1_000))?,
        Field::Group(group) => {
            let mut fields = Object::new();
            for (field_type, (name, field)) in field_type.get_fields().iter().zip(group.into_columns()) {
                let value = convert(&format!("{place}.{name}"), field, field_type)?;
                fields.insert(name, value);
            }
            Value::Object(fields)
        }
        Field::ListInternal(list) => {
            let element = element_type(field_type);
            let items = list.elements().iter().enumerate();
            let items = items.map(|(at, item)| convert(&format!("{place}[{at}]"), item.clone(), element));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Field::MapInternal(map) => {
            let value_type = field_type.get_fields().first().and_then(|pair| pair.get_fields().get(1));
            let mut fields = Object::new();
            for (key, value) in map.entries() {
                let Field::Str(key) = key else {
                    let fix = "leave the column out with --ignore-column, or write the keys as text";
                    return Err(refusal(place, "a map with keys of text", key.to_string(), fix));
                };
                let value_type = value_type.map_or(field_type, |value_type| value_type);
                fields.insert(key.clone(), convert(&format!("{place}.{key}"), value.clone(), value_type)?);
            }
            Value::Object(fields)
        }
    })
}

fn refusal(place: &str, expected: &str, found: String, fix: &str) -> BadValue {
    BadValue::new(place, expected, found, fix)
}

fn float(place: &str, x: f64) -> Result<Value, BadValue> {
    if x.is_finite() {
        return Ok(Value::Float(x));
    }
    let fix = "write missing values as null";
    Err(refusal(place, "a finite number", x.to_string(), fix))
}

fn binary(place: &str, bytes: &[u8], logical: Option<&LogicalType>) -> Result<Value, BadValue> {
    if let (Some(LogicalType::Uuid), Ok(uuid)) = (logical, <[u8; 16]>::try_from(bytes)) {
        return Ok(Value::String(sagitta_model::PointId::Uuid(u128::from_be_bytes(uuid)).to_string()));
    }
    // Some writers do not mark text as text.
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Value::String(text.to_owned())),
        Err(_) => {
            let fix = "payloads hold no binary data: leave the column out with --ignore-column";
            Err(refusal(place, "text", format!("{} bytes that are not text", bytes.len()), fix))
        }
    }
}

fn timestamp(place: &str, nanos: i128) -> Result<Value, BadValue> {
    let time = jiff::Timestamp::from_nanosecond(nanos);
    let outside =
        |_| refusal(place, "a time in the years -9999 to 9999", format!("{nanos} ns since 1970"), "mend the value");
    Ok(Value::String(time.map_err(outside)?.to_string()))
}

fn time_of_day(place: &str, nanos: i64) -> Result<Value, BadValue> {
    const DAY_NANOS: i64 = 86_400 * 1_000_000_000;
    if !(0..DAY_NANOS).contains(&nanos) {
        return Err(refusal(place, "a time within a day", format!("{nanos} ns since midnight"), "mend the value"));
    }
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if rest != 0 {
        text += format!(".{rest:09}").trim_end_matches('0');
    }
    Ok(Value::String(text))
}

/// The type of a list's elements, in the layouts that writers have used: `list<element>` in two or three levels.
fn element_type(list: &Type) -> &Type {
    let Some(repeated) = (if list.is_group() { list.get_fields().first() } else { None }) else { return list };
    if repeated.is_group() && repeated.get_fields().len() == 1 && repeated.name() != "array" {
        return &repeated.get_fields()[0];
    }
    repeated
}
