//! How long a restart takes until the first correct answer, by the number of points. It is printed, not judged: figures of
//! one machine. `SAGITTA_RESTART` says which numbers of points, such as `100000,1000000`; without it nothing is done.

use std::path::Path;
use std::time::Duration;

use sagitta_client::{Client, View, Write};
use sagitta_env::Env;
use sagitta_model::{Change, Metric, PointId, Wait};

use crate::harness::{Rng, Server, data, name, number, point, query, schema, searches};

const DIM: u64 = 32;
const BATCH: u64 = 4_000;
/// Restarts of each kind.
const RESTARTS: usize = 5;
/// Overwrites before a kill in the middle of writing: several generations that are in no segment.
const OVERWRITES: u64 = 60_000;
const PATIENCE: Duration = Duration::from_secs(3_600);

/// How a server ended before it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Told to, with everything indexed.
    Stopped,
    /// `kill -9`, with everything indexed.
    Killed,
    /// `kill -9` with points that are in no segment yet.
    KilledWriting,
}

#[test]
fn every_restart_finds_its_points_and_says_how_long_it_took() {
    let Ok(sizes) = std::env::var("SAGITTA_RESTART") else {
        println!("SKIPPED: SAGITTA_RESTART does not say how many points");
        return;
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let mut medians = Vec::new();
    for points in sizes.split(',').map(|size| size.parse::<u64>().expect("a number of points")) {
        let temp = tempfile::tempdir().expect("a temporary folder");
        medians.push((points, runtime.block_on(restarts(&data(&temp), points))));
    }
    if let [(few, first), .., (many, last)] = &medians[..] {
        for ((end, first), (_, last)) in first.iter().zip(last) {
            let ratio = last.as_secs_f64() / first.as_secs_f64();
            println!("{end:?}: {many} points take {ratio:.2} times as long as {few}");
        }
    }
}

/// The median times of each kind.
async fn restarts(data: &Path, points: u64) -> Vec<(End, Duration)> {
    let dim = number("SAGITTA_DIM", DIM);
    let env = Env::real();
    let begun = env.now();
    let mut server = Server::start(data);
    load(&server.client(), points, dim).await;
    let info = server.client().get_collection(name("c"), View::Full).await.expect("shown");
    println!("{points} points of {dim} values loaded and indexed in {:?}: {:?}", env.now() - begun, info.statistics);
    let mut medians = Vec::new();
    for end in [End::Stopped, End::Killed, End::KilledWriting] {
        let mut times = Vec::new();
        for turn in 0..RESTARTS as u64 {
            if end == End::KilledWriting {
                overwrite(&server.client(), points, dim).await;
            }
            if end == End::Stopped {
                assert!(server.terminate(), "a clean end");
            } else {
                server.kill();
            }
            let begun = env.now();
            server = Server::start(data);
            let ready = env.now() - begun;
            let id = (turn * 7_919 + points / 2) % points;
            find(&server.client(), id, dim).await;
            times.push((env.now() - begun, ready));
        }
        times.sort();
        println!("{points} points, {end:?}: first answer, ready: {times:?}");
        medians.push((end, times[times.len() / 2].0));
    }
    medians
}

async fn load(client: &Client, points: u64, dim: u64) {
    client.create_collection(name("c"), schema(dim as usize, Metric::L2)).await.expect("created");
    let client = client.with_deadline(PATIENCE);
    for first in (0..points).step_by(BATCH as usize) {
        let batch: Vec<_> = (first..points.min(first + BATCH)).map(|id| point(id, vector(id, dim), 0)).collect();
        write(&client, batch, Wait::Committed).await;
    }
    write(&client, vec![point(0, vector(0, dim), 0)], Wait::Indexed).await;
}

async fn overwrite(client: &Client, points: u64, dim: u64) {
    for first in (0..OVERWRITES.min(points)).step_by(BATCH as usize) {
        let batch = (first..first + BATCH).map(|id| point(id % points, vector(id % points, dim), 1)).collect();
        write(client, batch, Wait::Committed).await;
    }
}

/// Waits for a server that is behind with sealing.
async fn write(client: &Client, points: Vec<sagitta_model::Point>, wait: Wait) {
    loop {
        let change = Change::Upsert(points.clone());
        match client.write(Write { collection: name("c"), change, wait, request_id: None }).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind, sagitta_model::ErrorKind::Overloaded, "{error}"),
        }
    }
}

/// A point is the nearest to itself.
async fn find(client: &Client, id: u64, dim: u64) {
    let answer = client.search(searches("c", query(vector(id, dim), 1))).await.expect("answered");
    assert_eq!(answer.results[0].hits[0].id, PointId::Num(id));
}

fn vector(id: u64, dim: u64) -> Vec<f32> {
    Rng::new(id.wrapping_mul(0x2545_f491_4f6c_dd1d)).vector(dim as usize)
}
