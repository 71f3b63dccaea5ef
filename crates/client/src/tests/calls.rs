//! Single calls: what is repeated, what is not, and what arrives.

use std::time::Duration;

use sagitta_model::*;
use sagitta_wire::{Failure, reason};

use super::fake::{Fake, Turn, record};
use super::proxy::Proxy;
use crate::{Client, ClientConfig, ClientError, Count, Get, RetryPolicy, Scroll, Search, Searches, View, Write};

fn config(endpoint: impl std::fmt::Display) -> ClientConfig {
    let retry = RetryPolicy { max_attempts: 4, initial_backoff: Duration::from_millis(1), ..RetryPolicy::default() };
    ClientConfig { retry, ..ClientConfig::new(endpoint.to_string()) }
}

fn client(fake: &Fake) -> Client {
    Client::connect(config(fake.address)).unwrap()
}

fn docs() -> CollectionName {
    "docs".parse().unwrap()
}

fn fails(kind: ErrorKind) -> Turn {
    Turn::Fail(Failure::new(kind, "as ordered").with_retry_after(Duration::ZERO))
}

fn point(id: u64) -> Point {
    Point { id: PointId::Num(id), vectors: [(String::new(), vec![1.0])].into(), payload: Object::new() }
}

async fn upsert(client: &Client) -> Result<WriteResult, ClientError> {
    client.upsert(docs(), vec![point(1)]).await
}

#[tokio::test]
async fn a_write_is_repeated_with_the_same_request_id() {
    let fake = Fake::start().await;
    let applied_but_unknown = Failure::new(ErrorKind::Unavailable, "after").with_retry_after(Duration::ZERO);
    fake.order([fails(ErrorKind::Unavailable), Turn::ApplyAndFail(applied_but_unknown), fails(ErrorKind::Overloaded)]);
    let result = upsert(&client(&fake)).await.unwrap();
    assert_eq!(result.tokens, [VersionToken { shard: 1, index: 2 }]);
    let seen = fake.seen();
    assert_eq!(seen.calls.len(), 4);
    let id = seen.calls[0].request_id;
    assert!(id.is_some() && seen.calls.iter().all(|call| call.request_id == id), "{:?}", seen.calls);
}

#[tokio::test]
async fn each_write_has_a_request_id_of_its_own_unless_the_caller_names_one() {
    let fake = Fake::start().await;
    let client = client(&fake);
    upsert(&client).await.unwrap();
    client.delete(docs(), vec![PointId::Num(1)]).await.unwrap();
    client.delete_by_filter(docs(), Filter::default()).await.unwrap();
    let target = Target::Ids(vec![PointId::Num(1)]);
    client.update_payload(docs(), target, PayloadChange::Replace(Object::new())).await.unwrap();
    client.create_collection(docs(), schema()).await.unwrap();
    client.delete_collection(docs(), true).await.unwrap();
    let named = Some(crate::RequestId(9));
    let change = Change::Delete(vec![PointId::Num(1)]);
    client.write(Write { collection: docs(), change, wait: Wait::Indexed, request_id: named }).await.unwrap();
    let calls = fake.seen().calls.clone();
    let mut ids: Vec<_> = calls.iter().map(|call| call.request_id.unwrap().0).collect();
    assert_eq!(ids.last(), Some(&9));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 7);
}

#[tokio::test]
async fn a_concurrent_change_is_retried_and_a_thing_that_exists_is_not() {
    let fake = Fake::start().await;
    fake.order([fails(ErrorKind::Conflict), Turn::Fail(Failure::collection_exists("docs"))]);
    let error = client(&fake).create_collection(docs(), schema()).await.unwrap_err();
    assert_eq!((error.kind, error.attempts), (ErrorKind::Conflict, 2));
}

#[tokio::test]
async fn a_wrong_request_is_not_repeated_and_names_its_field() {
    let fake = Fake::start().await;
    let violation = Violation::new("points[0].vectors[\"v\"]", "has 1 dimensions, the collection expects 2");
    fake.order([Turn::Fail(Failure::invalid(violation.clone()))]);
    let error = upsert(&client(&fake)).await.unwrap_err();
    assert_eq!((error.kind, error.attempts), (ErrorKind::Invalid, 1));
    assert_eq!(error.violations, [violation]);
    assert_eq!(fake.seen().calls.len(), 1);

    // What the server refuses by itself arrives with its path, too.
    let error = client(&fake).upsert(docs(), vec![point(1), point(1)]).await.unwrap_err();
    assert_eq!(error.violations[0].field, "points[1].id");
    for kind in [ErrorKind::NotFound, ErrorKind::Denied, ErrorKind::Corrupt, ErrorKind::Internal] {
        fake.order([fails(kind)]);
        let error = upsert(&client(&fake)).await.unwrap_err();
        assert_eq!((error.kind, error.attempts), (kind, 1));
    }
}

#[tokio::test]
async fn attempts_are_bounded() {
    let fake = Fake::start().await;
    fake.order((0..10).map(|_| fails(ErrorKind::Unavailable)));
    let error = upsert(&client(&fake)).await.unwrap_err();
    assert_eq!((error.kind, error.attempts), (ErrorKind::Unavailable, 4));
    assert_eq!(fake.seen().calls.len(), 4);
}

#[tokio::test]
async fn retries_of_all_calls_share_a_budget() {
    let fake = Fake::start().await;
    fake.order((0..1_000).map(|_| fails(ErrorKind::Unavailable)));
    let client = client(&fake);
    for _ in 0..100 {
        upsert(&client).await.unwrap_err();
    }
    // 100 first attempts, and 50 retries in all.
    assert_eq!(fake.seen().calls.len(), 150);
}

#[tokio::test]
async fn a_delay_that_the_server_asks_for_is_not_cut_short() {
    let fake = Fake::start().await;
    let busy = Failure::new(ErrorKind::Overloaded, "busy").with_retry_after(Duration::from_secs(3_600));
    fake.order([Turn::Fail(busy)]);
    // The delay is longer than the deadline, so there is no second attempt to wait for.
    let error = upsert(&client(&fake)).await.unwrap_err();
    assert_eq!((error.kind, error.attempts), (ErrorKind::Overloaded, 1));
    assert_eq!(error.retry_after, Some(Duration::from_secs(3_600)));
}

#[tokio::test]
async fn a_call_ends_by_its_deadline_and_tells_the_server() {
    let fake = Fake::start().await;
    fake.order([Turn::Hang]);
    let error = upsert(&client(&fake).with_deadline(Duration::from_millis(200))).await.unwrap_err();
    assert_eq!((error.kind, &*error.reason), (ErrorKind::Unavailable, reason::DEADLINE_EXCEEDED));
    assert_eq!(error.attempts, 1);
    let timeout = fake.seen().calls[0].timeout.clone().expect("the server is told the deadline");
    assert!(timeout.ends_with('u') || timeout.ends_with('n') || timeout.ends_with('m'), "{timeout}");
}

#[tokio::test]
async fn a_call_that_runs_out_of_time_tells_what_it_was_refused_for_before() {
    let fake = Fake::start().await;
    fake.order([fails(ErrorKind::Conflict), Turn::Hang]);
    let error = upsert(&client(&fake).with_deadline(Duration::from_millis(200))).await.unwrap_err();
    assert_eq!((error.kind, &*error.reason, error.attempts), (ErrorKind::Unavailable, reason::DEADLINE_EXCEEDED, 2));
    assert!(error.message.ends_with("an attempt before failed: as ordered"), "{error:?}");
    assert_eq!(error.told_before.as_deref(), Some("as ordered"));
}

#[tokio::test]
async fn a_conflict_that_lasts_is_told_at_once() {
    let fake = Fake::start().await;
    fake.order([Turn::Fail(Failure::new(ErrorKind::Conflict, "it holds replicas").lasting())]);
    let error = upsert(&client(&fake)).await.unwrap_err();
    assert_eq!((error.kind, &*error.message, error.attempts), (ErrorKind::Conflict, "it holds replicas", 1));
}

#[tokio::test]
async fn a_broken_connection_is_replaced_and_the_call_repeated() {
    let fake = Fake::start().await;
    let proxy = Proxy::before(&fake.env, fake.address).await;
    let client = Client::connect(config(proxy.address)).unwrap();
    upsert(&client).await.unwrap();
    fake.called.notified().await;

    fake.order([Turn::Hang]);
    let cut = async {
        fake.called.notified().await;
        proxy.cut();
    };
    let (result, ()) = tokio::join!(upsert(&client), cut);
    result.unwrap();
    let seen = fake.seen();
    assert_eq!(seen.calls.len(), 3);
    assert_eq!(seen.calls[1].request_id, seen.calls[2].request_id);
    assert_ne!(seen.calls[0].request_id, seen.calls[1].request_id);
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_unavailable() {
    let client = Client::connect(config("127.0.0.1:1")).unwrap();
    let error = upsert(&client).await.unwrap_err();
    assert_eq!((error.kind, error.attempts), (ErrorKind::Unavailable, 4));
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_one_is_refused_at_once() {
    for (bad, says) in
        [("ftp://db:1", "only `http`"), ("", "host:port"), ("a b", "host:port"), ("http://", "host:port")]
    {
        let error = Client::connect(config(bad)).unwrap_err();
        assert_eq!(error.violations[0].field, "endpoint", "{bad}");
        assert!(error.message.contains(says), "{bad}: {error}");
    }
    assert_eq!(Client::connect(config("localhost")).unwrap().endpoint(), "http://localhost:6380");
}

#[test]
fn a_client_outside_of_a_runtime_is_refused() {
    let error = Client::connect(config("localhost:6330")).unwrap_err();
    assert!(error.message.contains("runtime"), "{error}");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_not_sent() {
    let fake = Fake::start().await;
    let client = Client::connect(ClientConfig { max_message_bytes: 100, ..config(fake.address) }).unwrap();
    let error = client.upsert(docs(), (0..100).map(point).collect()).await.unwrap_err();
    assert_eq!((error.kind, error.attempts), (ErrorKind::Invalid, 0));
    assert!(error.message.contains("at most 100"), "{error}");
    assert_eq!(fake.seen().calls.len(), 0);
}

#[tokio::test]
async fn reads_arrive() {
    let fake = Fake::start().await;
    let client = client(&fake);
    let ids = vec![PointId::Uuid(3), PointId::Num(2)];
    let get = Get {
        collection: docs(),
        ids: ids.clone(),
        selection: Selection::default(),
        consistency: Consistency::Eventual,
    };
    assert_eq!(client.get(get).await.unwrap(), ids.into_iter().map(record).collect::<Vec<_>>());
    let count = Count { collection: docs(), filter: None, consistency: Consistency::Strong };
    assert_eq!(client.count(count).await.unwrap(), 1);
    let missing = client.get_collection(docs(), View::Full).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
    let first = client.list_collections(View::Basic, 0, String::new()).await.unwrap();
    let second = client.list_collections(View::Basic, 0, first.next_page_token).await.unwrap();
    assert_eq!(second.next_page_token, "");
}

#[tokio::test]
async fn searches_arrive_alone_and_in_batches() {
    let fake = Fake::start().await;
    let client = client(&fake);
    let ids = |answer: crate::SearchAnswer| -> Vec<_> {
        answer.results.into_iter().map(|result| (result.hits[0].id, result.hits[0].score)).collect()
    };
    let search = |x| Search::nearest(vec![x], 1);
    let one = client.search(Searches::one(docs(), search(5.0))).await.unwrap();
    assert_eq!(ids(one), [(PointId::Num(5), 4.0)]);
    let batch = || Searches::batch(docs(), vec![search(6.0), search(7.0)]);
    let several = client.search(batch()).await.unwrap();
    assert_eq!(ids(several), [(PointId::Num(6), 4.0), (PointId::Num(7), 4.0)]);
    let several = Searches { batch: false, ..batch() };
    assert_eq!(client.search(several).await.unwrap_err().kind, ErrorKind::Invalid);

    let unreadable = client.search(Searches { allow_partial: true, ..batch() }).await.unwrap_err();
    assert_eq!((unreadable.kind, &*unreadable.reason), (ErrorKind::Internal, "ANSWER_UNREADABLE"));
    assert!(unreadable.message.contains("results[0].hits[0].id"), "{unreadable}");
}

#[tokio::test]
async fn a_scroll_walks_all_pages_and_goes_on_after_an_error() {
    let fake = Fake::start().await;
    let client = client(&fake);
    let scroll = || Scroll {
        collection: docs(),
        filter: None,
        selection: Selection::default(),
        consistency: Consistency::Eventual,
    };
    for page_size in [0, 1, 3, 7, 100] {
        let mut scroller = client.scroll(scroll(), page_size);
        let mut ids = Vec::new();
        while let Some(record) = scroller.next().await {
            ids.push(record.unwrap().id);
        }
        assert_eq!(ids, (1..=7).map(PointId::Num).collect::<Vec<_>>(), "pages of {page_size}");
    }

    let mut scroller = client.scroll(scroll(), 3);
    assert_eq!(scroller.next().await.unwrap().unwrap().id, PointId::Num(1));
    assert_eq!(scroller.next_page().await.unwrap().unwrap().len(), 2);
    fake.order([fails(ErrorKind::Unavailable), fails(ErrorKind::Denied)]);
    assert_eq!(scroller.next().await.unwrap().unwrap_err().kind, ErrorKind::Denied);
    assert_eq!(scroller.next().await.unwrap().unwrap().id, PointId::Num(4));
    assert_eq!(scroller.next_page().await.unwrap().unwrap().len(), 2);
    assert_eq!(scroller.next_page().await.unwrap().unwrap().len(), 1);
    assert!(scroller.next_page().await.is_none());
    assert!(scroller.next().await.is_none());
}

fn schema() -> Schema {
    let spec = VectorSpec { dim: 1, metric: Metric::L2, index: IndexPolicy::Auto };
    Schema { vectors: [("v".to_owned(), spec)].into(), fields: Default::default() }
}
