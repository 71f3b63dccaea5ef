//! JSON lines, plain or gzipped: one object per line with `id`, `vector` or `vectors`, and payload fields.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use sagitta_model::limits;

use super::error::{BadValue, DataError};
use super::format::GZIP_MARK;
use super::json::parse_row;
use super::{Content, Format, ReadOptions, Row, RowReader, Summary, VectorColumn};

/// Longest line, in bytes: the longest vectors in the longest notation and a payload of the largest size fit.
const MAX_LINE_BYTES: usize = 16 << 20;

const BUFFER_BYTES: usize = 1 << 18;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a file of JSON lines.
pub(crate) struct JsonlReader {
    path: PathBuf,
    options: ReadOptions,
    lines: Lines,
    summary: Summary,
    next: u64,
}

impl JsonlReader {
    /// Opens the file and parses its first row, which says what vectors there are.
    pub(crate) fn open(path: &Path, options: &ReadOptions) -> Result<Self, DataError> {
        let mut lines = Lines::open(path)?;
        if !lines.next(0)? {
            return Self::empty(path, options, lines);
        }
        let first = parse_row(&lines.line, options).map_err(|bad| bad.at(path, 0))?;
        if first.vectors.is_empty() && options.content == Content::Points {
            return Err(missing_vectors(options).at(path, 0));
        }
        if let (None, Some(missing), true) = (first.id, &options.id_column, options.id_required) {
            let fix = "name the key that holds the ids with --id-column, or number the rows with --row-ids";
            return Err(BadValue::new(missing, "an id", "no such key", fix).at(path, 0));
        }
        for (name, vector) in &first.vectors {
            if !(1..=limits::MAX_DIMENSION).contains(&vector.len()) {
                let expected = format!("1 to {} numbers", limits::MAX_DIMENSION);
                let fix = "check how the file was written";
                return Err(BadValue::new(place(name), expected, vector.len().to_string(), fix).at(path, 0));
            }
        }
        let column = |vector: &Vec<f32>| VectorColumn { dimension: vector.len(), element: None };
        let vectors = first.vectors.iter().map(|(name, vector)| (name.clone(), column(vector))).collect();
        let summary = Summary { format: Format::Jsonl, rows: None, vectors, has_ids: first.id.is_some(), metric: None };
        let lines = Lines::open(path)?;
        Ok(Self { path: path.to_owned(), options: options.clone(), lines, summary, next: 0 })
    }

    /// A file without lines, which is all that an export of no points writes.
    fn empty(path: &Path, options: &ReadOptions, lines: Lines) -> Result<Self, DataError> {
        if lines.bytes_total == 0 && path.extension().is_some_and(|ending| ending == "gz") {
            // Even of nothing gzip makes some bytes.
            return Err(DataError::size(path, "a gzip stream".to_owned(), "0 bytes".to_owned()));
        }
        let summary =
            Summary { format: Format::Jsonl, rows: Some(0), vectors: Default::default(), has_ids: false, metric: None };
        Ok(Self { path: path.to_owned(), options: options.clone(), lines, summary, next: 0 })
    }

    fn parse(&self, line: &[u8], row: u64) -> Result<Row, DataError> {
        let parsed = parse_row(line, &self.options).and_then(|parsed| self.check(parsed));
        parsed.map_err(|bad| bad.at(&self.path, row))
    }

    /// Checks that a row is like the first one.
    fn check(&self, row: Row) -> Result<Row, BadValue> {
        for (name, column) in &self.summary.vectors {
            let fix = "every row needs the same vectors: mend the row or leave it out";
            let expected = format!("{} numbers, as in row 0", column.dimension);
            match row.vectors.get(name) {
                Some(vector) if vector.len() == column.dimension => {}
                Some(vector) => return Err(BadValue::new(place(name), expected, vector.len().to_string(), fix)),
                None => return Err(BadValue::new(place(name), expected, "nothing", fix)),
            }
        }
        if let Some(extra) = row.vectors.keys().find(|name| !self.summary.vectors.contains_key(*name)) {
            let fix = "every row needs the same vectors: mend the row or leave it out";
            return Err(BadValue::new(place(extra), "only the vectors of row 0", "a further vector", fix));
        }
        if row.id.is_some() != self.summary.has_ids {
            let (expected, found) =
                if row.id.is_some() { ("no id, as in row 0", "one") } else { ("an id, as in row 0", "none") };
            let column = self.options.id_column.as_deref().unwrap_or("id");
            return Err(BadValue::new(
                column,
                expected,
                found,
                "give every row an id, or number the rows with --row-ids",
            ));
        }
        Ok(row)
    }
}

fn place(name: &str) -> String {
    if name.is_empty() { "vector".to_owned() } else { format!("vectors[\"{name}\"]") }
}

fn missing_vectors(options: &ReadOptions) -> BadValue {
    let keys = match &options.vector_columns[..] {
        [] => "`vector` or `vectors`".to_owned(),
        columns => columns.iter().map(|(_, column)| format!("`{column}`")).collect::<Vec<_>>().join(", "),
    };
    let fix = "name the key that holds the vector with --vector-column, or give the vectors in a file of their own";
    BadValue::new("vector", format!("the key {keys}"), "none", fix)
}

impl RowReader for JsonlReader {
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
        if row < self.next {
            self.lines = Lines::open(&self.path)?;
            self.next = 0;
        }
        while self.next < row && self.lines.next(self.next)? {
            self.next += 1;
        }
        Ok(())
    }

    fn read(&mut self, max_rows: usize) -> Result<Vec<Row>, DataError> {
        let mut rows = Vec::new();
        while rows.len() < max_rows && self.lines.next(self.next)? {
            rows.push(self.parse(&self.lines.line, self.next)?);
            self.next += 1;
        }
        Ok(rows)
    }

    fn count(&mut self) -> Result<u64, DataError> {
        let mut lines = Lines::open(&self.path)?;
        let mut rows = 0;
        while lines.next(rows)? {
            rows += 1;
        }
        Ok(rows)
    }

    fn fraction(&self) -> f64 {
        self.lines.bytes_read.load(Ordering::Relaxed) as f64 / self.lines.bytes_total.max(1) as f64
    }
}

/// The lines of a file that is perhaps gzipped, without their ends.
struct Lines {
    path: PathBuf,
    source: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    /// Bytes of the file, as it lies on the disk, that have been read.
    bytes_read: Arc<AtomicU64>,
    bytes_total: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::io(path, "open the file"))?;
        let bytes_total = file.metadata().map_err(DataError::io(path, "read the file's size"))?.len();
        let bytes_read = Arc::new(AtomicU64::new(0));
        let counted = Counted { file, bytes_read: Arc::clone(&bytes_read) };
        let mut plain = BufReader::with_capacity(BUFFER_BYTES, counted);
        let gzipped = plain.fill_buf().map_err(DataError::io(path, "read the file"))?.starts_with(GZIP_MARK);
        let source: Box<dyn BufRead + Send> = if gzipped {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(plain)))
        } else {
            Box::new(plain)
        };
        let mut lines = Self { path: path.to_owned(), source, line: Vec::new(), bytes_read, bytes_total };
        // Some editors begin a file with a byte order mark.
        if lines.source.fill_buf().map_err(|error| unreadable(path, 0, error))?.starts_with(BYTE_ORDER_MARK) {
            lines.source.consume(BYTE_ORDER_MARK.len());
        }
        Ok(lines)
    }

    /// Reads the line of row `row`, which is the next one, into `line`; false at the end of the file. Blank lines
    /// are allowed there only.
    fn next(&mut self, row: u64) -> Result<bool, DataError> {
        if self.next_line(row)? {
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
            while self.next_line(row)? {
                if !self.line.trim_ascii().is_empty() {
                    let fix = "remove the blank line";
                    return Err(BadValue::new("line", "a JSON object", "a blank line", fix).at(&self.path, row));
                }
            }
        }
        Ok(false)
    }

    fn next_line(&mut self, row: u64) -> Result<bool, DataError> {
        self.line.clear();
        let mut bounded = (&mut self.source).take(MAX_LINE_BYTES as u64 + 1);
        let read = bounded.read_until(b'\n', &mut self.line).map_err(|error| unreadable(&self.path, row, error))?;
        if self.line.len() > MAX_LINE_BYTES {
            let expected = format!("at most {} MiB", MAX_LINE_BYTES >> 20);
            let fix = "write one JSON object per line";
            return Err(BadValue::new("line", expected, "a longer line", fix).at(&self.path, row));
        }
        Ok(read > 0)
    }
}

/// Tells a damaged gzip stream from a disk that fails.
fn unreadable(path: &Path, row: u64, error: io::Error) -> DataError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            let fix = "the file is damaged or was cut off: copy or download it again";
            BadValue::new("line", "a sound gzip stream", error.to_string(), fix).at(path, row)
        }
        _ => DataError::io(path, "read the file")(error),
    }
}

/// A file that counts what is read from it.
struct Counted {
    file: File,
    bytes_read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
