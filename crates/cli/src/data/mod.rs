//! Data files: reading points from them, writing points to them, and reading ground truth.
//!
//! Every format is one [`RowReader`]. A file is either read right or refused with an error that names the file, the
//! row and the column: nothing is rounded into place, skipped or padded silently.

mod bigann;
mod distinct;
mod element;
mod error;
mod format;
mod ground_truth;
mod guard;
mod hdf5;
mod ids;
mod joined;
mod json;
mod jsonl;
mod matrix;
mod npy;
mod parquet;
mod texmex;
pub mod write;

#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::path::Path;

use sagitta_model::value::Object;
use sagitta_model::{Metric, NamedVectors, PointId};

pub use distinct::DistinctIds;
pub use element::Element;
pub use error::DataError;
pub(crate) use error::quoted;
pub use format::Format;
pub use ground_truth::GroundTruth;
pub(crate) use guard::is_guarded;
pub use ids::IdFile;
pub use joined::Joined;
pub use json::{Json, parse_value};
pub(crate) use json::{JsonId, JsonObject};
pub use matrix::Matrix;

/// Key of a Parquet file's own metadata under which an export notes its vectors' names and columns, as a JSON object.
pub(crate) const VECTOR_COLUMNS_KEY: &str = "sagitta.vector_columns";

/// Like [`VECTOR_COLUMNS_KEY`], for the vectors' dimensions in a file without rows, which would show them.
pub(crate) const VECTOR_DIMENSIONS_KEY: &str = "sagitta.vector_dimensions";

/// One row of a data file, on its way to become a point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Its id, if the file has ids.
    pub id: Option<PointId>,
    /// Its vectors by name; a file's only vector has the name that [`ReadOptions`] give it.
    pub vectors: NamedVectors,
    /// Its other fields.
    pub payload: Object,
}

/// What a file says about all of its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its format.
    pub format: Format,
    /// Number of rows, where the file says so without being read through.
    pub rows: Option<u64>,
    /// The vectors that each row has, by name. None if the file has no rows and does not say.
    pub vectors: BTreeMap<String, VectorColumn>,
    /// Whether rows carry ids.
    pub has_ids: bool,
    /// How the file says that its vectors are compared.
    pub metric: Option<Metric>,
}

/// One of a file's vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorColumn {
    /// Number of components.
    pub dimension: usize,
    /// Type of the components, where the format has types.
    pub element: Option<Element>,
}

/// Reads a file's rows in order, in batches.
pub trait RowReader: Send {
    /// Which file.
    fn path(&self) -> &Path;

    /// What is known of all rows. Comes from the header, or from the first row in formats without one.
    fn summary(&self) -> &Summary;

    /// The row that [`RowReader::read`] returns next, from 0.
    fn position(&self) -> u64;

    /// Goes to a row; behind the last one there is nothing to read. Formats without an index skip forward.
    fn seek(&mut self, row: u64) -> Result<(), DataError>;

    /// Reads up to `max_rows` rows; none at the end of the file. After an error the position is undefined.
    fn read(&mut self, max_rows: usize) -> Result<Vec<Row>, DataError>;

    /// Counts the rows, reading through the file if it does not say. The position is kept.
    fn count(&mut self) -> Result<u64, DataError> {
        Ok(self.summary().rows.expect("invariant: a format that does not say its rows counts them"))
    }

    /// How much of the file has been read, from 0 to 1.
    fn fraction(&self) -> f64 {
        match self.summary().rows {
            Some(rows) if rows > 0 => self.position() as f64 / rows as f64,
            _ => 1.0,
        }
    }
}

/// How a file is to be read, where it leaves a choice.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadOptions {
    /// The format; recognised if absent.
    pub format: Option<Format>,
    /// Which columns (JSON keys, Parquet columns) are vectors: the vector's name and the column. If empty, JSON has
    /// `vector` or `vectors`, and Parquet has `vector`, `embedding` or its only list of floats.
    pub vector_columns: Vec<(String, String)>,
    /// What a vector is called that the file does not name.
    pub vector_name: String,
    /// The column that holds ids; `None` if rows are not to have ids.
    pub id_column: Option<String>,
    /// Whether that column must be there.
    pub id_required: bool,
    /// Columns to pass over.
    pub ignored_columns: Vec<String>,
    /// The HDF5 dataset that holds the vectors.
    pub dataset: String,
    /// Whether the rows must have vectors, or must not, as in a payload file beside a file of vectors.
    pub content: Content,
}

/// What the rows of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Points with vectors.
    Points,
    /// Payloads, perhaps with ids, for vectors that are in another file.
    Payloads,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: None,
            vector_columns: Vec::new(),
            vector_name: String::new(),
            id_column: Some("id".to_owned()),
            id_required: false,
            ignored_columns: Vec::new(),
            dataset: "train".to_owned(),
            content: Content::Points,
        }
    }
}

/// Opens a data file and checks what can be checked without reading it through: mark, header, types, shape against
/// size, and the first row in formats without a header.
pub fn open(path: &Path, options: &ReadOptions) -> Result<Box<dyn RowReader>, DataError> {
    let format = match options.format {
        Some(format) => format,
        None => Format::detect(path)?,
    };
    let binary = !matches!(format, Format::Jsonl | Format::Parquet);
    if options.content == Content::Payloads && binary {
        let fix = "payloads come from a .jsonl, .jsonl.gz or .parquet file";
        return Err(DataError::file(path, "format", "jsonl or parquet", format.name(), fix));
    }
    if binary && !options.vector_columns.is_empty() {
        let fix = "leave --vector-column out; the vector's name is set with --vector-name";
        return Err(DataError::file(path, "format", "a format with named columns", format.name(), fix));
    }
    Ok(match format {
        Format::Jsonl => Box::new(jsonl::JsonlReader::open(path, options)?),
        Format::Parquet => Box::new(parquet::ParquetReader::open(path, options)?),
        Format::Hdf5 => Box::new(hdf5::Hdf5Reader::open(path, options)?),
        _ => Box::new(matrix::MatrixReader::open(path, format, &options.vector_name)?),
    })
}

impl Row {
    /// A row that is one vector.
    pub(crate) fn of_vector(name: &str, vector: Vec<f32>) -> Self {
        Self { vectors: [(name.to_owned(), vector)].into(), ..Self::default() }
    }
}
