//! Promise 7: a retry is harmless, however late it comes and in whatever order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sagitta_callers::{Dice, get, name, number, point, schema, seed, told};
use sagitta_client::{Client, RequestId, Write};
use sagitta_env::Env;
use sagitta_model::{Change, Consistency, Wait, WriteResult};

use crate::harness::{Cluster, PATIENCE, breathe, eventually, run};
use crate::workload::{CALL, at_rest, create};

/// Requests that are sent more than once; `SAGITTA_RETRIES` runs more.
const RETRIED: u64 = 500;
/// Times that nodes are killed at least; `SAGITTA_KILLS` runs more.
const KILLS: u64 = 4;
const CLIENTS: u64 = 25;
/// Answers to each request: two at the same time, and about two late ones.
const ANSWERS: u64 = 4;

/// What the clients have seen.
#[derive(Default)]
struct Counts {
    /// Ends the clients, once each has written as often as it should.
    enough: AtomicBool,
    /// Requests that were sent more than once, and answered alike each time.
    retried: AtomicU64,
    answered: AtomicU64,
}

/// Writes one point again and again; what was written before is sent once more in between, late and out of order.
struct Writer {
    id: u64,
    endpoints: Vec<Client>,
    dice: Dice,
    counts: Arc<Counts>,
}

impl Writer {
    /// Returns the last value that it has written.
    async fn run(mut self, writes: u64) -> u64 {
        let mut answers: BTreeMap<u64, WriteResult> = BTreeMap::new();
        for value in 1.. {
            if value > writes && self.counts.enough.load(Ordering::Acquire) {
                return value - 1;
            }
            // Twice at the same time, by coordinators that it draws.
            let (first, second) = tokio::join!(self.send(value), self.send(value));
            assert_eq!(first, second, "point {}, write {value}", self.id);
            answers.insert(value, first);
            for _ in 0..2 {
                let late = 1 + self.dice.below(value);
                let again = self.send(late).await;
                assert_eq!(answers[&late], again, "point {}, write {late} once more, after {value}", self.id);
            }
            self.counts.retried.fetch_add(1, Ordering::AcqRel);
            breathe(self.dice.below(20)).await;
        }
        unreachable!("numbers do not end")
    }

    /// Sends a write until it is answered, by whichever coordinator.
    fn send(&mut self, value: u64) -> impl Future<Output = WriteResult> + use<> {
        let (mut at, endpoints) = (self.dice.below(3) as usize, self.endpoints.clone());
        let (id, env, counts) = (self.id, Env::real(), self.counts.clone());
        async move {
            let until = env.deadline(PATIENCE);
            let request = u128::from(id + 1) << 64 | u128::from(value);
            loop {
                match endpoints[at % 3].write(write(id, value, request)).await {
                    Ok(result) => {
                        counts.answered.fetch_add(1, Ordering::AcqRel);
                        return result;
                    }
                    Err(error) => assert!(!until.has_passed(&env), "point {id}, write {value}: still {error}"),
                }
                at += 1;
                breathe(20).await;
            }
        }
    }
}

fn write(id: u64, value: u64, request: u128) -> Write {
    let change = Change::Upsert(vec![point(id, value)]);
    Write { collection: name("points"), change, wait: Wait::Committed, request_id: Some(RequestId(request)) }
}

#[test]
fn a_request_that_comes_again_changes_nothing_and_is_answered_as_before_while_nodes_are_killed() {
    let (seed, kills, retried) = (seed(), number("SAGITTA_KILLS", KILLS), number("SAGITTA_RETRIES", RETRIED));
    let each = retried.div_ceil(CLIENTS);
    let mut cluster = Cluster::start(3, 3);
    run(async {
        create(&cluster, 2).await;
        let counts = Arc::new(Counts::default());
        let start = |id: u64| {
            let (endpoints, dice, counts) = (cluster.clients(CALL), Dice::new(seed * 1_000 + id), counts.clone());
            Env::real().spawn(Writer { id, endpoints, dice, counts }.run(each))
        };
        let clients: Vec<_> = (0..CLIENTS).map(start).collect();
        // Before each kill, and while nodes are away.
        let between = ANSWERS * retried / (2 * kills + 1);
        let more = async || {
            let target = counts.answered.load(Ordering::Acquire) + between;
            let reached = async || match counts.answered.load(Ordering::Acquire) {
                now if now < target => Err(format!("{now} answers, not {target}")),
                _ => Ok(()),
            };
            eventually("answers go on", reached).await;
        };
        let (mut dice, mut killed) = (Dice::new(seed), 0);
        while killed < kills || counts.retried.load(Ordering::Acquire) < retried {
            more().await;
            let away = [dice.pick(&cluster.coordinators()), dice.pick(&cluster.shard_nodes())];
            let away = &away[dice.below(2) as usize..];
            away.iter().for_each(|at| cluster.kill(*at));
            more().await;
            away.iter().for_each(|at| cluster.restart(*at));
            killed += 1;
        }
        counts.enough.store(true, Ordering::Release);
        let mut last = BTreeMap::new();
        for (id, client) in (0..).zip(clients) {
            last.insert(id, client.await.expect("a client ended well"));
        }
        for client in cluster.clients(CALL * 4) {
            let found = at_rest(&client, "points", CLIENTS).await;
            assert_eq!(found, last, "an old write came once more");
        }
        let (requests, answers) = (counts.retried.load(Ordering::Acquire), counts.answered.load(Ordering::Acquire));
        println!("seed {seed}: {requests} requests sent more than once, {answers} answers, {killed} kills");
        assert!(requests >= retried && killed >= kills, "fewer than {retried} requests or {kills} kills");
    });
}

#[test]
fn a_retried_write_has_one_effect_though_nodes_are_killed_between_the_tries() {
    let seed = seed();
    let mut cluster = Cluster::start(3, 3);
    run(async {
        cluster.client(0, CALL * 6).create_collection(name("points"), schema()).await.expect("created");
        let (mut dice, mut acknowledged) = (Dice::new(seed), 0);
        // Every shard node, and with it certainly the leader, then every coordinator.
        for (id, at) in [3, 4, 5, 0, 1, 2].into_iter().enumerate() {
            let id = id as u64;
            let write = move |value: u64, request: u64| {
                write(id, value, u128::from(seed) << 64 | u128::from(id * 100 + request + 1))
            };
            let away = if at < 3 { at } else { 0 };
            let first = cluster.client(away, Duration::from_secs(3));
            let tried = Env::real().spawn(async move { first.write(write(1_000 + id, 0)).await });
            breathe(dice.below(6)).await;
            cluster.kill(at);
            acknowledged += u64::from(tried.await.expect("no panic").is_ok());
            let other = cluster.client((away + 1) % 3, CALL);
            let retried = eventually("the retry", async || other.write(write(1_000 + id, 0)).await).await;
            eventually("the next write", async || other.write(write(2_000 + id, 1)).await).await;
            let again = eventually("the third try", async || other.write(write(1_000 + id, 0)).await).await;
            assert_eq!(again, retried, "a repeated request is answered as before");
            let read = async || other.get(get("points", vec![id], Consistency::Strong)).await;
            let records = eventually("a read", read).await;
            assert_eq!(told(&records[0]), (id, 2_000 + id), "the first write came once more");
            cluster.restart(at);
        }
        println!("seed {seed}: 6 requests retried over kills, {acknowledged} of the first tries were answered");
    });
}
