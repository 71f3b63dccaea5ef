//! Exact answers by comparing with every point, independent of the code under test.

use std::thread;

use sagitta_model::Metric;

use crate::library::Library;
use crate::sets::Set;

/// For each case, for each query, the best points that pass, best first.
pub(crate) struct Truth {
    pub(crate) answers: Vec<Vec<Vec<Best>>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Best {
    pub(crate) id: u64,
    pub(crate) similarity: f32,
}

impl Truth {
    /// The `k` best points of the library as it is, for the first `queries` queries of its set.
    pub(crate) fn of(library: &Library<'_>, queries: usize, k: usize) -> Self {
        let set = library.set;
        let queries = queries.min(set.queries());
        let passing: Vec<Vec<u64>> = set.cases.iter().map(|case| library.passing(case).collect()).collect();
        let best = |query: usize| -> Vec<Vec<Best>> {
            let near: Vec<Option<f32>> = library.similarities(set.query(query)).collect();
            let rank = |ids: &Vec<u64>| {
                let best = |&id: &u64| Some(Best { id, similarity: near[id as usize]? });
                let mut best: Vec<Best> = ids.iter().filter_map(best).collect();
                let nearer = |a: &Best, b: &Best| b.similarity.total_cmp(&a.similarity).then(a.id.cmp(&b.id));
                if best.len() > k {
                    best.select_nth_unstable_by(k, nearer);
                    best.truncate(k);
                }
                best.sort_by(nearer);
                best
            };
            passing.iter().map(rank).collect()
        };
        let (first, second) = (0..queries / 2, queries / 2..queries);
        let by_query: Vec<_> = thread::scope(|scope| {
            let half = scope.spawn(|| first.map(best).collect::<Vec<_>>());
            let other: Vec<_> = second.map(best).collect();
            half.join().expect("no panic").into_iter().chain(other).collect()
        });
        let case = |at: usize| by_query.iter().map(|cases| cases[at].clone()).collect();
        Self { answers: (0..set.cases.len()).map(case).collect() }
    }

    /// Guards against a truth that is wrong in the same way as the search: somebody else's tools found the same.
    pub(crate) fn agrees_with_the_published(&self, set: &Set) {
        for (case, answers) in set.cases.iter().zip(&self.answers) {
            let Some(published) = &case.published else { continue };
            for (at, (best, rows)) in answers.iter().zip(published.rows()).enumerate() {
                for (best, &row) in best.iter().zip(rows) {
                    let row = &set.base.values[row as usize * set.base.columns..][..set.base.columns];
                    let theirs = similarity(set.metric, set.query(at), row);
                    assert!(same(best.similarity, theirs), "{}, query {at}: {best:?}, published {theirs}", case.name);
                }
            }
        }
    }
}

/// Greater is nearer.
pub(crate) fn similarity(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    // Several sums, so that the compiler may use vector instructions.
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let (a, b) = (a.as_chunks::<LANES>().0, b.as_chunks::<LANES>().0);
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += match metric {
                Metric::L2 => -(a[lane] - b[lane]) * (a[lane] - b[lane]),
                _ => a[lane] * b[lane],
            };
        }
    }
    sums.iter().sum()
}

/// Equal, as far as the order of summation allows.
pub(crate) fn same(a: f32, b: f32) -> bool {
    (a - b).abs() <= 2e-6 * a.abs().max(1.0)
}
