//! Clients that write, delete and read points side by side, and record what they were told.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sagitta_callers::{Dice, agreed, contents, get, name, point, schema, told};
use sagitta_client::{Client, ClientError, CreateCollection};
use sagitta_env::{Env, JoinHandle};
use sagitta_history::{Freshness, History, PointInput, PointOutput, Recorder, unsettled};
use sagitta_model::{Consistency, PointId, VersionToken};

use crate::harness::{Cluster, breathe, eventually};

/// How long one call of a client may take.
pub(crate) const CALL: Duration = Duration::from_secs(5);

/// Without a write for so long, it is taken that there will be none.
const STALLED: Duration = Duration::from_secs(60);

/// The collection `points` with so many shards, each on three nodes.
pub(crate) async fn create(cluster: &Cluster, shards: u32) {
    let mut create = CreateCollection::new(name("points"), schema());
    (create.shards, create.replication) = (Some(shards), Some(3));
    cluster.client(0, CALL * 6).create(create).await.expect("created");
}

/// The points of a cluster that comes to rest.
pub(crate) async fn at_rest(client: &Client, collection: &str, ids: u64) -> BTreeMap<u64, u64> {
    eventually("a scroll", async || contents(client, collection).await).await;
    agreed(client, collection, ids).await.expect("a cluster at rest answers")
}

/// The points at rest must be what was acknowledged, or may have been, through every coordinator.
pub(crate) async fn settled(cluster: &Cluster, history: &History<PointInput, PointOutput>, ids: u64) {
    for client in cluster.clients(CALL * 4) {
        let found = at_rest(&client, "points", ids).await;
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
            let dice = Dice::new(seed * 1_000 + client);
            Env::real().spawn(workload.run(client, endpoints, dice))
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

    async fn run(self, client: u64, endpoints: Vec<Client>, mut dice: Dice) {
        let (mut at, mut session) = (client as usize % endpoints.len(), None);
        while !self.shared.stop.load(Ordering::Acquire) {
            let id = dice.below(self.shared.ids);
            let drawn = if self.shared.reads { dice.below(100) } else { dice.below(50) };
            let done = match drawn {
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
            if dice.below(20) == 0 {
                at = dice.below(endpoints.len() as u64) as usize;
            }
            // A history that fits its checker: a few hundred operations a second are enough.
            breathe(dice.below(20)).await;
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
