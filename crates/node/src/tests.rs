//! A node over the twins in memory, with builds that fail or do not end where they are told to.

mod merge;
mod shipping;
mod split;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sagitta_consensus::{ClusterId, Host, HostSettings, Members, MemoryLog, NodeId, Outcome, SilentTransport, States};
use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::index::{
    BuildControl, Built, IndexEngine, IndexError, IndexFile, IndexSpec, Never, Rows, Similarities, VectorIndex,
};
use sagitta_engine::kv::{Fault, MemoryEngine};
use sagitta_env::{Deadline, Env};
use sagitta_model::{
    Change, Effort, ErrorKind, FieldType, GroupBy, IndexPolicy, Metric, Object, PayloadSelection, Point, PointId,
    Schema, SearchQuery, Selection, VectorSpec, Wait, limits,
};
use sagitta_shard::codec::Record as _;
use sagitta_shard::{AnswerRoom, Command, Engines, SearchContext, ShardOptions, ShardSpec};

use crate::answer::answer;
use crate::resources::seal_early;
use crate::{Freshness, MemoryBudget, Node, NodeError, NodeOptions, Replica};

/// Dimension of vectors that are indexed as usual ...
const USUAL: usize = 2;
/// ... of those whose every build fails ...
const BROKEN: usize = 3;
/// ... and of those whose builds go on until they are stopped.
const ENDLESS: usize = 5;

/// The twin, but for some dimensions.
struct Moody;

impl IndexEngine for Moody {
    fn build(
        &self,
        spec: &IndexSpec,
        rows: Rows<'_>,
        dir: &Path,
        control: &BuildControl<'_>,
    ) -> Result<Built, IndexError> {
        match spec.dim {
            BROKEN => Err(IndexError::Spec { reason: "planted".to_owned() }),
            ENDLESS => {
                wait_until(|| control.stop.should_stop());
                Err(IndexError::Stopped)
            }
            _ => ExactEngine.build(spec, rows, dir, control),
        }
    }

    fn open(&self, dir: &Path, files: &[IndexFile]) -> Result<Arc<dyn VectorIndex>, IndexError> {
        ExactEngine.open(dir, files)
    }

    fn similarities(&self) -> &dyn Similarities {
        IndexEngine::similarities(&ExactEngine)
    }
}

struct Fixture {
    node: Node,
    host: Host,
    disk: Disk,
}

/// What outlives a node.
#[derive(Clone)]
struct Disk {
    dir: Arc<tempfile::TempDir>,
    log: Arc<MemoryLog>,
    kv: MemoryEngine,
}

impl Fixture {
    /// A node that is short of nothing, so that it does by itself only what it is asked for.
    fn start() -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        Self::start_on(Disk { dir, log: Arc::new(MemoryLog::new()), kv: MemoryEngine::new() })
    }

    fn start_on(disk: Disk) -> Self {
        Self::start_in(Env::real(), disk)
    }

    fn start_in(env: Env, disk: Disk) -> Self {
        let node = NodeId(1);
        let host =
            Host::start(&env, HostSettings::new(ClusterId(1), node), disk.log.clone(), Arc::new(SilentTransport));
        let host = host.expect("a host");
        let options = NodeOptions {
            dir: disk.dir.path().to_owned(),
            node,
            search_threads: 1,
            build_threads: 1,
            memory: MemoryBudget::new(1 << 40).expect("a budget"),
            release_memory: || (),
            // What failed is not tried again while a test runs.
            shard: ShardOptions { retry_after: Duration::from_secs(300), ..ShardOptions::default() },
            states: States::default(),
        };
        let engines = Engines { kv: Arc::new(disk.kv.clone()), index: Arc::new(Moody) };
        let node = Node::start(env, options, engines, host.handle()).expect("a node");
        Self { node, host, disk }
    }

    /// Hosts a shard with so many points, all of them growing.
    async fn host(&self, shard: u64, dim: usize, points: u64) -> Arc<Replica> {
        let mut schema = Schema::default();
        schema.vectors.insert("v".to_owned(), VectorSpec { dim, metric: Metric::L2, index: IndexPolicy::Flat });
        schema.fields.insert("group".parse().expect("a path"), FieldType::Keyword);
        self.node.ensure(ShardSpec { collection: 1, shard, schema }, vec![NodeId(1)], None).await.expect("hosted");
        let replica = self.node.replica(shard).expect("hosted");
        if points > 0 {
            write(&replica, 1, dim, 0..points).await;
        }
        replica
    }

    fn seal_early(&self) {
        seal_early(&self.node.replicas, &self.node.builder.bell());
    }
}

fn point(id: u64, dim: usize, text: &str) -> Point {
    let group = ("group".to_owned(), format!("g{}", id % 2).as_str().into());
    let payload = Object::from([group, ("text".to_owned(), text.into())]);
    Point { id: PointId::Num(id), vectors: [("v".to_owned(), vec![id as f32; dim])].into(), payload }
}

async fn write(replica: &Replica, request_id: u128, dim: usize, ids: Range<u64>) {
    let change = Change::Upsert(ids.map(|id| point(id, dim, "")).collect());
    replica.write(request_id, change.into(), Wait::Committed, Deadline::NEVER).await.expect("written");
}

/// A search that returns payloads, of so many points or groups of two.
fn search(k: usize, grouped: bool) -> (SearchQuery, Selection) {
    let group_by = grouped.then(|| GroupBy { field: "group".parse().expect("a path"), size: 2 });
    let query = SearchQuery {
        vector_name: "v".to_owned(),
        vector: vec![0.0; USUAL],
        k,
        min_similarity: None,
        filter: None,
        effort: Effort::Exact,
        group_by,
    };
    (query, Selection { payload: PayloadSelection::All, ..Selection::default() })
}

/// Waits for what another thread brings about.
fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn is_indexed(replica: &Replica) -> bool {
    replica.shard().indexed_index() == replica.shard().applied_index()
}

/// What a node does with a few points, and when it has done it.
async fn simulated_run(seed: u64) -> Vec<(Duration, String)> {
    let (env, _) = Env::simulated(seed);
    let dir = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    let disk = Disk { dir, log: Arc::new(MemoryLog::new()), kv: MemoryEngine::new() };
    let fixture = Fixture::start_in(env.clone(), disk);
    let mut trace = Vec::new();
    let replica = fixture.host(1, USUAL, 0).await;
    for request in 0..20 {
        let points = env.random_below(9) + 1;
        write(&replica, request, USUAL, 0..points).await;
        trace.push((env.now(), format!("{points} points at {}", replica.shard().applied_index())));
    }
    fixture.seal_early();
    while !is_indexed(&replica) {
        // Nothing tells when it is.
        let _ = env.timeout(Duration::from_millis(1), std::future::pending::<()>()).await;
    }
    let found = replica.search([search(5, false)].into(), false, Freshness::Latest, Deadline::NEVER).await;
    let found = found.expect("found");
    trace.push((env.now(), format!("{:?}", found[0].hits)));
    fixture.node.close().await;
    fixture.host.shutdown(env.now() + Duration::from_secs(9)).await.expect("stopped");
    trace.push((env.now(), "stopped".to_owned()));
    trace
}

/// [`Env::thread`] fails in a simulation.
#[tokio::test(start_paused = true)]
async fn a_simulated_node_writes_seals_and_searches_without_threads_and_the_same_seed_gives_the_same_run() {
    for seed in 0..10 {
        assert_eq!(simulated_run(seed).await, simulated_run(seed).await, "seed {seed}");
    }
}

#[tokio::test]
async fn a_shard_that_cannot_be_sealed_holds_up_the_early_sealing_of_no_other() {
    let fixture = Fixture::start();
    let broken = fixture.host(1, BROKEN, 9).await;
    let whole = fixture.host(2, USUAL, 1).await;
    fixture.seal_early();
    wait_until(|| !broken.shard().stats().failed_jobs.is_empty());
    assert!(!is_indexed(&whole), "the largest is the first");
    write(&broken, 2, BROKEN, 9..12).await;
    fixture.seal_early();
    assert_eq!(broken.shard().view().frozen().count(), 1, "more of it would fail as well");
    wait_until(|| is_indexed(&whole));
    fixture.node.close().await;
}

#[tokio::test]
async fn a_flush_waits_for_no_build() {
    let fixture = Fixture::start();
    let building = fixture.host(1, ENDLESS, 1).await;
    let other = fixture.host(2, USUAL, 1).await;
    building.shard().freeze().expect("frozen");
    fixture.node.builder.bell().ring();
    wait_until(|| !building.shard().stats().running_jobs.is_empty());
    fixture.node.builder.bell().ring_for_flush();
    for replica in [&building, &other] {
        wait_until(|| replica.shard().durable_index() == replica.shard().applied_index());
    }
    assert_eq!(building.shard().stats().running_jobs.len(), 1, "it was built all the while");
    fixture.node.close().await;
}

#[tokio::test]
async fn a_build_ends_when_its_replica_is_closed_and_another_shard_is_built() {
    let fixture = Fixture::start();
    let building = fixture.host(1, ENDLESS, 1).await;
    building.shard().freeze().expect("frozen");
    fixture.node.builder.bell().ring();
    wait_until(|| !building.shard().stats().running_jobs.is_empty());
    let shard = building.shard();
    assert!(building.is_present(&shard));
    building.close(Deadline::NEVER).await.expect("closed");
    assert!(!building.is_present(&shard), "it is the state of nobody any more");
    wait_until(|| shard.stats().running_jobs.is_empty());
    drop((building, shard));
    fixture.node.remove(1).await.expect("nothing uses its database");
    let other = fixture.host(2, USUAL, 1).await;
    other.shard().freeze().expect("frozen");
    fixture.node.builder.bell().ring();
    wait_until(|| is_indexed(&other));
    fixture.node.close().await;
}

#[tokio::test]
async fn all_groups_of_an_answer_share_its_room() {
    let fixture = Fixture::start();
    let replica = fixture.host(1, USUAL, 4).await;
    let view = replica.shard().view();
    let context = SearchContext { stop: &Never, explain: false };
    let (query, selection) = search(2, true);
    let answer = |room: usize| answer(&view, &query, &selection, &context, &AnswerRoom::new(room));
    let groups = answer(usize::MAX).expect("there is room").groups;
    let hits = groups.iter().flat_map(|group| &group.hits);
    let weights: Vec<_> = hits.map(|hit| hit.record.as_ref().expect("payloads were selected").weight()).collect();
    assert_eq!((groups.len(), weights.len()), (2, 4));
    let weight = weights.iter().sum();
    assert!(answer(weight).is_ok());
    assert_eq!(answer(weight - 1).expect_err("there is no room for the last").kind(), ErrorKind::Invalid);
    fixture.node.close().await;
}

#[tokio::test]
async fn all_searches_of_a_batch_share_the_room_of_one_answer() {
    const TEXT_BYTES: usize = 1_000_000;
    let fixture = Fixture::start();
    let replica = fixture.host(1, USUAL, 0).await;
    let heavy = Change::Upsert(vec![point(1, USUAL, &"x".repeat(TEXT_BYTES))]);
    replica.write(1, heavy.into(), Wait::Committed, Deadline::NEVER).await.expect("written");
    let batch =
        |count: usize| replica.search(vec![search(1, false); count].into(), false, Freshness::Latest, Deadline::NEVER);
    assert_eq!(batch(8).await.expect("there is room").len(), 8);
    let error = batch(limits::MAX_ANSWER_WEIGHT / TEXT_BYTES + 1).await.expect_err("each has room only if alone");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("split the batch"), "{error}");
    fixture.node.close().await;
}

#[tokio::test]
async fn a_replica_that_comes_back_knows_who_belongs_to_its_group() {
    let fixture = Fixture::start();
    let replica = fixture.host(1, USUAL, 3).await;
    let members = Members { voters: vec![NodeId(1)], learners: vec![NodeId(2)] };
    let changed = replica.group().change_members(members.clone(), Duration::MAX).await;
    assert!(matches!(changed, Outcome::Applied(_)), "{changed:?}");
    write(&replica, 2, USUAL, 3..5).await;
    drop(replica);
    fixture.node.close().await;
    let Fixture { host, disk, .. } = fixture;
    host.shutdown(Duration::MAX).await.expect("an orderly end");

    let fixture = Fixture::start_on(disk);
    let replica = fixture.host(1, USUAL, 0).await;
    assert_eq!(replica.status().membership.members(), members);
    write(&replica, 3, USUAL, 5..6).await;
    fixture.node.close().await;
}

#[tokio::test]
async fn a_write_that_was_applied_is_in_doubt_when_what_it_was_to_wait_for_fails() {
    let fixture = Fixture::start();
    // Whose builds all fail, so that it is never indexed.
    let replica = fixture.host(1, BROKEN, 0).await;
    let change: Arc<_> = Change::Upsert(vec![point(1, BROKEN, "")]).into();
    let deadline = Env::real().deadline(Duration::from_secs(2));
    let error = replica.write(1, change.clone(), Wait::Indexed, deadline).await.expect_err("never indexed");
    assert!(error.is_in_doubt() && error.kind() == ErrorKind::Unavailable, "{error:?}");
    let written = replica.write(1, change, Wait::Committed, Deadline::NEVER).await.expect("by the same request");
    assert_eq!((written.applied, replica.statistics().points), (1, 1));
    fixture.node.close().await;
}

#[tokio::test]
async fn a_split_that_there_is_no_room_for_is_refused_and_not_decided() {
    let fixture = Fixture::start();
    let replica = fixture.host(1, ENDLESS, 1).await;
    let mut request = 2;
    let error = loop {
        replica.shard().freeze().expect("frozen");
        let change = Change::Upsert(vec![point(request, ENDLESS, "")]);
        match replica.write(request.into(), change.into(), Wait::Committed, Deadline::NEVER).await {
            Ok(_) => request += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, NodeError::TooManyUnsealed), "{error}");
    let applied = replica.status().applied;
    let error = replica.split(99, 1 << 63, 2, Deadline::NEVER).await.expect_err("no room");
    assert!(matches!(error, NodeError::TooManyUnsealed), "{error}");
    assert_eq!((replica.status().applied, replica.is_split_from(2)), (applied, false));
    fixture.node.close().await;
}

#[tokio::test]
async fn a_leftover_that_cannot_be_removed_hides_no_shard() {
    let fixture = Fixture::start();
    fixture.host(7, USUAL, 1).await;
    // Where a folder is expected; not even the system's administrator removes it as one.
    let leftover = fixture.disk.dir.path().join("5.removed");
    std::fs::write(&leftover, "planted").expect("written");
    assert_eq!(fixture.node.hosted().expect("the others are found"), [7]);
    assert!(leftover.exists());
    fixture.node.close().await;
}

#[tokio::test]
async fn a_replica_whose_group_has_stopped_is_opened_anew_and_has_what_was_acknowledged() {
    let fixture = Fixture::start();
    let replica = fixture.host(1, USUAL, 3).await;
    let db = fixture.disk.dir.path().join("1").join("db");
    fixture.disk.kv.inject(&db, Fault::WriteError, 0);
    let change: Arc<_> = Change::Upsert(vec![point(9, USUAL, "")]).into();
    // Let in a moment before the database began to fail.
    let command = Command { request_id: 7, after: None, change: change.clone() };
    let outcome = replica.group().propose(command.to_sealed().into(), Duration::MAX).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    let mut changes = fixture.node.changes();
    while fixture.node.stopped().is_empty() {
        changes.changed().await.expect("the node is here");
    }
    fixture.disk.kv.heal(&db);
    drop(replica);
    let replica = fixture.host(1, USUAL, 0).await;
    assert_eq!(fixture.node.stopped(), [] as [u64; 0]);
    replica.write(7, change, Wait::Committed, Deadline::NEVER).await.expect("by the same request");
    assert_eq!(replica.statistics().points, 4);
    drop(replica);
    fixture.node.close().await;
}

#[tokio::test]
async fn a_replica_that_had_a_log_is_not_begun_anew_without_it() {
    let fixture = Fixture::start();
    drop(fixture.host(1, USUAL, 0).await);
    fixture.node.close().await;
    let Fixture { host, disk, .. } = fixture;
    host.shutdown(Duration::MAX).await.expect("an orderly end");
    // Nothing of it had been flushed.
    let fixture = Fixture::start_on(Disk { log: Arc::new(MemoryLog::new()), kv: MemoryEngine::new(), ..disk });
    let mut schema = Schema::default();
    schema.vectors.insert("v".to_owned(), VectorSpec { dim: USUAL, metric: Metric::L2, index: IndexPolicy::Flat });
    schema.fields.insert("group".parse().expect("a path"), FieldType::Keyword);
    let spec = ShardSpec { collection: 1, shard: 1, schema };
    let error = fixture.node.ensure(spec.clone(), vec![NodeId(1)], None).await.expect_err("its log is gone");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("Raft log is gone"), "{error}");
    // Removed, it may come anew.
    fixture.node.remove(1).await.expect("removed");
    fixture.node.ensure(spec, vec![NodeId(1)], None).await.expect("a new one");
    fixture.node.close().await;
}

#[tokio::test]
async fn what_is_applied_searched_and_read_is_work_of_the_replica_and_of_no_other() {
    let fixture = Fixture::start();
    let (replica, other) = (fixture.host(1, USUAL, 5).await, fixture.host(2, USUAL, 0).await);
    let mut before = replica.meter().busy_ns();
    let mut has_worked = |what: &str| {
        let now = replica.meter().busy_ns();
        assert!(now > before, "{what}");
        before = now;
    };
    write(&replica, 2, USUAL, 5..9).await;
    has_worked("applying");
    let all = Freshness::Any;
    replica.search([search(5, false)].into(), false, all, Deadline::NEVER).await.expect("found");
    has_worked("searching");
    replica.get(vec![PointId::Num(1)], Selection::default(), all, Deadline::NEVER).await.expect("read");
    has_worked("reading");
    assert!(replica.data_bytes() >= 9 * 4 * USUAL as u64, "of the vectors at least");
    let idle = other.meter().busy_ns();
    write(&replica, 3, USUAL, 0..9).await;
    assert_eq!(other.meter().busy_ns(), idle);
    fixture.node.close().await;
}
