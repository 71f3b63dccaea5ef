//! Points of one vector and one number, of which each can be told from any other.

use std::collections::BTreeMap;

use sagitta_client::{Client, ClientError, Count, Get, Scroll, Search, Searches};
use sagitta_model::{
    CollectionName, Consistency, Effort, FieldType, IndexPolicy, Metric, Object, PayloadSelection, Point, PointId,
    Record, Schema, SearchQuery, Selection, Value, VectorSelection, VectorSpec,
};

/// Dimension of their vectors.
pub const DIM: usize = 4;
/// The name of a collection.
pub fn name(text: &str) -> CollectionName {
    text.parse().expect("a name")
}

/// One vector `v` and the integer `n`.
pub fn schema() -> Schema {
    let mut schema = Schema::default();
    schema.vectors.insert("v".into(), VectorSpec { dim: DIM, metric: Metric::L2, index: IndexPolicy::Flat });
    schema.fields.insert("n".parse().expect("a path"), FieldType::Integer);
    schema
}

/// A point whose vector follows from its value, so that one of another value is noticed.
pub fn point(id: u64, value: u64) -> Point {
    let payload = Object::from([("n".to_owned(), (value as i64).into())]);
    Point { id: PointId::Num(id), vectors: [("v".to_owned(), vector(value))].into(), payload }
}

fn vector(value: u64) -> Vec<f32> {
    (0..DIM as u64).map(|at| ((value * 31 + at * 17) % 101) as f32 - 50.0).collect()
}

/// All payload and vectors.
pub fn everything() -> Selection {
    Selection { payload: PayloadSelection::All, vectors: VectorSelection::All }
}

/// The number of a point.
pub fn id_of(id: PointId) -> u64 {
    match id {
        PointId::Num(id) => id,
        PointId::Uuid(_) => panic!("only numbers were written"),
    }
}

/// Id and value of a point, whose vector must be that of the value.
pub fn told(record: &Record) -> (u64, u64) {
    let Some(Value::Int(n)) = record.payload.as_ref().and_then(|payload| payload.get("n")) else {
        panic!("every point has a number: {record:?}")
    };
    assert_eq!(record.vectors["v"], vector(*n as u64), "the vector of {} is that of another value", record.id);
    (id_of(record.id), *n as u64)
}

/// A read of points, whole.
pub fn get(collection: &str, ids: Vec<u64>, consistency: Consistency) -> Get {
    let ids = ids.into_iter().map(PointId::Num).collect();
    Get { collection: name(collection), ids, selection: everything(), consistency }
}

/// An exact search for the `k` nearest.
pub fn search(collection: &str, vector: Vec<f32>, k: usize) -> Searches {
    let (min_similarity, filter, group_by) = (None, None, None);
    let query =
        SearchQuery { vector_name: String::new(), vector, k, min_similarity, filter, effort: Effort::Exact, group_by };
    let search = Search { query, score_threshold: None, selection: Selection::default(), explain: false };
    let (collection, consistency) = (name(collection), Consistency::Strong);
    Searches { collection, searches: vec![search], consistency, allow_partial: false, batch: false }
}

/// What all points are, by a scroll: value by id.
pub async fn contents(client: &Client, collection: &str) -> Result<BTreeMap<u64, u64>, ClientError> {
    let (consistency, selection) = (Consistency::Strong, everything());
    let scroll = Scroll { collection: name(collection), filter: None, selection, consistency };
    let (mut scroller, mut found) = (client.scroll(scroll, 100), BTreeMap::new());
    while let Some(record) = scroller.next().await {
        let (id, value) = told(&record?);
        assert!(found.insert(id, value).is_none(), "{id} was listed twice");
    }
    Ok(found)
}

/// The points at rest, as scroll, count, get and search agree on them.
pub async fn agreed(client: &Client, collection: &str, ids: u64) -> Result<BTreeMap<u64, u64>, ClientError> {
    let found = contents(client, collection).await?;
    let count = Count { collection: name(collection), filter: None, consistency: Consistency::Strong };
    assert_eq!(client.count(count).await?, found.len() as u64, "count and scroll");
    let all = get(collection, (0..ids).collect(), Consistency::Strong);
    let got: BTreeMap<_, _> = client.get(all).await?.iter().map(told).collect();
    assert_eq!(got, found, "get and scroll");
    let answer = client.search(search(collection, vec![0.0; DIM], ids as usize)).await?;
    assert_eq!(answer.coverage.missing, []);
    let mut hits: Vec<_> = answer.results[0].hits.iter().map(|hit| id_of(hit.id)).collect();
    hits.sort_unstable();
    assert_eq!(hits, found.keys().copied().collect::<Vec<_>>(), "search and scroll");
    Ok(found)
}
