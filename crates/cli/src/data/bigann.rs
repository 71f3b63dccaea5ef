//! The formats of the big-ann benchmarks, fbin, u8bin, i8bin and ibin
//! (<https://big-ann-benchmarks.com/neurips21.html>): the number of rows and of dimensions as two 32-bit little-endian
//! integers, then the rows. Ground truth has the distances as a second matrix of floats behind the ids.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Element;
use super::error::DataError;
use super::matrix::{Layout, check_dimension};

const HEADER_BYTES: u64 = 8;

/// Reads the header and checks the file's size. A ground-truth file reads as the matrix of its ids.
pub(crate) fn layout(path: &Path, file: &mut File, size: u64, element: Element) -> Result<Layout, DataError> {
    let mut header = [0; HEADER_BYTES as usize];
    file.read_exact(&mut header)
        .map_err(|_| DataError::size(path, format!("a header of {HEADER_BYTES} bytes"), format!("{size} bytes")))?;
    let [rows, columns] = [0, 4].map(|at| {
        let field = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u32::from_le_bytes(field)
    });
    let columns = check_dimension(path, columns.into(), "the file is not in this format: check its name")?;
    let layout = Layout {
        offset: HEADER_BYTES,
        prefixed: false,
        element,
        big_endian: false,
        rows: rows.into(),
        columns,
        flat: false,
    };
    if !has_distances(&layout, size) {
        layout.check_size(path, size)?;
    }
    Ok(layout)
}

/// Whether behind a matrix of ids there is one of distances of the same shape.
pub(crate) fn has_distances(layout: &Layout, size: u64) -> bool {
    let matrix = layout.rows * layout.row_bytes() as u64;
    layout.element == Element::I32 && matrix > 0 && size == HEADER_BYTES + 2 * matrix
}
