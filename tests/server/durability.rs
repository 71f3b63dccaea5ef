//! What was acknowledged survives `kill -9`, whatever the server was doing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sagitta_client::{Client, ClientConfig, RetryPolicy};
use sagitta_env::Env;
use sagitta_model::{Metric, Point, PointId, Value};

use crate::harness::{Rng, Server, all_points, data, get, name, point, schema};

const DIM: usize = 8;
/// Enough ids that generations fill, freeze and are sealed and merged over and over at 16,384 rows each.
const IDS: u64 = 60_000;
/// Kills in an ordinary run; `SAGITTA_KILLS` asks for more.
const KILLS: u64 = 12;

/// What a point may look like: absent, or written with this number.
type State = Option<i64>;

/// What every point must look like. While a write is on its way both states are right.
#[derive(Default)]
struct Ledger {
    known: BTreeMap<u64, State>,
    in_flight: BTreeMap<u64, State>,
}

#[test]
fn acknowledged_writes_survive_kills_in_the_middle_of_writes_seals_and_merges() {
    let seed = std::env::var("SAGITTA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(42);
    let kills = std::env::var("SAGITTA_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    println!("seed {seed}, {kills} kills");
    let temp = tempfile::tempdir().expect("a temporary folder");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut rng = Rng::new(seed);
    let mut writes = 0;
    for kill in 0..kills {
        let server = Server::start(&data(&temp));
        let patience = Duration::from_millis(100 + rng.below(900));
        let seed = rng.below(1 << 40);
        writes += runtime.block_on(round(server, &ledger, patience, seed, kill));
    }
    let server = Server::start(&data(&temp));
    runtime.block_on(check_everything(&server, &ledger));
    println!("{writes} writes acknowledged, {} ids touched", ledger.lock().expect("no panic").known.len());
    assert!(writes > kills, "hardly anything was written");
}

/// Checks what the last kill left, writes until the patience is over, kills.
async fn round(server: Server, ledger: &Arc<Mutex<Ledger>>, patience: Duration, seed: u64, kill: u64) -> u64 {
    if kill == 0 {
        server.client().create_collection(name("ledger"), schema(DIM, Metric::L2)).await.expect("created");
    } else if kill.is_multiple_of(5) {
        check_everything(&server, ledger).await;
    } else {
        settle(&server, ledger).await;
    }
    let mut config = ClientConfig::new(server.endpoint.clone());
    // Patient with a server that is busy, briefly with one that is gone.
    let (initial_backoff, max_backoff) = (Duration::from_millis(10), Duration::from_millis(50));
    config.retry = RetryPolicy { max_attempts: 8, initial_backoff, max_backoff };
    let client = Client::connect(config).expect("a valid endpoint");
    let env = Env::real();
    let mut writer = env.spawn(write_until_it_fails(client, ledger.clone(), seed));
    let ended = env.timeout(patience, &mut writer).await;
    assert!(ended.is_err(), "a write failed before the kill");
    server.kill();
    writer.await.expect("the writer ends with the server")
}

async fn write_until_it_fails(client: Client, ledger: Arc<Mutex<Ledger>>, seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let mut writes = 0;
    for n in 0i64.. {
        let delete = rng.below(5) == 0;
        let count = 1 + rng.below(if delete { 300 } else { 2_000 });
        let first = rng.below(IDS);
        let ids: Vec<u64> = (0..count).map(|at| (first + at) % IDS).collect();
        let n = (seed as i64) * 1_000 + n;
        let state = (!delete).then_some(n);
        ledger.lock().expect("no panic").in_flight.extend(ids.iter().map(|id| (*id, state)));
        let written = if delete {
            client.delete(name("ledger"), ids.iter().map(|id| PointId::Num(*id)).collect()).await
        } else {
            let points: Vec<Point> = ids.iter().map(|id| point(*id, rng.vector(DIM), n)).collect();
            client.upsert(name("ledger"), points).await
        };
        match written {
            Ok(_) => {
                let mut ledger = ledger.lock().expect("no panic");
                let done = std::mem::take(&mut ledger.in_flight);
                ledger.known.extend(done);
                writes += 1;
            }
            Err(error) if error.kind == sagitta_model::ErrorKind::Overloaded => {
                ledger.lock().expect("no panic").in_flight.clear();
            }
            Err(_) => return writes,
        }
    }
    writes
}

/// Finds out what became of the write that was on its way, which must be all of it or nothing.
async fn settle(server: &Server, ledger: &Arc<Mutex<Ledger>>) {
    let (in_flight, known) = {
        let mut ledger = ledger.lock().expect("no panic");
        (std::mem::take(&mut ledger.in_flight), ledger.known.clone())
    };
    if in_flight.is_empty() {
        return;
    }
    let ids = in_flight.keys().map(|id| PointId::Num(*id)).collect();
    let found = server.client().get(get("ledger", ids)).await.expect("read");
    let found: BTreeMap<u64, i64> =
        found.iter().map(|record| (number(record.id), n(record.payload.as_ref()))).collect();
    let after = in_flight.iter().all(|(id, state)| found.get(id).copied() == *state);
    let before = in_flight.keys().all(|id| found.get(id).copied() == known.get(id).copied().flatten());
    assert!(after || before, "a write that was cut off is there in part");
    if after {
        ledger.lock().expect("no panic").known.extend(in_flight);
    }
}

async fn check_everything(server: &Server, ledger: &Arc<Mutex<Ledger>>) {
    settle(server, ledger).await;
    let expected: BTreeMap<u64, i64> = {
        let ledger = ledger.lock().expect("no panic");
        ledger.known.iter().filter_map(|(id, state)| Some((*id, (*state)?))).collect()
    };
    let found = all_points(&server.client(), "ledger", None).await;
    let found: BTreeMap<u64, i64> =
        found.iter().map(|record| (number(record.id), n(record.payload.as_ref()))).collect();
    let lost = expected.iter().filter(|(id, _)| !found.contains_key(id)).count();
    let back = found.keys().filter(|id| !expected.contains_key(id)).count();
    let stale = found.iter().filter(|(id, n)| expected.get(id).is_some_and(|expected| expected != *n)).count();
    assert_eq!((lost, back, stale), (0, 0, 0), "lost, back from the dead, stale; of {}", expected.len());
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
