//! Point ids: an unsigned number or a UUID.

use std::fmt;
use std::str::FromStr;

use crate::Violation;

/// Identity of a point within its collection. Numbers sort before UUIDs; each by value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PointId {
    /// An unsigned 64-bit number.
    Num(u64),
    /// A UUID of any version, as its 128-bit big-endian value.
    Uuid(u128),
}

const TAG_NUM: u8 = 1;
const TAG_UUID: u8 = 2;

impl PointId {
    /// Length of the longest key that [`PointId::to_key`] makes, in bytes.
    pub const MAX_KEY_BYTES: usize = 17;

    /// The order-preserving byte form: comparing keys compares ids.
    pub fn to_key(self) -> PointKey {
        let mut bytes = [0; Self::MAX_KEY_BYTES];
        let len = match self {
            Self::Num(n) => {
                bytes[0] = TAG_NUM;
                bytes[1..9].copy_from_slice(&n.to_be_bytes());
                9
            }
            Self::Uuid(u) => {
                bytes[0] = TAG_UUID;
                bytes[1..17].copy_from_slice(&u.to_be_bytes());
                17
            }
        };
        PointKey { bytes, len }
    }

    /// Reads what [`PointId::to_key`] wrote; `None` for anything else.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        match key.split_first()? {
            (&TAG_NUM, rest) => Some(Self::Num(u64::from_be_bytes(rest.try_into().ok()?))),
            (&TAG_UUID, rest) => Some(Self::Uuid(u128::from_be_bytes(rest.try_into().ok()?))),
            _ => None,
        }
    }
}

/// A point id as an order-preserving key of 9 or 17 bytes, on the stack.
#[derive(Clone, Copy)]
pub struct PointKey {
    bytes: [u8; PointId::MAX_KEY_BYTES],
    len: usize,
}

impl AsRef<[u8]> for PointKey {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::ops::Deref for PointKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

impl From<u64> for PointId {
    fn from(n: u64) -> Self {
        Self::Num(n)
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Num(n) => write!(f, "{n}"),
            Self::Uuid(u) => {
                let hex = format!("{u:032x}");
                write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
            }
        }
    }
}

impl fmt::Debug for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PointId {
    type Err = Violation;

    /// Reads a decimal number, or a UUID of 32 hex digits with or without its hyphens.
    fn from_str(s: &str) -> Result<Self, Violation> {
        if let Ok(n) = s.parse::<u64>() {
            return Ok(Self::Num(n));
        }
        parse_uuid(s).map(Self::Uuid).ok_or_else(|| {
            Violation::new("", format!("`{s}` is not a point id: expected an unsigned 64-bit number or a UUID"))
        })
    }
}

fn parse_uuid(s: &str) -> Option<u128> {
    let bytes = s.as_bytes();
    let hyphenated = bytes.len() == 36;
    if !hyphenated && bytes.len() != 32 {
        return None;
    }
    let mut value = 0u128;
    for (at, &byte) in bytes.iter().enumerate() {
        if hyphenated && matches!(at, 8 | 13 | 18 | 23) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        value = value << 4 | u128::from((byte as char).to_digit(16)?);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_ids_do_and_read_back() {
        let ids = [
            PointId::Num(0),
            PointId::Num(255),
            PointId::Num(256),
            PointId::Num(u64::MAX),
            PointId::Uuid(0),
            PointId::Uuid(1 << 100),
            PointId::Uuid(u128::MAX),
        ];
        for pair in ids.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].to_key().as_ref() < pair[1].to_key().as_ref());
        }
        for id in ids {
            assert_eq!(PointId::from_key(&id.to_key()), Some(id));
            assert_eq!(id.to_string().parse::<PointId>(), Ok(id));
        }
        for bad in [&[][..], &[1, 2], &[2; 9], &[3; 9], &[1; 17]] {
            assert_eq!(PointId::from_key(bad), None);
        }
    }

    #[test]
    fn text_forms_of_a_uuid_agree_and_nonsense_is_refused() {
        let id = PointId::Uuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(id.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!("0123456789ABCDEF0123456789abcdef".parse(), Ok(id));
        for bad in [
            "",
            "-1",
            "1.5",
            "18446744073709551616",
            "01234567-89ab-cdef-0123-456789abcde",
            "g1234567-89ab-cdef-0123-456789abcdef",
            "01234567x89ab-cdef-0123-456789abcdef",
        ] {
            let error = bad.parse::<PointId>().expect_err(bad);
            assert!(error.reason.contains("UUID"), "{error}");
        }
    }
}
