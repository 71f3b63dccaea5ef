//! AVX-512 with VNNI: Intel since 2019 (Cascade Lake), AMD since 2022 (Zen 4).

use std::arch::x86_64::*;

use sagitta_engine::index::LANES;

use super::scalar::{F16, F32, U8, load_rest};
use super::{CHUNK, Kernels, f32_bytes};

pub(super) static KERNELS: Kernels = Kernels {
    name: "avx512-vnni",
    dots,
    sums: [
        [sum::<U8, false>, sum::<U8, true>],
        [sum::<F16, false>, sum::<F16, true>],
        [sum::<F32, false>, sum::<F32, true>],
    ],
};

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni")
}

/// Rows whose sums are in flight together, so that the latency of one hides behind the others.
const TOGETHER: usize = 4;

/// # Safety
/// As [`super::DotsFn`], on a processor where [`is_available`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dots(query: *const i8, chunks: usize, codes: *const u8, stride: usize, rows: &[u32], out: *mut i32) {
    let (groups, rest) = rows.as_chunks::<TOGETHER>();
    for (at, group) in groups.iter().enumerate() {
        // SAFETY: the caller's promise covers every row of every group.
        unsafe {
            let start = group.map(|row| codes.add(row as usize * stride));
            let mut sums = [_mm512_setzero_si512(); TOGETHER];
            for chunk in 0..chunks {
                let q = _mm512_loadu_si512(query.add(chunk * CHUNK).cast());
                for lane in 0..TOGETHER {
                    let c = _mm512_loadu_si512(start[lane].add(chunk * CHUNK).cast());
                    sums[lane] = _mm512_dpbusd_epi32(sums[lane], c, q);
                }
            }
            for lane in 0..TOGETHER {
                out.add(at * TOGETHER + lane).write(_mm512_reduce_add_epi32(sums[lane]));
            }
        }
    }
    for (at, &row) in rest.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            let start = codes.add(row as usize * stride);
            let mut sum = _mm512_setzero_si512();
            for chunk in 0..chunks {
                let q = _mm512_loadu_si512(query.add(chunk * CHUNK).cast());
                let c = _mm512_loadu_si512(start.add(chunk * CHUNK).cast());
                sum = _mm512_dpbusd_epi32(sum, c, q);
            }
            out.add(groups.len() * TOGETHER + at).write(_mm512_reduce_add_epi32(sum));
        }
    }
}

const HALF_LANES: usize = LANES / 2;

/// # Safety
/// As [`super::SumFn`], on a processor where [`is_available`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
unsafe fn sum<const ENCODING: u8, const SQUARES: bool>(query: &[f32], row: *const u8) -> f32 {
    let steps = query.len() / LANES;
    let mut lanes = [_mm512_setzero_ps(); 2];
    for step in 0..steps {
        for half in 0..2 {
            let at = step * LANES + half * HALF_LANES;
            // SAFETY: sixteen values from `at` on are inside the query and the row.
            let (q, r) = unsafe { (_mm512_loadu_ps(query.as_ptr().add(at)), load::<ENCODING>(row, at)) };
            lanes[half] = add_term::<SQUARES>(lanes[half], q, r);
        }
    }
    if !query.len().is_multiple_of(LANES) {
        let from = steps * LANES;
        // SAFETY: both have `query.len()` values, of which fewer than `LANES` are left.
        unsafe {
            let q = load_rest::<F32>(f32_bytes(query).as_ptr(), from, query.len());
            let r = load_rest::<ENCODING>(row, from, query.len());
            for half in 0..2 {
                let at = half * HALF_LANES;
                let (q, r) = (_mm512_loadu_ps(q.as_ptr().add(at)), _mm512_loadu_ps(r.as_ptr().add(at)));
                lanes[half] = add_term::<SQUARES>(lanes[half], q, r);
            }
        }
    }
    let sixteen = _mm512_add_ps(lanes[0], lanes[1]);
    let eight = _mm256_add_ps(_mm512_castps512_ps256(sixteen), _mm512_extractf32x8_ps::<1>(sixteen));
    super::avx2::add_lanes(eight)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_term<const SQUARES: bool>(lanes: __m512, q: __m512, r: __m512) -> __m512 {
    // Multiplied, rounded, then added: a fused instruction would give other bits than the other levels.
    if SQUARES {
        let difference = _mm512_sub_ps(q, r);
        _mm512_add_ps(lanes, _mm512_mul_ps(difference, difference))
    } else {
        _mm512_add_ps(lanes, _mm512_mul_ps(q, r))
    }
}

/// Sixteen values from `at` on.
///
/// # Safety
/// The row has them.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load<const ENCODING: u8>(row: *const u8, at: usize) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        match ENCODING {
            U8 => _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(row.add(at).cast()))),
            F16 => _mm512_cvtph_ps(_mm256_loadu_si256(row.cast::<u16>().add(at).cast())),
            _ => _mm512_loadu_ps(row.cast::<f32>().add(at)),
        }
    }
}
