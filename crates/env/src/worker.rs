//! Loops with a thread of their own, cut into turns, so that a simulator can run them without one.

use std::io;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::Env;

/// What came of one turn of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Something was done: there may be more.
    Worked,
    /// There was nothing to do for as long as the turn was to wait.
    Idle,
    /// Nothing is left to do, for ever.
    Over,
}

/// A worker that runs until its [`Turn::Over`], also when this is dropped.
#[derive(Debug)]
pub struct Worker(Kind);

#[derive(Debug)]
enum Kind {
    Thread(std::thread::JoinHandle<()>),
    Task(JoinHandle<()>),
}

/// How long a simulated worker rests when there is nothing to do: what wakes a thread does not wake a task.
const REST: Duration = Duration::from_millis(1);
/// Turns without a rest, after which virtual time must move: what the worker waits for may need it to.
const MAX_TURNS: u32 = 64;

impl Env {
    /// Starts a worker: a thread of that name, or, in a simulation, a task of the current runtime.
    ///
    /// `turn` does what there is to do. When there is nothing it waits for something, but no longer than it is told: for ever on a thread,
    /// not at all in a simulation. Fails when the system has no more threads to give.
    pub fn worker(&self, name: &str, mut turn: impl FnMut(Duration) -> Turn + Send + 'static) -> io::Result<Worker> {
        if self.is_simulated() {
            let env = self.clone();
            return Ok(Worker(Kind::Task(self.spawn(async move { env.turns(turn).await }))));
        }
        let turns = move || while turn(Duration::MAX) != Turn::Over {};
        self.thread(name, turns).map(|thread| Worker(Kind::Thread(thread)))
    }

    async fn turns(&self, mut turn: impl FnMut(Duration) -> Turn) {
        let mut without_rest = 0;
        loop {
            match turn(Duration::ZERO) {
                Turn::Over => return,
                Turn::Worked if without_rest < MAX_TURNS => {
                    without_rest += 1;
                    tokio::task::yield_now().await;
                }
                Turn::Worked | Turn::Idle => {
                    without_rest = 0;
                    self.sleep(REST).await;
                }
            }
        }
    }
}

impl Worker {
    /// Waits until it has ended; false if it panicked.
    pub async fn ended(self, env: &Env) -> bool {
        match self.0 {
            Kind::Thread(thread) => matches!(env.spawn_blocking(move || thread.join()).await, Ok(Ok(()))),
            Kind::Task(task) => task.await.is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Counts down, and says on which thread.
    async fn count_down(env: &Env) -> Vec<(u32, thread::ThreadId)> {
        let (said, heard) = mpsc::channel();
        let mut left = 3 * MAX_TURNS;
        let worker = env.worker("counts", move |_| {
            left -= 1;
            said.send((left, thread::current().id())).expect("heard");
            if left == 0 { Turn::Over } else { Turn::Worked }
        });
        assert!(worker.expect("started").ended(env).await);
        heard.try_iter().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_a_thread_or_in_a_simulation_a_task_that_lets_time_pass() {
        let (me, (simulated, _)) = (thread::current().id(), Env::simulated(1));
        let before = simulated.now();
        let turns = count_down(&simulated).await;
        assert_eq!(turns, (0..3 * MAX_TURNS).rev().map(|left| (left, me)).collect::<Vec<_>>());
        assert!(simulated.now() >= before + 2 * REST, "a worker that never rests does not hold up the clock");
        let turns = count_down(&Env::real()).await;
        assert!(turns.len() == 3 * MAX_TURNS as usize && turns.iter().all(|(_, thread)| *thread == turns[0].1));
        assert_ne!(turns[0].1, me);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_a_worker_and_is_told() {
        for env in [Env::real(), Env::simulated(1).0] {
            let worker = env.worker("panics", |_| panic!("planted")).expect("started");
            assert!(!worker.ended(&env).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_simulation_has_no_threads_and_its_wall_clock_jumps_alone() {
        let (env, clock) = Env::simulated(1);
        assert!(env.thread("none", || ()).is_err());
        let me = thread::current().id();
        assert_eq!(env.spawn_blocking(|| thread::current().id()).await.expect("done"), me);
        let (now, unix) = (env.now(), env.unix_micros());
        clock.jump(-3_600_000_000);
        assert!(env.timeout(Duration::from_millis(5), std::future::pending::<()>()).await.is_err());
        assert_eq!(env.now() - now, Duration::from_millis(5));
        assert_eq!(env.unix_micros(), unix - 3_600_000_000 + 5_000);
    }
}
