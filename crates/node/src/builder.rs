//! The workers on shards in the background: one seals, merges, rebuilds and checks; one flushes, so that logs can
//! be cut. A flush is short, and a merge may take an hour.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use sagitta_engine::index::{BuildControl, Stop};
use sagitta_env::{Env, Turn};
use sagitta_shard::{JobKind, Shard};

use crate::shipping::names;
use crate::{Replica, Replicas};

/// Without a ring, how often shards are asked for work: idle merges and retries become due without a write.
const ROUND: Duration = Duration::from_millis(500);

/// The workers. Index builds use several threads each, so one build at a time fills the machine.
pub(crate) struct Builder {
    bell: Bell,
    stop: Arc<AtomicBool>,
    workers: Mutex<Vec<sagitta_env::Worker>>,
}

/// Tells the builder that there may be work. Cheap, never blocks.
#[derive(Clone)]
pub(crate) struct Bell {
    builds: Sender<()>,
    flushes: Sender<()>,
    disk_short: Arc<AtomicBool>,
    memory_short: Arc<AtomicBool>,
}

impl Bell {
    /// There may be something to seal or merge.
    pub(crate) fn ring(&self) {
        // A full channel means that the builder has not yet looked since the last ring.
        let _ = self.builds.try_send(());
    }

    /// A log has grown long: flush, so that it can be cut.
    pub(crate) fn ring_for_flush(&self) {
        let _ = self.flushes.try_send(());
    }

    /// Whether memory is short: nothing that is frozen waits for the segment of another replica then.
    pub(crate) fn set_memory_short(&self, short: bool) {
        self.memory_short.store(short, Ordering::Release);
    }

    pub(crate) fn is_memory_short(&self) -> bool {
        self.memory_short.load(Ordering::Acquire)
    }

    /// Whether no merge is begun.
    pub(crate) fn is_disk_short(&self) -> bool {
        self.disk_short.load(Ordering::Acquire)
    }

    /// Whether the disk is short: a merge writes a segment before it removes those it replaces, so none is begun then.
    pub(crate) fn set_disk_short(&self, short: bool) {
        self.disk_short.store(short, Ordering::Release);
    }
}

impl Builder {
    pub(crate) fn start(env: &Env, threads: usize, replicas: Arc<Replicas>) -> io::Result<Self> {
        let (builds, build_bell) = crossbeam_channel::bounded(1);
        let (flushes, flush_bell) = crossbeam_channel::bounded(1);
        let [disk_short, memory_short, stop] = std::array::from_fn(|_| Arc::new(AtomicBool::new(false)));
        let mut flusher = Flusher { bell: flush_bell, stop: stop.clone(), replicas: replicas.clone() };
        let mut build = Build {
            env: env.clone(),
            bell: build_bell,
            next_round: Duration::ZERO,
            disk_short: disk_short.clone(),
            stop: stop.clone(),
            replicas,
            threads,
        };
        // If the second cannot be started, the first ends with its bell.
        let workers = vec![
            env.worker("flush", move |patience| flusher.turn(patience))?,
            env.worker("build", move |patience| build.turn(patience))?,
        ];
        Ok(Self { bell: Bell { builds, flushes, disk_short, memory_short }, stop, workers: Mutex::new(workers) })
    }

    pub(crate) fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Interrupts what is being built and ends the workers; those to wait for, the first time. Nothing is lost: a build that
    /// is cut short leaves no trace.
    pub(crate) fn stop(&self) -> Vec<sagitta_env::Worker> {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
        self.bell.ring_for_flush();
        std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What has come or comes in time. Waiting for no time at all would spin and yield before it gives up, at each turn of a simulated worker.
pub(crate) fn receive<T>(from: &Receiver<T>, wait: Duration) -> Result<T, RecvTimeoutError> {
    if !wait.is_zero() {
        return from.recv_timeout(wait);
    }
    from.try_recv().map_err(|error| match error {
        TryRecvError::Empty => RecvTimeoutError::Timeout,
        TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
    })
}

struct Flusher {
    bell: Receiver<()>,
    stop: Arc<AtomicBool>,
    replicas: Arc<Replicas>,
}

impl Flusher {
    fn turn(&mut self, patience: Duration) -> Turn {
        match receive(&self.bell, patience) {
            Ok(()) if !self.stop.load(Ordering::Acquire) => {}
            Err(RecvTimeoutError::Timeout) => return Turn::Idle,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Turn::Over,
        }
        for (shard, replica) in self.replicas.all() {
            if let Err(error) = replica.shard().flush() {
                tracing::warn!(shard, %error, "flushing failed; the log is kept");
            }
        }
        Turn::Worked
    }
}

/// Builds indexes.
struct Build {
    env: Env,
    bell: Receiver<()>,
    /// When shards are asked for work though nobody rings.
    next_round: Duration,
    disk_short: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    replicas: Arc<Replicas>,
    threads: usize,
}

impl Build {
    fn turn(&mut self, patience: Duration) -> Turn {
        let wait = self.next_round.saturating_sub(self.env.now()).min(patience);
        let rung = receive(&self.bell, wait);
        if self.stop.load(Ordering::Acquire) || rung == Err(RecvTimeoutError::Disconnected) {
            return Turn::Over;
        }
        if rung.is_err() && self.env.now() < self.next_round {
            return Turn::Idle;
        }
        let busy = self.round();
        self.next_round = self.env.now() + if busy { Duration::ZERO } else { ROUND };
        Turn::Worked
    }

    /// Offers each shard a turn; says whether any had work.
    fn round(&self) -> bool {
        let (mut busy, mut has_sampled) = (false, false);
        for (shard, replica) in self.replicas.all() {
            let disk_short = self.disk_short.load(Ordering::Acquire);
            replica.sweep();
            let built = replica.shard();
            // Of one in a round: a node that has just started knows of none, and what it has to build is more urgent.
            has_sampled = has_sampled || built.sample_payloads();
            let stop = Until { stop: &self.stop, replica: &replica, shard: &built };
            let tended = replica.tend(&built, disk_short, &stop);
            if tended.adopted {
                busy = true;
                replica.built();
            }
            let is_welcome =
                |kind: &JobKind| tended.allows(kind) && (!matches!(kind, JobKind::Merge { .. }) || !disk_short);
            let Some(job) = built.next_job_of(is_welcome) else { continue };
            busy = true;
            let control = BuildControl { threads: self.threads, stop: &stop, progress: &|_| {} };
            let kind = job.kind().clone();
            let before = names(&built.view());
            let at_work = replica.shipping().at_work(&kind);
            tracing::debug!(shard, job = ?kind, "begun");
            match job.run(&control) {
                Ok(()) => {
                    tracing::debug!(shard, job = ?kind, "done");
                    replica.shipping().built(&built, &kind, &before);
                }
                Err(_) if self.stop.load(Ordering::Acquire) => return false,
                Err(_) if !replica.is_present(&built) => {
                    tracing::debug!(shard, job = ?kind, "of a state that was replaced");
                }
                Err(error) => tracing::warn!(shard, job = ?kind, %error, "failed; it is tried again later"),
            }
            drop(at_work);
            replica.built();
        }
        busy
    }
}

/// A job goes on until the node stops, its replica is closed, or another state takes the place of its shard.
struct Until<'a> {
    stop: &'a AtomicBool,
    replica: &'a Replica,
    shard: &'a Arc<Shard>,
}

impl Stop for Until<'_> {
    fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Acquire) || !self.replica.is_present(self.shard)
    }
}
