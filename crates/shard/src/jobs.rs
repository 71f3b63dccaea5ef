//! What a shard has to do in the background, and who does it when.

mod adopt;
mod build;
mod install;
mod merge_policy;
mod rows;
mod trim;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sagitta_engine::index::BuildControl;

pub use self::adopt::Adopted;
use self::install::Source;
use crate::{SegmentId, Shard, ShardError};

/// Longest wait before a job that keeps failing is offered again.
const MAX_RETRY: Duration = Duration::from_secs(300);

/// A piece of background work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// Makes a segment of a frozen generation.
    Seal {
        /// Its number.
        generation: u32,
    },
    /// Makes one segment of several, or of one that has too many dead rows.
    Merge {
        /// Their numbers, ascending.
        segments: Vec<SegmentId>,
    },
    /// Makes a segment anew whose files are damaged.
    Rebuild {
        /// Its number.
        segment: SegmentId,
    },
    /// Verifies all files of a segment, after which searching it checks nothing any more.
    Verify {
        /// Its number.
        segment: SegmentId,
    },
    /// Removes what a split has left of another shard's points.
    Trim,
}

/// A job that was handed out: to be run, or dropped, which gives it back.
pub struct Job {
    shard: Arc<Shard>,
    kind: JobKind,
}

/// A job that failed and is offered again later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFailure {
    /// What was to be done.
    pub job: JobKind,
    /// Why it could not be done the last time.
    pub reason: String,
    /// Failures in a row.
    pub failures: u32,
    /// When it is offered again, by the shard's clock.
    pub next_try: Duration,
}

/// Which jobs run, and which failed.
#[derive(Debug, Default)]
pub(crate) struct JobBoard(Mutex<Board>);

#[derive(Debug, Default)]
struct Board {
    running: Vec<JobKind>,
    /// What segments from elsewhere are about to take rows over from.
    reserved: Vec<Reserved>,
    failed: Vec<JobFailure>,
}

/// Generations and segments that no job may begin to work on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reserved {
    generations: Vec<u32>,
    segments: Vec<SegmentId>,
}

/// Ends a reservation when it is dropped.
struct Reservation<'a> {
    board: &'a JobBoard,
    reserved: Reserved,
}

impl Shard {
    /// The most urgent job that can be run now, if there is any. At most [`crate::ShardOptions::max_running_jobs`] are
    /// handed out at a time.
    pub fn next_job(self: &Arc<Self>) -> Option<Job> {
        self.next_job_of(|_| true)
    }

    /// As [`Shard::next_job`], among those of certain kinds.
    pub fn next_job_of(self: &Arc<Self>, is_welcome: impl Fn(&JobKind) -> bool) -> Option<Job> {
        let wanted = self.wanted_jobs();
        let now = self.env().now();
        let mut board = self.jobs.lock();
        if board.running.len() >= self.options.max_running_jobs {
            return None;
        }
        let kind = wanted.into_iter().find(|kind| is_welcome(kind) && board.is_free(kind, now))?;
        board.running.push(kind.clone());
        Some(Job { shard: Arc::clone(self), kind })
    }

    /// Whether a frozen generation is being sealed or will be as soon as a build thread is free. Those whose seal failed and
    /// that wait for another try do not count: they may wait for long, and nobody should wait for them.
    pub fn is_sealing(&self) -> bool {
        let view = self.view();
        let now = self.env().now();
        let board = self.jobs.lock();
        view.frozen().any(|generation| !board.is_set_back(&JobKind::Seal { generation }, now))
    }

    /// All that there is to do, most urgent first, whether or not it is being done.
    pub fn wanted_jobs(&self) -> Vec<JobKind> {
        let view = self.view();
        let damaged = view.segments().iter().filter(|view| view.segment.is_damaged());
        let rebuilds = damaged.map(|view| JobKind::Rebuild { segment: view.segment.id() });
        let frozen: Vec<_> = view.frozen().collect();
        let seals = frozen.iter().map(|&generation| JobKind::Seal { generation });
        // Slow searches are mended first, unless writes are about to be refused.
        let mut jobs: Vec<_> = if frozen.len() > self.options.max_frozen_generations / 2 {
            seals.chain(rebuilds).collect()
        } else {
            rebuilds.chain(seals).collect()
        };
        let whole = || view.segments().iter().filter(|view| !view.segment.is_damaged());
        let busy = self.jobs.lock().busy_segments();
        let sizes = whole().filter(|view| !busy.contains(&view.segment.id())).map(merge_policy::Size::of);
        if let Some(segments) = merge_policy::choose(sizes.collect(), &self.options, self.is_idle()) {
            jobs.push(JobKind::Merge { segments });
        }
        // After the merges, which leave less to be done.
        jobs.extend(view.foreign().map(|_| JobKind::Trim));
        // Last: until a segment is verified, reading it costs a look at a flag for each block, no more.
        let unverified = whole().filter(|view| !view.segment.is_verified());
        jobs.extend(unverified.map(|view| JobKind::Verify { segment: view.segment.id() }));
        jobs
    }

    /// Jobs that failed and wait for another try.
    pub(crate) fn failed_jobs(&self) -> Vec<JobFailure> {
        self.jobs.lock().failed.clone()
    }

    /// Jobs that were handed out.
    pub(crate) fn running_jobs(&self) -> Vec<JobKind> {
        self.jobs.lock().running.clone()
    }
}

impl Job {
    /// What is to be done.
    pub fn kind(&self) -> &JobKind {
        &self.kind
    }

    /// Does it. `control` says with how many threads, and may stop it.
    ///
    /// # Errors
    /// Everything is as it was, and the job is offered again later. [`ShardError::Stopped`] if it was stopped.
    pub fn run(self, control: &BuildControl<'_>) -> Result<(), ShardError> {
        // A bug that one shard's data brings out should cost that job, not the thread that works for all shards.
        let worked = catch_unwind(AssertUnwindSafe(|| self.work(control)));
        let done = worked.unwrap_or_else(|panic| Err(ShardError::Panicked { what: sagitta_env::panic_text(&*panic) }));
        let now = self.shard.env().now();
        let mut board = self.shard.jobs.lock();
        match &done {
            Ok(()) => board.failed.retain(|failure| failure.job != self.kind),
            Err(ShardError::Stopped) => {}
            Err(error) => {
                tracing::warn!(job = ?self.kind, %error, "a job failed and is tried again later");
                board.note_failure(&self.kind, error, now, self.shard.options.retry_after);
            }
        }
        drop(board);
        done
    }

    fn work(&self, control: &BuildControl<'_>) -> Result<(), ShardError> {
        let shard = &*self.shard;
        let view = shard.view();
        let segment = |id: SegmentId| view.segments().iter().find(|view| view.segment.id() == id).cloned();
        match &self.kind {
            JobKind::Seal { generation } => {
                let generation = view.generations().iter().find(|other| other.number() == *generation);
                let sources = generation.cloned().map(Source::Generation);
                shard.replace(&view, sources.into_iter().collect(), control)
            }
            JobKind::Merge { segments } => {
                let sources = segments.iter().filter_map(|id| segment(*id)).map(Source::Segment);
                shard.replace(&view, sources.collect(), control)
            }
            JobKind::Rebuild { segment: id } => {
                shard.replace(&view, segment(*id).map(Source::Segment).into_iter().collect(), control)
            }
            JobKind::Verify { segment: id } => {
                let complete = segment(*id).map_or(Ok(true), |view| view.segment.verify(control.stop))?;
                if complete { Ok(()) } else { Err(ShardError::Stopped) }
            }
            JobKind::Trim => shard.trim(control.stop),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let mut board = self.shard.jobs.lock();
        if let Some(at) = board.running.iter().position(|kind| *kind == self.kind) {
            board.running.swap_remove(at);
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Job").field(&self.kind).finish()
    }
}

impl JobKind {
    fn segments(&self) -> &[SegmentId] {
        match self {
            Self::Seal { .. } | Self::Trim => &[],
            Self::Merge { segments } => segments,
            Self::Rebuild { segment } | Self::Verify { segment } => std::slice::from_ref(segment),
        }
    }

    fn generation(&self) -> Option<u32> {
        match self {
            Self::Seal { generation } => Some(*generation),
            _ => None,
        }
    }

    /// Whether a failure of the one says something about the other. Merges fail for reasons that are not their segments'.
    fn fails_like(&self, other: &Self) -> bool {
        self == other || matches!((self, other), (Self::Merge { .. }, Self::Merge { .. }))
    }
}

impl JobBoard {
    /// Keeps jobs away from these; `None` while one is at work on any of them. Verifying changes nothing.
    fn reserve(&self, reserved: Reserved) -> Option<Reservation<'_>> {
        let mut board = self.lock();
        let at_work = |kind: &JobKind| !matches!(kind, JobKind::Verify { .. }) && reserved.overlaps(kind);
        if board.running.iter().any(at_work) || board.reserved.iter().any(|other| reserved.meets(other)) {
            return None;
        }
        board.reserved.push(reserved.clone());
        Some(Reservation { board: self, reserved })
    }

    /// A panic elsewhere leaves the board whole: it is changed by single calls.
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reserved {
    fn overlaps(&self, kind: &JobKind) -> bool {
        kind.generation().is_some_and(|generation| self.generations.contains(&generation))
            || kind.segments().iter().any(|id| self.segments.contains(id))
    }

    fn meets(&self, other: &Self) -> bool {
        self.generations.iter().any(|number| other.generations.contains(number))
            || self.segments.iter().any(|id| other.segments.contains(id))
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut board = self.board.lock();
        if let Some(at) = board.reserved.iter().position(|reserved| *reserved == self.reserved) {
            board.reserved.swap_remove(at);
        }
    }
}

impl Board {
    /// Whether a job touches nothing that another one works on, and has not failed a moment ago.
    fn is_free(&self, kind: &JobKind, now: Duration) -> bool {
        let overlaps = |other: &JobKind| {
            other == kind
                || kind.generation().is_some() && kind.generation() == other.generation()
                || kind.segments().iter().any(|id| other.segments().contains(id))
        };
        let is_reserved = self.reserved.iter().any(|reserved| reserved.overlaps(kind));
        !self.running.iter().any(overlaps) && !is_reserved && !self.is_set_back(kind, now)
    }

    /// Whether a job failed a moment ago.
    fn is_set_back(&self, kind: &JobKind, now: Duration) -> bool {
        self.failed.iter().any(|failure| failure.job.fails_like(kind) && now < failure.next_try)
    }

    fn busy_segments(&self) -> Vec<SegmentId> {
        let reserved = self.reserved.iter().flat_map(|reserved| &reserved.segments);
        self.running.iter().flat_map(JobKind::segments).chain(reserved).copied().collect()
    }

    fn note_failure(&mut self, kind: &JobKind, error: &ShardError, now: Duration, retry_after: Duration) {
        let before = self.failed.iter().position(|failure| failure.job.fails_like(kind));
        let failures = before.map_or(0, |at| self.failed.swap_remove(at).failures);
        let wait = retry_after.saturating_mul(1 << failures.min(16)).min(MAX_RETRY);
        self.failed.push(JobFailure {
            job: kind.clone(),
            reason: error.to_string(),
            failures: failures + 1,
            next_try: now + wait,
        });
    }
}
