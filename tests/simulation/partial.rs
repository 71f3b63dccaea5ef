//! Promise 12: an answer is whole or says what is missing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use sagitta_callers::{DIM, Dice, id_of, name, number, point, search, seed};
use sagitta_client::{Client, Searches};
use sagitta_model::Consistency;

use crate::world::{Shape, World};

const IDS: u64 = 200;
/// Searches while shards are away; `SAGITTA_SEARCHES` runs more.
const SEARCHES: u64 = 1_000;
const CALL: Duration = Duration::from_secs(2);

/// What came of the searches.
#[derive(Clone, Default)]
struct Tally {
    whole: Rc<Cell<u64>>,
    partial: Rc<Cell<u64>>,
    refused: Rc<Cell<u64>>,
    silent: Rc<RefCell<Vec<String>>>,
    stop: Rc<Cell<bool>>,
    running: Rc<Cell<u64>>,
}

impl Tally {
    fn total(&self) -> u64 {
        self.whole.get() + self.partial.get() + self.refused.get()
    }

    /// Searches for all points, now and then allowing that some are missing. With `silence` what is missing is not said.
    async fn search(self, endpoint: Client, mut dice: Dice, silence: bool) {
        while !self.stop.get() {
            let allow_partial = dice.below(2) == 0;
            let consistency = Consistency::Eventual;
            let searches = Searches { allow_partial, consistency, ..search("points", vec![0.0; DIM], IDS as usize) };
            match endpoint.search(searches).await {
                Ok(answer) => {
                    let missing = if silence { 0 } else { answer.coverage.missing.len() };
                    let hits: BTreeSet<_> = answer.results[0].hits.iter().map(|hit| id_of(hit.id)).collect();
                    let all = hits.len() as u64 == IDS;
                    let counter = if missing == 0 { &self.whole } else { &self.partial };
                    counter.set(counter.get() + 1);
                    if (missing == 0) != all || (missing > 0 && !allow_partial) {
                        let what = format!("{} hits, {missing} shards missing, allowed: {allow_partial}", hits.len());
                        self.silent.borrow_mut().push(what);
                    }
                }
                Err(_) => self.refused.set(self.refused.get() + 1),
            }
        }
        self.running.set(self.running.get() - 1);
    }
}

/// Searches while nodes with the only replica of a shard come and go.
fn searches(seed: u64, searches: u64, silence: bool) -> Tally {
    let mut world = World::found(seed, Shape { coordinators: 1, shards: 3 });
    world.create("points", 4, 1);
    let client = world.client(0, 10 * CALL);
    world.ask(async move {
        let points = (0..IDS).map(|id| point(id, id)).collect();
        client().upsert(name("points"), points).await.expect("written");
    });
    let tally = Tally { running: Rc::new(Cell::new(4)), ..Tally::default() };
    for number in 0..4 {
        let (make, tally) = (world.client(0, CALL), tally.clone());
        let dice = Dice::new(seed * 1_000 + number);
        world.spawn(async move { tally.search(make(), dice, silence).await });
    }
    // Faults of each kind, some of them several times.
    const FAULTS: u64 = 12;
    let mut faults = 0;
    while tally.total() < searches || faults < FAULTS {
        faults += 1;
        let away = world.dice.pick(&world.shard_nodes());
        let how = world.dice.below(3);
        match how {
            0 => world.kill(away),
            1 => world.isolate(away),
            _ => world.hold(away),
        }
        let lasts = 200 + world.dice.below(3_000);
        world.run_for(Duration::from_millis(lasts));
        match how {
            0 => world.restart(away),
            1 => world.reconnect(away),
            _ => world.release(away),
        }
        let calm = world.dice.below(2_000);
        world.run_for(Duration::from_millis(calm));
    }
    tally.stop.set(true);
    let running = tally.running.clone();
    world.until("the end of the searches", || running.get() == 0);
    println!(
        "seed {seed}: {} whole answers, {} partial, {} refused, {:?}",
        tally.whole.get(),
        tally.partial.get(),
        tally.refused.get(),
        world.faults()
    );
    tally
}

#[test]
fn no_answer_lacks_a_shard_without_saying_so() {
    let (seed, wanted) = (seed(), number("SAGITTA_SEARCHES", SEARCHES));
    let tally = searches(seed, wanted, false);
    assert_eq!(*tally.silent.borrow(), Vec::<String>::new());
    assert!(tally.total() >= wanted && tally.partial.get() > 0 && tally.refused.get() > 0 && tally.whole.get() > 0);
}

#[test]
fn a_coordinator_that_keeps_quiet_about_missing_shards_is_caught() {
    let tally = searches(seed(), 100, true);
    println!("{} answers are caught", tally.silent.borrow().len());
    assert!(!tally.silent.borrow().is_empty());
}
