//! What all conversions share.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use sagitta_model::{CollectionName, PointId, Violation, limits};

use crate::v1;

/// A type of the model or of this crate that has a message in the API.
pub trait Convert: Sized {
    /// Its message.
    type Proto;
    /// Why a message can be refused.
    type Error;

    /// Reads the message. The path in an error is relative to the message.
    fn from_proto(proto: Self::Proto) -> Result<Self, Self::Error>;

    /// Makes the message.
    fn into_proto(self) -> Self::Proto;
}

/// The identity of a logical write over its retries: a UUID of any version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u128);

impl RequestId {
    /// Reads the field `request_id`, which may be empty.
    pub(crate) fn optional(text: &str) -> Result<Option<Self>, Violation> {
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|violation: Violation| violation.within("request_id"))
    }

    pub(crate) fn optional_text(id: Option<Self>) -> String {
        id.map(|id| id.to_string()).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        PointId::Uuid(self.0).fmt(f)
    }
}

impl FromStr for RequestId {
    type Err = Violation;

    fn from_str(text: &str) -> Result<Self, Violation> {
        parse_uuid(text).map(Self)
    }
}

const UUID_TEXT_BYTES: usize = 36;

/// Reads a UUID in its text form of 36 characters.
pub(crate) fn parse_uuid(text: &str) -> Result<u128, Violation> {
    // Only the hyphenated form: 32 decimal digits could also be meant as a number.
    let parsed = if text.len() == UUID_TEXT_BYTES { text.parse().ok() } else { None };
    match parsed {
        Some(PointId::Uuid(uuid)) => Ok(uuid),
        _ => {
            let example = "0195f7a2-6c1e-7b32-9d2a-3f6f8f5f2c11";
            Err(Violation::new("", format!("`{text:.64}` is not a UUID of 36 characters such as {example}")))
        }
    }
}

impl Convert for PointId {
    type Proto = v1::PointId;
    type Error = Violation;

    fn from_proto(proto: v1::PointId) -> Result<Self, Violation> {
        match proto.id {
            Some(v1::point_id::Id::Num(num)) => Ok(Self::Num(num)),
            Some(v1::point_id::Id::Uuid(text)) => parse_uuid(&text).map(Self::Uuid).map_err(|v| v.within("uuid")),
            None => Err(Violation::new("", "is empty: set `num` or `uuid`")),
        }
    }

    fn into_proto(self) -> v1::PointId {
        let id = match self {
            Self::Num(num) => v1::point_id::Id::Num(num),
            Self::Uuid(_) => v1::point_id::Id::Uuid(self.to_string()),
        };
        v1::PointId { id: Some(id) }
    }
}

/// Reads a list of 1 to [`limits::MAX_BATCH_POINTS`] ids.
pub(crate) fn ids_from(field: &str, protos: Vec<v1::PointId>) -> Result<Vec<PointId>, Violation> {
    count(field, protos.len(), 1, limits::MAX_BATCH_POINTS)?;
    each(field, protos, PointId::from_proto)
}

pub(crate) fn ids_into(ids: Vec<PointId>) -> Vec<v1::PointId> {
    ids.into_iter().map(Convert::into_proto).collect()
}

pub(crate) fn collection_name(text: &str) -> Result<CollectionName, Violation> {
    text.parse().map_err(|violation: Violation| Violation::new("collection", violation.reason))
}

/// A field that must be there.
pub(crate) fn required<T>(field: &str, value: Option<T>) -> Result<T, Violation> {
    value.ok_or_else(|| Violation::new(field, "is missing"))
}

/// A list that must have a number of elements.
pub(crate) fn count(field: &str, count: usize, least: usize, most: usize) -> Result<(), Violation> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    Err(Violation::new(field, format!("has {count} entries, expected {least} to {most}")))
}

/// Converts a list, with the place of an element that is refused.
pub(crate) fn each<P, T, E: Within>(
    field: &str,
    protos: Vec<P>,
    mut convert: impl FnMut(P) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    let converted = protos.into_iter().enumerate();
    converted.map(|(at, proto)| convert(proto).map_err(|error| error.within(&format!("{field}[{at}]")))).collect()
}

/// An error with a path.
pub(crate) trait Within {
    fn within(self, parent: &str) -> Self;
}

impl Within for Violation {
    fn within(self, parent: &str) -> Self {
        Self::within(self, parent)
    }
}

impl Within for crate::WireError {
    fn within(self, parent: &str) -> Self {
        Self::within(self, parent)
    }
}

/// The path of a map's entry: `vectors["title"]`.
pub(crate) fn entry(field: &str, key: &str) -> String {
    // A key of a refused message may be of any length; its beginning tells which one it is.
    const SHOWN: usize = 128;
    match key.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{field}[{:?}...]", &key[..end]),
        None => format!("{field}[{key:?}]"),
    }
}

/// The value of an enum's field, for messages about one that is not known.
pub(crate) fn unknown_enum(field: &str, value: i32) -> Violation {
    Violation::new(field, format!("is {value}, which this version does not know"))
}

/// A count of this process as a message carries it. Limits keep all of them far below 2^32.
pub(crate) fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A count of a message as this process uses it.
pub(crate) fn widen(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// A UUID as messages between nodes carry it: 16 bytes, most significant first.
pub(crate) fn uuid_bytes(uuid: u128) -> Bytes {
    Bytes::copy_from_slice(&uuid.to_be_bytes())
}

pub(crate) fn uuid(field: &str, bytes: &[u8]) -> Result<u128, Violation> {
    let bytes = bytes.try_into().map_err(|_| Violation::new(field, "is not a UUID of 16 bytes"))?;
    Ok(u128::from_be_bytes(bytes))
}

/// The id of a node.
pub(crate) fn node(field: &str, id: u64) -> Result<u64, Violation> {
    if id == 0 { Err(Violation::new(field, "is 0, which is no node")) } else { Ok(id) }
}

/// A number that has bounds.
pub(crate) fn bounded(field: &str, value: u32, most: usize) -> Result<usize, Violation> {
    match widen(value) {
        value if value == 0 || value > most => Err(Violation::new(field, format!("is {value}, expected 1 to {most}"))),
        value => Ok(value),
    }
}

/// Text that has bounds.
pub(crate) fn text(field: &str, text: String, least: usize, most: usize) -> Result<String, Violation> {
    if (least..=most).contains(&text.len()) {
        return Ok(text);
    }
    Err(Violation::new(field, format!("has {} bytes, expected {least} to {most}", text.len())))
}
