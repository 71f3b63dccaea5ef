//! A store that several clients use at once, right or with one of many faults: what is recorded of it is accepted or
//! not, whatever the seed.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sagitta_history::{
    BUDGET_STEPS, Call, Fault, Freshness, History, PointInput, PointOutput, Points, Recorder, Verdict, check, unsettled,
};

use crate::seeds;

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// A strong read sees the state before the last.
    StaleRead,
    /// A write is acknowledged and nothing else.
    LostUpdate,
    /// A write is acknowledged before it takes effect.
    EarlyAcknowledgement,
    /// A write that was answered takes effect again.
    AppliedTwice,
    /// What a delete removed comes back.
    Resurrection,
    /// A write lands at the neighbour.
    OtherPoint,
    /// A read does not look at its session's token.
    IgnoredToken,
    /// A write is refused and takes effect.
    AppliedFailure,
    /// A read returns what nobody wrote.
    InventedValue,
    /// Some clients go on reading from a leader that has been deposed.
    DeposedLeader,
    /// A read sees a write that is then refused.
    DirtyRead,
}

const BUGS: [Bug; 11] = [
    Bug::StaleRead,
    Bug::LostUpdate,
    Bug::EarlyAcknowledgement,
    Bug::AppliedTwice,
    Bug::Resurrection,
    Bug::OtherPoint,
    Bug::IgnoredToken,
    Bug::AppliedFailure,
    Bug::InventedValue,
    Bug::DeposedLeader,
    Bug::DirtyRead,
];

/// How often a bug shows when it could.
const BUG_RATE: f64 = 0.1;

struct Shape {
    clients: u64,
    points: u64,
    operations: usize,
    /// Of operations whose answer is lost.
    lost: f64,
}

const SMALL: Shape = Shape { clients: 6, points: 5, operations: 500, lost: 0.05 };

struct Store {
    rng: StdRng,
    bug: Bug,
    shape: Shape,
    recorder: Recorder<PointInput, PointOutput>,
    /// The states of each point from the beginning.
    points: Vec<Vec<Option<u64>>>,
    clients: Vec<Client>,
    /// Writes that may still take effect.
    late: Vec<PointInput>,
    last_value: u64,
}

#[derive(Default)]
struct Client {
    flight: Option<Flight>,
    /// Its last acknowledged write of each point: where it is in the history, and in the states of the point.
    tokens: BTreeMap<u64, (usize, usize)>,
}

struct Flight {
    call: Call<PointInput, PointOutput>,
    input: PointInput,
    /// Positions in the states of its point that a read may see; the newest only, when strong.
    oldest: Option<usize>,
    /// Its answer, and the state it made.
    answer: Option<(PointOutput, usize)>,
}

impl Store {
    fn new(seed: u64, bug: Bug, shape: Shape) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            bug,
            recorder: Recorder::new(),
            points: vec![vec![None]; shape.points as usize],
            clients: (0..shape.clients).map(|_| Client::default()).collect(),
            late: Vec::new(),
            last_value: 0,
            shape,
        }
    }

    /// What was recorded, and the points in the end.
    fn run(mut self) -> (History<PointInput, PointOutput>, BTreeMap<u64, u64>) {
        while self.recorder.history().operations.len() < self.shape.operations {
            for _ in 0..self.shape.operations / 5 {
                self.step();
            }
        }
        let found = (0..).zip(&self.points).filter_map(|(id, states)| Some((id, (*states.last()?)?))).collect();
        (self.recorder.history(), found)
    }

    fn step(&mut self) {
        if self.rng.random_bool(0.05) && !self.late.is_empty() {
            let late = self.rng.random_range(0..self.late.len());
            let late = self.late.swap_remove(late);
            self.apply(&late);
        }
        let client = self.rng.random_range(0..self.shape.clients);
        match self.clients[client as usize].flight.take() {
            None => self.begin(client),
            Some(flight) if self.rng.random_bool(self.shape.lost) => self.lose(flight),
            Some(flight) if flight.answer.is_none() => self.work(client, flight),
            Some(flight) => self.end(client, flight),
        }
    }

    fn begin(&mut self, client: u64) {
        let id = self.rng.random_range(0..self.shape.points);
        let (mut freshness, mut oldest) = (Freshness::Strong, None);
        let input = match self.rng.random_range(0..10) {
            0..3 => {
                self.last_value += 1;
                PointInput::Upsert { id, value: self.last_value }
            }
            3 => PointInput::Delete { id },
            4..7 => PointInput::Get { id },
            7 => {
                (freshness, oldest) = (Freshness::Eventual, Some(0));
                PointInput::Get { id }
            }
            _ => {
                if let Some(&(write, at)) = self.clients[client as usize].tokens.get(&id) {
                    let ignored = self.bug == Bug::IgnoredToken;
                    (freshness, oldest) = (Freshness::Session(write), Some(if ignored { 0 } else { at }));
                }
                PointInput::Get { id }
            }
        };
        let call = self.recorder.call_with(client, input.clone(), freshness);
        self.clients[client as usize].flight = Some(Flight { call, input, oldest, answer: None });
    }

    /// Nobody hears of it any more. What had no effect yet may have it later.
    fn lose(&mut self, flight: Flight) {
        if flight.answer.is_none() && self.rng.random_bool(0.7) {
            self.late.push(flight.input);
        }
        flight.call.unknown();
    }

    fn work(&mut self, client: u64, mut flight: Flight) {
        let hit = self.rng.random_bool(BUG_RATE);
        let output = match &flight.input {
            PointInput::Get { id } => PointOutput::Found(self.read(client, *id, flight.oldest, hit)),
            write => {
                match self.bug {
                    Bug::LostUpdate if hit => {}
                    Bug::EarlyAcknowledgement if hit => self.late.push(write.clone()),
                    Bug::OtherPoint if hit => self.apply(&self.neighbour(write)),
                    Bug::DirtyRead if hit => {
                        return self.refuse_after_a_read(client, flight);
                    }
                    _ => self.apply(write),
                }
                if hit && self.bug == Bug::AppliedTwice {
                    self.late.push(write.clone());
                }
                PointOutput::Done
            }
        };
        flight.answer = Some((output, self.points[flight.input.id() as usize].len() - 1));
        self.clients[client as usize].flight = Some(flight);
    }

    fn end(&mut self, client: u64, flight: Flight) {
        let (output, at) = flight.answer.expect("it was answered");
        let write = output == PointOutput::Done;
        if write && self.bug == Bug::AppliedFailure && self.rng.random_bool(BUG_RATE) {
            return flight.call.failed();
        }
        let position = flight.call.ok(output);
        if write {
            self.clients[client as usize].tokens.insert(flight.input.id(), (position, at));
        }
    }

    fn read(&mut self, client: u64, id: u64, oldest: Option<usize>, hit: bool) -> Option<u64> {
        let states = &self.points[id as usize];
        let newest = states.len() - 1;
        match (self.bug, oldest) {
            (Bug::InventedValue, _) if hit => Some(1_000_000),
            (Bug::StaleRead, None) if hit => states[newest.saturating_sub(1)],
            (Bug::DeposedLeader, None) if client == 0 => states[newest / 2],
            (_, None) => states[newest],
            (_, Some(oldest)) => states[self.rng.random_range(oldest..=newest)],
        }
    }

    fn apply(&mut self, write: &PointInput) {
        let states = &mut self.points[write.id() as usize];
        let before = states[states.len() - 1];
        match write {
            PointInput::Upsert { value, .. } => states.push(Some(*value)),
            PointInput::Delete { id } => {
                states.push(None);
                if let (Bug::Resurrection, Some(value)) = (self.bug, before) {
                    self.late.push(PointInput::Upsert { id: *id, value });
                }
            }
            PointInput::Get { .. } => {}
        }
    }

    fn neighbour(&self, write: &PointInput) -> PointInput {
        let next = |id: &u64| (id + 1) % self.shape.points;
        match write {
            PointInput::Upsert { id, value } => PointInput::Upsert { id: next(id), value: *value },
            PointInput::Delete { id } => PointInput::Delete { id: next(id) },
            PointInput::Get { id } => PointInput::Get { id: *id },
        }
    }

    /// Another client sees the write, then it is taken back.
    fn refuse_after_a_read(&mut self, client: u64, flight: Flight) {
        self.apply(&flight.input);
        let id = flight.input.id();
        let seen = self.points[id as usize].pop().expect("it was applied");
        let reader = client + self.shape.clients;
        self.recorder.call(reader, PointInput::Get { id }).ok(PointOutput::Found(seen));
        flight.call.failed();
    }
}

#[test]
fn what_a_right_store_does_is_accepted() {
    for seed in seeds("right store", 200) {
        let (history, found) = Store::new(seed, Bug::None, SMALL).run();
        match check(&Points, &history, BUDGET_STEPS) {
            Verdict::Linearizable { .. } => {}
            Verdict::Violation(violation) => panic!("seed {seed}: {}", violation.explain(&history)),
            undecided @ Verdict::Undecided { .. } => panic!("seed {seed}: {undecided:?}"),
        }
        assert_eq!(unsettled(&history, &found), [], "seed {seed}");
    }
}

#[test]
fn any_bug_of_a_store_is_noticed() {
    for bug in BUGS {
        let seeds = seeds(&format!("{bug:?}"), 20);
        let count = seeds.end - seeds.start;
        let caught = seeds.filter(|&seed| {
            let (history, _) = Store::new(seed, bug, SMALL).run();
            match check(&Points, &history, BUDGET_STEPS) {
                Verdict::Linearizable { .. } => false,
                Verdict::Violation(_) => true,
                undecided @ Verdict::Undecided { .. } => panic!("seed {seed}: {undecided:?}"),
            }
        });
        let caught = caught.count() as u64;
        println!("{bug:?}: caught with {caught} of {count} seeds");
        // What happens twice at once, or is overwritten before anybody looks, leaves no trace: not every seed shows it.
        assert!(caught * 4 >= count * 3, "{bug:?}: only {caught} of {count}");
    }
}

#[test]
fn an_end_that_contradicts_what_was_acknowledged_is_noticed() {
    let expected = [
        (Bug::LostUpdate, Fault::Stale),
        (Bug::LostUpdate, Fault::Resurrected),
        (Bug::LostUpdate, Fault::Lost),
        (Bug::AppliedTwice, Fault::Stale),
        (Bug::AppliedTwice, Fault::Lost),
        (Bug::Resurrection, Fault::Resurrected),
        (Bug::OtherPoint, Fault::NeverWritten),
        (Bug::AppliedFailure, Fault::NeverWritten),
    ];
    for (bug, fault) in expected {
        let found = seeds("ends", 60).filter(|&seed| {
            let (history, found) = Store::new(seed, bug, SMALL).run();
            unsettled(&history, &found).iter().any(|point| point.fault == fault)
        });
        let found = found.count();
        println!("{bug:?} ends as {fault:?} with {found} seeds");
        assert!(found > 0, "{bug:?} never ends as {fault:?}");
    }
}

#[test]
fn twenty_thousand_operations_cost_a_few_steps_each() {
    let shapes = [(8, 200, 0.02), (8, 200, 0.3), (8, 20, 0.05), (32, 50, 0.02)];
    for (clients, points, lost) in shapes {
        for seed in seeds("many", 3) {
            let shape = Shape { clients, points, operations: 20_000, lost };
            let (history, _) = Store::new(seed, Bug::None, shape).run();
            match check(&Points, &history, BUDGET_STEPS) {
                Verdict::Linearizable { steps } => {
                    println!("{clients} clients, {points} points, {lost} lost: {steps} steps");
                    assert!(steps < 20 * history.operations.len() as u64, "{steps} steps");
                }
                other => panic!("seed {seed}: {other:?}"),
            }
        }
    }
}
