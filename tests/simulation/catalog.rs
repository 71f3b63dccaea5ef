//! Promise 3: what collections there are is linearizable, though coordinators are cut off, held up, killed, and disagree about the time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use sagitta_callers::{Dice, catalog, number, seed};
use sagitta_client::Client;
use sagitta_env::Env;
use sagitta_history::{
    BUDGET_STEPS, Catalog, CatalogInput as Input, CatalogOutput as Output, History, Recorder, Verdict, check, require,
};

use crate::trouble::Trouble;
use crate::world::{Shape, World, pass};

/// Answered operations; `SAGITTA_OPERATIONS` runs more.
const OPERATIONS: u64 = 2_000;
/// Operations of one history: what is unknown in it stays possible until its end.
const EACH: u64 = 700;
const CLIENTS: u64 = 4;
/// Shorter than a fault, so that clients meet it.
const CALL: Duration = Duration::from_secs(3);

/// A fault of a coordinator, as clients would see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    /// What was looked up before is answered again without asking the others.
    Cached,
    /// A collection is said to be deleted when the deletion was sent.
    EarlyAcknowledgement,
}

#[derive(Clone)]
struct Actor {
    recorder: Recorder<Input, Output>,
    plant: Option<Plant>,
    answered: Rc<Cell<u64>>,
    running: Rc<Cell<u64>>,
    stop: Rc<Cell<bool>>,
}

/// A history of so many answered operations, with trouble all the while.
fn history(world: &mut World, answers: u64, plant: Option<Plant>) -> History<Input, Output> {
    let actor = Actor {
        recorder: Recorder::new(),
        plant,
        answered: Rc::default(),
        running: Rc::new(Cell::new(CLIENTS)),
        stop: Rc::default(),
    };
    for client in 0..CLIENTS {
        let makers: Vec<_> = world.coordinators().into_iter().map(|at| world.client(at, CALL)).collect();
        let (actor, env, dice) = (actor.clone(), world.client_env(), Dice::new(world.seed * 1_000 + client));
        world.spawn(async move {
            let env = env.borrow().clone().expect("clients have started");
            let endpoints: Vec<_> = makers.iter().map(|make| make()).collect();
            actor.run(client, &endpoints, &env, dice).await;
        });
    }
    let mut trouble = Trouble::among(world.coordinators());
    while actor.answered.get() < answers {
        trouble.stir(world);
    }
    trouble.end(world);
    actor.stop.set(true);
    let running = actor.running.clone();
    world.until("the end of the clients", || running.get() == 0);
    actor.recorder.history()
}

impl Actor {
    async fn run(self, client: u64, endpoints: &[Client], env: &Env, mut dice: Dice) {
        let mut cache = None;
        while !self.stop.get() {
            let endpoint = &endpoints[dice.below(endpoints.len() as u64) as usize];
            let answered = self.act(client, endpoint, &mut dice, &mut cache).await;
            self.answered.set(self.answered.get() + u64::from(answered));
            pass(env, dice.below(20)).await;
        }
        self.running.set(self.running.get() - 1);
    }

    /// One operation; whether it was answered.
    async fn act(&self, client: u64, endpoint: &Client, dice: &mut Dice, cache: &mut Option<(String, Output)>) -> bool {
        let input = catalog::draw(dice);
        let call = self.recorder.call(client, input.clone());
        let answer = match (&input, self.plant, &*cache) {
            (Input::Delete(_), Some(Plant::EarlyAcknowledgement), _) if dice.below(4) == 0 => {
                let (endpoint, input) = (endpoint.clone(), input.clone());
                tokio::task::spawn_local(async move { catalog::perform(&endpoint, input).await });
                Ok(Output::Deleted)
            }
            (Input::Get(text), Some(Plant::Cached), Some((cached, output))) if cached == text => Ok(output.clone()),
            _ => catalog::perform(endpoint, input.clone()).await,
        };
        if let (Input::Get(text), Ok(output)) = (&input, &answer) {
            *cache = Some((text.clone(), output.clone()));
        }
        catalog::settle(call, answer)
    }
}

#[test]
fn collections_are_linearizable_through_partitions_pauses_and_clock_jumps() {
    let (first, operations) = (seed(), number("SAGITTA_OPERATIONS", OPERATIONS));
    let (mut answered, mut seed) = (0, first);
    while answered < operations {
        let mut world = World::found(seed, Shape { coordinators: 3, shards: 1 });
        let history = history(&mut world, EACH, None);
        let told = history.operations.iter().filter(|operation| operation.returned().is_some()).count();
        println!(
            "seed {seed}: {} operations, {told} answered, {:?}, {:?}",
            history.operations.len(),
            world.faults(),
            world.now()
        );
        require(&Catalog, &history, &format!("collections of seed {seed}"));
        answered += told as u64;
        seed += 1;
    }
    println!("{answered} operations answered");
}

#[test]
fn a_coordinator_that_answers_from_memory_or_too_early_is_caught() {
    let seed = seed();
    for plant in [Plant::Cached, Plant::EarlyAcknowledgement] {
        let mut world = World::found(seed, Shape { coordinators: 3, shards: 1 });
        let history = history(&mut world, 200, Some(plant));
        let verdict = check(&Catalog, &history, BUDGET_STEPS);
        assert!(matches!(verdict, Verdict::Violation(_)), "seed {seed}: {plant:?} is not caught");
        println!("seed {seed}: {plant:?} is caught");
    }
}
