//! Which column types can be read as payload.
//!
//! The Parquet crate asserts that a schema is well-formed while it assembles records; refusing others beforehand names
//! the column.

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::schema::types::Type;

/// Checks a column and everything below it; what is wrong is described as what was found.
pub(super) fn check_type(place: &str, column: &Type) -> Result<(), String> {
    let info = column.get_basic_info();
    if !info.has_repetition() {
        return Err(format!("`{place}` without a repetition"));
    }
    if column.is_primitive() {
        return check_primitive(place, column);
    }
    let children = column.get_fields();
    match info.converted_type() {
        ConvertedType::LIST => match children {
            [repeated] if is_repeated(repeated) => {}
            _ => return Err(format!("`{place}`, a malformed list")),
        },
        ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE => match children {
            [pairs] if is_repeated(pairs) && pairs.is_group() && matches!(pairs.get_fields().len(), 1 | 2) => {}
            _ => return Err(format!("`{place}`, a malformed map")),
        },
        ConvertedType::NONE => {}
        other => return Err(format!("`{place}`, a group of type {other}")),
    }
    children.iter().try_for_each(|child| check_type(&format!("{place}.{}", child.name()), child))
}

fn is_repeated(column: &Type) -> bool {
    let info = column.get_basic_info();
    info.has_repetition() && info.repetition() == Repetition::REPEATED
}

fn check_primitive(place: &str, column: &Type) -> Result<(), String> {
    use ConvertedType as C;
    let converted = column.get_basic_info().converted_type();
    let known = match column.get_physical_type() {
        Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE | Physical::INT96 => converted == C::NONE,
        Physical::INT32 => {
            let signed = matches!(converted, C::NONE | C::INT_8 | C::INT_16 | C::INT_32);
            let unsigned = matches!(converted, C::UINT_8 | C::UINT_16 | C::UINT_32);
            signed || unsigned || matches!(converted, C::DATE | C::TIME_MILLIS | C::DECIMAL)
        }
        Physical::INT64 => {
            let times = [C::TIME_MICROS, C::TIMESTAMP_MILLIS, C::TIMESTAMP_MICROS];
            matches!(converted, C::NONE | C::INT_64 | C::UINT_64 | C::DECIMAL) || times.contains(&converted)
        }
        Physical::BYTE_ARRAY => matches!(converted, C::NONE | C::UTF8 | C::ENUM | C::JSON | C::DECIMAL),
        Physical::FIXED_LEN_BYTE_ARRAY => matches!(converted, C::NONE | C::DECIMAL),
    };
    if known {
        return Ok(());
    }
    let logical = column.get_basic_info().logical_type_ref().map(|logical: &LogicalType| format!(" ({logical:?})"));
    Err(format!("`{place}` of type {} {converted}{}", column.get_physical_type(), logical.unwrap_or_default()))
}
