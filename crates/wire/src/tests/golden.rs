//! One message of each kind keeps its bytes. They are the public contract: a change here breaks every caller that
//! was built before, so a line may be added, never altered.

use std::sync::Arc;

use prost::Message;
use sagitta_model::filter::Bounds;
use sagitta_model::*;

use crate::collections::{CollectionPage, CreateCollection, DeleteCollection, GetCollection, ListCollections, View};
use crate::points::{Count, Get, PointPage, Scroll, Write, WriteRequest, get_response};
use crate::search::{ScoredResult, Search, SearchAnswer, Searches};
use crate::upload::{Ack, ChunkWrite, Credit, Open, UploadAnswer, chunk_message};
use crate::{Convert, RequestId, v1};

const GOLDEN: &str = include_str!("golden.txt");

pub(super) fn hex(message: &impl Message) -> String {
    message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name() -> CollectionName {
    "docs".parse().unwrap()
}

pub(super) fn path(text: &str) -> FieldPath {
    text.parse().unwrap()
}

const REQUEST_ID: Option<RequestId> = Some(RequestId(0x0195_f7a2_6c1e_7b32_9d2a_3f6f_8f5f_2c11));

pub(super) fn point() -> Point {
    let payload = [
        ("array", Value::Array(vec![Value::Int(-1), Value::Bool(true)])),
        ("float", Value::Float(0.5)),
        ("null", Value::Null),
        ("object", Value::Object([("k".to_owned(), "text".into())].into())),
    ];
    Point {
        id: PointId::Num(7),
        vectors: [("title".to_owned(), vec![1.0, -2.5])].into(),
        payload: payload.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

pub(super) fn filter() -> Filter {
    let field = |name: &str, test| Condition::Field { path: path(name), test };
    let text = |text: &str| Scalar::String(text.to_owned());
    let numbers = Bounds { lower: Some((Number::Int(1), true)), upper: Some((Number::Float(2.5), false)) };
    let instants = Bounds { lower: Some((1_500_000, false)), upper: Some((2_000_000, true)) };
    Filter {
        must: vec![
            field("source", Test::Match(text("book"))),
            field("year", Test::Range(Range::Number(numbers))),
            field("seen", Test::Range(Range::Datetime(instants))),
        ],
        should: vec![
            field("flag", Test::Any(vec![Scalar::Bool(true), Scalar::Int(3)])),
            Condition::has_id(vec![PointId::Num(1), PointId::Uuid(2)]),
        ],
        must_not: vec![
            field("gone", Test::IsNull),
            Condition::Filter(Box::new(Filter { must: vec![field("a.b", Test::Exists)], ..Filter::default() })),
        ],
    }
}

fn schema() -> Schema {
    let spec = VectorSpec { dim: 384, metric: Metric::Cosine, index: IndexPolicy::Graph };
    Schema {
        vectors: [("title".to_owned(), spec)].into(),
        fields: [(path("year"), FieldType::Integer), (path("seen"), FieldType::Datetime)].into(),
    }
}

fn collection() -> CollectionInfo {
    let statistics = CollectionStatistics {
        ready: true,
        points: 1,
        indexed_points: 2,
        dead_rows: 3,
        growing_segments: 4,
        sealed_segments: 5,
        disk_bytes: 6,
        memory_bytes: 7,
        shards: 8,
        refuses_data: true,
    };
    CollectionInfo {
        name: name(),
        id: 9,
        schema: schema(),
        shards: 0,
        replication: 0,
        created_unix_micros: 1_750_000_000_123_456,
        statistics: Some(statistics),
    }
}

pub(super) fn record() -> Record {
    let Point { id, vectors, payload } = point();
    Record { id, version: 3, payload: Some(payload), vectors }
}

pub(super) fn selection() -> Selection {
    Selection {
        payload: PayloadSelection::Include(vec![path("place.country")]),
        vectors: VectorSelection::Names(vec!["title".to_owned()]),
    }
}

pub(super) fn problem() -> Problem {
    let violations = vec![Violation::new("points[0].id", "is missing")];
    Problem { kind: ErrorKind::Invalid, message: "no".to_owned(), violations }
}

pub(super) fn write_result() -> WriteResult {
    WriteResult {
        applied: 2,
        failures: vec![ItemFailure { index: 1, id: PointId::Num(8), problem: problem() }],
        tokens: vec![VersionToken { shard: 1, index: 300 }],
    }
}

fn write(change: Change) -> String {
    match (Write { collection: name(), change, wait: Wait::Indexed, request_id: REQUEST_ID }).into_proto() {
        WriteRequest::Upsert(proto) => hex(&proto),
        WriteRequest::Delete(proto) => hex(&proto),
        WriteRequest::DeleteByFilter(proto) => hex(&proto),
        WriteRequest::UpdatePayload(proto) => hex(&proto),
    }
}

fn update(change: PayloadChange) -> String {
    write(Change::UpdatePayload { target: Target::Ids(vec![PointId::Num(7)]), change })
}

pub(super) fn search(effort: Effort) -> Search {
    let query = SearchQuery {
        vector_name: "title".to_owned(),
        vector: vec![1.0, -2.5],
        k: 10,
        min_similarity: None,
        filter: Some(Arc::new(filter())),
        effort,
        group_by: Some(GroupBy { field: path("source"), size: 3 }),
    };
    Search { query, score_threshold: Some(0.25), selection: selection(), explain: true }
}

fn searches(efforts: &[Effort], consistency: Consistency) -> Searches {
    let searches = efforts.iter().map(|&effort| search(effort)).collect();
    Searches { collection: name(), searches, consistency, allow_partial: true, batch: efforts.len() > 1 }
}

/// What a search found that had everything in it.
pub(super) fn result() -> SearchResult {
    let hit = FoundPoint { id: PointId::Num(7), similarity: -9.0, record: Some(Box::new(record())) };
    let plan = SegmentPlan {
        shard: 1,
        segment: 2,
        index: SegmentIndex::Graph,
        plan: Plan::IndexThenCheck,
        rows: 3,
        selectivity: 0.5,
        breadth: 4,
        compared: 5,
        reranked: 6,
        duration_us: 7,
    };
    let explanation = Explanation {
        total_us: 1,
        queue_us: 2,
        plan_us: 3,
        search_us: 4,
        rerank_us: 5,
        merge_us: 6,
        hydrate_us: 7,
        segments: vec![plan],
    };
    SearchResult {
        hits: vec![hit.clone()],
        groups: vec![Group { key: "book".into(), hits: vec![hit] }],
        explanation: Some(Box::new(explanation)),
    }
}

fn answer() -> SearchAnswer {
    let coverage = Coverage { shards: 2, missing: vec![(1, problem())] };
    SearchAnswer { results: vec![ScoredResult::new(result(), Metric::L2)], coverage }
}

fn chunk() -> v1::UpsertStreamRequest {
    chunk_message(ChunkWrite { request_id: REQUEST_ID, points: vec![point()] }.into_chunk(42))
}

fn messages() -> Vec<(&'static str, String)> {
    let mut messages = collections_and_points();
    messages.extend(super::cluster::golden());
    messages
}

fn collections_and_points() -> Vec<(&'static str, String)> {
    let knobs = Knobs { ef_search: Some(64), nprobe: Some(8), rerank: Some(32) };
    let session = Consistency::Session(vec![VersionToken { shard: 1, index: 300 }]);
    let create = CreateCollection { request_id: REQUEST_ID, ..CreateCollection::new(name(), schema()) };
    let placed = CreateCollection { shards: Some(300), replication: Some(3), ..create.clone() };
    let placed_info = CollectionInfo { shards: 300, replication: 3, ..collection() };
    let get = Get {
        collection: name(),
        ids: vec![PointId::Num(7), PointId::Uuid(2)],
        selection: selection(),
        consistency: session.clone(),
    };
    let count = Count { collection: name(), filter: Some(Arc::new(filter())), consistency: Consistency::Strong };
    let prefix = Condition::Field { path: path("source"), test: Test::Prefix("rust".to_owned()) };
    let prefix = Filter { must: vec![prefix], ..Filter::default() };
    let prefix_count = Count { filter: Some(Arc::new(prefix)), ..count.clone() };
    let tag_counts = [
        Bounds { lower: Some((300, true)), upper: Some((400, true)) },
        Bounds { lower: Some((0, false)), upper: Some((u64::MAX, false)) },
    ];
    let counted = |bounds| Condition::Field { path: path("tags"), test: Test::ValuesCount(bounds) };
    let counted = Filter { must: tag_counts.map(counted).to_vec(), ..Filter::default() };
    let values_count = Count { filter: Some(Arc::new(counted)), ..count.clone() };
    let scroll =
        Scroll { collection: name(), filter: None, selection: selection(), consistency: Consistency::Eventual };
    let ack = |outcome| Some(Ack { sequence: 42, outcome });
    let credit = Credit { points: 10_000, bytes: 1 << 20 };
    let list = ListCollections { view: View::Full }.into_proto(5, "token".to_owned());
    let page = |next_page_token: &str| next_page_token.to_owned();
    vec![
        ("CreateCollectionRequest", hex(&create.into_proto())),
        ("CreateCollectionRequest.placed", hex(&placed.into_proto())),
        ("Collection.placed", hex(&placed_info.into_proto())),
        ("GetCollectionRequest", hex(&GetCollection { name: name(), view: View::Basic }.into_proto())),
        ("ListCollectionsRequest", hex(&list)),
        (
            "ListCollectionsResponse",
            hex(&CollectionPage { collections: vec![collection()], next_page_token: page("next") }.into_proto()),
        ),
        (
            "DeleteCollectionRequest",
            hex(&DeleteCollection { name: name(), allow_missing: true, request_id: REQUEST_ID }.into_proto()),
        ),
        ("UpsertRequest", write(Change::Upsert(vec![point()]))),
        ("DeleteRequest", write(Change::Delete(vec![PointId::Num(7), PointId::Uuid(2)]))),
        ("DeleteByFilterRequest", write(Change::DeleteByFilter(filter()))),
        ("UpdatePayloadRequest.merge", update(PayloadChange::Merge(point().payload))),
        ("UpdatePayloadRequest.replace", update(PayloadChange::Replace(point().payload))),
        ("UpdatePayloadRequest.delete", update(PayloadChange::Delete(vec![path("a.b")]))),
        ("WriteResponse", hex(&write_result().into_proto())),
        ("GetRequest", hex(&get.into_proto())),
        ("GetResponse", hex(&get_response(vec![record()]))),
        ("CountRequest", hex(&count.into_proto())),
        ("CountRequest.prefix", hex(&prefix_count.into_proto())),
        ("CountRequest.values_count", hex(&values_count.into_proto())),
        ("CountResponse", hex(&v1::CountResponse { count: 300 })),
        ("ScrollRequest", hex(&scroll.into_proto(5, "token".to_owned()))),
        ("ScrollResponse", hex(&PointPage { points: vec![record()], next_page_token: page("next") }.into_proto())),
        ("UpsertStreamRequest.open", hex(&Open { collection: name(), wait: Wait::Committed }.into_proto())),
        ("UpsertStreamRequest.chunk", hex(&chunk())),
        ("UpsertStreamResponse.credit", hex(&UploadAnswer { credit, ack: None }.into_proto())),
        ("UpsertStreamResponse.ack", hex(&UploadAnswer { credit, ack: ack(Ok(write_result())) }.into_proto())),
        ("UpsertStreamResponse.problem", hex(&UploadAnswer { credit, ack: ack(Err(problem())) }.into_proto())),
        ("SearchRequest", hex(&searches(&[Effort::Recall(0.9)], session).into_single())),
        (
            "SearchBatchRequest",
            hex(&searches(&[Effort::Knobs(knobs), Effort::Exact], Consistency::Eventual).into_batch()),
        ),
        ("SearchResponse", hex(&answer().into_single())),
        ("SearchBatchResponse", hex(&answer().into_batch())),
    ]
}

#[test]
fn each_message_keeps_its_bytes() {
    check(GOLDEN, &messages());
}

/// Compares messages with the bytes that they have had.
pub(super) fn check(golden: &str, messages: &[(&str, String)]) {
    let golden: Vec<(&str, &str)> = golden.lines().filter_map(|line| line.split_once(' ')).collect();
    let kept = |name| golden.iter().find(|(golden, _)| *golden == name).map(|(_, bytes)| *bytes);
    let changed = messages.iter().filter(|(name, bytes)| kept(*name) != Some(bytes));
    let changed: Vec<String> = changed.map(|(name, bytes)| format!("{name} {bytes}")).collect();
    assert!(changed.is_empty(), "not as in the golden file:\n{}", changed.join("\n"));
    assert_eq!(golden.len(), messages.len(), "a line of the golden file belongs to no message");
}
