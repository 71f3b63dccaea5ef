//! Arbitrary values of the model, as far as they are allowed to travel.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use sagitta_cluster::{
    Floor, GroupMembers, MergeReport, MergeStage, Place, ReplicaLoad, ReplicaReport, ReplicaRole, Report, Roles,
};
use sagitta_model::filter::Bounds;
use sagitta_model::*;

use crate::RequestId;
use crate::points::Write;
use crate::search::{Search, Searches};

pub(super) fn id() -> impl Strategy<Value = PointId> {
    prop_oneof![any::<u64>().prop_map(PointId::Num), any::<u128>().prop_map(PointId::Uuid)]
}

pub(super) fn name() -> impl Strategy<Value = CollectionName> {
    "[a-z0-9][a-z0-9_-]{0,20}".prop_map(|name| name.parse().unwrap())
}

pub(super) fn request_id() -> impl Strategy<Value = Option<RequestId>> {
    option::of(any::<u128>().prop_map(RequestId))
}

pub(super) fn path() -> impl Strategy<Value = FieldPath> {
    "[a-z]{1,8}(\\.[a-zäß ]{1,8}){0,2}".prop_map(|path| path.parse().unwrap())
}

pub(super) fn vector() -> impl Strategy<Value = Vec<f32>> {
    vec(-1e15f32..1e15, 1..20)
}

pub(super) fn vectors() -> impl Strategy<Value = NamedVectors> {
    btree_map("[a-z]{0,6}", vector(), 0..4)
}

fn float() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("finite", |x| x.is_finite())
}

pub(super) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        float().prop_map(Value::Float),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(5, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::Array),
            btree_map(any::<String>(), inner, 0..5).prop_map(Value::Object),
        ]
    })
}

pub(super) fn object() -> impl Strategy<Value = Object> {
    btree_map(any::<String>(), value(), 0..4)
}

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        any::<bool>().prop_map(Scalar::Bool),
        any::<i64>().prop_map(Scalar::Int),
        any::<String>().prop_map(Scalar::String),
    ]
}

fn bounds<T: Clone + std::fmt::Debug>(end: impl Strategy<Value = T> + 'static) -> impl Strategy<Value = Bounds<T>> {
    let end = option::of((end, any::<bool>())).boxed();
    (end.clone(), end)
        .prop_filter("a range has a bound", |(lower, upper)| lower.is_some() || upper.is_some())
        .prop_map(|(lower, upper)| Bounds { lower, upper })
}

fn test() -> impl Strategy<Value = Test> {
    let number = prop_oneof![
        any::<i64>().prop_map(Number::Int),
        any::<f64>().prop_filter("not NaN", |x| !x.is_nan()).prop_map(Number::Float),
    ];
    prop_oneof![
        scalar().prop_map(Test::Match),
        vec(scalar(), 0..5).prop_map(Test::Any),
        bounds(number).prop_map(|bounds| Test::Range(Range::Number(bounds))),
        bounds(any::<i64>()).prop_map(|bounds| Test::Range(Range::Datetime(bounds))),
        any::<String>().prop_map(Test::Prefix),
        bounds(any::<u64>()).prop_map(Test::ValuesCount),
        Just(Test::Exists),
        Just(Test::IsNull),
    ]
}

pub(super) fn filter() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![
        (path(), test()).prop_map(|(path, test)| Condition::Field { path, test }),
        vec(id(), 0..5).prop_map(Condition::has_id),
    ];
    let condition = leaf.prop_recursive(4, 20, 4, |inner| {
        let list = || vec(inner.clone(), 0..3);
        (list(), list(), list())
            .prop_map(|(must, should, must_not)| Condition::Filter(Box::new(Filter { must, should, must_not })))
    });
    (vec(condition.clone(), 0..3), vec(condition.clone(), 0..3), vec(condition, 0..3))
        .prop_map(|(must, should, must_not)| Filter { must, should, must_not })
}

pub(super) fn selection() -> impl Strategy<Value = Selection> {
    let payload = prop_oneof![
        Just(PayloadSelection::None),
        Just(PayloadSelection::All),
        vec(path(), 0..4).prop_map(PayloadSelection::Include),
        vec(path(), 0..4).prop_map(PayloadSelection::Exclude),
    ];
    let vectors = prop_oneof![
        Just(VectorSelection::None),
        Just(VectorSelection::All),
        vec("[a-z]{1,5}", 0..4).prop_map(VectorSelection::Names),
    ];
    (payload, vectors).prop_map(|(payload, vectors)| Selection { payload, vectors })
}

/// Places as they come out of a token: one of each shard, ascending.
pub(super) fn tokens() -> impl Strategy<Value = Vec<VersionToken>> {
    btree_map(any::<u64>(), any::<u64>(), 0..5)
        .prop_map(|places| places.into_iter().map(|(shard, index)| VersionToken { shard, index }).collect())
}

pub(super) fn consistency() -> impl Strategy<Value = Consistency> {
    prop_oneof![Just(Consistency::Eventual), Just(Consistency::Strong), tokens().prop_map(Consistency::Session),]
}

pub(super) fn point() -> impl Strategy<Value = Point> {
    (id(), vectors(), object()).prop_map(|(id, vectors, payload)| Point { id, vectors, payload })
}

pub(super) fn points() -> impl Strategy<Value = Vec<Point>> {
    vec(point(), 1..5).prop_filter("each id once", |points| {
        let mut ids: Vec<_> = points.iter().map(|point| point.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len() == points.len()
    })
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let target = prop_oneof![vec(id(), 1..5).prop_map(Target::Ids), filter().prop_map(Target::Filter)];
    let payload = prop_oneof![
        object().prop_map(PayloadChange::Merge),
        object().prop_map(PayloadChange::Replace),
        vec(path(), 0..4).prop_map(PayloadChange::Delete),
    ];
    prop_oneof![
        points().prop_map(Change::Upsert),
        vec(id(), 1..5).prop_map(Change::Delete),
        filter().prop_map(Change::DeleteByFilter),
        (target, payload).prop_map(|(target, change)| Change::UpdatePayload { target, change }),
    ]
}

pub(super) fn write() -> impl Strategy<Value = Write> {
    let wait = prop_oneof![Just(Wait::Committed), Just(Wait::Indexed)];
    (name(), change(), wait, request_id()).prop_map(|(collection, change, wait, request_id)| Write {
        collection,
        change,
        wait,
        request_id,
    })
}

pub(super) fn schema() -> impl Strategy<Value = Schema> {
    let spec = (
        1..=limits::MAX_DIMENSION,
        proptest::sample::select(&Metric::ALL[..]),
        proptest::sample::select(&IndexPolicy::ALL[..]),
    );
    let spec = spec.prop_map(|(dim, metric, index)| VectorSpec { dim, metric, index });
    let field_type = proptest::sample::select(&FieldType::ALL[..]);
    (btree_map("[a-z0-9][a-z0-9_-]{0,9}", spec, 1..4), btree_map(path(), field_type, 0..4))
        .prop_map(|(vectors, fields)| Schema { vectors, fields })
}

pub(super) fn search() -> impl Strategy<Value = Search> {
    let knob = || option::of(1..=limits::MAX_BREADTH);
    let knobs = (knob(), knob(), knob()).prop_map(|(ef_search, nprobe, rerank)| Knobs { ef_search, nprobe, rerank });
    let effort =
        prop_oneof![(0.01f32..=1.0).prop_map(Effort::Recall), knobs.prop_map(Effort::Knobs), Just(Effort::Exact),];
    let group_by = option::of((path(), 1..=10usize).prop_map(|(field, size)| GroupBy { field, size }));
    let filter = option::of(filter().prop_map(Arc::new));
    let query = ("[a-z]{0,5}", vector(), 1..=1_000usize, filter, effort, group_by).prop_map(
        |(vector_name, vector, k, filter, effort, group_by)| SearchQuery {
            vector_name,
            vector,
            k,
            min_similarity: None,
            filter,
            effort,
            group_by,
        },
    );
    (query, option::of(-1e9f32..1e9), selection(), any::<bool>())
        .prop_map(|(query, score_threshold, selection, explain)| Search { query, score_threshold, selection, explain })
}

pub(super) fn searches() -> impl Strategy<Value = Searches> {
    (name(), vec(search(), 1..4), consistency(), any::<bool>()).prop_map(
        |(collection, searches, consistency, allow_partial)| {
            let batch = searches.len() > 1;
            Searches { collection, searches, consistency, allow_partial, batch }
        },
    )
}

pub(super) const KINDS: [ErrorKind; 8] = [
    ErrorKind::Invalid,
    ErrorKind::NotFound,
    ErrorKind::Conflict,
    ErrorKind::Denied,
    ErrorKind::Overloaded,
    ErrorKind::Unavailable,
    ErrorKind::Corrupt,
    ErrorKind::Internal,
];

pub(super) fn problem() -> impl Strategy<Value = Problem> {
    let violation = (".{0,9}", ".{0,9}").prop_map(|(field, reason)| Violation::new(field, reason));
    (proptest::sample::select(&KINDS[..]), ".{0,20}", vec(violation, 0..3))
        .prop_map(|(kind, message, violations)| Problem { kind, message, violations })
}

pub(super) fn write_result() -> impl Strategy<Value = WriteResult> {
    let failure = (0..10_000usize, id(), problem()).prop_map(|(index, id, problem)| ItemFailure { index, id, problem });
    (any::<u64>(), vec(failure, 0..3), tokens()).prop_map(|(applied, failures, tokens)| WriteResult {
        applied,
        failures,
        tokens,
    })
}

/// A record with what this selection selects.
pub(super) fn record(selection: Selection) -> impl Strategy<Value = Record> {
    (id(), any::<u64>(), object(), vectors()).prop_map(move |(id, version, payload, vectors)| Record {
        id,
        version,
        payload: (selection.payload != PayloadSelection::None).then_some(payload),
        vectors: if selection.vectors == VectorSelection::None { NamedVectors::new() } else { vectors },
    })
}

/// A result with what this selection selects.
pub(super) fn search_result(selection: Selection) -> impl Strategy<Value = SearchResult> {
    let nothing = selection == Selection::default();
    let hit = (record(selection), -1e9f32..1e9).prop_map(move |(record, similarity)| FoundPoint {
        id: record.id,
        similarity,
        record: (!nothing).then(|| Box::new(record)),
    });
    let hits = vec(hit, 0..5).boxed();
    let group = (value(), hits.clone()).prop_map(|(key, hits)| Group { key, hits });
    (hits, vec(group, 0..3), option::of(explanation().prop_map(Box::new)))
        .prop_map(|(hits, groups, explanation)| SearchResult { hits, groups, explanation })
}

fn explanation() -> impl Strategy<Value = Explanation> {
    let index = proptest::sample::select(vec![
        SegmentIndex::Growing,
        SegmentIndex::Flat,
        SegmentIndex::Graph,
        SegmentIndex::Compact,
    ]);
    let plan = proptest::sample::select(vec![Plan::Skip, Plan::Scan, Plan::Index, Plan::IndexThenCheck]);
    let segment =
        (any::<[u64; 7]>(), index, plan, 0f32..=1.0).prop_map(
            |([shard, segment, rows, breadth, compared, reranked, duration_us], index, plan, selectivity)| {
                SegmentPlan { shard, segment, index, plan, rows, selectivity, breadth, compared, reranked, duration_us }
            },
        );
    (any::<[u64; 7]>(), vec(segment, 0..3)).prop_map(
        |([total_us, queue_us, plan_us, search_us, rerank_us, merge_us, hydrate_us], segments)| Explanation {
            total_us,
            queue_us,
            plan_us,
            search_us,
            rerank_us,
            merge_us,
            hydrate_us,
            segments,
        },
    )
}

pub(super) fn coverage() -> impl Strategy<Value = Coverage> {
    (0..1_000usize, vec((any::<u64>(), problem()), 0..3)).prop_map(|(shards, missing)| Coverage { shards, missing })
}

pub(super) fn collection() -> impl Strategy<Value = CollectionInfo> {
    (name(), any::<u128>(), schema(), any::<[u32; 2]>(), 0..i64::MAX as u64, option::of(statistics())).prop_map(
        |(name, id, schema, [shards, replication], created_unix_micros, statistics)| CollectionInfo {
            name,
            id,
            schema,
            shards,
            replication,
            created_unix_micros,
            statistics,
        },
    )
}

pub(super) fn statistics() -> impl Strategy<Value = CollectionStatistics> {
    (any::<[bool; 2]>(), any::<[u64; 6]>(), any::<[u32; 3]>()).prop_map(|(flags, wide, narrow)| {
        let [ready, refuses_data] = flags;
        let [points, indexed_points, dead_rows, disk_bytes, memory_bytes, _] = wide;
        let [growing_segments, sealed_segments, shards] = narrow;
        CollectionStatistics {
            ready,
            points,
            indexed_points,
            dead_rows,
            growing_segments,
            sealed_segments,
            disk_bytes,
            memory_bytes,
            shards,
            refuses_data,
        }
    })
}

pub(super) fn shard() -> impl Strategy<Value = ShardRef> {
    (1..=u64::MAX, any::<u64>(), any::<u64>()).prop_map(|(shard, epoch, split)| ShardRef { shard, epoch, split })
}

/// What a read must see, with places in any order.
pub(super) fn freshness() -> impl Strategy<Value = Tokens> {
    prop_oneof![
        Just(Tokens::Any),
        vec(any::<(u64, u64)>(), 0..5).prop_map(|places| Tokens::AtLeast(places.into())),
        Just(Tokens::Latest),
    ]
}

/// An error that a replica may say.
pub(super) fn shard_error() -> impl Strategy<Value = ShardError> {
    let elsewhere = prop_oneof![
        Just(Elsewhere::NotHosted),
        Just(Elsewhere::Divided),
        any::<u64>().prop_map(|epoch| Elsewhere::Stale { epoch }),
        option::of(1..=u64::MAX).prop_map(|hint| Elsewhere::NotLeader { hint }),
    ];
    let retry_after = option::of((0..86_400u64, 0..1_000_000_000u32).prop_map(|(s, n)| Duration::new(s, n)));
    let flags = any::<(bool, bool)>();
    (proptest::sample::select(&KINDS[..]), ".{0,40}", flags, retry_after, option::of(elsewhere)).prop_map(
        |(kind, message, (request_id_reused, in_doubt), retry_after, elsewhere)| ShardError {
            kind,
            message,
            request_id_reused,
            retry_after,
            in_doubt,
            elsewhere,
        },
    )
}

/// Queries as a shard gets them, with a threshold that is a similarity, and what each may find.
pub(super) fn queries() -> impl Strategy<Value = (Vec<(SearchQuery, Selection)>, Vec<SearchResult>)> {
    let query = (search(), option::of(any::<f32>().prop_filter("not NaN", |x| !x.is_nan())));
    let query = query.prop_flat_map(|(Search { mut query, selection, .. }, min_similarity)| {
        query.min_similarity = min_similarity;
        // As many as `search_result` makes.
        query.k = query.k.max(5);
        query.group_by.iter_mut().for_each(|group_by| group_by.size = group_by.size.max(5));
        let grouped = query.group_by.is_some();
        let result = search_result(selection.clone()).prop_map(move |mut result| {
            if grouped {
                result.hits.clear();
            } else {
                result.groups.clear();
            }
            result
        });
        (Just((query, selection)), result)
    });
    vec(query, 1..4).prop_map(|queries| queries.into_iter().unzip())
}

pub(super) fn report() -> impl Strategy<Value = Report> {
    let roles = [ReplicaRole::Leader, ReplicaRole::Follower, ReplicaRole::Learner].to_vec();
    let text = || option::of(".{0,40}");
    let ids = || btree_set(1..=u64::MAX, 0..4).prop_map(|ids| ids.into_iter().collect());
    let members = (ids(), ids()).prop_map(|(voters, learners)| GroupMembers { voters, learners });
    let split = option::of(any::<[u64; 2]>().prop_map(|[term, index]| Floor { term, index }));
    let replica = (
        any::<[u64; 8]>(),
        proptest::sample::select(roles),
        option::of(1..=u64::MAX),
        text(),
        option::of(members),
        split,
    );
    let stages = [MergeStage::Ready, MergeStage::Filled, MergeStage::Frozen, MergeStage::Thawed];
    let merge = (any::<[u64; 2]>(), proptest::sample::select(stages.to_vec()));
    let merge = merge.prop_map(|([shard, merge], stage)| MergeReport { shard, merge, stage });
    let replicas = btree_map(any::<u64>(), replica, 0..5);
    let report = (replicas, any::<[u32; 2]>(), text(), any::<u64>(), vec(merge, 0..4));
    report.prop_map(|(replicas, threads, shortage, deletions, merges)| {
        let replicas = replicas.into_iter().map(|(shard, (figures, role, leader, problem, members, split))| {
            let [epoch, term, applied, points, disk_bytes, data_bytes, recent_us, lasting_us] = figures;
            let load = ReplicaLoad { recent_us, lasting_us };
            let last = Floor { term: points, index: disk_bytes };
            ReplicaReport {
                shard,
                epoch,
                role,
                leader,
                term,
                applied,
                points,
                disk_bytes,
                data_bytes,
                load,
                problem,
                split,
                members,
                last,
            }
        });
        let [searches_waiting, search_threads] = threads;
        Report { replicas: replicas.collect(), searches_waiting, search_threads, shortage, deletions, merges }
    })
}

pub(super) fn place() -> impl Strategy<Value = Place> {
    let address = || "http://[a-z]{1,10}(\\.[a-z]{1,10}){0,2}:[1-9][0-9]{0,3}";
    (address(), address(), ".{0,20}", any::<[bool; 2]>()).prop_map(
        |(peer_address, api_address, zone, [coordinator, shard])| Place {
            peer_address,
            api_address,
            zone,
            roles: Roles { coordinator, shard },
        },
    )
}
