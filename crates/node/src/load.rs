//! What a replica does, measured: for how long threads search in it, read it, and apply to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sagitta_env::Env;
use sagitta_model::ReplicaLoad;

/// What is told changes no sooner than this, however often it is asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A load that begins has come by two thirds after this.
const RECENT_SECONDS: f64 = 30.0;
const LASTING_SECONDS: f64 = 600.0;

/// Measures work, and smooths how much of it there is.
///
/// By the clock: a thread that waits for the disk is as busy as one that computes, and so is one whose turn others have.
pub(crate) struct Meter {
    env: Env,
    busy_ns: AtomicU64,
    looked: Mutex<Looked>,
}

/// What was found when it was looked at last.
struct Looked {
    at: Duration,
    busy_ns: u64,
    /// Microseconds of a second.
    recent: f64,
    lasting: f64,
}

impl Meter {
    pub(crate) fn new(env: Env) -> Self {
        let looked = Looked { at: env.now(), busy_ns: 0, recent: 0.0, lasting: 0.0 };
        Self { env, busy_ns: AtomicU64::new(0), looked: Mutex::new(looked) }
    }

    /// Does some work of a thread.
    pub(crate) fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = self.env.now();
        let done = work();
        let took = self.env.now().saturating_sub(began);
        self.busy_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        done
    }

    #[cfg(test)]
    pub(crate) fn busy_ns(&self) -> u64 {
        self.busy_ns.load(Ordering::Relaxed)
    }

    /// How much work there is.
    pub(crate) fn load(&self) -> ReplicaLoad {
        let now = self.env.now();
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_sub(looked.at);
        if since >= LOOK_EVERY {
            let busy_ns = self.busy_ns.load(Ordering::Relaxed);
            let seconds = since.as_secs_f64();
            let us = busy_ns.wrapping_sub(looked.busy_ns) as f64 / 1e3 / seconds;
            let smoothed = |before: f64, within: f64| before + (us - before) * (1.0 - (-seconds / within).exp());
            *looked = Looked {
                at: now,
                busy_ns,
                recent: smoothed(looked.recent, RECENT_SECONDS),
                lasting: smoothed(looked.lasting, LASTING_SECONDS),
            };
        }
        ReplicaLoad { recent_us: looked.recent as u64, lasting_us: looked.lasting as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_half_of_a_thread_is_told_as_that_once_it_has_lasted_and_no_sooner() {
        let (env, clock) = Env::seeded(1);
        let meter = Meter::new(env);
        let second = |busy_ms: u64| {
            meter.measure(|| clock.advance(Duration::from_millis(busy_ms)));
            clock.advance(Duration::from_millis(1_000 - busy_ms));
            meter.load()
        };
        let after = |seconds: u64, busy_ms| (0..seconds).fold(ReplicaLoad::default(), |_, _| second(busy_ms));
        assert_eq!(after(10, 0), ReplicaLoad::default());
        let moment = after(5, 1_000);
        assert!(moment.recent_us < 160_000 && moment.lasting_us < 9_000, "five busy seconds are no load: {moment:?}");
        let begun = after(55, 500);
        assert!((420_000..500_000).contains(&begun.recent_us), "{begun:?}");
        assert!((40_000..60_000).contains(&begun.lasting_us), "{begun:?}");
        let steady = after(3_600, 500);
        assert!(steady.recent_us.abs_diff(500_000) < 100 && steady.lasting_us.abs_diff(500_000) < 2_000, "{steady:?}");
        let over = after(60, 0);
        assert!(over.recent_us < 70_000 && over.lasting_us > 450_000, "{over:?}");
    }

    #[test]
    fn whoever_asks_more_often_is_told_the_same() {
        let (env, clock) = Env::seeded(1);
        let meter = Meter::new(env);
        meter.measure(|| clock.advance(Duration::from_millis(999)));
        assert_eq!(meter.load(), ReplicaLoad::default(), "else each report would be another one");
        clock.advance(Duration::from_millis(1));
        let told = meter.load();
        assert!(told.recent_us > 0);
        meter.measure(|| clock.advance(Duration::from_millis(999)));
        assert_eq!(meter.load(), told);
    }
}
