//! Writing Parquet.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};
use sagitta_model::PointId;

use super::super::error::BadValue;
use super::super::json::JsonObject;
use super::super::{DataError, Row, VECTOR_COLUMNS_KEY, VECTOR_DIMENSIONS_KEY};
use super::fresh::FreshFile;
use super::{Existing, RowWriter, UNNAMED};

/// Rows per row group: enough for readers to skip through, few enough to hold in memory with long vectors.
const GROUP_ROWS: usize = 16_384;

/// Writes a column of ids, a column of lists per vector, and the payload as a column of JSON.
pub struct ParquetWriter {
    /// Taken when the first rows show what columns there are.
    file: Option<FreshFile>,
    path: std::path::PathBuf,
    writer: Option<SerializedFileWriter<FreshFile>>,
    columns: Columns,
    dimensions: BTreeMap<String, usize>,
    pending: Vec<Row>,
    rows: u64,
}

#[derive(Default)]
struct Columns {
    numeric_ids: bool,
    /// Vectors in the order of their columns: name and column.
    vectors: Vec<(String, String)>,
    /// Dimensions of the vectors if there are no rows to show them.
    dimensions: Option<BTreeMap<String, usize>>,
}

impl ParquetWriter {
    /// Begins a file.
    pub fn create(path: &Path, existing: Existing, dimensions: &BTreeMap<String, usize>) -> Result<Self, DataError> {
        let file = Some(FreshFile::create(path, existing)?);
        let (columns, dimensions) = (Columns::default(), dimensions.clone());
        Ok(Self { file, path: path.to_owned(), writer: None, columns, dimensions, pending: Vec::new(), rows: 0 })
    }

    fn failed(&self, error: ParquetError) -> DataError {
        let source = match error {
            ParquetError::External(source) => std::io::Error::other(source),
            other => std::io::Error::other(other),
        };
        DataError::io(&self.path, "write the file")(source)
    }

    fn flush(&mut self) -> Result<(), DataError> {
        if let Some(file) = self.file.take() {
            self.columns = Columns::of(self.pending.first(), &self.dimensions);
            let writer = self.columns.schema().and_then(|schema| {
                let properties = self.columns.properties()?;
                SerializedFileWriter::new(file, schema, Arc::new(properties))
            });
            self.writer = Some(writer.map_err(|error| self.failed(error))?);
        }
        let rows = std::mem::take(&mut self.pending);
        if rows.is_empty() {
            return Ok(());
        }
        self.columns.check(&rows).map_err(|(at, bad)| bad.at(&self.path, self.rows + at))?;
        let writer = self.writer.as_mut().expect("invariant: the writer was made above");
        let written = write_group(writer, &self.columns, &rows);
        written.map_err(|error| self.failed(error))?;
        self.rows += rows.len() as u64;
        Ok(())
    }
}

impl RowWriter for ParquetWriter {
    fn write(&mut self, rows: &[Row]) -> Result<(), DataError> {
        for row in rows {
            self.pending.push(row.clone());
            if self.pending.len() == GROUP_ROWS {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), DataError> {
        self.flush()?;
        let writer = self.writer.take().expect("invariant: flushing makes the writer");
        writer.into_inner().map_err(|error| self.failed(error))?.keep()
    }
}

impl Columns {
    /// The columns that the first row asks for, or the vectors that rows would have had.
    fn of(first: Option<&Row>, dimensions: &BTreeMap<String, usize>) -> Self {
        let column = |name: &String| match name.as_str() {
            name if UNNAMED.contains(&name) => "vector".to_owned(),
            "id" | "payload" | "vector" => format!("vector_{name}"),
            name => name.to_owned(),
        };
        let pair = |name: &String| (name.clone(), column(name));
        match first {
            Some(first) => {
                let numeric_ids = matches!(first.id, Some(PointId::Num(_)));
                Self { numeric_ids, vectors: first.vectors.keys().map(pair).collect(), dimensions: None }
            }
            None => {
                let vectors = dimensions.keys().map(pair).collect();
                Self { numeric_ids: true, vectors, dimensions: Some(dimensions.clone()) }
            }
        }
    }

    fn schema(&self) -> Result<TypePtr, ParquetError> {
        let required = |name, physical, logical| {
            let builder = Type::primitive_type_builder(name, physical);
            builder.with_repetition(Repetition::REQUIRED).with_logical_type(logical).build().map(Arc::new)
        };
        let mut fields = vec![if self.numeric_ids {
            required("id", Physical::INT64, Some(LogicalType::integer(64, false)))?
        } else {
            required("id", Physical::BYTE_ARRAY, Some(LogicalType::String))?
        }];
        for (_, column) in &self.vectors {
            let element = required("element", Physical::FLOAT, None)?;
            let list = Type::group_type_builder("list").with_repetition(Repetition::REPEATED);
            let list = list.with_fields(vec![element]).build()?;
            let vector = Type::group_type_builder(column).with_repetition(Repetition::REQUIRED);
            let vector = vector.with_logical_type(Some(LogicalType::List)).with_fields(vec![Arc::new(list)]);
            fields.push(Arc::new(vector.build()?));
        }
        fields.push(required("payload", Physical::BYTE_ARRAY, Some(LogicalType::Json))?);
        Type::group_type_builder("points").with_fields(fields).build().map(Arc::new)
    }

    fn properties(&self) -> Result<WriterProperties, ParquetError> {
        let unwritable = |error: serde_json::Error| ParquetError::General(error.to_string());
        let names: BTreeMap<_, _> = self.vectors.iter().map(|(n, c)| (n.as_str(), c)).collect();
        let names = serde_json::to_string(&names).map_err(unwritable)?;
        let mut notes = vec![KeyValue::new(VECTOR_COLUMNS_KEY.to_owned(), names)];
        if let Some(dimensions) = &self.dimensions {
            let dimensions = serde_json::to_string(dimensions).map_err(unwritable)?;
            notes.push(KeyValue::new(VECTOR_DIMENSIONS_KEY.to_owned(), dimensions));
        }
        let level = ZstdLevel::try_new(3)?;
        // Vectors are neither repetitive nor compressible, and extremes of payload texts are of no use.
        Ok(WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_compression(Compression::UNCOMPRESSED)
            .set_column_compression("id".into(), Compression::ZSTD(level))
            .set_column_compression("payload".into(), Compression::ZSTD(level))
            .set_key_value_metadata(Some(notes))
            .build())
    }

    /// Checks that the rows fit columns that were chosen by the first one.
    fn check(&self, rows: &[Row]) -> Result<(), (u64, BadValue)> {
        for (row, at) in rows.iter().zip(0..) {
            if self.numeric_ids != matches!(row.id, Some(PointId::Num(_))) {
                let expected = if self.numeric_ids { "a number, as in row 0" } else { "a UUID, as in row 0" };
                let found = row.id.map_or("none".to_owned(), |id| id.to_string());
                let fix = "a Parquet column has one type: export to .jsonl.gz instead";
                return Err((at, BadValue::new("id", expected, found, fix)));
            }
            if !row.vectors.keys().eq(self.vectors.iter().map(|(name, _)| name)) {
                let found = format!("{:?}", row.vectors.keys().collect::<Vec<_>>());
                return Err((at, BadValue::new("vectors", "those of row 0", found, "export to .jsonl.gz instead")));
            }
        }
        Ok(())
    }
}

fn write_group(
    writer: &mut SerializedFileWriter<FreshFile>,
    columns: &Columns,
    rows: &[Row],
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    let missing = || ParquetError::General("a column is missing in the schema".to_owned());

    let mut ids = group.next_column()?.ok_or_else(missing)?;
    let row_ids = rows.iter().filter_map(|row| row.id);
    if columns.numeric_ids {
        // Parquet has no unsigned physical type: the bits are stored and the logical type says how to read them.
        let values: Vec<i64> = row_ids.map(|id| if let PointId::Num(n) = id { n as i64 } else { 0 }).collect();
        ids.typed::<Int64Type>().write_batch(&values, None, None)?;
    } else {
        let values: Vec<ByteArray> = row_ids.map(|id| id.to_string().as_str().into()).collect();
        ids.typed::<ByteArrayType>().write_batch(&values, None, None)?;
    }
    ids.close()?;

    for (name, _) in &columns.vectors {
        let mut column = group.next_column()?.ok_or_else(missing)?;
        let vectors = || rows.iter().filter_map(|row| row.vectors.get(name));
        let numbers: Vec<f32> = vectors().flatten().copied().collect();
        let repetition: Vec<i16> = vectors().flat_map(|v| (0..v.len()).map(|at| i16::from(at > 0))).collect();
        let definition = vec![1; numbers.len()];
        column.typed::<FloatType>().write_batch(&numbers, Some(&definition), Some(&repetition))?;
        column.close()?;
    }

    let mut payloads = group.next_column()?.ok_or_else(missing)?;
    let json = |row: &Row| serde_json::to_string(&JsonObject(&row.payload));
    let texts: Result<Vec<_>, _> = rows.iter().map(json).collect();
    let texts = texts.map_err(|error| ParquetError::General(error.to_string()))?;
    let values: Vec<ByteArray> = texts.iter().map(|text| text.as_str().into()).collect();
    payloads.typed::<ByteArrayType>().write_batch(&values, None, None)?;
    payloads.close()?;
    group.close()?;
    Ok(())
}
