//! FAISS's inverted file of 4-bit product codes, owned.

use std::ffi::c_void;
use std::path::Path;
use std::ptr;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::{IndexError, IndexShape};
use sagitta_engine::mapped::{FileDigest, FileError, SealedFile, SealedFileWriter};
use sagitta_model::Metric;

use super::padded;
use crate::ffi::{self, outcome};

pub(crate) struct Inverted {
    handle: *mut ffi::Inverted,
    dim: usize,
    lists: usize,
    /// Bytes of the file that it was read from, which is about what it occupies.
    bytes: u64,
}

// SAFETY: the handle is owned, and FAISS objects are not tied to a thread.
unsafe impl Send for Inverted {}
// SAFETY: what takes `&self` calls only FAISS functions that leave the index as it is.
unsafe impl Sync for Inverted {}

impl Inverted {
    /// Learns the cells and the codes from a sample of padded rows.
    pub(super) fn train(
        dim: usize,
        lists: usize,
        codes: usize,
        metric: Metric,
        sample: &[f32],
        threads: usize,
    ) -> Result<Inverted, IndexError> {
        let mut handle = ptr::null_mut();
        let inner_product = metric != Metric::L2;
        let count = sample.len() / dim;
        // SAFETY: the sample holds `count` rows of `dim` values and is only read.
        let message = unsafe {
            ffi::sagitta_inverted_train(
                dim,
                lists,
                codes,
                inner_product,
                count,
                sample.as_ptr(),
                threads as i32,
                &mut handle,
            )
        };
        outcome("training a partition", message)?;
        Ok(Inverted { handle, dim, lists, bytes: 0 })
    }

    /// Adds padded rows, which are numbered on.
    pub(super) fn add(&mut self, rows: &[f32], threads: usize) -> Result<(), IndexError> {
        let count = rows.len() / self.dim;
        // SAFETY: there are `count` rows of `dim` values, and nobody else has the handle.
        let message = unsafe { ffi::sagitta_inverted_add(self.handle, count, rows.as_ptr(), threads as i32) };
        outcome("coding rows", message)
    }

    pub(super) fn write(&self, path: &Path) -> Result<FileDigest, IndexError> {
        let mut sink = Sink { writer: SealedFileWriter::create(path)?, error: None };
        let context: *mut Sink = &mut sink;
        // SAFETY: the handle is live, and `append` is given the sink that it expects, which outlives the call.
        let message = unsafe { ffi::sagitta_inverted_write(self.handle, append, context.cast()) };
        let written = outcome("writing an inverted file", message);
        if let Some(error) = sink.error {
            return Err(error.into());
        }
        written?;
        Ok(sink.writer.finish()?)
    }

    /// Reads a file that was written for an index of this shape. All of it is verified first, because FAISS trusts it.
    pub(crate) fn read(path: &Path, digest: &FileDigest, shape: IndexShape) -> Result<Inverted, IndexError> {
        let file = SealedFile::open(path, Some(digest))?;
        file.verify_all(&|| false)?;
        let mut handle = ptr::null_mut();
        // SAFETY: the bytes are those that FAISS wrote, and are copied.
        let message = unsafe { ffi::sagitta_inverted_read(file.bytes().as_ptr(), file.bytes().len(), &mut handle) };
        outcome("reading an inverted file", message)?;
        let (mut rows, mut dim, mut lists, mut code_bytes) = (0, 0, 0, 0);
        // SAFETY: the handle is live and the places are valid.
        unsafe { ffi::sagitta_inverted_shape(handle, &mut rows, &mut dim, &mut lists, &mut code_bytes) };
        let inverted = Inverted { handle, dim, lists, bytes: file.bytes().len() as u64 };
        if rows != shape.rows || dim != padded(shape.dim) {
            let reason = format!("it holds {rows} rows of {dim} dimensions");
            return Err(IndexError::Format { path: path.to_path_buf(), reason });
        }
        Ok(inverted)
    }

    pub(crate) fn lists(&self) -> usize {
        self.lists
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The rows nearest to the query by code, the best first, at most `k`.
    pub(crate) fn search(
        &self,
        query: &[f32],
        k: usize,
        probe: usize,
        allow: Option<&Bitmap>,
        rows: &mut Vec<u32>,
    ) -> Result<(), IndexError> {
        let mut padded_query = query.to_vec();
        padded_query.resize(self.dim, 0.0);
        let (mut found, mut distances) = (vec![-1; k], vec![0.0; k]);
        // The words of a bitmap are its bytes on the little-endian machines that we build for.
        let allow = allow.map_or(ptr::null(), |allow| allow.words().as_ptr().cast());
        // SAFETY: the handle is live; the query has `dim` values; a bitmap has a bit per row of this index (checked by the
        // caller), in whole words; both results have `k` places.
        let message = unsafe {
            ffi::sagitta_inverted_search(
                self.handle,
                padded_query.as_ptr(),
                k,
                probe,
                allow,
                found.as_mut_ptr(),
                distances.as_mut_ptr(),
            )
        };
        outcome("searching an inverted file", message)?;
        // Absent results are -1.
        rows.clear();
        rows.extend(found.into_iter().filter_map(|row| u32::try_from(row).ok()));
        Ok(())
    }
}

impl Drop for Inverted {
    fn drop(&mut self) {
        // SAFETY: the handle is live and is not used again.
        unsafe { ffi::sagitta_inverted_free(self.handle) };
    }
}

struct Sink {
    writer: SealedFileWriter,
    error: Option<FileError>,
}

extern "C" fn append(context: *mut c_void, bytes: *const u8, count: usize) -> bool {
    if count == 0 {
        return true;
    }
    // SAFETY: `Inverted::write` passes its sink, of which nobody else has a reference during the call, and the shim passes
    // `count` readable bytes.
    let (sink, bytes) = unsafe { (&mut *context.cast::<Sink>(), std::slice::from_raw_parts(bytes, count)) };
    match sink.writer.append(bytes) {
        Ok(()) => true,
        Err(error) => {
            sink.error = Some(error);
            false
        }
    }
}
