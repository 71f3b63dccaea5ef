//! Clients that read points which nobody changes, beside others that are written all the time: each read shows each of them once.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use sagitta_callers::{Look, Steady, name};
use sagitta_model::Consistency;

use crate::heal::{IDS, wait_for};
use crate::workload::at_rest;
use crate::world::{CALL, World, pass};

/// The points that nobody changes; their ids are above those of the others.
pub(crate) const STEADY: u64 = 60;

/// Writes the points, and waits until every replica has them: any may be asked.
pub(crate) fn write(world: &mut World, collection: &str) -> Steady {
    let steady = Steady::new(collection, IDS, STEADY);
    let (client, points) = (world.client(0, 6 * CALL), steady.points());
    let written = name(collection);
    world.ask(async move { client().upsert(written, points).await }).expect("written");
    wait_for(world, 0, collection, |shard| {
        shard.replicas.iter().all(|replica| replica.told.as_ref().is_some_and(|told| told.lag_entries == Some(0)))
    });
    steady
}

/// Clients that read the steady points again and again.
pub(crate) struct Readers {
    stop: Rc<Cell<bool>>,
    looks: Rc<Cell<u64>>,
    running: Rc<Cell<u64>>,
}

impl Readers {
    /// Of points that are written first.
    pub(crate) fn start(world: &mut World, collection: &str) -> Self {
        let steady = write(world, collection);
        Self::of(world, &steady, 30, &[Consistency::Strong, Consistency::Eventual])
    }

    /// Of points that were written, by all kinds of reads of such a consistency, which pause for so long between two of them.
    pub(crate) fn of(world: &World, steady: &Steady, pause_ms: u64, kinds: &[Consistency]) -> Self {
        let (stop, looks, running) = <(Rc<Cell<bool>>, Rc<Cell<u64>>, Rc<Cell<u64>>)>::default();
        let looks_of = |consistency: &Consistency| Look::ALL.map(|look| (look, consistency.clone()));
        for (number, (look, consistency)) in kinds.iter().flat_map(looks_of).enumerate() {
            let coordinators = world.coordinators();
            let make = world.client(coordinators[number % coordinators.len()], CALL);
            let (env, steady) = (world.client_env(), steady.clone());
            let (stop, looks, running) = (stop.clone(), looks.clone(), running.clone());
            running.set(running.get() + 1);
            world.spawn(async move {
                let client = make();
                let env = env.borrow().clone().expect("clients have started");
                while !stop.get() {
                    // It may fail in trouble, but must not be wrong.
                    if steady.look(&client, look, consistency.clone()).await.is_ok() {
                        looks.set(looks.get() + 1);
                    }
                    pass(&env, pause_ms).await;
                }
                running.set(running.get() - 1);
            });
        }
        Self { stop, looks, running }
    }

    /// Ends them, and says how many reads were answered.
    pub(crate) fn stop(self, world: &mut World) -> u64 {
        self.stop.set(true);
        world.until("the end of the readers", || self.running.get() == 0);
        self.looks.get()
    }
}

/// What there is at rest: the points that were written meanwhile, and those that nobody changed.
pub(crate) fn everything_at_rest(world: &mut World) -> BTreeMap<u64, u64> {
    let found = at_rest(world, "points", IDS + STEADY);
    let steady = found.range(IDS..).count() as u64;
    assert_eq!(steady, STEADY, "seed {}: points that nobody changed", world.seed);
    found
}

/// The points that were written meanwhile.
pub(crate) fn written_at_rest(world: &mut World) -> BTreeMap<u64, u64> {
    let mut found = everything_at_rest(world);
    found.retain(|id, _| *id < IDS);
    found
}
