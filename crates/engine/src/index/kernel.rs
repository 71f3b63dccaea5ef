use sagitta_model::Metric;

use super::PreparedQuery;

/// Partial sums of a comparison: as many as two AVX-512 or four AVX2 registers hold.
pub const LANES: usize = 32;

/// Exact similarities in f32, in one order of operations, so that every implementation gives the same bits.
///
/// The order: value `i` belongs to lane `i % LANES`. Each lane sums its terms (`q * r`, or `(q - r) * (q - r)`) in ascending
/// order, each product rounded before it is added (no fused multiply-add). Then lane `i` is added to by lane `i + 16`,
/// then by `i + 8`, `+ 4`, `+ 2` and `+ 1`. Cosine multiplies the sum by the row's inverse norm; L2 subtracts it from 0.
/// A final `+ 0.0` turns a negative zero into a positive one.
pub trait Similarities: Send + Sync {
    /// Compares the query with each row of `rows` (`out.len()` rows of the query's dimension). `inverse_norms` has one value
    /// per row for cosine, see [`super::inverse_norm`], and is ignored otherwise.
    ///
    /// # Panics
    /// If the lengths do not agree.
    fn many(&self, query: &PreparedQuery, rows: &[f32], inverse_norms: &[f32], out: &mut [f32]);

    /// The instruction set in use, for diagnostics.
    fn name(&self) -> &'static str;
}

/// The kernel in plain Rust: the reference for all others.
#[derive(Clone, Copy, Debug)]
pub struct ScalarKernel;

impl ScalarKernel {
    /// Compares the query with one row.
    pub fn one(query: &PreparedQuery, row: &[f32], inverse_norm: f32) -> f32 {
        let query_values = query.values();
        assert_eq!(query_values.len(), row.len(), "dimensions of query and row");
        let similarity = match query.metric() {
            Metric::InnerProduct => sum_terms(query_values, row, |q, r| q * r),
            Metric::Cosine => sum_terms(query_values, row, |q, r| q * r) * inverse_norm,
            Metric::L2 => 0.0 - sum_terms(query_values, row, |q, r| (q - r) * (q - r)),
        };
        similarity + 0.0
    }
}

impl Similarities for ScalarKernel {
    fn many(&self, query: &PreparedQuery, rows: &[f32], inverse_norms: &[f32], out: &mut [f32]) {
        assert_eq!(rows.len(), out.len() * query.dim(), "one similarity per row");
        let cosine = query.metric() == Metric::Cosine;
        assert!(!cosine || inverse_norms.len() == out.len(), "one inverse norm per row");
        for (at, (row, out)) in rows.chunks_exact(query.dim()).zip(out).enumerate() {
            *out = ScalarKernel::one(query, row, if cosine { inverse_norms[at] } else { 1.0 });
        }
    }

    fn name(&self) -> &'static str {
        "scalar"
    }
}

fn sum_terms(query: &[f32], row: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (query_chunks, query_rest) = query.as_chunks::<LANES>();
    let (row_chunks, row_rest) = row.as_chunks::<LANES>();
    for (q, r) in query_chunks.iter().zip(row_chunks) {
        for lane in 0..LANES {
            lanes[lane] += term(q[lane], r[lane]);
        }
    }
    // A lane is never -0.0, so that adding nothing and adding the zero of a padded row are the same.
    for ((lane, &q), &r) in lanes.iter_mut().zip(query_rest).zip(row_rest) {
        *lane += term(q, r);
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
