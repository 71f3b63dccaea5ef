//! Apache Parquet: one column of lists per vector, perhaps one of ids; the other columns become payload.

mod columns;
mod types;
mod value;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Row as Record;
use parquet::record::reader::{ReaderIter, TreeBuilder};

use self::columns::{Columns, VectorLeaf};
use super::element::{check_finite, widen_half};
use super::error::{BadValue, DataError};
use super::guard::guarded;
use super::matrix::check_dimension;
use super::{Format, ReadOptions, Row, RowReader, Summary, VECTOR_COLUMNS_KEY, VECTOR_DIMENSIONS_KEY, VectorColumn};

/// Reads a Parquet file.
pub(crate) struct ParquetReader {
    path: PathBuf,
    file: SerializedFileReader<File>,
    columns: Columns,
    summary: Summary,
    next: u64,
    open: Option<OpenGroup>,
}

/// Readers that stand in the middle of a row group.
struct OpenGroup {
    rows_left: usize,
    vectors: Vec<ColumnReader>,
    /// Ids and payload; `None` if there are vectors only.
    records: Option<ReaderIter>,
}

impl ParquetReader {
    /// Opens the file, checks its footer, finds the columns and reads the first row for the vectors' dimensions.
    pub(crate) fn open(path: &Path, options: &ReadOptions) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::io(path, "open the file"))?;
        let file = guarded(|| sound(SerializedFileReader::new(file))).map_err(|error| damaged(path, &error))?;
        let metadata = file.metadata().file_metadata();
        let options = with_noted_columns(options, metadata.key_value_metadata());
        let columns = Columns::find(path, metadata.schema_descr_ptr(), &options)?;
        let rows = file.metadata().row_groups().iter().map(|group| group.num_rows().max(0) as u64).sum();
        let has_ids = columns.id.is_some();
        let summary =
            Summary { format: Format::Parquet, rows: Some(rows), vectors: Default::default(), has_ids, metric: None };
        let mut reader = Self { path: path.to_owned(), file, columns, summary, next: 0, open: None };
        reader.find_dimensions()?;
        Ok(reader)
    }

    /// Parquet does not say how long lists are: the first row does, and the others must agree.
    fn find_dimensions(&mut self) -> Result<(), DataError> {
        let dimensions = if self.summary.rows == Some(0) {
            let noted =
                noted::<usize>(self.file.metadata().file_metadata().key_value_metadata(), VECTOR_DIMENSIONS_KEY);
            let leaves = self.columns.vectors.iter().map(|leaf| &leaf.name);
            leaves.filter_map(|name| Some((name.clone(), *noted.as_ref()?.get(name)?))).collect::<Vec<_>>()
        } else {
            let first = self.read(1)?;
            first.iter().flat_map(|row| &row.vectors).map(|(name, vector)| (name.clone(), vector.len())).collect()
        };
        for (name, dimension) in dimensions {
            let dimension = check_dimension(&self.path, dimension as i64, "check the vector column")?;
            self.summary.vectors.insert(name, VectorColumn { dimension, element: None });
        }
        self.seek(0)
    }

    /// Opens the row group that the next row is in, at that row; `None` at the end of the file.
    fn group(&mut self) -> Result<Option<&mut OpenGroup>, DataError> {
        if self.open.as_ref().is_none_or(|group| group.rows_left == 0) {
            self.open = None;
            let mut first = 0;
            for (index, group) in self.file.metadata().row_groups().iter().enumerate() {
                let rows = group.num_rows().max(0) as u64;
                if self.next < first + rows {
                    let skip = (self.next - first) as usize;
                    let group = guarded(|| sound(self.open_group(index, rows as usize, skip)));
                    self.open = Some(group.map_err(|error| self.unreadable(&error))?);
                    break;
                }
                first += rows;
            }
        }
        Ok(self.open.as_mut())
    }

    fn open_group(&self, index: usize, rows: usize, skip: usize) -> Result<OpenGroup, ParquetError> {
        let group = self.file.get_row_group(index)?;
        let mut vectors = Vec::new();
        for leaf in &self.columns.vectors {
            let mut reader = group.get_column_reader(leaf.index)?;
            skip_records(&mut reader, skip)?;
            vectors.push(reader);
        }
        let mut records = match &self.columns.others {
            Some(schema) => Some(TreeBuilder::new().as_iter(schema.clone(), group.as_ref())?),
            None => None,
        };
        if let Some(records) = &mut records {
            for record in records.by_ref().take(skip) {
                record?;
            }
        }
        Ok(OpenGroup { rows_left: rows - skip, vectors, records })
    }

    fn unreadable(&self, error: &str) -> DataError {
        let fix = "the file is damaged or was cut off: copy, download or write it again";
        BadValue::new("row group", "readable rows", error, fix).at(&self.path, self.next)
    }

    /// Reads vectors and other columns of up to `count` rows of one row group.
    fn read_group(&mut self, count: usize) -> Result<Vec<Row>, DataError> {
        let first = self.next;
        let Some(group) = self.group()? else { return Ok(Vec::new()) };
        let count = count.min(group.rows_left);
        group.rows_left -= count;
        let decoded = guarded(|| sound(group.decode(count)));
        let (lists, records) = decoded.map_err(|error| self.unreadable(&error))?;
        let mut rows = vec![Row::default(); count];
        for (lists, leaf) in lists.into_iter().zip(&self.columns.vectors) {
            let dimension = self.summary.vectors.get(&leaf.name).map(|column| column.dimension);
            let vectors = lists.vectors(leaf, dimension).map_err(|(at, bad)| bad.at(&self.path, first + at as u64))?;
            if vectors.len() != count {
                let short = format!("{} of {count} rows of `{}`", vectors.len(), leaf.column);
                return Err(self.unreadable(&short));
            }
            rows.iter_mut().zip(vectors).for_each(|(row, vector)| {
                row.vectors.insert(leaf.name.clone(), vector);
            });
        }
        for ((row, record), at) in rows.iter_mut().zip(records).zip(first..) {
            self.columns.fill(row, record).map_err(|bad| bad.at(&self.path, at))?;
        }
        self.next += count as u64;
        Ok(rows)
    }
}

impl OpenGroup {
    /// Decodes the next rows; there must be as many.
    fn decode(&mut self, count: usize) -> Result<(Vec<Lists>, Vec<Record>), ParquetError> {
        let lists = self.vectors.iter_mut().map(|reader| Lists::read(reader, count)).collect::<Result<_, _>>()?;
        let records = match &mut self.records {
            Some(records) => records.take(count).collect::<Result<Vec<_>, _>>()?,
            None => Vec::new(),
        };
        if self.records.is_some() && records.len() != count {
            return Err(ParquetError::EOF(format!("{} of {count} rows", records.len())));
        }
        Ok((lists, records))
    }
}

/// An error of the Parquet crate as text.
fn sound<T>(result: Result<T, ParquetError>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

impl RowReader for ParquetReader {
    fn path(&self) -> &Path {
        &self.path
    }

    fn summary(&self) -> &Summary {
        &self.summary
    }

    fn position(&self) -> u64 {
        self.next
    }

    fn seek(&mut self, row: u64) -> Result<(), DataError> {
        self.next = row.min(self.summary.rows.unwrap_or(0));
        self.open = None;
        Ok(())
    }

    fn read(&mut self, max_rows: usize) -> Result<Vec<Row>, DataError> {
        let mut rows = Vec::new();
        while rows.len() < max_rows {
            let more = self.read_group(max_rows - rows.len())?;
            if more.is_empty() {
                break;
            }
            rows.extend(more);
        }
        Ok(rows)
    }
}

/// Takes the vectors' columns from the file's own notes, as an export writes them, unless the user names columns.
fn with_noted_columns(options: &ReadOptions, notes: Option<&Vec<KeyValue>>) -> ReadOptions {
    let mut options = options.clone();
    if let (Some(columns), true) = (noted(notes, VECTOR_COLUMNS_KEY), options.vector_columns.is_empty()) {
        options.vector_columns = columns.into_iter().collect();
    }
    options
}

/// What the file's own notes say of each vector under a key.
fn noted<T: serde::de::DeserializeOwned>(notes: Option<&Vec<KeyValue>>, key: &str) -> Option<BTreeMap<String, T>> {
    let note = notes.into_iter().flatten().find(|note| note.key == key)?;
    serde_json::from_str(note.value.as_ref()?).ok()
}

fn damaged(path: &Path, error: &str) -> DataError {
    let fix = "the file is damaged, cut off or not Parquet: copy, download or write it again";
    DataError::file(path, "footer", "a sound Parquet file", error, fix)
}

fn skip_records(reader: &mut ColumnReader, count: usize) -> Result<(), ParquetError> {
    let skipped = match reader {
        ColumnReader::FloatColumnReader(reader) => reader.skip_records(count)?,
        ColumnReader::DoubleColumnReader(reader) => reader.skip_records(count)?,
        ColumnReader::Int32ColumnReader(reader) => reader.skip_records(count)?,
        ColumnReader::Int64ColumnReader(reader) => reader.skip_records(count)?,
        ColumnReader::FixedLenByteArrayColumnReader(reader) => reader.skip_records(count)?,
        _ => return Err(ParquetError::General("not a column of numbers".to_owned())),
    };
    if skipped == count { Ok(()) } else { Err(ParquetError::EOF(format!("{skipped} of {count} rows"))) }
}

/// Integers up to this are exact in float32.
const LARGEST_EXACT: f64 = 16_777_216.0;

/// Lists of numbers as Parquet stores them: the numbers in one row, and levels that say where lists begin and what is
/// missing (<https://parquet.apache.org/docs/file-format/nestedencoding/>).
#[derive(Default)]
struct Lists {
    numbers: Vec<f64>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

impl Lists {
    fn read(reader: &mut ColumnReader, rows: usize) -> Result<Self, ParquetError> {
        match reader {
            ColumnReader::FloatColumnReader(reader) => Self::read_typed(reader, rows, |x| f64::from(*x)),
            ColumnReader::DoubleColumnReader(reader) => Self::read_typed(reader, rows, |x| *x),
            ColumnReader::Int32ColumnReader(reader) => Self::read_typed(reader, rows, |n| f64::from(*n)),
            ColumnReader::Int64ColumnReader(reader) => Self::read_typed(reader, rows, |n| *n as f64),
            ColumnReader::FixedLenByteArrayColumnReader(reader) => Self::read_typed(reader, rows, |bytes| {
                let half = bytes.data().first_chunk().map_or(0x7e00, |half| u16::from_le_bytes(*half));
                f64::from(widen_half(half))
            }),
            _ => Err(ParquetError::General("not a column of numbers".to_owned())),
        }
    }

    fn read_typed<T: DataType>(
        reader: &mut ColumnReaderImpl<T>,
        rows: usize,
        number: impl Fn(&T::T) -> f64,
    ) -> Result<Self, ParquetError> {
        let mut lists = Self::default();
        let mut values = Vec::new();
        let mut read = 0;
        while read < rows {
            let levels = (Some(&mut lists.definition), Some(&mut lists.repetition));
            match reader.read_records(rows - read, levels.0, levels.1, &mut values)? {
                (0, ..) => break,
                (records, ..) => read += records,
            }
        }
        lists.numbers = values.iter().map(number).collect();
        Ok(lists)
    }

    /// The lists as vectors of one dimension; a refusal comes with the row's index among these.
    fn vectors(&self, leaf: &VectorLeaf, dimension: Option<usize>) -> Result<Vec<Vec<f32>>, (usize, BadValue)> {
        let mut vectors: Vec<Vec<f32>> = Vec::new();
        let mut numbers = self.numbers.iter();
        let refuse = |row: usize, column: String, expected: String, found: String| {
            let fix = "every row needs a vector of the same length: mend the row or leave it out";
            (row, BadValue::new(column, expected, found, fix))
        };
        for (repetition, definition) in self.repetition.iter().zip(&self.definition) {
            if *repetition == 0 {
                vectors.push(Vec::with_capacity(dimension.unwrap_or(0)));
            }
            let row = vectors.len().saturating_sub(1);
            let Some(vector) = vectors.last_mut() else {
                let found = "a list that continues from an earlier row".to_owned();
                return Err(refuse(row, leaf.column.clone(), "the beginning of a list".to_owned(), found));
            };
            match numbers.as_slice().first() {
                Some(number) if *definition == leaf.present && leaf.integer && number.abs() > LARGEST_EXACT => {
                    let column = format!("{}[{}]", leaf.column, vector.len());
                    let expected = "an integer that float32 holds exactly".to_owned();
                    return Err(refuse(row, column, expected, number.to_string()));
                }
                Some(number) if *definition == leaf.present => {
                    vector.push(*number as f32);
                    numbers.next();
                }
                _ if *definition + 1 == leaf.present && leaf.nullable => {
                    let column = format!("{}[{}]", leaf.column, vector.len());
                    return Err(refuse(row, column, "a number".to_owned(), "null".to_owned()));
                }
                _ => return Err(refuse(row, leaf.column.clone(), "a list of numbers".to_owned(), "none".to_owned())),
            }
        }
        for (row, vector) in vectors.iter().enumerate() {
            if let Some(dimension) = dimension.filter(|dimension| *dimension != vector.len()) {
                let expected = format!("{dimension} numbers, as in row 0");
                return Err(refuse(row, leaf.column.clone(), expected, vector.len().to_string()));
            }
            let column = |bad: BadValue| BadValue { column: format!("{}{}", leaf.column, bad.column), ..bad };
            check_finite(vector).map_err(|bad| (row, column(bad)))?;
        }
        Ok(vectors)
    }
}

#[cfg(test)]
mod tests;
