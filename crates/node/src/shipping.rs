//! Sealed segments on their way between the replicas of a shard: an index is built once for a shard, not once for each replica.
//!
//! The replica that leads its group builds, and keeps what it has built on the node's shelf. The others have the same generations to seal
//! and the same segments to merge, a little earlier or later: they wait for a while, ask the leader what it has, fetch what
//! helps, and adopt it, after which nothing is left to do ([`Shard::adopt`]). They build by themselves when nobody leads, the leader does not begin,
//! fetching fails, what came is damaged, or it has taken too long ([`plan`]).

mod plan;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sagitta_consensus::{
    GroupHandle, GroupId, MAX_PARTS, Manifest, NodeId, Order, Part, PartKeeper, Parts, Question, Role, States,
};
use sagitta_engine::index::Stop;
use sagitta_env::Env;
use sagitta_shard::{JobKind, ReadView, SegmentName, SegmentView, Shard, ShardError};

use self::plan::{Leadership, Situation, Work, helps, is_own};
use crate::builder::Bell;
use crate::resources::{ByteSize, disk_space};
use crate::whole::Present;

/// Time between two questions to a leader: short next to what a seal takes.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long an answer counts.
const ANSWER_HOLDS: Duration = Duration::from_secs(10);
/// Fetches that may fail before the work is done here. One may: a segment can be replaced while it is on its way.
const MAX_FAILURES: u32 = 3;
/// Frozen generations that may wait for the leader's segments beyond those with which the leader refuses writes: what is on its way.
/// A replica with more of them seals by itself, so that what it has in memory is bounded.
const MORE_THAN_LEADER: usize = 4;
/// Names of segments that are not fetched again; more than a shard sees between two starts as a rule.
const MAX_SEEN: usize = 4096;

/// The segments of one replica that others may fetch, and those that it fetches.
pub(crate) struct Shipping {
    group: GroupId,
    env: Env,
    arrivals: PathBuf,
    states: States,
    shard: Present,
    handle: GroupHandle,
    bell: Bell,
    offered: Mutex<Vec<Part>>,
    course: Arc<Mutex<Course>>,
    built: AtomicU64,
    adopted: AtomicU64,
    refused: AtomicU64,
}

/// Where the segments of a replica came from since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentOrigins {
    /// Built here: sealed, merged, or built anew after damage.
    pub built: u64,
    /// Built by another replica and adopted.
    pub adopted: u64,
    /// Built by another replica, and not fit to be adopted when it was here.
    pub refused: u64,
}

/// How far a replica has got with fetching.
#[derive(Default)]
struct Course {
    /// Since when there is something to seal, and something to merge.
    sealing_since: Option<Duration>,
    merging_since: Option<Duration>,
    asking: bool,
    next_question: Duration,
    answer: Option<Answer>,
    fetching: Option<Fetching>,
    arrived: Option<(Part, PathBuf)>,
    /// What is not fetched again: it has been here, or was not fit.
    seen: BTreeSet<SegmentName>,
    failures: u32,
}

struct Answer {
    from: NodeId,
    at: Duration,
    parts: Parts,
}

struct Fetching {
    name: SegmentName,
    _wanted: Arc<()>,
}

/// What presses a replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pressure {
    /// Memory is short, or somebody waits for points to be indexed.
    pub(crate) urgent: bool,
    /// Nothing is merged, here or by fetching.
    pub(crate) disk_short: bool,
}

/// What came of looking after a replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tended {
    /// Whether a segment was adopted.
    pub(crate) adopted: bool,
    seals: bool,
    merges: bool,
}

enum Next {
    Wait,
    Ask(NodeId),
    Fetch(NodeId, Part),
}

impl Shipping {
    pub(crate) fn new(
        group: GroupId,
        env: Env,
        arrivals: PathBuf,
        states: States,
        (shard, handle): (Present, GroupHandle),
        bell: Bell,
    ) -> Arc<Self> {
        let [built, adopted, refused] = std::array::from_fn(|_| AtomicU64::new(0));
        let (offered, course) = (Mutex::default(), Arc::default());
        let shelf = states.shelf.clone();
        let shipping = Arc::new(Self {
            group,
            env,
            arrivals,
            states,
            shard,
            handle,
            bell,
            offered,
            course,
            built,
            adopted,
            refused,
        });
        let keeper: Weak<Self> = Arc::downgrade(&shipping);
        shelf.introduce(group, keeper);
        shipping
    }

    pub(crate) fn origins(&self) -> SegmentOrigins {
        let [built, adopted, refused] =
            [&self.built, &self.adopted, &self.refused].map(|count| count.load(Ordering::Relaxed));
        SegmentOrigins { built, adopted, refused }
    }

    /// Adopts what has arrived, fetches what helps, and says which work is to be done here.
    pub(crate) fn tend(&self, shard: &Arc<Shard>, pressure: Pressure, stop: &dyn Stop) -> Tended {
        self.withdraw(shard);
        if !self.is_shared() {
            return Tended { adopted: false, seals: true, merges: true };
        }
        let adopted = self.adopt_arrived(shard, stop);
        let view = shard.view();
        let work = work_of(&view, &shard.wanted_jobs(), pressure.disk_short);
        let frozen = view.frozen().count();
        let urgent = pressure.urgent || frozen > shard.options().max_frozen_generations + MORE_THAN_LEADER;
        let leadership = self.leadership();
        let mut course = lock(&self.course);
        let waiting = course.note(&work, leadership, urgent, self.env.now());
        let next = course.next(&waiting, leadership, &view, self.env.now());
        drop(course);
        match next {
            Next::Wait => {}
            Next::Ask(leader) => self.ask(leader),
            Next::Fetch(leader, part) => self.fetch(leader, part),
        }
        let is_waiting = |seal| waiting.iter().any(|work| matches!(work, Work::Seal { .. }) == seal);
        Tended { adopted, seals: !is_waiting(true), merges: !is_waiting(false) }
    }

    /// Keeps for others what a job has built; `before` are the names of the segments that were there until then.
    pub(crate) fn built(&self, shard: &Shard, before: &BTreeSet<SegmentName>) {
        self.built.fetch_add(1, Ordering::Relaxed);
        lock(&self.course).restart();
        if !self.is_shared() {
            return;
        }
        let view = shard.view();
        for own in view.segments().iter().filter(|own| !before.contains(&own.segment.name())) {
            match describe(&view, own) {
                Ok(part) => self.offer(part, own.segment.dir().to_path_buf()),
                // The others build it, too.
                Err(error) => {
                    tracing::warn!(group = %self.group, %error, "a segment cannot be offered to other replicas");
                }
            }
        }
    }

    fn offer(&self, part: Part, dir: PathBuf) {
        self.states.shelf.put_part(self.group, dir, part.manifest.clone());
        let mut offered = lock(&self.offered);
        offered.push(part);
        if offered.len() > MAX_PARTS {
            self.states.shelf.take_away(self.group, offered.remove(0).manifest.offer());
        }
    }

    /// Takes back what has been replaced.
    fn withdraw(&self, shard: &Shard) {
        let mut offered = lock(&self.offered);
        if offered.is_empty() {
            return;
        }
        let present = names(&shard.view());
        offered.retain(|part| {
            let is_present = present.contains(&part.manifest.offer());
            if !is_present {
                self.states.shelf.take_away(self.group, part.manifest.offer());
            }
            is_present
        });
    }

    /// Whether there are others to build for, or who build.
    fn is_shared(&self) -> bool {
        let members = self.handle.status().membership;
        self.states.source.is_some() && members.voters.len() + members.learners.len() + members.outgoing.len() > 1
    }

    fn leadership(&self) -> Leadership {
        let status = self.handle.status();
        match status.leader {
            _ if status.role == Role::Leader => Leadership::Own,
            Some(leader) => Leadership::Of(leader),
            None => Leadership::Unknown,
        }
    }

    fn ask(&self, leader: NodeId) {
        let Some(source) = &self.states.source else { return };
        let (course, bell, env) = (Arc::downgrade(&self.course), self.bell.clone(), self.env.clone());
        let group = self.group;
        let done = move |answer: Result<Parts, String>| {
            let Some(course) = course.upgrade() else { return };
            let mut course = lock(&course);
            course.asking = false;
            match answer {
                Ok(parts) => course.answer = Some(Answer { from: leader, at: env.now(), parts }),
                Err(why) => tracing::debug!(%group, %leader, why, "the leader does not say which segments it has"),
            }
            drop(course);
            bell.ring();
        };
        source.ask(Question { group, of: leader, done: Box::new(done) });
    }

    fn fetch(&self, leader: NodeId, part: Part) {
        let Some(source) = &self.states.source else { return };
        let (group, name) = (self.group, part.manifest.offer());
        let into = match self.room_for(&part) {
            Ok(into) => into,
            Err(why) => {
                tracing::warn!(%group, why, "a segment of the leader is not fetched");
                return lock(&self.course).failed();
            }
        };
        let wanted = Arc::new(());
        let still_wanted = Arc::downgrade(&wanted);
        lock(&self.course).fetching = Some(Fetching { name, _wanted: wanted });
        let (course, bell, manifest, dir) =
            (Arc::downgrade(&self.course), self.bell.clone(), part.manifest.clone(), into.clone());
        let done = move |fetched: Result<(), String>| {
            let course = course.upgrade();
            let mut course = course.as_deref().map(lock);
            let fetching = course.as_mut().and_then(|course| course.fetching.take_if(|fetching| fetching.name == name));
            match (fetched, course.as_mut().filter(|_| fetching.is_some())) {
                (Ok(()), Some(course)) => course.arrived = Some((part, dir)),
                (Err(why), Some(course)) => {
                    tracing::info!(%group, %leader, why, "a segment of the leader was not fetched");
                    course.failed();
                    remove(&dir);
                }
                (_, None) => remove(&dir),
            }
            drop(course);
            bell.ring();
        };
        source.fetch(Order { group, from: leader, manifest, into, done: Box::new(done), wanted: still_wanted });
    }

    /// Makes a folder for a segment.
    fn room_for(&self, part: &Part) -> Result<PathBuf, String> {
        let failed = |error: io::Error| format!("{}: {error}", self.arrivals.display());
        // A name of its own: what fetched the same segment before the replica was opened anew may still clean up after itself.
        let into = self.arrivals.join(format!("{:032x}", self.env.uuid()));
        fs::create_dir_all(&self.arrivals).map_err(failed)?;
        let needed = part.manifest.bytes();
        if let Ok(disk) = disk_space(&self.arrivals)
            && disk.free_bytes < needed
        {
            return Err(format!("it takes {}, and {} are free", ByteSize(needed), ByteSize(disk.free_bytes)));
        }
        fs::create_dir(&into).map_err(failed)?;
        Ok(into)
    }

    fn adopt_arrived(&self, shard: &Arc<Shard>, stop: &dyn Stop) -> bool {
        let Some((part, dir)) = lock(&self.course).arrived.take() else { return false };
        let (group, name) = (self.group, part.manifest.offer());
        let adopted = match shard.adopt(&dir, stop) {
            Ok(adopted) => adopted,
            Err(ShardError::Occupied) => {
                lock(&self.course).arrived = Some((part, dir));
                return false;
            }
            Err(error) => {
                if !matches!(error, ShardError::Stopped) {
                    tracing::warn!(%group, %error, "a segment of the leader is not adopted; it is built here");
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                remove(&dir);
                let mut course = lock(&self.course);
                course.see([name]);
                course.failures = MAX_FAILURES;
                return false;
            }
        };
        tracing::info!(%group, segment = adopted.segment, rows = adopted.rows, live = adopted.live, "adopted a segment of the leader");
        self.adopted.fetch_add(1, Ordering::Relaxed);
        let view = shard.view();
        if let Some(own) = view.segments().iter().find(|own| own.segment.id() == adopted.segment) {
            // Whoever leads next may be this replica.
            self.offer(part, own.segment.dir().to_path_buf());
        }
        let mut course = lock(&self.course);
        course.see([name]);
        course.restart();
        true
    }
}

impl PartKeeper for Shipping {
    fn parts(&self) -> Parts {
        let shard = self.shard.get();
        let disk_short = self.bell.is_disk_short();
        let working = !work_of(&shard.view(), &shard.wanted_jobs(), disk_short).is_empty();
        let leads = self.leadership() == Leadership::Own;
        Parts { leads, working, parts: lock(&self.offered).clone() }
    }
}

impl Drop for Shipping {
    fn drop(&mut self) {
        for part in lock(&self.offered).drain(..) {
            self.states.shelf.take_away(self.group, part.manifest.offer());
        }
        if let Some((_, dir)) = lock(&self.course).arrived.take() {
            remove(&dir);
        }
    }
}

impl Tended {
    /// Whether a job is to be run here now.
    pub(crate) fn allows(&self, kind: &JobKind) -> bool {
        match kind {
            JobKind::Seal { .. } => self.seals,
            JobKind::Merge { .. } => self.merges,
            // A damaged segment is mended from the replica's own truth, and files are verified where they are.
            JobKind::Rebuild { .. } | JobKind::Verify { .. } => true,
        }
    }
}

impl Course {
    /// Notes what there is to do; returns what is left to the leader for now.
    fn note(&mut self, work: &[Work], leadership: Leadership, urgent: bool, now: Duration) -> Vec<Work> {
        let has = |seal| work.iter().any(|work| matches!(work, Work::Seal { .. }) == seal);
        for (since, there) in [(&mut self.sealing_since, has(true)), (&mut self.merging_since, has(false))] {
            *since = since.or(Some(now)).filter(|_| there && leadership != Leadership::Own);
        }
        if work.is_empty() {
            self.failures = 0;
        }
        let under_way = self.fetching.is_some()
            || self.arrived.is_some()
            || self.answer_of(leadership, now).is_some_and(|answer| answer.parts.working);
        let in_vain = self.failures >= MAX_FAILURES;
        let is_left = |work: &&Work| {
            let since = if matches!(work, Work::Seal { .. }) { self.sealing_since } else { self.merging_since };
            let waited = now.saturating_sub(since.unwrap_or(now));
            !is_own(**work, &Situation { leadership, waited, urgent, in_vain, under_way })
        };
        work.iter().filter(is_left).copied().collect()
    }

    /// What the leader has said of itself a moment ago.
    fn answer_of(&self, leadership: Leadership, now: Duration) -> Option<&Answer> {
        let holds = |answer: &&Answer| {
            leadership == Leadership::Of(answer.from) && answer.parts.leads && now < answer.at + ANSWER_HOLDS
        };
        self.answer.as_ref().filter(holds)
    }

    /// What is to be done so that the leader's segments come.
    fn next(&mut self, waiting: &[Work], leadership: Leadership, view: &ReadView, now: Duration) -> Next {
        self.see(names(view));
        let Leadership::Of(leader) = leadership else { return Next::Wait };
        if waiting.is_empty() || self.fetching.is_some() || self.arrived.is_some() {
            return Next::Wait;
        }
        let part = self.answer_of(leadership, now).and_then(|answer| {
            // What it has of entries that are not applied here yet would be dead here for ever.
            let is_new =
                |part: &&Part| !self.seen.contains(&part.manifest.offer()) && part.last <= view.applied_index();
            let mut new = answer.parts.parts.iter().filter(is_new);
            new.find(|part| waiting.iter().any(|work| helps(part, *work))).cloned()
        });
        match part {
            Some(part) => Next::Fetch(leader, part),
            None if !self.asking && now >= self.next_question => {
                self.asking = true;
                self.next_question = now + ASK_EVERY;
                Next::Ask(leader)
            }
            None => Next::Wait,
        }
    }

    /// A segment did not come. The leader is asked anew before another try: it may have been replaced.
    fn failed(&mut self) {
        self.answer = None;
        self.failures += 1;
    }

    /// What was to be done has been done here: what comes next is waited for anew.
    fn restart(&mut self) {
        (self.sealing_since, self.merging_since, self.failures) = (None, None, 0);
    }

    fn see(&mut self, names: impl IntoIterator<Item = SegmentName>) {
        self.seen.extend(names);
        while self.seen.len() > MAX_SEEN {
            // Any will do: that one is fetched once more at worst.
            self.seen.pop_first();
        }
    }
}

/// The names of all segments.
pub(crate) fn names(view: &ReadView) -> BTreeSet<SegmentName> {
    view.segments().iter().map(|own| own.segment.name()).collect()
}

/// What there is to seal and to merge.
fn work_of(view: &ReadView, wanted: &[JobKind], disk_short: bool) -> Vec<Work> {
    let mut work = Vec::new();
    if wanted.iter().any(|kind| matches!(kind, JobKind::Seal { .. })) {
        let frozen: Vec<_> = view.frozen().collect();
        let frozen = view.generations().iter().filter(|generation| frozen.contains(&generation.number()));
        let first = frozen.filter_map(|generation| generation.first_version()).min();
        work.push(Work::Seal { first: first.unwrap_or_default() });
    }
    let merged = wanted.iter().find_map(|kind| match kind {
        JobKind::Merge { segments } if !disk_short => Some(segments),
        _ => None,
    });
    if let Some(segments) = merged {
        let merged = view.segments().iter().filter(|own| segments.contains(&own.segment.id()));
        work.push(Work::Merge { rows: merged.map(|own| own.live.count() as u64).max().unwrap_or_default() });
    }
    work
}

/// Hashes the files of a segment.
fn describe(view: &ReadView, own: &SegmentView) -> Result<Part, String> {
    let manifest = Manifest::of(own.segment.dir(), own.segment.name()).map_err(|error| error.to_string())?;
    let (first, last) = view.versions(own).map_err(|error| error.to_string())?;
    Ok(Part { manifest, rows: own.segment.rows() as u64, first, last })
}

fn remove(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, folder = %folder.display(), "what was fetched of a segment cannot be removed yet");
        }
        _ => {}
    }
}

/// A panic elsewhere leaves these values whole: they are changed by single statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
