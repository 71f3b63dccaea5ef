use sagitta_model::Metric;

use super::data::{Sample, Seeded, Values};
use super::{Suite, brute_force, prepare, recall, similarities};
use crate::bitmap::Bitmap;
use crate::index::{Candidate, FilterWalk, PreparedQuery, RowSet, ScanParams, SearchParams};

const DIM: usize = 32;
const K: usize = 10;

impl Suite<'_> {
    /// Approximate plans with their defaults find nearly all of what is near, and score it exactly.
    pub fn searches_find_what_is_near(&self) {
        for metric in Metric::ALL {
            let sample = Sample::new(self.rows(2_000), DIM, Values::Floats, 11);
            let index = self.index(&sample, metric);
            let (mut searched, mut scanned) = (0.0, 0.0);
            let mut found = Vec::new();
            for vector in &sample.queries {
                let query = prepare(metric, vector);
                let truth = brute_force(&sample, &query, K, |_| true);
                let stats = index.search(&query, &SearchParams::new(K), &mut found);
                let stats = stats.unwrap_or_else(|error| panic!("{metric}: {error}"));
                assert!(stats.distances > 0 && stats.reranked >= K as u64, "{metric}: {stats:?}");
                well_formed(&sample, &query, &found, K, |_| true);
                searched += recall(&found, &truth);
                let scan = index.search_rows(&query, &ScanParams::new(K, RowSet::All), &mut found);
                scan.unwrap_or_else(|error| panic!("{metric}: {error}"));
                well_formed(&sample, &query, &found, K, |_| true);
                scanned += recall(&found, &truth);
            }
            let queries = sample.queries.len() as f64;
            assert!(searched / queries >= 0.9, "{metric}: recall of search is {}", searched / queries);
            assert!(scanned / queries >= 0.99, "{metric}: recall of a scan is {}", scanned / queries);
        }
    }

    /// Whatever share of rows passes and whichever way is taken: only rows that pass, and as many as exist up to k.
    pub fn filters_are_respected_by_every_plan(&self) {
        let sample = Sample::new(self.rows(2_000), DIM, Values::Bytes, 12);
        let index = self.index(&sample, Metric::L2);
        let mut random = Seeded::new(13);
        for per_mille in [0, 1, 10, 100, 500, 900, 1000] {
            let rows: Vec<u32> = (0..sample.len() as u32).filter(|_| random.below(1000) < per_mille).collect();
            let allow = Bitmap::from_rows(sample.len(), &rows);
            let passes = |row| allow.contains(row);
            let mut found = Vec::new();
            let mut worst: f64 = 1.0;
            for vector in &sample.queries {
                let query = prepare(Metric::L2, vector);
                let truth = brute_force(&sample, &query, K, passes);
                for filter_walk in [FilterWalk::Auto, FilterWalk::Plain, FilterWalk::TwoHop] {
                    let params = SearchParams { allow: Some(&allow), filter_walk, ..SearchParams::new(K) };
                    let searched = index.search(&query, &params, &mut found);
                    searched.unwrap_or_else(|error| panic!("{per_mille} of 1000 pass, {filter_walk:?}: {error}"));
                    well_formed(&sample, &query, &found, K.min(rows.len()), passes);
                }
                for set in [RowSet::List(&rows), RowSet::Bitmap(&allow)] {
                    let scanned = index.search_rows(&query, &ScanParams::new(K, set), &mut found);
                    scanned.unwrap_or_else(|error| panic!("{per_mille} of 1000 pass, scan: {error}"));
                    well_formed(&sample, &query, &found, K.min(rows.len()), passes);
                    worst = worst.min(recall(&found, &truth));
                }
            }
            assert!(worst >= 0.9, "{per_mille} of 1000 pass: a scan found only {worst}");
        }
    }

    /// From k = 0 to more than there are rows, and an index of as few rows as the kind takes.
    pub fn any_k_is_served(&self) {
        for rows in [self.rows(1), self.rows(2), self.rows(300)] {
            let sample = Sample::new(rows, 9, Values::Floats, 14);
            let index = self.index(&sample, Metric::Cosine);
            let query = prepare(Metric::Cosine, &sample.queries[0]);
            let mut found = vec![Candidate { row: 77, similarity: 7.0 }];
            for k in [0, 1, rows, rows + 1, 10_000] {
                let searched = index.search(&query, &SearchParams::new(k), &mut found);
                searched.unwrap_or_else(|error| panic!("{rows} rows, k = {k}: {error}"));
                well_formed(&sample, &query, &found, k.min(rows), |_| true);
                let scanned = index.search_rows(&query, &ScanParams::new(k, RowSet::All), &mut found);
                scanned.unwrap_or_else(|error| panic!("{rows} rows, k = {k}, scan: {error}"));
                well_formed(&sample, &query, &found, k.min(rows), |_| true);
            }
        }
    }

    /// Searches share nothing that one could spoil for another, while a verification runs beside them.
    pub fn threads_see_the_same_answers(&self) {
        let sample = Sample::new(self.rows(1_000), DIM, Values::Halves, 15);
        let index = self.index(&sample, Metric::InnerProduct);
        let queries: Vec<_> = sample.queries.iter().map(|vector| prepare(Metric::InnerProduct, vector)).collect();
        let answers = || -> Vec<Vec<Candidate>> {
            let mut found = Vec::new();
            let mut answer = |query| index.search(query, &SearchParams::new(K), &mut found).map(|_| found.clone());
            queries.iter().map(|query| answer(query).unwrap_or_else(|error| panic!("{error}"))).collect()
        };
        let expected = answers();
        std::thread::scope(|scope| {
            let searches: Vec<_> = (0..3).map(|_| scope.spawn(answers)).collect();
            let verified = index.verify(&super::Never).unwrap_or_else(|error| panic!("{error}"));
            assert!(verified, "the verification was not stopped");
            for search in searches {
                let found = search.join().unwrap_or_else(|_| panic!("a search panicked"));
                assert_eq!(found, expected);
            }
        });
        assert_eq!(answers(), expected, "after the verification");
    }
}

/// What any answer must be: `expected` distinct rows that pass, best first, with their exact similarities.
fn well_formed(
    sample: &Sample,
    query: &PreparedQuery,
    found: &[Candidate],
    expected: usize,
    passes: impl Fn(u32) -> bool,
) {
    assert_eq!(found.len(), expected, "number of results");
    assert!(found.windows(2).all(|pair| pair[0].compare(&pair[1]).is_lt()), "best first, no row twice: {found:?}");
    let truth = similarities(sample, query);
    for candidate in found {
        assert!(passes(candidate.row), "row {} does not pass the filter", candidate.row);
        let exact = truth[candidate.row as usize];
        assert_eq!(candidate.similarity.to_bits(), exact.to_bits(), "score of row {}", candidate.row);
    }
}
