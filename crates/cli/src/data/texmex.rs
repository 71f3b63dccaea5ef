//! The TEXMEX formats fvecs, bvecs and ivecs (<http://corpus-texmex.irisa.fr/>): each row is its number of
//! dimensions as a 32-bit little-endian integer, then that many floats, bytes or integers.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Element;
use super::error::{DataError, grouped};
use super::matrix::{Layout, check_dimension};

/// Reads the first row's length and checks that the file's size fits equal rows. The other rows' lengths are
/// checked as they are read.
pub(crate) fn layout(path: &Path, file: &mut File, size: u64, element: Element) -> Result<Layout, DataError> {
    let mut prefix = [0; 4];
    file.read_exact(&mut prefix)
        .map_err(|_| DataError::size(path, "at least one row".to_owned(), format!("{size} bytes")))?;
    let advice = "the file is not in this format, or was written on a big-endian machine: check it";
    let columns = check_dimension(path, i32::from_le_bytes(prefix).into(), advice)?;
    let mut layout = Layout { offset: 0, prefixed: true, element, big_endian: false, rows: 0, columns, flat: false };
    let row_bytes = layout.row_bytes() as u64;
    layout.rows = size / row_bytes;
    if !size.is_multiple_of(row_bytes) {
        return Err(DataError::size(
            path,
            format!("a multiple of {row_bytes} bytes (rows of {columns} x {})", element.name()),
            format!("{} bytes: {} rows and {} bytes", grouped(size), grouped(layout.rows), size % row_bytes),
        ));
    }
    Ok(layout)
}
