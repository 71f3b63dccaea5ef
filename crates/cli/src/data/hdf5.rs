//! HDF5 files in the layout of ann-benchmarks (<https://github.com/erikbern/ann-benchmarks>): the datasets `train` and
//! `test` hold vectors, `neighbors` and `distances` the ground truth; the attribute `distance` names the metric.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hdf5_reader::storage::{FileStorage, Storage};
use hdf5_reader::{Dataset, Datatype, H5Type, Hdf5File, SliceInfo, SliceInfoElem};
use sagitta_model::Metric;

use super::error::{BadValue, DataError, grouped, quoted};
use super::guard::guarded;
use super::matrix::check_dimension;
use super::{Element, Format, ReadOptions, Row, RowReader, Summary, VectorColumn};

/// A two-dimensional dataset of numbers.
pub(crate) struct Hdf5Matrix {
    path: PathBuf,
    name: String,
    dataset: Dataset,
    element: Element,
    rows: u64,
    columns: usize,
    chunks_checked: bool,
}

/// The most that deflate can pack into a byte; no other filter of numbers does better.
const MAX_PACKING: u64 = 1032;

impl Hdf5Matrix {
    pub(crate) fn open(path: &Path, name: &str) -> Result<Self, DataError> {
        let file = open(path)?;
        let dataset = guarded(|| sound(file.dataset(name))).map_err(|error| no_dataset(path, &file, name, &error))?;
        let part = |field: &str| format!("dataset `{name}`, {field}");
        let [rows, columns] = *dataset.shape() else {
            let found = format!("{:?}", dataset.shape());
            let fix = "name the dataset that holds one vector per row with --dataset";
            return Err(DataError::file(path, part("shape"), "two axes, (rows, dimensions)", found, fix));
        };
        let Some(element) = element(dataset.dtype()) else {
            let fix = "convert it to float32";
            let found = format!("{:?}", dataset.dtype());
            return Err(DataError::file(path, part("type"), "floats of 4 or 8 bytes or integers", found, fix));
        };
        let columns = check_dimension(path, columns as i64, "check the dataset's shape")?;
        check_shape(path, &part("shape"), rows, columns * element.size())?;
        Ok(Self {
            path: path.to_owned(),
            name: name.to_owned(),
            dataset,
            element,
            rows,
            columns,
            chunks_checked: false,
        })
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Reads up to `count` rows from row `first` on as vectors.
    pub(crate) fn vectors(&mut self, first: u64, count: usize) -> Result<Vec<Vec<f32>>, DataError> {
        let vectors = self.decode(first, count, |bytes| self.element.vector(bytes, cfg!(target_endian = "big")))?;
        let is_constant = |vector: &Vec<f32>| vector.iter().all(|x| *x == vector[0]);
        if let Some(at) = vectors.iter().position(is_constant) {
            self.check_chunks(first + at as u64)?;
        }
        Ok(vectors)
    }

    /// A chunk that was never written reads as one value throughout. When a row looks like that, checks once that all
    /// chunks are there.
    fn check_chunks(&mut self, row: u64) -> Result<(), DataError> {
        let Some(chunk) = self.dataset.chunks().filter(|_| !self.chunks_checked) else { return Ok(()) };
        let [chunk_rows, chunk_columns] = chunk[..] else { return Ok(()) };
        let expected =
            self.rows.div_ceil(chunk_rows.max(1).into()) * (self.columns as u64).div_ceil(chunk_columns.max(1).into());
        let found = guarded(|| {
            let mut count = 0;
            for chunk in sound(self.dataset.iter_chunks())? {
                sound(chunk)?;
                count += 1;
            }
            Ok::<u64, String>(count)
        });
        self.chunks_checked = true;
        let found = match found {
            Ok(count) if count == expected => return Ok(()),
            Ok(count) => format!("{} of {} chunks", grouped(count), grouped(expected)),
            Err(error) => error,
        };
        let fix = "the dataset was not written completely: write it again";
        Err(BadValue::new(format!("dataset `{}`", self.name), "every row written", found, fix).at(&self.path, row))
    }

    /// Reads up to `count` rows from row `first` on as point ids.
    pub(crate) fn ids(&mut self, first: u64, count: usize) -> Result<Vec<Vec<u64>>, DataError> {
        self.decode(first, count, |bytes| self.element.ids(bytes, cfg!(target_endian = "big")))
    }

    fn decode<T>(
        &self,
        first: u64,
        count: usize,
        decode: impl Fn(&[u8]) -> Result<T, BadValue>,
    ) -> Result<Vec<T>, DataError> {
        let count = self.rows.saturating_sub(first).min(count as u64);
        if count == 0 {
            return Ok(Vec::new());
        }
        let slice = |start, end| SliceInfoElem::Slice { start, end, step: 1 };
        let rows = SliceInfo { selections: vec![slice(first, first + count), slice(0, self.columns as u64)] };
        let read = guarded(|| match self.element {
            Element::I8 => self.bytes::<i8, 1>(&rows, i8::to_ne_bytes),
            Element::U8 => self.bytes::<u8, 1>(&rows, u8::to_ne_bytes),
            Element::I16 => self.bytes::<i16, 2>(&rows, i16::to_ne_bytes),
            Element::U16 => self.bytes::<u16, 2>(&rows, u16::to_ne_bytes),
            Element::I32 => self.bytes::<i32, 4>(&rows, i32::to_ne_bytes),
            Element::U32 => self.bytes::<u32, 4>(&rows, u32::to_ne_bytes),
            Element::I64 => self.bytes::<i64, 8>(&rows, i64::to_ne_bytes),
            Element::U64 => self.bytes::<u64, 8>(&rows, u64::to_ne_bytes),
            Element::F32 => self.bytes::<f32, 4>(&rows, f32::to_ne_bytes),
            Element::F16 | Element::F64 => self.bytes::<f64, 8>(&rows, f64::to_ne_bytes),
        });
        let bytes = read.map_err(|error| {
            let fix = "the file is damaged or was cut off: copy, download or write it again";
            BadValue::new(format!("dataset `{}`", self.name), "readable rows", error, fix).at(&self.path, first)
        })?;
        let row_bytes = self.columns * self.element.size();
        let place = |bad: BadValue| BadValue { column: format!("{}{}", self.name, bad.column), ..bad };
        let rows = bytes.chunks_exact(row_bytes).zip(first..);
        rows.map(|(bytes, row)| decode(bytes).map_err(|bad| place(bad).at(&self.path, row))).collect()
    }

    fn bytes<T: H5Type, const N: usize>(
        &self,
        rows: &SliceInfo,
        to_bytes: impl Fn(T) -> [u8; N],
    ) -> Result<Vec<u8>, String> {
        let numbers = sound(self.dataset.read_slice::<T>(rows))?;
        let mut bytes = Vec::with_capacity(numbers.len() * N);
        numbers.into_iter().for_each(|number| bytes.extend(to_bytes(number)));
        Ok(bytes)
    }
}

/// The metric that the file's attribute `distance` names; `None` if it has none.
pub(crate) fn metric(path: &Path) -> Result<Option<Metric>, DataError> {
    let file = open(path)?;
    let root = || sound(file.root_group().and_then(|root| root.attribute("distance")).and_then(|a| a.read_string()));
    let attribute = guarded(root);
    let Ok(name) = attribute else { return Ok(None) };
    match name.as_str() {
        "angular" | "cosine" => Ok(Some(Metric::Cosine)),
        "euclidean" | "l2" => Ok(Some(Metric::L2)),
        "dot" | "ip" | "inner_product" => Ok(Some(Metric::InnerProduct)),
        _ => Err(DataError::file(
            path,
            "attribute `distance`",
            "angular, euclidean or dot",
            quoted(&name),
            "sets and bit vectors are not supported: use a dataset of real vectors",
        )),
    }
}

fn open(path: &Path) -> Result<Hdf5File, DataError> {
    // Reads by offset: a mapping would kill the process if the file shrank while it is read.
    let storage = sound(FileStorage::open(path)).map_err(|error| damaged(path, &error))?;
    let size = storage.len();
    let file = guarded(|| sound(Hdf5File::from_storage(Arc::new(storage)))).map_err(|error| damaged(path, &error))?;
    let end = file.superblock().eof_address;
    if size < end {
        let found = format!("{} bytes", grouped(size));
        return Err(DataError::size(path, format!("{} bytes as the file itself says", grouped(end)), found));
    }
    Ok(file)
}

/// An error of the HDF5 crate as text.
fn sound<T>(result: hdf5_reader::error::Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// Refuses a shape that no file of this size could hold, such as a damaged one of 2^40 rows that would read as zeros.
fn check_shape(path: &Path, part: &str, rows: u64, row_bytes: usize) -> Result<(), DataError> {
    let size = std::fs::metadata(path).map_err(DataError::io(path, "read the file's size"))?.len();
    let most = size.saturating_mul(MAX_PACKING) / row_bytes as u64;
    if rows <= most {
        return Ok(());
    }
    let expected = format!("at most {} rows in a file of {} bytes", grouped(most), grouped(size));
    Err(DataError::file(path, part, expected, grouped(rows), "the file is damaged: copy, download or write it again"))
}

fn damaged(path: &Path, error: &str) -> DataError {
    let fix = "the file is damaged, cut off or not HDF5: copy, download or write it again";
    DataError::file(path, "structure", "a sound HDF5 file", error, fix)
}

fn no_dataset(path: &Path, file: &Hdf5File, name: &str, error: &str) -> DataError {
    match guarded(|| sound(file.root_group().and_then(|root| root.member_names()))) {
        Ok((_, names)) if !names.iter().any(|known| known == name) => {
            let names = if names.is_empty() { "no datasets at its top level".to_owned() } else { names.join(", ") };
            let fix = "name the dataset that holds the vectors with --dataset";
            DataError::file(path, "datasets", format!("`{name}`"), names, fix)
        }
        _ => damaged(path, error),
    }
}

fn element(datatype: &Datatype) -> Option<Element> {
    match datatype {
        Datatype::FloatingPoint { size: 4, .. } => Some(Element::F32),
        Datatype::FloatingPoint { size: 8, .. } => Some(Element::F64),
        Datatype::FixedPoint { size, signed, .. } => match (size, signed) {
            (1, true) => Some(Element::I8),
            (1, false) => Some(Element::U8),
            (2, true) => Some(Element::I16),
            (2, false) => Some(Element::U16),
            (4, true) => Some(Element::I32),
            (4, false) => Some(Element::U32),
            (8, true) => Some(Element::I64),
            (8, false) => Some(Element::U64),
            _ => None,
        },
        _ => None,
    }
}

/// Reads one dataset as points; the row's number serves as its id.
pub(crate) struct Hdf5Reader {
    matrix: Hdf5Matrix,
    vector_name: String,
    summary: Summary,
    next: u64,
}

impl Hdf5Reader {
    pub(crate) fn open(path: &Path, options: &ReadOptions) -> Result<Self, DataError> {
        let mut matrix = Hdf5Matrix::open(path, &options.dataset)?;
        // Reading the last row finds a file that was cut off before anything is imported.
        matrix.vectors(matrix.rows().saturating_sub(1), 1)?;
        let column = VectorColumn { dimension: matrix.columns, element: Some(matrix.element) };
        let summary = Summary {
            format: Format::Hdf5,
            rows: Some(matrix.rows()),
            vectors: [(options.vector_name.clone(), column)].into(),
            has_ids: false,
            metric: metric(path)?,
        };
        Ok(Self { matrix, vector_name: options.vector_name.clone(), summary, next: 0 })
    }
}

impl RowReader for Hdf5Reader {
    fn path(&self) -> &Path {
        &self.matrix.path
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
