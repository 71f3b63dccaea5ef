//! When to try a node again, and what to say about it.

use std::time::Duration;

use sagitta_env::Env;

use super::Timing;

/// The history of the connections to one node.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    failures: u32,
    said: Option<Cause>,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It broke or could not be made.
    Broken,
    /// The other side does not want this node.
    Refused,
}

impl Pace {
    /// How long to wait after a connection that lasted, once it was let in, for `lasted`; and whether the operator
    /// should hear of it.
    ///
    /// Waits double and are drawn from the upper half of what they may be, so that the nodes that lost the same peer do
    /// not return to it all at once. Only a connection that lasted longer than the longest wait begins a new
    /// history: else a peer that ends each connection would be called as fast as it can answer.
    pub(crate) fn after(&mut self, cause: Cause, lasted: Duration, timing: &Timing, env: &Env) -> (Duration, bool) {
        if lasted > timing.max_backoff {
            *self = Self::default();
        }
        self.failures = self.failures.saturating_add(1);
        let doublings = (self.failures - 1).min(u32::BITS - 1);
        let longest = match cause {
            Cause::Broken => timing.min_backoff.saturating_mul(1 << doublings).min(timing.max_backoff),
            Cause::Refused => timing.refused_backoff,
        };
        let half = longest / 2;
        let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        let wait = half + Duration::from_micros(env.random_below(micros.saturating_add(1)));
        (wait, self.said.replace(cause) != Some(cause))
    }

    /// Whether the operator heard of a failure that is over now.
    pub(crate) fn has_complained(&self) -> bool {
        self.said.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 11;

    #[test]
    fn waits_double_to_their_bound_and_are_drawn_from_the_upper_half() {
        println!("seed {SEED}");
        let (env, timing) = (Env::seeded(SEED).0, Timing::default());
        let mut pace = Pace::default();
        let mut waits = Vec::new();
        for failure in 0..40 {
            let longest = (timing.min_backoff * (1 << failure.min(10))).min(timing.max_backoff);
            let (wait, _) = pace.after(Cause::Broken, Duration::ZERO, &timing, &env);
            assert!(wait >= longest / 2 && wait <= longest, "failure {failure}: {wait:?} of {longest:?}");
            waits.push(wait);
        }
        waits.dedup();
        assert!(waits.len() > 35, "they differ: {waits:?}");
    }

    #[test]
    fn a_connection_that_lasted_begins_anew_and_one_that_did_not_goes_on_waiting() {
        let (env, timing) = (Env::seeded(SEED).0, Timing::default());
        let mut pace = Pace::default();
        let mut after = |lasted| pace.after(Cause::Broken, lasted, &timing, &env).0;
        for _ in 0..10 {
            after(Duration::ZERO);
        }
        assert!(after(timing.max_backoff) >= timing.max_backoff / 2);
        assert!(after(timing.max_backoff + Duration::from_millis(1)) <= timing.min_backoff);
    }

    #[test]
    fn a_refusal_waits_long_and_each_change_of_cause_is_said_once() {
        let (env, timing) = (Env::seeded(SEED).0, Timing::default());
        let mut pace = Pace::default();
        assert!(!pace.has_complained());
        let causes = [Cause::Broken, Cause::Broken, Cause::Refused, Cause::Refused, Cause::Broken];
        let said = causes.map(|cause| {
            let (wait, said) = pace.after(cause, Duration::ZERO, &timing, &env);
            assert_eq!(wait >= timing.refused_backoff / 2, cause == Cause::Refused);
            said
        });
        assert_eq!(said, [true, false, true, false, true]);
        assert!(pace.has_complained());
    }
}
