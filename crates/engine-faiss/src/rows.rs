//! The stored vectors of an index, without loss: what final scores are computed from and what reads give back.
//!
//! ```text
//! rows   one record per row: its values in the file's encoding, then, for cosine, its inverse norm as f32
//! ```

use std::path::Path;

use sagitta_engine::index::{IndexError, IndexShape, PreparedQuery, Rows, Stop, inverse_norm};
use sagitta_engine::mapped::{Access, FileDigest, SealedFile, SealedFileWriter};
use sagitta_model::Metric;

use crate::kernels::{Encoding, Kernels, f32_bytes, half, prefetch};

const NORM_BYTES: usize = size_of::<f32>();

/// Rows that are fetched while one is compared.
const FETCH_AHEAD: usize = 4;

/// Rows between two looks at whether to stop.
const ROWS_PER_CHECK: usize = 1024;

pub(crate) struct RowStore {
    file: SealedFile,
    shape: IndexShape,
    encoding: Encoding,
    stride: usize,
}

impl RowStore {
    /// Writes the rows in the narrowest encoding that holds every one of their values exactly.
    pub(crate) fn build(
        path: &Path,
        metric: Metric,
        rows: Rows<'_>,
        stop: &dyn Stop,
    ) -> Result<(Encoding, FileDigest), IndexError> {
        let encoding = narrowest(rows.values());
        let mut writer = SealedFileWriter::create(path)?;
        let mut record = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            if at.is_multiple_of(ROWS_PER_CHECK) && stop.should_stop() {
                return Err(IndexError::Stopped);
            }
            record.clear();
            match encoding {
                Encoding::U8 => record.extend(row.iter().map(|&value| value as u8)),
                Encoding::F16 => record.extend(row.iter().flat_map(|&value| {
                    let half = half::exactly_from_f32(value);
                    half.expect("invariant: every value was found to be a half").to_le_bytes()
                })),
                Encoding::F32 => record.extend_from_slice(f32_bytes(row)),
            }
            if metric == Metric::Cosine {
                record.extend_from_slice(&inverse_norm(row).to_le_bytes());
            }
            writer.append(&record)?;
        }
        Ok((encoding, writer.finish()?))
    }

    pub(crate) fn open(
        path: &Path,
        digest: &FileDigest,
        shape: IndexShape,
        encoding: Encoding,
    ) -> Result<RowStore, IndexError> {
        let file = SealedFile::open(path, Some(digest))?;
        let norm_bytes = if shape.metric == Metric::Cosine { NORM_BYTES } else { 0 };
        let stride = shape.dim * encoding.value_bytes() + norm_bytes;
        if file.bytes().len() != shape.rows * stride {
            let reason = "its length does not fit its number of rows".to_string();
            return Err(IndexError::Format { path: path.to_path_buf(), reason });
        }
        // Single rows are read, of which the next is elsewhere.
        file.advise(Access::Random);
        Ok(RowStore { file, shape, encoding, stride })
    }

    /// The exact similarity of the query to each of `rows`.
    pub(crate) fn similarities(
        &self,
        kernels: &Kernels,
        query: &PreparedQuery,
        rows: &[u32],
        out: &mut Vec<f32>,
    ) -> Result<(), IndexError> {
        out.clear();
        for &row in rows.iter().take(FETCH_AHEAD) {
            prefetch(self.record(row)?);
        }
        for (at, &row) in rows.iter().enumerate() {
            if let Some(&ahead) = rows.get(at + FETCH_AHEAD) {
                prefetch(self.record(ahead)?);
            }
            let (values, norm) = self.checked_record(row)?.split_at(self.value_bytes());
            let norm = <[u8; NORM_BYTES]>::try_from(norm).map_or(1.0, f32::from_le_bytes);
            out.push(kernels.similarity(query, self.encoding, values, norm));
        }
        Ok(())
    }

    /// The vector of a row, as it was given.
    pub(crate) fn read(&self, row: u32, out: &mut [f32]) -> Result<(), IndexError> {
        if out.len() != self.shape.dim {
            return Err(IndexError::Dimension { expected: self.shape.dim, actual: out.len() });
        }
        let values = &self.checked_record(row)?[..self.value_bytes()];
        match self.encoding {
            Encoding::U8 => out.iter_mut().zip(values).for_each(|(out, &byte)| *out = f32::from(byte)),
            Encoding::F16 => {
                let halves = values.as_chunks().0;
                out.iter_mut().zip(halves).for_each(|(out, &half)| *out = half::to_f32(u16::from_le_bytes(half)));
            }
            Encoding::F32 => {
                let floats = values.as_chunks().0;
                out.iter_mut().zip(floats).for_each(|(out, &float)| *out = f32::from_le_bytes(float));
            }
        }
        Ok(())
    }

    pub(crate) fn file(&self) -> &SealedFile {
        &self.file
    }

    fn value_bytes(&self) -> usize {
        self.shape.dim * self.encoding.value_bytes()
    }

    /// The bytes of a row; to be checked before they are believed.
    fn record(&self, row: u32) -> Result<&[u8], IndexError> {
        let at = self.shape.check_row(row)? * self.stride;
        Ok(&self.file.bytes()[at..at + self.stride])
    }

    fn checked_record(&self, row: u32) -> Result<&[u8], IndexError> {
        let record = self.record(row)?;
        let at = row as usize * self.stride;
        self.file.check(at..at + self.stride)?;
        Ok(record)
    }
}

fn narrowest(values: &[f32]) -> Encoding {
    // By bits: -0.0 equals 0 but is not the same value to give back.
    if values.iter().all(|value| f32::from(*value as u8).to_bits() == value.to_bits()) {
        Encoding::U8
    } else if values.iter().all(|&value| half::exactly_from_f32(value).is_some()) {
        Encoding::F16
    } else {
        Encoding::F32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_exact_encoding_is_chosen() {
        let check = |values: &[f32], expected| assert_eq!(narrowest(values), expected, "{values:?}");
        check(&[0.0, 1.0, 255.0], Encoding::U8);
        check(&[0.0, 256.0], Encoding::F16);
        check(&[0.0, -0.0], Encoding::F16);
        check(&[0.5, -2.25], Encoding::F16);
        check(&[1.0, 0.1], Encoding::F32);
        check(&[1.0, 1e6], Encoding::F32);
        check(&[f32::MIN_POSITIVE / 2.0], Encoding::F32);
    }
}
