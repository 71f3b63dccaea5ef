//! Binary files of equal rows: npy, the TEXMEX family (fvecs, bvecs, ivecs) and the big-ann family (fbin and others).
//!
//! The formats differ in their headers only; what is behind is one matrix, read here.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sagitta_model::limits;

use super::error::{BadValue, DataError, grouped};
use super::{Element, Format, Row, RowReader, Summary, VectorColumn, bigann, npy, texmex};

/// Where a file's numbers lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Bytes before the first row.
    pub(crate) offset: u64,
    /// Each row begins with its length as a 32-bit little-endian integer.
    pub(crate) prefixed: bool,
    pub(crate) element: Element,
    pub(crate) big_endian: bool,
    pub(crate) rows: u64,
    /// Numbers per row.
    pub(crate) columns: usize,
    /// The file has one axis only: its rows are single numbers.
    pub(crate) flat: bool,
}

/// An open file of equal rows whose header and size have been checked.
#[derive(Debug)]
pub struct Matrix {
    path: PathBuf,
    file: File,
    layout: Layout,
}

const PREFIX_BYTES: usize = 4;

impl Layout {
    /// Bytes of one row with its prefix.
    pub(crate) fn row_bytes(&self) -> usize {
        self.columns * self.element.size() + if self.prefixed { PREFIX_BYTES } else { 0 }
    }

    /// Checks that a file of `size` bytes holds the header and every row, and nothing else.
    pub(crate) fn check_size(&self, path: &Path, size: u64) -> Result<(), DataError> {
        let row_bytes = self.row_bytes() as u64;
        let expected = self.rows.checked_mul(row_bytes).and_then(|bytes| bytes.checked_add(self.offset));
        if expected == Some(size) {
            return Ok(());
        }
        let rows = grouped(self.rows);
        let expected = expected.map_or("an impossible number of".to_owned(), grouped);
        let whole = size.saturating_sub(self.offset) / row_bytes.max(1);
        Err(DataError::size(
            path,
            format!("{expected} bytes for the {rows} rows that the header announces"),
            format!("{} bytes, room for {} whole rows", grouped(size), grouped(whole)),
        ))
    }
}

/// Checks a number of dimensions that a header names.
pub(crate) fn check_dimension(path: &Path, dimension: i64, advice: &str) -> Result<usize, DataError> {
    match usize::try_from(dimension) {
        Ok(dimension) if (1..=limits::MAX_DIMENSION).contains(&dimension) => Ok(dimension),
        _ => Err(DataError::file(
            path,
            "dimensions",
            format!("1 to {}", grouped(limits::MAX_DIMENSION as u64)),
            dimension.to_string(),
            advice,
        )),
    }
}

impl Matrix {
    /// Opens a file in one of the binary matrix formats and checks its header and size.
    pub fn open(path: &Path, format: Format) -> Result<Self, DataError> {
        let mut file = File::open(path).map_err(DataError::io(path, "open the file"))?;
        let size = file.metadata().map_err(DataError::io(path, "read the file's size"))?.len();
        let layout = match format {
            Format::Npy => npy::layout(path, &mut file, size)?,
            Format::Fvecs => texmex::layout(path, &mut file, size, Element::F32)?,
            Format::Bvecs => texmex::layout(path, &mut file, size, Element::U8)?,
            Format::Ivecs => texmex::layout(path, &mut file, size, Element::I32)?,
            Format::Fbin => bigann::layout(path, &mut file, size, Element::F32)?,
            Format::U8bin => bigann::layout(path, &mut file, size, Element::U8)?,
            Format::I8bin => bigann::layout(path, &mut file, size, Element::I8)?,
            Format::Ibin => bigann::layout(path, &mut file, size, Element::I32)?,
            Format::Hdf5 | Format::Jsonl | Format::Parquet => {
                let expected = "one of npy, fvecs, bvecs, ivecs, fbin, u8bin, i8bin, ibin";
                return Err(DataError::file(path, "format", expected, format.name(), "name a file in one of these"));
            }
        };
        Ok(Self { path: path.to_owned(), file, layout })
    }

    /// Which file it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.layout.rows
    }

    /// Numbers per row.
    pub fn columns(&self) -> usize {
        self.layout.columns
    }

    /// Type of the numbers.
    pub fn element(&self) -> Element {
        self.layout.element
    }

    /// Reads up to `count` rows from row `first` on as vectors; fewer at the end of the file.
    pub fn vectors(&mut self, first: u64, count: usize) -> Result<Vec<Vec<f32>>, DataError> {
        let column = |bad: BadValue| BadValue { column: format!("vector{}", bad.column), ..bad };
        self.decode(first, count, |bytes, layout| layout.element.vector(bytes, layout.big_endian).map_err(column))
    }

    /// Reads up to `count` rows from row `first` on as point ids; fewer at the end of the file.
    pub fn ids(&mut self, first: u64, count: usize) -> Result<Vec<Vec<u64>>, DataError> {
        let column = |bad: BadValue| BadValue { column: format!("id{}", bad.column), ..bad };
        self.decode(first, count, |bytes, layout| layout.element.ids(bytes, layout.big_endian).map_err(column))
    }

    fn decode<T>(
        &mut self,
        first: u64,
        count: usize,
        decode: impl Fn(&[u8], &Layout) -> Result<T, BadValue>,
    ) -> Result<Vec<T>, DataError> {
        let layout = self.layout;
        let count = layout.rows.saturating_sub(first).min(count as u64) as usize;
        let mut bytes = vec![0; count * layout.row_bytes()];
        self.file
            .seek(SeekFrom::Start(layout.offset + first * layout.row_bytes() as u64))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(DataError::io(&self.path, "read the rows (did the file change meanwhile?)"))?;
        let rows = bytes.chunks_exact(layout.row_bytes()).zip(first..);
        rows.map(|(bytes, row)| {
            let numbers = check_prefix(bytes, &layout).and_then(|numbers| decode(numbers, &layout));
            numbers.map_err(|bad| bad.at(&self.path, row))
        })
        .collect()
    }
}

/// Checks the length that a row begins with, where rows do, and returns the numbers after it.
fn check_prefix<'b>(bytes: &'b [u8], layout: &Layout) -> Result<&'b [u8], BadValue> {
    if !layout.prefixed {
        return Ok(bytes);
    }
    let (prefix, numbers) = bytes.split_first_chunk::<PREFIX_BYTES>().expect("invariant: a prefixed row has a prefix");
    let found = i32::from_le_bytes(*prefix);
    if usize::try_from(found) == Ok(layout.columns) {
        return Ok(numbers);
    }
    let expected = format!("{}, as in row 0", layout.columns);
    Err(BadValue::new(
        "dimension",
        expected,
        found.to_string(),
        "the file is damaged or not in this format: write it again",
    ))
}

/// Reads a matrix as points with one vector each; the row's number serves as its id.
#[derive(Debug)]
pub(crate) struct MatrixReader {
    matrix: Matrix,
    vector_name: String,
    summary: Summary,
    next: u64,
}

impl MatrixReader {
    pub(crate) fn open(path: &Path, format: Format, vector_name: &str) -> Result<Self, DataError> {
        let matrix = Matrix::open(path, format)?;
        if matrix.layout.flat {
            let fix = "reshape the array to (rows, dimensions) before saving it; ids go to --ids";
            let found = format!("one axis of {} numbers", grouped(matrix.rows()));
            return Err(DataError::file(path, "shape", "two axes, (rows, dimensions)", found, fix));
        }
        let column = VectorColumn { dimension: matrix.columns(), element: Some(matrix.element()) };
        let summary = Summary {
            format,
            rows: Some(matrix.rows()),
            vectors: [(vector_name.to_owned(), column)].into(),
            has_ids: false,
            metric: None,
        };
        Ok(Self { matrix, vector_name: vector_name.to_owned(), summary, next: 0 })
    }
}

impl RowReader for MatrixReader {
    fn path(&self) -> &Path {
        self.matrix.path()
    }

    fn summary(&self) -> &Summary {
        &self.summary
    }

    fn position(&self) -> u64 {
        self.next
    }

    fn seek(&mut self, row: u64) -> Result<(), DataError> {
        self.next = row.min(self.matrix.rows());
        Ok(())
    }

    fn read(&mut self, max_rows: usize) -> Result<Vec<Row>, DataError> {
        let vectors = self.matrix.vectors(self.next, max_rows)?;
        self.next += vectors.len() as u64;
        Ok(vectors.into_iter().map(|vector| Row::of_vector(&self.vector_name, vector)).collect())
    }
}

#[cfg(test)]
mod tests;
