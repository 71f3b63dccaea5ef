//! Threads for searches: CPU-bound work that must never run on the async threads.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use sagitta_env::{Env, Turn};
use tokio::sync::oneshot;

/// Fewer pieces than this are not worth waking another thread for: it costs about as much as a tenth of a search, and the
/// thread begins with cold caches.
const PIECES_PER_THREAD: usize = 4;

/// A bounded number of threads behind a bounded queue. Dropping it lets queued work finish, then ends the threads.
pub(crate) struct Pool {
    inbox: Arc<Inbox>,
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
        let pool = Self { inbox: Arc::new(Inbox { most: queue, state: Mutex::default() }) };
        for n in 0..threads {
            let inbox = pool.inbox.clone();
            env.worker(&format!("{name}-{n}"), move |patience| work(&inbox, patience))?;
        }
        Ok(pool)
    }

    /// Queues work and waits for its result; refuses at once when the queue is full.
    pub(crate) async fn run<T, E>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<Result<T, E>, Refused>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        // A caller that has gone away no longer wants the result; and a job that was never started is skipped.
        let job = Box::new(move || {
            if !reply.is_closed() {
                let _ = reply.send(work());
            }
        });
        self.inbox.push(job)?;
        result.await.map_err(|_| Refused::Failed)
    }

    /// Queues `count` pieces of work as one job and waits for all results, in order, or for the first error. Threads that
    /// are idle when it is queued share the pieces; when none is, one thread does them one after the other.
    pub(crate) async fn run_each<T, E>(
        &self,
        count: usize,
        work: impl Fn(usize) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Result<Vec<T>, E>, Refused>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        if count == 0 {
            return Ok(Ok(Vec::new()));
        }
        let (reply, result) = oneshot::channel();
        let pieces = Arc::new(Pieces::new(count, work, reply));
        let threads = self.inbox.idle().min(count / PIECES_PER_THREAD).max(1);
        for helper in 0..threads {
            let pieces = pieces.clone();
            let pushed = self.inbox.push(Box::new(move || pieces.work()));
            // Without helpers the work takes longer, without the first job it is not done.
            if helper == 0 {
                pushed?;
            }
        }
        drop(pieces);
        result.await.map_err(|_| Refused::Failed)
    }
}

impl Pool {
    /// Jobs that wait for a thread.
    pub(crate) fn waiting(&self) -> usize {
        self.inbox.lock().jobs.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

/// Jobs that wait for a thread and threads that wait for a job. A channel would do, but its threads look for work for a few
/// microseconds before they sleep, which is a good part of what a search costs, and wake up in turns, with cold caches.
struct Inbox {
    /// Jobs that may wait.
    most: usize,
    state: Mutex<InboxState>,
}

#[derive(Default)]
struct InboxState {
    jobs: VecDeque<Job>,
    /// Threads that sleep; the last one slept least and is woken first.
    idle: Vec<Thread>,
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> usize {
        self.lock().idle.len()
    }

    fn push(&self, job: Job) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.jobs.len() >= self.most {
            return Err(Refused::QueueFull);
        }
        state.jobs.push_back(job);
        let woken = state.idle.pop();
        drop(state);
        if let Some(thread) = woken {
            thread.unpark();
        }
        Ok(())
    }

    /// The next job if there is one now.
    fn try_next(&self) -> Result<Job, Turn> {
        let mut state = self.lock();
        let none = if state.closed { Turn::Over } else { Turn::Idle };
        state.jobs.pop_front().ok_or(none)
    }

    /// The next job, as soon as there is one; over when the pool is gone and all its jobs are done.
    fn next(&self) -> Result<Job, Turn> {
        let me = thread::current();
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Ok(job);
            }
            if state.closed {
                return Err(Turn::Over);
            }
            state.idle.push(me.clone());
            // Parking may end without a cause; whoever wakes a thread takes it off the list before.
            while state.idle.iter().any(|thread| thread.id() == me.id()) {
                drop(state);
                thread::park();
                state = self.lock();
            }
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        idle.iter().for_each(Thread::unpark);
    }
}

fn work(inbox: &Inbox, patience: Duration) -> Turn {
    let job = if patience.is_zero() { inbox.try_next() } else { inbox.next() };
    match job {
        Ok(job) => {
            // A panic is a bug that its caller learns of (the reply is dropped); the other callers keep their thread.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            Turn::Worked
        }
        Err(turn) => turn,
    }
}

/// Work in pieces that several threads may share.
struct Pieces<T, E, F> {
    count: usize,
    work: F,
    next: AtomicUsize,
    progress: Mutex<Progress<T, E>>,
}

struct Progress<T, E> {
    results: Vec<Option<T>>,
    left: usize,
    /// Taken by who has the last result or an error.
    reply: Option<oneshot::Sender<Result<Vec<T>, E>>>,
}

impl<T, E, F: Fn(usize) -> Result<T, E>> Pieces<T, E, F> {
    fn new(count: usize, work: F, reply: oneshot::Sender<Result<Vec<T>, E>>) -> Self {
        let results = (0..count).map(|_| None).collect();
        let progress = Progress { results, left: count, reply: Some(reply) };
        Self { count, work, next: AtomicUsize::new(0), progress: Mutex::new(progress) }
    }

    /// Does pieces that nobody else does, until there are none or nobody wants them any more.
    fn work(&self) {
        while self.is_wanted() {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= self.count {
                return;
            }
            self.finish(piece, (self.work)(piece));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress<T, E>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_wanted(&self) -> bool {
        self.lock().reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    fn finish(&self, piece: usize, result: Result<T, E>) {
        let mut progress = self.lock();
        let answer = match result {
            Ok(result) => {
                progress.results[piece] = Some(result);
                progress.left -= 1;
                if progress.left > 0 {
                    return;
                }
                Ok(std::mem::take(&mut progress.results).into_iter().flatten().collect())
            }
            Err(error) => Err(error),
        };
        let reply = progress.reply.take();
        drop(progress);
        if let Some(reply) = reply {
            let _ = reply.send(answer);
        }
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
    use std::sync::Barrier;

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
                    done(1)
                })
                .await
            }
        });
        running.await.expect("the first job runs");
        let queued = env.spawn({
            let pool = pool.clone();
            async move { pool.run(|| done(2)).await }
        });
        while pool.inbox.lock().jobs.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| done(3)).await, Err(Refused::QueueFull));
        assert_eq!(pool.run_each(2, |_| done(3)).await, Err(Refused::QueueFull));
        release.send(()).expect("the job waits");
        assert_eq!(busy.await.expect("joined"), Ok(Ok(1)));
        assert_eq!(queued.await.expect("joined"), Ok(Ok(2)));
        assert_eq!(pool.run(|| -> Result<u32, ()> { panic!("planted") }).await, Err(Refused::Failed));
        assert_eq!(pool.run(|| done(4)).await, Ok(Ok(4)));
    }

    #[tokio::test]
    async fn idle_threads_share_the_pieces_and_results_keep_their_order() {
        let pool = idle_pool(2).await;
        // Each of the first two pieces waits for the other: one thread alone would never end.
        let meeting = Arc::new(Barrier::new(2));
        let work = move |piece: usize| {
            if piece < 2 {
                meeting.wait();
            }
            done(piece * 10)
        };
        let expected: Vec<_> = (0..3 * PIECES_PER_THREAD).map(|piece| piece * 10).collect();
        assert_eq!(pool.run_each(expected.len(), work).await, Ok(Ok(expected)));
        assert_eq!(pool.run_each(0, done).await.expect("done"), Ok(Vec::new()));
    }

    #[tokio::test]
    async fn few_pieces_stay_on_one_thread() {
        let pool = idle_pool(2).await;
        let threads = pool.run_each(2 * PIECES_PER_THREAD - 1, |_| Ok::<_, ()>(thread::current().id())).await;
        let threads = threads.expect("done").expect("no error");
        assert!(threads.iter().all(|id| *id == threads[0]), "{threads:?}");
    }

    #[tokio::test]
    async fn an_error_or_a_panic_in_a_piece_ends_the_whole() {
        for threads in [1, 2] {
            let pool = idle_pool(threads).await;
            let begun = Arc::new(AtomicUsize::new(0));
            let count = 1_000;
            let seen = begun.clone();
            let work = move |piece: usize| {
                seen.fetch_add(1, Ordering::Relaxed);
                if piece == 5 { Err("planted") } else { Ok(piece) }
            };
            assert_eq!(pool.run_each(count, work).await, Ok(Err("planted")), "{threads} threads");
            if threads == 1 {
                assert_eq!(begun.load(Ordering::Relaxed), 6);
            }
            let work = |piece: usize| if piece == 5 { panic!("planted") } else { done(piece) };
            assert_eq!(pool.run_each(count, work).await, Err(Refused::Failed), "{threads} threads");
            assert_eq!(pool.run_each(count, done).await.map(|all| all.map(|all| all.len())), Ok(Ok(count)));
        }
    }

    #[tokio::test]
    async fn queued_work_is_finished_when_the_pool_goes_and_then_its_threads_end() {
        let pool = idle_pool(2).await;
        let inbox = pool.inbox.clone();
        let finished = Arc::new(AtomicUsize::new(0));
        for _ in 0..20 {
            let finished = finished.clone();
            let job = move || {
                finished.fetch_add(1, Ordering::Relaxed);
            };
            inbox.push(Box::new(job)).expect("room");
        }
        drop(pool);
        // Each of the two threads holds the inbox until it ends.
        while Arc::strong_count(&inbox) > 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(finished.load(Ordering::Relaxed), 20);
    }

    fn done<T>(result: T) -> Result<T, ()> {
        Ok(result)
    }

    /// A pool whose threads all sleep.
    async fn idle_pool(threads: usize) -> Pool {
        let pool = Pool::start(&Env::real(), "test", threads, 100).expect("threads");
        while pool.inbox.idle() < threads {
            tokio::task::yield_now().await;
        }
        pool
    }
}
