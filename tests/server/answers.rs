//! Requests and answers as large as a message may be, and larger.

use std::collections::BTreeSet;
use std::sync::Arc;

use sagitta_client::{ClientError, Count, Scroll};
use sagitta_model::{Condition, Consistency, ErrorKind, Filter, Metric, Point, PointId, Test, Value, limits};

use crate::harness::{Rng, Server, all_points, data, everything, get, name, point, query, schema, searches};

/// Bytes of text in each heavy point: about a hundred fill a message.
const HEAVY_BYTES: usize = 700_000;
const HEAVY_POINTS: u64 = 150;

fn heavy(id: u64) -> Point {
    let mut point = point(id, vec![1.0, id as f32], id as i64);
    point.payload.insert("text".into(), Value::String("x".repeat(HEAVY_BYTES)));
    point
}

async fn load_heavy(server: &Server) {
    let client = server.client();
    client.create_collection(name("heavy"), schema(2, Metric::L2)).await.expect("created");
    let ids: Vec<u64> = (0..HEAVY_POINTS).collect();
    for ids in ids.chunks(50) {
        client.upsert(name("heavy"), ids.iter().map(|id| heavy(*id)).collect()).await.expect("written");
    }
}

#[tokio::test]
async fn the_largest_request_is_applied_whole_and_survives_a_kill() {
    const DIM: usize = 1_536;
    let mut rng = Rng::new(7);
    let temp = tempfile::tempdir().expect("temporary");
    let server = Server::start(&data(&temp));
    let client = server.client();
    client.create_collection(name("c"), schema(DIM, Metric::L2)).await.expect("created");
    let points: Vec<_> = (0..limits::MAX_BATCH_POINTS as u64).map(|id| point(id, rng.vector(DIM), 1)).collect();
    let last = points[limits::MAX_BATCH_POINTS - 1].clone();
    let written = client.upsert(name("c"), points).await.expect("written");
    assert_eq!(written.applied, limits::MAX_BATCH_POINTS as u64);
    drop(client);
    server.kill();
    let server = Server::start(&data(&temp));
    let count = Count { collection: name("c"), filter: None, consistency: Consistency::Strong };
    assert_eq!(server.client().count(count).await.expect("counted"), limits::MAX_BATCH_POINTS as u64);
    let found = server.client().get(get("c", vec![last.id])).await.expect("read");
    assert_eq!(found[0].vectors, last.vectors);
}

#[tokio::test]
async fn a_request_beyond_a_message_is_not_sent_and_the_limit_is_named() {
    let temp = tempfile::tempdir().expect("temporary");
    let server = Server::start(&data(&temp));
    let client = server.client();
    client.create_collection(name("heavy"), schema(2, Metric::L2)).await.expect("created");
    let error = client.upsert(name("heavy"), (0..100).map(heavy).collect()).await.expect_err("too large");
    assert_eq!((error.kind, error.attempts), (ErrorKind::Invalid, 0), "{error}");
    assert!(error.message.contains(&limits::MAX_MESSAGE_BYTES.to_string()), "{error}");
    assert!(error.message.contains("send less at once"), "{error}");
    assert_eq!(all_points(&client, "heavy", None).await, [], "nothing of it was written");
}

#[tokio::test]
async fn pages_of_heavy_points_end_early_and_leave_none_out() {
    let temp = tempfile::tempdir().expect("temporary");
    let server = Server::start(&data(&temp));
    load_heavy(&server).await;
    let declared = Condition::Field { path: "n".parse().expect("a path"), test: Test::Exists };
    for filter in [None, Some(Filter { must: vec![declared], ..Filter::default() })] {
        let scroll = Scroll {
            collection: name("heavy"),
            filter: filter.clone().map(Arc::new),
            selection: everything(),
            consistency: Consistency::Strong,
        };
        let (mut token, mut ids, mut pages) = (String::new(), BTreeSet::new(), 0);
        loop {
            let page = server.client().scroll_page(scroll.clone(), limits::MAX_PAGE, token).await.expect("a page");
            pages += 1;
            for record in &page.points {
                assert!(ids.insert(record.id), "{} comes twice", record.id);
                assert!(record.payload.as_ref().is_some_and(|payload| payload.contains_key("text")));
            }
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
            assert!(!page.points.is_empty(), "a page that is not the last makes progress");
        }
        assert_eq!(ids.len() as u64, HEAVY_POINTS);
        assert!(pages > 1, "they do not fit into one message");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_fit_into_a_message_is_refused_and_the_server_stays_up() {
    let temp = tempfile::tempdir().expect("temporary");
    let server = Server::start(&data(&temp));
    load_heavy(&server).await;
    let client = server.client();
    let check = |error: ClientError| {
        assert_eq!((error.kind, &*error.reason), (ErrorKind::Invalid, "INVALID"), "{error:?}");
        assert!(error.message.contains("64 MiB") && error.message.contains("ask for fewer"), "{error}");
        assert_eq!(error.violations.len(), 1, "{error:?}");
    };
    // One point asked for ten thousand times would be seven gigabytes; all of them are little more than a message.
    let ids = vec![PointId::Num(3); limits::MAX_BATCH_POINTS];
    check(client.get(get("heavy", ids)).await.expect_err("far too much"));
    let ids = (0..HEAVY_POINTS).map(PointId::Num).collect();
    check(client.get(get("heavy", ids)).await.expect_err("too much"));
    let mut hits = searches("heavy", query(vec![1.0, 1.0], HEAVY_POINTS as usize));
    hits.searches[0].selection = everything();
    check(client.search(hits.clone()).await.expect_err("too much"));
    hits.searches[0].query.k = 5;
    assert_eq!(client.search(hits.clone()).await.expect("answered").results[0].hits.len(), 5);
    // A search that has its place alone is too much with others: here by a little, and by three gigabytes.
    hits.batch = true;
    for (count, fits) in [(2, true), (30, false), (limits::MAX_BATCH_SEARCHES, false)] {
        hits.searches = vec![hits.searches[0].clone(); count];
        match client.search(hits.clone()).await {
            Ok(answer) => assert!(fits && answer.results.len() == count, "{count}"),
            Err(error) => check(error),
        }
    }
}
