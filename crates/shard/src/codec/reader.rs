use sagitta_model::PointId;
use xxhash_rust::xxh3::xxh3_64;

use super::writer::{ID_NUM, ID_UUID};
use super::{Encode, read_vector};

const FORMAT_BYTES: usize = 1;
const SUM_BYTES: usize = 8;

/// Levels of values within values: twice what a request may nest, so that what was let in always reads back, and few
/// enough for the smallest thread's stack.
const MAX_DEPTH: usize = 64;

/// Bytes are not an encoding of what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {what} cannot be read: {reason} (at byte {at})")]
pub struct DecodeError {
    /// The record that was expected.
    pub what: &'static str,
    /// What is wrong.
    pub reason: &'static str,
    /// How far reading came, in bytes of the body.
    pub at: usize,
}

/// Reads encoded values from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
    len: usize,
    depth: usize,
    format: u8,
}

impl<'a> Reader<'a> {
    /// Of a body without envelope; `what` names it in errors.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { what, rest: bytes, len: bytes.len(), depth: 0, format: 0 }
    }

    /// Checks the envelope of a sealed record and reads its body.
    ///
    /// # Errors
    /// If the checksum does not match, or the format is 0 or above `newest`.
    pub fn unseal(bytes: &'a [u8], what: &'static str, newest: u8) -> Result<Self, DecodeError> {
        let fail = |reason| DecodeError { what, reason, at: 0 };
        let (covered, sum) = bytes.split_last_chunk::<SUM_BYTES>().ok_or(fail("it is too short for its checksum"))?;
        if xxh3_64(covered) != u64::from_le_bytes(*sum) {
            return Err(fail("its checksum does not match"));
        }
        let (&[format], body) = covered.split_first_chunk::<FORMAT_BYTES>().ok_or(fail("it is empty"))?;
        if format == 0 || format > newest {
            return Err(fail("its format is newer than this version of the program"));
        }
        Ok(Self { format, ..Self::new(body, what) })
    }

    /// The format byte of the sealed record; 0 for a body without envelope.
    pub fn format(&self) -> u8 {
        self.format
    }

    /// An error at the present place.
    pub fn fail(&self, reason: &'static str) -> DecodeError {
        DecodeError { what: self.what, reason, at: self.len - self.rest.len() }
    }

    /// Checks that nothing is left.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.fail("bytes are left over")) }
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(|| self.fail("it ends early"))?;
        self.rest = rest;
        Ok(byte)
    }

    /// See [`super::Writer::u64`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut n = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(self.fail("a number has more than 64 bits"));
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                // Otherwise a number would have several encodings.
                let minimal = bits != 0 || shift == 0;
                return if minimal { Ok(n) } else { Err(self.fail("a number is longer than it need be")) };
            }
        }
        Err(self.fail("a number has more than 64 bits"))
    }

    /// See [`super::Writer::i64`].
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        let n = self.u64()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// How many items follow, each of at least `item_bytes` (at least 1): never more than there is room for, so
    /// that memory may be reserved for them.
    pub fn count(&mut self, item_bytes: usize) -> Result<usize, DecodeError> {
        let n = self.u64()?;
        let room = self.rest.len() / item_bytes;
        usize::try_from(n).ok().filter(|&n| n <= room).ok_or_else(|| self.fail("it ends before its last item"))
    }

    /// A float, bit for bit.
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        self.array().map(f64::from_le_bytes)
    }

    /// A float, bit for bit.
    pub fn f32(&mut self) -> Result<f32, DecodeError> {
        self.array().map(f32::from_le_bytes)
    }

    /// Sixteen bytes, as for a UUID.
    pub fn u128(&mut self) -> Result<u128, DecodeError> {
        self.array().map(u128::from_le_bytes)
    }

    /// `true` or `false` in a byte.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.fail("a flag is neither 0 nor 1")),
        }
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.count(1)?;
        self.raw(len)
    }

    /// The next `len` bytes.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.fail("it ends early"))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.fail("it ends early"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// Text behind its length in bytes.
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.fail("a text is not UTF-8"))
    }

    /// A point id.
    pub fn id(&mut self) -> Result<PointId, DecodeError> {
        match self.u8()? {
            ID_NUM => self.u64().map(PointId::Num),
            ID_UUID => self.u128().map(PointId::Uuid),
            _ => Err(self.fail("a point id is of an unknown type")),
        }
    }

    /// A vector of `dim` components.
    pub fn floats(&mut self, dim: usize) -> Result<Vec<f32>, DecodeError> {
        let bytes = self.raw(dim.saturating_mul(size_of::<f32>()))?;
        read_vector(bytes, dim)
    }

    /// A value or its absence.
    pub fn option<T: Encode>(&mut self) -> Result<Option<T>, DecodeError> {
        if self.bool()? { T::decode(self).map(Some) } else { Ok(None) }
    }

    /// Values behind their number.
    pub fn list<T: Encode>(&mut self) -> Result<Vec<T>, DecodeError> {
        let count = self.count(1)?;
        // An item may be far larger in memory than its shortest encoding: let the list grow beyond a modest start.
        let mut values = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            values.push(T::decode(self)?);
        }
        Ok(values)
    }

    /// Reads something one level further in.
    ///
    /// # Errors
    /// Beyond `MAX_DEPTH` levels.
    pub fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
        if self.depth == MAX_DEPTH {
            return Err(self.fail("it nests too deeply"));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }
}
