//! Small random histories against the definition itself: try every order of every choice of unknown operations.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sagitta_history::{
    BUDGET_STEPS, Catalog, CatalogInput, CatalogOutput, Freshness, History, Model, Operation, Outcome, PointInput,
    PointOutput, Points, Verdict, check,
};

use crate::notation::{Counter, CounterInput};
use crate::seeds;

type HistoryOf<M> = History<<M as Model>::Input, <M as Model>::Output>;

/// Random histories of each model and day.
const HISTORIES: u64 = 20_000;

#[test]
fn small_histories_of_points_agree_with_all_permutations() {
    agree(&Points, |rng| match rng.random_range(0..5) {
        0 | 1 => (PointInput::Upsert { id: rng.random_range(0..2), value: rng.random_range(1..4) }, PointOutput::Done),
        2 => (PointInput::Delete { id: rng.random_range(0..2) }, PointOutput::Done),
        _ => {
            let found = Some(rng.random_range(0..4)).filter(|value| *value > 0);
            (PointInput::Get { id: rng.random_range(0..2) }, PointOutput::Found(found))
        }
    });
}

#[test]
fn small_histories_of_the_catalog_agree_with_all_permutations() {
    use {CatalogInput as In, CatalogOutput as Out};
    agree(&Catalog, |rng| {
        let name = ["a", "b"][rng.random_range(0..2)].to_owned();
        let id = rng.random_range(1..3);
        match rng.random_range(0..12) {
            0..4 => (In::Create(name), Out::Created(id)),
            4 => (In::Create(name), Out::Taken),
            5 => (In::Delete(name), Out::Deleted),
            6 => (In::Delete(name), Out::Missing),
            7 => (In::Get(name), Out::Missing),
            8 | 9 => (In::Get(name), Out::Found(id)),
            10 => (In::List, Out::Listed(BTreeMap::new())),
            _ => (In::List, Out::Listed(BTreeMap::from([(name, id)]))),
        }
    });
}

#[test]
fn small_histories_of_a_counter_agree_with_all_permutations() {
    agree(&Counter, |rng| match rng.random_range(0..2) {
        0 => (CounterInput::Add(rng.random_range(0..3)), rng.random_range(0..4)),
        _ => (CounterInput::Read, rng.random_range(0..4)),
    });
}

/// The search and the definition say the same of random histories, and of both kinds there are enough.
fn agree<M: Model>(model: &M, any: impl Fn(&mut StdRng) -> (M::Input, M::Output))
where
    M::Input: Clone,
{
    let (mut right, mut wrong) = (0_u64, 0_u64);
    let seeds = seeds("permutations", HISTORIES);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let history = random::<M>(model, &mut rng, &any);
        let expected = explained(model, &history);
        match check(model, &history, BUDGET_STEPS) {
            Verdict::Linearizable { .. } => assert!(expected, "seed {seed}: accepted: {history:#?}"),
            Verdict::Violation(violation) => {
                let why = violation.explain(&history);
                assert!(!expected, "seed {seed}: {why}\n{history:#?}");
                assert_first(model, &history, violation.unexplained, seed);
            }
            undecided @ Verdict::Undecided { .. } => panic!("seed {seed}: {undecided:?}"),
        }
        *(if expected { &mut right } else { &mut wrong }) += 1;
    }
    println!("{right} right, {wrong} wrong");
    assert!(right * 5 > count && wrong * 5 > count, "one-sided: {right} right, {wrong} wrong");
}

/// What returned before the operation that was named can be explained, and with it it cannot.
fn assert_first<M: Model>(model: &M, history: &HistoryOf<M>, unexplained: usize, seed: u64)
where
    M::Input: Clone,
{
    let key = |at: usize| model.key(&history.operations[at].input);
    let end = history.operations[unexplained].returned();
    let until = |keep: &dyn Fn(Option<u64>) -> bool| {
        let same = (0..history.operations.len()).filter(|&at| key(at) == key(unexplained));
        let part: Vec<(usize, bool)> = same.map(|at| (at, keep(history.operations[at].returned()))).collect();
        explained_part(model, history, &part)
    };
    let (with, without) = (until(&|returned| returned <= end), until(&|returned| returned < end));
    assert!(!with && without, "seed {seed}: {unexplained} is not the first: {with} {without}\n{history:#?}");
}

/// Up to six operations with times that are equal now and then. An object that obeys the model answers most.
fn random<M: Model>(model: &M, rng: &mut StdRng, any: &impl Fn(&mut StdRng) -> (M::Input, M::Output)) -> HistoryOf<M> {
    let lies = if rng.random_bool(0.3) { 0.0 } else { 0.8 };
    let mut states: BTreeMap<M::Key, M::State> = BTreeMap::new();
    let mut operations: Vec<Operation<M::Input, M::Output>> = Vec::new();
    for at in 0..rng.random_range(2..=6_u64) {
        // Its effect is at 4 times its position, the earlier the earlier.
        let (called, returned) = ((at * 4).saturating_sub(rng.random_range(0..9)), at * 4 + rng.random_range(0..9));
        let lie = rng.random_bool(lies);
        let (input, output) = loop {
            let (input, output) = any(rng);
            let key = model.key(&input);
            let state = states.entry(key).or_insert_with_key(|key| model.initial(key));
            if let Some(next) = model.step(state, &input, Some(&output)) {
                *state = next;
                break (input, output);
            }
            if lie {
                break (input, output);
            }
        };
        let write = operations.iter().rposition(|first| first.returned().is_some_and(|end| end <= called));
        let freshness = match (rng.random_range(0..6), write) {
            (0, Some(write)) => Freshness::Session(write),
            (1, _) => Freshness::Eventual,
            _ => Freshness::Strong,
        };
        let outcome = match rng.random_range(0..8) {
            0 => Outcome::Unknown,
            1 if lie => Outcome::Failed,
            _ => Outcome::Ok { returned, output },
        };
        operations.push(Operation { client: at, called, input, freshness, outcome });
    }
    History { operations }
}

/// The definition, for all keys at once: that each key can be looked at for itself is part of what is tested.
fn explained<M: Model>(model: &M, history: &HistoryOf<M>) -> bool {
    let all: Vec<(usize, bool)> = (0..history.operations.len()).map(|at| (at, true)).collect();
    explained_part(model, history, &all)
}

/// The definition for some of the operations. Those that are not kept need not have taken effect yet.
fn explained_part<M: Model>(model: &M, history: &HistoryOf<M>, part: &[(usize, bool)]) -> bool {
    let answered = |&&(at, kept): &&(usize, bool)| kept && history.operations[at].returned().is_some();
    let must: Vec<usize> = part.iter().filter(answered).map(|&(at, _)| at).collect();
    let open = |&&(at, kept): &&(usize, bool)| {
        !matches!(history.operations[at].outcome, Outcome::Failed) && !answered(&&(at, kept))
    };
    let may: Vec<usize> = part.iter().filter(open).map(|&(at, _)| at).collect();
    (0..1_u32 << may.len()).any(|chosen| {
        let extra = may.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1).map(|(_, at)| *at);
        let mut order: Vec<usize> = must.iter().copied().chain(extra).collect();
        any_permutation(&mut order, 0, &mut |order| fits(model, history, order))
    })
}

fn any_permutation(items: &mut [usize], fixed: usize, test: &mut impl FnMut(&[usize]) -> bool) -> bool {
    if fixed == items.len() {
        return test(items);
    }
    (fixed..items.len()).any(|next| {
        items.swap(fixed, next);
        let found = any_permutation(items, fixed + 1, test);
        items.swap(fixed, next);
        found
    })
}

/// Nothing stands behind what was called after its return, no session read before its write, and the model answers so.
fn fits<M: Model>(model: &M, history: &HistoryOf<M>, order: &[usize]) -> bool {
    let earliest = |at: usize| match history.operations[at].freshness {
        Freshness::Strong => history.operations[at].called,
        Freshness::Session(write) => history.operations[write].called,
        Freshness::Eventual => 0,
    };
    for (place, &one) in order.iter().enumerate() {
        for &later in &order[place + 1..] {
            if history.operations[later].returned().is_some_and(|returned| returned < earliest(one)) {
                return false;
            }
        }
        if let Freshness::Session(write) = history.operations[one].freshness {
            let same_key = model.key(&history.operations[one].input) == model.key(&history.operations[write].input);
            if same_key && !order[..place].contains(&write) {
                return false;
            }
        }
    }
    let mut states: BTreeMap<M::Key, M::State> = BTreeMap::new();
    order.iter().all(|&at| {
        let operation = &history.operations[at];
        let output = match &operation.outcome {
            Outcome::Ok { output, .. } => Some(output),
            Outcome::Failed | Outcome::Unknown => None,
        };
        let state = states.entry(model.key(&operation.input)).or_insert_with_key(|key| model.initial(key));
        model.step(state, &operation.input, output).map(|next| *state = next).is_some()
    })
}
