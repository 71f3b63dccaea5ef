//! What was acknowledged survives `kill -9`, whatever the server was doing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sagitta_client::{Client, ClientConfig, RetryPolicy};
use sagitta_env::Env;
use sagitta_model::{ErrorKind, IndexPolicy, Metric, Schema};

use crate::harness::{Log, Rng, Server, data, name, number, pause, schema};
use crate::ledger::{COLLECTION, Ledger};

const SEED: u64 = 42;
const DIM: usize = 8;
/// Enough ids that generations fill, freeze and are sealed and merged over and over at 16,384 rows each.
const IDS: u64 = 60_000;
/// Kills in an ordinary run; `SAGITTA_KILLS` asks for more.
const KILLS: u64 = 16;
/// Of so many starts one compares every point, the others a sample.
const FULL_CHECK_EVERY: u64 = 10;
/// Points of one write.
const MOST_POINTS: u64 = 2_000;
/// How long a kill that is meant for a build waits for one to begin.
const BUILD_PATIENCE: Duration = Duration::from_secs(5);
/// Jobs are told of; so is whatever is not as it should be. (That the log ends in a record that was being written is.)
const LOG: &str = "warn,raft_engine=error,sagitta_node=debug";

/// What the kills hit.
#[derive(Debug, Default)]
struct Hits {
    writes: u64,
    seals: u64,
    merges: u64,
    /// Looking through the files of a segment.
    verifications: u64,
    /// Folders of segments that were half built.
    half_built: u64,
}

/// When a server is killed, after a while of writing.
#[derive(Clone, Copy, Debug)]
enum Aim {
    Anything,
    /// As soon as the build thread does something of which the log says this, and a moment later.
    Job(&'static str),
}

#[test]
fn acknowledged_writes_survive_kills_in_the_middle_of_writes_seals_and_merges() {
    let (seed, kills) = (number("SAGITTA_SEED", SEED), number("SAGITTA_KILLS", KILLS));
    println!("seed {seed}, {kills} kills");
    let temp = tempfile::tempdir().expect("a temporary folder");
    let data = data(&temp);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let _within = runtime.enter();
    let ledger = Ledger::new(DIM, IDS);
    let mut rng = Rng::new(seed);
    let mut hits = Hits::default();
    let env = Env::real();
    let begun = env.now();
    for kill in 0..kills {
        let aim = [Aim::Anything, Aim::Job("Seal"), Aim::Job("Merge")][rng.below(3) as usize];
        let (server, log) = start(&data);
        let round = Round { ledger: &ledger, kill, aim, log: &log, data: &data };
        runtime.block_on(round.run(server, &mut rng, &mut hits));
        if kill % 50 == 49 {
            println!("{} kills in {:?}: {hits:?}", kill + 1, env.now() - begun);
        }
    }
    let (server, _log) = start(&data);
    runtime.block_on(ledger.check(&server.client(), &mut rng));
    let took = (env.now() - begun) / u32::try_from(kills.max(1)).expect("a few");
    println!("{} writes acknowledged; killed in the middle of: {hits:?}; {took:?} a kill", ledger.writes());
    assert!(ledger.writes() > kills, "hardly anything was written");
    assert!(kills < 12 || hits.writes > 0 && hits.seals > 0 && hits.merges > 0, "a kind of work was never hit");
}

/// Starts, which must be as if nothing had happened.
fn start(data: &Path) -> (Server, Log) {
    let (server, log) =
        Server::try_start_logging(data, LOG).unwrap_or_else(|said| panic!("the server did not start: {said}"));
    assert_clean(&log);
    (server, log)
}

/// Nothing was out of order.
fn assert_clean(log: &Log) {
    let complaints: Vec<_> =
        log.lines().into_iter().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

struct Round<'a> {
    ledger: &'a Ledger,
    kill: u64,
    aim: Aim,
    log: &'a Log,
    data: &'a Path,
}

impl Round<'_> {
    /// Checks what the last kill left, writes for a while, kills.
    async fn run(&self, server: Server, rng: &mut Rng, hits: &mut Hits) {
        let client = server.client();
        let env = Env::real();
        if self.kill == 0 {
            client.create_collection(name(COLLECTION), self.schema()).await.expect("created");
        } else if self.kill.is_multiple_of(FULL_CHECK_EVERY) {
            self.ledger.check(&client, rng).await;
        } else {
            self.ledger.settle(&client, rng).await;
        }
        let mut config = ClientConfig::new(server.endpoint.clone());
        // Patient with a server that is busy, briefly with one that is gone.
        let (initial_backoff, max_backoff) = (Duration::from_millis(10), Duration::from_millis(50));
        config.retry = RetryPolicy { max_attempts: 8, initial_backoff, max_backoff };
        let client = Client::connect(config).expect("a valid endpoint");
        let gently = Arc::new(AtomicBool::new(false));
        let writer = env.spawn(write_until_it_fails(client, self.ledger.clone(), gently.clone(), rng.below(1 << 40)));
        let patience = Duration::from_millis(20 + rng.below(600));
        let ended = env.timeout(patience, std::future::pending::<()>()).await;
        assert!(ended.is_err());
        if let Aim::Job(kind) = self.aim {
            gently.store(true, Ordering::Release);
            self.wait_for(&env, kind);
            std::thread::park_timeout(Duration::from_micros(rng.below(60_000)));
        }
        assert!(!writer.is_finished(), "a write failed before the kill");
        server.kill();
        writer.await.expect("the writer ends with the server");
        self.log.wait_for_end();
        assert_clean(self.log);
        hits.note(&self.log.lines(), self.ledger, self.data);
    }

    /// An index that is built fast, so that there are many builds; of odd seeds a graph.
    fn schema(&self) -> Schema {
        let mut schema = schema(DIM, Metric::L2);
        let index = if number("SAGITTA_SEED", SEED).is_multiple_of(2) { IndexPolicy::Flat } else { IndexPolicy::Graph };
        schema.vectors.values_mut().for_each(|spec| spec.index = index);
        schema
    }

    /// Waits until a job of this kind is under way.
    fn wait_for(&self, env: &Env, kind: &str) {
        let until = env.deadline(BUILD_PATIENCE);
        while job_under_way(&self.log.lines()).is_none_or(|job| !job.contains(kind)) && !until.has_passed(env) {
            pause();
        }
    }
}

impl Hits {
    fn note(&mut self, lines: &[String], ledger: &Ledger, data: &Path) {
        self.writes += u64::from(ledger.is_in_doubt());
        match job_under_way(lines) {
            Some(job) if job.contains("Seal") => self.seals += 1,
            Some(job) if job.contains("Merge") => self.merges += 1,
            Some(job) if job.contains("Verify") => self.verifications += 1,
            Some(job) => panic!("nothing was damaged, but there was {job}"),
            None => {}
        }
        let shards = std::fs::read_dir(data.join("shards")).expect("the folder is read");
        for shard in shards {
            let segments = shard.expect("an entry").path().join("segments");
            let names = std::fs::read_dir(segments).expect("the folder is read");
            let half = names.filter(|name| name.as_ref().is_ok_and(|name| name.path().extension().is_some()));
            self.half_built += half.count() as u64;
        }
    }
}

/// What the build thread does according to its log.
fn job_under_way(lines: &[String]) -> Option<&String> {
    lines.iter().rev().find(|line| line.contains(" job=")).filter(|line| line.contains(": begun "))
}

/// Writes as fast as it can or, while something is to come about that is less urgent than sealing, in small portions.
async fn write_until_it_fails(client: Client, ledger: Ledger, gently: Arc<AtomicBool>, seed: u64) {
    let mut rng = Rng::new(seed);
    loop {
        let most = if gently.load(Ordering::Acquire) { 10 } else { MOST_POINTS };
        match ledger.write(&client, &mut rng, most).await {
            Ok(_) => {}
            Err(error) if error.kind == ErrorKind::Overloaded => {}
            Err(_) => return,
        }
    }
}
