//! The bytes of a sealed file.
//!
//! ```text
//! data      len bytes
//! table     one XXH3-64 per block of data, little endian
//! footer    magic "SGTSEALD" | version u32 | block bytes u32 | len u64 | seal u128
//! ```
//!
//! The seal is the XXH3-128 of the table followed by the footer up to the seal. It covers every byte of the file: the data
//! through the table, the rest directly. All integers are little endian.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// How many bytes one checksum covers: four pages, so that checking a row read from a cold file reads little more than
/// the row itself, while the table stays a 2,000th of the data.
pub const BLOCK_BYTES: usize = 16 * 1024;

pub(super) const FOOTER_BYTES: usize = 40;
const SEAL_BYTES: usize = 16;
const SUM_BYTES: usize = 8;
const MAGIC: [u8; 8] = *b"SGTSEALD";
const VERSION: u32 = 1;

/// The identity of a sealed file: kept in a manifest, it tells whether a file is the one that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileDigest {
    /// Bytes of data (the file on disk is longer by its table and footer).
    pub bytes: u64,
    /// The file's seal, which covers every byte of it.
    pub hash: u128,
}

impl FileDigest {
    /// Length of the encoded form.
    pub const ENCODED_BYTES: usize = 24;

    /// The digest in 24 bytes, little endian: length, then hash.
    pub fn to_bytes(self) -> [u8; Self::ENCODED_BYTES] {
        let mut bytes = [0; Self::ENCODED_BYTES];
        bytes[..8].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[8..].copy_from_slice(&self.hash.to_le_bytes());
        bytes
    }

    /// The inverse of [`FileDigest::to_bytes`].
    pub fn from_bytes(bytes: &[u8; Self::ENCODED_BYTES]) -> FileDigest {
        let (mut len, mut hash) = ([0; 8], [0; 16]);
        len.copy_from_slice(&bytes[..8]);
        hash.copy_from_slice(&bytes[8..]);
        FileDigest { bytes: u64::from_le_bytes(len), hash: u128::from_le_bytes(hash) }
    }
}

pub(super) fn block_sum(block: &[u8]) -> u64 {
    xxh3_64(block)
}

/// The table and footer that belong behind `len` bytes of data with these sums.
pub(super) fn trailer(len: u64, sums: &[u64]) -> (Vec<u8>, FileDigest) {
    let mut trailer = Vec::with_capacity(sums.len() * SUM_BYTES + FOOTER_BYTES);
    for sum in sums {
        trailer.extend_from_slice(&sum.to_le_bytes());
    }
    trailer.extend_from_slice(&MAGIC);
    trailer.extend_from_slice(&VERSION.to_le_bytes());
    trailer.extend_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
    trailer.extend_from_slice(&len.to_le_bytes());
    let hash = seal(&trailer);
    trailer.extend_from_slice(&hash.to_le_bytes());
    (trailer, FileDigest { bytes: len, hash })
}

/// Checks everything but the data of a whole file; returns the length of the data and the digest.
pub(super) fn check_seal(file: &[u8]) -> Result<(usize, FileDigest), &'static str> {
    let footer_at = file.len().checked_sub(FOOTER_BYTES).ok_or("it is too short for a footer")?;
    let footer = &file[footer_at..];
    if footer[..8] != MAGIC {
        return Err("it does not end in a footer");
    }
    if u32_at(footer, 8) != VERSION || u32_at(footer, 12) as usize != BLOCK_BYTES {
        return Err("its format is of another version");
    }
    let len = u64_at(footer, 16);
    // A length that does not fit cannot be that of this file; checked before it is computed with.
    let data = usize::try_from(len).ok().filter(|&data| data <= footer_at).ok_or("its length is wrong")?;
    if data + table_bytes(data) != footer_at {
        return Err("its length is wrong");
    }
    let seal_at = file.len() - SEAL_BYTES;
    let mut written = [0; SEAL_BYTES];
    written.copy_from_slice(&file[seal_at..]);
    let hash = seal(&file[data..seal_at]);
    if hash != u128::from_le_bytes(written) {
        return Err("its checksum table does not match its footer");
    }
    Ok((data, FileDigest { bytes: len, hash }))
}

/// Whether a block of a file that passed [`check_seal`] is as it was written.
pub(super) fn block_is_intact(file: &[u8], len: usize, block: usize) -> bool {
    let start = block * BLOCK_BYTES;
    let end = (start + BLOCK_BYTES).min(len);
    block_sum(&file[start..end]) == u64_at(file, len + block * SUM_BYTES)
}

fn table_bytes(data: usize) -> usize {
    data.div_ceil(BLOCK_BYTES) * SUM_BYTES
}

fn seal(covered: &[u8]) -> u128 {
    xxh3_128(covered)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
