//! A shard and what it was split into, each with its log, beside one map of all points.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sagitta_env::{Env, ManualClock};
use sagitta_model::{Change, HashRange, Hit, Point, PointId, Schema, Target, merge};

use super::check::Check;
use super::dice::Dice;
use super::disturbance::{Disturbance, LogEntry, as_entries};
use super::naive::{Expected, Naive};
use super::{Rig, numbered, schema, small_options};
use crate::codec::Record as _;
use crate::{
    Command, ReadView, SearchContext, Severity, Shard, ShardError, ShardOptions, Split, Step, StepHook, WriteOutcome,
    inspect,
};

/// The number of the shard that all others come from.
pub(super) const FIRST: u64 = 7;

/// All shards over one range of hashes.
pub(super) struct Family<'a> {
    rig: &'a dyn Rig,
    dir: PathBuf,
    schema: Schema,
    env: Env,
    pub(super) clock: ManualClock,
    pub(super) dice: Dice,
    options: ShardOptions,
    /// All points of all shards.
    pub(super) whole: Naive,
    /// In the order in which they came to be.
    pub(super) members: Vec<Member>,
    /// Entries of all logs have indexes of their own, so that a point has the same version here and there.
    next_index: u64,
    pub(super) at: String,
    /// Answers compared.
    pub(super) reads: u64,
}

/// One shard.
pub(super) struct Member {
    pub(super) number: u64,
    pub(super) range: HashRange,
    pub(super) naive: Naive,
    /// Range and map as of its beginning.
    origin: (HashRange, Naive),
    pub(super) log: Vec<LogEntry>,
    /// Entries that are in the log and in the map, but not yet in the shard.
    pub(super) queue: Vec<LogEntry>,
    /// None until the shard that it comes from has been split.
    shard: Option<Arc<Shard>>,
    opened: bool,
    pub(super) disturbance: Arc<Disturbance>,
}

impl Member {
    fn new(number: u64, range: HashRange, naive: Naive) -> Self {
        let origin = (range, naive.clone());
        let (log, queue, disturbance) = Default::default();
        Self { number, range, naive, origin, log, queue, shard: None, opened: false, disturbance }
    }

    pub(super) fn shard(&self) -> &Arc<Shard> {
        self.shard.as_ref().expect("the shard is open")
    }

    fn push(&mut self, entry: LogEntry) {
        self.log.push(entry.clone());
        self.queue.push(entry);
    }
}

impl<'a> Family<'a> {
    pub(super) fn new(rig: &'a dyn Rig, dir: &Path, seed: u64) -> Self {
        let (env, clock) = Env::seeded(seed);
        let schema = schema(seed, rig.policies());
        let whole = Naive::new(&schema);
        let mut family = Self {
            rig,
            dir: dir.to_path_buf(),
            members: vec![Member::new(FIRST, HashRange::FULL, whole.clone())],
            whole,
            schema,
            env,
            clock,
            dice: Dice::new(seed),
            options: ShardOptions { siblings: Some(dir.to_path_buf()), ..small_options() },
            next_index: 1,
            at: format!("seed {seed}"),
            reads: 0,
        };
        family.reopen(0);
        family
    }

    pub(super) fn folder(&self, member: usize) -> PathBuf {
        self.dir.join(self.members[member].number.to_string())
    }

    /// A random command, in the queues of those whose points it names.
    pub(super) fn command(&mut self) {
        let command = self.dice.command(&self.schema);
        // A batch that is wrong is refused by each shard for its part, where the map would refuse all of it.
        let sound = |point: &Point| point.validate(&self.schema).is_ok();
        if matches!(&*command.change, Change::Upsert(points) if !points.iter().all(sound)) {
            return;
        }
        let (early, index) = (self.next_index + 1, self.next_index + 2);
        self.next_index = index;
        self.whole.apply(index, &command);
        for member in &mut self.members {
            let part = part_of(&command, member.range);
            // Now and then it comes whole to a shard that has a part of it or nothing.
            if part.as_ref() != Some(&command) && self.dice.one_in(6) {
                let (data, expected) = (command.to_sealed(), Expected::nothing(early, true));
                member.push(LogEntry { index: early, data, command: None, expected });
            }
            if let Some(part) = part {
                let expected = member.naive.apply(index, &part);
                member.push(LogEntry { index, data: part.to_sealed(), command: Some(part), expected });
            }
        }
    }

    /// A command from before a split once more, as far as it concerns each shard; it must change nothing.
    pub(super) fn repeat(&mut self) {
        let member = self.dice.below(self.members.len() as u64) as usize;
        let commands = self.members[member].log.iter().filter_map(|entry| entry.command.clone());
        let commands: Vec<_> = commands.collect();
        if commands.is_empty() {
            return;
        }
        let command = self.dice.pick(&commands).clone();
        self.next_index += 1;
        let index = self.next_index;
        for member in &mut self.members {
            // Shards that know nothing of it are those that it did not concern.
            let Some(part) = part_of(&command, member.range) else { continue };
            if member.naive.knows(&part) {
                let expected = member.naive.apply(index, &part);
                member.push(LogEntry { index, data: part.to_sealed(), command: Some(part), expected });
            }
        }
    }

    /// Splits a shard at a hash of its range, in its queue; returns the number of the new one.
    pub(super) fn split(&mut self, member: usize, at: u64) -> usize {
        self.next_index += 1;
        let (index, right) = (self.next_index, FIRST + self.members.len() as u64);
        let data = Split { request_id: self.dice.request_id(), at, right }.to_sealed();
        let left = &mut self.members[member];
        let (lower, upper) = left.range.split(at).expect("a hash of the range");
        left.push(LogEntry { index, data, command: None, expected: Expected::nothing(index, false) });
        let naive = left.naive.within(upper);
        (left.range, left.naive) = (lower, left.naive.within(lower));
        self.members.push(Member::new(right, upper, naive));
        self.members.len() - 1
    }

    /// A hash that some shard can be split at: now and then so that one half has hardly any point.
    pub(super) fn somewhere(&self, member: usize) -> Option<u64> {
        let Member { range, naive, .. } = &self.members[member];
        let mut hashes: Vec<u64> = naive.points.keys().map(|id| sagitta_model::shard_hash(*id)).collect();
        hashes.sort_unstable();
        let at = match self.dice.below(4) {
            _ if hashes.is_empty() => range.first + (range.last - range.first) / 2,
            0 => hashes[0],
            1 => *self.dice.pick(&hashes),
            _ => hashes[hashes.len() / 2],
        };
        range.split(at).map(|_| at)
    }

    /// Opens a shard that has come to be, whatever the one that it comes from has of it.
    pub(super) fn open(&mut self, member: usize) {
        self.reopen(member);
    }

    /// A random command of which only one shard's part reaches anybody.
    pub(super) fn command_to(&mut self, number: usize) {
        let command = self.dice.command(&self.schema);
        let Some(part) = part_of(&command, self.members[number].range) else { return };
        self.next_index += 1;
        let (index, member) = (self.next_index, &mut self.members[number]);
        let expected = member.naive.apply(index, &part);
        let whole: Vec<_> = self.whole.points.keys().copied().filter(|id| member.range.holds(*id)).collect();
        whole.iter().for_each(|id| drop(self.whole.points.remove(id)));
        self.whole.points.extend(member.naive.points.clone());
        let entry = LogEntry { index, data: part.to_sealed(), command: Some(part), expected };
        member.log.push(entry.clone());
        let outcomes = member.shard().apply(&as_entries(std::slice::from_ref(&entry))).expect("the entry applies");
        self.check_outcomes(number, [entry].into_iter().zip(outcomes));
    }

    /// The hash below which so many tenths of a shard's points are.
    pub(super) fn below(&self, member: usize, tenths: usize) -> u64 {
        let points = self.members[member].naive.points.keys();
        let mut hashes: Vec<u64> = points.map(|id| sagitta_model::shard_hash(*id)).collect();
        hashes.sort_unstable();
        hashes[hashes.len() * tenths / 10]
    }

    /// Applies what is in the queues, and opens the shards that come of it.
    pub(super) fn work_off(&mut self) {
        for member in 0..self.members.len() {
            if self.members[member].shard.is_none() {
                self.reopen(member);
                continue;
            }
            let entries = std::mem::take(&mut self.members[member].queue);
            if !entries.is_empty() {
                let outcomes = self.members[member].shard().apply(&as_entries(&entries)).expect("entries apply");
                self.check_outcomes(member, entries.into_iter().zip(outcomes));
            }
        }
    }

    fn check_outcomes(&self, member: usize, outcomes: impl IntoIterator<Item = (LogEntry, WriteOutcome)>) {
        for (entry, outcome) in outcomes {
            let (at, number) = (&self.at, self.members[member].number);
            assert_eq!(
                Expected::of(&outcome),
                entry.expected,
                "{at}: shard {number}, {:?}: {outcome:?}",
                entry.command
            );
        }
    }

    /// Applies a shard's queue in the middle of its next jobs, as long as there are any.
    pub(super) fn disturb_jobs(&mut self, member: usize, step: Step, most: u64) -> (u64, bool) {
        let entries = std::mem::take(&mut self.members[member].queue);
        self.members[member].disturbance.plan(step, entries);
        let done = self.jobs(member, most);
        let (outcomes, disturbed) = self.members[member].disturbance.finish(self.members[member].shard());
        self.check_outcomes(member, outcomes);
        (done, disturbed)
    }

    pub(super) fn jobs(&mut self, member: usize, most: u64) -> u64 {
        for done in 0..most {
            let Some(job) = self.members[member].shard().next_job() else { return done };
            let kind = job.kind().clone();
            job.run(&super::unhurried()).unwrap_or_else(|error| panic!("{}: {kind:?}: {error}", self.at));
        }
        most
    }

    /// Ends the work on a queue at a step of a split in it.
    pub(super) fn cut_split(&mut self, member: usize, step: Step) {
        let member = &mut self.members[member];
        let entries = std::mem::take(&mut member.queue);
        member.disturbance.cut_at(Some(step));
        let cut = member.shard().apply(&as_entries(&entries));
        member.disturbance.cut_at(None);
        assert!(matches!(cut, Err(ShardError::Stopped)), "{}: not cut at {step:?}: {cut:?}", self.at);
    }

    /// Cuts the next job off at a step; false if there is none, or it ended before.
    pub(super) fn cut_job(&mut self, member: usize, step: Step) -> bool {
        let member = &self.members[member];
        let Some(job) = member.shard().next_job() else { return false };
        member.disturbance.cut_at(Some(step));
        let done = job.run(&super::unhurried());
        member.disturbance.cut_at(None);
        match done {
            Err(ShardError::Stopped) => true,
            done => {
                done.unwrap_or_else(|error| panic!("{}: a job failed: {error}", self.at));
                false
            }
        }
    }

    /// Ends a shard as a power cut would, and opens it again.
    pub(super) fn crash(&mut self, member: usize, survivors: u64) {
        let shard = self.members[member].shard.take().expect("the shard is open");
        let durable = shard.durable_index();
        self.rig.crash(shard, &self.folder(member), survivors);
        let recovered = self.reopen(member);
        assert!(recovered >= durable, "{}: {durable} was durable, {recovered} is left", self.at);
    }

    pub(super) fn restart(&mut self, member: usize) {
        let shard = self.members[member].shard.take().expect("the shard is open");
        drop(Arc::into_inner(shard).expect("nobody else has the shard"));
        self.reopen(member);
    }

    /// Opens a shard, compares it with the map as of where it is, and applies the rest of its log. Returns where it was.
    fn reopen(&mut self, number: usize) -> u64 {
        let (dir, at) = (self.folder(number), self.at.clone());
        let member = &self.members[number];
        let disturbance = Arc::clone(&member.disturbance);
        let options =
            ShardOptions { step_hook: StepHook::new(move |step| disturbance.at(step)), ..self.options.clone() };
        if member.opened {
            let found = inspect(&dir, &self.rig.engines(), &self.env, &options.kv, true);
            let wrong = found.findings.iter().find(|finding| finding.severity > Severity::Leftover);
            assert_eq!(wrong, None, "{at}: of shard {}, which is sound", member.number);
        }
        let spec = numbered(member.number, &self.schema);
        let shard = Shard::open(&dir, spec, self.rig.engines(), self.env.clone(), options);
        let shard = shard.unwrap_or_else(|error| panic!("{at}: shard {} does not open: {error}", member.number));
        member.disturbance.concerns(&shard);
        assert!(!dir.join("half").exists(), "{at}: a half is left over");
        let applied = shard.applied_index();
        let (range, recovered) = member.as_of(applied);
        assert_eq!(shard.range(), range, "{at}: shard {}", member.number);
        self.check(&shard.view(), &recovered).everything();
        let member = &mut self.members[number];
        (member.shard, member.opened) = (Some(shard), true);
        member.queue.clear();
        let rest: Vec<_> = member.log.iter().filter(|entry| entry.index > applied).cloned().collect();
        for entries in rest.chunks(7) {
            let outcomes = self.members[number].shard().apply(&as_entries(entries)).expect("the log is applied again");
            self.check_outcomes(number, entries.iter().cloned().zip(outcomes));
        }
        applied
    }

    pub(super) fn check<'b>(&'b self, view: &'b ReadView, naive: &'b Naive) -> Check<'b> {
        Check { view, naive, dice: &self.dice, is_exact: self.rig.is_exact(), at: &self.at }
    }

    /// Compares each shard with its part of the map, and all of them together with the map.
    pub(super) fn check_everything(&mut self) {
        for member in &self.members {
            let view = member.shard().view();
            assert_eq!(view.range(), member.range, "{}", self.at);
            self.check(&view, &self.whole.within(member.range)).everything();
            // What is not the shard's is not there, whatever the database still holds of it.
            let all: Vec<PointId> = self.whole.points.keys().copied().collect();
            let found = view.get(&all, &Default::default()).expect("points are read");
            assert!(found.iter().all(|record| member.range.holds(record.id)), "{}", self.at);
        }
        let count: u64 = self.members.iter().map(|member| member.shard().view().points()).sum();
        assert_eq!(count, self.whole.points.len() as u64, "{}", self.at);
        self.search();
        self.reads += 1;
    }

    /// Compares a search in all shards, merged, with the map, to the last tie.
    pub(super) fn search(&mut self) {
        let effort = sagitta_model::Effort::Exact;
        let query = sagitta_model::SearchQuery { effort, ..self.dice.query(&self.schema) };
        let context = SearchContext { stop: &sagitta_engine::index::Never, explain: false };
        let search = |member: &Member| -> Vec<Hit> {
            let found = member.shard().view().search(&query, &context);
            found.unwrap_or_else(|error| panic!("{}: {error}", self.at)).hits
        };
        let found = merge(self.members.iter().map(search), query.k);
        let engine = self.rig.engines().index;
        let mut expected = self.whole.ranking(&query, &*engine);
        expected.truncate(query.k);
        assert_eq!(found, expected, "{}: {query:?}", self.at);
        self.reads += 1;
    }
}

impl Member {
    /// Range and map as of an entry.
    fn as_of(&self, applied: u64) -> (HashRange, Naive) {
        let (mut range, mut naive) = self.origin.clone();
        for entry in self.log.iter().filter(|entry| entry.index <= applied) {
            if let Some(command) = &entry.command {
                naive.apply(entry.index, command);
            } else if let Ok(split) = Split::from_sealed(&entry.data)
                && let Some((lower, _)) = range.split(split.at)
            {
                (range, naive) = (lower, naive.within(lower));
            }
        }
        (range, naive)
    }
}

/// What a router sends of a command to the shard of a range.
pub(super) fn part_of(command: &Command, range: HashRange) -> Option<Command> {
    let ids = |ids: &[PointId]| ids.iter().copied().filter(|id| range.holds(*id)).collect::<Vec<_>>();
    let change = match &*command.change {
        Change::Upsert(points) => {
            Change::Upsert(points.iter().filter(|point| range.holds(point.id)).cloned().collect())
        }
        Change::Delete(all) => Change::Delete(ids(all)),
        Change::UpdatePayload { target: Target::Ids(all), change } => {
            Change::UpdatePayload { target: Target::Ids(ids(all)), change: change.clone() }
        }
        by_filter => by_filter.clone(),
    };
    let is_empty = match &change {
        Change::Upsert(points) => points.is_empty(),
        Change::Delete(ids) | Change::UpdatePayload { target: Target::Ids(ids), .. } => ids.is_empty(),
        _ => false,
    };
    (!is_empty).then(|| Command { change: change.into(), ..command.clone() })
}
