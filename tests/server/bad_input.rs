//! Whatever a caller gets wrong is named and explained, and the server stays up.

use std::sync::Arc;

use sagitta_client::{Client, ClientError, Scroll, Write};
use sagitta_model::filter::Bounds;
use sagitta_model::{
    Change, Condition, Consistency, Effort, ErrorKind, Filter, Metric, Point, PointId, SearchQuery, Selection, Test,
    Wait, limits,
};

use crate::harness::{Server, data, name, point, query, schema, searches};

struct Fixture {
    _temp: tempfile::TempDir,
    _server: Server,
    client: Client,
}

async fn fixture(metric: Metric) -> Fixture {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start(&data(&temp));
    let client = server.client();
    client.create_collection(name("c"), schema(2, metric)).await.expect("created");
    client.upsert(name("c"), vec![point(1, vec![1.0, 0.0], 1), point(2, vec![0.0, 1.0], 2)]).await.expect("written");
    Fixture { _temp: temp, _server: server, client }
}

/// Asserts that a call was refused as invalid, at this field, for a reason that mentions this.
fn invalid<T: std::fmt::Debug>(result: Result<T, ClientError>, field: &str, mentions: &str) {
    let error = result.expect_err(field);
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    let violation = error.violations.first().unwrap_or_else(|| panic!("{field}: no violation in {error:?}"));
    assert_eq!(violation.field, field, "{error}");
    assert!(violation.reason.contains(mentions), "{field}: {}", violation.reason);
}

#[tokio::test]
async fn vectors_that_cannot_be_compared_are_refused() {
    let fixture = fixture(Metric::Cosine).await;
    let upsert =
        |vector: Vec<f32>| fixture.client.upsert(name("c"), vec![point(7, vec![1.0, 1.0], 0), point(8, vector, 0)]);
    invalid(upsert(vec![1.0]).await, "points[1].vectors[\"v\"]", "the collection expects 2");
    invalid(upsert(vec![1.0, f32::NAN]).await, "points[1].vectors[\"v\"][1]", "NaN");
    invalid(upsert(vec![f32::INFINITY, 0.0]).await, "points[1].vectors[\"v\"][0]", "inf");
    invalid(upsert(vec![0.0, 0.0]).await, "points[1].vectors[\"v\"]", "zero vector");
    let found = fixture.client.get(crate::harness::get("c", vec![PointId::Num(7), PointId::Num(8)])).await;
    assert_eq!(found.expect("read"), [], "nothing of a refused batch is written");
}

#[tokio::test]
async fn searches_beyond_the_bounds_are_refused() {
    let fixture = fixture(Metric::L2).await;
    let search = |query: SearchQuery| fixture.client.search(searches("c", query));
    let good = || query(vec![1.0, 0.0], 1);
    assert_eq!(search(good()).await.expect("answered").results[0].hits[0].id, PointId::Num(1));
    invalid(search(SearchQuery { k: 0, ..good() }).await, "search.k", "expected 1 to");
    invalid(search(SearchQuery { k: limits::MAX_K + 1, ..good() }).await, "search.k", "expected 1 to");
    invalid(search(SearchQuery { vector: vec![1.0; 3], ..good() }).await, "search.vector", "expects 2");
    invalid(search(SearchQuery { vector: vec![f32::NAN, 0.0], ..good() }).await, "search.vector[0]", "NaN");
    invalid(search(SearchQuery { vector_name: "w".into(), ..good() }).await, "search.vector_name", "it has: v");
    invalid(search(SearchQuery { effort: Effort::Recall(1.5), ..good() }).await, "search.recall_target", "at most 1");
    let condition = |path: &str| Condition::Field { path: path.parse().expect("path"), test: Test::Exists };
    let filtered = |filter| SearchQuery { filter: Some(Arc::new(filter)), ..good() };
    let unknown = Filter { must: vec![condition("colour")], ..Filter::default() };
    invalid(search(filtered(unknown)).await, "search.filter.must[0].field", "declared: group, n");
    let test = Test::Prefix("1".to_owned());
    let prefix = Condition::Field { path: "n".parse().expect("path"), test };
    let unsuitable = Filter { must: vec![prefix], ..Filter::default() };
    invalid(search(filtered(unsuitable)).await, "search.filter.must[0].prefix", "declared as integer");
    let test = Test::ValuesCount(Bounds { lower: None, upper: None });
    let count = Condition::Field { path: "n".parse().expect("path"), test };
    let unbounded = Filter { must: vec![count], ..Filter::default() };
    invalid(search(filtered(unbounded)).await, "search.filter.must[0].values_count", "no bound");
    let mut deep = Filter { must: vec![condition("n")], ..Filter::default() };
    for _ in 0..limits::MAX_FILTER_DEPTH {
        deep = Filter { must: vec![Condition::Filter(Box::new(deep))], ..Filter::default() };
    }
    let error = search(filtered(deep)).await.expect_err("too deep");
    assert!(error.kind == ErrorKind::Invalid && error.message.contains("levels deep"), "{error:?}");
    assert_eq!(search(good()).await.expect("still up").results[0].hits.len(), 1);
}

#[tokio::test]
async fn points_that_contradict_the_schema_or_each_other_are_refused() {
    let fixture = fixture(Metric::L2).await;
    let twice = vec![point(5, vec![1.0, 0.0], 1), point(5, vec![0.0, 1.0], 1)];
    invalid(fixture.client.upsert(name("c"), twice).await, "points[1].id", "5");
    let mut wrong_type = point(6, vec![1.0, 0.0], 1);
    wrong_type.payload.insert("n".into(), "seven".into());
    invalid(fixture.client.upsert(name("c"), vec![wrong_type]).await, "points[0].payload.n", "integer");
    let missing = Point { vectors: std::collections::BTreeMap::new(), ..point(6, Vec::new(), 1) };
    invalid(fixture.client.upsert(name("c"), vec![missing]).await, "points[0].vectors[\"v\"]", "missing");
    let error =
        fixture.client.upsert(name("nowhere"), vec![point(1, vec![1.0, 0.0], 1)]).await.expect_err("no collection");
    assert!(error.kind == ErrorKind::NotFound && error.message.contains("nowhere"), "{error:?}");
    let error = fixture.client.create_collection(name("c"), schema(3, Metric::L2)).await.expect_err("taken");
    assert!(error.kind == ErrorKind::Conflict && error.message.contains("`c`"), "{error:?}");
}

#[tokio::test]
async fn a_page_token_of_another_query_is_refused() {
    let fixture = fixture(Metric::L2).await;
    let scroll = |filter: Option<Filter>| Scroll {
        collection: name("c"),
        filter: filter.map(Arc::new),
        selection: Selection::default(),
        consistency: Consistency::Strong,
    };
    let page = fixture.client.scroll_page(scroll(None), 1, String::new()).await.expect("a page");
    assert!(!page.next_page_token.is_empty());
    let other = Filter { must: vec![Condition::has_id(vec![PointId::Num(2)])], ..Filter::default() };
    let token = page.next_page_token.clone();
    invalid(fixture.client.scroll_page(scroll(Some(other)), 1, token).await, "page_token", "another request");
    invalid(fixture.client.scroll_page(scroll(None), 1, "nonsense".into()).await, "page_token", "");
    let next = fixture.client.scroll_page(scroll(None), 1, page.next_page_token).await.expect("the right token");
    assert_eq!(next.points.iter().map(|record| record.id).collect::<Vec<_>>(), [PointId::Num(2)]);
}

#[tokio::test]
async fn a_repeated_request_is_applied_once() {
    let fixture = fixture(Metric::L2).await;
    let request_id = Some(sagitta_client::RequestId(0x0195_f7a2_6c1e_7b32_9d2a_3f6f_8f5f_2c11));
    let write = |change| Write { collection: name("c"), change, wait: Wait::Committed, request_id };
    let upsert = || Change::Upsert(vec![point(9, vec![1.0, 1.0], 1)]);
    let first = fixture.client.write(write(upsert())).await.expect("written");
    fixture.client.delete(name("c"), vec![PointId::Num(9)]).await.expect("deleted");
    let again = fixture.client.write(write(upsert())).await.expect("answered");
    assert_eq!(again.applied, first.applied);
    let found = fixture.client.get(crate::harness::get("c", vec![PointId::Num(9)])).await.expect("read");
    assert_eq!(found, [], "a late repetition brought a deleted point back");
}
