//! Promise 3: what collections there are is linearizable, though coordinators are cut off, held up, killed, and disagree about the time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use sagitta_client::{Client, CreateCollection, View};
use sagitta_env::Env;
use sagitta_history::{
    BUDGET_STEPS, Catalog, CatalogInput as Input, CatalogOutput as Output, History, Recorder, Verdict, check, require,
};
use sagitta_model::{CollectionInfo, ErrorKind};

use crate::dice::{Dice, number, seed};
use crate::trouble::Trouble;
use crate::workload::{name, schema};
use crate::world::{Shape, World, pass};

/// Answered operations; `SAGITTA_OPERATIONS` runs more.
const OPERATIONS: u64 = 2_000;
/// Operations of one history: what is unknown in it stays possible until its end.
const EACH: u64 = 700;
const CLIENTS: u64 = 4;
const NAMES: [&str; 3] = ["a", "b", "c"];
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
        let (text, recorder) = (dice.pick(&NAMES).to_owned(), &self.recorder);
        let identity = |info: &CollectionInfo| info.id as u64;
        let (call, answer) = match dice.below(6) {
            0 | 1 => {
                let call = recorder.call(client, Input::Create(text.clone()));
                let mut create = CreateCollection::new(name(&text), schema());
                create.replication = Some(1);
                (call, endpoint.create(create).await.map(|info| Output::Created(identity(&info))))
            }
            2 => {
                let call = recorder.call(client, Input::Delete(text.clone()));
                let (endpoint, name) = (endpoint.clone(), name(&text));
                let done = async move { endpoint.delete_collection(name, false).await };
                if self.plant == Some(Plant::EarlyAcknowledgement) && dice.below(4) == 0 {
                    tokio::task::spawn_local(done);
                    (call, Ok(Output::Deleted))
                } else {
                    (call, done.await.map(|()| Output::Deleted))
                }
            }
            3 | 4 => {
                let call = recorder.call(client, Input::Get(text.clone()));
                match cache {
                    Some((cached, output)) if *cached == text && self.plant == Some(Plant::Cached) => {
                        (call, Ok(output.clone()))
                    }
                    _ => {
                        let got = endpoint.get_collection(name(&text), View::Basic).await;
                        let output = got.map(|info| Output::Found(identity(&info)));
                        if let Ok(output) = &output {
                            *cache = Some((text.clone(), output.clone()));
                        }
                        (call, output)
                    }
                }
            }
            _ => {
                let call = recorder.call(client, Input::List);
                let listed = endpoint.list_collections(View::Basic, 100, String::new()).await;
                let all = |page: sagitta_client::CollectionPage| {
                    page.collections.iter().map(|info| (info.name.to_string(), identity(info))).collect()
                };
                (call, listed.map(|page| Output::Listed(all(page))))
            }
        };
        let output = match answer {
            Ok(output) => output,
            // An earlier try created it, and somebody has deleted it since: when is not said.
            Err(error) if error.reason == "REQUEST_ID_REUSED" => {
                call.unknown();
                return false;
            }
            Err(error) if error.kind == ErrorKind::Conflict => Output::Taken,
            Err(error) if error.kind == ErrorKind::NotFound => Output::Missing,
            Err(_) => {
                call.unknown();
                return false;
            }
        };
        call.ok(output);
        true
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
