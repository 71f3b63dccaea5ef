//! How busy a node seems from here.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use sagitta_cluster::Report;
use sagitta_env::Env;

/// Latencies are counted in classes of powers of two of microseconds: the p95 is known to within a factor of two, which is
/// enough to tell a slow answer from a usual one.
const CLASSES: usize = 32;
/// Answers after which old ones count half.
const HALVE_AFTER: u32 = 512;
/// Below so many answers nothing is known.
const ENOUGH: u32 = 20;

/// What is usual for a node of which too little is known: longer than nearly every search.
const USUAL: Duration = Duration::from_millis(100);
/// Nobody is slow who answers within this, however quick the others are. A second call costs two processes as much as the first one, and
/// watching for what ends sooner would wake this one up for every query.
const SOONEST: Duration = Duration::from_millis(5);

/// Calls of one node, as this coordinator sees them.
#[derive(Debug, Default)]
pub(crate) struct Load {
    in_flight: AtomicU32,
    /// Smoothed latency in microseconds ...
    latency_us: AtomicU64,
    /// ... as of when, in microseconds on the environment's clock.
    measured_us: AtomicU64,
    classes: [AtomicU32; CLASSES],
    answers: AtomicU32,
}

/// A call under way.
pub(crate) struct Timed<'a> {
    load: &'a Load,
    env: &'a Env,
    began: Duration,
    answered: bool,
}

impl Load {
    /// Begins a call.
    pub(crate) fn begin<'a>(&'a self, env: &'a Env) -> Timed<'a> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Timed { load: self, env, began: env.now(), answered: false }
    }

    /// How long one more call would take, in the unit of nothing: to be compared with that of other nodes.
    ///
    /// Latencies count by their class, so that equally good nodes share the work, and less with every second since they were measured:
    /// a node that was slow once is tried again.
    pub(crate) fn cost(&self, report: &Report, now: Duration) -> u64 {
        let queue = u64::from(report.searches_waiting) + u64::from(self.in_flight.load(Ordering::Relaxed)) + 1;
        let age = now.saturating_sub(Duration::from_micros(self.measured_us.load(Ordering::Relaxed))).as_secs();
        let halved = self.latency_us.load(Ordering::Relaxed).checked_shr(u32::try_from(age).unwrap_or(u32::MAX));
        queue.saturating_mul(1 << class(halved.unwrap_or(0)))
    }

    /// Nineteen of twenty answers came within this; nothing before there were enough.
    fn p95(&self) -> Option<Duration> {
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

    /// Whoever has not answered within this is slow.
    pub(crate) fn usual(&self) -> Duration {
        self.p95().unwrap_or(USUAL).max(SOONEST)
    }

    /// Smooths the latency. Races between answers lose one of them, which changes nothing.
    fn measured(&self, us: u64, now: Duration) {
        let before = self.latency_us.load(Ordering::Relaxed);
        let smoothed = if before == 0 { us } else { before - before / 8 + us / 8 };
        self.latency_us.store(smoothed, Ordering::Relaxed);
        self.measured_us.store(micros(now), Ordering::Relaxed);
    }

    fn answered(&self, us: u64, now: Duration) {
        self.measured(us, now);
        self.classes[class(us)].fetch_add(1, Ordering::Relaxed);
        if self.answers.fetch_add(1, Ordering::Relaxed) + 1 >= HALVE_AFTER {
            self.answers.store(0, Ordering::Relaxed);
            for class in &self.classes {
                class.store(class.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
    }
}

impl Timed<'_> {
    /// The answer is here.
    pub(crate) fn answered(mut self) {
        self.answered = true;
        let now = self.env.now();
        self.load.answered(micros(now.saturating_sub(self.began)), now);
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
        // Nobody waits any more. How long the answer would have taken is not known, only that it is longer than this.
        let now = self.env.now();
        let us = micros(now.saturating_sub(self.began));
        if !self.answered && us > self.load.latency_us.load(Ordering::Relaxed) {
            self.load.measured(us, now);
        }
    }
}

fn class(us: u64) -> usize {
    (us.max(1).ilog2() as usize).min(CLASSES - 1)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(load: &Load, us: u64) {
        load.answered(us, Duration::ZERO);
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
        assert_eq!(load.usual(), SOONEST, "so soon nobody is late");
        after(&load, 5_000);
        after(&load, 5_000);
        assert_eq!(load.p95(), Some(Duration::from_micros(8_192)));
        assert_eq!(load.usual(), Duration::from_micros(8_192));
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
        let (env, clock) = Env::seeded(1);
        let cost = || load.cost(&Report::default(), env.now());
        let before = cost();
        let busy = load.begin(&env);
        assert_eq!(cost(), 2 * before);
        drop(busy);
        assert_eq!(cost(), before, "it was dropped at once");
        let slow = load.begin(&env);
        clock.advance(Duration::from_millis(100));
        drop(slow);
        assert!(cost() > before, "it took 100 ms at the least");
        clock.advance(Duration::from_secs(10));
        assert!(cost() < before, "that is long ago: it may be tried again");
    }
}
