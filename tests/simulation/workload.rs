//! Clients that write, delete and read points side by side, and record what they were told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use sagitta_client::{Client, ClientError, Count, Get, Scroll, Search, Searches};
use sagitta_history::{Freshness, History, PointInput, PointOutput, Recorder};
use sagitta_model::{
    CollectionName, Consistency, Effort, FieldType, IndexPolicy, Metric, Object, PayloadSelection, Point, PointId,
    Record, Schema, SearchQuery, Selection, Value, VectorSelection, VectorSpec, VersionToken,
};

use crate::dice::Dice;
use crate::world::{CALL, World, pass};

pub(crate) const DIM: usize = 4;

pub(crate) fn name(text: &str) -> CollectionName {
    text.parse().expect("a name")
}

/// One vector `v` and the integer `n`.
pub(crate) fn schema() -> Schema {
    let mut schema = Schema::default();
    schema.vectors.insert("v".into(), VectorSpec { dim: DIM, metric: Metric::L2, index: IndexPolicy::Flat });
    schema.fields.insert("n".parse().expect("a path"), FieldType::Integer);
    schema
}

/// A point whose vector follows from its value, so that one of another value is noticed.
pub(crate) fn point(id: u64, value: u64) -> Point {
    let payload = Object::from([("n".to_owned(), (value as i64).into())]);
    Point { id: PointId::Num(id), vectors: [("v".to_owned(), vector(value))].into(), payload }
}

fn vector(value: u64) -> Vec<f32> {
    (0..DIM as u64).map(|at| ((value * 31 + at * 17) % 101) as f32 - 50.0).collect()
}

fn everything() -> Selection {
    Selection { payload: PayloadSelection::All, vectors: VectorSelection::All }
}

pub(crate) fn id_of(id: PointId) -> u64 {
    match id {
        PointId::Num(id) => id,
        PointId::Uuid(_) => panic!("only numbers were written"),
    }
}

/// Id and value of a point, whose vector must be that of the value.
pub(crate) fn told(record: &Record) -> (u64, u64) {
    let Some(Value::Int(n)) = record.payload.as_ref().and_then(|payload| payload.get("n")) else {
        panic!("every point has a number: {record:?}")
    };
    assert_eq!(record.vectors["v"], vector(*n as u64), "the vector of {} is that of another value", record.id);
    (id_of(record.id), *n as u64)
}

pub(crate) fn get(collection: &str, ids: Vec<u64>, consistency: Consistency) -> Get {
    let ids = ids.into_iter().map(PointId::Num).collect();
    Get { collection: name(collection), ids, selection: everything(), consistency }
}

/// An exact search for the `k` nearest.
pub(crate) fn search(collection: &str, vector: Vec<f32>, k: usize) -> Searches {
    let (min_similarity, filter, group_by) = (None, None, None);
    let query =
        SearchQuery { vector_name: String::new(), vector, k, min_similarity, filter, effort: Effort::Exact, group_by };
    let search = Search { query, score_threshold: None, selection: Selection::default(), explain: false };
    let (collection, consistency) = (name(collection), Consistency::Strong);
    Searches { collection, searches: vec![search], consistency, allow_partial: false, batch: false }
}

/// What all points are, by a scroll.
async fn contents(client: &Client, collection: &str) -> Result<BTreeMap<u64, u64>, ClientError> {
    let (consistency, selection) = (Consistency::Strong, everything());
    let scroll = Scroll { collection: name(collection), filter: None, selection, consistency };
    let (mut scroller, mut found) = (client.scroll(scroll, 100), BTreeMap::new());
    while let Some(record) = scroller.next().await {
        let (id, value) = told(&record?);
        assert!(found.insert(id, value).is_none(), "{id} was listed twice");
    }
    Ok(found)
}

/// The points at rest, as scroll, count, get and search agree on them through one coordinator.
pub(crate) async fn agreed(client: Client, collection: String, ids: u64) -> Result<BTreeMap<u64, u64>, ClientError> {
    let found = contents(&client, &collection).await?;
    let count = Count { collection: name(&collection), filter: None, consistency: Consistency::Strong };
    assert_eq!(client.count(count).await?, found.len() as u64, "count and scroll");
    let all = get(&collection, (0..ids).collect(), Consistency::Strong);
    let got: BTreeMap<_, _> = client.get(all).await?.iter().map(told).collect();
    assert_eq!(got, found, "get and scroll");
    let answer = client.search(search(&collection, vec![0.0; DIM], ids as usize)).await?;
    assert_eq!(answer.coverage.missing, []);
    let mut hits: Vec<_> = answer.results[0].hits.iter().map(|hit| id_of(hit.id)).collect();
    hits.sort_unstable();
    assert_eq!(hits, found.keys().copied().collect::<Vec<_>>(), "search and scroll");
    Ok(found)
}

/// What each coordinator says of the points at rest; all must say the same.
pub(crate) fn at_rest(world: &mut World, collection: &str, ids: u64) -> BTreeMap<u64, u64> {
    let mut all = Vec::new();
    for at in world.coordinators() {
        let (client, collection) = (world.client(at, 12 * CALL), collection.to_owned());
        let found = world.ask(async move { agreed(client(), collection, ids).await });
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
