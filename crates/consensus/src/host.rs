//! The threads around the driver: one that owns the groups and writes the log, one that applies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use sagitta_env::Env;
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
    threads: Vec<JoinHandle<()>>,
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
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    appends: AtomicU64,
    entries: AtomicU64,
}

const LOG_THREAD: &str = "raft-log";
const APPLY_THREAD: &str = "raft-apply";

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

        let apply = {
            let env = env.clone();
            move || run_applier(&env, &for_applier, &from_applier)
        };
        let drive = {
            let env = env.clone();
            move || DriverThread { env, driver, inputs, jobs, done, tick }.run()
        };
        let threads = vec![start(env, APPLY_THREAD, apply)?, start(env, LOG_THREAD, drive)?];
        let arrivals = Arc::new(Admission::new(MAX_ARRIVED, MAX_ARRIVED_BYTES));
        let handle = HostHandle { inbox, admission: Arc::default(), arrivals, counters };
        Ok(Self { handle, threads })
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
        for thread in self.threads {
            // Both have ended or are about to: nothing is left to do.
            let _ = thread.join();
        }
        result.map_err(|why| stopped(&why))
    }
}

fn start(
    env: &Env,
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, ConsensusError> {
    env.thread(name, work).map_err(|source| ConsensusError::Thread { name, source })
}

struct DriverThread {
    env: Env,
    driver: Driver,
    inputs: Receiver<Input>,
    jobs: Sender<Job>,
    done: Receiver<Done>,
    tick: Duration,
}

impl DriverThread {
    /// What arrives while a round waits for the disk is the next round: load makes its own batches.
    fn run(mut self) {
        let mut next_tick = self.env.now() + self.tick;
        while !self.driver.is_finished() {
            if !self.wait(next_tick) {
                return;
            }
            self.drain();
            let now = self.env.now();
            if now >= next_tick {
                self.driver.tick();
                // A process that was suspended does not make up for the ticks it missed.
                next_tick = (next_tick + self.tick).max(now);
            }
            self.driver.round();
            for job in self.driver.take_jobs() {
                if self.jobs.send(job).is_err() {
                    tracing::error!("the apply thread has ended");
                    return;
                }
            }
        }
    }

    /// Waits for something to do; false when nobody can send any more.
    fn wait(&mut self, next_tick: Duration) -> bool {
        if self.driver.has_work() {
            return true;
        }
        let until = self.driver.next_retry().map_or(next_tick, |retry| retry.min(next_tick));
        let timeout = until.saturating_sub(self.env.now());
        select! {
            recv(self.inputs) -> input => match input {
                Ok(input) => self.driver.handle(input),
                Err(_) => return false,
            },
            recv(self.done) -> done => if let Ok(done) = done {
                self.driver.applied(done);
            },
            default(timeout) => {}
        }
        true
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

fn run_applier(env: &Env, jobs: &Receiver<Job>, done: &Sender<Done>) {
    let mut applier = Applier::default();
    loop {
        let job = match applier.next_retry() {
            None => match jobs.recv() {
                Ok(job) => Some(job),
                Err(_) => return,
            },
            Some(at) => match jobs.recv_timeout(at.saturating_sub(env.now())) {
                Ok(job) => Some(job),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => None,
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return,
            },
        };
        let reports = match job {
            Some(job) => applier.run(job, env.now()),
            None => applier.retry(env.now()),
        };
        for report in reports {
            if done.send(report).is_err() {
                return;
            }
        }
    }
}

impl Counters {
    pub(crate) fn count_append(&self, entries: u64) {
        self.appends.fetch_add(1, Ordering::Relaxed);
        self.entries.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, admission: &Admission) -> HostStats {
        HostStats {
            appends: self.appends.load(Ordering::Relaxed),
            entries: self.entries.load(Ordering::Relaxed),
            waiting: admission.waiting(),
        }
    }
}

#[cfg(test)]
mod tests;
