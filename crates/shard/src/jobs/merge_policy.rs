//! Which segments are made into one: few segments make searches fast, large rewrites make writes slow.
//!
//! Size-tiered, as in log-structured merge trees (O'Neil et al. 1996): segments of like size are merged when there are
//! enough of them, so that a row is rewritten about log(rows) / log(factor) times.

use crate::{SegmentId, SegmentView, ShardOptions};

/// Segments merged at a time, in factors of a tier: bounds the work of one job.
const MAX_TIERS_AT_ONCE: usize = 4;
/// While idle, segments are merged as long as the result stays below so many generations' rows.
const IDLE_GENERATIONS: usize = 16;

/// What the policy knows of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) id: SegmentId,
    /// Dead ones included.
    pub(super) rows: usize,
    pub(super) live: usize,
}

impl Size {
    pub(super) fn of(view: &SegmentView) -> Self {
        Self { id: view.segment.id(), rows: view.segment.rows(), live: view.live.count() }
    }

    fn dead_share(&self) -> f64 {
        (self.rows - self.live) as f64 / self.rows as f64
    }
}

/// The segments that should become one, by number; a single one is to be rewritten without its dead rows.
pub(super) fn choose(mut sizes: Vec<Size>, options: &ShardOptions, idle: bool) -> Option<Vec<SegmentId>> {
    let dead = sizes.iter().filter(|size| size.dead_share() > options.max_dead_share);
    if let Some(worst) = dead.max_by(|a, b| a.dead_share().total_cmp(&b.dead_share())) {
        return Some(vec![worst.id]);
    }
    sizes.sort_unstable_by_key(|size| (size.live, size.id));
    let chosen = tier(&sizes, options).or_else(|| if idle { small_ones(&sizes, options) } else { None })?;
    let mut ids: Vec<_> = chosen.iter().map(|size| size.id).collect();
    ids.sort_unstable();
    Some(ids)
}

/// Enough segments of like size, the smallest first.
fn tier<'a>(sizes: &'a [Size], options: &ShardOptions) -> Option<&'a [Size]> {
    // What is smaller than a generation is as good as one: else a trickle of writes would make a tier of each size.
    let weight = |size: &Size| size.live.max(options.seal_rows);
    (0..sizes.len()).find_map(|start| {
        let most = weight(&sizes[start]).saturating_mul(options.tier_factor);
        let alike = sizes[start..].iter().take_while(|size| weight(size) < most).count();
        let alike = alike.min(options.tier_factor * MAX_TIERS_AT_ONCE);
        let chosen = prefix_within(&sizes[start..start + alike], options.max_segment_rows);
        (chosen.len() >= options.tier_factor.max(2)).then_some(chosen)
    })
}

/// At least two small segments.
fn small_ones<'a>(sizes: &'a [Size], options: &ShardOptions) -> Option<&'a [Size]> {
    let most = options.max_segment_rows.min(options.seal_rows.saturating_mul(IDLE_GENERATIONS));
    let chosen = prefix_within(sizes, most);
    (chosen.len() >= 2).then_some(chosen)
}

/// The segments at the front that together have no more than so many rows.
fn prefix_within(sizes: &[Size], most: usize) -> &[Size] {
    let mut rows = 0;
    let fit = sizes.iter().take_while(|size| {
        rows += size.live;
        rows <= most
    });
    &sizes[..fit.count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: fn() -> ShardOptions =
        || ShardOptions { seal_rows: 100, tier_factor: 4, max_segment_rows: 10_000, ..ShardOptions::default() };

    fn check(live: &[usize], idle: bool, expected: Option<&[SegmentId]>) {
        let sizes = live.iter().enumerate().map(|(id, &live)| Size { id: id as SegmentId, rows: live, live });
        let chosen = choose(sizes.collect(), &OPTIONS(), idle);
        assert_eq!(chosen.as_deref(), expected, "{live:?}, idle {idle}");
    }

    #[test]
    fn enough_segments_of_like_size_are_merged_smallest_first() {
        check(&[], true, None);
        check(&[100, 100, 100], false, None);
        check(&[100, 399, 3, 250], false, Some(&[0, 1, 2, 3]));
        check(&[1000, 100, 1000, 100, 1000, 100, 1000], false, Some(&[0, 2, 4, 6]));
        check(&[1000, 100, 1000, 100, 1000, 100, 1000, 100], false, Some(&[1, 3, 5, 7]));
        check(&[400, 100, 100, 100], false, None);
    }

    #[test]
    fn no_merge_exceeds_the_largest_segment_or_the_width() {
        check(&[3000, 3000, 3000, 3000], false, None);
        check(&[2500, 2500, 2500, 2500], false, Some(&[0, 1, 2, 3]));
        let sixteen: Vec<SegmentId> = (0..16).collect();
        check(&[100; 40], false, Some(&sixteen));
    }

    #[test]
    fn idle_time_is_used_to_merge_a_few_small_ones_and_then_ends() {
        check(&[100, 7], false, None);
        check(&[100, 7], true, Some(&[0, 1]));
        check(&[1500, 200], true, None);
        check(&[9000], true, None);
    }

    #[test]
    fn a_segment_with_many_dead_rows_is_rewritten_alone() {
        let size = |id, rows, live| Size { id, rows, live };
        let sizes = vec![size(0, 100, 79), size(1, 100, 50), size(2, 100, 90)];
        assert_eq!(choose(sizes, &OPTIONS(), false), Some(vec![1]));
        assert_eq!(choose(vec![size(5, 100, 80)], &OPTIONS(), true), None);
        assert_eq!(choose(vec![size(5, 9, 0)], &OPTIONS(), false), Some(vec![5]));
    }
}
