//! Writing JSON lines.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::super::error::quoted;
use super::super::json::{JsonId, JsonObject};
use super::super::{DataError, Row};
use super::fresh::FreshFile;
use super::{Existing, RowWriter, UNNAMED};

/// Writes one object per line: `id`, `vector` or `vectors`, and `payload`. Gzipped if the name ends in `.gz`.
pub struct JsonlWriter {
    path: PathBuf,
    sink: Sink,
    with_vectors: bool,
}

enum Sink {
    Plain(FreshFile),
    Gzipped(Box<GzEncoder<FreshFile>>),
}

impl JsonlWriter {
    /// Begins a file of points.
    pub fn create(path: &Path, existing: Existing) -> Result<Self, DataError> {
        let file = FreshFile::create(path, existing)?;
        let gzipped = path.extension().is_some_and(|ending| ending == "gz");
        let sink = if gzipped {
            Sink::Gzipped(Box::new(GzEncoder::new(file, Compression::default())))
        } else {
            Sink::Plain(file)
        };
        Ok(Self { path: path.to_owned(), sink, with_vectors: true })
    }

    /// Begins a file of ids and payloads, to lie beside a file of vectors.
    pub fn create_payloads(path: &Path, existing: Existing) -> Result<Self, DataError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !(name.ends_with(".jsonl") || name.ends_with(".jsonl.gz")) {
            let fix = "payloads are written as lines of JSON: choose such a name";
            return Err(DataError::file(path, "format", "a name ending in .jsonl or .jsonl.gz", quoted(&name), fix));
        }
        Ok(Self { with_vectors: false, ..Self::create(path, existing)? })
    }

    fn write_rows(&mut self, rows: &[Row]) -> io::Result<()> {
        let sink: &mut dyn Write = match &mut self.sink {
            Sink::Plain(file) => file,
            Sink::Gzipped(encoder) => encoder,
        };
        for row in rows {
            serde_json::to_writer(&mut *sink, &JsonRow { row, with_vectors: self.with_vectors })?;
            sink.write_all(b"\n")?;
        }
        Ok(())
    }
}

impl RowWriter for JsonlWriter {
    fn write(&mut self, rows: &[Row]) -> Result<(), DataError> {
        self.write_rows(rows).map_err(|error| DataError::io(&self.path, "write the file")(error))
    }

    fn finish(self: Box<Self>) -> Result<(), DataError> {
        match self.sink {
            Sink::Plain(file) => file.keep(),
            Sink::Gzipped(encoder) => encoder.finish().map_err(DataError::io(&self.path, "write the file"))?.keep(),
        }
    }
}

struct JsonRow<'r> {
    row: &'r Row,
    with_vectors: bool,
}

impl Serialize for JsonRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(id) = self.row.id {
            map.serialize_entry("id", &JsonId(id))?;
        }
        if self.with_vectors {
            match self.row.vectors.first_key_value() {
                Some((name, vector)) if self.row.vectors.len() == 1 && UNNAMED.contains(&name.as_str()) => {
                    map.serialize_entry("vector", vector)?;
                }
                _ => map.serialize_entry("vectors", &self.row.vectors)?,
            }
        }
        map.serialize_entry("payload", &JsonObject(&self.row.payload))?;
        map.end()
    }
}
