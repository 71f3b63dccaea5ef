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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarities_are_those_of_the_metric() {
        let check = |metric, query: &[f32], row: &[f32], expected: f32| {
            let query = PreparedQuery::new(metric, query).unwrap();
            let similarity = ScalarKernel::one(&query, row, super::super::inverse_norm(row));
            assert_eq!(similarity.to_bits(), expected.to_bits(), "{metric}: {similarity}, not {expected}");
        };
        check(Metric::InnerProduct, &[1.0, 2.0, 3.0], &[4.0, 5.0, -6.0], -4.0);
        check(Metric::L2, &[1.0, 2.0], &[4.0, -2.0], -25.0);
        check(Metric::L2, &[1.0, 2.0], &[1.0, 2.0], 0.0);
        check(Metric::Cosine, &[3.0, 4.0], &[30.0, 40.0], 1.0);
        check(Metric::Cosine, &[3.0, 4.0], &[-4.0, 3.0], 0.0);
    }

    #[test]
    fn terms_are_added_in_the_documented_order() {
        // Lane 0 takes values 0 and 32; lane 16 is added to lane 0 before lane 1 is. In f32, 2^24 swallows a 1 that
        // comes alone, so the result tells the order.
        let big = 16_777_216.0;
        let mut row = vec![0.0; 40];
        (row[0], row[32], row[16], row[1]) = (big, 1.0, -big, 1.0);
        let query = PreparedQuery::new(Metric::InnerProduct, &[1.0; 40]).unwrap();
        assert_eq!(ScalarKernel::one(&query, &row, 1.0), 1.0, "(big + 1 = big) - big, then + 1");
    }

    #[test]
    fn many_is_one_for_each_row() {
        let query = PreparedQuery::new(Metric::Cosine, &[1.0, 0.0]).unwrap();
        let mut out = [0.0; 2];
        ScalarKernel.many(&query, &[2.0, 0.0, 0.0, 5.0], &[0.5, 0.2], &mut out);
        assert_eq!(out, [1.0, 0.0]);
    }
}
