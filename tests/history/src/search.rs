//! Whether the operations of a history can be put in an order that explains it.
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", J. Parallel Distrib. Comput. 17,
//! 1993): of the operations under way, take one that can have been next, and go back where that led nowhere. From Lowe
//! ("Testing for linearizability", Concurrency Computat. Pract. Exper. 29(4), 2017) are the memory of what was tried and
//! to take operations *just in time*: only when one of them returns must it have taken effect, so the search goes from
//! return to return, and what it remembers of the taken ones is only which of those under way are among them.
//!
//! Two things are for clusters, where outcomes get lost. An operation with an unknown outcome stays under way for ever
//! and need not be taken. It is forgotten where nothing that returns later can show it; and an explanation that took fewer
//! of them, all else being equal, makes every other superfluous, which keeps the search from trying all subsets. And reads are taken as soon as they fit: it closes no way.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::rc::Rc;

use crate::{Freshness, History, Model, Outcome};

/// Operations that may be tried as the next one for each key, for tests that know no better: a few seconds, and memory for
/// as many states.
pub const BUDGET_STEPS: u64 = 4_000_000;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<S> {
    /// There is such an order; so many operations were tried as the next one to see that.
    Linearizable {
        /// Of all keys.
        steps: u64,
    },
    /// There is none.
    Violation(Violation<S>),
    /// The budget did not suffice. No proof of anything: a test has to fail.
    Undecided {
        /// Where.
        key: String,
    },
}

/// The first operation that cannot be explained, with what is around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation<S> {
    /// The key.
    pub key: String,
    /// Position of the operation. Everything that returned before it can be explained.
    pub unexplained: usize,
    /// The states that it can have met while it was under way: it fits none of them.
    pub states: Vec<S>,
    /// Positions of the operations of the same key that it overlaps with, itself among them.
    pub window: Vec<usize>,
    /// Positions of those of the same key that were over before, by the time of their return.
    pub before: Vec<usize>,
}

/// Looks for an explanation of each key's operations. A violation is preferred to an undecided key.
///
/// # Panics
/// If a session read names what is not an acknowledged operation: the test is wrong.
pub fn check<M: Model>(model: &M, history: &History<M::Input, M::Output>, budget_steps: u64) -> Verdict<M::State> {
    let mut parts: BTreeMap<M::Key, Vec<usize>> = BTreeMap::new();
    for (position, operation) in history.operations.iter().enumerate() {
        let says_nothing = match operation.outcome {
            Outcome::Ok { .. } => false,
            Outcome::Failed => true,
            Outcome::Unknown => model.is_read(&operation.input),
        };
        if !says_nothing {
            parts.entry(model.key(&operation.input)).or_default().push(position);
        }
    }
    let (mut steps, mut undecided) = (0, None);
    for (key, positions) in parts {
        let mut search = Search::new(model, history, &positions);
        match search.run(model.initial(&key), budget_steps) {
            Some(true) => {}
            Some(false) => return Verdict::Violation(search.violation(format!("{key:?}"))),
            None => undecided = undecided.or(Some(Verdict::Undecided { key: format!("{key:?}") })),
        }
        steps += search.steps;
    }
    undecided.unwrap_or(Verdict::Linearizable { steps })
}

/// An operation as the search sees it.
struct Entry<'a, M: Model> {
    position: usize,
    input: &'a M::Input,
    output: Option<&'a M::Output>,
    /// The earliest time at which it can have taken effect.
    from: u64,
    returned: Option<u64>,
    /// The entry that must have taken effect before.
    after: Option<u32>,
    read: bool,
}

struct Search<'a, M: Model> {
    model: &'a M,
    entries: Vec<Entry<'a, M>>,
    /// Entries that returned, by when they did. The search goes from one to the next.
    returns: Vec<u32>,
    /// For each of the returns: those that are under way then, itself among them.
    under_way: Vec<Vec<u32>>,
    open: BinaryHeap<Config<M::State>>,
    /// What was reached: at which return, in which state, with which writes taken of those under way. For each, with
    /// which of the others: none of these is worse than another in both.
    seen: HashMap<(usize, Rc<M::State>, Vec<u32>), Vec<Others>>,
    steps: u64,
}

/// How far an explanation got. Everything that returned earlier has taken effect.
#[derive(Clone)]
struct Config<S> {
    /// Index of the return that is due.
    due: usize,
    state: Rc<S>,
    /// Of the writes that are under way and return, which have taken effect. Sorted.
    writes: Vec<u32>,
    others: Others,
    /// The one that returns was tried as the next; all else is to be.
    tried_due: bool,
}

/// What has taken effect that makes an explanation better or worse without deciding what can follow. Sorted.
#[derive(Clone, Default)]
struct Others {
    /// Of the reads that are under way: the more, the less is left to do.
    reads: Vec<u32>,
    /// Of the operations with unknown outcomes: the fewer, the more can still be assumed.
    lost: Vec<u32>,
}

impl Others {
    fn is_as_good_as(&self, other: &Self) -> bool {
        is_subset(&self.lost, &other.lost) && is_subset(&other.reads, &self.reads)
    }
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a History<M::Input, M::Output>, positions: &[usize]) -> Self {
        let entries: Vec<Entry<'a, M>> =
            positions.iter().map(|&position| Entry::new(model, history, positions, position)).collect();
        let numbers = (0_u32..).zip(&entries);
        let mut returns: Vec<u32> =
            numbers.clone().filter(|(_, entry)| entry.returned.is_some()).map(|(n, _)| n).collect();
        returns.sort_by_key(|&number| entries[number as usize].returned);
        let mut under_way = vec![Vec::new(); returns.len()];
        for (number, entry) in numbers {
            let first = returns.partition_point(|&other| entries[other as usize].returned < Some(entry.from));
            let ends = |&other: &u32| match entry.output {
                Some(_) => other == number,
                None => entries[other as usize].may_reveal(model, entry),
            };
            let end = returns[first..].iter().rposition(ends).map_or(first, |last| first + last + 1);
            under_way[first..end].iter_mut().for_each(|at| at.push(number));
        }
        Self { model, entries, returns, under_way, open: BinaryHeap::new(), seen: HashMap::new(), steps: 0 }
    }

    /// Whether there is an explanation; `None` if the budget did not suffice to tell.
    fn run(&mut self, initial: M::State, budget_steps: u64) -> Option<bool> {
        let (state, writes, others) = (Rc::new(initial), Vec::new(), Others::default());
        self.reach(Config { due: 0, state, writes, others, tried_due: false });
        while let Some(config) = self.open.pop() {
            if config.due == self.returns.len() {
                return Some(true);
            }
            if self.steps > budget_steps {
                return None;
            }
            let due = self.returns[config.due];
            if config.tried_due {
                for at in 0..self.under_way[config.due].len() {
                    self.take(&config, self.under_way[config.due][at]);
                }
            } else {
                self.take(&config, due);
                self.open.push(Config { tried_due: true, ..config });
            }
        }
        Some(false)
    }

    /// Goes on with this operation as the next, if it can be.
    fn take(&mut self, config: &Config<M::State>, number: u32) {
        self.steps += 1;
        let Some(state) = self.step(config, number) else { return };
        let mut next = Config { state: Rc::new(state), tried_due: false, ..config.clone() };
        let set = next.set_of(self.entry(number));
        set.insert(set.partition_point(|&other| other < number), number);
        self.reach(next);
    }

    /// Moves on over every return that has nothing left to do, and remembers the place unless a better one is known.
    fn reach(&mut self, mut config: Config<M::State>) {
        // Reads that do not fit a state are not asked again before it changes.
        let mut news_since = 0;
        while config.due < self.returns.len() {
            let due = config.due;
            let news = self.under_way[due].iter().filter(|&&number| self.entry(number).from >= news_since);
            let fits = |&number: &u32| {
                self.entry(number).read && self.step(&config, number).is_some_and(|state| state == *config.state)
            };
            let fitting: Vec<u32> = news.copied().filter(fits).collect();
            config.others.reads.extend(fitting);
            config.others.reads.sort_unstable();
            news_since = self.entry(self.returns[due]).returned.unwrap_or(news_since);
            let set = config.set_of(self.entry(self.returns[due]));
            let Ok(at) = set.binary_search(&self.returns[due]) else { break };
            set.remove(at);
            config.due += 1;
        }
        let known = self.seen.entry((config.due, config.state.clone(), config.writes.clone())).or_default();
        if !known.iter().any(|known| known.is_as_good_as(&config.others)) {
            known.retain(|known| !config.others.is_as_good_as(known));
            known.push(config.others.clone());
            self.open.push(config);
        }
    }

    /// The state after the operation, if it can have been the next one.
    fn step(&self, config: &Config<M::State>, number: u32) -> Option<M::State> {
        let entry = &self.entries[number as usize];
        let early = entry
            .after
            .is_some_and(|first| !config.has(self.entry(first), first) && self.under_way[config.due].contains(&first));
        if early || config.has(entry, number) {
            return None;
        }
        self.model.step(&config.state, entry.input, entry.output)
    }

    fn entry(&self, number: u32) -> &Entry<'a, M> {
        &self.entries[number as usize]
    }

    /// What the search that found no explanation got stuck at.
    fn violation(&self, key: String) -> Violation<M::State> {
        let deepest = self.seen.keys().map(|(due, ..)| *due).max().unwrap_or(0);
        let stuck = self.returns[deepest];
        let first = self.returns.partition_point(|&other| self.entry(other).returned < Some(self.entry(stuck).from));
        let untaken = |writes: &[u32], others: &[Others]| {
            let has = |set: &[u32]| set.binary_search(&stuck).is_ok();
            !has(writes) && !others.iter().all(|others| has(&others.reads))
        };
        let reached = self.seen.iter().map(|((due, state, writes), others)| (due, state, untaken(writes, others)));
        let met = reached.filter(|(due, _, untaken)| **due >= first && *untaken);
        // By their text, so that the same history gives the same message.
        let states: BTreeMap<String, &M::State> = met.map(|(_, state, _)| (format!("{state:?}"), &**state)).collect();
        let positions = |numbers: &[u32]| numbers.iter().map(|&number| self.entry(number).position).collect();
        let overlapping: Vec<u32> = (self.under_way[first..=deepest].iter().flatten())
            .filter(|&&number| number == stuck || self.overlaps(number, stuck))
            .copied()
            .collect();
        let mut window: Vec<usize> = positions(&overlapping);
        window.sort_unstable();
        window.dedup();
        Violation {
            key,
            unexplained: self.entry(stuck).position,
            states: states.into_values().cloned().collect(),
            window,
            before: positions(&self.returns[..first]),
        }
    }

    fn overlaps(&self, one: u32, other: u32) -> bool {
        let (one, other) = (self.entry(one), self.entry(other));
        one.returned.is_none_or(|end| end >= other.from) && other.returned.is_none_or(|end| end >= one.from)
    }
}

impl<'a, M: Model> Entry<'a, M> {
    fn new(model: &M, history: &'a History<M::Input, M::Output>, positions: &[usize], position: usize) -> Self {
        let operation = &history.operations[position];
        let output = match &operation.outcome {
            Outcome::Ok { output, .. } => Some(output),
            Outcome::Failed | Outcome::Unknown => None,
        };
        let (mut from, mut after) = (operation.called, None);
        match operation.freshness {
            Freshness::Strong => {}
            Freshness::Eventual => from = 0,
            Freshness::Session(write) => {
                let acknowledged = |at: u64| at <= operation.called;
                let first = history.operations.get(write).filter(|first| first.returned().is_some_and(acknowledged));
                let first =
                    first.unwrap_or_else(|| panic!("{position} reads after {write}, which is not acknowledged"));
                from = first.called;
                after = positions.binary_search(&write).ok().map(|number| number as u32);
            }
        }
        let returned = operation.returned();
        Self { position, input: &operation.input, output, from, returned, after, read: model.is_read(&operation.input) }
    }

    /// Its answer can tell whether that one has taken effect.
    fn may_reveal(&self, model: &M, lost: &Self) -> bool {
        self.output.is_some_and(|output| model.may_reveal(self.input, output, lost.input))
    }
}

impl<S> Config<S> {
    /// The set that such an operation belongs to once it has taken effect.
    fn set_of<M: Model>(&mut self, entry: &Entry<'_, M>) -> &mut Vec<u32> {
        match entry.returned {
            None => &mut self.others.lost,
            Some(_) if entry.read => &mut self.others.reads,
            Some(_) => &mut self.writes,
        }
    }

    fn has<M: Model>(&self, entry: &Entry<'_, M>, number: u32) -> bool {
        let set = match entry.returned {
            None => &self.others.lost,
            Some(_) if entry.read => &self.others.reads,
            Some(_) => &self.writes,
        };
        set.binary_search(&number).is_ok()
    }

    /// The place to go on from: the furthest; there, the one that assumed least; there, what is due first. The rest
    /// makes the order definite, so that the same history takes the same steps.
    fn rank(&self) -> (usize, Reverse<[usize; 2]>, bool, Reverse<[&[u32]; 3]>) {
        let assumed = [self.others.lost.len(), self.writes.len()];
        let rest = [&self.others.lost[..], &self.writes, &self.others.reads];
        (self.due, Reverse(assumed), !self.tried_due, Reverse(rest))
    }
}

impl<S> Ord for Config<S> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl<S> PartialOrd for Config<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<S> PartialEq for Config<S> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<S> Eq for Config<S> {}

fn is_subset(small: &[u32], large: &[u32]) -> bool {
    small.iter().all(|number| large.binary_search(number).is_ok())
}
