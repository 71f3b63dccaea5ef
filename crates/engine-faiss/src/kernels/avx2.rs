//! AVX2 with F16C: any x86-64 server since 2015.

use std::arch::x86_64::*;

use sagitta_engine::index::LANES;

use super::scalar::{F16, F32, U8, load_rest};
use super::{CHUNK, Kernels, f32_bytes};

pub(super) static KERNELS: Kernels = Kernels {
    name: "avx2",
    dots,
    sums: [
        [sum::<U8, false>, sum::<U8, true>],
        [sum::<F16, false>, sum::<F16, true>],
        [sum::<F32, false>, sum::<F32, true>],
    ],
};

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")
}

const REGISTER: usize = 32;

/// # Safety
/// As [`super::DotsFn`], on a processor where [`is_available`].
#[target_feature(enable = "avx2")]
unsafe fn dots(query: *const i8, chunks: usize, codes: *const u8, stride: usize, rows: &[u32], out: *mut i32) {
    for (at, &row) in rows.iter().enumerate() {
        // SAFETY: the caller's promise: `chunks` chunks are readable at both, and `out` has a place per row.
        unsafe {
            let code = codes.add(row as usize * stride);
            let mut sums = [_mm256_setzero_si256(); 2];
            for step in 0..chunks * CHUNK / REGISTER {
                for (half, sum) in sums.iter_mut().enumerate() {
                    let offset = step * REGISTER + half * (REGISTER / 2);
                    // Widened to 16 bits: the instruction for bytes would saturate.
                    let q = _mm256_cvtepi8_epi16(_mm_loadu_si128(query.add(offset).cast()));
                    let c = _mm256_cvtepu8_epi16(_mm_loadu_si128(code.add(offset).cast()));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(q, c));
                }
            }
            let sum = _mm256_add_epi32(sums[0], sums[1]);
            let four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            let one = _mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
            out.add(at).write(_mm_cvtsi128_si32(one));
        }
    }
}

const REGISTERS: usize = 4;
const REGISTER_LANES: usize = LANES / REGISTERS;

/// # Safety
/// As [`super::SumFn`], on a processor where [`is_available`].
#[target_feature(enable = "avx2,f16c")]
unsafe fn sum<const ENCODING: u8, const SQUARES: bool>(query: &[f32], row: *const u8) -> f32 {
    let steps = query.len() / LANES;
    let mut lanes = [_mm256_setzero_ps(); REGISTERS];
    for step in 0..steps {
        for (register, lanes) in lanes.iter_mut().enumerate() {
            let at = step * LANES + register * REGISTER_LANES;
            // SAFETY: eight values from `at` on are inside the query and the row.
            let (q, r) = unsafe { (_mm256_loadu_ps(query.as_ptr().add(at)), load::<ENCODING>(row, at)) };
            *lanes = add_term::<SQUARES>(*lanes, q, r);
        }
    }
    if !query.len().is_multiple_of(LANES) {
        let from = steps * LANES;
        // SAFETY: both have `query.len()` values, of which fewer than `LANES` are left.
        unsafe {
            let q = load_rest::<F32>(f32_bytes(query).as_ptr(), from, query.len());
            let r = load_rest::<ENCODING>(row, from, query.len());
            for (register, lanes) in lanes.iter_mut().enumerate() {
                let at = register * REGISTER_LANES;
                let (q, r) = (_mm256_loadu_ps(q.as_ptr().add(at)), _mm256_loadu_ps(r.as_ptr().add(at)));
                *lanes = add_term::<SQUARES>(*lanes, q, r);
            }
        }
    }
    // Lanes 0-15 are in the first two registers, 16-31 in the others.
    let low = _mm256_add_ps(lanes[0], lanes[2]);
    let high = _mm256_add_ps(lanes[1], lanes[3]);
    add_lanes(_mm256_add_ps(low, high))
}

/// Adds lane `i + 4` to lane `i`, then `i + 2`, then `i + 1`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_lanes(eight: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    let one = _mm_add_ss(two, _mm_shuffle_ps::<0b01>(two, two));
    _mm_cvtss_f32(one)
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_term<const SQUARES: bool>(lanes: __m256, q: __m256, r: __m256) -> __m256 {
    // Multiplied, rounded, then added: a fused instruction would give other bits than the other levels.
    if SQUARES {
        let difference = _mm256_sub_ps(q, r);
        _mm256_add_ps(lanes, _mm256_mul_ps(difference, difference))
    } else {
        _mm256_add_ps(lanes, _mm256_mul_ps(q, r))
    }
}

/// Eight values from `at` on.
///
/// # Safety
/// The row has them.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn load<const ENCODING: u8>(row: *const u8, at: usize) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        match ENCODING {
            U8 => _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(row.add(at).cast()))),
            F16 => _mm256_cvtph_ps(_mm_loadu_si128(row.cast::<u16>().add(at).cast())),
            _ => _mm256_loadu_ps(row.cast::<f32>().add(at)),
        }
    }
}
