//! The reference: plain Rust for any processor.

use sagitta_engine::index::LANES;

use super::{CHUNK, Encoding, Kernels, half};

pub(super) static KERNELS: Kernels = Kernels {
    name: "scalar",
    dots,
    sums: [
        [sum::<U8, false>, sum::<U8, true>],
        [sum::<F16, false>, sum::<F16, true>],
        [sum::<F32, false>, sum::<F32, true>],
    ],
};

// Const parameters cannot be enums yet.
pub(super) const U8: u8 = Encoding::U8 as u8;
pub(super) const F16: u8 = Encoding::F16 as u8;
pub(super) const F32: u8 = Encoding::F32 as u8;

/// # Safety
/// As [`super::DotsFn`]: `chunks` chunks are readable at the query and at every row's code, and `out` has a place per row.
unsafe fn dots(query: *const i8, chunks: usize, codes: *const u8, stride: usize, rows: &[u32], out: *mut i32) {
    // SAFETY: the caller's promise.
    let query = unsafe { std::slice::from_raw_parts(query, chunks * CHUNK) };
    for (at, &row) in rows.iter().enumerate() {
        // SAFETY: the caller's promise.
        let code = unsafe { std::slice::from_raw_parts(codes.add(row as usize * stride), chunks * CHUNK) };
        let product = query.iter().zip(code).map(|(&q, &c)| i32::from(q) * i32::from(c)).sum();
        // SAFETY: the caller's promise.
        unsafe { out.add(at).write(product) };
    }
}

/// # Safety
/// As [`super::SumFn`]: `row` has as many values as the query, in the encoding.
unsafe fn sum<const ENCODING: u8, const SQUARES: bool>(query: &[f32], row: *const u8) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    for (at, &q) in query.iter().enumerate() {
        // SAFETY: `at` is a value of the query, and so of the row.
        let r = unsafe { load::<ENCODING>(row, at) };
        lanes[at % LANES] += if SQUARES { (q - r) * (q - r) } else { q * r };
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Value `at` of an encoded row.
///
/// # Safety
/// The row has such a value.
#[inline]
pub(super) unsafe fn load<const ENCODING: u8>(row: *const u8, at: usize) -> f32 {
    // SAFETY: the caller's promise; rows are not aligned.
    unsafe {
        match ENCODING {
            U8 => f32::from(*row.add(at)),
            F16 => half::to_f32(row.cast::<u16>().add(at).read_unaligned()),
            _ => row.cast::<f32>().add(at).read_unaligned(),
        }
    }
}

/// The values from `from` on, padded with zeros: what is left of a row when whole steps are done.
///
/// # Safety
/// The row has at least `len` values, and fewer than `LANES` are left.
#[inline]
pub(super) unsafe fn load_rest<const ENCODING: u8>(row: *const u8, from: usize, len: usize) -> [f32; LANES] {
    let mut rest = [0.0; LANES];
    for (lane, at) in (from..len).enumerate() {
        // SAFETY: `at` is below `len`.
        rest[lane] = unsafe { load::<ENCODING>(row, at) };
    }
    rest
}
