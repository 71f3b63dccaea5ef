use super::{DecodeError, Encode, PayloadRef, Reader, Writer};

/// What the `points` family holds under a point's id: its version and its payload, still encoded.
#[derive(Clone, Copy, Debug)]
pub struct PointRecord<'a> {
    /// Log index of the entry that wrote the point.
    pub version: u64,
    /// Decoded when, and as far as, it is needed.
    pub payload: PayloadRef<'a>,
}

const NAME: &str = "point record";
const FORMAT: u8 = 1;

impl<'a> PointRecord<'a> {
    /// Seals a record into `buffer`, replacing what it held.
    pub fn write<P: Encode>(version: u64, payload: &P, buffer: &mut Vec<u8>) {
        let mut writer = Writer::sealed_in(std::mem::take(buffer), FORMAT);
        writer.u64(version);
        payload.encode(&mut writer);
        *buffer = writer.seal();
    }

    /// Checks the seal and reads the version. The payload is taken as it is until it is decoded.
    ///
    /// # Errors
    /// If the bytes are not a record that this version of the program knows.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::unseal(bytes, NAME, FORMAT)?;
        let version = reader.u64()?;
        Ok(Self { version, payload: PayloadRef::new(reader.rest()) })
    }
}

/// Appends the components of a vector, four little-endian bytes each: the value of the `vectors` family.
pub fn write_vector(values: &[f32], bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.resize(start + size_of_val(values), 0);
    let (chunks, _) = bytes[start..].as_chunks_mut::<{ size_of::<f32>() }>();
    for (chunk, value) in chunks.iter_mut().zip(values) {
        *chunk = value.to_le_bytes();
    }
}

/// Reads a vector of `dim` components.
///
/// # Errors
/// If the bytes are not as many as that takes.
pub fn read_vector(bytes: &[u8], dim: usize) -> Result<Vec<f32>, DecodeError> {
    let chunks = vector_chunks(bytes, dim)?;
    Ok(chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect())
}

/// Reads a vector as long as `out` into it.
///
/// # Errors
/// If the bytes are not as many as that takes.
pub fn read_vector_into(bytes: &[u8], out: &mut [f32]) -> Result<(), DecodeError> {
    let chunks = vector_chunks(bytes, out.len())?;
    for (out, chunk) in out.iter_mut().zip(chunks) {
        *out = f32::from_le_bytes(*chunk);
    }
    Ok(())
}

fn vector_chunks(bytes: &[u8], dim: usize) -> Result<&[[u8; 4]], DecodeError> {
    let (chunks, rest) = bytes.as_chunks();
    if chunks.len() != dim || !rest.is_empty() {
        let reason = "it has another number of dimensions than the collection";
        return Err(DecodeError { what: "vector", reason, at: bytes.len() });
    }
    Ok(chunks)
}
