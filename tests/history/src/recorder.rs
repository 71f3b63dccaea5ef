//! Writes a history while it happens.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Freshness, History, Operation, Outcome};

/// Shared by all clients of a test; clones record into the same history.
///
/// Moments are taken under one lock and never equal: what is recorded as over had been answered before what is
/// recorded as later was sent.
pub struct Recorder<I, O> {
    shared: Arc<Shared<I, O>>,
}

struct Shared<I, O> {
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    state: Mutex<State<I, O>>,
}

struct State<I, O> {
    now: u64,
    operations: Vec<Operation<I, O>>,
}

/// An operation on its way. Dropped without a word, as when its task is cancelled, its outcome is unknown.
#[must_use = "an operation whose outcome is not recorded counts as unknown"]
pub struct Call<I, O> {
    recorder: Recorder<I, O>,
    position: usize,
}

impl<I, O> Recorder<I, O> {
    /// Counts moments.
    pub fn new() -> Self {
        Self::with_clock(|| 0)
    }

    /// Shows times of this clock, such as the nanoseconds of a simulation, moved on by one where it stands still. It is
    /// for people who compare a history with a log: the order does not depend on it.
    pub fn with_clock(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let state = Mutex::new(State { now: 0, operations: Vec::new() });
        Self { shared: Arc::new(Shared { clock: Box::new(clock), state }) }
    }

    /// Records a call; to be called before anything is sent.
    pub fn call(&self, client: u64, input: I) -> Call<I, O> {
        self.call_with(client, input, Freshness::Strong)
    }

    /// The same for a read that may be weaker.
    pub fn call_with(&self, client: u64, input: I, freshness: Freshness) -> Call<I, O> {
        let mut state = self.shared.tick();
        let called = state.now;
        state.operations.push(Operation { client, called, input, freshness, outcome: Outcome::Unknown });
        Call { recorder: self.clone(), position: state.operations.len() - 1 }
    }
}

impl<I: Clone, O: Clone> Recorder<I, O> {
    /// What happened up to now. What is on its way is unknown.
    pub fn history(&self) -> History<I, O> {
        History { operations: self.shared.lock().operations.clone() }
    }
}

impl<I, O> Call<I, O> {
    /// It was answered. Returns its position, by which a read of the session names it: [`Freshness::Session`].
    pub fn ok(self, output: O) -> usize {
        let mut state = self.recorder.shared.tick();
        let returned = state.now;
        state.operations[self.position].outcome = Outcome::Ok { returned, output };
        self.position
    }

    /// It certainly had no effect.
    pub fn failed(self) {
        self.recorder.shared.lock().operations[self.position].outcome = Outcome::Failed;
    }

    /// Nobody knows whether it has had an effect or will have one.
    pub fn unknown(self) {}
}

impl<I, O> Shared<I, O> {
    fn lock(&self) -> MutexGuard<'_, State<I, O>> {
        // A panic of one client must not hide what the others saw; no write under this lock can be half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves on to a moment that nothing else has.
    fn tick(&self) -> MutexGuard<'_, State<I, O>> {
        let mut state = self.lock();
        state.now = (self.clock)().max(state.now + 1);
        state
    }
}

impl<I, O> Clone for Recorder<I, O> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<I, O> Default for Recorder<I, O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I, O> fmt::Debug for Recorder<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("operations", &self.shared.lock().operations.len()).finish()
    }
}
