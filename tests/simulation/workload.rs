//! Clients that write, delete and read points side by side, and record what they were told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use sagitta_callers::{Dice, agreed, get, name, point, told};
use sagitta_client::{Client, ClientError};
use sagitta_history::{Freshness, History, PointInput, PointOutput, Recorder};
use sagitta_model::{Consistency, PointId, VersionToken};

use crate::world::{CALL, World, pass};

/// What each coordinator says of the points at rest; all must say the same.
pub(crate) fn at_rest(world: &mut World, collection: &str, ids: u64) -> BTreeMap<u64, u64> {
    let mut all = Vec::new();
    for at in world.coordinators() {
        let (client, collection) = (world.client(at, 12 * CALL), collection.to_owned());
        let found = world.ask(async move { agreed(&client(), &collection, ids).await });
        all.push(found.expect("a cluster at rest answers"));
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "coordinators disagree");
    all.swap_remove(0)
}

/// A fault of a coordinator or client, as clients would see it. Planted, so that the checkers prove that they see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Writes are called acknowledged once they are sent.
    EarlyAcknowledgement,
    /// Strong reads are answered by any replica.
    StaleStrongRead,
    /// Reads of a session do not wait for what the session has written.
    SessionIgnored,
    /// What was read before is answered again without looking.
    CachedRead,
    /// A delete is acknowledged and not done.
    DeleteForgotten,
    /// A write in doubt is sent again under another request id, after others have written.
    RetriedAnew,
}

/// What clients do, and for how long.
#[derive(Clone)]
pub(crate) struct Workload {
    pub(crate) recorder: Recorder<PointInput, PointOutput>,
    collection: String,
    ids: u64,
    /// Of a hundred operations.
    reads: u64,
    plant: Option<Plant>,
    /// The longest pause between two operations of a client.
    pause_ms: u64,
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    values: Cell<u64>,
    /// Operations that were answered.
    done: Cell<u64>,
    acknowledged: Cell<u64>,
    /// When writes were acknowledged, in virtual time.
    moments: RefCell<Vec<Duration>>,
    running: Cell<u64>,
    stop: Cell<bool>,
    errors: RefCell<BTreeMap<String, u64>>,
}

/// A point that was written, at which position of the history, and the tokens of that.
type Session = (u64, usize, Vec<VersionToken>);

impl Workload {
    /// On points with ids below `ids`.
    pub(crate) fn new(collection: &str, ids: u64, reads: u64) -> Self {
        let recorder = Recorder::new();
        let collection = collection.to_owned();
        Self { recorder, collection, ids, reads, plant: None, pause_ms: 20, shared: Rc::default() }
    }

    pub(crate) fn with(self, plant: Plant) -> Self {
        Self { plant: Some(plant), ..self }
    }

    pub(crate) fn pausing(self, pause_ms: u64) -> Self {
        Self { pause_ms, ..self }
    }

    /// Starts clients that go on until [`Workload::stop`], each by whatever coordinator it draws.
    pub(crate) fn start(&self, world: &World, clients: u64) {
        for client in 0..clients {
            let workload = self.clone();
            let makers: Vec<_> = world.coordinators().into_iter().map(|at| world.client(at, CALL)).collect();
            let (env, dice) = (world.client_env(), Dice::new(world.seed * 1_000 + client));
            self.shared.running.set(self.shared.running.get() + 1);
            world.spawn(async move {
                let env = env.borrow().clone().expect("clients have started");
                let endpoints = makers.iter().map(|make| make()).collect();
                Caller { workload, env, client, endpoints, dice, session: None, cache: BTreeMap::new() }.run().await;
            });
        }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.get()
    }

    pub(crate) fn answered(&self) -> u64 {
        self.shared.done.get()
    }

    /// When writes were acknowledged.
    pub(crate) fn moments(&self) -> Vec<Duration> {
        self.shared.moments.borrow().clone()
    }

    /// Lets time pass until so many more writes are acknowledged.
    pub(crate) fn wait_for(&self, world: &mut World, more: u64) {
        let target = self.acknowledged() + more;
        world.until("acknowledged writes", || self.acknowledged() >= target);
    }

    /// Ends the clients, each after what it is doing.
    pub(crate) fn stop(&self, world: &mut World) -> History<PointInput, PointOutput> {
        self.shared.stop.set(true);
        world.until("the end of the clients", || self.shared.running.get() == 0);
        self.recorder.history()
    }

    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        self.shared.errors.borrow().clone()
    }
}

struct Caller {
    workload: Workload,
    env: sagitta_env::Env,
    client: u64,
    endpoints: Vec<Client>,
    dice: Dice,
    session: Option<Session>,
    cache: BTreeMap<u64, Option<u64>>,
}

impl Caller {
    async fn run(mut self) {
        let shared = self.workload.shared.clone();
        let mut at = self.client as usize % self.endpoints.len();
        while !shared.stop.get() {
            let id = self.dice.below(self.workload.ids);
            let endpoint = self.endpoints[at].clone();
            let done = match self.dice.below(100) {
                dice if dice < self.workload.reads => {
                    let session = self.session.clone().filter(|_| self.dice.below(3) == 0);
                    self.read(endpoint, id, session).await
                }
                _ => {
                    let delete = self.dice.below(5) == 0;
                    self.write(endpoint, id, delete).await
                }
            };
            match done {
                Ok(()) => shared.done.set(shared.done.get() + 1),
                Err(error) => {
                    let said = format!("{:?} {}", error.kind, error.reason);
                    *shared.errors.borrow_mut().entry(said).or_default() += 1;
                    at = (at + 1) % self.endpoints.len();
                }
            }
            if self.dice.below(20) == 0 {
                at = self.dice.below(self.endpoints.len() as u64) as usize;
            }
            let pause = self.dice.below(self.workload.pause_ms + 1);
            pass(&self.env, pause).await;
        }
        shared.running.set(shared.running.get() - 1);
    }

    async fn write(&mut self, endpoint: Client, id: u64, delete: bool) -> Result<(), ClientError> {
        let shared = self.workload.shared.clone();
        let collection = name(&self.workload.collection);
        let recorder = self.workload.recorder.clone();
        shared.values.set(shared.values.get() + 1);
        let value = shared.values.get();
        let input = if delete { PointInput::Delete { id } } else { PointInput::Upsert { id, value } };
        let call = recorder.call(self.client, input);
        let done = async move {
            match delete {
                true => endpoint.delete(collection, vec![PointId::Num(id)]).await,
                false => endpoint.upsert(collection, vec![point(id, value)]).await,
            }
        };
        let written = match self.workload.plant {
            Some(Plant::EarlyAcknowledgement) => {
                tokio::task::spawn_local(done);
                Ok(Vec::new())
            }
            Some(Plant::DeleteForgotten) if delete && self.dice.below(10) == 0 => Ok(Vec::new()),
            Some(Plant::RetriedAnew) => {
                let again = self.endpoints[0].clone();
                let result = done.await;
                let (env, late) = (self.env.clone(), self.dice.below(100));
                let collection = name(&self.workload.collection);
                if result.is_ok() && !delete && self.dice.below(10) == 0 {
                    tokio::task::spawn_local(async move {
                        pass(&env, late).await;
                        again.upsert(collection, vec![point(id, value)]).await
                    });
                }
                result.map(|result| result.tokens)
            }
            _ => done.await.map(|result| {
                assert!(result.failures.is_empty(), "{:?}", result.failures);
                result.tokens
            }),
        };
        match written {
            Ok(tokens) => {
                let position = call.ok(PointOutput::Done);
                shared.acknowledged.set(shared.acknowledged.get() + 1);
                shared.moments.borrow_mut().push(turmoil::sim_elapsed().expect("this is simulated"));
                self.session = Some((id, position, tokens));
                Ok(())
            }
            Err(error) => {
                call.unknown();
                Err(error)
            }
        }
    }

    /// Reads as of now, or what this client has written last as of then at least.
    async fn read(&mut self, endpoint: Client, id: u64, session: Option<Session>) -> Result<(), ClientError> {
        let (id, freshness, mut consistency) = match session {
            Some((id, position, tokens)) => (id, Freshness::Session(position), Consistency::Session(tokens)),
            None => (id, Freshness::Strong, Consistency::Strong),
        };
        match (self.workload.plant, &consistency) {
            (Some(Plant::StaleStrongRead), Consistency::Strong)
            | (Some(Plant::SessionIgnored), Consistency::Session(_)) => consistency = Consistency::Eventual,
            _ => {}
        }
        let call = self.workload.recorder.call_with(self.client, PointInput::Get { id }, freshness);
        let cached = self.cache.get(&id).copied();
        if let (Some(Plant::CachedRead), Some(cached)) = (self.workload.plant, cached)
            && self.dice.below(10) == 0
        {
            call.ok(PointOutput::Found(cached));
            return Ok(());
        }
        match endpoint.get(get(&self.workload.collection, vec![id], consistency)).await {
            Ok(records) => {
                let found = records.first().map(|record| told(record).1);
                self.cache.insert(id, found);
                call.ok(PointOutput::Found(found));
                Ok(())
            }
            Err(error) => {
                call.failed();
                Err(error)
            }
        }
    }
}
