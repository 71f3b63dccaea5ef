//! Shards that are merged under three nodes, over the twins and in virtual time.

use std::sync::Arc;
use std::time::Duration;

use sagitta_env::{Deadline, Env};
use sagitta_model::{Change, ErrorKind, HashRange, Wait};
use sagitta_shard::{Beginning, Filling};

use super::split::{ALL, AT, Fleet, LEFT, NODES, RIGHT, num, pause, spec};
use super::{USUAL, point};
use crate::{Freshness, NodeError, Progress, Pull, Pulled, Pump, Replica, Source};

const INTO: u64 = 9;
const MERGE: u64 = 3;
const BEGINNING: Beginning = Beginning { merge: MERGE, range: HashRange::FULL, index: 1 << 32, term: 1 };

/// The replicas of a shard, of which the leader is asked.
struct Replicas {
    env: Env,
    all: Vec<Arc<Replica>>,
}

impl Source for Replicas {
    async fn pull(&self, pull: Pull) -> Result<Pulled, NodeError> {
        loop {
            for replica in &self.all {
                match replica.pull(pull.clone(), Deadline::NEVER).await {
                    Err(NodeError::NotLeader { .. } | NodeError::Unanswered(_)) => {}
                    told => return told,
                }
            }
            pause(&self.env, Duration::from_millis(10)).await;
        }
    }
}

impl Fleet {
    /// Two shards of three nodes, and a third one that is to be filled with both.
    async fn begun(seed: u64) -> Self {
        let mut fleet = Self::start(seed).await;
        let split = fleet.split().await;
        fleet.serve(split).await;
        fleet.all_have_all().await;
        for at in ALL {
            fleet.open_into(at).await;
        }
        fleet
    }

    async fn open_into(&self, at: usize) {
        self.node(at).ensure_filling(spec(INTO), NODES.to_vec(), None, BEGINNING).await.expect("hosted");
    }

    /// Ends a node as a power cut would, and starts it again.
    async fn restart(&mut self, at: usize) {
        self.crash(at).await;
        self.run(at).await;
        while let Err(error) = self.open_right(at).await {
            assert!(matches!(error, NodeError::NotSplit { .. }), "{error}");
            pause(&self.env, Duration::from_millis(10)).await;
        }
        self.open_into(at).await;
    }

    async fn pump(&self) -> Pump<Replicas> {
        let source = |shard| Replicas { env: self.env.clone(), all: ALL.map(|at| self.replica(at, shard)).into() };
        let into = self.replica(self.leader(INTO).await, INTO);
        let (left, right) = HashRange::FULL.split(AT).expect("halves");
        Pump::new(into, MERGE, [(source(LEFT), left), (source(RIGHT), right)])
    }

    /// Has the new shard filled until there is next to nothing left, or nothing.
    async fn fill(&self, pump: &mut Pump<Replicas>, wanted: Progress) {
        for _ in 0..1_000 {
            match pump.round(Deadline::NEVER).await {
                Ok(progress) if progress == wanted => return,
                Ok(_) => {}
                // Another one leads by now, or has made an import.
                Err(error) => {
                    println!("filling: {error}");
                    *pump = self.pump().await;
                    pause(&self.env, Duration::from_millis(10)).await;
                }
            }
        }
        panic!("it does not become {wanted:?}");
    }

    async fn freeze(&self) {
        for shard in [LEFT, RIGHT] {
            self.at_leader(shard, async |leader| leader.freeze(MERGE, Deadline::NEVER).await).await;
        }
    }

    /// Writes to one shard that is there for all, as of a split.
    async fn put(&mut self, shard: u64, ids: std::ops::Range<u64>) {
        self.requests += 1;
        let (request, change) = (self.requests, Change::Upsert(ids.clone().map(|id| point(id, USUAL, "")).collect()));
        let change = Arc::new(change);
        self.at_leader(shard, async |leader| {
            leader.write(request, change.clone(), Wait::Committed, Deadline::NEVER).await
        })
        .await;
        self.written.extend(ids);
    }

    /// Waits until all replicas of the new shard have exactly what was written.
    async fn has_all_of_both(&self) {
        let wanted: Vec<u64> = self.written.iter().copied().collect();
        for at in ALL {
            for _ in 0..6_000 {
                if self.held(at, INTO) == wanted {
                    break;
                }
                pause(&self.env, Duration::from_millis(10)).await;
            }
            assert_eq!(self.held(at, INTO), wanted, "at {at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_shard_has_all_of_two_whoever_is_killed_and_nobody_is_answered_twice() {
    for seed in 11..=13 {
        let mut fleet = Fleet::begun(seed).await;
        let mut pump = fleet.pump().await;
        fleet.fill(&mut pump, Progress::Ready).await;
        for round in 1..5 {
            fleet.write(LEFT, 200 * round..200 * round + 100).await;
            fleet.write(RIGHT, 200 * round..200 * round + 100).await;
            assert!(pump.complete(Deadline::NEVER).await.is_err(), "not everything is there");
            let killed = fleet.leader(*[LEFT, RIGHT, INTO].get(round as usize % 3).expect("one")).await;
            drop(pump);
            fleet.restart(killed).await;
            pump = fleet.pump().await;
            fleet.fill(&mut pump, Progress::Ready).await;
        }
        let into = fleet.replica(fleet.leader(INTO).await, INTO);
        let refused = into.count(None, Freshness::Any, Deadline::NEVER).await.expect_err("it is not open yet");
        assert!(refused.is_of_other_points(), "{refused}");
        fleet.write(LEFT, 2_000..2_050).await;
        fleet.freeze().await;
        for shard in [LEFT, RIGHT] {
            let leader = fleet.replica(fleet.leader(shard).await, shard);
            let refused = leader.count(None, fleet.sight(Freshness::Latest), Deadline::NEVER).await;
            assert!(refused.expect_err("it is frozen").is_of_other_points());
            let (sight, change) = (fleet.sight(Freshness::Latest), Arc::new(Change::Delete(vec![num(1)])));
            let written = leader.write_as_of(sight.split, 77, change, Wait::Committed, Deadline::NEVER).await;
            assert!(written.expect_err("it is frozen").is_of_other_points());
        }
        fleet.fill(&mut pump, Progress::Settled).await;
        pump.complete(Deadline::NEVER).await.expect("it has everything");
        drop((pump, into));
        fleet.has_all_of_both().await;
        fleet.put(INTO, 5_000..5_100).await;
        for at in ALL {
            fleet.restart(at).await;
        }
        fleet.put(INTO, 5_100..5_150).await;
        fleet.has_all_of_both().await;
        let leader = fleet.replica(fleet.leader(INTO).await, INTO);
        assert_eq!((leader.filled_by(), leader.filling()), (Some(MERGE), None));
        let count = leader.count(None, Freshness::Latest, Deadline::NEVER).await.expect("counted");
        assert_eq!(count, fleet.written.len() as u64);
        drop(leader);
        fleet.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_fills_a_shard_that_another_one_fills_begins_anew() {
    let fleet = Fleet::begun(14).await;
    let (mut one, mut other) = (fleet.pump().await, fleet.pump().await);
    fleet.fill(&mut one, Progress::Ready).await;
    fleet.freeze().await;
    // It knew of no import when it began, and there are some: what it has seen is not what is there.
    let step = fleet.replica(fleet.leader(INTO).await, INTO).filling().map(|Filling { step, .. }| step);
    assert!(step.is_some_and(|step| step > 0));
    fleet.fill(&mut other, Progress::Settled).await;
    let refused = one.complete(Deadline::NEVER).await.expect_err("it has not looked since");
    println!("{refused}");
    fleet.fill(&mut one, Progress::Settled).await;
    // Nothing was left to be brought over, so it has not come to know of the other's imports before it asks.
    one.complete(Deadline::NEVER).await.expect_err("another one has made imports");
    fleet.fill(&mut one, Progress::Settled).await;
    one.complete(Deadline::NEVER).await.expect("it has everything");
    other.complete(Deadline::NEVER).await.expect("it is complete already");
    drop((one, other));
    fleet.has_all_of_both().await;
    fleet.stop().await;
}

#[tokio::test(start_paused = true)]
async fn shards_that_are_thawed_work_on_and_a_late_freeze_does_nothing() {
    let mut fleet = Fleet::begun(15).await;
    fleet.freeze().await;
    for shard in [LEFT, RIGHT] {
        fleet.at_leader(shard, async |leader| leader.thaw(MERGE, Deadline::NEVER).await).await;
        let leader = fleet.replica(fleet.leader(shard).await, shard);
        assert_eq!((leader.frozen_by(), leader.thawed()), (None, MERGE));
        let late = leader.freeze(MERGE, Deadline::NEVER).await.expect_err("it came to nothing");
        assert!(matches!(&late, NodeError::Command(problem) if problem.kind == ErrorKind::Conflict), "{late}");
    }
    fleet.write(LEFT, 300..350).await;
    fleet.write(RIGHT, 300..350).await;
    fleet.all_have_all().await;
    fleet.stop().await;
}
