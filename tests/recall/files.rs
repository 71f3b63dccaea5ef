//! The few file formats that the sets come in.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use flate2::read::GzDecoder;

/// A two-dimensional array.
pub(crate) struct Matrix<T> {
    pub(crate) values: Vec<T>,
    pub(crate) columns: usize,
}

impl<T> Matrix<T> {
    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &[T]> {
        self.values.chunks_exact(self.columns)
    }
}

/// The numbers of an .npy file in C order, whatever their type, as `T`.
pub(crate) fn npy<T>(path: &Path) -> Matrix<T>
where
    T: Number,
{
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{}", path.display());
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).expect("a header is text");
    let after = |key: &str| header.split_once(key).unwrap_or_else(|| panic!("{header}: no {key}")).1;
    let kind = after("'descr': '").split('\'').next().expect("a type");
    let shape = after("'shape': (").split(')').next().expect("a shape");
    let columns = shape.split(',').nth(1).and_then(|columns| columns.trim().parse().ok()).expect("two dimensions");
    let body = &bytes[start..];
    let values = match kind {
        "|u1" => body.iter().map(|&byte| T::from_f32(f32::from(byte))).collect(),
        "<f2" => body.as_chunks().0.iter().map(|&b| T::from_f32(half(u16::from_le_bytes(b)))).collect(),
        "<f4" => body.as_chunks().0.iter().map(|&b| T::from_f32(f32::from_le_bytes(b))).collect(),
        "<i4" => body.as_chunks().0.iter().map(|&b| T::from_i32(i32::from_le_bytes(b))).collect(),
        other => panic!("{}: numbers of type {other}", path.display()),
    };
    Matrix { values, columns }
}

/// What arrays are read into.
pub(crate) trait Number {
    fn from_f32(value: f32) -> Self;
    fn from_i32(value: i32) -> Self;
}

impl Number for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }
    fn from_i32(value: i32) -> Self {
        value as f32
    }
}

impl Number for i32 {
    fn from_f32(value: f32) -> Self {
        value as i32
    }
    fn from_i32(value: i32) -> Self {
        value
    }
}

/// IEEE 754 binary16, without infinities, which the sets do not have.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * if exponent == 0 { fraction * 2f32.powi(-24) } else { (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15) }
}

/// The objects of a compressed file of one JSON object a line.
pub(crate) fn json_lines(path: &Path) -> impl Iterator<Item = serde_json::Value> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = BufReader::new(GzDecoder::new(file)).lines();
    lines.map(|line| serde_json::from_str(&line.expect("readable")).expect("JSON"))
}
