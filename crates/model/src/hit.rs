//! Search results and the one way they are ordered and merged, at every level of the cluster.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::PointId;

/// One found point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Which point.
    pub id: PointId,
    /// How near it is to the query: greater is nearer. Never NaN.
    pub similarity: f32,
}

impl Hit {
    /// The total order of results: nearest first, ties by ascending id.
    pub fn rank(&self, other: &Self) -> Ordering {
        other.similarity.total_cmp(&self.similarity).then_with(|| self.id.cmp(&other.id))
    }
}

/// Keeps the best `k` of the hits it is shown, in bounded memory.
#[derive(Debug)]
pub struct TopK {
    k: usize,
    /// The worst kept hit is on top.
    heap: BinaryHeap<Ranked>,
}

#[derive(Clone, Copy, Debug)]
struct Ranked(Hit);

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.rank(&other.0)
    }
}

impl TopK {
    /// An empty collector of at most `k` hits.
    pub fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::with_capacity(k.min(1024) + 1) }
    }

    /// Shows a hit; keeps it if it is among the best `k` so far.
    pub fn push(&mut self, hit: Hit) {
        if self.heap.len() < self.k {
            self.heap.push(Ranked(hit));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && hit.rank(&worst.0).is_lt()
        {
            *worst = Ranked(hit);
        }
    }

    /// The similarity that a further hit must at least reach to be kept; `None` while there is room.
    pub fn floor(&self) -> Option<f32> {
        (self.heap.len() == self.k).then(|| self.heap.peek().map(|worst| worst.0.similarity)).flatten()
    }

    /// The kept hits, best first.
    pub fn into_sorted(self) -> Vec<Hit> {
        self.heap.into_sorted_vec().into_iter().map(|ranked| ranked.0).collect()
    }
}

/// The best `k` of several result lists, best first. Associative: merging merged lists changes nothing.
pub fn merge(lists: impl IntoIterator<Item = Vec<Hit>>, k: usize) -> Vec<Hit> {
    let mut lists = lists.into_iter();
    let Some(mut merged) = lists.next() else { return Vec::new() };
    let mut several = false;
    for list in lists {
        several = true;
        merged.extend(list);
    }
    if several {
        merged.sort_unstable_by(Hit::rank);
    }
    merged.truncate(k);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(seed: u64, n: u64) -> Vec<Hit> {
        // A small multiplicative generator: few distinct similarities, so that ties are common.
        let mut state = seed * 2 + 1;
        let mut draw = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        (0..n).map(|id| Hit { id: PointId::Num(id ^ (draw(2) << 40)), similarity: draw(5) as f32 - 2.0 }).collect()
    }

    #[test]
    fn the_best_k_are_kept_in_order_with_ties_by_id() {
        for seed in 0..50 {
            let all = hits(seed, seed * 3);
            let mut sorted = all.clone();
            sorted.sort_by(Hit::rank);
            for k in [1, 2, 10, 1000] {
                let mut top = TopK::new(k);
                all.iter().for_each(|&hit| top.push(hit));
                let floor = top.floor();
                let kept = top.into_sorted();
                assert_eq!(kept, sorted[..k.min(sorted.len())], "seed {seed}, k {k}");
                assert_eq!(floor, (kept.len() == k).then(|| kept[k - 1].similarity), "seed {seed}, k {k}");
            }
        }
    }

    #[test]
    fn merging_is_associative_and_equals_one_list() {
        for seed in 0..50 {
            let mut all = hits(seed, 60);
            let mut parts: Vec<Vec<Hit>> = all.chunks(13).map(<[Hit]>::to_vec).collect();
            parts.iter_mut().for_each(|part| part.sort_by(Hit::rank));
            all.sort_by(Hit::rank);
            let at_once = merge(parts.clone(), 10);
            assert_eq!(at_once, all[..10], "seed {seed}");
            let right = merge(parts.split_off(2), 10);
            let left = merge(parts, 10);
            assert_eq!(merge([left, right], 10), at_once, "seed {seed}");
        }
        assert_eq!(merge([], 3), []);
    }
}
