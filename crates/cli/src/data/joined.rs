//! Several files read side by side, row by row: vectors, payloads and ids.

use std::path::Path;

use super::error::{BadValue, DataError, grouped};
use super::{IdFile, Row, RowReader, Summary};

/// A file of vectors with the payloads and the ids of its rows from other files.
pub struct Joined {
    vectors: Box<dyn RowReader>,
    payloads: Option<Box<dyn RowReader>>,
    ids: Option<IdFile>,
    summary: Summary,
}

impl Joined {
    /// Joins the files after checking that they have the same number of rows; counting the lines of a payload file
    /// reads through it, because rows that are off by one would otherwise be found after they were imported.
    pub fn new(
        mut vectors: Box<dyn RowReader>,
        mut payloads: Option<Box<dyn RowReader>>,
        ids: Option<IdFile>,
    ) -> Result<Self, DataError> {
        let mut summary = vectors.summary().clone();
        if let Some(payloads) = &mut payloads {
            let (path, rows) = (payloads.path().to_owned(), payloads.count()?);
            summary.rows = Some(same_rows(vectors.as_mut(), &path, rows)?);
            summary.has_ids |= payloads.summary().has_ids;
        }
        if let Some(ids) = &ids {
            summary.rows = Some(same_rows(vectors.as_mut(), ids.path(), ids.rows())?);
            summary.has_ids = true;
        }
        Ok(Self { vectors, payloads, ids, summary })
    }
}

fn same_rows(vectors: &mut dyn RowReader, other: &Path, rows: u64) -> Result<u64, DataError> {
    let expected = vectors.count()?;
    if rows == expected {
        return Ok(rows);
    }
    let expected = format!("{}, as many as in {}", grouped(expected), vectors.path().display());
    let fix = "row i of each file must belong to the same point: name files that belong together";
    Err(DataError::file(other, "rows", expected, grouped(rows), fix))
}

impl RowReader for Joined {
    fn path(&self) -> &Path {
        self.vectors.path()
    }

    fn summary(&self) -> &Summary {
        &self.summary
    }

    fn position(&self) -> u64 {
        self.vectors.position()
    }

    fn seek(&mut self, row: u64) -> Result<(), DataError> {
        self.vectors.seek(row)?;
        self.payloads.as_mut().map_or(Ok(()), |payloads| payloads.seek(row))
    }

    fn read(&mut self, max_rows: usize) -> Result<Vec<Row>, DataError> {
        let first = self.position();
        let mut rows = self.vectors.read(max_rows)?;
        if let Some(payloads) = &mut self.payloads {
            let more = payloads.read(rows.len())?;
            shrunk(payloads.path(), first, rows.len(), more.len())?;
            for ((row, more), at) in rows.iter_mut().zip(more).zip(first..) {
                adopt_id(row, more.id, payloads.path(), at)?;
                row.payload.extend(more.payload);
            }
        }
        if let Some(ids) = &mut self.ids {
            let more = ids.read(first, rows.len())?;
            shrunk(ids.path(), first, rows.len(), more.len())?;
            for ((row, id), at) in rows.iter_mut().zip(more).zip(first..) {
                adopt_id(row, Some(id), ids.path(), at)?;
            }
        }
        Ok(rows)
    }

    fn count(&mut self) -> Result<u64, DataError> {
        self.vectors.count()
    }

    fn fraction(&self) -> f64 {
        self.vectors.fraction()
    }
}

/// Refuses a side file that has become shorter since its rows were counted.
fn shrunk(path: &Path, first: u64, expected: usize, found: usize) -> Result<(), DataError> {
    if found == expected {
        return Ok(());
    }
    let fix = "the file changed while it was read: start again when it is complete";
    Err(BadValue::new("row", "one", "the end of the file", fix).at(path, first + found as u64))
}

fn adopt_id(row: &mut Row, id: Option<sagitta_model::PointId>, path: &Path, at: u64) -> Result<(), DataError> {
    match (row.id, id) {
        (Some(one), Some(other)) if one != other => {
            let fix = "the files give this row different ids: name files that belong together, or only one with ids";
            Err(BadValue::new("id", one.to_string(), other.to_string(), fix).at(path, at))
        }
        (one, other) => {
            row.id = one.or(other);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
