//! Shards that are split and merged again, in the middle of everything.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sagitta_env::{Env, ManualClock};
use sagitta_model::{Change, HashRange, PayloadSelection, Point, PointId, Record, Schema, Selection, VectorSelection};

use super::check::Check;
use super::dice::Dice;
use super::disturbance::term_of;
use super::family::part_of;
use super::naive::{Expected, Naive};
use super::{Rig, numbered, schema, small_options, unhurried};
use crate::codec::Record as _;
use crate::{
    Beginning, Command, Entry, Frozen, Import, MergeEntry, ReadView, Severity, Shard, ShardError, ShardOptions, Split,
    WriteOutcome, inspect,
};

/// How far above the logs of two shards that of the one begins that they are merged into.
const MARGIN: u64 = 1 << 32;

/// What a run did: a run that did too little proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Merges that came to an end.
    pub merges: u64,
    /// Merges that were given up after their shards were frozen.
    pub thawed: u64,
    /// Entries that filled a shard.
    pub imports: u64,
    /// Imports that came too late and were refused.
    pub late: u64,
    /// Passes over all points of a shard.
    pub passes: u64,
    /// Rounds over what was touched.
    pub rounds: u64,
    /// Commands to frozen shards and shards that are filled, which refused them.
    pub closed: u64,
    /// Requests that came again after a merge, wholly done before it.
    pub repeated: u64,
    /// Requests that came again after a merge, of which one of the shards had done its part.
    pub in_part: u64,
    /// Crashes.
    pub crashes: u64,
    /// Most points at a time.
    pub most_points: usize,
}

/// Takes a shard in the empty folder `dir`, and what it is split into and merged from, through `steps` random steps.
///
/// # Panics
/// When they answer other than a map would.
pub fn run(rig: &dyn Rig, dir: &Path, seed: u64, steps: usize) -> Report {
    println!("merge test: seed {seed}, {steps} steps");
    let mut history = History::new(rig, dir, seed);
    for step in 0..steps {
        history.at = format!("seed {seed}, step {step}");
        history.step();
    }
    history.check_everything();
    history.report
}

struct History<'a> {
    rig: &'a dyn Rig,
    dir: PathBuf,
    schema: Schema,
    env: Env,
    clock: ManualClock,
    dice: Dice,
    options: ShardOptions,
    at: String,
    report: Report,
    /// One shard of all hashes, or two that may become one again.
    routed: Vec<Member>,
    /// The shard that is filled, and whoever fills it.
    merge: Option<(Member, Pump)>,
    next_number: u64,
    next_merge: u64,
    /// Whole commands since the last split, whomever of the shards they reached.
    sent: Vec<Command>,
}

/// One shard.
struct Member {
    number: u64,
    beginning: Option<Beginning>,
    naive: Naive,
    range: HashRange,
    /// As of the beginning of its log.
    origin: (u64, HashRange, Naive),
    log: Vec<Logged>,
    next_index: u64,
    shard: Option<Arc<Shard>>,
}

#[derive(Clone)]
struct Logged {
    index: u64,
    data: Vec<u8>,
    effect: Effect,
    expected: Expected,
}

/// What an entry does to the map.
#[derive(Clone)]
enum Effect {
    Nothing,
    Command(Command),
    Import(Import),
    Narrow(HashRange),
}

/// Whoever fills a shard, as far as it knows.
#[derive(Clone, Default)]
struct Pump {
    merge: u64,
    step: u64,
    sources: [Source; 2],
    /// An import that is still on its way to the log.
    late: Option<Import>,
}

#[derive(Clone, Copy, Default)]
struct Source {
    /// Everything up to this id was compared, in the pass that is under way.
    cursor: Option<PointId>,
    is_under_way: bool,
    passed: bool,
    touched: u64,
    requests: u64,
    imported: u128,
    /// Everything was brought over as of the entry that froze it.
    settled: Option<Frozen>,
}

impl Member {
    fn new(number: u64, range: HashRange, naive: Naive, index: u64, beginning: Option<Beginning>) -> Self {
        let origin = (index, range, naive.clone());
        Self { number, beginning, naive, range, origin, log: Vec::new(), next_index: index, shard: None }
    }

    fn shard(&self) -> &Arc<Shard> {
        self.shard.as_ref().expect("the shard is open")
    }

    fn view(&self) -> Arc<ReadView> {
        self.shard().view()
    }

    /// Does an entry to the map and to the shard.
    fn apply(&mut self, at: &str, data: Vec<u8>, effect: Effect, expected: Option<Expected>) -> WriteOutcome {
        self.next_index += 1;
        let index = self.next_index;
        let expected = match &effect {
            Effect::Command(command) => self.naive.apply(index, command),
            Effect::Import(import) => {
                self.naive.import(import);
                Expected::nothing(index, false)
            }
            Effect::Narrow(range) => {
                (self.range, self.naive) = (*range, self.naive.within(*range));
                Expected::nothing(index, false)
            }
            Effect::Nothing => expected.unwrap_or_else(|| Expected::nothing(index, false)),
        };
        self.log.push(Logged { index, data, effect, expected });
        self.bring_on(at).pop().expect("one outcome")
    }

    /// Applies what is in the log and not in the shard.
    fn bring_on(&mut self, at: &str) -> Vec<WriteOutcome> {
        let applied = self.shard().applied_index();
        let mut all = Vec::new();
        let rest: Vec<_> = self.log.iter().filter(|entry| entry.index > applied).cloned().collect();
        for entries in rest.chunks(7) {
            let entry = |logged: &Logged| (logged.index, logged.data.clone());
            let owned: Vec<_> = entries.iter().map(entry).collect();
            let borrowed: Vec<_> = owned
                .iter()
                .map(|(index, data)| Entry { index: *index, term: term_of(*index), data, members: None })
                .collect();
            let outcomes = self.shard().apply(&borrowed).expect("entries apply");
            for (entry, outcome) in entries.iter().zip(&outcomes) {
                let found = Expected::of(outcome);
                assert_eq!(
                    found, entry.expected,
                    "{at}: shard {}, log entry {}: {outcome:?}",
                    self.number, entry.index
                );
            }
            all.extend(outcomes);
        }
        all
    }

    /// Range and map as of an entry.
    fn as_of(&self, applied: u64) -> (HashRange, Naive) {
        let (_, mut range, mut naive) = self.origin.clone();
        for entry in self.log.iter().filter(|entry| entry.index <= applied) {
            match &entry.effect {
                Effect::Nothing => {}
                Effect::Command(command) => drop(naive.apply(entry.index, command)),
                Effect::Import(import) => naive.import(import),
                Effect::Narrow(to) => (range, naive) = (*to, naive.within(*to)),
            }
        }
        (range, naive)
    }
}

impl<'a> History<'a> {
    fn new(rig: &'a dyn Rig, dir: &Path, seed: u64) -> Self {
        let (env, clock) = Env::seeded(seed);
        let schema = schema(seed, rig.policies());
        let first = Member::new(1, HashRange::FULL, Naive::new(&schema), 0, None);
        let mut history = Self {
            rig,
            dir: dir.to_path_buf(),
            schema,
            env,
            clock,
            dice: Dice::new(seed),
            options: ShardOptions { siblings: Some(dir.to_path_buf()), ..small_options() },
            at: format!("seed {seed}"),
            report: Report::default(),
            routed: Vec::new(),
            merge: None,
            next_number: 2,
            next_merge: 1,
            sent: Vec::new(),
        };
        let first = history.opened(first, false);
        history.routed.push(first);
        history
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..=29 => self.command(),
            30..=36 => self.repeat(),
            37..=46 => self.jobs(),
            47..=49 => self.any().shard().freeze().expect("the shard freezes"),
            50..=52 => drop(self.any().shard().flush().expect("the shard flushes")),
            53..=54 => self.clock.advance(Duration::from_secs(self.dice.below(40))),
            55..=57 => self.crash(),
            58..=60 => self.check_everything(),
            61..=62 if self.routed.len() == 1 => self.split(),
            63..=66 if self.routed.len() == 2 && self.merge.is_none() => self.begin(),
            67..=91 if self.merge.is_some() => (0..1 + self.dice.below(4)).for_each(|_| self.pump()),
            92..=93 if self.merge.is_some() => self.freeze(),
            94 if self.merge.is_some() && self.dice.one_in(8) => self.thaw(),
            95..=98 if self.merge.is_some() => self.complete(),
            _ => {}
        }
        let points = self.routed.iter().map(|member| member.naive.points.len()).sum();
        self.report.most_points = self.report.most_points.max(points);
    }

    /// A shard of those that there are.
    fn any(&self) -> &Member {
        let into = self.merge.as_ref().map(|(into, _)| into);
        let all: Vec<_> = self.routed.iter().chain(into).collect();
        all[self.dice.below(all.len() as u64) as usize]
    }

    /// A random command, for both shards or one alone.
    fn command(&mut self) {
        let command = self.dice.command(&self.schema);
        // A batch that is wrong is refused by each shard for its part, where the map would refuse all of it.
        let sound = |point: &Point| point.validate(&self.schema).is_ok();
        if matches!(&*command.change, Change::Upsert(points) if !points.iter().all(sound)) {
            return;
        }
        self.sent.push(command.clone());
        for number in 0..self.routed.len() {
            if self.routed.len() == 1 || !self.dice.one_in(4) {
                self.send(number, &command);
            }
        }
        if self.dice.one_in(10)
            && let Some((into, _)) = &mut self.merge
        {
            let refused = Expected::nothing(into.next_index + 1, true);
            let outcome = into.apply(&self.at, command.to_sealed(), Effect::Nothing, Some(refused));
            assert!(outcome.is_misrouted(), "{}: {outcome:?}", self.at);
            self.report.closed += 1;
        }
    }

    /// A command once more.
    fn repeat(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let command = self.dice.pick(&self.sent).clone();
        for number in 0..self.routed.len() {
            if self.routed.len() == 1 || self.dice.one_in(2) {
                self.send(number, &command);
            }
        }
    }

    /// A shard's part of a command to it.
    fn send(&mut self, number: usize, command: &Command) {
        let member = &mut self.routed[number];
        let Some(part) = part_of(command, member.range) else { return };
        let is_closed = member.view().is_open().is_err() && !member.naive.knows(&part);
        let (effect, expected) = match is_closed {
            true => (Effect::Nothing, Some(Expected::nothing(member.next_index + 1, true))),
            false => (Effect::Command(part.clone()), None),
        };
        let parts = member.naive.parts(&part);
        let known = member.naive.knows(&part);
        let outcome = member.apply(&self.at, part.to_sealed(), effect, expected);
        assert_eq!(outcome.is_misrouted(), is_closed, "{}: {outcome:?}", self.at);
        self.report.closed += u64::from(is_closed);
        if !known && !is_closed && parts > 0 {
            let count = if outcome.deduplicated { &mut self.report.repeated } else { &mut self.report.in_part };
            *count += 1;
        }
    }

    fn jobs(&mut self) {
        let shard = Arc::clone(self.any().shard());
        for _ in 0..1 + self.dice.below(5) {
            let Some(job) = shard.next_job() else { return };
            let kind = job.kind().clone();
            job.run(&unhurried()).unwrap_or_else(|error| panic!("{}: {kind:?}: {error}", self.at));
        }
    }

    fn folder(&self, number: u64) -> PathBuf {
        self.dir.join(number.to_string())
    }

    /// Opens a shard, compares it with the map as of where it is, and applies the rest of its log.
    fn opened(&self, mut member: Member, again: bool) -> Member {
        let (dir, at) = (self.folder(member.number), &self.at);
        if again {
            let found = inspect(&dir, &self.rig.engines(), &self.env, &self.options.kv, true);
            let wrong = found.findings.iter().find(|finding| finding.severity > Severity::Leftover);
            assert_eq!(wrong, None, "{at}: of shard {}, which is sound", member.number);
        }
        let (spec, engines) = (numbered(member.number, &self.schema), self.rig.engines());
        let (env, options) = (self.env.clone(), self.options.clone());
        let shard = match member.beginning {
            Some(beginning) => Shard::open_filling(&dir, spec, beginning, engines, env, options),
            None => Shard::open(&dir, spec, engines, env, options),
        };
        let shard = shard.unwrap_or_else(|error| panic!("{at}: shard {} does not open: {error}", member.number));
        let (range, naive) = member.as_of(shard.applied_index());
        assert_eq!(shard.range(), range, "{at}: shard {}", member.number);
        self.check(&shard.view(), &naive).everything();
        member.shard = Some(shard);
        member.bring_on(at);
        member
    }

    fn crash(&mut self) {
        let survivors = *self.dice.pick(&[0, 0, 1, 2, 5, u64::MAX]);
        let at = self.dice.below(self.routed.len() as u64 + u64::from(self.merge.is_some())) as usize;
        let (mut member, pump) = match at < self.routed.len() {
            true => (self.routed.remove(at), None),
            false => self.merge.take().map(|(member, pump)| (member, Some(pump))).expect("a shard that is filled"),
        };
        self.rig.crash(member.shard.take().expect("it is open"), &self.folder(member.number), survivors);
        let member = self.opened(member, true);
        match pump {
            Some(pump) => self.merge = Some((member, pump)),
            None => self.routed.insert(at, member),
        }
        self.report.crashes += 1;
    }

    fn split(&mut self) {
        let left = &mut self.routed[0];
        let hashes: Vec<u64> = left.naive.points.keys().map(|id| sagitta_model::shard_hash(*id)).collect();
        let Some(at) = hashes.get(hashes.len() / 2).copied() else { return };
        let Some((lower, upper)) = left.range.split(at) else { return };
        let (naive, right) = (left.naive.within(upper), self.next_number);
        let data = Split { request_id: self.dice.request_id(), at, right }.to_sealed();
        left.apply(&self.at, data, Effect::Narrow(lower), None);
        let member = Member::new(right, upper, naive, left.next_index, None);
        let member = self.opened(member, false);
        self.routed.push(member);
        self.next_number += 1;
        // Of what either half remembers as a whole there is no telling which part was whose.
        self.sent.clear();
    }

    fn begin(&mut self) {
        let merge = self.next_merge;
        let applied = self.routed.iter().map(|member| member.shard().applied_index()).max().expect("there are two");
        let range = HashRange { first: self.routed[0].range.first, last: self.routed[1].range.last };
        let beginning = Beginning { merge, range, index: applied + MARGIN, term: term_of(applied + MARGIN) };
        let naive = Naive::of_range(&self.schema, range);
        let into = Member::new(self.next_number, range, naive, beginning.index, Some(beginning));
        let into = self.opened(into, false);
        assert!(matches!(into.view().is_open(), Err(ShardError::Merging { .. })), "{}", self.at);
        (self.next_number, self.next_merge) = (self.next_number + 1, merge + 1);
        self.merge = Some((into, Pump { merge, ..Pump::default() }));
    }

    fn pump(&mut self) {
        let (mut into, mut pump) = self.merge.take().expect("a merge is under way");
        if self.dice.one_in(60) {
            // Somebody else goes on, and knows nothing of what was done.
            let step = into.view().filling().expect("it is filled").step;
            pump = Pump { merge: pump.merge, step, late: pump.late, ..Pump::default() };
        }
        match pump.late.take() {
            Some(late) if self.dice.one_in(3) && late.step < pump.step => {
                let expected = Expected::nothing(into.next_index + 1, true);
                into.apply(&self.at, MergeEntry::Import(late).to_sealed(), Effect::Nothing, Some(expected));
                self.report.late += 1;
            }
            late => {
                pump.late = late;
                let which = self.dice.below(2) as usize;
                if let Some(import) = self.fetch(&into, &mut pump, which) {
                    pump.late = pump.late.or_else(|| self.dice.one_in(5).then(|| import.clone()));
                    let data = MergeEntry::Import(import.clone()).to_sealed();
                    into.apply(&self.at, data, Effect::Import(import), None);
                    pump.step += 1;
                    self.report.imports += 1;
                }
            }
        }
        self.merge = Some((into, pump));
    }

    /// What comes next of a shard that is merged.
    fn fetch(&mut self, into: &Member, pump: &mut Pump, which: usize) -> Option<Import> {
        const PAGE: usize = 20;
        let from = self.routed[which].shard();
        let source = &mut pump.sources[which];
        let mut import = Import { merge: pump.merge, step: pump.step, ..Import::default() };
        let fill = |import: &mut Import, view: &ReadView, ids: &[PointId]| {
            let records = view.get(ids, &everything()).expect("points are read");
            let is_there = |id: &&PointId| records.iter().any(|record| record.id == **id);
            import.deleted.extend(ids.iter().filter(|id| !is_there(id)));
            for Record { id, version, payload, vectors } in records {
                let payload = payload.expect("it was selected");
                import.points.push(Point { id, vectors, payload });
                import.versions.push(version);
            }
        };
        if !source.passed {
            let since = from.watch().expect("it is watched");
            let view = from.view();
            if !source.is_under_way {
                (source.is_under_way, source.cursor, source.touched) = (true, None, view.applied_index().max(since));
            }
            let page = view.versions(source.cursor, PAGE).expect("versions are read");
            source.passed = page.len() < PAGE;
            let compared = into.view().compare(view.range(), source.cursor, &page, source.passed).expect("compared");
            fill(&mut import, &view, &compared.other);
            import.deleted.extend(compared.gone);
            source.cursor = page.last().map(|(id, _)| *id);
            self.report.passes += u64::from(source.passed);
        } else {
            let frozen = from.view().frozen_by();
            let Some(touched) = from.touched(source.touched).expect("it is known") else {
                *source = Source { requests: source.requests, imported: source.imported, ..Source::default() };
                return None;
            };
            let view = from.view();
            assert!(view.applied_index() >= touched.until, "{}", self.at);
            fill(&mut import, &view, &touched.ids);
            source.touched = touched.until;
            let (parts, next) = view.imported_from(source.imported, PAGE).expect("requests are read");
            source.imported = next.unwrap_or(u128::MAX);
            import.requests = parts;
            let requests = view.requests_after(source.requests, PAGE).expect("requests are read");
            let is_last = requests.len() < PAGE && next.is_none();
            source.requests = requests.last().map_or(source.requests, |(index, _)| *index);
            import.requests.extend(requests.into_iter().map(|(_, request)| request));
            source.settled = frozen.filter(|_| is_last);
            self.report.rounds += 1;
        }
        let is_empty = import.points.is_empty() && import.deleted.is_empty() && import.requests.is_empty();
        (!is_empty).then_some(import)
    }

    fn freeze(&mut self) {
        let merge = self.merge.as_ref().map(|(_, pump)| pump.merge).expect("a merge is under way");
        let which = self.dice.below(2) as usize;
        let member = &mut self.routed[which];
        let before = member.view().frozen_by();
        let again = Expected::of(&WriteOutcome {
            index: member.next_index + 1,
            deduplicated: before.is_some(),
            ..WriteOutcome::default()
        });
        member.apply(&self.at, MergeEntry::Freeze { merge }.to_sealed(), Effect::Nothing, Some(again));
        let frozen = member.view().frozen_by().expect("it is frozen");
        assert_eq!(frozen, before.unwrap_or(Frozen { merge, index: member.next_index }), "{}", self.at);
    }

    /// Gives a merge up: what was filled goes, and the shards work on.
    fn thaw(&mut self) {
        let (into, Pump { merge, .. }) = self.merge.take().expect("a merge is under way");
        drop(Arc::into_inner(into.shard.expect("it is open")).expect("nobody else has it"));
        fs::remove_dir_all(self.dir.join(into.number.to_string())).expect("its folder goes");
        for member in &mut self.routed {
            self.report.thawed += u64::from(member.view().frozen_by().is_some());
            member.apply(&self.at, MergeEntry::Thaw { merge }.to_sealed(), Effect::Nothing, None);
            assert_eq!((member.view().frozen_by(), member.view().thawed()), (None, merge), "{}", self.at);
            member.shard().unwatch();
            if self.dice.one_in(2) {
                // It was on its way for long.
                let refused = Expected::nothing(member.next_index + 1, true);
                member.apply(&self.at, MergeEntry::Freeze { merge }.to_sealed(), Effect::Nothing, Some(refused));
                assert_eq!(member.view().is_open().map_err(|error| error.to_string()), Ok(()), "{}", self.at);
            }
        }
    }

    /// Ends the merge, if everything was brought over.
    fn complete(&mut self) {
        let (mut into, pump) = self.merge.take().expect("a merge is under way");
        let [Some(left), Some(right)] = pump.sources.map(|source| source.settled) else {
            self.merge = Some((into, pump));
            return;
        };
        let (merge, step, above) = (pump.merge, pump.step, left.index.max(right.index));
        assert!(into.naive.remembers([&self.routed[0].naive, &self.routed[1].naive]), "{}: requests", self.at);
        let all: BTreeMap<_, _> = self.routed.iter().flat_map(|member| member.naive.points.clone()).collect();
        assert_eq!(into.naive.points, all, "{}: what was brought over", self.at);
        let complete = |step, above| MergeEntry::Complete { merge, step, above }.to_sealed();
        if self.dice.one_in(3) {
            let refused = Expected::nothing(into.next_index + 1, true);
            into.apply(&self.at, complete(step + 1, above), Effect::Nothing, Some(refused));
            let (refused, high) = (Expected::nothing(into.next_index + 1, true), into.next_index + 1);
            into.apply(&self.at, complete(step, high), Effect::Nothing, Some(refused));
        }
        into.apply(&self.at, complete(step, above), Effect::Nothing, None);
        assert_eq!((into.view().filling(), into.view().filled_by()), (None, Some(merge)), "{}", self.at);
        self.routed = vec![into];
        self.report.merges += 1;
        self.check_everything();
    }

    fn check<'b>(&'b self, view: &'b ReadView, naive: &'b Naive) -> Check<'b> {
        Check { view, naive, dice: &self.dice, is_exact: self.rig.is_exact(), at: &self.at }
    }

    fn check_everything(&self) {
        for member in self.routed.iter().chain(self.merge.as_ref().map(|(into, _)| into)) {
            let view = member.view();
            assert_eq!(view.range(), member.range, "{}", self.at);
            self.check(&view, &member.naive).everything();
        }
    }
}

fn everything() -> Selection {
    Selection { payload: PayloadSelection::All, vectors: VectorSelection::All }
}
