//! Promise 7: a retry is harmless, however late it comes and in whatever order.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use sagitta_callers::{Dice, name, number, point, seed};
use sagitta_client::{Client, RequestId, Write};
use sagitta_env::Env;
use sagitta_model::{Change, Wait, WriteResult};

use crate::trouble::Trouble;
use crate::workload::at_rest;
use crate::world::{Shape, World, pass};

/// Requests that are sent more than once; `SAGITTA_RETRIES` runs more.
const RETRIED: u64 = 5_000;
/// Requests of one point, one after the other.
const EACH: u64 = 20;
const CLIENTS: u64 = 25;
const CALL: Duration = Duration::from_secs(20);
/// After a call that failed: clients have a budget of retries, and fail at once without it.
const PAUSE_MS: u64 = 20;

#[derive(Clone, Default)]
struct Counts {
    retried: Rc<Cell<u64>>,
    sent: Rc<Cell<u64>>,
    running: Rc<Cell<u64>>,
    wrong: Rc<RefCell<Vec<String>>>,
}

/// Writes one point again and again; what was written before is sent once more in between, late and out of order.
struct Writer {
    id: u64,
    env: Env,
    endpoints: Vec<Client>,
    dice: Dice,
    counts: Counts,
    fresh_ids: bool,
}

impl Writer {
    async fn run(mut self, writes: u64) {
        let mut answers: BTreeMap<u64, WriteResult> = BTreeMap::new();
        for value in 1..=writes {
            // Twice at the same time, by different coordinators.
            let (first, second) = tokio::join!(self.send(value), self.send(value));
            self.expect(value, &first, &second);
            answers.insert(value, first);
            for _ in 0..2 {
                let late = 1 + self.dice.below(value);
                let again = self.send(late).await;
                self.expect(late, &answers[&late].clone(), &again);
            }
            self.counts.retried.set(self.counts.retried.get() + 1);
            let pause = self.dice.below(10);
            pass(&self.env, pause).await;
        }
        self.counts.running.set(self.counts.running.get() - 1);
    }

    fn expect(&self, value: u64, before: &WriteResult, now: &WriteResult) {
        if before != now && !self.fresh_ids {
            let what = format!("point {}, write {value}: {before:?}, then {now:?}", self.id);
            self.counts.wrong.borrow_mut().push(what);
        }
    }

    /// Sends a write until it is answered.
    fn send(&mut self, value: u64) -> impl Future<Output = WriteResult> + use<> {
        let at = self.dice.below(self.endpoints.len() as u64) as usize;
        let (mut endpoint, other) = (self.endpoints[at].clone(), self.endpoints[0].clone());
        let (id, counts, env) = (self.id, self.counts.clone(), self.env.clone());
        let salt = if self.fresh_ids { self.dice.below(1 << 30) } else { 0 };
        let request_id = Some(RequestId(u128::from(salt) << 96 | u128::from(id + 1) << 64 | u128::from(value)));
        async move {
            let write = || Write {
                collection: name("points"),
                change: Change::Upsert(vec![point(id, value)]),
                wait: Wait::Committed,
                request_id,
            };
            loop {
                counts.sent.set(counts.sent.get() + 1);
                match endpoint.write(write()).await {
                    Ok(result) => return result,
                    Err(_) => endpoint = other.clone(),
                }
                pass(&env, PAUSE_MS).await;
            }
        }
    }
}

fn run(world: &mut World, retried: u64, fresh_ids: bool) -> (Counts, Vec<u64>) {
    world.create("points", 2, 3);
    let counts = Counts { running: Rc::new(Cell::new(CLIENTS)), ..Counts::default() };
    let writes = retried.div_ceil(CLIENTS).max(EACH);
    for id in 0..CLIENTS {
        let makers: Vec<_> = world.coordinators().into_iter().map(|at| world.client(at, CALL)).collect();
        let (counts, env, dice) = (counts.clone(), world.client_env(), Dice::new(world.seed * 1_000 + id));
        world.spawn(async move {
            let env = env.borrow().clone().expect("clients have started");
            let endpoints = makers.iter().map(|make| make()).collect();
            Writer { id, env, endpoints, dice, counts, fresh_ids }.run(writes).await;
        });
    }
    let mut trouble = Trouble::among([world.shard_nodes(), world.coordinators()].concat());
    while counts.running.get() > 0 {
        trouble.stir(world);
    }
    trouble.end(world);
    let found = at_rest(world, "points", CLIENTS);
    let undone = (0..CLIENTS).filter(|id| found.get(id) != Some(&writes)).collect();
    println!(
        "seed {}: {} requests sent more than once, {} sendings, {:?}, {:?} of virtual time",
        world.seed,
        counts.retried.get(),
        counts.sent.get(),
        world.faults(),
        world.now()
    );
    (counts, undone)
}

#[test]
fn a_request_that_comes_again_changes_nothing_and_is_answered_as_before() {
    let (seed, retried) = (seed(), number("SAGITTA_RETRIES", RETRIED));
    let mut world = World::found(seed, Shape { coordinators: 3, shards: 3 });
    let (counts, undone) = run(&mut world, retried, false);
    assert_eq!(*counts.wrong.borrow(), Vec::<String>::new());
    assert_eq!(undone, Vec::<u64>::new(), "an old write came once more");
    assert!(counts.retried.get() >= retried, "{} of {retried}", counts.retried.get());
}

#[test]
fn requests_whose_ids_are_forgotten_are_caught() {
    let seed = seed();
    let mut world = World::found(seed, Shape { coordinators: 1, shards: 3 });
    let (_, undone) = run(&mut world, CLIENTS * EACH, true);
    println!("{} of {CLIENTS} points are caught", undone.len());
    assert!(!undone.is_empty());
}
