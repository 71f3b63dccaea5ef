//! Random histories, compared with a map.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sagitta_env::{Env, ManualClock};
use sagitta_model::{Change, Point, PointId, Schema};

use super::check::Check;
use super::dice::Dice;
use super::disturbance::{Disturbance, LogEntry, as_entries, term_of};
use super::inspect::{agrees, unchanged};
use super::naive::{Expected, Naive};
use super::twin::ADOPTION;
use super::{Rig, open, schema, small_options, unhurried};
use crate::codec::Record as _;
use crate::{Command, Inspected, ReadView, Shard, ShardError, ShardOptions, Step, StepHook, WriteOutcome, inspect};

/// What a run did: a run that did too little proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Log entries applied, replays not counted.
    pub entries: u64,
    /// Answers compared.
    pub reads: u64,
    /// Jobs that ran to their end.
    pub jobs: u64,
    /// Jobs during which entries were applied.
    pub disturbed_jobs: u64,
    /// Crashes, in jobs and between.
    pub crashes: u64,
    /// Clean restarts.
    pub restarts: u64,
    /// Segments of the twin that were taken over.
    pub adoptions: u64,
    /// Their rows that were alive.
    pub adopted_rows: u64,
    /// Segments of the twin that were refused, as they had to be.
    pub refusals: u64,
    /// Most segments at a time.
    pub most_segments: usize,
    /// Most points at a time.
    pub most_points: usize,
}

/// Takes a shard in the empty folder `dir` through `steps` random steps.
///
/// # Panics
/// When the shard answers other than a map would.
pub fn run(rig: &dyn Rig, dir: &Path, seed: u64, steps: usize) -> Report {
    println!("model test: seed {seed}, {steps} steps");
    let mut driver = Driver::new(rig, dir, seed);
    for step in 0..steps {
        driver.at = format!("seed {seed}, step {step}");
        driver.step();
    }
    driver.check_everything();
    driver.report
}

/// A shard, the map it is compared with, and the log of what was done to both.
pub(super) struct Driver<'a> {
    pub(super) rig: &'a dyn Rig,
    dir: PathBuf,
    pub(super) schema: Schema,
    pub(super) env: Env,
    clock: ManualClock,
    pub(super) dice: Dice,
    options: ShardOptions,
    shard: Option<Arc<Shard>>,
    /// Another replica of the shard, which has applied more or less of the log.
    pub(super) twin: Option<Arc<Shard>>,
    pub(super) naive: Naive,
    pub(super) log: Vec<LogEntry>,
    next_index: u64,
    /// Views that were kept, and what they must go on answering.
    held: Vec<(Arc<ReadView>, Naive)>,
    pub(super) disturbance: Arc<Disturbance>,
    pub(super) at: String,
    pub(super) report: Report,
}

impl<'a> Driver<'a> {
    pub(super) fn new(rig: &'a dyn Rig, dir: &Path, seed: u64) -> Self {
        let (env, clock) = Env::seeded(seed);
        let disturbance = Arc::<Disturbance>::default();
        let schema = schema(seed, rig.policies());
        let mut driver = Self {
            rig,
            dir: dir.join("shard"),
            naive: Naive::new(&schema),
            schema,
            env,
            clock,
            dice: Dice::new(seed),
            options: small_options(),
            shard: None,
            twin: None,
            log: Vec::new(),
            next_index: 1,
            held: Vec::new(),
            disturbance,
            at: format!("seed {seed}"),
            report: Report::default(),
        };
        driver.open();
        driver
    }

    pub(super) fn shard(&self) -> &Arc<Shard> {
        self.shard.as_ref().expect("the shard is open")
    }

    fn step(&mut self) {
        match self.dice.below(106) {
            0..=34 => self.write(),
            35..=49 => self.search(),
            50..=54 => self.get(),
            55..=59 => self.count(),
            60..=64 => self.scroll(),
            65..=69 => self.hold_or_check_view(),
            70..=73 => self.shard().freeze().expect("the shard freezes"),
            74..=89 => self.run_job(),
            90..=92 => drop(self.shard().flush().expect("the shard flushes")),
            93..=94 => self.clock.advance(Duration::from_secs(self.dice.below(40))),
            95 => self.restart(),
            96 => self.crash(),
            97 => self.crash_in_job(),
            98 => self.replay_old(),
            99..=103 => self.adopt(),
            104 => {
                self.bring_twin_on();
                self.cut_adoption_at(*self.dice.pick(&ADOPTION));
                self.crash();
            }
            _ => self.check_everything(),
        }
        let (segments, points) = (self.shard().view().segments().len(), self.naive.points.len());
        self.report.most_segments = self.report.most_segments.max(segments);
        self.report.most_points = self.report.most_points.max(points);
    }

    /// Applies a batch of random entries.
    pub(super) fn write(&mut self) {
        let count = if self.dice.one_in(3) { 1 + self.dice.below(5) } else { 1 };
        let entries: Vec<_> = (0..count).map(|_| self.new_entry()).collect();
        let outcomes = self.shard().apply(&as_entries(&entries)).expect("entries apply");
        entries.iter().zip(&outcomes).for_each(|(entry, outcome)| self.check_outcome(entry, outcome));
    }

    /// Applies one entry of many points with ids that [`Dice::id`] does not draw.
    pub(super) fn fill(&mut self, count: u64) {
        let point = |n| Point { id: PointId::Uuid(1 << 120 | u128::from(n)), ..self.dice.point(&self.schema) };
        let change = Change::Upsert((0..count).map(point).collect());
        let command = Command { request_id: self.dice.request_id(), after: None, change: change.into() };
        self.next_index += 1;
        let entry = self.command_entry(self.next_index, command);
        self.log.push(entry.clone());
        let outcomes = self.shard().apply(&as_entries(std::slice::from_ref(&entry))).expect("the entry applies");
        self.check_outcome(&entry, &outcomes[0]);
    }

    /// An entry that is in the log and in the map from now on, but not yet in the shard.
    pub(super) fn new_entry(&mut self) -> LogEntry {
        // Configuration changes and other groups' entries leave gaps.
        self.next_index += if self.dice.one_in(10) { 3 } else { 1 };
        let index = self.next_index;
        let nothing = |data: Vec<u8>, refused| LogEntry {
            index,
            data,
            command: None,
            expected: Expected::nothing(index, refused),
        };
        let entry = match self.dice.below(25) {
            0 => nothing(Vec::new(), false),
            1 => {
                let mut writer = crate::codec::Writer::sealed(Command::FORMAT);
                writer.u64(self.dice.below(1 << 60));
                nothing(writer.seal(), true)
            }
            4 if self.log.iter().any(|entry| entry.command.is_some()) => {
                // Another command under an id that was used, on whatever it would have done, has no effect.
                let used: Vec<_> =
                    self.log.iter().filter_map(|entry| Some(entry.command.as_ref()?.request_id)).collect();
                let command = Command { request_id: *self.dice.pick(&used), ..self.dice.command(&self.schema) };
                nothing(command.to_sealed(), true)
            }
            2..=3 if self.log.iter().any(|entry| entry.command.is_some()) => {
                let commands: Vec<_> = self.log.iter().filter_map(|entry| entry.command.clone()).collect();
                self.command_entry(index, self.dice.pick(&commands).clone())
            }
            _ => self.command_entry(index, self.dice.command(&self.schema)),
        };
        self.log.push(entry.clone());
        self.report.entries += 1;
        entry
    }

    fn command_entry(&mut self, index: u64, command: Command) -> LogEntry {
        let expected = self.naive.apply(index, &command);
        LogEntry { index, data: command.to_sealed(), command: Some(command), expected }
    }

    pub(super) fn check_outcome(&self, entry: &LogEntry, outcome: &WriteOutcome) {
        assert_eq!(Expected::of(outcome), entry.expected, "{}: outcome of {:?}", self.at, entry.command);
        assert_eq!(outcome.failed, outcome.failures.len() as u64, "{}", self.at);
    }

    /// What was applied before is not applied again.
    fn replay_old(&mut self) {
        let count = (self.dice.below(20) as usize).min(self.log.len());
        let entries = self.log[self.log.len() - count..].to_vec();
        let outcomes = self.shard().apply(&as_entries(&entries)).expect("entries apply again");
        for (entry, outcome) in entries.iter().zip(&outcomes) {
            assert!(outcome.deduplicated, "{}: {entry:?}", self.at, entry = entry.command);
        }
        self.check_everything();
    }

    fn run_job(&mut self) {
        let disturbed = self.dice.one_in(2);
        if disturbed {
            let step = *self.dice.pick(&Step::ALL[..=8]);
            let entries = (0..1 + self.dice.below(4)).map(|_| self.new_entry()).collect();
            self.disturbance.plan(step, entries);
        }
        for _ in 0..1 + self.dice.below(6) {
            let Some(job) = self.shard().next_job() else { break };
            let kind = job.kind().clone();
            job.run(&unhurried()).unwrap_or_else(|error| panic!("{}: {kind:?} failed: {error}", self.at));
            self.report.jobs += 1;
        }
        if disturbed {
            self.finish_disturbance();
        }
    }

    /// Applies what the job did not get to, and checks what came of the rest.
    pub(super) fn finish_disturbance(&mut self) {
        let (outcomes, disturbed) = self.disturbance.finish(self.shard());
        self.report.disturbed_jobs += u64::from(disturbed);
        outcomes.iter().for_each(|(entry, outcome)| self.check_outcome(entry, outcome));
    }

    fn hold_or_check_view(&mut self) {
        if self.held.len() < 2 || self.dice.one_in(2) {
            self.held.push((self.shard().view(), self.naive.clone()));
            return;
        }
        let (view, naive) = self.held.swap_remove(0);
        self.check_view(&view, &naive);
    }

    pub(super) fn search(&mut self) {
        let query = self.dice.query(&self.schema);
        self.check(&self.shard().view(), &self.naive).search(&query);
        self.report.reads += 1;
    }

    /// What compares a view with a map.
    fn check<'b>(&'b self, view: &'b ReadView, naive: &'b Naive) -> Check<'b> {
        Check { view, naive, dice: &self.dice, is_exact: self.rig.is_exact(), at: &self.at }
    }

    fn get(&mut self) {
        self.check(&self.shard().view(), &self.naive).get();
        self.report.reads += 1;
    }

    pub(super) fn count(&mut self) {
        self.check(&self.shard().view(), &self.naive).count();
        self.report.reads += 1;
    }

    pub(super) fn scroll(&mut self) {
        self.check(&self.shard().view(), &self.naive).scroll();
        self.report.reads += 1;
    }

    /// Compares all that there is, in every way of reading.
    pub(super) fn check_everything(&mut self) {
        self.check_view(&self.shard().view(), &self.naive);
        self.report.reads += 1;
    }

    fn check_view(&self, view: &ReadView, naive: &Naive) {
        self.check(view, naive).everything();
    }

    fn restart(&mut self) {
        self.close();
        self.open();
        self.report.restarts += 1;
    }

    fn close(&mut self) {
        self.held.clear();
        let shard = self.shard.take().expect("the shard is open");
        let all = self.dice.one_in(2);
        if all {
            shard.flush().expect("the shard flushes");
        }
        let shard = Arc::into_inner(shard).expect("nobody else has the shard");
        drop(shard);
    }

    pub(super) fn crash(&mut self) {
        self.held.clear();
        let shard = self.shard.take().expect("the shard is open");
        let survivors = *self.dice.pick(&[0, 0, 1, 2, 5, u64::MAX]);
        let durable = shard.durable_index();
        self.rig.crash(shard, &self.dir, survivors);
        let recovered = self.open();
        assert!(recovered >= durable, "{}: {durable} was durable, {recovered} is left", self.at);
        self.report.crashes += 1;
    }

    fn crash_in_job(&mut self) {
        let step = *self.dice.pick(&Step::ALL);
        self.cut_job_at(step);
        self.crash();
    }

    /// Runs a job up to a step; returns whether it came that far.
    pub(super) fn cut_job_at(&mut self, step: Step) -> bool {
        self.disturbance.cut_at(Some(step));
        let cut = match self.shard().next_job() {
            Some(job) => match job.run(&unhurried()) {
                Err(ShardError::Stopped) => true,
                done => {
                    done.unwrap_or_else(|error| panic!("{}: a job failed: {error}", self.at));
                    false
                }
            },
            None => false,
        };
        self.disturbance.cut_at(None);
        cut
    }

    /// Opens the shard and reads nothing.
    pub(super) fn open_quietly(&mut self) {
        let disturbance = Arc::clone(&self.disturbance);
        self.options.step_hook = StepHook::new(move |step| disturbance.at(step));
        let shard = open(self.rig, &self.dir, &self.schema, &self.env, &self.options);
        self.disturbance.concerns(&shard);
        let applied_index = shard.applied_index();
        assert_eq!(shard.durable_index(), applied_index, "{}", self.at);
        let term = if applied_index == 0 { 0 } else { term_of(applied_index) };
        assert_eq!(shard.view().applied_term(), term, "{}", self.at);
        self.shard = Some(shard);
    }

    /// Opens the shard, compares it with the map as of where it is, and applies the rest of the log. Returns the log index
    /// up to which the shard had everything.
    pub(super) fn open(&mut self) -> u64 {
        // A shard that was opened before is looked at first, whatever a crash has left of it.
        let found = (!self.log.is_empty()).then(|| self.inspect());
        self.open_quietly();
        if let Some(found) = found {
            agrees(&found, self.shard(), &self.at);
        }
        let applied_index = self.shard().applied_index();
        let (before, after): (Vec<_>, Vec<_>) = self.log.drain(..).partition(|entry| entry.index <= applied_index);
        let mut recovered = Naive::new(&self.schema);
        for entry in &before {
            if let Some(command) = &entry.command {
                recovered.apply(entry.index, command);
            }
        }
        self.check_view(&self.shard().view(), &recovered);
        for entries in after.chunks(7) {
            let outcomes = self.shard().apply(&as_entries(entries)).expect("the log is applied again");
            entries.iter().zip(&outcomes).for_each(|(entry, outcome)| self.check_outcome(entry, outcome));
        }
        self.log.extend(before.into_iter().chain(after));
        self.check_view(&self.shard().view(), &self.naive);
        applied_index
    }

    /// Looks at the closed shard.
    pub(super) fn inspect(&self) -> Inspected {
        unchanged(&self.dir, || inspect(&self.dir, &self.rig.engines(), &self.env, &self.options.kv, true))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Closes the shard with everything on disk.
    pub(super) fn close_flushed(&mut self) {
        self.shard().flush().expect("the shard flushes");
        self.held.clear();
        drop(Arc::into_inner(self.shard.take().expect("the shard is open")).expect("nobody else has the shard"));
    }
}
