use std::cmp::Ordering;

/// A row and how similar it is to the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Row of the segment.
    pub row: u32,
    /// Greater is nearer. Never NaN.
    pub similarity: f32,
}

impl Candidate {
    /// Whether this comes before `other` in results: `Less` if it is nearer or, at the same similarity, of a smaller row.
    #[inline]
    pub fn compare(&self, other: &Candidate) -> Ordering {
        other.similarity.total_cmp(&self.similarity).then(self.row.cmp(&other.row))
    }
}

/// Keeps the best `k` of the candidates that are offered to it.
#[derive(Debug)]
pub struct TopCandidates {
    k: usize,
    /// A heap whose root is the worst candidate kept.
    heap: Vec<Candidate>,
}

impl TopCandidates {
    /// Keeps at most `k`. Memory is taken as candidates arrive, so that an absurd `k` costs nothing.
    pub fn new(k: usize) -> TopCandidates {
        TopCandidates { k, heap: Vec::new() }
    }

    /// A candidate whose similarity is below this will not be kept: the similarity of the worst one kept, or negative
    /// infinity while there is room.
    #[inline]
    pub fn threshold(&self) -> f32 {
        match self.heap.first() {
            Some(worst) if self.heap.len() == self.k => worst.similarity,
            _ if self.k == 0 => f32::INFINITY,
            _ => f32::NEG_INFINITY,
        }
    }

    /// Offers a candidate.
    #[inline]
    pub fn offer(&mut self, candidate: Candidate) {
        if self.heap.len() < self.k {
            self.heap.push(candidate);
            self.sift_up(self.heap.len() - 1);
        } else if self.heap.first().is_some_and(|worst| candidate.compare(worst).is_lt()) {
            self.heap[0] = candidate;
            self.sift_down();
        }
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none was offered (or `k` is 0).
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Moves the candidates into `out`, replacing what it held, best first. Leaves the collector empty.
    pub fn drain_sorted(&mut self, out: &mut Vec<Candidate>) {
        out.clear();
        out.append(&mut self.heap);
        out.sort_unstable_by(Candidate::compare);
    }

    fn sift_up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.heap[at].compare(&self.heap[parent]).is_le() {
                break;
            }
            self.heap.swap(at, parent);
            at = parent;
        }
    }

    fn sift_down(&mut self) {
        let mut at = 0;
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            if left >= self.heap.len() {
                break;
            }
            let right_is_worse = right < self.heap.len() && self.heap[right].compare(&self.heap[left]).is_gt();
            let worse = if right_is_worse { right } else { left };
            if self.heap[at].compare(&self.heap[worse]).is_ge() {
                break;
            }
            self.heap.swap(at, worse);
            at = worse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_comes_first_and_then_the_smaller_row() {
        let candidate = |row, similarity| Candidate { row, similarity };
        let mut top = TopCandidates::new(3);
        assert_eq!(top.threshold(), f32::NEG_INFINITY);
        for (row, similarity) in [(9, 0.5), (4, 0.25), (7, 0.5), (1, -1.0), (8, 0.5), (3, 0.75)] {
            top.offer(candidate(row, similarity));
        }
        assert_eq!(top.threshold(), 0.5);
        let mut sorted = vec![candidate(0, 0.0)];
        top.drain_sorted(&mut sorted);
        assert_eq!(sorted, [candidate(3, 0.75), candidate(7, 0.5), candidate(8, 0.5)]);
        assert!(top.is_empty());
    }

    #[test]
    fn the_best_of_many_are_those_of_sorting_them() {
        let all: Vec<Candidate> =
            (0..500u32).map(|row| Candidate { row, similarity: (row * 7919 % 101) as f32 }).collect();
        for k in [0, 1, 2, 3, 10, 499, 500, 501] {
            let mut top = TopCandidates::new(k);
            all.iter().for_each(|&candidate| top.offer(candidate));
            let (mut kept, mut expected) = (Vec::new(), all.clone());
            top.drain_sorted(&mut kept);
            expected.sort_by(Candidate::compare);
            expected.truncate(k);
            assert_eq!(kept, expected, "best {k}");
        }
    }
}
