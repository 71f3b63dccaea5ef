//! The workers around the driver: one that owns the groups and writes the log, one that applies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, select_biased, unbounded};
use sagitta_env::{Env, Turn, Worker};
use tokio::sync::oneshot;

use crate::admission::Admission;
use crate::apply::{Applier, Done, Job};
use crate::driver::{Driver, Input};
use crate::error::ConsensusError;
use crate::handle::HostHandle;
use crate::log::LogStore;
use crate::settings::{HostSettings, INBOX_SLACK, MAX_ARRIVED, MAX_ARRIVED_BYTES, MAX_DRAIN, MAX_WAITING};
use crate::transport::Transport;

/// Drives many groups over one log. Ends with [`Host::shutdown`], or without finishing anything when this and the
/// last handle are dropped.
pub struct Host {
    handle: HostHandle,
    env: Env,
    workers: Vec<Worker>,
}

/// What a host has done since it started, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostStats {
    /// Synced writes to the log. Each is one fsync.
    pub appends: u64,
    /// Entries in them.
    pub entries: u64,
    /// Proposals on their way.
    pub waiting: usize,
    /// Its log has failed: no group works any more before the process starts anew.
    pub stopped: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    appends: AtomicU64,
    entries: AtomicU64,
    stopped: AtomicBool,
}

const LOG_WORKER: &str = "raft-log";
const APPLY_WORKER: &str = "raft-apply";

impl Host {
    /// Starts a host without groups.
    pub fn start(
        env: &Env,
        settings: HostSettings,
        log: Arc<dyn LogStore>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, ConsensusError> {
        let (inbox, inputs) = bounded(MAX_WAITING + INBOX_SLACK);
        // Both are bounded by the jobs that the driver lets each group have.
        let (jobs, for_applier) = unbounded();
        let (from_applier, done) = unbounded();
        let counters = Arc::new(Counters::default());
        let tick = settings.tick;
        let driver = Driver::new(env.clone(), settings, log, transport, counters.clone());

        let mut apply =
            ApplyWorker { env: env.clone(), applier: Applier::default(), jobs: for_applier, done: from_applier };
        let next_tick = env.now() + tick;
        let mut log = LogWorker { env: env.clone(), driver, inputs, jobs, done, tick, next_tick };
        let workers = vec![
            start(env, APPLY_WORKER, move |patience| apply.turn(patience))?,
            start(env, LOG_WORKER, move |patience| log.turn(patience))?,
        ];
        let arrivals = Arc::new(Admission::new(MAX_ARRIVED, MAX_ARRIVED_BYTES));
        let handle = HostHandle { inbox, admission: Arc::default(), arrivals, counters };
        Ok(Self { handle, env: env.clone(), workers })
    }

    /// A handle for everybody else.
    pub fn handle(&self) -> HostHandle {
        self.handle.clone()
    }

    /// Takes no more, finishes what is under way until the deadline, flushes the state machines and ends the
    /// threads. The error names the groups that could not be flushed; their log is kept.
    pub async fn shutdown(self, deadline: Duration) -> Result<(), ConsensusError> {
        let (answer, ended) = oneshot::channel();
        let stopped = |why: &str| ConsensusError::Stopped { why: why.to_owned() };
        self.handle
            .inbox
            .try_send(Input::Shutdown { deadline, answer })
            .map_err(|_| stopped("the inbox is full or the host has ended"))?;
        let result = ended.await.map_err(|_| stopped("the host ended on a failure"))?;
        drop(self.handle);
        for worker in self.workers {
            // Both have ended or are about to: nothing is left to do.
            let _ = worker.ended(&self.env).await;
        }
        result.map_err(|why| stopped(&why))
    }
}

fn start(
    env: &Env,
    name: &'static str,
    turn: impl FnMut(Duration) -> Turn + Send + 'static,
) -> Result<Worker, ConsensusError> {
    env.worker(name, turn).map_err(|source| ConsensusError::Thread { name, source })
}

struct LogWorker {
    env: Env,
    driver: Driver,
    inputs: Receiver<Input>,
    jobs: Sender<Job>,
    done: Receiver<Done>,
    tick: Duration,
    next_tick: Duration,
}

impl LogWorker {
    /// What arrives while a round waits for the disk is the next round: load makes its own batches.
    fn turn(&mut self, patience: Duration) -> Turn {
        if self.driver.is_finished() {
            return Turn::Over;
        }
        let came = self.wait(patience);
        if came == Turn::Over {
            return Turn::Over;
        }
        self.drain();
        let now = self.env.now();
        if now >= self.next_tick {
            self.driver.tick();
            // A process that was suspended does not make up for the ticks it missed.
            self.next_tick = (self.next_tick + self.tick).max(now);
        }
        self.driver.round();
        for job in self.driver.take_jobs() {
            if self.jobs.send(job).is_err() {
                tracing::error!("the worker that applies has ended");
                return Turn::Over;
            }
        }
        came
    }

    /// Waits for something to do; over when nobody can send any more.
    fn wait(&mut self, patience: Duration) -> Turn {
        if self.driver.has_work() {
            return Turn::Worked;
        }
        let until = self.driver.next_retry().map_or(self.next_tick, |retry| retry.min(self.next_tick));
        let timeout = until.saturating_sub(self.env.now()).min(patience);
        if timeout.is_zero() {
            return self.look();
        }
        // In this order, so that the same seed gives the same run.
        select_biased! {
            recv(self.done) -> done => if let Ok(done) = done {
                self.driver.applied(done);
            },
            recv(self.inputs) -> input => match input {
                Ok(input) => self.driver.handle(input),
                Err(_) => return Turn::Over,
            },
            default(timeout) => return Turn::Idle,
        }
        Turn::Worked
    }

    /// Takes one thing that is there, in the same order. A select spins before it gives up, also when it may not wait.
    fn look(&mut self) -> Turn {
        if let Ok(done) = self.done.try_recv() {
            self.driver.applied(done);
            return Turn::Worked;
        }
        match self.inputs.try_recv() {
            Ok(input) => self.driver.handle(input),
            Err(TryRecvError::Empty) => return Turn::Idle,
            Err(TryRecvError::Disconnected) => return Turn::Over,
        }
        Turn::Worked
    }

    fn drain(&mut self) {
        while let Ok(done) = self.done.try_recv() {
            self.driver.applied(done);
        }
        for _ in 0..MAX_DRAIN {
            match self.inputs.try_recv() {
                Ok(input) => self.driver.handle(input),
                Err(_) => break,
            }
        }
    }
}

struct ApplyWorker {
    env: Env,
    applier: Applier,
    jobs: Receiver<Job>,
    done: Sender<Done>,
}

impl ApplyWorker {
    fn turn(&mut self, patience: Duration) -> Turn {
        let until_retry = self.applier.next_retry().map(|at| at.saturating_sub(self.env.now()));
        let wait = until_retry.map_or(patience, |wait| wait.min(patience));
        // Waiting for no time would spin before it gives up.
        let job = match wait.is_zero() {
            true => self.jobs.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            }),
            false => self.jobs.recv_timeout(wait),
        };
        let (turn, reports) = match job {
            Ok(job) => (Turn::Worked, self.applier.run(job, self.env.now())),
            Err(RecvTimeoutError::Timeout) => (Turn::Idle, self.applier.retry(self.env.now())),
            Err(RecvTimeoutError::Disconnected) => return Turn::Over,
        };
        for report in reports {
            if self.done.send(report).is_err() {
                return Turn::Over;
            }
        }
        turn
    }
}

impl Counters {
    pub(crate) fn count_append(&self, entries: u64) {
        self.appends.fetch_add(1, Ordering::Relaxed);
        self.entries.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn note_stopped(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, admission: &Admission) -> HostStats {
        HostStats {
            appends: self.appends.load(Ordering::Relaxed),
            entries: self.entries.load(Ordering::Relaxed),
            waiting: admission.waiting(),
            stopped: self.stopped.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
