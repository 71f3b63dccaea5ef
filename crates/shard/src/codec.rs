//! The bytes of everything that a shard stores or is told: one small binary format, written out by hand.
//!
//! A record is *sealed*: `format byte | body | XXH3-64 of both`. The format byte is that of the record's type and counts
//! up whenever an older program could not read a body, even if all that is new in it is one more kind of a thing; golden
//! bytes for every version are kept in the tests. A value that an older format can hold is still written in that format
//! ([`Record::format`]). Bodies consist of varints, lengths followed by bytes, and little-endian floats. There is exactly
//! one encoding of each value (varints are minimal, map keys ascend), so equal values have equal bytes and hashes.
//!
//! Reading never panics and never allocates more than the bytes at hand can fill, whatever they are.

mod command;
mod filter;
mod merge;
mod outcome;
mod payload;
mod point;
mod projection;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
mod value;
mod writer;

pub use self::payload::PayloadRef;
pub use self::point::{PointRecord, read_vector, read_vector_into, write_vector};
pub use self::projection::Projection;
pub use self::reader::{DecodeError, Reader};
pub use self::writer::Writer;

/// A type with a place in the format.
pub trait Encode: Sized {
    /// Appends the encoding.
    fn encode(&self, writer: &mut Writer);

    /// Reads what [`Encode::encode`] wrote.
    ///
    /// # Errors
    /// For any other bytes.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// A type that is stored on its own, sealed.
pub trait Record: Encode {
    /// What errors call it.
    const NAME: &'static str;
    /// The newest format that this version writes and reads.
    const FORMAT: u8;

    /// The format that this value is written in.
    ///
    /// For commands it is the oldest that can hold the value. A replica that runs an older program then stops at what it
    /// cannot read, where the bytes alone would look like nonsense to it that everybody refuses; and a request that is
    /// repeated after an upgrade has the bytes, and so the hash, that it had before.
    fn format(&self) -> u8 {
        Self::FORMAT
    }

    /// The sealed bytes.
    fn to_sealed(&self) -> Vec<u8> {
        let mut writer = Writer::sealed(self.format());
        self.encode(&mut writer);
        writer.seal()
    }

    /// Reads sealed bytes.
    ///
    /// # Errors
    /// If they are damaged, of a newer format, or anything but one record.
    fn from_sealed(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::unseal(bytes, Self::NAME, Self::FORMAT)?;
        let record = Self::decode(&mut reader)?;
        reader.end()?;
        Ok(record)
    }
}
