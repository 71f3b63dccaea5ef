//! Comparisons in vector instructions: AVX-512 with VNNI, AVX2, or plain Rust, chosen once when the process first asks.
//!
//! Two families. *Codes*: dot products of bytes with signed bytes, summed exactly in 32 bits, for finding candidates.
//! *Rows*: similarities of stored vectors in f32, for final scores; their order of operations is fixed by
//! [`sagitta_engine::index::Similarities`], so that all levels, and the reference in plain Rust, agree to the last bit.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod half;
mod scalar;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use sagitta_engine::index::{PreparedQuery, Similarities};
use sagitta_model::Metric;

/// Codes are compared in chunks of this many bytes: one AVX-512 register. Query codes are padded to it with zeros, and
/// behind the last row's code as many bytes must be readable.
pub(crate) const CHUNK: usize = 64;

/// Bytes that the processor fetches at once.
const CACHE_LINE: usize = 64;

/// How the values of a stored row are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Whole numbers of 0 to 255 in one byte.
    U8,
    /// IEEE 754 half precision, little endian.
    F16,
    /// IEEE 754 single precision, little endian.
    F32,
}

impl Encoding {
    pub(crate) fn value_bytes(self) -> usize {
        match self {
            Encoding::U8 => 1,
            Encoding::F16 => 2,
            Encoding::F32 => 4,
        }
    }
}

/// `out[i]` = dot product of the query with the code of `rows[i]`; `chunks` chunks from `codes + rows[i] * stride`.
type DotsFn = unsafe fn(query: *const i8, chunks: usize, codes: *const u8, stride: usize, rows: &[u32], out: *mut i32);

/// The sum over all values of `q * r`, or of `(q - r)^2`.
type SumFn = unsafe fn(query: &[f32], row: *const u8) -> f32;

/// One level of vector instructions.
pub(crate) struct Kernels {
    name: &'static str,
    dots: DotsFn,
    /// By encoding (u8, f16, f32), then dot product and squared distance.
    sums: [[SumFn; 2]; 3],
}

impl Kernels {
    /// The best level that this processor has.
    pub(crate) fn get() -> &'static Kernels {
        static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
        CHOSEN.get_or_init(|| Kernels::available()[0])
    }

    /// All levels that this processor has, the best first.
    pub(crate) fn available() -> Vec<&'static Kernels> {
        let mut levels: Vec<&'static Kernels> = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if avx512::is_available() {
                levels.push(&avx512::KERNELS);
            }
            if avx2::is_available() {
                levels.push(&avx2::KERNELS);
            }
        }
        levels.push(&scalar::KERNELS);
        levels
    }

    /// Compares the query with the codes of `rows`, in their order.
    ///
    /// # Panics
    /// If a row is outside `codes`, or the lengths of `rows` and `out` differ.
    #[inline]
    pub(crate) fn dots(&self, query: &QueryCode, codes: &CodeRows<'_>, rows: &[u32], out: &mut [i32]) {
        assert_eq!(rows.len(), out.len(), "one product per row");
        assert_eq!(query.chunks, codes.chunks, "codes of one length");
        assert!(rows.iter().all(|&row| row < codes.rows), "a row outside the codes");
        // SAFETY: this level is one that the processor has (`available`). The query holds `chunks` chunks. Every row is
        // below `codes.rows`, so its chunks are inside the slice (`CodeRows::new`). `out` has one place per row.
        unsafe {
            (self.dots)(
                query.bytes().as_ptr(),
                query.chunks,
                codes.bytes.as_ptr(),
                codes.stride,
                rows,
                out.as_mut_ptr(),
            );
        }
    }

    /// As [`Kernels::dots`], for the C++ side.
    ///
    /// # Safety
    /// `chunks` chunks are readable at the query and at `codes + row * stride` for each row, and `out` has a place per row.
    pub(crate) unsafe fn dots_unchecked(
        &self,
        query: *const i8,
        chunks: usize,
        codes: *const u8,
        stride: usize,
        rows: &[u32],
        out: *mut i32,
    ) {
        // SAFETY: this level is one that the processor has; the rest is the caller's promise.
        unsafe { (self.dots)(query, chunks, codes, stride, rows, out) };
    }

    /// The similarity of the query to an encoded row, of which `row` holds exactly the values.
    #[inline]
    pub(crate) fn similarity(&self, query: &PreparedQuery, encoding: Encoding, row: &[u8], inverse_norm: f32) -> f32 {
        assert_eq!(row.len(), query.dim() * encoding.value_bytes(), "dimensions of query and row");
        let sums = &self.sums[encoding as usize];
        // SAFETY: this level is one that the processor has, and the row has as many values as the query.
        let sum = |squares: usize| unsafe { sums[squares](query.values(), row.as_ptr()) };
        let similarity = match query.metric() {
            Metric::InnerProduct => sum(0),
            Metric::Cosine => sum(0) * inverse_norm,
            Metric::L2 => 0.0 - sum(1),
        };
        similarity + 0.0
    }
}

impl Similarities for Kernels {
    fn many(&self, query: &PreparedQuery, rows: &[f32], inverse_norms: &[f32], out: &mut [f32]) {
        assert_eq!(rows.len(), out.len() * query.dim(), "one similarity per row");
        let cosine = query.metric() == Metric::Cosine;
        assert!(!cosine || inverse_norms.len() == out.len(), "one inverse norm per row");
        for (at, (row, out)) in rows.chunks_exact(query.dim()).zip(out).enumerate() {
            let inverse_norm = if cosine { inverse_norms[at] } else { 1.0 };
            *out = self.similarity(query, Encoding::F32, f32_bytes(row), inverse_norm);
        }
    }

    fn name(&self) -> &'static str {
        self.name
    }
}

/// A query as signed bytes, padded to whole chunks and aligned to a cache line.
#[derive(Debug)]
pub(crate) struct QueryCode {
    lines: Vec<Line>,
    chunks: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line([i8; CHUNK]);

impl QueryCode {
    pub(crate) fn new(code: &[i8]) -> QueryCode {
        let line = |chunk: &[i8]| {
            let mut line = Line([0; CHUNK]);
            line.0[..chunk.len()].copy_from_slice(chunk);
            line
        };
        let lines: Vec<Line> = code.chunks(CHUNK).map(line).collect();
        QueryCode { chunks: lines.len(), lines }
    }

    fn bytes(&self) -> &[i8] {
        // SAFETY: a `Line` is `CHUNK` bytes without padding (its size equals its alignment).
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * CHUNK) }
    }
}

/// The codes of all rows: `rows` records of `stride` bytes, each beginning with a code of `dim` bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodeRows<'a> {
    bytes: &'a [u8],
    stride: usize,
    rows: u32,
    chunks: usize,
}

impl<'a> CodeRows<'a> {
    /// How many bytes the codes of so many rows must have: whole chunks are read of the last one too.
    pub(crate) fn bytes_needed(dim: usize, stride: usize, rows: usize) -> usize {
        rows * stride + dim.next_multiple_of(CHUNK)
    }

    /// # Panics
    /// If there are too few bytes.
    pub(crate) fn new(bytes: &'a [u8], dim: usize, stride: usize, rows: usize) -> CodeRows<'a> {
        assert!(bytes.len() >= CodeRows::bytes_needed(dim, stride, rows), "codes are cut short");
        CodeRows { bytes, stride, rows: rows as u32, chunks: dim.div_ceil(CHUNK) }
    }

    /// Asks the processor to fetch the code of a row.
    #[inline]
    pub(crate) fn prefetch(&self, row: u32) {
        let at = row as usize * self.stride;
        prefetch(&self.bytes[at..at + self.stride]);
    }
}

/// Asks the processor to fetch memory that will be read soon.
#[inline]
pub(crate) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes.len()).step_by(CACHE_LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching reads nothing that the program can see, at any address; this one is inside the slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, CACHE_LINE);
}

/// The bytes of values as they are in memory. Encoded rows are little endian, as all machines that we build for are.
pub(crate) fn f32_bytes(values: &[f32]) -> &[u8] {
    const { assert!(cfg!(target_endian = "little")) };
    // SAFETY: f32 has no padding, u8 needs no alignment, and every bit pattern is a valid u8.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
