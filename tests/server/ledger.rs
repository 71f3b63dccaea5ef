//! What a test has written, and whether a server still has exactly that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sagitta_client::{Client, ClientError};
use sagitta_model::limits::MAX_BATCH_POINTS;
use sagitta_model::{Effort, Point, PointId, SearchQuery, Value, WriteResult};

use crate::harness::{Rng, all_points, get, name, point, query, searches};

/// The collection that a ledger is about.
pub(crate) const COLLECTION: &str = "ledger";

/// What a point may look like: absent, or written with this number.
type State = Option<i64>;

/// What every point must look like. While a write is on its way both states are right.
#[derive(Clone)]
pub(crate) struct Ledger {
    dim: usize,
    ids: u64,
    states: Arc<Mutex<States>>,
}

#[derive(Default)]
struct States {
    known: BTreeMap<u64, State>,
    in_flight: BTreeMap<u64, State>,
    next: i64,
    /// Writes that were acknowledged.
    writes: u64,
}

/// Points of a deletion: fewer than of a write, so that there are always many.
const MOST_DELETED: u64 = 300;
/// Points that a lost, a revived or a stale one is found among at every start.
const SAMPLE: u64 = 500;

impl Ledger {
    /// Of points with ids below `ids` and vectors of `dim` values.
    pub(crate) fn new(dim: usize, ids: u64) -> Self {
        Self { dim, ids, states: Arc::default() }
    }

    /// Writes or deletes some points in one call and notes what came of it.
    pub(crate) async fn write(&self, client: &Client, rng: &mut Rng, most: u64) -> Result<WriteResult, ClientError> {
        match rng.below(5) {
            0 => self.delete(client, rng, most.min(MOST_DELETED)).await,
            _ => self.upsert(client, rng, most).await,
        }
    }

    pub(crate) async fn upsert(&self, client: &Client, rng: &mut Rng, most: u64) -> Result<WriteResult, ClientError> {
        let (ids, n) = self.begin(rng, most, true);
        let points: Vec<Point> = ids.iter().map(|id| point(*id, self.vector(*id, n), n)).collect();
        self.end(client.upsert(name(COLLECTION), points).await)
    }

    async fn delete(&self, client: &Client, rng: &mut Rng, most: u64) -> Result<WriteResult, ClientError> {
        let (ids, _) = self.begin(rng, most, false);
        self.end(client.delete(name(COLLECTION), ids.into_iter().map(PointId::Num).collect()).await)
    }

    /// Follows from id and number, so that one that is left from before is noticed.
    fn vector(&self, id: u64, n: i64) -> Vec<f32> {
        Rng::new(id << 32 ^ n as u64).vector(self.dim)
    }

    /// Draws neighbouring ids and notes that they are on their way.
    fn begin(&self, rng: &mut Rng, most: u64, stay: bool) -> (Vec<u64>, i64) {
        let (count, first) = (1 + rng.below(most.min(self.ids)), rng.below(self.ids));
        let ids: Vec<u64> = (0..count).map(|at| (first + at) % self.ids).collect();
        let mut states = self.lock();
        assert!(states.in_flight.is_empty(), "one write at a time, each settled");
        states.next += 1;
        let n = states.next;
        states.in_flight.extend(ids.iter().map(|id| (*id, stay.then_some(n))));
        (ids, n)
    }

    fn end(&self, written: Result<WriteResult, ClientError>) -> Result<WriteResult, ClientError> {
        let mut states = self.lock();
        match &written {
            Ok(_) => {
                let done = std::mem::take(&mut states.in_flight);
                states.known.extend(done);
                states.writes += 1;
            }
            // Refused before anything was done. After any other error nobody knows.
            Err(error) if error.kind == sagitta_model::ErrorKind::Overloaded => states.in_flight.clear(),
            Err(_) => {}
        }
        written
    }

    /// Acknowledged writes so far.
    pub(crate) fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Whether it is unknown what became of the last write.
    pub(crate) fn is_in_doubt(&self) -> bool {
        !self.lock().in_flight.is_empty()
    }

    /// Finds out what became of the write that was on its way, which must be all of it or nothing; and looks at some
    /// of the other points. Returns whether the write was done.
    pub(crate) async fn settle(&self, client: &Client, rng: &mut Rng) -> bool {
        let in_flight = self.lock().in_flight.clone();
        let found = self.read(client, in_flight.keys().copied().collect()).await;
        let after = in_flight.iter().all(|(id, state)| found.get(id).copied() == *state);
        let before = in_flight.keys().all(|id| found.get(id).copied() == self.known(*id));
        assert!(after || before, "a write that was cut off is there in part");
        self.decide(in_flight, after);
        let sample = (0..SAMPLE).map(|_| rng.below(self.ids)).collect::<Vec<_>>();
        let found = self.read(client, sample.clone()).await;
        for id in sample {
            assert_eq!(found.get(&id).copied(), self.known(id), "point {id}: found, expected");
        }
        self.check_search(client, rng).await;
        after
    }

    /// Notes what became of a write that was in doubt.
    fn decide(&self, in_flight: BTreeMap<u64, State>, done: bool) {
        let mut states = self.lock();
        states.in_flight.clear();
        if done {
            states.known.extend(in_flight);
        }
    }

    /// Reads without settling: a write that is in doubt may be seen or not, and nothing else may differ.
    pub(crate) async fn read_in_doubt(&self, client: &Client, rng: &mut Rng) {
        let in_flight = self.lock().in_flight.clone();
        let sample: Vec<_> = (0..SAMPLE).map(|_| rng.below(self.ids)).collect();
        let found = self.read(client, sample.clone()).await;
        for id in sample {
            let found = found.get(&id).copied();
            let allowed = found == self.known(id) || in_flight.get(&id) == Some(&found);
            assert!(allowed, "point {id}: found {found:?}, expected {:?}", self.known(id));
        }
        let query = query(rng.vector(self.dim), 10);
        client.search(searches(COLLECTION, query)).await.expect("a search");
    }

    /// Writes a point that is not compared.
    pub(crate) async fn probe(&self, client: &Client) -> Result<(), ClientError> {
        let id = self.ids + 1;
        client.upsert(name(COLLECTION), vec![point(id, vec![1.0; self.dim], 0)]).await.map(drop)?;
        client.delete(name(COLLECTION), vec![PointId::Num(id)]).await.map(drop)
    }

    /// Deletes many points that do not exist: changes nothing, takes room in the log, and is let in for as long as there is any.
    pub(crate) async fn delete_nothing(&self, client: &Client) -> Result<(), ClientError> {
        let ids = (self.ids + 2..).take(MAX_BATCH_POINTS).map(PointId::Num).collect();
        client.delete(name(COLLECTION), ids).await.map(drop)
    }

    /// No search finds a deleted point or the number that a point had before.
    async fn check_search(&self, client: &Client, rng: &mut Rng) {
        for effort in [Effort::Exact, Effort::default()] {
            let query = SearchQuery { effort, ..query(rng.vector(self.dim), 100) };
            let answer = client.search(searches(COLLECTION, query)).await.expect("a search");
            let hits = &answer.results[0].hits;
            let alive = self.lock().known.values().flatten().count();
            assert_eq!(hits.len(), alive.min(100), "as many hits as there are points");
            for hit in hits {
                assert!(self.known(number(hit.id)).is_some(), "{} was found, but it was deleted", hit.id);
            }
        }
    }

    /// Settles, then compares every point.
    pub(crate) async fn check(&self, client: &Client, rng: &mut Rng) {
        self.settle(client, rng).await;
        let expected: BTreeMap<u64, i64> = {
            let states = self.lock();
            states.known.iter().filter_map(|(id, state)| Some((*id, (*state)?))).collect()
        };
        let found = all_points(client, COLLECTION, None).await;
        for record in &found {
            let expected = self.vector(number(record.id), n(record.payload.as_ref()));
            assert_eq!(record.vectors["v"], expected, "the vector of {}", record.id);
        }
        let found: BTreeMap<u64, i64> =
            found.iter().map(|record| (number(record.id), n(record.payload.as_ref()))).collect();
        let lost = expected.iter().filter(|(id, _)| !found.contains_key(id)).count();
        let back = found.keys().filter(|id| !expected.contains_key(id)).count();
        let stale = found.iter().filter(|(id, n)| expected.get(id).is_some_and(|expected| expected != *n)).count();
        assert_eq!((lost, back, stale), (0, 0, 0), "lost, back from the dead, stale; of {}", expected.len());
    }

    fn known(&self, id: u64) -> State {
        self.lock().known.get(&id).copied().flatten()
    }

    async fn read(&self, client: &Client, ids: Vec<u64>) -> BTreeMap<u64, i64> {
        if ids.is_empty() {
            return BTreeMap::new();
        }
        let ids = ids.into_iter().map(PointId::Num).collect();
        let found = client.get(get(COLLECTION, ids)).await.expect("points are read");
        found.iter().map(|record| (number(record.id), n(record.payload.as_ref()))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(id: PointId) -> u64 {
    match id {
        PointId::Num(n) => n,
        PointId::Uuid(_) => panic!("only numbers were written"),
    }
}

fn n(payload: Option<&sagitta_model::Object>) -> i64 {
    match payload.and_then(|payload| payload.get("n")) {
        Some(Value::Int(n)) => *n,
        other => panic!("every point has a number, found {other:?}"),
    }
}
