//! Clients that write, delete and read points side by side, and record what they were told.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sagitta_client::{Client, ClientError, Count, CreateCollection, Get, Scroll, Search, Searches};
use sagitta_env::{Env, JoinHandle};
use sagitta_history::{Freshness, History, PointInput, PointOutput, Recorder, unsettled};
use sagitta_model::{
    CollectionName, Consistency, Effort, FieldType, IndexPolicy, Metric, Object, PayloadSelection, Point, PointId,
    Record, Schema, SearchQuery, Selection, Value, VectorSelection, VectorSpec, VersionToken,
};

use crate::harness::{Cluster, Rng, breathe, eventually};

pub(crate) const DIM: usize = 4;
/// How long one call of a client may take.
pub(crate) const CALL: Duration = Duration::from_secs(5);

/// Without a write for so long, it is taken that there will be none.
const STALLED: Duration = Duration::from_secs(60);

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

pub(crate) fn everything() -> Selection {
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

/// The collection `points` with so many shards, each on three nodes.
pub(crate) async fn create(cluster: &Cluster, shards: u32) {
    let mut create = CreateCollection::new(name("points"), schema());
    (create.shards, create.replication) = (Some(shards), Some(3));
    cluster.client(0, CALL * 6).create(create).await.expect("created");
}

/// What all points are, by a scroll; count, get and search must say the same.
pub(crate) async fn contents(client: &Client, collection: &str) -> Result<BTreeMap<u64, u64>, ClientError> {
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
pub(crate) async fn agreed(client: &Client, collection: &str, ids: u64) -> BTreeMap<u64, u64> {
    let found = eventually("a scroll", async || contents(client, collection).await).await;
    let count = Count { collection: name(collection), filter: None, consistency: Consistency::Strong };
    assert_eq!(client.count(count).await.expect("counted"), found.len() as u64, "count and scroll");
    let all = get(collection, (0..ids).collect(), Consistency::Strong);
    let got: BTreeMap<_, _> = client.get(all).await.expect("read").iter().map(told).collect();
    assert_eq!(got, found, "get and scroll");
    let answer = client.search(search(collection, vec![0.0; DIM], ids as usize)).await.expect("searched");
    assert_eq!(answer.coverage.missing, []);
    let mut hits: Vec<_> = answer.results[0].hits.iter().map(|hit| id_of(hit.id)).collect();
    hits.sort_unstable();
    assert_eq!(hits, found.keys().copied().collect::<Vec<_>>(), "search and scroll");
    found
}

/// The points at rest must be what was acknowledged, or may have been, through every coordinator.
pub(crate) async fn settled(cluster: &Cluster, history: &History<PointInput, PointOutput>, ids: u64) {
    for client in cluster.clients(CALL * 4) {
        let found = agreed(&client, "points", ids).await;
        assert_eq!(unsettled(history, &found), [], "of {} points", found.len());
    }
}

/// What the clients of a test share.
#[derive(Clone)]
pub(crate) struct Workload {
    pub(crate) recorder: Recorder<PointInput, PointOutput>,
    shared: Arc<Shared>,
}

struct Shared {
    collection: String,
    ids: u64,
    reads: bool,
    values: AtomicU64,
    acknowledged: AtomicU64,
    answered_reads: AtomicU64,
    errors: Mutex<HashMap<String, u64>>,
    stop: AtomicBool,
}

impl Workload {
    /// On points with ids below `ids`; with reads among the writes or without.
    pub(crate) fn new(collection: &str, ids: u64, reads: bool) -> Self {
        let (values, acknowledged, answered_reads) = (AtomicU64::new(1), AtomicU64::new(0), AtomicU64::new(0));
        let (errors, stop) = (Mutex::default(), AtomicBool::new(false));
        let collection = collection.to_owned();
        let shared = Arc::new(Shared { collection, ids, reads, values, acknowledged, answered_reads, errors, stop });
        Self { recorder: Recorder::new(), shared }
    }

    /// Starts clients that go on until [`Workload::stop`], each by whatever coordinator it draws.
    pub(crate) fn start(&self, cluster: &Cluster, clients: u64, seed: u64) -> Vec<JoinHandle<()>> {
        let start = |client: u64| {
            let (workload, endpoints) = (self.clone(), cluster.clients(CALL));
            let rng = Rng::new(seed * 1_000 + client);
            Env::real().spawn(workload.run(client, endpoints, rng))
        };
        (0..clients).map(start).collect()
    }

    /// Writes acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Acquire)
    }

    /// Reads answered so far.
    pub(crate) fn reads(&self) -> u64 {
        self.shared.answered_reads.load(Ordering::Acquire)
    }

    /// Errors so far.
    pub(crate) fn refused(&self) -> u64 {
        self.errors().values().sum()
    }

    /// Waits until so many more writes are acknowledged. Returns the longest time between two of them that was seen.
    pub(crate) async fn wait_for(&self, more: u64) -> Duration {
        let env = Env::real();
        let (target, mut last, mut at, mut gap) =
            (self.acknowledged() + more, self.acknowledged(), env.now(), Duration::ZERO);
        while self.acknowledged() < target {
            breathe(5).await;
            let now = env.now();
            gap = gap.max(now - at);
            assert!(now - at < STALLED, "writes do not go on: {:?}", self.errors());
            if self.acknowledged() != last {
                (last, at) = (self.acknowledged(), now);
            }
        }
        gap
    }

    /// Ends the clients, each after what it is doing.
    pub(crate) async fn stop(&self, clients: Vec<JoinHandle<()>>) -> History<PointInput, PointOutput> {
        self.shared.stop.store(true, Ordering::Release);
        for client in clients {
            client.await.expect("a client ended well");
        }
        println!("{} writes acknowledged; errors: {:?}", self.acknowledged(), self.errors());
        self.recorder.history()
    }

    fn errors(&self) -> HashMap<String, u64> {
        self.shared.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn run(self, client: u64, endpoints: Vec<Client>, mut rng: Rng) {
        let (mut at, mut session) = (client as usize % endpoints.len(), None);
        while !self.shared.stop.load(Ordering::Acquire) {
            let id = rng.below(self.shared.ids);
            let dice = if self.shared.reads { rng.below(100) } else { rng.below(50) };
            let done = match dice {
                0..40 => self.write(client, &endpoints[at], id, false, &mut session).await,
                40..50 => self.write(client, &endpoints[at], id, true, &mut session).await,
                50..80 => self.read(client, &endpoints[at], id, None).await,
                _ => self.read(client, &endpoints[at], id, session.clone()).await,
            };
            if let Err(error) = done {
                let said: String = format!("{:?} {}: {}", error.kind, error.reason, error.message);
                *self.shared.errors.lock().unwrap_or_else(PoisonError::into_inner).entry(said).or_default() += 1;
                at = (at + 1) % endpoints.len();
            }
            if rng.below(20) == 0 {
                at = rng.below(endpoints.len() as u64) as usize;
            }
            // A history that fits its checker: a few hundred operations a second are enough.
            breathe(rng.below(20)).await;
        }
    }

    async fn write(
        &self,
        client: u64,
        endpoint: &Client,
        id: u64,
        delete: bool,
        session: &mut Option<Session>,
    ) -> Result<(), ClientError> {
        let collection = name(&self.shared.collection);
        let (call, written) = if delete {
            let call = self.recorder.call(client, PointInput::Delete { id });
            (call, endpoint.delete(collection, vec![PointId::Num(id)]).await)
        } else {
            let value = self.shared.values.fetch_add(1, Ordering::Relaxed);
            let call = self.recorder.call(client, PointInput::Upsert { id, value });
            (call, endpoint.upsert(collection, vec![point(id, value)]).await)
        };
        match written {
            Ok(result) => {
                assert!(result.failures.is_empty(), "{:?}", result.failures);
                let position = call.ok(PointOutput::Done);
                self.shared.acknowledged.fetch_add(1, Ordering::AcqRel);
                *session = Some((id, position, result.tokens));
                Ok(())
            }
            Err(error) => {
                call.unknown();
                Err(error)
            }
        }
    }

    /// Reads as of now, or what this client has written last as of then at least.
    async fn read(&self, client: u64, endpoint: &Client, id: u64, session: Option<Session>) -> Result<(), ClientError> {
        let (id, freshness, consistency) = match session {
            Some((id, position, tokens)) => (id, Freshness::Session(position), Consistency::Session(tokens)),
            None => (id, Freshness::Strong, Consistency::Strong),
        };
        let call = self.recorder.call_with(client, PointInput::Get { id }, freshness);
        match endpoint.get(get(&self.shared.collection, vec![id], consistency)).await {
            Ok(records) => {
                call.ok(PointOutput::Found(records.first().map(|record| told(record).1)));
                self.shared.answered_reads.fetch_add(1, Ordering::AcqRel);
                Ok(())
            }
            Err(error) => {
                call.failed();
                Err(error)
            }
        }
    }
}

/// A point that was written, at which position of the history, and the tokens of that.
type Session = (u64, usize, Vec<VersionToken>);
