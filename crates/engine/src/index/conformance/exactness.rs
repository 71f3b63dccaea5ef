use sagitta_model::Metric;

use super::data::{Sample, Values};
use super::{Suite, brute_force, prepare, similarities};
use crate::bitmap::Bitmap;
use crate::index::{PreparedQuery, RowSet, ScanParams, VectorIndex};

/// Around the widths of registers and the sizes of common embeddings.
const DIMENSIONS: [usize; 13] = [1, 2, 3, 7, 8, 31, 64, 96, 127, 128, 384, 768, 1536];

impl Suite<'_> {
    /// Exact scans, scores and stored vectors agree with the reference to the last bit, for every dimension, metric and
    /// kind of values.
    pub fn exact_modes_equal_brute_force(&self) {
        for (at, dim) in DIMENSIONS.into_iter().enumerate() {
            for (turn, metric) in Metric::ALL.into_iter().enumerate() {
                // Every pairing of metric and values occurs at four dimensions or more.
                let values = Values::ALL[(at + turn) % Values::ALL.len()];
                let sample = Sample::new(self.rows(150), dim, values, (at * 10 + turn) as u64);
                let index = self.index(&sample, metric);
                let case = format!("{dim} dimensions, {metric}, {values:?}");
                stored_rows_are_lossless(&*index, &sample, &case);
                for vector in &sample.queries[..3] {
                    exact_answers_equal_brute_force(&*index, &sample, &prepare(metric, vector), &case);
                }
            }
        }
    }

    /// Rows of the same similarity come in the order of their numbers, and the smaller ones are kept.
    pub fn ties_go_to_the_smaller_row(&self) {
        for metric in Metric::ALL {
            let same = Sample::constant(self.rows(70), 12);
            exact_answers_equal_brute_force(
                &*self.index(&same, metric),
                &same,
                &prepare(metric, &same.queries[0]),
                "all rows the same",
            );
            let repeated = Sample::repeated(self.rows(60), 5, 12);
            let index = self.index(&repeated, metric);
            for vector in &repeated.queries {
                exact_answers_equal_brute_force(&*index, &repeated, &prepare(metric, vector), "each row five times");
            }
        }
    }
}

fn stored_rows_are_lossless(index: &dyn VectorIndex, sample: &Sample, case: &str) {
    let mut stored = vec![0.0; sample.dim];
    for (row, given) in sample.rows().iter().enumerate() {
        index.read_row(row as u32, &mut stored).unwrap_or_else(|error| panic!("{case}: {error}"));
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&stored), bits(given), "{case}: row {row} came back changed");
    }
}

fn exact_answers_equal_brute_force(index: &dyn VectorIndex, sample: &Sample, query: &PreparedQuery, case: &str) {
    let len = sample.len();
    let every_third: Vec<u32> = (0..len as u32).filter(|row| row % 3 == 1).collect();
    let bitmap = Bitmap::from_rows(len, &every_third);
    let third = |row: u32| row % 3 == 1;
    let mut found = Vec::new();
    for k in [1, 10, len, len + 5] {
        for (rows, expected) in [
            (RowSet::All, brute_force(sample, query, k, |_| true)),
            (RowSet::List(&every_third), brute_force(sample, query, k, third)),
            (RowSet::Bitmap(&bitmap), brute_force(sample, query, k, third)),
            (RowSet::List(&[]), Vec::new()),
        ] {
            index
                .search_rows(query, &ScanParams::exact(k, rows), &mut found)
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(found, expected, "{case}, best {k} of {} rows", rows.count(len));
        }
    }
    let all: Vec<u32> = (0..len as u32).rev().collect();
    let mut scores = Vec::new();
    index.similarities(query, &all, &mut scores).unwrap_or_else(|error| panic!("{case}: {error}"));
    let expected: Vec<u32> = similarities(sample, query).iter().rev().map(|score| score.to_bits()).collect();
    assert_eq!(scores.iter().map(|score| score.to_bits()).collect::<Vec<_>>(), expected, "{case}: scores");
}
