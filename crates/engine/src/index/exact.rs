//! The twin of a native engine, in plain Rust: keeps the vectors as they are and compares with every one. It honours the
//! whole contract of the port, and its answers are the truth that other engines are tested against.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use sagitta_model::Metric;

use super::{
    BuildControl, Built, Candidate, IndexEngine, IndexError, IndexFile, IndexMemory, IndexShape, IndexSpec,
    PreparedQuery, RowSet, Rows, ScalarKernel, ScanParams, SearchParams, SearchStats, Similarities, Stop,
    TopCandidates, VectorIndex, check_vector, inverse_norm,
};
use crate::mapped::{SealedFile, SealedFileWriter};

const FILE_NAME: &str = "exact";

/// Rows between two looks at whether to stop.
const ROWS_PER_CHECK: usize = 256;

/// Builds and opens indexes of any kind, all of them by brute force.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExactEngine;

impl IndexEngine for ExactEngine {
    fn build(
        &self,
        spec: &IndexSpec,
        rows: Rows<'_>,
        dir: &Path,
        control: &BuildControl<'_>,
    ) -> Result<Built, IndexError> {
        spec.check(&rows)?;
        let shape = IndexShape { rows: rows.len(), dim: spec.dim, metric: spec.metric, kind: spec.kind };
        let mut writer = SealedFileWriter::create(&dir.join(FILE_NAME))?;
        writer.append(&shape.to_bytes())?;
        for (at, row) in rows.iter().enumerate() {
            if at.is_multiple_of(ROWS_PER_CHECK) {
                stop_if_asked(control.stop)?;
                (control.progress)(at as f32 / rows.len() as f32);
            }
            check_vector(spec.metric, row)?;
            for value in row {
                writer.append(&value.to_le_bytes())?;
            }
        }
        if spec.metric == Metric::Cosine {
            for row in rows.iter() {
                writer.append(&inverse_norm(row).to_le_bytes())?;
            }
        }
        let digest = writer.finish()?;
        (control.progress)(1.0);
        Ok(Built { files: vec![IndexFile { name: FILE_NAME.to_string(), digest }] })
    }

    fn open(&self, dir: &Path, files: &[IndexFile]) -> Result<Arc<dyn VectorIndex>, IndexError> {
        let path = dir.join(FILE_NAME);
        let expected = files.iter().find(|file| file.name == FILE_NAME);
        let Some(expected) = expected else {
            return Err(IndexError::Format { path, reason: "it is not among the files of the index".to_string() });
        };
        let file = SealedFile::open(&path, Some(&expected.digest))?;
        let wrong = |reason: String| IndexError::Format { path: path.clone(), reason };
        let head = file.bytes().get(..IndexShape::ENCODED_BYTES).ok_or_else(|| wrong("it has no head".to_string()))?;
        file.check(0..head.len())?;
        let shape = IndexShape::from_bytes(head).map_err(wrong)?;
        let index = ExactIndex { file, shape };
        if index.norm_at(shape.rows) != index.file.bytes().len() {
            return Err(wrong("its length does not fit its number of rows".to_string()));
        }
        Ok(Arc::new(index))
    }

    fn similarities(&self) -> &dyn Similarities {
        &ScalarKernel
    }
}

struct ExactIndex {
    file: SealedFile,
    shape: IndexShape,
}

impl VectorIndex for ExactIndex {
    fn shape(&self) -> IndexShape {
        self.shape
    }

    fn search(
        &self,
        query: &PreparedQuery,
        params: &SearchParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        let rows = params.allow.map_or(RowSet::All, RowSet::Bitmap);
        let exact = ScanParams { stop: params.stop, ..ScanParams::exact(params.k, rows) };
        self.search_rows(query, &exact, out)
    }

    fn search_rows(
        &self,
        query: &PreparedQuery,
        params: &ScanParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        out.clear();
        self.shape.check_query(query)?;
        params.rows.check(self.shape.rows)?;
        let mut scan = Scan { index: self, query, row: Vec::new(), best: TopCandidates::new(params.k), compared: 0 };
        match params.rows {
            RowSet::All => scan.compare_all(0..self.shape.rows as u32, params.stop)?,
            RowSet::List(list) => scan.compare_all(list.iter().copied(), params.stop)?,
            RowSet::Bitmap(bitmap) => scan.compare_all(bitmap.iter(), params.stop)?,
        }
        scan.best.drain_sorted(out);
        Ok(SearchStats { distances: scan.compared, expanded: 0, reranked: scan.compared })
    }

    fn similarities(&self, query: &PreparedQuery, rows: &[u32], out: &mut Vec<f32>) -> Result<(), IndexError> {
        out.clear();
        self.shape.check_query(query)?;
        let mut row_values = Vec::new();
        for &row in rows {
            out.push(self.similarity(query, row, &mut row_values)?);
        }
        Ok(())
    }

    fn read_row(&self, row: u32, out: &mut [f32]) -> Result<(), IndexError> {
        if out.len() != self.shape.dim {
            return Err(IndexError::Dimension { expected: self.shape.dim, actual: out.len() });
        }
        let at = self.row_at(self.shape.check_row(row)?);
        let end = at + self.shape.dim * VALUE_BYTES;
        self.file.check(at..end)?;
        for (out, bytes) in out.iter_mut().zip(self.file.bytes()[at..end].as_chunks::<VALUE_BYTES>().0) {
            *out = f32::from_le_bytes(*bytes);
        }
        Ok(())
    }

    fn verify(&self, stop: &dyn Stop) -> Result<bool, IndexError> {
        Ok(self.file.verify_all(&|| stop.should_stop())?)
    }

    fn memory(&self) -> IndexMemory {
        IndexMemory { mapped_hot: self.file.bytes().len() as u64, mapped_cold: 0, heap: 0 }
    }
}

const VALUE_BYTES: usize = size_of::<f32>();

impl ExactIndex {
    fn similarity(&self, query: &PreparedQuery, row: u32, values: &mut Vec<f32>) -> Result<f32, IndexError> {
        values.resize(self.shape.dim, 0.0);
        self.read_row(row, values)?;
        let inverse_norm = match self.shape.metric {
            Metric::Cosine => self.inverse_norm(row as usize)?,
            Metric::InnerProduct | Metric::L2 => 1.0,
        };
        Ok(ScalarKernel::one(query, values, inverse_norm))
    }

    fn inverse_norm(&self, row: usize) -> Result<f32, IndexError> {
        let at = self.norm_at(row);
        self.file.check(at..at + VALUE_BYTES)?;
        let mut bytes = [0; VALUE_BYTES];
        bytes.copy_from_slice(&self.file.bytes()[at..at + VALUE_BYTES]);
        Ok(f32::from_le_bytes(bytes))
    }

    fn row_at(&self, row: usize) -> usize {
        IndexShape::ENCODED_BYTES + row * self.shape.dim * VALUE_BYTES
    }

    /// Where the inverse norm of a row is; of the row behind the last one, where the file ends.
    fn norm_at(&self, row: usize) -> usize {
        let norms = if self.shape.metric == Metric::Cosine { row * VALUE_BYTES } else { 0 };
        self.row_at(self.shape.rows) + norms
    }
}

struct Scan<'a> {
    index: &'a ExactIndex,
    query: &'a PreparedQuery,
    row: Vec<f32>,
    best: TopCandidates,
    compared: u64,
}

impl Scan<'_> {
    fn compare_all(&mut self, rows: impl Iterator<Item = u32>, stop: &dyn Stop) -> Result<(), IndexError> {
        for (at, row) in rows.enumerate() {
            if at.is_multiple_of(ROWS_PER_CHECK) {
                stop_if_asked(stop)?;
            }
            let similarity = self.index.similarity(self.query, row, &mut self.row)?;
            self.best.offer(Candidate { row, similarity });
            self.compared += 1;
        }
        Ok(())
    }
}

fn stop_if_asked(stop: &dyn Stop) -> Result<(), IndexError> {
    if stop.should_stop() { Err(IndexError::Stopped) } else { Ok(()) }
}
