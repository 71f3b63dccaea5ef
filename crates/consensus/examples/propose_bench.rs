//! How many proposals a second one group takes on this disk, how many fsyncs that costs, and where the time goes.
//!
//! `cargo run --release -p sagitta-consensus --example propose_bench -- [folder] [bytes] [seconds] [apply_micros]`
//! With `apply_micros` the state machine keeps its thread busy for that long per entry.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, run by hand")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagitta_consensus::{
    ApplyError, ClusterId, Committed, GroupHandle, GroupId, GroupSpec, Host, HostSettings, Membership, NodeId, Outcome,
    Position, RaftEngineLog, RaftEngineSettings, SilentTransport, StateMachine,
};
use sagitta_env::Env;

struct Counting {
    env: Env,
    applied: Position,
    per_entry: Duration,
}

impl StateMachine for Counting {
    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Bytes>, ApplyError> {
        let busy_until = self.env.now() + self.per_entry * entries.len() as u32;
        while self.env.now() < busy_until {
            std::hint::spin_loop();
        }
        if let Some(last) = entries.last() {
            self.applied = Position { index: last.index, term: last.term };
        }
        Ok(vec![Bytes::new(); entries.len()])
    }

    fn applied(&self) -> Position {
        self.applied
    }

    fn durable(&self) -> u64 {
        self.applied.index
    }

    fn membership(&self) -> Option<Membership> {
        None
    }

    fn flush(&mut self, _wait: bool) -> Result<(), ApplyError> {
        Ok(())
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(|| std::env::temp_dir().join("propose_bench"), PathBuf::from);
    let mut number = |default: u64| arguments.next().map_or(default, |text| text.parse().unwrap());
    let (bytes, seconds, apply_micros) = (number(1024) as usize, number(5), number(0));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let env = Env::real();
    bare_fsyncs(&env, &folder, bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{bytes} bytes a proposal, {apply_micros} us to apply one, {seconds} s each");
    for callers in [1, 64, 1024] {
        let folder = folder.join(callers.to_string());
        runtime.block_on(run(&env, &folder, callers, bytes, seconds, Duration::from_micros(apply_micros)));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// What the disk itself can do: a write and a sync, over and over.
fn bare_fsyncs(env: &Env, folder: &Path, bytes: usize) {
    let mut file = File::create(folder.join("bare")).unwrap();
    let data = vec![7; bytes];
    let (start, mut waits) = (env.now(), Vec::new());
    while env.now() - start < Duration::from_secs(2) {
        let before = env.now();
        file.write_all(&data).unwrap();
        file.sync_data().unwrap();
        waits.push(env.now() - before);
    }
    waits.sort_unstable();
    let (each, median) = (waits.len() as f64 / 2.0, waits[waits.len() / 2].as_secs_f64() * 1e3);
    println!("bare write + fdatasync: {each:.0}/s, p50 {median:.2} ms");
}

async fn run(env: &Env, folder: &Path, callers: usize, bytes: usize, seconds: u64, per_entry: Duration) {
    let log = Arc::new(RaftEngineLog::open(folder, RaftEngineSettings::default()).unwrap());
    let settings = HostSettings::new(ClusterId(1), NodeId(1));
    let host = Host::start(env, settings, log.clone(), Arc::new(SilentTransport)).unwrap();
    let machine = Counting { env: env.clone(), applied: Position::default(), per_entry };
    let spec = GroupSpec {
        group: GroupId(1),
        found_with: Some(vec![NodeId(1)]),
        found_at: None,
        floor: None,
        stands_first: false,
        alone_from: None,
    };
    let group = host.handle().open_group(spec, Box::new(machine)).await.unwrap();

    let data = Bytes::from(vec![42; bytes]);
    let (start, cpu, syncs) = (env.now(), cpu_by_thread(), log.syncs());
    let end = start + Duration::from_secs(seconds);
    let mut waits = Vec::new();
    let loops: Vec<_> = (0..callers).map(|_| env.spawn(call(env.clone(), group.clone(), data.clone(), end))).collect();
    for one in loops {
        waits.extend(one.await.unwrap());
    }
    let elapsed = (env.now() - start).as_secs_f64();
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let syncs = log.syncs() - syncs;
    println!(
        "{callers:5} callers: {:8.0} proposals/s  {:6.0} fsyncs/s  {:6.1} proposals/fsync  p50 {:.2} ms  p99 {:.2} ms",
        waits.len() as f64 / elapsed,
        syncs as f64 / elapsed,
        waits.len() as f64 / syncs as f64,
        at(0.5),
        at(0.99),
    );
    for (name, ticks) in cpu_by_thread() {
        let before = cpu.iter().find(|(other, _)| *other == name).map_or(0, |(_, ticks)| *ticks);
        let micros = (ticks - before) as f64 * 1e4;
        if micros > 0.0 {
            let each = micros / waits.len() as f64;
            println!("        {name:15} {:5.1} % of a core, {each:6.2} us/proposal", micros / elapsed / 1e4);
        }
    }
    let first = group.status().first;
    drop(group);
    host.shutdown(env.now() + Duration::from_secs(10)).await.unwrap();
    drop(log);
    let sizes = std::fs::read_dir(folder).unwrap().map(|item| item.unwrap().metadata().unwrap().len());
    let megabytes = sizes.sum::<u64>() >> 20;
    let start = env.now();
    drop(RaftEngineLog::open(folder, RaftEngineSettings::default()).unwrap());
    let millis = (env.now() - start).as_secs_f64() * 1e3;
    println!("        reopened {megabytes} MiB, truncated below {first}, in {millis:.1} ms");
}

async fn call(env: Env, group: GroupHandle, data: Bytes, end: Duration) -> Vec<Duration> {
    let mut waits = Vec::new();
    while env.now() < end {
        let start = env.now();
        let outcome = group.propose(data.clone(), start + Duration::from_secs(10)).await;
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
        waits.push(env.now() - start);
    }
    waits
}

/// User and system time of every thread, in hundredths of a second (Linux).
fn cpu_by_thread() -> Vec<(String, u64)> {
    let mut threads = Vec::new();
    for item in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(stat) = std::fs::read_to_string(item.unwrap().path().join("stat")) else { continue };
        let (head, tail) = stat.rsplit_once(") ").unwrap();
        let name = head.split_once('(').unwrap().1.to_owned();
        let field = |n: usize| tail.split(' ').nth(n).unwrap().parse::<u64>().unwrap();
        threads.push((name, field(11) + field(12)));
    }
    threads
}
