//! Shards are split while they are written to and read: what was acknowledged stays, and no read shows a point twice or not at all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sagitta_callers::{Dice, Look, Steady, contents, number, point, seed};
use sagitta_client::Client;
use sagitta_env::{Env, JoinHandle};
use sagitta_history::{History, PointInput, PointOutput, Points, require, unsettled};
use sagitta_model::{Consistency, PointId, shard_hash};
use serde_json::Value;

use crate::commands::{list, text};
use crate::harness::{Cluster, Member, breathe, eventually, run};
use crate::ran::{CONFLICT, DONE, NOT_FOUND, USAGE};
use crate::workload::{CALL, Workload, at_rest, create};

pub(crate) const IDS: u64 = 24;
const STEADY: u64 = 300;
pub(crate) const WRITES: u64 = 60;
/// Times that the leader of a shard that is being split is killed; `SAGITTA_SPLITS` runs more.
const KILLS: u64 = 4;

/// Reads the steady points again and again, by all kinds of reads.
pub(crate) struct Readers {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    /// The longest that a read took, by whether it had to be of the latest.
    longest: Arc<Mutex<BTreeMap<bool, Duration>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(crate) fn start(cluster: &Cluster, steady: &Steady) -> Self {
        Self::start_all(cluster, steady, &[true, false], false)
    }

    /// Of a cluster in trouble: a read of the latest may fail, but must not be wrong. Others may be of what a node had that comes back.
    pub(crate) fn start_in_trouble(cluster: &Cluster, steady: &Steady) -> Self {
        Self::start_all(cluster, steady, &[true], true)
    }

    fn start_all(cluster: &Cluster, steady: &Steady, kinds: &[bool], may_fail: bool) -> Self {
        let (stop, looks, longest) =
            <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<Mutex<BTreeMap<bool, Duration>>>)>::default();
        let start = |(number, (look, latest)): (usize, (Look, bool))| {
            let client = cluster.client(cluster.coordinators()[number % cluster.coordinators().len()], CALL);
            let (steady, stop, looks, longest) = (steady.clone(), stop.clone(), looks.clone(), longest.clone());
            let consistency = if latest { Consistency::Strong } else { Consistency::Eventual };
            Env::real().spawn(async move {
                while !stop.load(Ordering::Acquire) {
                    let env = Env::real();
                    let began = env.now();
                    let seen = steady.look(&client, look, consistency.clone()).await;
                    match seen {
                        Ok(()) => {
                            note(&longest, latest, env.now() - began);
                            looks.fetch_add(1, Ordering::AcqRel);
                        }
                        Err(error) => assert!(may_fail, "{look:?}, latest: {latest}: {error}"),
                    }
                    breathe(5).await;
                }
            })
        };
        let all = kinds.iter().flat_map(|latest| Look::ALL.map(|look| (look, *latest)));
        let tasks = all.enumerate().map(start).collect();
        Self { stop, looks, longest, tasks }
    }

    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Acquire)
    }

    /// The longest reads since this was asked last: eventual ones, and those of the latest.
    pub(crate) fn longest(&self) -> (Duration, Duration) {
        let longest = std::mem::take(&mut *self.longest.lock().unwrap_or_else(PoisonError::into_inner));
        let of = |latest| longest.get(&latest).copied().unwrap_or_default();
        (of(false), of(true))
    }

    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Release);
        for task in self.tasks {
            task.await.expect("every read has shown each point once");
        }
    }
}

fn note(longest: &Mutex<BTreeMap<bool, Duration>>, latest: bool, took: Duration) {
    let mut longest = longest.lock().unwrap_or_else(PoisonError::into_inner);
    let known = longest.entry(latest).or_default();
    *known = took.max(*known);
}

pub(crate) async fn write_steady(cluster: &Cluster, client: &Client) -> Steady {
    let steady = Steady::new("points", IDS, STEADY);
    client.upsert(sagitta_callers::name("points"), steady.points()).await.expect("written");
    // Any replica may be asked.
    for look in Look::ALL {
        for at in cluster.coordinators() {
            let client = cluster.client(at, CALL);
            eventually("a read", async || steady.look(&client, look, Consistency::Strong).await).await;
        }
    }
    settle(cluster).await;
    steady
}

/// Waits until every replica has applied what the leader has.
pub(crate) async fn settle(cluster: &Cluster) {
    let settled = async || {
        for shard in shards(cluster) {
            let shown = cluster.json(&["shard", "show", &shard["id"].to_string()]);
            let lags = list(&shown, "replicas").iter().any(|replica| replica["lag_entries"] != 0);
            if shown["health"] != "healthy" || lags {
                return Err(shown.to_string());
            }
        }
        Ok(())
    };
    eventually("replicas that lack nothing", settled).await;
}

pub(crate) fn shards(cluster: &Cluster) -> Vec<Value> {
    list(&cluster.json(&["shard", "list", "--collection", "points"]), "shards").clone()
}

/// Asks for a split, and says which operation and which new shard that is.
async fn begin(cluster: &Cluster, shard: u64) -> (u64, u64) {
    let id = shard.to_string();
    let begun = eventually("a split", async || {
        let ran = cluster.ask(&["shard", "split", "points", &id, "--output", "json"]);
        if ran.err.is_empty() { Ok(ran.ends_with(DONE).json()) } else { Err(ran.err) }
    });
    let begun = begun.await;
    let operation = &begun["operation"];
    assert_eq!((text(operation, "kind"), &operation["shard"]), ("split", &Value::from(shard)), "{begun:#}");
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{begun:#}"));
    (number(&operation["id"]), number(&operation["split"]["shard"]))
}

/// Waits until a split is done.
async fn done(client: &Client, operation: u64) {
    let ended = async || match client.get_operation(operation).await {
        Ok(shown) if shown.work.step() == "done" => Ok(()),
        Ok(shown) => Err(format!("{shown:?}")),
        Err(error) => Err(error.to_string()),
    };
    eventually("the end of a split", ended).await;
}

/// The points at rest must be what was acknowledged, or may have been, and those that nobody changed.
pub(crate) async fn settled(cluster: &Cluster, history: &History<PointInput, PointOutput>) {
    for client in cluster.clients(CALL * 4) {
        let mut found = at_rest(&client, "points", IDS + STEADY).await;
        let all = found.len() as u64;
        found.retain(|id, _| *id < IDS);
        assert_eq!((unsettled(history, &found), all - found.len() as u64), (Vec::new(), STEADY));
    }
}

/// Each shard has the points whose hashes are its own, by what its leader tells.
pub(crate) async fn each_has_its_own(cluster: &Cluster, client: &Client) {
    let found = contents(client, "points").await.expect("a cluster at rest answers");
    let hash = |shard: &Value, key: &str| u64::from_str_radix(text(shard, key), 16).expect("a hash");
    let own = async || {
        let mut shards = shards(cluster);
        shards.sort_by_key(|shard| hash(shard, "first_hash"));
        let mut next = Some(0);
        for shard in &shards {
            let (first, last) = (hash(shard, "first_hash"), hash(shard, "last_hash"));
            assert_eq!(Some(first), next, "{shards:#?}");
            next = last.checked_add(1);
            let own = found.keys().filter(|id| (first..=last).contains(&shard_hash(PointId::Num(**id)))).count();
            if shard["points"] != own {
                return Err(format!("{own} points are of {shard:#}"));
            }
        }
        assert_eq!(next, None, "{shards:#?}");
        Ok(())
    };
    eventually("the points of each shard", own).await;
}

#[test]
fn shards_are_split_while_they_are_written_to_and_no_read_shows_a_point_twice_or_not_at_all() {
    let seed = seed();
    let cluster = Cluster::start(3, 3);
    run(async {
        create(&cluster, 2).await;
        let client = cluster.client(0, CALL * 6);
        let steady = write_steady(&cluster, &client).await;
        cluster.ask(&["shard", "split", "points", "99"]).ends_with(NOT_FOUND).says("sagitta shard list");
        cluster.ask(&["shard", "split", "other", "16"]).ends_with(USAGE).says("shard 16 is of points, not of other");
        let dry = cluster.ask(&["shard", "split", "points", "16", "--dry-run"]).ends_with(DONE);
        dry.shows("shard 16 would be split").shows("the new shard has those from 4000000000000000 on");
        cluster.ask(&["operation", "list", "--all"]).ends_with(DONE).shows("no operations");

        let workload = Workload::new("points", IDS, true);
        let clients = workload.start(&cluster, 5, seed);
        let readers = Readers::start(&cluster, &steady);
        workload.wait_for(WRITES).await;
        let (quiet, reads) = (workload.wait_for(WRITES).await, readers.longest());
        println!("seed {seed}: longest time between two writes, longest eventual and strong reads");
        println!("without a split: {quiet:?}, {reads:?}");
        let mut last = 0;
        // Both, and one of the halves.
        for shard in [16, 17, 18] {
            let (operation, right) = begin(&cluster, shard).await;
            let ((), gap) = tokio::join!(done(&client, operation), workload.wait_for(WRITES));
            let (eventual, strong) = readers.longest();
            println!("shard {shard} becomes {shard} and {right}: {gap:?}, {eventual:?}, {strong:?}");
            let shown = cluster.ask(&["operation", "show", &operation.to_string()]).ends_with(DONE);
            shown
                .shows(": split, step done")
                .shows(&format!("shard {right}, which has"))
                .shows("somebody asked for it");
            last = operation;
            let looks = readers.looks();
            eventually("reads of both", async || match readers.looks() {
                more if more > looks + 40 => Ok(()),
                more => Err(format!("{more} after {looks}")),
            })
            .await;
        }
        cluster.ask(&["operation", "cancel", &last.to_string()]).ends_with(CONFLICT).says("it has ended");
        cluster.ask(&["shard", "list"]).ends_with(DONE).shows("12.5%").shows("25%");
        readers.stop().await;
        let history = workload.stop(clients).await;
        require(&Points, &history, &format!("points of seed {seed}"));
        settled(&cluster, &history).await;
        assert_eq!(workload.refused(), 0, "a split is waited for");
        assert_eq!(shards(&cluster).len(), 5);
        each_has_its_own(&cluster, &client).await;
        for look in Look::ALL {
            steady.look(&client, look, Consistency::Strong).await.expect("read");
        }
    });
}

#[test]
fn a_split_goes_on_when_the_leader_of_the_shard_is_killed_at_any_moment_of_it() {
    let (seed, kills) = (seed(), number("SAGITTA_SPLITS", KILLS));
    let mut cluster = Cluster::start(3, 3);
    run(async {
        create(&cluster, 1).await;
        let client = cluster.client(0, CALL * 6);
        let steady = write_steady(&cluster, &client).await;
        let workload = Workload::new("points", IDS, true);
        let clients = workload.start(&cluster, 5, seed);
        let (mut dice, mut shard) = (Dice::new(seed), 16);
        for kill in 0..kills {
            workload.wait_for(WRITES).await;
            let leader = leader(&cluster, &client, shard).await;
            let (operation, right) = begin(&cluster, shard).await;
            let after = dice.below(600);
            breathe(after).await;
            let step = cluster.json(&["operation", "show", &operation.to_string()])["step"].clone();
            cluster.kill(leader);
            let gap = workload.wait_for(WRITES).await;
            cluster.restart(leader);
            done(&client, operation).await;
            println!(
                "kill {kill}: {after} ms after shard {shard} was to be split, at {step}: writes went on after {gap:?}"
            );
            for look in Look::ALL {
                steady.look(&client, look, Consistency::Strong).await.expect("read");
            }
            shard = if dice.below(2) == 0 { shard } else { right };
        }
        let history = workload.stop(clients).await;
        require(&Points, &history, &format!("points of seed {seed}"));
        settled(&cluster, &history).await;
        each_has_its_own(&cluster, &client).await;
        assert_eq!(shards(&cluster).len() as u64, 1 + kills);
    });
}

/// A shard of more than what it may have is split when nobody asks for it, and its halves are not.
#[test]
fn a_shard_that_has_grown_is_split_unasked() {
    let seed = seed();
    let above = |_: usize, member: &mut Member| member.env.push(("SAGITTA_SPLIT_ABOVE", "128MiB".to_owned()));
    let cluster = Cluster::start_with(3, 3, above);
    run(async {
        create(&cluster, 1).await;
        let client = cluster.client(0, CALL * 6);
        // 160 MiB.
        let (all, batch, long) = (2_560_u64, 64, "x".repeat(64 << 10));
        for from in (0..all).step_by(batch as usize) {
            let large = |id: u64| {
                let mut point = point(id, id);
                point.payload.insert("text".to_owned(), long.as_str().into());
                point
            };
            let points: Vec<_> = (from..from + batch).map(large).collect();
            let write = async || client.upsert(sagitta_callers::name("points"), points.clone()).await;
            eventually("room for a write", write).await;
        }
        eventually("a split", async || match &shards(&cluster)[..] {
            [_, _] => Ok(()),
            other => Err(format!("{other:#?}")),
        })
        .await;
        let listed = cluster.json(&["operation", "list", "--all"]);
        let [split] = &list(&listed, "operations")[..] else { panic!("{listed:#}") };
        let reason = text(split, "reason");
        assert!(reason.starts_with("its points take 1") && reason.ends_with("MiB"), "{reason}");
        assert!(reason.contains("a shard is split above 128.0 MiB"), "{reason}");
        settle(&cluster).await;
        each_has_its_own(&cluster, &client).await;
        assert_eq!(contents(&client, "points").await.expect("read").len() as u64, all);
        for shard in shards(&cluster) {
            let bytes = shard["data_bytes"].as_u64().expect("a number");
            assert!((60 << 20..110 << 20).contains(&bytes), "{shard:#}");
        }
        println!("seed {seed}: {all} points of 64 KiB: {reason}");
    });
}

/// The member that leads a shard.
pub(crate) async fn leader(cluster: &Cluster, client: &Client, shard: u64) -> usize {
    let leader = eventually("a leader", async || {
        let shown = client.get_shard(shard).await.map_err(|error| error.to_string())?;
        shown.leader.ok_or_else(|| "nobody leads".to_owned())
    });
    let leader = leader.await;
    for at in cluster.shard_nodes() {
        if cluster.node_id(client, at).await == leader {
            return at;
        }
    }
    panic!("{leader} leads, who is no shard node");
}
