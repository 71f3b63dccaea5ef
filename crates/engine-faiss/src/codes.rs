//! Codes of one byte per dimension, by which candidates are found.
//!
//! A value `x` of dimension `i` is coded as `c = round((x - low[i]) / step[i])`, clamped to a byte. A query's weights
//! `(q[i] - centre[i]) * step[i]` are rounded to signed bytes times one scale, so that an integer dot product of query and
//! code estimates the inner product up to a constant of the query. L2 adds the row's negative squared distance from the
//! centre, which makes the *key* of a row `2 q.x - x.x`, again up to a constant. A greater key is nearer.
//!
//! ```text
//! codes   one record per row: a byte per dimension, then, for L2, the correction as f32; then padding to read over
//! ```

use std::path::Path;

use sagitta_engine::index::{IndexError, IndexShape, PreparedQuery, Rows, Stop, inverse_norm};
use sagitta_engine::mapped::{FileDigest, SealedFile, SealedFileWriter};
use sagitta_model::Metric;

use crate::kernels::{CHUNK, CodeRows, Kernels, QueryCode};

mod calibrate;

const CORRECTION_BYTES: usize = size_of::<f32>();

/// Rows whose codes are fetched together, while those before them are compared.
const FETCHED: usize = 8;

/// Rows between two looks at whether to stop.
const ROWS_PER_CHECK: usize = 1024;

/// Largest magnitude of a query's code: -128 is not used, so that the codes of `q` and `-q` mirror each other.
const QUERY_MAX: f32 = 127.0;

/// How the vectors of one index are coded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CodeSpace {
    metric: Metric,
    low: Vec<f32>,
    step: Vec<f32>,
    /// All zero unless L2.
    centre: Vec<f32>,
}

/// A vector as a query: `key(row) = scale * dot(code, row) + correction(row)`.
pub(crate) struct CodedQuery {
    pub(crate) code: QueryCode,
    pub(crate) scale: f32,
}

impl CodeSpace {
    /// Chooses the coding for these rows, by a sample of them.
    pub(crate) fn calibrate(metric: Metric, rows: Rows<'_>) -> CodeSpace {
        calibrate::calibrate(metric, rows)
    }

    /// Of low, step and centre, which all have one value per dimension.
    pub(crate) fn from_parts(metric: Metric, [low, step, centre]: [Vec<f32>; 3]) -> CodeSpace {
        CodeSpace { metric, low, step, centre }
    }

    pub(crate) fn parts(&self) -> [&[f32]; 3] {
        [&self.low, &self.step, &self.centre]
    }

    pub(crate) fn dim(&self) -> usize {
        self.low.len()
    }

    pub(crate) fn has_correction(&self) -> bool {
        self.metric == Metric::L2
    }

    /// Bytes of a record.
    pub(crate) fn stride(&self) -> usize {
        self.dim() + if self.has_correction() { CORRECTION_BYTES } else { 0 }
    }

    /// Appends the record of a row.
    pub(crate) fn encode(&self, row: &[f32], record: &mut Vec<u8>) {
        let factor = self.factor(row);
        for ((&value, &low), &step) in row.iter().zip(&self.low).zip(&self.step) {
            // A float-to-integer cast saturates, which is the clamping.
            record.push(((value * factor - low) / step).round() as u8);
        }
        if self.has_correction() {
            record.extend_from_slice(&self.correction(row).to_le_bytes());
        }
    }

    /// The query's code. Its values are normalised already where that matters.
    pub(crate) fn query(&self, query: &PreparedQuery) -> CodedQuery {
        let (code, scale) = self.query_code(query.values(), 1.0);
        CodedQuery { code: QueryCode::new(&code), scale: scale * self.key_factor() }
    }

    fn query_code(&self, values: &[f32], factor: f32) -> (Vec<i8>, f32) {
        let weight = |at: usize| (values[at] * factor - self.centre[at]) * self.step[at];
        let largest = (0..values.len()).map(|at| weight(at).abs()).fold(0.0, f32::max);
        // Of a query without any weight every key is the same.
        let scale = if largest > 0.0 { largest / QUERY_MAX } else { 1.0 };
        ((0..values.len()).map(|at| (weight(at) / scale).round() as i8).collect(), scale)
    }

    /// What a row is multiplied by before it is coded: normalised for cosine.
    fn factor(&self, row: &[f32]) -> f32 {
        if self.metric == Metric::Cosine { inverse_norm(row) } else { 1.0 }
    }

    /// L2's key is twice the inner product.
    fn key_factor(&self) -> f32 {
        if self.metric == Metric::L2 { 2.0 } else { 1.0 }
    }

    fn correction(&self, row: &[f32]) -> f32 {
        -self.squared_from_centre(row)
    }

    fn squared_from_centre(&self, row: &[f32]) -> f32 {
        let squares = row.iter().zip(&self.centre).map(|(&value, &centre)| f64::from(value - centre).powi(2));
        squares.sum::<f64>() as f32
    }
}

/// The rows as queries of one another, for building a graph by codes alone: the distance of row `i` to row `j`, up to rounding, is
/// `offset[i] - scale[i] * dot(code i as query, code j) - correction[j]`.
pub(crate) struct RowQueries {
    /// `stride` bytes per row, zero padded to whole chunks.
    pub(crate) codes: Vec<i8>,
    pub(crate) stride: usize,
    pub(crate) offset: Vec<f32>,
    pub(crate) scale: Vec<f32>,
}

impl RowQueries {
    pub(crate) fn new(space: &CodeSpace, rows: Rows<'_>) -> RowQueries {
        let stride = space.dim().next_multiple_of(CHUNK);
        let mut queries = RowQueries {
            codes: Vec::with_capacity(rows.len() * stride),
            stride,
            offset: Vec::with_capacity(rows.len()),
            scale: Vec::with_capacity(rows.len()),
        };
        for row in rows.iter() {
            let factor = space.factor(row);
            let (code, scale) = space.query_code(row, factor);
            queries.codes.extend_from_slice(&code);
            queries.codes.resize(queries.codes.len().next_multiple_of(stride), 0);
            queries.scale.push(scale * space.key_factor());
            // The part of the inner product that all codes share.
            let shared: f64 = (0..row.len())
                .map(|at| {
                    let from_centre = f64::from(row[at] * factor - space.centre[at]);
                    from_centre * f64::from(space.low[at] - space.centre[at])
                })
                .sum();
            let squared = if space.has_correction() { f64::from(space.squared_from_centre(row)) } else { 0.0 };
            queries.offset.push((squared - shared * f64::from(space.key_factor())) as f32);
        }
        queries
    }
}

/// The codes of an index, mapped.
pub(crate) struct CodeStore {
    file: SealedFile,
    space: CodeSpace,
    rows: usize,
}

impl CodeStore {
    pub(crate) fn build(
        path: &Path,
        space: &CodeSpace,
        rows: Rows<'_>,
        stop: &dyn Stop,
    ) -> Result<FileDigest, IndexError> {
        let mut writer = SealedFileWriter::create(path)?;
        let mut record = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            if at.is_multiple_of(ROWS_PER_CHECK) && stop.should_stop() {
                return Err(IndexError::Stopped);
            }
            record.clear();
            space.encode(row, &mut record);
            writer.append(&record)?;
        }
        let needed = CodeRows::bytes_needed(space.dim(), space.stride(), rows.len());
        writer.append(&vec![0; needed - writer.position() as usize])?;
        Ok(writer.finish()?)
    }

    pub(crate) fn open(
        path: &Path,
        digest: &FileDigest,
        shape: IndexShape,
        space: CodeSpace,
    ) -> Result<CodeStore, IndexError> {
        let file = SealedFile::open(path, Some(digest))?;
        if file.bytes().len() != CodeRows::bytes_needed(shape.dim, space.stride(), shape.rows) {
            let reason = "its length does not fit its number of rows".to_string();
            return Err(IndexError::Format { path: path.to_path_buf(), reason });
        }
        Ok(CodeStore { file, space, rows: shape.rows })
    }

    pub(crate) fn space(&self) -> &CodeSpace {
        &self.space
    }

    pub(crate) fn file(&self) -> &SealedFile {
        &self.file
    }

    pub(crate) fn codes(&self) -> CodeRows<'_> {
        CodeRows::new(self.file.bytes(), self.space.dim(), self.space.stride(), self.rows)
    }

    /// The key of each of `rows`, all of which must be rows of this index. `dots` is scratch.
    #[inline]
    pub(crate) fn keys(
        &self,
        kernels: &Kernels,
        query: &CodedQuery,
        rows: &[u32],
        dots: &mut Vec<i32>,
        keys: &mut Vec<f32>,
    ) -> Result<(), IndexError> {
        if !self.file.is_verified() {
            self.check(rows)?;
        }
        dots.resize(rows.len(), 0);
        let codes = self.codes();
        let mut ahead = rows.chunks(FETCHED);
        ahead.by_ref().take(1).flatten().for_each(|&row| codes.prefetch(row));
        for (rows, dots) in rows.chunks(FETCHED).zip(dots.chunks_mut(FETCHED)) {
            ahead.by_ref().take(1).flatten().for_each(|&row| codes.prefetch(row));
            kernels.dots(&query.code, &codes, rows, dots);
        }
        keys.clear();
        if self.space.has_correction() {
            let corrected = |(&row, &dot): (&u32, &i32)| dot as f32 * query.scale + self.correction(row);
            keys.extend(rows.iter().zip(&*dots).map(corrected));
        } else {
            keys.extend(dots.iter().map(|&dot| dot as f32 * query.scale));
        }
        Ok(())
    }

    #[cold]
    fn check(&self, rows: &[u32]) -> Result<(), IndexError> {
        let stride = self.space.stride();
        for &row in rows {
            self.file.check(row as usize * stride..(row as usize + 1) * stride)?;
        }
        Ok(())
    }

    #[inline]
    fn correction(&self, row: u32) -> f32 {
        let at = row as usize * self.space.stride() + self.space.dim();
        let mut bytes = [0; CORRECTION_BYTES];
        bytes.copy_from_slice(&self.file.bytes()[at..at + CORRECTION_BYTES]);
        f32::from_le_bytes(bytes)
    }
}
