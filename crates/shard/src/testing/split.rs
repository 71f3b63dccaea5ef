//! Shards that are split in the middle of everything.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sagitta_engine::kv::ScanRange;
use sagitta_env::Env;
use sagitta_model::{Change, IndexPolicy, Point, PointId};

use super::dice::Dice;
use super::disturbance::lock;
use super::family::Family;
use super::naive::Naive;
use super::{Rig, numbered, run_jobs, schema};
use crate::codec::Record as _;
use crate::layout::{HALF_KEY, Key, PENDING, POINTS, VECTORS};
use crate::open::read_meta;
use crate::records::Half;
use crate::{Command, Entry, ReadView, SegmentView, Shard, ShardOptions, Split, Step, StepHook};

/// Shards at most: what one more split shows, these have shown.
const MANY: usize = 6;

/// Batches that a power cut leaves of those that were not flushed.
const SURVIVORS: [u64; 4] = [0, 1, 2, u64::MAX];

/// What a run did: a run that did too little proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Splits, those cut off included.
    pub splits: u64,
    /// Splits that were applied in the middle of a job.
    pub in_jobs: u64,
    /// Answers compared.
    pub reads: u64,
    /// Jobs that ran to their end.
    pub jobs: u64,
    /// Crashes, in splits, in jobs and between.
    pub crashes: u64,
    /// Points at the end.
    pub points: usize,
}

/// Takes a shard in the empty folder `dir`, and what it is split into, through `steps` random steps.
///
/// # Panics
/// When they answer together other than a map would, or one of them other than its part.
pub fn run(rig: &dyn Rig, dir: &Path, seed: u64, steps: usize) -> Report {
    println!("split test: seed {seed}, {steps} steps");
    let mut history = History { family: Family::new(rig, dir, seed), report: Report::default(), held: Vec::new() };
    for step in 0..steps {
        history.family.at = format!("seed {seed}, step {step}");
        history.step();
    }
    let History { mut family, mut report, held } = history;
    drop(held);
    family.check_everything();
    finish(&mut family);
    report.reads = family.reads;
    report.points = family.whole.points.len();
    report
}

struct History<'a> {
    family: Family<'a>,
    report: Report,
    /// Views that were kept, and what they must go on answering.
    held: Vec<(Arc<ReadView>, Naive)>,
}

impl History<'_> {
    fn step(&mut self) {
        let family = &mut self.family;
        let member = family.dice.below(family.members.len() as u64) as usize;
        let shard = Arc::clone(family.members[member].shard());
        let view = shard.view();
        let naive = &family.members[member].naive;
        match family.dice.below(100) {
            0..=34 => self.write(),
            35..=44 => family.search(),
            45..=48 => family.check(&view, naive).get(),
            49..=52 => family.check(&view, naive).count(),
            53..=56 => family.check(&view, naive).scroll(),
            57..=61 => self.hold(member),
            62..=65 => shard.freeze().expect("the shard freezes"),
            66..=80 => {
                let most = 1 + family.dice.below(5);
                drop((shard, view));
                self.report.jobs += family.jobs(member, most);
            }
            81..=83 => self.disturb(member),
            84..=86 => drop(shard.flush().expect("the shard flushes")),
            87..=88 => family.clock.advance(Duration::from_secs(family.dice.below(40))),
            89..=90 => family.check_everything(),
            91 => {
                self.held.clear();
                drop((shard, view));
                self.family.restart(member);
            }
            92..=93 => {
                drop((shard, view));
                self.crash(member);
            }
            94..=95 => {
                drop((shard, view));
                self.crash_in_job(member);
            }
            _ => {
                drop((shard, view));
                self.split(member);
            }
        }
    }

    /// Applies a batch of commands, at times with a split in the middle of it.
    fn write(&mut self) {
        let family = &mut self.family;
        let count = if family.dice.one_in(3) { 1 + family.dice.below(5) } else { 1 };
        for _ in 0..count {
            family.command();
        }
        if family.dice.one_in(4) {
            family.repeat();
        }
        family.work_off();
    }

    fn hold(&mut self, member: usize) {
        let family = &self.family;
        if self.held.len() < 3 || family.dice.one_in(2) {
            let member = &family.members[member];
            self.held.push((member.shard().view(), member.naive.clone()));
        } else {
            let (view, naive) = self.held.swap_remove(0);
            family.check(&view, &naive).everything();
        }
    }

    /// Splits a shard, whole or up to a step at which it dies.
    fn split(&mut self, member: usize) {
        let family = &mut self.family;
        let Some(at) = family.somewhere(member).filter(|_| family.members.len() < MANY) else { return };
        self.report.splits += 1;
        if family.dice.one_in(2) {
            family.members[member].shard().prepare_split(at).expect("it is prepared");
        }
        family.command();
        family.split(member, at);
        family.command();
        if family.dice.one_in(2) {
            family.work_off();
            family.check_everything();
        } else {
            let step = *family.dice.pick(&Step::OF_SPLIT);
            family.cut_split(member, step);
            self.crash(member);
        }
    }

    /// Applies entries, at times a split, in the middle of a job.
    fn disturb(&mut self, member: usize) {
        let family = &mut self.family;
        let steps = [&Step::ALL[..=8], &Step::OF_TRIM[..3]].concat();
        let step = *family.dice.pick(&steps);
        family.command();
        let split = family.somewhere(member).filter(|_| family.members.len() < MANY && family.dice.one_in(2));
        if let Some(at) = split {
            family.split(member, at);
            family.command();
            self.report.splits += 1;
        }
        let most = 1 + family.dice.below(5);
        let (jobs, disturbed) = family.disturb_jobs(member, step, most);
        self.report.jobs += jobs;
        self.report.in_jobs += u64::from(split.is_some() && disturbed);
        family.work_off();
    }

    fn crash(&mut self, member: usize) {
        self.held.clear();
        let survivors = *self.family.dice.pick(&[0, 0, 1, 2, 5, u64::MAX]);
        self.family.crash(member, survivors);
        self.family.work_off();
        self.report.crashes += 1;
    }

    fn crash_in_job(&mut self, member: usize) {
        let steps = [&Step::ALL[..], &Step::OF_TRIM].concat();
        let step = *self.family.dice.pick(&steps);
        self.family.cut_job(member, step);
        self.crash(member);
    }
}

/// Runs all jobs there are; then nothing is left of points that are another shard's.
fn finish(family: &mut Family<'_>) {
    for number in 0..family.members.len() {
        family.jobs(number, 10_000);
        let member = &family.members[number];
        let (at, shard, range) = (&family.at, member.shard(), member.range);
        assert_eq!(shard.stats().pending_jobs, [], "{at}: jobs do not end");
        assert_eq!(shard.view().foreign(), None, "{at}");
        assert_eq!(shard.stats().damages, [], "{at}");
        let half: Option<Half> = read_meta(&*shard.kv, HALF_KEY).expect("it is read");
        assert_eq!(half, None, "{at}: it would be taken for what is split off next");
        let mut points = 0;
        for family in [POINTS, VECTORS, PENDING] {
            let scanned = shard.kv.scan(family, &ScanRange::all(), &mut |key, _| {
                let id = match family {
                    POINTS => PointId::from_key(key),
                    VECTORS => key.split_last().and_then(|(_, id)| PointId::from_key(id)),
                    _ => Key::read_pending(key).map(|(_, id)| id),
                };
                let id = id.expect("a key with an id");
                assert!(range.holds(id), "{at}: {id} is left in {family:?} of shard {}", member.number);
                points += usize::from(family == POINTS);
                ControlFlow::Continue(())
            });
            scanned.expect("the database is read");
        }
        assert_eq!(points, member.naive.points.len(), "{at}");
    }
    family.check_everything();
}

/// Splits a shard of so many points in the middle, and says what held up the thread that applies for how long, step by step. `dir`
/// is empty.
///
/// # Panics
/// When a half does not have its points.
pub fn measure(rig: &dyn Rig, dir: &Path, rows: u64, prepared: bool) -> Vec<(Step, Duration)> {
    const BATCH: u64 = 1_000;
    let (env, schema, dice) = (Env::real(), schema(1, &[IndexPolicy::Flat]), Dice::new(1));
    let times = Arc::new(Mutex::new(Vec::new()));
    let (clock, told) = (env.clone(), Arc::clone(&times));
    let hook = move |step: Step| {
        lock(&told).push((step, clock.now()));
        ControlFlow::Continue(())
    };
    let siblings = Some(dir.to_path_buf());
    let options = ShardOptions { siblings, step_hook: StepHook::new(hook), ..ShardOptions::default() };
    let open = |number: u64| {
        let (dir, spec) = (dir.join(number.to_string()), numbered(number, &schema));
        Shard::open(&dir, spec, rig.engines(), env.clone(), options.clone()).expect("it opens")
    };
    let left = open(1);
    let apply = |index: u64, data: &[u8]| {
        let outcomes = left.apply(&[Entry { index, term: 1, data, members: None }]).expect("it applies");
        assert_eq!(outcomes[0].refused, None);
    };
    for batch in 0..rows / BATCH {
        let point = |n| Point { id: PointId::Num(n), ..dice.point(&schema) };
        let change = Change::Upsert((batch * BATCH..(batch + 1) * BATCH).map(point).collect());
        apply(1 + batch, &Command { request_id: batch.into(), after: None, change: change.into() }.to_sealed());
        run_jobs(&left).expect("jobs end well");
    }
    let at = 1 << 63;
    if prepared {
        left.prepare_split(at).expect("it is prepared");
    }
    lock(&times).clear();
    let begun = env.now();
    apply(rows, &Split { request_id: rows.into(), at, right: 2 }.to_sealed());
    let mut last = begun;
    let steps = lock(&times).drain(..).map(|(step, at)| (step, at - std::mem::replace(&mut last, at))).collect();
    let right = open(2);
    assert_eq!(left.view().points() + right.view().points(), rows / BATCH * BATCH);
    assert!(left.view().points().abs_diff(right.view().points()) < rows / 10);
    steps
}

/// Cuts the power at every step of a split, and of removing what it leaves, keeping none, some or all of what was not flushed; also
/// after the new shard has gone on. `dir` is empty. Returns the number of cuts.
///
/// # Panics
/// When a point is lost or there twice, or something is left over.
pub fn every_step(rig: &dyn Rig, dir: &Path, seed: u64) -> usize {
    println!("crash test of splits: seed {seed}");
    let mut cuts = 0;
    let reached = RefCell::new(BTreeSet::new());
    let mut case = |name: String, cut: &dyn Fn(&mut Family<'_>)| {
        let folder = dir.join(&name);
        fs::create_dir(&folder).expect("a folder for the case");
        let mut family = Family::new(rig, &folder, seed + cuts as u64);
        family.at = format!("seed {}, {name}", seed + cuts as u64);
        prepare(&mut family);
        cut(&mut family);
        check_after(&mut family);
        drop(family);
        fs::remove_dir_all(&folder).expect("the folder of the case goes");
        cuts += 1;
    };
    for survivors in SURVIVORS {
        for step in Step::OF_SPLIT {
            for goes_on in [false, true] {
                // A new shard that has no name cannot be opened.
                if !goes_on || step >= Step::HalfNamed {
                    let name = format!("{step:?}-{survivors}-{goes_on}");
                    case(name, &|family| cut_split(family, step, survivors, goes_on));
                }
            }
        }
        for step in Step::OF_TRIM {
            for number in [0, 1] {
                case(format!("{step:?}-{survivors}-{number}"), &|family| {
                    if cut_trim(family, step, survivors, number) {
                        reached.borrow_mut().insert((step, survivors));
                    }
                });
            }
        }
    }
    let all = Step::OF_TRIM.into_iter().flat_map(|step| SURVIVORS.map(|survivors| (step, survivors)));
    assert_eq!(reached.into_inner(), all.collect(), "some step was never reached");
    cuts
}

/// Points in segments, dead and alive, in a frozen generation and in the growing one, partly on disk.
fn prepare(family: &mut Family<'_>) {
    for _ in 0..2 {
        grow(family);
        family.members[0].shard().freeze().expect("it freezes");
        family.jobs(0, 2);
    }
    family.members[0].shard().flush().expect("it flushes");
    grow(family);
    family.members[0].shard().freeze().expect("it freezes");
    grow(family);
    let view = family.members[0].shard().view();
    assert!(!view.segments().is_empty() && view.generations().len() > 1, "{}: {} points", family.at, view.points());
}

/// Makes one segment with hardly a dead row, and some rows beside it.
fn settle(family: &mut Family<'_>) {
    loop {
        family.members[0].shard().freeze().expect("it freezes");
        family.clock.advance(Duration::from_secs(3_600));
        family.jobs(0, 1_000);
        family.command();
        family.work_off();
        let view = family.members[0].shard().view();
        let dead = |view: &SegmentView| view.segment.rows() - view.live.count();
        let is_sound = |one: &SegmentView| one.segment.rows() > 20 && dead(one) * 12 <= one.segment.rows();
        if view.generations().iter().any(|generation| generation.live() > 0)
            && matches!(view.segments(), [one] if is_sound(one))
        {
            return;
        }
    }
}

/// Writes until there are some rows in the growing generation, and enough points.
fn grow(family: &mut Family<'_>) {
    loop {
        family.command();
        family.work_off();
        let view = family.members[0].shard().view();
        let is_growing = |number: u32| !view.frozen().any(|frozen| frozen == number);
        let growing = view.generations().iter().filter(|generation| is_growing(generation.number()));
        let rows: usize = growing.map(|generation| generation.live()).sum();
        if rows > 4 && family.whole.points.len() > 30 {
            return;
        }
    }
}

fn cut_split(family: &mut Family<'_>, step: Step, survivors: u64, goes_on: bool) {
    let at = family.somewhere(0).expect("there are points");
    let right = family.split(0, at);
    family.cut_split(0, step);
    if goes_on {
        // Its folder has its name, so it may be in use, whatever this shard still knows.
        family.open(right);
        for _ in 0..20 {
            family.command_to(right);
        }
        family.members[right].shard().freeze().expect("it freezes");
        family.jobs(right, 10);
    }
    family.crash(0, survivors);
    family.work_off();
}

/// Not every shard has something for every step: where it has not, the crash comes after the job. Says whether it had.
fn cut_trim(family: &mut Family<'_>, step: Step, survivors: u64, number: usize) -> bool {
    settle(family);
    // So little goes from the one half that its segment goes on with tombstones, and so much from the other that it is rewritten.
    let at = family.below(0, 9);
    family.split(0, at);
    family.work_off();
    family.members[number].shard().flush().expect("it flushes");
    let mut cut = false;
    while !cut && let Some(job) = family.members[number].shard().next_job() {
        drop(job);
        cut = family.cut_job(number, step);
    }
    family.crash(number, survivors);
    cut
}

fn check_after(family: &mut Family<'_>) {
    family.work_off();
    family.check_everything();
    for _ in 0..5 {
        family.command();
        family.work_off();
    }
    finish(family);
    for number in 0..family.members.len() {
        family.crash(number, 0);
    }
    family.check_everything();
    finish(family);
}
