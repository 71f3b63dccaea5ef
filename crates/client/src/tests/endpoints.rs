//! Several endpoints: the next is asked when one is gone.

use std::time::Duration;

use sagitta_model::{CollectionName, ErrorKind, Object, Point, PointId};
use sagitta_wire::Failure;
use tokio::net::TcpListener;

use super::fake::{ChunkTurn, Fake, Turn};
use super::proxy::Proxy;
use crate::{Client, ClientConfig, RetryPolicy, UploadOptions};

/// Nothing listens on port 1 of a loopback address.
const NOBODY: &str = "127.0.0.1:1";

fn config(endpoints: &[&str]) -> ClientConfig {
    let retry = RetryPolicy { max_attempts: 3, initial_backoff: Duration::from_millis(1), ..RetryPolicy::default() };
    ClientConfig { retry, ..ClientConfig::new(endpoints.join(" , ")) }
}

fn client(endpoints: &[&str]) -> Client {
    Client::connect(config(endpoints)).unwrap()
}

fn docs() -> CollectionName {
    "docs".parse().unwrap()
}

fn point(id: u64) -> Point {
    Point { id: PointId::Num(id), vectors: [(String::new(), vec![1.0])].into(), payload: Object::new() }
}

#[tokio::test]
async fn a_dead_first_endpoint_costs_nothing_but_an_attempt() {
    let fake = Fake::start().await;
    let alive = fake.address.to_string();
    let client = client(&[NOBODY, "127.0.0.1:2", &alive]);
    assert_eq!(client.endpoint(), "http://127.0.0.1:1");
    assert_eq!(client.get_cluster().await.unwrap().id, 7);
    assert_eq!(client.endpoint(), format!("http://{alive}"));
    client.clone().get_cluster().await.unwrap();
    assert_eq!(fake.seen().calls.len(), 2, "it is asked first from then on");
}

#[tokio::test]
async fn when_none_answers_each_is_named_with_its_reason() {
    let fake = Fake::start().await;
    fake.order((0..10).map(|_| Turn::Fail(Failure::new(ErrorKind::Unavailable, "no leader"))));
    let there = format!("http://{}", fake.address);
    let error = client(&[NOBODY, &there]).get_cluster().await.unwrap_err();
    assert_eq!((error.kind, error.attempts), (ErrorKind::Unavailable, 4), "once around, and two more: {error:?}");
    let mut told: Vec<_> = error.unreached.iter().map(|tried| (&*tried.endpoint, &*tried.why)).collect();
    told.sort_unstable();
    assert_eq!((told.len(), told[0].0, told[1]), (2, "http://127.0.0.1:1", (&*there, "no leader")));
    assert!(told[0].1.contains("refused"), "{told:?}");
    let alone = client(&[NOBODY]).get_cluster().await.unwrap_err();
    assert_eq!((alone.attempts, alone.unreached), (3, Vec::new()));
}

#[tokio::test]
async fn what_is_refused_is_asked_nowhere_else() {
    let [first, second] = [Fake::start().await, Fake::start().await];
    for kind in [ErrorKind::Invalid, ErrorKind::NotFound, ErrorKind::Denied, ErrorKind::Internal] {
        first.order([Turn::Fail(Failure::new(kind, "no"))]);
        let client = client(&[&first.address.to_string(), &second.address.to_string()]);
        assert_eq!(client.upsert(docs(), vec![point(1)]).await.unwrap_err().kind, kind);
    }
    assert_eq!(second.seen().calls.len(), 0);
}

#[tokio::test]
async fn a_coordinator_that_dies_in_between_is_replaced_and_a_write_keeps_its_request_id() {
    let [first, second] = [Fake::start().await, Fake::start().await];
    let proxy = Proxy::before(&first.env, first.address).await;
    let client = client(&[&proxy.address.to_string(), &second.address.to_string()]);
    client.upsert(docs(), vec![point(1)]).await.unwrap();
    first.called.notified().await;
    first.order([Turn::Hang]);
    let die = async {
        first.called.notified().await;
        proxy.cut();
    };
    let (result, ()) = tokio::join!(client.upsert(docs(), vec![point(2)]), die);
    result.unwrap();
    let (first, second) = (first.seen(), second.seen());
    assert_eq!((first.calls.len(), second.calls.len()), (2, 1));
    assert!(first.calls[1].request_id.is_some());
    assert_eq!(first.calls[1].request_id, second.calls[0].request_id);
    assert_ne!(first.calls[0].request_id, second.calls[0].request_id);
}

#[tokio::test]
async fn one_that_accepts_connections_and_says_nothing_is_left() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fake = Fake::start().await;
    let addresses = [mute.local_addr().unwrap().to_string(), fake.address.to_string()];
    let config = config(&[&addresses[0], &addresses[1]]);
    let client = Client::connect(ClientConfig { keepalive: Duration::from_millis(50), ..config }).unwrap();
    client.upsert(docs(), vec![point(1)]).await.unwrap();
    assert_eq!(client.endpoint(), format!("http://{}", fake.address));
}

#[tokio::test]
async fn founding_is_never_tried_at_a_second_endpoint() {
    let fake = Fake::start().await;
    let error = client(&[NOBODY, &fake.address.to_string()]).init_cluster().await.unwrap_err();
    assert_eq!((error.kind, error.attempts), (ErrorKind::Unavailable, 1));
    assert_eq!(fake.seen().calls.len(), 0);
}

#[tokio::test]
async fn an_upload_goes_on_at_the_next_endpoint_with_the_same_request_ids() {
    let [first, second] = [Fake::start().await, Fake::start().await];
    let broken = ChunkTurn::Break(Failure::new(ErrorKind::Unavailable, "stopping").with_retry_after(Duration::ZERO));
    first.order_chunks([ChunkTurn::Acknowledge, broken]);
    let client = client(&[NOBODY, &first.address.to_string(), &second.address.to_string()]);
    let options = UploadOptions { chunk_points: 10, ..UploadOptions::default() };
    let mut upload = client.upload(docs(), tokio_stream::iter((0..30).map(point)), options);
    let mut acknowledged = 0;
    while let Some(ack) = upload.next().await {
        acknowledged += ack.unwrap().points;
    }
    assert_eq!(acknowledged, 30);
    let (first, second) = (first.seen(), second.seen());
    assert_eq!(second.points.len(), 20, "what the first one acknowledged is not sent again");
    let again = &second.chunks[0];
    let before = first.chunks.iter().find(|chunk| chunk.ids == again.ids).expect("sent to the first one");
    assert_eq!(before.request_id, again.request_id);
}

#[tokio::test]
async fn endpoints_that_cannot_be_any_are_refused_at_once() {
    for (bad, says) in [(&["a", ""][..], "host:port"), (&["a", "ftp://b"], "only `http`"), (&[""], "host:port")] {
        let error = Client::connect(config(bad)).unwrap_err();
        assert!(error.violations[0].field == "endpoint" && error.message.contains(says), "{bad:?}: {error}");
    }
    let many: Vec<_> = (1..=17).map(|n| format!("10.0.0.{n}")).collect();
    let error = Client::connect(config(&many.iter().map(String::as_str).collect::<Vec<_>>())).unwrap_err();
    assert!(error.message.contains("at most 16"), "{error}");
    let twice = client(&[NOBODY, "http://127.0.0.1:1/"]).get_cluster().await.unwrap_err();
    assert_eq!((twice.attempts, twice.unreached), (3, Vec::new()), "the same one twice is one");
}
