//! Threads for searches: CPU-bound work that must never run on the async threads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use sagitta_env::Env;
use tokio::sync::oneshot;

/// A bounded number of threads behind a bounded queue. Dropping it lets queued work finish, then ends the threads.
pub(crate) struct Pool {
    jobs: Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

/// Why work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The queue is full: the caller should come back later.
    QueueFull,
    /// The work panicked; the thread lives on.
    Failed,
}

impl Pool {
    /// Starts `threads` threads named `name-0`, ... behind a queue of `queue` jobs.
    pub(crate) fn start(env: &Env, name: &str, threads: usize, queue: usize) -> io::Result<Self> {
        let (jobs, inbox) = crossbeam_channel::bounded::<Job>(queue);
        for n in 0..threads {
            let inbox = inbox.clone();
            env.thread(&format!("{name}-{n}"), move || work(&inbox))?;
        }
        Ok(Self { jobs })
    }

    /// Queues work and waits for its result; refuses at once when the queue is full.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
        let (reply, result) = oneshot::channel();
        // A caller that has gone away no longer wants the result; and a job that was never started is skipped.
        let job = Box::new(move || {
            if !reply.is_closed() {
                let _ = reply.send(work());
            }
        });
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Refused::QueueFull,
            TrySendError::Disconnected(_) => Refused::Failed,
        })?;
        result.await.map_err(|_| Refused::Failed)
    }
}

fn work(inbox: &Receiver<Job>) {
    for job in inbox {
        // A panic is a bug that its caller learns of (the reply is dropped); the other callers keep their thread.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    }
}

/// Set once the caller of some work has gone away: the work should stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// Whether the caller has gone away.
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A guard that sets the flag when it is dropped, as a dropped future drops it.
    pub(crate) fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }
}

/// Cancels when dropped.
#[derive(Debug)]
pub(crate) struct CancelOnDrop(Cancelled);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_panic_harms_only_its_caller() {
        let pool = Arc::new(Pool::start(&Env::real(), "test", 1, 1).expect("threads"));
        let (release, held) = crossbeam_channel::bounded::<()>(0);
        let (started, running) = oneshot::channel();
        let env = Env::real();
        let busy = env.spawn({
            let pool = pool.clone();
            async move {
                pool.run(move || {
                    started.send(()).expect("the test waits");
                    held.recv().expect("released");
                    1
                })
                .await
            }
        });
        running.await.expect("the first job runs");
        let queued = env.spawn({
            let pool = pool.clone();
            async move { pool.run(|| 2).await }
        });
        while !pool.jobs.is_full() {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| 3).await, Err(Refused::QueueFull));
        release.send(()).expect("the job waits");
        assert_eq!(busy.await.expect("joined"), Ok(1));
        assert_eq!(queued.await.expect("joined"), Ok(2));
        assert_eq!(pool.run(|| -> u32 { panic!("planted") }).await, Err(Refused::Failed));
        assert_eq!(pool.run(|| 4).await, Ok(4));
    }
}
