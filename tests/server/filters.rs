//! A filter on its whole way: sent, found by in sealed and unsealed rows, written into the log, replayed.

use std::sync::Arc;

use sagitta_client::{Client, Count, Write};
use sagitta_model::filter::Bounds;
use sagitta_model::{
    Change, Condition, Consistency, Effort, Filter, Metric, Point, PointId, SearchQuery, Test, Value, Wait,
};

use crate::harness::{Server, all_points, data, name, point, query, schema, searches};

const TEXTS: [&str; 9] = ["", "a", "ab", "abc", "abd", "b", "ä", "äb", "z"];
const POINTS: u64 = 90;

fn beginning_with(prefix: &str) -> Filter {
    let test = Test::Prefix(prefix.to_owned());
    Filter { must: vec![Condition::Field { path: "group".parse().expect("a path"), test }], ..Filter::default() }
}

fn counting(lower: Option<u64>, upper: Option<u64>) -> Filter {
    let test = Test::ValuesCount(Bounds { lower: lower.map(|n| (n, true)), upper: upper.map(|n| (n, true)) });
    Filter { must: vec![Condition::Field { path: "group".parse().expect("a path"), test }], ..Filter::default() }
}

fn some_point(id: u64) -> Point {
    let mut point = point(id, vec![id as f32, 1.0], 0);
    let text = Value::from(TEXTS[id as usize % TEXTS.len()]);
    let group = match id % 5 {
        0 => Value::Array(vec![Value::Null, text]),
        1 if id.is_multiple_of(3) => Value::Null,
        2 => Value::Array(vec![text; id as usize % 4]),
        3 if id.is_multiple_of(2) => return Point { payload: [].into(), ..point },
        _ => text,
    };
    point.payload.insert("group".to_owned(), group);
    point
}

/// Searching, counting and scrolling by the filter find these points and no others.
async fn check(client: &Client, filter: &Filter, expected: &[PointId]) {
    let k = POINTS as usize;
    let exact =
        SearchQuery { filter: Some(Arc::new(filter.clone())), effort: Effort::Exact, ..query(vec![0.0, 1.0], k) };
    for query in [SearchQuery { effort: Effort::default(), ..exact.clone() }, exact] {
        let answer = client.search(searches("c", query)).await.expect("answered");
        let mut found: Vec<_> = answer.results[0].hits.iter().map(|hit| hit.id).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{filter:?}");
    }
    let consistency = Consistency::Strong;
    let count = Count { collection: name("c"), filter: Some(Arc::new(filter.clone())), consistency };
    assert_eq!(client.count(count).await.expect("counted"), expected.len() as u64, "{filter:?}");
    let scrolled: Vec<_> = all_points(client, "c", Some(filter.clone())).await.iter().map(|record| record.id).collect();
    assert_eq!(scrolled, expected, "{filter:?}");
}

#[tokio::test]
async fn a_prefix_finds_and_deletes_the_points_that_its_definition_passes_also_after_a_crash() {
    let filters = ["", "a", "ab", "abd", "abcd", "ä", "A"].map(beginning_with);
    go_the_whole_way(&filters, &beginning_with("ab")).await;
}

#[tokio::test]
async fn a_count_finds_and_deletes_the_points_that_its_definition_passes_also_after_a_crash() {
    let bounds = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (1, 2), (3, 0)];
    let mut filters = bounds.map(|(lower, upper)| counting(Some(lower), Some(upper))).to_vec();
    filters.extend([counting(Some(2), None), counting(None, Some(2)), counting(Some(0), None)]);
    go_the_whole_way(&filters, &counting(Some(2), Some(2))).await;
}

/// The filters find the right points, one of them deletes its points, and all find the right ones after a crash.
async fn go_the_whole_way(filters: &[Filter], doomed: &Filter) {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start(&data(&temp));
    let client = server.client();
    client.create_collection(name("c"), schema(2, Metric::L2)).await.expect("created");
    let mut points: Vec<_> = (0..POINTS).map(some_point).collect();
    let (sealed, unsealed) = points.split_at(points.len() / 2);
    let change = Change::Upsert(sealed.to_vec());
    let write = Write { collection: name("c"), change, wait: Wait::Indexed, request_id: None };
    client.write(write).await.expect("indexed");
    client.upsert(name("c"), unsealed.to_vec()).await.expect("written");

    let passing = |points: &[Point], filter: &Filter| -> Vec<PointId> {
        points.iter().filter(|point| filter.matches(point.id, &point.payload)).map(|point| point.id).collect()
    };
    for filter in filters {
        check(&client, filter, &passing(&points, filter)).await;
    }

    let deleted = client.delete_by_filter(name("c"), doomed.clone()).await.expect("deleted");
    assert!(deleted.applied > 0);
    assert_eq!(deleted.applied as usize, passing(&points, doomed).len());
    points.retain(|point| !doomed.matches(point.id, &point.payload));
    server.kill();

    let server = Server::start(&data(&temp));
    for filter in filters {
        check(&server.client(), filter, &passing(&points, filter)).await;
    }
}
