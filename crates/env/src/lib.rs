//! The only caller of the clock, of randomness and of spawning, so that the cluster can run in a simulator.
//!
//! Everything that needs time, chance or a thread is handed an [`Env`]. There are three: the machine's; one for tests, whose clock moves only
//! when told to; and a simulated one, whose clock is that of a paused tokio runtime and which makes no threads: what has a thread
//! of its own elsewhere ([`Env::worker`]) takes turns with everything else there. May not know: what it is used for.
#![allow(clippy::disallowed_methods, reason = "this crate is what the bans elsewhere point to")]

mod alarm;
mod worker;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

pub use tokio::task::JoinHandle;

pub use self::alarm::{Alarm, Wait};
pub use self::worker::{Turn, Worker};

/// A handle to time, randomness and tasks; cheap to clone.
#[derive(Clone)]
pub struct Env {
    clock: Arc<Clock>,
    random: Arc<Mutex<StdRng>>,
}

enum Clock {
    Real { start: Instant },
    Manual { now_micros: AtomicU64 },
    Simulated { start: tokio::time::Instant, jumped_micros: AtomicI64 },
}

/// Where the wall clock of a seeded or simulated [`Env`] begins: some day in 2025.
const UNIX_START_MICROS: u64 = 1_750_000_000_000_000;

/// Moves the clock of a seeded [`Env`].
#[derive(Clone)]
pub struct ManualClock(Arc<Clock>);

/// Makes the wall clock of a simulated [`Env`] jump.
#[derive(Clone)]
pub struct SimulatedClock(Arc<Clock>);

/// The moment by which an answer is wanted, on the clock of the [`Env`] that made it; or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Duration>);

/// A bound on waiting ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// What a panic said, as [`std::panic::catch_unwind`] or joining a thread returns it.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}

impl Env {
    /// The machine's clock and entropy.
    pub fn real() -> Self {
        Self {
            clock: Arc::new(Clock::Real { start: Instant::now() }),
            random: Arc::new(Mutex::new(StdRng::from_os_rng())),
        }
    }

    /// A clock that moves only when told to and randomness from a seed: the same seed gives the same run.
    pub fn seeded(seed: u64) -> (Self, ManualClock) {
        let clock = Arc::new(Clock::Manual { now_micros: AtomicU64::new(0) });
        (Self::of(clock.clone(), seed), ManualClock(clock))
    }

    /// The paused clock of the tokio runtime that it is used in, randomness from a seed, and no threads: the same seed gives the same
    /// run. To be made within the runtime, which has one thread.
    pub fn simulated(seed: u64) -> (Self, SimulatedClock) {
        let start = tokio::time::Instant::now();
        let clock = Arc::new(Clock::Simulated { start, jumped_micros: AtomicI64::new(0) });
        (Self::of(clock.clone(), seed), SimulatedClock(clock))
    }

    fn of(clock: Arc<Clock>, seed: u64) -> Self {
        Self { clock, random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))) }
    }

    fn is_simulated(&self) -> bool {
        matches!(*self.clock, Clock::Simulated { .. })
    }

    /// Monotonic time since this environment began.
    pub fn now(&self) -> Duration {
        match &*self.clock {
            Clock::Real { start } => start.elapsed(),
            Clock::Manual { now_micros } => Duration::from_micros(now_micros.load(Ordering::Acquire)),
            Clock::Simulated { start, .. } => start.elapsed(),
        }
    }

    /// Wall-clock time in microseconds since 1970. May jump; for people and timestamps, never for durations.
    pub fn unix_micros(&self) -> u64 {
        match &*self.clock {
            Clock::Real { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
            }
            Clock::Manual { now_micros } => UNIX_START_MICROS + now_micros.load(Ordering::Acquire),
            Clock::Simulated { start, jumped_micros } => {
                let since = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                UNIX_START_MICROS.saturating_add(since).saturating_add_signed(jumped_micros.load(Ordering::Acquire))
            }
        }
    }

    /// A uniformly random number.
    pub fn random_u64(&self) -> u64 {
        self.with_random(RngCore::next_u64)
    }

    /// A uniformly random number below `bound`, which is above 0.
    pub fn random_below(&self, bound: u64) -> u64 {
        // The bias of the multiplication is below bound / 2^64.
        ((u128::from(self.random_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A random (version 4) UUID as its 128-bit value.
    pub fn uuid(&self) -> u128 {
        let random = u128::from(self.random_u64()) << 64 | u128::from(self.random_u64());
        let version = random & !(0xf << 76) | 0x4 << 76;
        version & !(0x3 << 62) | 0x2 << 62
    }

    fn with_random<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The moment a duration from now.
    pub fn deadline(&self, within: Duration) -> Deadline {
        Deadline(self.now().checked_add(within))
    }

    /// Waits for a future until a deadline.
    pub async fn until<F: Future>(&self, deadline: Deadline, future: F) -> Result<F::Output, Elapsed> {
        match deadline.remaining(self) {
            Some(left) => self.timeout(left, future).await,
            None => Ok(future.await),
        }
    }

    /// Waits on the async runtime for a duration.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Waits for a future, at most for a duration.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(duration, future).await.map_err(|_| Elapsed)
    }

    /// Runs a future on the current async runtime.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(future)
    }

    /// Runs blocking work on the async runtime's pool for such work. For rare, short work; searches and builds have their own pools.
    pub fn spawn_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        if self.is_simulated() {
            // Not at once: whoever hands it over is not to find it done.
            return tokio::spawn(async move {
                tokio::task::yield_now().await;
                work()
            });
        }
        tokio::task::spawn_blocking(work)
    }

    /// Starts a named thread. Fails when the system has no more threads to give, and always in a simulation.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<std::thread::JoinHandle<T>> {
        if self.is_simulated() {
            return Err(io::Error::other("a simulation has no threads"));
        }
        std::thread::Builder::new().name(name.to_owned()).spawn(work)
    }
}

impl Deadline {
    /// No bound.
    pub const NEVER: Self = Self(None);

    /// The moment as a time of the clock; never is the end of time.
    pub fn at(self) -> Duration {
        self.0.unwrap_or(Duration::MAX)
    }

    /// Whether the moment has passed.
    pub fn has_passed(self, env: &Env) -> bool {
        self.0.is_some_and(|at| env.now() >= at)
    }

    /// The time that is left, zero once it has passed; `None` without a bound.
    pub fn remaining(self, env: &Env) -> Option<Duration> {
        self.0.map(|at| at.saturating_sub(env.now()))
    }
}

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        if let Clock::Manual { now_micros, .. } = &*self.0 {
            let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
            now_micros.fetch_add(micros, Ordering::AcqRel);
        }
    }
}

impl SimulatedClock {
    /// Lets the wall clock jump, forwards or back. The monotonic clock does not.
    pub fn jump(&self, micros: i64) {
        if let Clock::Simulated { jumped_micros, .. } = &*self.0 {
            jumped_micros.fetch_add(micros, Ordering::AcqRel);
        }
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("now", &self.now()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_time_moves_only_when_told() {
        let ((a, clock), (b, _)) = (Env::seeded(7), Env::seeded(7));
        let draws = |env: &Env| (0..5).map(|_| env.random_u64()).collect::<Vec<_>>();
        assert_eq!(draws(&a), draws(&b));
        assert_ne!(draws(&a), draws(&Env::seeded(8).0));
        let unix = a.unix_micros();
        clock.advance(Duration::from_millis(3));
        assert_eq!((a.now(), a.unix_micros() - unix), (Duration::from_millis(3), 3_000));
        assert_eq!(b.now(), Duration::ZERO);
        let deadline = a.deadline(Duration::from_millis(2));
        clock.advance(Duration::from_millis(1));
        assert_eq!((deadline.has_passed(&a), deadline.remaining(&a)), (false, Some(Duration::from_millis(1))));
        clock.advance(Duration::from_millis(1));
        assert_eq!((deadline.has_passed(&a), deadline.remaining(&a)), (true, Some(Duration::ZERO)));
        assert!(!Deadline::NEVER.has_passed(&a));
    }

    #[test]
    fn uuids_carry_version_and_variant_and_draws_keep_below_their_bound() {
        let (env, _) = Env::seeded(1);
        for _ in 0..100 {
            let uuid = env.uuid();
            assert_eq!((uuid >> 76 & 0xf, uuid >> 62 & 0x3), (4, 2));
            assert!(env.random_below(3) < 3);
        }
    }
}
