use sagitta_model::PointId;
use xxhash_rust::xxh3::xxh3_64;

use super::Encode;

pub(super) const ID_NUM: u8 = 0;
pub(super) const ID_UUID: u8 = 1;

/// Appends encoded values to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Of a body without envelope.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of a sealed record of the given format; end it by [`Writer::seal`].
    pub fn sealed(format: u8) -> Self {
        Self::sealed_in(Vec::new(), format)
    }

    /// As [`Writer::sealed`], using a buffer again: what it held is dropped.
    pub fn sealed_in(mut buffer: Vec<u8>, format: u8) -> Self {
        buffer.clear();
        buffer.push(format);
        Self { bytes: buffer }
    }

    /// Ends a sealed record by its checksum.
    pub fn seal(mut self) -> Vec<u8> {
        let sum = xxh3_64(&self.bytes);
        self.bytes.extend_from_slice(&sum.to_le_bytes());
        self.bytes
    }

    /// The bytes of a body without envelope.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Makes room, so that a long record is not moved again and again.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// One byte.
    pub fn u8(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// An unsigned number: seven bits a byte, low ones first, one to ten bytes.
    pub fn u64(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.bytes.push(n as u8);
    }

    /// A length or count.
    pub fn count(&mut self, n: usize) {
        self.u64(n as u64);
    }

    /// A signed number, small magnitudes being short (zigzag).
    pub fn i64(&mut self, n: i64) {
        self.u64((n << 1 ^ n >> 63) as u64);
    }

    /// A float, bit for bit.
    pub fn f64(&mut self, x: f64) {
        self.bytes.extend_from_slice(&x.to_le_bytes());
    }

    /// A float, bit for bit.
    pub fn f32(&mut self, x: f32) {
        self.bytes.extend_from_slice(&x.to_le_bytes());
    }

    /// Sixteen bytes, as for a UUID.
    pub fn u128(&mut self, n: u128) {
        self.bytes.extend_from_slice(&n.to_le_bytes());
    }

    /// `true` or `false` in a byte.
    pub fn bool(&mut self, b: bool) {
        self.u8(u8::from(b));
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// Bytes whose length the reader knows.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Text behind its length in bytes.
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A point id.
    pub fn id(&mut self, id: PointId) {
        match id {
            PointId::Num(n) => {
                self.u8(ID_NUM);
                self.u64(n);
            }
            PointId::Uuid(u) => {
                self.u8(ID_UUID);
                self.u128(u);
            }
        }
    }

    /// Components of a vector, without their number.
    pub fn floats(&mut self, values: &[f32]) {
        super::write_vector(values, &mut self.bytes);
    }

    /// A value or its absence.
    pub fn option<T: Encode>(&mut self, value: Option<&T>) {
        self.bool(value.is_some());
        if let Some(value) = value {
            value.encode(self);
        }
    }

    /// Values behind their number.
    pub fn list<T: Encode>(&mut self, values: &[T]) {
        self.count(values.len());
        values.iter().for_each(|value| value.encode(self));
    }
}
