//! A server that is short of memory or disk refuses data before it is too late, and everything else goes on.

use std::time::Duration;

use sagitta_client::{Client, ClientConfig, ClientError, RetryPolicy, View};
use sagitta_model::{ErrorKind, Metric, Point, PointId};

use crate::harness::{Rng, Server, all_points, data, get, name, point, query, schema, searches};
use crate::small_disk::SmallDisk;

const DIM: usize = 8;
/// Of payload that goes with each point: what fills memory and disk is not only vectors.
const TEXT_BYTES: usize = 32 << 10;
const BATCH: u64 = 100;
/// Half a gigabyte: more than there is of either.
const MOST_BATCHES: u64 = 160;
/// Refusals for another reason, in a row or not, before a test gives up.
const MOST_OTHERS: u64 = 100_000;
const DISK_MEBIBYTES: u64 = 384;
/// What a server keeps of such a disk.
const RESERVE_BYTES: u64 = (DISK_MEBIBYTES << 20) / 8;

/// A client that takes a refusal as the answer, and one that waits as long as it is told to.
fn clients(server: &Server) -> (Client, Client) {
    let mut config = ClientConfig::new(server.endpoint.clone());
    config.retry = RetryPolicy::NEVER;
    let hasty = Client::connect(config.clone()).expect("a valid endpoint");
    config.retry = RetryPolicy { max_attempts: 50, ..RetryPolicy::default() };
    config.deadline = Duration::from_secs(300);
    (hasty, Client::connect(config).expect("a valid endpoint"))
}

fn batch(rng: &mut Rng, number: u64) -> Vec<Point> {
    let points = (number * BATCH..(number + 1) * BATCH).map(|id| {
        let mut point = point(id, rng.vector(DIM), id as i64);
        // Text that compresses to nothing would not fill a disk.
        let text: String = (0..TEXT_BYTES).map(|_| (b' ' + rng.below(95) as u8) as char).collect();
        point.payload.insert("text".into(), text.as_str().into());
        point
    });
    points.collect()
}

/// Writes batches until one is refused for this shortage; returns how many were taken, and the refusal.
async fn fill(client: &Client, rng: &mut Rng, shortage: &str) -> (u64, ClientError) {
    let (mut number, mut other) = (0, 0);
    while number < MOST_BATCHES {
        match client.upsert(name("c"), batch(rng, number)).await {
            Ok(_) => number += 1,
            Err(error) if error.message.contains(shortage) => {
                println!("after {number} batches: {error}");
                return (number, error);
            }
            // Asked to slow down: this caller does not, but another shortage is not what is tested.
            Err(error) => {
                other += 1;
                assert!(error.kind == ErrorKind::Overloaded && other < MOST_OTHERS, "{error:?}");
            }
        }
    }
    panic!("{number} batches were taken and none refused");
}

async fn refuses_data(client: &Client) -> bool {
    let info = client.get_collection(name("c"), View::Full).await.expect("described");
    info.statistics.expect("asked for").refuses_data
}

/// Asserts that whoever reads or deletes does not notice.
async fn check_all_but_data(hasty: &Client, taken: u64) {
    let ids = vec![PointId::Num(0), PointId::Num(taken * BATCH - 1)];
    assert_eq!(hasty.get(get("c", ids)).await.expect("read").len(), 2);
    let found = hasty.search(searches("c", query(vec![1.0; DIM], 10))).await.expect("searched");
    assert_eq!(found.results[0].hits.len(), 10);
    hasty.delete(name("c"), vec![PointId::Num(0)]).await.expect("deleted");
    assert_eq!(hasty.get(get("c", vec![PointId::Num(0)])).await.expect("read"), []);
}

#[tokio::test]
async fn short_of_memory_a_server_refuses_data_with_figures_reads_and_deletes_and_recovers() {
    let seed = 7;
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let temp = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start_with(&data(&temp), &["--memory", "64MiB"]);
    let (hasty, patient) = clients(&server);
    hasty.create_collection(name("c"), schema(DIM, Metric::L2)).await.expect("created");
    // A generation holds 16,384 rows and is sealed when it is full: memory runs out long before.
    let (taken, refusal) = fill(&hasty, &mut rng, "memory is nearly used up").await;
    assert_eq!(refusal.kind, ErrorKind::Overloaded, "{refusal:?}");
    assert!(refusal.message.contains("of a budget of 64 MiB") && refusal.message.contains("--memory"), "{refusal}");
    assert!(refusal.retry_after.is_some(), "{refusal:?}");
    check_all_but_data(&hasty, taken).await;
    // What waits in memory is sealed, and what that frees is given back: by itself, for as long as it takes.
    for number in taken..taken + 3 {
        patient.upsert(name("c"), batch(&mut rng, number)).await.expect("taken again");
    }
    let points = all_points(&patient, "c", None).await;
    assert_eq!(points.len() as u64, (taken + 3) * BATCH - 1);
    assert!(server.terminate(), "a clean end");
}

#[tokio::test]
async fn short_of_disk_a_server_refuses_data_before_it_is_full_reads_and_deletes_and_recovers() {
    let seed = 8;
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let temp = tempfile::tempdir().expect("a temporary folder");
    let Some(disk) = SmallDisk::mount(temp.path(), DISK_MEBIBYTES) else {
        return;
    };
    let folder = disk.path.join("data");
    disk.fill(128);
    let server = Server::start(&folder);
    let (hasty, patient) = clients(&server);
    hasty.create_collection(name("c"), schema(DIM, Metric::L2)).await.expect("created");
    let (taken, refusal) = fill(&hasty, &mut rng, "the disk is nearly full").await;
    assert_eq!(refusal.kind, ErrorKind::Overloaded, "{refusal:?}");
    assert!(refusal.message.contains("of 384 MiB"), "{refusal}");
    assert!(refuses_data(&hasty).await);
    // The coordinator learns of the shortage by the node's next report.
    let created = loop {
        match hasty.create_collection(name("d"), schema(DIM, Metric::L2)).await {
            Ok(_) => hasty.delete_collection(name("d"), false).await.expect("deleted"),
            Err(refused) => break refused,
        }
    };
    assert_eq!(created.kind, ErrorKind::Overloaded, "{created:?}");
    let there = hasty.create_collection(name("c"), schema(DIM, Metric::L2)).await.expect_err("not repeated");
    assert_eq!(there.kind, ErrorKind::Conflict, "{there:?}");
    check_all_but_data(&hasty, taken).await;
    disk.free();
    patient.upsert(name("c"), batch(&mut rng, taken)).await.expect("taken again");
    drop((hasty, patient));
    server.kill();
    let server = Server::start(&folder);
    assert_eq!(all_points(&server.client(), "c", None).await.len() as u64, (taken + 1) * BATCH - 1);

    // Deleting makes room, although a delete takes some itself. And it does although somebody else has taken most of the
    // reserve, and what runs in the background may take the rest.
    disk.fill_leaving(RESERVE_BYTES / 2);
    let (hasty, patient) = clients(&server);
    // What is let in before the server has looked would wait on a full disk until its deadline.
    while !refuses_data(&patient).await {}
    let (_, refusal) = fill(&hasty, &mut rng, "the disk is nearly full").await;
    assert_eq!(refusal.kind, ErrorKind::Overloaded, "{refusal:?}");
    patient.delete_collection(name("c"), false).await.expect("deleted");
    patient.create_collection(name("d"), schema(DIM, Metric::L2)).await.expect("there is room");
    patient.upsert(name("d"), batch(&mut rng, 0)).await.expect("taken again");
}
