//! Sealed segments on their way between the replicas of a shard: an index is built once for a shard, not once for each replica.
//!
//! The replica that leads its group builds, and keeps what it has built on the node's shelf. The others have the same generations to seal
//! and the same segments to merge, a little earlier or later: they wait for a while, ask the leader what it has, fetch what
//! helps, and adopt it, after which nothing is left to do ([`Shard::adopt`]). They build by themselves when nobody leads, the leader does not begin,
//! fetching fails, what came is damaged, or it has taken too long ([`plan`]).

mod course;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sagitta_consensus::{
    GroupHandle, GroupId, MAX_PARTS, Manifest, NodeId, Order, Part, PartKeeper, Parts, Question, Role, States,
};
use sagitta_engine::index::Stop;
use sagitta_env::Env;
use sagitta_shard::{JobKind, ReadView, SegmentName, SegmentView, Shard, ShardError};

use self::course::{Arrived, Course, Folder, Next, Outlook};
use self::plan::{Kind, Leadership, Work};
use crate::builder::Bell;
use crate::resources::{ByteSize, disk_space};
use crate::whole::Present;

/// Frozen generations that may wait for the leader's segments beyond those with which the leader refuses writes: what is on its way.
/// A replica with more of them seals by itself, so that what it has in memory is bounded.
const MORE_THAN_LEADER: usize = 4;

/// The segments of one replica that others may fetch, and those that it fetches.
pub(crate) struct Shipping {
    group: GroupId,
    env: Env,
    arrivals: PathBuf,
    states: States,
    shard: Present,
    handle: GroupHandle,
    bell: Bell,
    offered: Mutex<Vec<Offered>>,
    course: Arc<Mutex<Course>>,
    /// Whether a segment is being made here that others will want.
    at_work: AtomicBool,
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

/// A segment that others may fetch.
struct Offered {
    part: Part,
    dir: PathBuf,
}

/// For as long as it is there, others are told that a segment is being made.
pub(crate) struct AtWork<'a>(&'a AtomicBool);

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
        let (offered, course, at_work) = (Mutex::default(), Arc::default(), AtomicBool::new(false));
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
            at_work,
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
        let outlook = Outlook {
            leadership: self.leadership(),
            urgent: pressure.urgent || frozen > shard.options().max_frozen_generations + MORE_THAN_LEADER,
            segments: names(&view),
            applied: view.applied_index(),
            work: &work,
        };
        let (left, next) = lock(&self.course).look(&outlook, self.env.now());
        match next {
            Next::Nothing => {}
            Next::Ask(leader) => self.ask(leader),
            Next::Fetch(leader, kind, part) => self.fetch(leader, kind, part),
        }
        let is_left = |kind| left.iter().any(|work| work.kind() == kind);
        Tended { adopted, seals: !is_left(Kind::Seal), merges: !is_left(Kind::Merge) }
    }

    /// Tells others that a job is making a segment, until it is offered to them; `None` for a job that makes none for them.
    pub(crate) fn at_work(&self, job: &JobKind) -> Option<AtWork<'_>> {
        Kind::of(job)?;
        self.at_work.store(true, Ordering::Release);
        Some(AtWork(&self.at_work))
    }

    /// Keeps for others what a job has built; `before` are the names of the segments that were there until then.
    pub(crate) fn built(&self, shard: &Shard, job: &JobKind, before: &BTreeSet<SegmentName>) {
        if matches!(job, JobKind::Verify { .. } | JobKind::Trim) {
            return;
        }
        self.built.fetch_add(1, Ordering::Relaxed);
        if let Some(kind) = Kind::of(job) {
            lock(&self.course).done(kind);
        }
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
        self.states.shelf.put_part(self.group, dir.clone(), part.manifest.clone());
        let mut offered = lock(&self.offered);
        offered.push(Offered { part, dir });
        if offered.len() > MAX_PARTS {
            self.states.shelf.take_away(self.group, offered.remove(0).part.manifest.offer());
        }
    }

    /// Takes back what has been replaced.
    fn withdraw(&self, shard: &Shard) {
        let mut offered = lock(&self.offered);
        if offered.is_empty() {
            return;
        }
        let view = shard.view();
        let present: BTreeMap<_, _> =
            view.segments().iter().map(|own| (own.segment.name(), own.segment.dir())).collect();
        offered.retain_mut(|Offered { part, dir }| {
            let name = part.manifest.offer();
            match present.get(&name) {
                Some(now) if *now != dir.as_path() => {
                    // The same segment in another folder, as a whole state or a rebuild has brought it.
                    *dir = now.to_path_buf();
                    self.states.shelf.put_part(self.group, dir.clone(), part.manifest.clone());
                }
                Some(_) => {}
                None => drop(self.states.shelf.take_away(self.group, name)),
            }
            present.contains_key(&name)
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
            if let Err(why) = &answer {
                tracing::debug!(%group, %leader, why, "the leader does not say which segments it has");
            }
            lock(&course).answered(leader, answer.ok(), env.now());
            bell.ring();
        };
        source.ask(Question { group, of: leader, done: Box::new(done) });
    }

    fn fetch(&self, leader: NodeId, kind: Kind, part: Part) {
        let Some(source) = &self.states.source else { return };
        let (group, name) = (self.group, part.manifest.offer());
        let folder = match self.room_for(&part) {
            Ok(folder) => folder,
            Err(why) => {
                tracing::warn!(%group, why, "a segment of the leader is not fetched");
                return lock(&self.course).failed(kind);
            }
        };
        let wanted = lock(&self.course).begin(name);
        let (course, bell) = (Arc::downgrade(&self.course), self.bell.clone());
        let (manifest, into) = (part.manifest.clone(), folder.path().to_path_buf());
        let done = move |fetched: Result<(), String>| {
            let Some(course) = course.upgrade() else { return };
            if let Err(why) = &fetched {
                tracing::info!(%group, %leader, why, "a segment of the leader was not fetched");
            }
            let arrived = fetched.is_ok().then_some(Arrived { part, kind, folder });
            lock(&course).ended(name, kind, arrived);
            bell.ring();
        };
        source.fetch(Order { group, from: leader, manifest, into, done: Box::new(done), wanted });
    }

    /// Makes a folder for a segment.
    fn room_for(&self, part: &Part) -> Result<Folder, String> {
        let failed = |error: io::Error| format!("{}: {error}", self.arrivals.display());
        match fs::create_dir(&self.arrivals) {
            // Not the folders above it: these are gone if the replica was removed meanwhile.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let needed = part.manifest.bytes();
        if let Ok(disk) = disk_space(&self.arrivals)
            && disk.free_bytes < needed
        {
            return Err(format!("it takes {}, and {} are free", ByteSize(needed), ByteSize(disk.free_bytes)));
        }
        // A name of its own: what fetched the same segment before the replica was opened anew may still clean up after itself.
        let into = self.arrivals.join(format!("{:032x}", self.env.uuid()));
        fs::create_dir(&into).map_err(failed)?;
        Ok(Folder::new(into))
    }

    fn adopt_arrived(&self, shard: &Arc<Shard>, stop: &dyn Stop) -> bool {
        let Some(arrived) = lock(&self.course).take_arrived() else { return false };
        let (group, kind, name) = (self.group, arrived.kind, arrived.part.manifest.offer());
        let adopted = match shard.adopt(arrived.folder.path(), stop) {
            Ok(adopted) => adopted,
            Err(ShardError::Occupied) => {
                lock(&self.course).put_back(arrived);
                return false;
            }
            Err(ShardError::Stopped) => return false,
            Err(error @ ShardError::Unfit { .. }) => {
                tracing::warn!(%group, %error, "a segment of the leader is not adopted; it is built here");
                self.refused.fetch_add(1, Ordering::Relaxed);
                lock(&self.course).in_vain(kind, name);
                return false;
            }
            Err(error) => {
                tracing::warn!(%group, %error, "a segment of the leader is not adopted");
                lock(&self.course).failed(kind);
                return false;
            }
        };
        tracing::info!(%group, segment = adopted.segment, rows = adopted.rows, live = adopted.live, "adopted a segment of the leader");
        self.adopted.fetch_add(1, Ordering::Relaxed);
        lock(&self.course).done(kind);
        let view = shard.view();
        if let Some(own) = view.segments().iter().find(|own| own.segment.id() == adopted.segment) {
            // Whoever leads next may be this replica.
            self.offer(arrived.part, own.segment.dir().to_path_buf());
        }
        true
    }
}

impl PartKeeper for Shipping {
    fn parts(&self) -> Parts {
        let shard = self.shard.get();
        let disk_short = self.bell.is_disk_short();
        let is_at_work = self.at_work.load(Ordering::Acquire);
        let working = is_at_work || !work_of(&shard.view(), &shard.wanted_jobs(), disk_short).is_empty();
        let leads = self.leadership() == Leadership::Own;
        Parts { leads, working, parts: lock(&self.offered).iter().map(|offered| offered.part.clone()).collect() }
    }
}

impl Drop for Shipping {
    fn drop(&mut self) {
        for offered in lock(&self.offered).drain(..) {
            self.states.shelf.take_away(self.group, offered.part.manifest.offer());
        }
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Tended {
    /// Whether a job is to be run here now.
    pub(crate) fn allows(&self, job: &JobKind) -> bool {
        match Kind::of(job) {
            Some(Kind::Seal) => self.seals,
            Some(Kind::Merge) => self.merges,
            None => true,
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
    let last = view.newest_version(own).map_err(|error| error.to_string())?;
    Ok(Part { manifest, rows: own.segment.rows() as u64, last })
}

/// A panic elsewhere leaves these values whole: they are changed by single statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
