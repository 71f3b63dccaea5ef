//! How busy a node seems from here.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use sagitta_cluster::Report;

/// Latencies are counted in classes of powers of two of microseconds: the p95 is known to within a factor of two, which is
/// enough to tell a slow answer from a usual one.
const CLASSES: usize = 32;
/// Answers after which old ones count half.
const HALVE_AFTER: u32 = 512;
/// Below so many answers nothing is known.
const ENOUGH: u32 = 20;

/// Calls of one node, as this coordinator sees them.
#[derive(Debug, Default)]
pub(crate) struct Load {
    in_flight: AtomicU32,
    /// Smoothed latency in microseconds.
    latency_us: AtomicU64,
    classes: [AtomicU32; CLASSES],
    answers: AtomicU32,
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct Timed<'a> {
    load: &'a Load,
    began: Duration,
}

impl Load {
    /// Begins a call.
    pub(crate) fn begin(&self, now: Duration) -> Timed<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Timed { load: self, began: now }
    }

    /// How long one more call would take, in the unit of nothing: to be compared with that of other nodes.
    pub(crate) fn cost(&self, report: &Report) -> u64 {
        let queue = u64::from(report.searches_waiting) + u64::from(self.in_flight.load(Ordering::Relaxed)) + 1;
        queue.saturating_mul(self.latency_us.load(Ordering::Relaxed).max(1))
    }

    /// Nineteen of twenty answers came within this; nothing before there were enough.
    pub(crate) fn p95(&self) -> Option<Duration> {
        let counts: [u32; CLASSES] = std::array::from_fn(|class| self.classes[class].load(Ordering::Relaxed));
        let all: u32 = counts.iter().sum();
        if all < ENOUGH {
            return None;
        }
        let mut left = all.div_ceil(20);
        for (class, count) in counts.iter().enumerate().rev() {
            if *count >= left {
                return Some(Duration::from_micros(1 << (class + 1)));
            }
            left -= count;
        }
        None
    }

    fn answered(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let class = (us.max(1).ilog2() as usize).min(CLASSES - 1);
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        // Races between answers lose one of them, which changes nothing.
        let before = self.latency_us.load(Ordering::Relaxed);
        let smoothed = if before == 0 { us } else { before - before / 8 + us / 8 };
        self.latency_us.store(smoothed, Ordering::Relaxed);
        if self.answers.fetch_add(1, Ordering::Relaxed) + 1 >= HALVE_AFTER {
            self.answers.store(0, Ordering::Relaxed);
            for class in &self.classes {
                class.store(class.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
    }
}

impl Timed<'_> {
    /// The answer is here. A call that is dropped without was cut short, and says nothing of the node's speed.
    pub(crate) fn answered(self, now: Duration) {
        self.load.answered(now.saturating_sub(self.began));
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(load: &Load, us: u64) {
        load.begin(Duration::ZERO).answered(Duration::from_micros(us));
    }

    #[test]
    fn the_p95_is_the_upper_end_of_the_class_that_holds_it_and_unknown_at_first() {
        let load = Load::default();
        for _ in 0..19 {
            after(&load, 100);
        }
        assert_eq!(load.p95(), None);
        after(&load, 100);
        assert_eq!(load.p95(), Some(Duration::from_micros(128)));
        after(&load, 5_000);
        after(&load, 5_000);
        assert_eq!(load.p95(), Some(Duration::from_micros(8_192)));
    }

    #[test]
    fn old_answers_fade_and_calls_that_are_cut_short_do_not_count() {
        let load = Load::default();
        for _ in 0..HALVE_AFTER {
            after(&load, 5_000);
        }
        for _ in 0..40 * HALVE_AFTER {
            after(&load, 100);
        }
        assert_eq!(load.p95(), Some(Duration::from_micros(128)));
        let busy = load.begin(Duration::ZERO);
        let idle = Report::default();
        let with = load.cost(&idle);
        drop(busy);
        assert_eq!(load.cost(&idle) * 2, with);
    }
}
