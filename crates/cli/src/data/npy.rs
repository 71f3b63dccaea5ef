//! The header of numpy's array files.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>, versions 1.0 to 3.0. The header is
//! a Python dictionary literal of three keys; only the literals that numpy writes there are understood.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Element;
use super::error::{DataError, quoted};
use super::matrix::{Layout, check_dimension};

pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

/// Longest header read, in bytes; numpy itself refuses longer ones than 10,000 unless told otherwise.
const MAX_HEADER_BYTES: usize = 1 << 16;

/// Where the length field ends in versions 2 and 3; in version 1 it is two bytes shorter.
const LONG_PREAMBLE_BYTES: u64 = 12;

/// Reads and checks the header of a numeric array with one axis (ids) or two.
pub(crate) fn layout(path: &Path, file: &mut File, size: u64) -> Result<Layout, DataError> {
    let (offset, text) = header_text(path, file)?;
    let header = Header::parse(&text).ok_or_else(|| {
        let expected = "a dictionary of `descr`, `fortran_order` and `shape`";
        DataError::file(path, "header", expected, quoted(&text), "save the array again with numpy.save")
    })?;
    let (element, big_endian) = header.element(path)?;
    if header.fortran_order {
        let fix = "save it by rows: numpy.save(path, numpy.ascontiguousarray(array))";
        return Err(DataError::file(path, "fortran_order", "False (row by row)", "True (column by column)", fix));
    }
    let (rows, columns, flat) = match *header.shape {
        [rows] => (rows, 1, true),
        [rows, columns] => (rows, check_dimension(path, columns as i64, "check the array's shape")?, false),
        _ => {
            let fix = "reshape the array to (rows, dimensions) before saving it";
            return Err(DataError::file(path, "shape", "one or two axes", format!("{:?}", header.shape), fix));
        }
    };
    let layout = Layout { offset, prefixed: false, element, big_endian, rows, columns, flat };
    layout.check_size(path, size)?;
    Ok(layout)
}

/// Bytes that a written header takes, whatever the number of rows; a multiple of 64 as the format wants it.
pub(crate) const WRITTEN_HEADER_BYTES: usize = 128;

/// The header of a little-endian array with the given type and shape, padded to [`WRITTEN_HEADER_BYTES`].
pub(crate) fn write_header(descr: &str, shape: &str) -> Vec<u8> {
    let preamble = MAGIC.len() + 4;
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let mut bytes = Vec::from(MAGIC);
    bytes.extend([1, 0]);
    bytes.extend(((WRITTEN_HEADER_BYTES - preamble) as u16).to_le_bytes());
    bytes.extend(dictionary.as_bytes());
    assert!(bytes.len() < WRITTEN_HEADER_BYTES, "a header of two numbers and a type fits");
    bytes.resize(WRITTEN_HEADER_BYTES - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// Reads the header's text and how many bytes lie before the data.
fn header_text(path: &Path, file: &mut File) -> Result<(u64, String), DataError> {
    let cut_off = |found: &str| DataError::size(path, "a whole npy header".to_owned(), found.to_owned());
    let mut preamble = [0; LONG_PREAMBLE_BYTES as usize];
    file.read_exact(&mut preamble).map_err(|_| cut_off("fewer than 12 bytes"))?;
    if !preamble.starts_with(MAGIC) {
        let found = format!("{:02x?}", &preamble[..MAGIC.len()]);
        return Err(DataError::file(
            path,
            "first bytes",
            "\\x93NUMPY",
            found,
            "this is not an npy file: check its name",
        ));
    }
    let (length, already_read) = match preamble[6] {
        1 => (usize::from(u16::from_le_bytes([preamble[8], preamble[9]])), 2),
        2 | 3 => (u32::from_le_bytes([preamble[8], preamble[9], preamble[10], preamble[11]]) as usize, 0),
        version => {
            let fix = "save the array again with numpy.save";
            return Err(DataError::file(path, "version", "1, 2 or 3", version.to_string(), fix));
        }
    };
    if !(already_read..=MAX_HEADER_BYTES).contains(&length) {
        let expected = format!("at most {MAX_HEADER_BYTES} bytes");
        return Err(DataError::file(
            path,
            "header length",
            expected,
            length.to_string(),
            "save plain numbers, not objects",
        ));
    }
    let mut text = preamble[LONG_PREAMBLE_BYTES as usize - already_read..].to_vec();
    text.resize(length, 0);
    file.read_exact(&mut text[already_read..]).map_err(|_| cut_off("an end within it"))?;
    let offset = LONG_PREAMBLE_BYTES - already_read as u64 + length as u64;
    Ok((offset, String::from_utf8_lossy(&text).into_owned()))
}

#[derive(Debug, PartialEq)]
struct Header {
    /// The type's code, or the source text of a structured type.
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl Header {
    fn element(&self, path: &Path) -> Result<(Element, bool), DataError> {
        let mut chars = self.descr.chars();
        let big_endian = match chars.next() {
            Some('<' | '|' | '=') => false,
            Some('>') => true,
            _ => return Err(self.unknown_type(path)),
        };
        let element = match chars.as_str() {
            "i1" => Element::I8,
            "u1" => Element::U8,
            "i2" => Element::I16,
            "u2" => Element::U16,
            "i4" => Element::I32,
            "u4" => Element::U32,
            "i8" => Element::I64,
            "u8" => Element::U64,
            "f2" => Element::F16,
            "f4" => Element::F32,
            "f8" => Element::F64,
            _ => return Err(self.unknown_type(path)),
        };
        Ok((element, big_endian))
    }

    fn unknown_type(&self, path: &Path) -> DataError {
        let fix = "convert before saving: numpy.save(path, array.astype('float32'))";
        DataError::file(path, "dtype", "floats of 2, 4 or 8 bytes or integers", quoted(&self.descr), fix)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?;
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        while !rest.trim_start_matches([' ', ',']).is_empty() {
            let (key, after) = string(rest.trim_start_matches([' ', ',']))?;
            let value = after.trim_start().strip_prefix(':')?.trim_start();
            rest = match key {
                "descr" if value.starts_with('[') => {
                    let end = value.rfind(']')? + 1;
                    descr = Some(value[..end].to_owned());
                    // What a structured type is followed by does not matter: it is refused.
                    (fortran_order, shape) = (Some(false), Some(Vec::new()));
                    ""
                }
                "descr" => {
                    let (code, after) = string(value)?;
                    descr = Some(code.to_owned());
                    after
                }
                "fortran_order" => {
                    let end = value.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(value.len());
                    fortran_order = Some(match &value[..end] {
                        "True" => true,
                        "False" => false,
                        _ => return None,
                    });
                    &value[end..]
                }
                "shape" => {
                    let (list, after) = value.strip_prefix('(')?.split_once(')')?;
                    let axes = list.split(',').map(str::trim).filter(|axis| !axis.is_empty());
                    // Python 2 wrote long integers with an L.
                    shape = Some(axes.map(|axis| axis.trim_end_matches('L').parse().ok()).collect::<Option<_>>()?);
                    after
                }
                _ => return None,
            };
        }
        Some(Self { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// Reads a Python string literal without escapes; returns it and what follows.
fn string(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_dictionaries_parse_as_numpy_writes_them() {
        let parse = |text| Header::parse(text).expect(text);
        let header = parse("{'descr': '<f4', 'fortran_order': False, 'shape': (100, 384), }   \n");
        assert_eq!(header, Header { descr: "<f4".into(), fortran_order: false, shape: vec![100, 384] });
        assert_eq!(parse("{'shape': (5L,), \"descr\": '>i8', 'fortran_order': True}").shape, [5]);
        assert_eq!(parse("{'descr': '<f4', 'fortran_order': False, 'shape': ()}").shape, [0u64; 0]);
        assert!(parse("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (3,), }").descr.contains("'x'"));
        for bad in ["", "{}", "{'descr': '<f4'}", "{'descr': 3}", "{'shape': (x,)}", "{'other': 1}", "{'descr: '<f4'"] {
            assert_eq!(Header::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn written_headers_read_back() {
        let bytes = write_header("<f4", "18446744073709551615, 16384");
        assert_eq!(bytes.len(), WRITTEN_HEADER_BYTES);
        let header = Header::parse(std::str::from_utf8(&bytes[10..]).expect("text")).expect("parses");
        assert_eq!(header.shape, [u64::MAX, 16_384]);
    }
}
