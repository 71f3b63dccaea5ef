//! What a node has, what it uses of it, and whether it takes more data.
//!
//! Memory is split once ([`MemoryBudget::shares`]), and each part keeps to its share by its own means. Because
//! sums of estimates drift from the truth, whether data is taken goes by what the system measures. A decision ([`gate`]) is
//! a function of the one before and of a measurement ([`probe`]), made several times a second; between two of them writes
//! are let in up to what the last one left room for.

mod gate;
mod memory;
mod probe;
mod size;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use sagitta_engine::kv::KvEngine;
use sagitta_env::{Env, Turn, Worker};
use sagitta_model::limits;
use sagitta_shard::ReadView;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::builder::{Bell, receive};
use crate::{NodeOptions, Replicas};

use self::gate::{DiskSpace, Gates, Measurement, is_memory_scarce};

pub(crate) use self::probe::disk_space;

pub use self::gate::Shortage;
pub use self::memory::{BudgetError, MemoryBudget, MemoryShares};
pub use self::size::ByteSize;

/// How often the node is looked at: also how long a write near a mark may have to wait.
const INTERVAL: Duration = Duration::from_millis(200);

/// While memory is scarce, how often the allocator is asked to give back what it holds without using it, if that helps ...
const RELEASE_INTERVAL: Duration = Duration::from_secs(1);
/// ... and if it does not: less than this share of the budget came back.
const IDLE_RELEASE_INTERVAL: Duration = Duration::from_secs(10);
const WORTHWHILE_SHARE: u64 = 64;
/// While the disk is short, how often the databases are flushed, so that the log can be cut.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

/// Whether the node takes more data, for those who bring it.
pub(crate) struct Resources {
    decision: watch::Sender<Decision>,
    /// Bytes let in since the node was measured for that decision.
    admitted_bytes: AtomicU64,
    /// Whether, since that decision, nothing was let in yet that is larger than all the room.
    may_exceed: AtomicBool,
    /// What writes hold in memory before they are committed.
    places: Semaphore,
    place_count: u32,
}

/// Held for as long as a write is under way.
pub(crate) type Place<'a> = SemaphorePermit<'a>;
/// Places are counted in so many bytes.
const PLACE_BYTES: usize = 1 << 10;

/// What one look at the node led to.
#[derive(Clone, Copy, Debug)]
struct Decision {
    shortage: Option<Shortage>,
    /// What may be let in until the next look.
    room_bytes: u64,
}

impl Resources {
    /// Takes everything, until the node is looked at, but no more than so many bytes at once.
    pub(crate) fn new(request_bytes: u64) -> Self {
        let decision = watch::Sender::new(Decision { shortage: None, room_bytes: u64::MAX });
        // The largest message must fit, if alone.
        let bytes = usize::try_from(request_bytes).unwrap_or(usize::MAX).max(limits::MAX_MESSAGE_BYTES);
        let place_count = u32::try_from(bytes / PLACE_BYTES).unwrap_or(u32::MAX);
        Self {
            decision,
            admitted_bytes: AtomicU64::new(0),
            may_exceed: AtomicBool::new(true),
            places: Semaphore::new((place_count as usize).min(Semaphore::MAX_PERMITS)),
            place_count,
        }
    }

    /// Room in memory for a write of so many bytes while it is under way; `None` while others have it.
    pub(crate) fn place_for(&self, bytes: usize) -> Option<Place<'_>> {
        let places = u32::try_from(bytes.div_ceil(PLACE_BYTES)).unwrap_or(u32::MAX).min(self.place_count);
        self.places.try_acquire_many(places).ok()
    }

    /// Whether data may be added.
    pub(crate) fn check(&self) -> Result<(), Shortage> {
        self.decision.borrow().shortage.map_or(Ok(()), Err)
    }

    /// Lets in so many bytes of data. Near a mark this waits for the next look, which is never far.
    pub(crate) async fn admit(&self, bytes: u64) -> Result<(), Shortage> {
        let mut decisions = self.decision.subscribe();
        loop {
            let decision = *decisions.borrow_and_update();
            if let Some(shortage) = decision.shortage {
                return Err(shortage);
            }
            if self.take(bytes, decision.room_bytes) {
                return Ok(());
            }
            // What is larger than all the room would wait for ever: there is no shortage, so with each look one passes.
            if bytes > decision.room_bytes && self.may_exceed.swap(false, Ordering::Relaxed) {
                self.admitted_bytes.fetch_add(bytes, Ordering::Relaxed);
                return Ok(());
            }
            // The sender is ours, so there will be a next decision or this future is dropped.
            let _ = decisions.changed().await;
        }
    }

    /// Takes so many bytes of the room, or none.
    fn take(&self, bytes: u64, room_bytes: u64) -> bool {
        let within = |admitted: u64| admitted.checked_add(bytes).filter(|sum| *sum <= room_bytes);
        self.admitted_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    fn admitted_bytes(&self) -> u64 {
        self.admitted_bytes.load(Ordering::Relaxed)
    }

    /// `measured_bytes` had been let in when the measurement began: they are part of it, unlike what came since. Returns what was decided
    /// before.
    fn decide(&self, decision: Decision, measured_bytes: u64) -> Decision {
        self.admitted_bytes.fetch_sub(measured_bytes, Ordering::Relaxed);
        self.may_exceed.store(true, Ordering::Relaxed);
        self.decision.send_replace(decision)
    }
}

/// The size of the file system that holds a folder, if it says.
pub fn volume_bytes(folder: &Path) -> Option<u64> {
    disk_space(folder).ok().map(|disk| disk.total_bytes)
}

/// The worker that looks at the node. Ends when it is told to, or dropped.
pub(crate) struct Watch {
    stop: Sender<()>,
    worker: Mutex<Option<Worker>>,
}

impl Watch {
    /// Looks once before it returns, so that the first write finds a decision.
    pub(crate) fn start(
        env: &Env,
        options: &NodeOptions,
        database: Arc<dyn KvEngine>,
        (replicas, builder, resources): (Arc<Replicas>, Bell, Arc<Resources>),
        changes: watch::Sender<u64>,
    ) -> io::Result<Self> {
        let mut watcher = Watcher {
            env: env.clone(),
            next_look: env.now() + INTERVAL,
            folder: options.dir.clone(),
            budget: options.memory,
            release_memory: options.release_memory,
            next_release: Duration::ZERO,
            next_flush: Duration::ZERO,
            database,
            replicas,
            builder,
            resources,
            gates: Gates::default(),
            changes,
        };
        watcher.look();
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let worker = env.worker("resources", move |patience| watcher.turn(&stopped, patience))?;
        Ok(Self { stop, worker: Mutex::new(Some(worker)) })
    }

    /// Tells it to end; the worker to wait for, the first time.
    pub(crate) fn stop(&self) -> Option<Worker> {
        // A full channel: it was told already.
        let _ = self.stop.try_send(());
        self.worker.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct Watcher {
    env: Env,
    next_look: Duration,
    folder: PathBuf,
    budget: MemoryBudget,
    release_memory: fn(),
    next_release: Duration,
    next_flush: Duration,
    database: Arc<dyn KvEngine>,
    replicas: Arc<Replicas>,
    builder: Bell,
    resources: Arc<Resources>,
    gates: Gates,
    /// Counts when data begins to be refused and to be taken again.
    changes: watch::Sender<u64>,
}

impl Watcher {
    fn turn(&mut self, stop: &Receiver<()>, patience: Duration) -> Turn {
        let wait = self.next_look.saturating_sub(self.env.now()).min(patience);
        if receive(stop, wait) != Err(RecvTimeoutError::Timeout) {
            return Turn::Over;
        }
        if self.env.now() < self.next_look {
            return Turn::Idle;
        }
        self.look();
        self.next_look = self.env.now() + INTERVAL;
        Turn::Worked
    }

    /// Measures, decides, says so when the decision has changed.
    fn look(&mut self) {
        let admitted_bytes = self.resources.admitted_bytes();
        let mut seen = self.measure();
        if is_memory_scarce(self.budget, &seen) && self.env.now() >= self.next_release {
            seen.memory_bytes = self.release(seen.memory_bytes);
        }
        self.gates = self.gates.decide(self.budget, &seen);
        let shortage = self.gates.shortage(self.budget, &seen);
        let decision = Decision { shortage, room_bytes: Gates::room_bytes(self.budget, &seen) };
        match (self.resources.decide(decision, admitted_bytes).shortage, shortage) {
            (Some(before), Some(now)) if std::mem::discriminant(&before) == std::mem::discriminant(&now) => {}
            (None, None) => {}
            (_, now) => {
                self.changes.send_modify(|count| *count += 1);
                match now {
                    Some(shortage) => tracing::warn!(%shortage, "refusing writes that add data"),
                    None => tracing::info!("taking writes that add data again"),
                }
            }
        }
        let memory_short = self.gates.should_seal(self.budget, &seen);
        self.builder.set_memory_short(memory_short);
        if memory_short {
            seal_early(&self.replicas, &self.builder);
        }
        self.builder.set_disk_short(self.gates.is_disk_short());
        if self.gates.is_disk_short() && self.env.now() >= self.next_flush {
            self.next_flush = self.env.now() + FLUSH_INTERVAL;
            // What is flushed is no longer needed in the Raft log.
            self.builder.ring_for_flush();
        }
    }

    fn measure(&self) -> Measurement {
        let replicas = self.replicas.all();
        let views = replicas.iter().map(|(_, replica)| replica.shard().view());
        let unsealed = views.map(|view| view.generations().iter().map(|rows| rows.vector_bytes() as u64).sum::<u64>());
        Measurement {
            memory_bytes: probe::process_memory_bytes(),
            unsealed_bytes: unsealed.sum(),
            // A folder that cannot be asked says more when it is written to.
            disk: disk_space(&self.folder).ok().map(|disk| DiskSpace {
                free_bytes: disk.free_bytes.saturating_sub(self.database.memory().write_buffer_bytes),
                ..disk
            }),
        }
    }

    /// Lets the allocator give back what nobody uses; says what is in use then. Without this, memory that was freed would
    /// count as used for as long as nobody asks for it, which with writes refused is for ever.
    fn release(&mut self, before: Option<u64>) -> Option<u64> {
        (self.release_memory)();
        let after = probe::process_memory_bytes();
        let released = before.unwrap_or(0).saturating_sub(after.unwrap_or(0));
        let worthwhile = released >= self.budget.bytes() / WORTHWHILE_SHARE;
        self.next_release = self.env.now() + if worthwhile { RELEASE_INTERVAL } else { IDLE_RELEASE_INTERVAL };
        after
    }
}

/// Lets the largest generation be sealed before it is full, unless there is one to seal already: many small segments
/// would cost more than they free.
///
/// A shard whose seal failed is left alone until its turn comes again, and holds up no other: one that cannot be sealed at
/// all would otherwise keep the node short of memory for ever.
pub(crate) fn seal_early(replicas: &Replicas, builder: &Bell) {
    let replicas = replicas.all();
    if replicas.iter().any(|(_, replica)| replica.shard().is_sealing()) {
        return;
    }
    let views = replicas.iter().map(|(shard, replica)| (shard, replica, replica.shard().view()));
    // What is frozen now has failed. Where nothing is frozen, what there is grows.
    let growing = views.filter(|(_, _, view)| view.frozen().next().is_none());
    let bytes = |view: &ReadView| -> usize { view.generations().iter().map(|rows| rows.vector_bytes()).sum() };
    let largest = growing.max_by_key(|(_, _, view)| bytes(view));
    let Some((shard, replica, view)) = largest.filter(|(_, _, view)| bytes(view) > 0) else { return };
    tracing::debug!(shard, points = view.points(), "sealing early, to free memory");
    match replica.shard().freeze() {
        Ok(()) => builder.ring(),
        Err(error) => tracing::warn!(shard, %error, "not sealed early"),
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn between_two_looks_writes_beyond_the_room_wait_and_the_next_look_lets_them_in_or_refuses_them() {
        let resources = Resources::new(0);
        let decide = |shortage, room_bytes| {
            resources.decide(Decision { shortage, room_bytes }, resources.admitted_bytes());
        };
        let room = |room_bytes| decide(None, room_bytes);
        assert!(poll(&mut pin!(resources.admit(u64::MAX))).is_ready(), "before the first look");
        room(100);
        assert!(poll(&mut pin!(resources.admit(60))).is_ready());
        assert!(poll(&mut pin!(resources.admit(40))).is_ready());
        let (mut second, mut third) = (pin!(resources.admit(70)), pin!(resources.admit(70)));
        assert!(poll(&mut second).is_pending() && poll(&mut third).is_pending());
        room(100);
        assert_eq!(poll(&mut second), Poll::Ready(Ok(())));
        assert!(poll(&mut third).is_pending());
        let shortage = Shortage::Unsealed { used_bytes: 3, share_bytes: 2, resume_bytes: 1 };
        decide(Some(shortage), 100);
        assert_eq!(poll(&mut third), Poll::Ready(Err(shortage)));
        assert_eq!(resources.check(), Err(shortage));
        // Without a shortage nobody waits for ever: one passes with every look, however large.
        room(0);
        assert_eq!(poll(&mut pin!(resources.admit(1 << 40))), Poll::Ready(Ok(())));
        assert!(poll(&mut pin!(resources.admit(1 << 40))).is_pending());
        assert_eq!(resources.check(), Ok(()));
    }

    #[test]
    fn what_is_let_in_during_a_look_counts_against_the_room_that_it_leaves() {
        let resources = Resources::new(0);
        let decide = |measured| resources.decide(Decision { shortage: None, room_bytes: 100 }, measured);
        assert!(poll(&mut pin!(resources.admit(70))).is_ready());
        let measured = resources.admitted_bytes();
        assert!(poll(&mut pin!(resources.admit(60))).is_ready());
        decide(measured);
        let mut late = pin!(resources.admit(50));
        assert!(poll(&mut late).is_pending());
        assert!(poll(&mut pin!(resources.admit(40))).is_ready(), "who waits takes no room");
        decide(resources.admitted_bytes());
        assert!(poll(&mut late).is_ready());
    }

    #[test]
    fn writes_under_way_are_bounded_together_and_the_largest_fits_alone() {
        let resources = Resources::new(0);
        let largest = limits::MAX_MESSAGE_BYTES * 2;
        let alone = resources.place_for(largest).expect("alone");
        assert!(resources.place_for(1).is_none());
        drop(alone);
        let small: Vec<_> = (0..64).map(|_| resources.place_for(1 << 20).expect("room")).collect();
        assert!(resources.place_for(1 << 20).is_none());
        drop(small);
        assert!(resources.place_for(largest).is_some());
    }
}
