//! Each rule that can be checked without a collection is checked, and the offending field is named.

use sagitta_model::limits::*;
use sagitta_model::{ErrorKind, IndexPolicy, Metric, Schema, VectorSpec, Violation};

use crate::collections::{CreateCollection, DeleteCollection, GetCollection};
use crate::points::{Count, Get, Scroll, Write};
use crate::search::Searches;
use crate::upload::UploadRequest;
use crate::{Convert, Failure, v1};

fn refused<T: std::fmt::Debug>(field: &str, says: &str, result: Result<T, impl Into<Failure>>) {
    let failure: Failure = result.expect_err(field).into();
    assert_eq!(failure.kind, ErrorKind::Invalid);
    let [violation] = &failure.violations[..] else { panic!("one violation: {failure:?}") };
    assert_eq!(violation.field, field, "{violation}");
    assert!(violation.reason.contains(says), "{violation}");
}

fn num(num: u64) -> v1::PointId {
    v1::PointId { id: Some(v1::point_id::Id::Num(num)) }
}

fn uuid(text: &str) -> v1::PointId {
    v1::PointId { id: Some(v1::point_id::Id::Uuid(text.to_owned())) }
}

fn packed(bytes: usize) -> v1::Vector {
    v1::Vector { data: Some(v1::vector::Data::Packed(vec![0; bytes].into())) }
}

fn value(kind: v1::value::Kind) -> v1::Value {
    v1::Value { kind: Some(kind) }
}

fn scalar(text: &str) -> v1::Scalar {
    v1::Scalar { kind: Some(v1::scalar::Kind::StringValue(text.to_owned())) }
}

fn condition(field: &str, test: v1::condition::Test) -> v1::Condition {
    v1::Condition { field: field.to_owned(), test: Some(test) }
}

fn filter(condition: v1::Condition) -> v1::Filter {
    v1::Filter { must: vec![condition], ..Default::default() }
}

fn search() -> v1::SearchQuery {
    v1::SearchQuery { vector: Some(packed(8)), k: 10, ..Default::default() }
}

fn batch(searches: Vec<v1::SearchQuery>) -> Result<Searches, crate::WireError> {
    Searches::from_batch(v1::SearchBatchRequest { collection: "docs".to_owned(), searches, ..Default::default() })
}

fn upsert(points: Vec<v1::Point>) -> Result<Write, Violation> {
    Write::from_upsert(v1::UpsertRequest { collection: "docs".to_owned(), points, ..Default::default() })
}

#[test]
fn points() {
    let point = |id| v1::Point { id: Some(id), ..Default::default() };
    refused("points", "1 to 10000", upsert(Vec::new()));
    refused("points", "1 to 10000", upsert(vec![point(num(1)); MAX_BATCH_POINTS + 1]));
    refused("points[1].id", "missing", upsert(vec![point(num(1)), v1::Point::default()]));
    refused("points[0].id", "num", upsert(vec![point(v1::PointId::default())]));
    refused("points[2].id", "points[0]", upsert(vec![point(num(7)), point(num(8)), point(num(7))]));
    for bad in ["", "7", "00000000000000000000000000000001", "0195f7a2-6c1e-7b32-9d2a-3f6f8f5f2c1g"] {
        refused("points[0].id.uuid", "UUID", upsert(vec![point(uuid(bad))]));
    }

    let vectors = |vector| v1::Point { vectors: [("a\"b".to_owned(), vector)].into(), ..point(num(1)) };
    let at = "points[0].vectors[\"a\\\"b\"]";
    refused(at, "is empty", upsert(vec![vectors(v1::Vector::default())]));
    refused(&format!("{at}.packed"), "multiple of 4", upsert(vec![vectors(packed(7))]));
    refused(at, "no components", upsert(vec![vectors(packed(0))]));
    refused(at, "16385 dimensions", upsert(vec![vectors(packed(4 * (MAX_DIMENSION + 1)))]));
    let many = (0..=MAX_VECTORS).map(|n| (n.to_string(), packed(4))).collect();
    refused("points[0].vectors", "0 to 16", upsert(vec![v1::Point { vectors: many, ..point(num(1)) }]));

    let payload = |value| v1::Point { payload: [("k".to_owned(), value)].into(), ..point(num(1)) };
    let nan = value(v1::value::Kind::FloatValue(f64::NAN));
    refused("points[0].payload[\"k\"]", "finite", upsert(vec![payload(nan.clone())]));
    refused("points[0].payload[\"k\"]", "no value", upsert(vec![payload(v1::Value::default())]));
    let list = value(v1::value::Kind::ArrayValue(v1::ArrayValue { values: vec![nan] }));
    refused("points[0].payload[\"k\"][0]", "finite", upsert(vec![payload(list)]));
    let long = value(v1::value::Kind::StringValue("x".repeat(MAX_PAYLOAD_BYTES)));
    refused("points[0].payload", "1048576 are allowed", upsert(vec![payload(long)]));
}

#[test]
fn writes() {
    let write = |request: v1::DeleteRequest| Write::from_delete(request);
    let good = v1::DeleteRequest { collection: "docs".to_owned(), ids: vec![num(1)], ..Default::default() };
    assert!(write(good.clone()).is_ok());
    refused("collection", "is not a name", write(v1::DeleteRequest { collection: "../x".into(), ..good.clone() }));
    refused("ids", "1 to 10000", write(v1::DeleteRequest { ids: Vec::new(), ..good.clone() }));
    refused("ids[1]", "num", write(v1::DeleteRequest { ids: vec![num(1), Default::default()], ..good.clone() }));
    refused("wait", "99", write(v1::DeleteRequest { wait: 99, ..good.clone() }));
    refused("request_id", "UUID", write(v1::DeleteRequest { request_id: "again".into(), ..good }));

    let by_filter = v1::DeleteByFilterRequest { collection: "docs".to_owned(), ..Default::default() };
    refused("filter", "missing", Write::from_delete_by_filter(by_filter));

    use v1::update_payload_request::{Change, Target};
    let update = |target, change| {
        let request = v1::UpdatePayloadRequest { collection: "docs".into(), target, change, ..Default::default() };
        Write::from_update_payload(request)
    };
    let ids = || Some(Target::Ids(v1::PointIdList { ids: vec![num(1)] }));
    let merge = |value| Change::Merge(v1::ObjectValue { entries: [("k".to_owned(), value)].into() });
    refused("target", "ids", update(None, Some(merge(value(v1::value::Kind::BoolValue(true))))));
    refused("change", "merge", update(ids(), None));
    refused("merge[\"k\"]", "no value", update(ids(), Some(merge(v1::Value::default()))));
    let delete = |path: &str| Change::Delete(v1::FieldPathList { paths: vec![path.to_owned()] });
    refused("delete.paths[0]", "field path", update(ids(), Some(delete("a..b"))));
    let none = Some(Target::Ids(v1::PointIdList::default()));
    refused("ids.ids", "1 to 10000", update(none, Some(delete("a"))));

    refused("message", "missing", UploadRequest::from_proto(v1::UpsertStreamRequest::default()));
}

#[test]
fn filters() {
    use v1::condition::Test;
    let count = |condition| {
        Count::from_proto(v1::CountRequest {
            collection: "docs".to_owned(),
            filter: Some(filter(condition)),
            consistency: None,
        })
    };
    let at = |rest: &str| format!("filter.must[0]{rest}");
    refused(&at(""), "no test", count(v1::Condition::default()));
    refused(&at(".field"), "missing", count(condition("", Test::Exists(v1::Exists {}))));
    refused(&at(".field"), "field path", count(condition(".a", Test::Exists(v1::Exists {}))));
    refused(&at(".field"), "at most 256", count(condition(&"a".repeat(257), Test::Exists(v1::Exists {}))));
    refused(&at(".field"), "leave it empty", count(condition("a", Test::HasId(v1::PointIdList::default()))));
    refused(&at(".field"), "leave it empty", count(condition("a", Test::Filter(v1::Filter::default()))));
    refused(&at(".match"), "no value", count(condition("a", Test::Match(v1::Scalar::default()))));
    refused(&at(".match"), "4096", count(condition("a", Test::Match(scalar(&"x".repeat(4097))))));
    refused(&at(".prefix"), "4096", count(condition("a", Test::Prefix("x".repeat(4097)))));
    refused(&at(".field"), "missing", count(condition("", Test::Prefix("x".to_owned()))));
    assert!(count(condition("a", Test::Prefix("x".repeat(4096)))).is_ok());
    let counted = |lower, upper| count(condition("a", Test::ValuesCount(v1::CountRange { lower, upper })));
    let (lower, upper) = (v1::count_range::Lower::Gt(u64::MAX), v1::count_range::Upper::Lt(0));
    refused(&at(".values_count"), "no bound: set at least one of `gt`", counted(None, None));
    assert!(counted(Some(lower), None).is_ok() && counted(None, Some(upper)).is_ok());
    let range = v1::CountRange { lower: Some(lower), upper: Some(upper) };
    refused(&at(".field"), "missing", count(condition("", Test::ValuesCount(range))));
    let any = |values| Test::Any(v1::ScalarList { values });
    refused(&at(".any.values"), "0 to 10000", count(condition("a", any(vec![scalar("x"); MAX_FILTER_VALUES + 1]))));
    refused(&at(".any.values[1]"), "no value", count(condition("a", any(vec![scalar("x"), v1::Scalar::default()]))));
    let ids = v1::PointIdList { ids: vec![num(1); MAX_FILTER_VALUES + 1] };
    refused(&at(".has_id.ids"), "0 to 10000", count(condition("", Test::HasId(ids))));

    use v1::bound::Value::{DatetimeValue, FloatValue, IntegerValue};
    let range = |lower: Option<v1::bound::Value>, upper: Option<v1::bound::Value>| {
        let bound = |value| v1::Bound { value: Some(value) };
        let lower = lower.map(|value| v1::range::Lower::Gte(bound(value)));
        let upper = upper.map(|value| v1::range::Upper::Lt(bound(value)));
        count(condition("a", Test::Range(v1::Range { lower, upper })))
    };
    let time = |seconds, nanos| DatetimeValue(prost_types::Timestamp { seconds, nanos });
    assert!(range(Some(IntegerValue(1)), Some(FloatValue(f64::INFINITY))).is_ok());
    assert!(range(Some(time(-9_223_372_036_855, 224_192_000)), None).is_ok());
    refused(&at(".range"), "no bound", range(None, None));
    refused(&at(".range"), "an instant at the other", range(Some(IntegerValue(1)), Some(time(0, 0))));
    refused(&at(".range.gte"), "NaN", range(Some(FloatValue(f64::NAN)), None));
    refused(&at(".range.lt"), "microsecond", range(None, Some(time(0, 1))));
    refused(&at(".range.lt"), "nanoseconds", range(None, Some(time(0, -1_000))));
    refused(&at(".range.lt"), "out of range", range(None, Some(time(i64::MAX, 0))));
    let unset = v1::Range { lower: Some(v1::range::Lower::Gt(v1::Bound::default())), upper: None };
    refused(&at(".range.gt"), "missing", count(condition("a", Test::Range(unset))));

    let exists = || condition("a", Test::Exists(v1::Exists {}));
    let wide = v1::Filter { must: vec![exists(); MAX_FILTER_CONDITIONS], ..Default::default() };
    let too_wide = v1::Filter { should: vec![exists()], ..wide.clone() };
    assert!(sagitta_model::Filter::from_proto(wide).is_ok());
    refused("should[0]", "256 conditions", sagitta_model::Filter::from_proto(too_wide));
}

#[test]
fn reads() {
    let get = v1::GetRequest { collection: "docs".to_owned(), ids: vec![num(1)], ..Default::default() };
    let include = |paths| {
        let selection = v1::payload_selection::Selection::Include(v1::FieldPathList { paths });
        Some(v1::PayloadSelection { selection: Some(selection) })
    };
    let paths = |n| vec!["a".to_owned(); n];
    assert!(Get::from_proto(v1::GetRequest { payload: include(paths(256)), ..get.clone() }).is_ok());
    let many = v1::GetRequest { payload: include(paths(257)), ..get.clone() };
    refused("payload.include.paths", "0 to 256", Get::from_proto(many));
    let names = v1::VectorNameList { names: vec!["v".to_owned(); MAX_VECTORS + 1] };
    let selection = Some(v1::vector_selection::Selection::Include(names));
    let many = v1::GetRequest { vectors: Some(v1::VectorSelection { selection }), ..get.clone() };
    refused("vectors.include.names", "0 to 16", Get::from_proto(many));

    let session = |version_tokens| {
        let level = v1::read_consistency::Level::Session(v1::SessionConsistency { version_tokens });
        let consistency = Some(v1::ReadConsistency { level: Some(level) });
        Get::from_proto(v1::GetRequest { consistency, ..get.clone() })
    };
    assert!(session(vec![Default::default(); 64]).is_ok());
    refused("consistency.session.version_tokens", "0 to 64", session(vec![Default::default(); 65]));
    let bad = session(vec![Default::default(), vec![1, 2, 3].into()]);
    refused("consistency.session.version_tokens[1]", "damaged", bad);

    let scroll = v1::ScrollRequest { collection: "docs".to_owned(), page_token: "x".into(), ..Default::default() };
    refused("page_token", "damaged", Scroll::from_proto(scroll));
}

#[test]
fn searches() {
    assert!(batch(vec![search(); MAX_BATCH_SEARCHES]).is_ok());
    refused("searches", "1 to 1024", batch(Vec::new()));
    refused("searches", "1 to 1024", batch(vec![search(); MAX_BATCH_SEARCHES + 1]));
    let missing = v1::SearchRequest { collection: "docs".to_owned(), ..Default::default() };
    refused("search", "missing", Searches::from_single(missing.clone()));
    let no_k = v1::SearchRequest { search: Some(v1::SearchQuery { k: 0, ..search() }), ..missing };
    refused("search.k", "1 to 10000", Searches::from_single(no_k));

    use v1::search_query::Effort;
    let effort = |effort| v1::SearchQuery { effort: Some(effort), ..search() };
    let knobs = |ef_search| Effort::Knobs(v1::SearchKnobs { ef_search: Some(ef_search), ..Default::default() });
    let group = |field: &str, group_size| v1::SearchQuery {
        group_by: Some(v1::GroupBy { field: field.to_owned(), group_size }),
        ..search()
    };
    let range = v1::condition::Test::Range(v1::Range::default());
    let cases = [
        ("vector", "missing", v1::SearchQuery { vector: None, ..search() }),
        ("vector.packed", "multiple of 4", v1::SearchQuery { vector: Some(packed(5)), ..search() }),
        ("k", "10001", v1::SearchQuery { k: 10_001, ..search() }),
        ("k", "4294967295", v1::SearchQuery { k: u32::MAX, ..search() }),
        ("score_threshold", "NaN", v1::SearchQuery { score_threshold: Some(f32::NAN), ..search() }),
        ("recall_target", "above 0", effort(Effort::RecallTarget(0.0))),
        ("recall_target", "at most 1", effort(Effort::RecallTarget(1.5))),
        ("recall_target", "NaN", effort(Effort::RecallTarget(f32::NAN))),
        ("knobs.ef_search", "1 to 100000", effort(knobs(0))),
        ("knobs.ef_search", "1 to 100000", effort(knobs(100_001))),
        ("group_by.field", "field path", group("", 1)),
        ("group_by.group_size", "1 to 10000", group("a", 0)),
        (
            "filter.must[0].range",
            "no bound",
            v1::SearchQuery { filter: Some(filter(condition("a", range))), ..search() },
        ),
    ];
    for (field, says, bad) in cases {
        refused(&format!("searches[1].{field}"), says, batch(vec![search(), bad]));
    }
}

#[test]
fn searches_against_a_schema() {
    let mut schema = Schema::default();
    let spec = VectorSpec { dim: 2, metric: Metric::L2, index: IndexPolicy::Auto };
    schema.vectors.insert("title".to_owned(), spec);
    let with_threshold = v1::SearchQuery { score_threshold: Some(9.0), ..search() };
    let mut good = batch(vec![with_threshold]).unwrap();
    assert_eq!(good.resolve(&schema), Ok(vec![Metric::L2]));
    assert_eq!(good.searches[0].query.vector_name, "title");
    assert_eq!(good.searches[0].query.min_similarity, Some(-9.0));

    let long = v1::SearchQuery { vector: Some(packed(12)), ..search() };
    let exists = condition("year", v1::condition::Test::Exists(v1::Exists {}));
    let undeclared = v1::SearchQuery { filter: Some(filter(exists)), ..search() };
    let unnamed = v1::SearchQuery { vector_name: "body".to_owned(), ..search() };
    let names = v1::VectorNameList { names: vec!["title".to_owned(), "body".to_owned()] };
    let names = Some(v1::vector_selection::Selection::Include(names));
    let unselectable = v1::SearchQuery { vectors: Some(v1::VectorSelection { selection: names }), ..search() };
    let cases = [
        ("vectors.include.names[1]", "not a vector", unselectable),
        ("vector", "3 dimensions", long),
        ("filter.must[0].field", "not a declared field", undeclared),
        ("vector_name", "not a vector", unnamed),
    ];
    for (field, says, bad) in cases {
        let mut searches = batch(vec![search(), bad]).unwrap();
        refused(&format!("searches[1].{field}"), says, searches.resolve(&schema));
    }
}

#[test]
fn points_against_a_schema() {
    let mut schema = Schema::default();
    let spec = VectorSpec { dim: 2, metric: Metric::Cosine, index: IndexPolicy::Auto };
    schema.vectors.insert("title".to_owned(), spec);
    schema.fields.insert("year".parse().unwrap(), sagitta_model::FieldType::Integer);
    let ones = || v1::Vector { data: Some(v1::vector::Data::Dense(v1::DenseVector { values: vec![1.0; 2] })) };
    let point = |name: &str, vector| v1::Point {
        id: Some(num(1)),
        vectors: [(name.to_owned(), vector)].into(),
        ..Default::default()
    };
    let mut good = upsert(vec![point("", ones())]).unwrap();
    good.resolve(&schema).unwrap();
    let sagitta_model::Change::Upsert(points) = &good.change else { panic!("{good:?}") };
    assert_eq!(points[0].vectors["title"], [1.0, 1.0]);

    let year = [("year".to_owned(), value(v1::value::Kind::BoolValue(true)))];
    let cases = [
        ("points[0].vectors[\"title\"]", "zero vector", point("title", packed(8))),
        ("points[0].vectors[\"title\"]", "expects 2", point("title", packed(4))),
        ("points[0].vectors[\"title\"]", "missing", v1::Point { id: Some(num(1)), ..Default::default() }),
        ("points[0].payload.year", "integer", v1::Point { payload: year.clone().into(), ..point("title", ones()) }),
    ];
    for (field, says, bad) in cases {
        refused(field, says, upsert(vec![bad]).unwrap().resolve(&schema));
    }

    let merge = v1::update_payload_request::Change::Merge(v1::ObjectValue { entries: year.into() });
    let ids = v1::update_payload_request::Target::Ids(v1::PointIdList { ids: vec![num(1)] });
    let update = v1::UpdatePayloadRequest {
        collection: "docs".to_owned(),
        target: Some(ids),
        change: Some(merge),
        ..Default::default()
    };
    refused("merge.year", "integer", Write::from_update_payload(update).unwrap().resolve(&schema));
}

#[test]
fn collections() {
    let config = v1::VectorConfig { dimension: 2, metric: v1::Metric::Cosine.into(), ..Default::default() };
    let create = |name: &str, vector: &str, config, field: &str, field_type| {
        let collection = v1::Collection {
            name: name.to_owned(),
            vectors: [(vector.to_owned(), config)].into(),
            fields: [(field.to_owned(), field_type)].into(),
            ..Default::default()
        };
        let request = v1::CreateCollectionRequest { collection: Some(collection), request_id: String::new() };
        CreateCollection::from_proto(request)
    };
    let keyword = v1::FieldType::Keyword.into();
    assert!(create("docs", "v", config, "a.b", keyword).is_ok());
    refused("collection.name", "is not a name", create("Docs", "v", config, "a", keyword));
    refused("collection.name", "is not a name", create(&"a".repeat(129), "v", config, "a", keyword));
    refused("collection.vectors[\"V\"].name", "is not a name", create("docs", "V", config, "a", keyword));
    let at = "collection.vectors[\"v\"]";
    let bad = |config| create("docs", "v", config, "a", keyword);
    refused(&format!("{at}.metric"), "missing", bad(v1::VectorConfig { metric: 0, ..config }));
    refused(&format!("{at}.metric"), "99", bad(v1::VectorConfig { metric: 99, ..config }));
    refused(&format!("{at}.index"), "99", bad(v1::VectorConfig { index: 99, ..config }));
    refused(&format!("{at}.dimension"), "1 to 16384", bad(v1::VectorConfig { dimension: 0, ..config }));
    refused(&format!("{at}.dimension"), "16385", bad(v1::VectorConfig { dimension: 16_385, ..config }));
    refused("collection.fields[\"a..b\"]", "field path", create("docs", "v", config, "a..b", keyword));
    refused("collection.fields[\"a\"]", "no type", create("docs", "v", config, "a", 0));
    refused("collection", "missing", CreateCollection::from_proto(v1::CreateCollectionRequest::default()));
    let placed = |shards, replication| {
        let vectors = [("v".to_owned(), config)].into();
        let collection = v1::Collection { name: "docs".to_owned(), vectors, shards, replication, ..Default::default() };
        let request = v1::CreateCollectionRequest { collection: Some(collection), request_id: String::new() };
        CreateCollection::from_proto(request)
    };
    assert!(placed(MAX_SHARDS, MAX_REPLICATION).is_ok());
    refused("collection.shards", "is 1025, expected 1 to 1024", placed(MAX_SHARDS + 1, 1));
    refused("collection.replication", "is 8, expected 1 to 7", placed(1, MAX_REPLICATION + 1));
    let none = v1::Collection { name: "docs".to_owned(), ..Default::default() };
    let none = v1::CreateCollectionRequest { collection: Some(none), request_id: String::new() };
    refused("collection.vectors", "at least one", CreateCollection::from_proto(none));

    refused("name", "is not a name", GetCollection::from_proto(v1::GetCollectionRequest::default()));
    refused("name", "is not a name", DeleteCollection::from_proto(v1::DeleteCollectionRequest::default()));
    let view = v1::GetCollectionRequest { name: "docs".to_owned(), view: 99 };
    refused("view", "99", GetCollection::from_proto(view));
}

/// The numbers that the proto files promise are the ones that hold.
#[test]
fn documented_limits_are_the_real_ones() {
    let files = [
        include_str!("../../../../proto/sagitta/v1/common.proto"),
        include_str!("../../../../proto/sagitta/v1/collections.proto"),
        include_str!("../../../../proto/sagitta/v1/points.proto"),
        include_str!("../../../../proto/sagitta/v1/search.proto"),
    ];
    let [common, collections, points, search] = files.map(|file| file.replace("\n  //", "").replace("\n//", ""));
    let promise = |file: &str, promise: &str| {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(file).contains(&words(promise)), "`{promise}` is not what the proto file says");
    };
    let grouped = |n: usize| {
        let digits = n.to_string();
        let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
        groups.join(",")
    };
    promise(&common, &format!("at most {} MiB", MAX_MESSAGE_BYTES >> 20));
    promise(&common, &format!("1 to {}.", grouped(MAX_DIMENSION)));
    promise(&common, &format!("at most {} conditions over all levels", MAX_FILTER_CONDITIONS));
    promise(&common, &format!("at most {} levels deep", MAX_FILTER_DEPTH));
    promise(&common, &format!("At most {}. Duplicates", grouped(MAX_FILTER_VALUES)));
    promise(&common, &format!("KEYWORD fields. At most {} bytes", grouped(MAX_KEYWORD_BYTES)));
    promise(&common, &format!("At most {} bytes, compared", grouped(MAX_KEYWORD_BYTES)));
    promise(&common, &format!("At most {}, each of at most {} bytes", crate::read::MAX_PATHS, MAX_PATH_BYTES));
    promise(&common, &format!("At most {}. A name", MAX_VECTORS));
    promise(&common, &format!("at most {}; together", crate::read::MAX_VERSION_TOKENS));
    promise(&common, &format!("at most {} places", grouped(crate::version::MAX_PLACES)));
    promise(&common, &format!("above {MAX_MAGNITUDE:e} in magnitude"));
    promise(&common, &format!("shorter than {MIN_NORM:e}"));
    promise(&collections, &format!("1 to {MAX_NAME_BYTES} characters"));
    promise(&collections, &format!("1 to {MAX_VECTORS} of them"));
    promise(&collections, &format!("at most {MAX_FIELDS}."));
    promise(&collections, &format!("1 to {}. Required", grouped(MAX_DIMENSION)));
    promise(&collections, &format!("at most {} bytes, compared", grouped(MAX_KEYWORD_BYTES)));
    promise(&collections, &format!("(0): {}. More than {} is", crate::DEFAULT_PAGE, grouped(MAX_PAGE)));
    promise(&points, &format!("1 to {} points", grouped(MAX_BATCH_POINTS)));
    promise(&points, &format!("1 to {} ids", grouped(MAX_BATCH_POINTS)));
    promise(&points, &format!("at most {} MiB", MAX_PAYLOAD_BYTES >> 20));
    promise(&points, &format!("{MAX_PAYLOAD_DEPTH} levels of objects and lists"));
    promise(&points, &format!("(0): {}. More than {} is", crate::DEFAULT_PAGE, grouped(MAX_PAGE)));
    promise(&search, &format!("1 to {} searches", grouped(MAX_BATCH_SEARCHES)));
    promise(&search, &format!("hits wanted, 1 to {}", grouped(MAX_K)));
    promise(&search, &format!("1 to {}.", grouped(MAX_BREADTH)));
}
