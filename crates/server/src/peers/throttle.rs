//! How fast this node sends what is not urgent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sagitta_env::Env;

/// Lets so many bytes a second pass, of all who ask together. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Throttle(Option<Rate>);

#[derive(Clone, Debug)]
struct Rate {
    env: Env,
    bytes_per_second: u64,
    /// When all that has been let through will have taken its time.
    free_at: Arc<Mutex<Duration>>,
}

impl Throttle {
    /// At most so many bytes a second. Time that nobody used is not made up for.
    pub fn new(env: &Env, bytes_per_second: u64) -> Self {
        Self(Some(Rate { env: env.clone(), bytes_per_second: bytes_per_second.max(1), free_at: Arc::default() }))
    }

    /// Waits until it is the turn of so many bytes, which come after all that were asked for before. Who stops waiting has had its turn.
    pub(crate) async fn pass(&self, bytes: usize) {
        if let Some(rate) = &self.0 {
            let wait = rate.reserve(bytes);
            if !wait.is_zero() {
                rate.env.sleep(wait).await;
            }
        }
    }

    /// Whether anything has asked for its turn.
    #[cfg(test)]
    pub(super) fn was_asked(&self) -> bool {
        self.0.as_ref().is_some_and(|rate| !rate.free_at.lock().unwrap_or_else(PoisonError::into_inner).is_zero())
    }
}

impl Rate {
    /// How long to wait for the turn.
    fn reserve(&self, bytes: usize) -> Duration {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let now = self.env.now();
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = now.max(*free_at);
        *free_at = begins + takes;
        begins - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_ask_share_the_rate_and_what_nobody_used_is_not_made_up_for() {
        let (env, clock) = Env::seeded(1);
        let Throttle(rate) = Throttle::new(&env, 1_000);
        let (one, other) = (rate.clone().unwrap(), rate.unwrap());
        let ms = Duration::from_millis;
        assert_eq!([one.reserve(500), other.reserve(250), one.reserve(1_000)], [ms(0), ms(500), ms(750)]);
        clock.advance(ms(1_000));
        assert_eq!(other.reserve(100), ms(750));
        clock.advance(ms(10_000));
        assert_eq!([one.reserve(300), other.reserve(1)], [ms(0), ms(300)]);
    }
}
