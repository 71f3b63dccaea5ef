//! Which errors are worth another attempt, when, and how many in all.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sagitta_env::Env;
use sagitta_wire::Failure;

use crate::config::RetryPolicy;

/// Keeps retries a small share of all calls, so that a server in trouble does not get many times the load for it.
///
/// A retry takes a token; a success gives back a tenth of one.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    tenths: AtomicU32,
}

/// Retries that may follow each other without any success in between, over all calls of a client.
const BUDGET: u32 = 50;
const TENTHS: u32 = 10;

impl RetryBudget {
    pub(crate) fn full() -> Self {
        Self { tenths: AtomicU32::new(BUDGET * TENTHS) }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&self) -> bool {
        self.update(|tenths| tenths.checked_sub(TENTHS))
    }

    /// Notes a success.
    pub(crate) fn refill(&self) {
        self.update(|tenths| (tenths < BUDGET * TENTHS).then_some(tenths + 1));
    }

    fn update(&self, change: impl FnMut(u32) -> Option<u32>) -> bool {
        self.tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}

impl RetryPolicy {
    /// How long to wait before the next attempt, after `attempts` of them; `None` when there should be none.
    pub(crate) fn wait(&self, failure: &Failure, attempts: u32, env: &Env) -> Option<Duration> {
        if !failure.is_retryable() || attempts >= self.max_attempts {
            return None;
        }
        Some(self.backoff(attempts, env).max(failure.retry_after.unwrap_or_default()))
    }

    fn backoff(&self, attempts: u32, env: &Env) -> Duration {
        let doublings = attempts.saturating_sub(1).min(u32::BITS - 1);
        let longest = self.initial_backoff.saturating_mul(1 << doublings).min(self.max_backoff);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(env.random_below(micros.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use sagitta_model::ErrorKind;

    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_heed_the_server() {
        let (env, _) = Env::seeded(1);
        let policy = RetryPolicy { max_attempts: 40, ..RetryPolicy::default() };
        let failure = Failure::new(ErrorKind::Unavailable, "away");
        for attempts in 1..40 {
            let longest = policy.initial_backoff * (1 << (attempts - 1).min(20));
            let wait = policy.wait(&failure, attempts, &env).unwrap();
            assert!(wait <= longest.min(policy.max_backoff), "attempt {attempts}: {wait:?}");
        }
        assert_eq!(policy.wait(&failure, 40, &env), None);
        let asked = failure.with_retry_after(Duration::from_secs(60));
        assert_eq!(policy.wait(&asked, 1, &env), Some(Duration::from_secs(60)));
        let wrong = Failure::new(ErrorKind::Invalid, "wrong");
        assert_eq!(policy.wait(&wrong, 1, &env), None);
        assert_eq!(RetryPolicy::NEVER.wait(&asked, 1, &env), None);
    }

    #[test]
    fn the_budget_bounds_retries_until_calls_succeed_again() {
        let budget = RetryBudget::full();
        assert_eq!((0..1_000).filter(|_| budget.take()).count(), BUDGET as usize);
        (0..TENTHS - 1).for_each(|_| budget.refill());
        assert!(!budget.take());
        budget.refill();
        assert!(budget.take() && !budget.take());
        (0..10_000).for_each(|_| budget.refill());
        assert_eq!((0..1_000).filter(|_| budget.take()).count(), BUDGET as usize);
    }
}
