//! Uploads: credit is heeded, order is kept, nothing is lost and nothing is written twice.

use std::time::Duration;

use sagitta_model::*;
use sagitta_wire::Failure;
use sagitta_wire::upload::Credit;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

use super::fake::{ChunkTurn, Fake, Turn};
use super::proxy::Proxy;
use crate::{Client, ClientConfig, ClientError, RetryPolicy, Upload, UploadAck, UploadOptions, UploadRun};

fn client(address: impl std::fmt::Display) -> Client {
    let retry = RetryPolicy { max_attempts: 4, initial_backoff: Duration::from_millis(1), ..RetryPolicy::default() };
    Client::connect(ClientConfig { retry, ..ClientConfig::new(address.to_string()) }).unwrap()
}

fn docs() -> CollectionName {
    "docs".parse().unwrap()
}

fn point(id: u64) -> Point {
    Point { id: PointId::Num(id), vectors: [(String::new(), vec![id as f32])].into(), payload: Object::new() }
}

fn options(chunk_points: usize) -> UploadOptions {
    UploadOptions { chunk_points, ..UploadOptions::default() }
}

fn points(ids: impl IntoIterator<Item = u64>) -> impl Stream<Item = Point> + Unpin {
    tokio_stream::iter(ids.into_iter().map(point).collect::<Vec<_>>())
}

fn away() -> Failure {
    Failure::new(ErrorKind::Unavailable, "as ordered").with_retry_after(Duration::ZERO)
}

async fn finish<S: Stream<Item = Point> + Unpin>(mut upload: Upload<S>) -> Result<Vec<UploadAck>, ClientError> {
    let mut acks = Vec::new();
    while let Some(ack) = upload.next().await {
        acks.push(ack?);
    }
    assert!(upload.next().await.is_none(), "the end stays the end");
    Ok(acks)
}

/// The acknowledgements cover the source without gap or overlap.
fn covered(acks: &[UploadAck]) -> u64 {
    let mut next = 0;
    for ack in acks {
        assert_eq!(ack.first, next);
        next += ack.points as u64;
    }
    next
}

#[tokio::test]
async fn points_are_sent_in_chunks_and_acknowledged_in_order() {
    let fake = Fake::start().await;
    let acks = finish(client(fake.address).upload(docs(), points(0..95), options(10))).await.unwrap();
    assert_eq!(covered(&acks), 95);
    assert!(acks.iter().all(|ack| ack.outcome.as_ref().is_ok_and(|result| result.applied == ack.points as u64)));
    let seen = fake.seen();
    assert_eq!((seen.points.len(), seen.streams, seen.credit_exceeded), (95, 1, 0));
    assert_eq!(seen.chunks.len(), 10);
    assert!(seen.chunks.iter().map(|chunk| chunk.sequence).eq(1..=10));
}

#[tokio::test]
async fn a_continued_run_repeats_the_request_ids_of_the_chunks_that_it_repeats() {
    let fake = Fake::start().await;
    let of_run = |id, first| UploadOptions { run: Some(UploadRun { id, first }), ..options(10) };
    let uploads = [(0..40, of_run(u128::MAX, 0)), (20..40, of_run(u128::MAX, 20)), (0..40, of_run(7, 0))];
    for (ids, options) in uploads {
        finish(client(fake.address).upload(docs(), points(ids), options)).await.unwrap();
    }
    let ids: Vec<_> = fake.seen().chunks.iter().map(|chunk| chunk.request_id).collect();
    assert_eq!(ids[2..4], ids[4..6]);
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 8, "each place and run has its own");
}

#[tokio::test]
async fn chunks_are_bounded_in_bytes() {
    let fake = Fake::start().await;
    let small = UploadOptions { chunk_bytes: 200, ..UploadOptions::default() };
    let acks = finish(client(fake.address).upload(docs(), points(0..50), small)).await.unwrap();
    assert_eq!(covered(&acks), 50);
    assert!(acks.len() > 3 && acks.iter().all(|ack| (1..20).contains(&ack.points)), "{acks:?}");
}

fn assert_within_credit(fake: &Fake) {
    let seen = fake.seen();
    assert_eq!((seen.credit_exceeded, seen.streams), (0, 1));
}

#[tokio::test]
async fn what_is_in_flight_stays_within_the_credit_and_uses_it() {
    // Room for two chunks of four points, and a server that answers only when two have come: with less in flight
    // nothing would ever be answered.
    let fake = Fake::with_window(Credit { points: 10, bytes: 1 << 20 }).await;
    let pairs = [ChunkTurn::ApplyQuietly, ChunkTurn::Acknowledge];
    fake.order_chunks((0..10).flat_map(|_| pairs.clone()));
    let acks = finish(client(fake.address).upload(docs(), points(0..80), options(4))).await.unwrap();
    assert_eq!(covered(&acks), 80);
    assert_within_credit(&fake);

    // The same in bytes.
    let fake = Fake::with_window(Credit { points: 10_000, bytes: 500 }).await;
    let acks = finish(client(fake.address).upload(docs(), points(0..80), options(4))).await.unwrap();
    assert_eq!(covered(&acks), 80);
    assert_within_credit(&fake);
}

#[tokio::test]
async fn an_upload_goes_on_after_a_broken_stream_with_the_same_request_ids() {
    let fake = Fake::start().await;
    // The first chunk is acknowledged, the second applied without the client learning of it, the third lost.
    fake.order_chunks([ChunkTurn::Acknowledge, ChunkTurn::ApplyQuietly, ChunkTurn::Break(away())]);
    let acks = finish(client(fake.address).upload(docs(), points(0..60), options(10))).await.unwrap();
    assert_eq!(covered(&acks), 60);
    let seen = fake.seen();
    assert_eq!((seen.points.len(), seen.streams), (60, 2));
    assert!(seen.applied.values().all(|&times| times == 1));
    let on = |stream| seen.chunks.iter().filter(move |chunk| chunk.stream == stream);
    let (first, second): (Vec<_>, Vec<_>) = (on(1).collect(), on(2).collect());
    assert_eq!((first.len(), second.len()), (3, 5));
    for (before, after) in first[1..].iter().zip(&second) {
        assert_eq!((before.request_id, &before.ids), (after.request_id, &after.ids));
    }
}

#[tokio::test]
async fn an_upload_goes_on_after_a_cut_connection() {
    // A small window, so that there is something left to send when the connection is cut.
    let fake = Fake::with_window(Credit { points: 20, bytes: 1 << 20 }).await;
    let proxy = Proxy::before(&fake.env, fake.address).await;
    let mut upload = client(proxy.address).upload(docs(), points(0..500), options(10));
    let mut acks = Vec::new();
    while let Some(ack) = upload.next().await {
        acks.push(ack.unwrap());
        if acks.len() % 10 == 5 {
            proxy.cut();
        }
    }
    assert_eq!(covered(&acks), 500);
    let seen = fake.seen();
    assert_eq!(seen.points.len(), 500);
    assert!(seen.streams > 1, "no connection was cut");
    assert!(seen.applied.values().all(|&times| times == 1));
}

#[tokio::test]
async fn an_upload_that_makes_no_progress_ends() {
    let fake = Fake::start().await;
    fake.order_chunks((0..10).map(|_| ChunkTurn::Break(away())));
    let error = finish(client(fake.address).upload(docs(), points(0..10), options(10))).await.unwrap_err();
    assert_eq!((error.kind, error.attempts), (ErrorKind::Unavailable, 4));
    assert_eq!(fake.seen().streams, 4);

    // Progress in between makes a new start.
    let fake = Fake::start().await;
    fake.order_chunks((0..10).flat_map(|_| [ChunkTurn::Break(away()), ChunkTurn::Acknowledge]));
    let acks = finish(client(fake.address).upload(docs(), points(0..100), options(10))).await.unwrap();
    assert_eq!(covered(&acks), 100);
}

#[tokio::test]
async fn a_stream_that_is_refused_ends_the_upload() {
    let fake = Fake::start().await;
    fake.order([Turn::Fail(Failure::no_collection("docs"))]);
    let error = finish(client(fake.address).upload(docs(), points(0..10), options(10))).await.unwrap_err();
    assert_eq!((error.kind, error.attempts), (ErrorKind::NotFound, 1));
    // Also where there is nothing to send, so that a mistake does not pass for success.
    fake.order([Turn::Fail(Failure::no_collection("docs"))]);
    let error = finish(client(fake.address).upload(docs(), points(0..0), options(10))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(finish(client(fake.address).upload(docs(), points(0..0), options(10))).await.unwrap(), []);
}

#[tokio::test]
async fn a_refused_chunk_is_reported_and_the_others_are_written() {
    let fake = Fake::start().await;
    let violations = vec![Violation::new("chunk.points[3].vectors[\"v\"]", "has 1 dimensions")];
    let problem = Problem { kind: ErrorKind::Invalid, message: "no".to_owned(), violations: violations.clone() };
    fake.order_chunks([ChunkTurn::Acknowledge, ChunkTurn::Refuse(problem)]);
    let acks = finish(client(fake.address).upload(docs(), points(0..40), options(10))).await.unwrap();
    assert_eq!(covered(&acks), 40);
    let refused: Vec<_> = acks.iter().filter_map(|ack| Some((ack.first, ack.outcome.as_ref().err()?))).collect();
    let [(10, error)] = refused[..] else { panic!("{refused:?}") };
    assert_eq!((error.kind, &error.violations), (ErrorKind::Invalid, &violations));
    assert_eq!(fake.seen().points.len(), 30);
}

#[tokio::test]
async fn a_chunk_that_the_server_has_no_room_for_is_sent_again() {
    let fake = Fake::start().await;
    let busy = Problem { kind: ErrorKind::Overloaded, message: "busy".to_owned(), violations: Vec::new() };
    fake.order_chunks([ChunkTurn::Refuse(busy.clone()), ChunkTurn::Acknowledge, ChunkTurn::Refuse(busy.clone())]);
    let acks = finish(client(fake.address).upload(docs(), points(0..40), options(10))).await.unwrap();
    assert_eq!(acks.iter().map(|ack| ack.points).sum::<usize>(), 40);
    assert!(acks.iter().all(|ack| ack.outcome.is_ok()));
    {
        let seen = fake.seen();
        assert_eq!((seen.points.len(), seen.streams, seen.chunks.len()), (40, 1, 6));
        assert!(seen.chunks.iter().map(|chunk| chunk.sequence).eq(1..=6));
    }

    fake.order_chunks((0..10).map(|_| ChunkTurn::Refuse(busy.clone())));
    let acks = finish(client(fake.address).upload(docs(), points(0..10), options(10))).await.unwrap();
    let error = acks[0].outcome.as_ref().unwrap_err();
    assert_eq!((error.kind, error.attempts), (ErrorKind::Overloaded, 4));
}

#[tokio::test]
async fn a_point_that_comes_twice_is_written_twice_in_its_order() {
    let fake = Fake::start().await;
    let mut twice: Vec<Point> = (0..10).chain([3, 3]).map(point).collect();
    twice[11].payload.insert("last".to_owned(), true.into());
    let last = twice[11].clone();
    let acks = finish(client(fake.address).upload(docs(), tokio_stream::iter(twice), options(100))).await.unwrap();
    assert_eq!(covered(&acks), 12);
    let seen = fake.seen();
    assert_eq!(seen.chunks.len(), 3);
    assert_eq!(seen.points[&PointId::Num(3)], last);
}

#[tokio::test]
async fn a_slow_source_is_not_held_back_until_a_chunk_is_full() {
    let fake = Fake::start().await;
    let (sender, source) = tokio::sync::mpsc::channel(1);
    let mut upload = client(fake.address).upload(docs(), ReceiverStream::new(source), options(100));
    for id in 0..3 {
        sender.send(point(id)).await.unwrap();
        let ack = upload.next().await.unwrap().unwrap();
        assert_eq!((ack.first, ack.points), (id, 1));
    }
    drop(sender);
    assert!(upload.next().await.is_none());
    assert_eq!(fake.seen().points.len(), 3);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left() {
    let fake = Fake::start().await;
    // Applied and never acknowledged, until another stream asks again.
    fake.order_chunks([ChunkTurn::ApplyQuietly]);
    let impatient = UploadOptions { patience: Duration::from_millis(50), ..options(10) };
    let acks = finish(client(fake.address).upload(docs(), points(0..10), impatient)).await.unwrap();
    assert_eq!(covered(&acks), 10);
    let seen = fake.seen();
    assert_eq!((seen.streams, seen.points.len()), (2, 10));
    assert!(seen.applied.values().all(|&times| times == 1));
}
