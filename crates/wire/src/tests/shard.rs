//! What coordinators and nodes say to each other about shards: it arrives as it was sent, keeps its bytes, and is refused with
//! the field's name where it is nonsense.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use sagitta_model::*;

use super::any;
use super::golden::{self, hex};
use super::round_trip::{check, sent};
use crate::internal as p;
use crate::shard::*;
use crate::{Convert, v1};

/// Sends both kinds of an answer, and reads them as what was asked for.
fn check_answer<T, M>(value: T, error: ShardError, asked: &M::Asked, message: impl Fn(Answer<T>) -> M)
where
    T: Clone + Debug + PartialEq,
    M: Answered<Value = Answer<T>> + Message + Default,
{
    for answer in [Ok(value), Err(error)] {
        assert_eq!(sent(&message(answer.clone())).answered(asked), Ok(answer));
    }
}

proptest! {
    #[test]
    fn writes(shard in any::shard(), request_id in any::<u128>(), change in any::change(), indexed in any::<bool>()) {
        let wait = if indexed { Wait::Indexed } else { Wait::Committed };
        check(Write { shard, request_id, change, wait })?;
    }

    #[test]
    fn reads(
        shard in any::shard(),
        ids in vec(any::id(), 1..5),
        after in option::of(any::id()),
        limit in 1..=limits::MAX_PAGE,
        filter in option::of(any::filter().prop_map(Arc::new)),
        selection in any::selection(),
        tokens in any::freshness(),
        to in 1..=u64::MAX,
    ) {
        check(shard)?;
        check(Get { shard, ids, selection: selection.clone(), tokens: tokens.clone() })?;
        check(Count { shard, filter: filter.clone(), tokens: tokens.clone() })?;
        check(Scroll { shard, page: Page { after, limit, filter, selection }, tokens })?;
        check(HandOver { shard, to })?;
        check(Pull { shard, question: to.to_le_bytes().to_vec().into() })?;
    }

    #[test]
    fn searches(
        shards in proptest::collection::btree_map(1..=u64::MAX, any::<u64>(), 1..5),
        (queries, _) in any::queries(),
        explain in any::<bool>(),
        tokens in any::freshness(),
    ) {
        let shards = shards.into_iter().map(|(shard, epoch)| ShardRef { shard, epoch, split: 0 }).collect();
        check(Search { shards, queries: queries.into(), explain, tokens })?;
    }

    #[test]
    fn answers(
        error in any::shard_error(),
        written in any::write_result(),
        statistics in any::statistics(),
        count in any::<u64>(),
        (selection, records) in any::selection().prop_flat_map(|selection| {
            (Just(selection.clone()), vec(any::record(selection), 0..4))
        }),
    ) {
        check(error.clone())?;
        let error = || error.clone();
        check_answer(written, error(), &(), write_answer);
        check_answer(statistics, error(), &(), statistics_answer);
        check_answer(count, error(), &(), count_answer);
        check_answer((), error(), &(), hand_over_answer);
        let asked = (records.len(), selection);
        check_answer(records.clone(), error(), &asked, get_answer);
        check_answer(records, error(), &asked, scroll_answer);
    }

    #[test]
    fn search_answers(
        (queries, results) in any::queries(),
        error in any::shard_error(),
        shards in vec(any::shard(), 2..5),
        failing in any::<proptest::sample::Index>(),
    ) {
        let failing = failing.index(shards.len());
        let answers: Vec<_> = shards.iter().enumerate().map(|(at, shard)| {
            (shard.shard, if at == failing { Err(error.clone()) } else { Ok(results.clone()) })
        }).collect();
        let asked = (shards, queries.into());
        prop_assert_eq!(sent(&search_answer(answers.clone())).answered(&asked).unwrap(), answers);
    }

    /// Equal similarities stay equal, and others stay different, to the last bit.
    #[test]
    fn similarities_keep_every_bit(
        similarity in prop_oneof![Just(-0.0f32), any::<f32>().prop_filter("finite", |x| x.is_finite())],
    ) {
        let hit = FoundPoint { id: PointId::Uuid(u128::MAX - 1), similarity, record: None };
        let result = SearchResult { hits: vec![hit], ..SearchResult::default() };
        let query = (SearchQuery { k: 1, group_by: None, ..query().0 }, Selection::default());
        let asked = (vec![SHARD], Arc::from([query]));
        let arrived = sent(&search_answer(vec![(SHARD.shard, Ok(vec![result]))])).answered(&asked).unwrap();
        let arrived = &arrived[0].1.as_ref().unwrap()[0].hits[0];
        prop_assert_eq!((arrived.similarity.to_bits(), arrived.id), (similarity.to_bits(), PointId::Uuid(u128::MAX - 1)));
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(
        (queries, results) in any::queries(),
        change in any::change(),
        flips in vec((any::<usize>(), any::<u8>()), 0..4),
        cut in any::<usize>(),
    ) {
        let write = Write { shard: SHARD, request_id: 7, change, wait: Wait::Committed };
        let found = search_answer(vec![(SHARD.shard, Ok(results))]).encode_to_vec();
        let search = search_request(&[SHARD], &queries, true, &Tokens::Latest).encode_to_vec();
        for mut bytes in [write.into_proto().encode_to_vec(), search, found] {
            prop_assert!(read_as_everything(&bytes) > 0);
            for (at, value) in &flips {
                let at = at % bytes.len();
                bytes[at] = *value;
            }
            read_as_everything(&bytes);
            bytes.truncate(cut % (bytes.len() + 1));
            read_as_everything(&bytes);
        }
    }
}

const SHARD: ShardRef = ShardRef { shard: 17, epoch: 3, split: 0 };

fn query() -> (SearchQuery, Selection) {
    let search = golden::search(Effort::Recall(0.9));
    (SearchQuery { min_similarity: Some(-9.0), ..search.query }, search.selection)
}

fn error(elsewhere: Option<Elsewhere>) -> ShardError {
    ShardError {
        request_id_reused: true,
        retry_after: Some(Duration::from_millis(1_500)),
        elsewhere,
        ..ShardError::new(ErrorKind::Overloaded, "busy")
    }
}

/// Reads the bytes as every message there is; returns how many took them.
fn read_as_everything(bytes: &[u8]) -> usize {
    fn decode<M: Message + Default, T, E>(bytes: &[u8], convert: impl FnOnce(M) -> Result<T, E>) -> bool {
        M::decode(bytes).is_ok_and(|message| convert(message).is_ok())
    }
    let points = (10, Selection::default());
    let (query, selection) = query();
    let query = SearchQuery { group_by: None, k: 10_000, ..query };
    let found = |queries: usize| (vec![SHARD], Arc::from(vec![(query.clone(), selection.clone()); queries]));
    let taken = [
        decode(bytes, Write::from_proto),
        decode(bytes, Search::from_proto),
        decode(bytes, Get::from_proto),
        decode(bytes, Count::from_proto),
        decode(bytes, Scroll::from_proto),
        decode(bytes, Pull::from_proto),
        decode(bytes, |message: p::PullResponse| message.answered(&())),
        decode(bytes, HandOver::from_proto),
        decode(bytes, |message: p::ShardWriteResponse| message.answered(&())),
        decode(bytes, |message: p::ShardGetResponse| message.answered(&points)),
        decode(bytes, |message: p::ShardCountResponse| message.answered(&())),
        decode(bytes, |message: p::ShardScrollResponse| message.answered(&points)),
        decode(bytes, |message: p::ShardStatisticsResponse| message.answered(&())),
        decode(bytes, |message: p::HandOverResponse| message.answered(&())),
        decode(bytes, |message: p::ShardSearchResponse| message.answered(&found(1))),
        decode(bytes, |message: p::ShardSearchResponse| message.answered(&found(2))),
        decode(bytes, |message: p::ShardSearchResponse| message.answered(&found(3))),
        // Whatever was asked for.
        decode(bytes, |_: p::ShardSearchResponse| Ok::<_, Violation>(())),
    ];
    taken.into_iter().filter(|&taken| taken).count()
}

#[test]
fn each_message_keeps_its_bytes() {
    let places = Tokens::AtLeast([(17, 300), (18, 1)].into());
    let write =
        |change| hex(&Write { shard: SHARD, request_id: 0xf0 << 120 | 1, change, wait: Wait::Indexed }.into_proto());
    let ids = || vec![PointId::Num(7), PointId::Uuid(2)];
    let update = |target, change| write(Change::UpdatePayload { target, change });
    let (by_ids, by_filter) = (Target::Ids(ids()), Target::Filter(golden::filter()));
    let selection = golden::selection;
    let get = Get { shard: SHARD, ids: ids(), selection: selection(), tokens: places.clone() };
    let filter = || Some(Arc::new(golden::filter()));
    let page = Page { after: Some(PointId::Num(7)), limit: 300, filter: filter(), selection: selection() };
    let uuid = FoundPoint { id: PointId::Uuid(2 << 64 | 3), similarity: 0.5, record: None };
    let result = SearchResult { hits: vec![uuid], ..golden::result() };
    let statistics = CollectionStatistics { ready: true, points: 300, ..CollectionStatistics::default() };
    let busy = |elsewhere| hex(&error(elsewhere).into_proto());
    let messages = [
        ("ShardWriteRequest.upsert", write(Change::Upsert(vec![golden::point()]))),
        ("ShardWriteRequest.delete", write(Change::Delete(ids()))),
        ("ShardWriteRequest.delete_by_filter", write(Change::DeleteByFilter(golden::filter()))),
        ("ShardWriteRequest.merge", update(by_ids, PayloadChange::Merge(golden::point().payload))),
        ("ShardWriteRequest.replace", update(by_filter.clone(), PayloadChange::Replace(golden::point().payload))),
        ("ShardWriteRequest.delete_fields", update(by_filter, PayloadChange::Delete(vec![golden::path("a.b")]))),
        ("ShardWriteResponse", hex(&write_answer(Ok(golden::write_result())))),
        ("ShardWriteResponse.error", hex(&write_answer(Err(error(None))))),
        ("ShardSearchRequest", hex(&search_request(&[SHARD], &[query()], true, &places))),
        (
            "ShardSearchResponse",
            hex(&search_answer(vec![(17, Ok(vec![golden::result(), result])), (18, Err(error(None)))])),
        ),
        ("ShardGetRequest", hex(&get.into_proto())),
        ("ShardGetResponse", hex(&get_answer(Ok(vec![golden::record()])))),
        ("ShardCountRequest", hex(&Count { shard: SHARD, filter: filter(), tokens: Tokens::Latest }.into_proto())),
        ("ShardCountResponse", hex(&count_answer(Ok(300)))),
        ("ShardScrollRequest", hex(&Scroll { shard: SHARD, page, tokens: Tokens::Any }.into_proto())),
        ("ShardScrollResponse", hex(&scroll_answer(Ok(vec![golden::record()])))),
        ("ShardStatisticsResponse", hex(&statistics_answer(Ok(statistics)))),
        ("PullRequest", hex(&Pull { shard: SHARD, question: "question".into() }.into_proto())),
        ("PullResponse", hex(&pull_answer(Ok("answer".into())))),
        ("HandOverRequest", hex(&HandOver { shard: SHARD, to: 9 }.into_proto())),
        ("HandOverResponse", hex(&hand_over_answer(Err(error(None))))),
        ("ShardError.not_hosted", busy(Some(Elsewhere::NotHosted))),
        ("ShardError.divided", busy(Some(Elsewhere::Divided))),
        ("ShardError.stale_route", busy(Some(Elsewhere::Stale { epoch: 300 }))),
        ("ShardError.not_leader", busy(Some(Elsewhere::NotLeader { hint: Some(9) }))),
        ("ShardError.no_leader", busy(Some(Elsewhere::NotLeader { hint: None }))),
    ];
    golden::check(include_str!("golden_shard.txt"), &messages);
}

/// A request or answer that is refused for a field.
fn refused<T: Debug>(field: &str, reason: &str, read: Result<T, Violation>) {
    let violation = read.expect_err(field);
    assert_eq!(violation.field, field, "{violation}");
    assert!(violation.reason.contains(reason), "{violation}");
}

#[test]
fn requests_that_are_nonsense_are_refused_with_the_fields_name() {
    let write =
        || Write { shard: SHARD, request_id: 1, change: Change::Delete(vec![PointId::Num(1)]), wait: Wait::Committed };
    let write = || write().into_proto();
    let read = Write::from_proto;
    refused("shard", "is missing", read(p::ShardWriteRequest { shard: None, ..write() }));
    refused("shard.shard", "no shard", read(p::ShardWriteRequest { shard: Some(p::ShardRef::default()), ..write() }));
    refused("request_id", "UUID", read(p::ShardWriteRequest { request_id: vec![1; 15].into(), ..write() }));
    refused("change", "is missing", read(p::ShardWriteRequest { change: None, ..write() }));
    refused("wait", "99", read(p::ShardWriteRequest { wait: 99, ..write() }));
    let changed = |change| read(p::ShardWriteRequest { change: Some(change), ..write() });
    use p::shard_write_request::Change as C;
    refused("upsert.points", "0 entries", changed(C::Upsert(p::ShardPoints::default())));
    let nameless = p::ShardPoints { points: vec![v1::Point::default()] };
    refused("upsert.points[0].id", "is missing", changed(C::Upsert(nameless)));
    refused("delete.ids", "0 entries", changed(C::Delete(v1::PointIdList::default())));
    refused("update_payload.target", "is missing", changed(C::UpdatePayload(p::PayloadUpdate::default())));

    let search = || search_request(&[SHARD], &[query()], false, &Tokens::Any);
    let read = Search::from_proto;
    refused("shards", "0 entries", read(p::ShardSearchRequest { shards: Vec::new(), ..search() }));
    let many = vec![SHARD.into_proto(); MAX_SHARDS + 1];
    refused("shards", "1025 entries", read(p::ShardSearchRequest { shards: many, ..search() }));
    let twice = vec![SHARD.into_proto(); 2];
    refused("shards", "shard 17 twice", read(p::ShardSearchRequest { shards: twice, ..search() }));
    refused("queries", "0 entries", read(p::ShardSearchRequest { queries: Vec::new(), ..search() }));
    let good = || search().queries.remove(0);
    let queried = |query| read(p::ShardSearchRequest { queries: vec![good(), query], ..search() });
    let floats = |floats: &[f32]| floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<u8>>().into();
    refused("queries[1].vector", "no components", queried(p::ShardQuery { vector: floats(&[]), ..good() }));
    refused("queries[1].vector", "multiple of 4", queried(p::ShardQuery { vector: vec![1; 5].into(), ..good() }));
    let nan = floats(&[1.0, f32::NAN]);
    refused("queries[1].vector[1]", "finite", queried(p::ShardQuery { vector: nan, ..good() }));
    let long = floats(&vec![1.0; limits::MAX_DIMENSION + 1]);
    refused("queries[1].vector", "16385 dimensions", queried(p::ShardQuery { vector: long, ..good() }));
    refused("queries[1].k", "is 0", queried(p::ShardQuery { k: 0, ..good() }));
    let nan = Some(f32::NAN);
    refused("queries[1].min_similarity", "NaN", queried(p::ShardQuery { min_similarity: nan, ..good() }));
    let effort = Some(p::shard_query::Effort::RecallTarget(1.5));
    refused("queries[1].recall_target", "1.5", queried(p::ShardQuery { effort, ..good() }));
    let vector_name = "v".repeat(limits::MAX_NAME_BYTES + 1);
    refused("queries[1].vector_name", "129 bytes", queried(p::ShardQuery { vector_name, ..good() }));
    let places = vec![p::places::Place::default(); crate::version::MAX_PLACES + 1];
    let level = Some(p::freshness::Level::AtLeast(p::Places { places }));
    let freshness = Some(p::Freshness { level });
    refused("freshness.at_least.places", "1025 entries", read(p::ShardSearchRequest { freshness, ..search() }));

    let scroll = p::ShardScrollRequest { shard: Some(SHARD.into_proto()), limit: 10_001, ..Default::default() };
    refused("limit", "10001", Scroll::from_proto(scroll));
    let question = vec![0; (1 << 20) + 1].into();
    refused("question", "at most", Pull::from_proto(p::PullRequest { shard: Some(SHARD.into_proto()), question }));
    let hand_over = p::HandOverRequest { shard: Some(SHARD.into_proto()), to: 0 };
    refused("to", "no node", HandOver::from_proto(hand_over));
}

#[test]
fn answers_that_are_nonsense_are_refused_with_the_fields_name() {
    let (query, selection) = query();
    let asked = |query: SearchQuery| (vec![SHARD], Arc::from([(query, selection.clone())]));
    let plain = || SearchQuery { group_by: None, k: 1, ..query.clone() };
    let hit = |similarity| p::ShardHit { similarity: Some(similarity), ..Default::default() };
    let found = |result| p::ShardSearchResponse {
        shards: vec![p::ShardResults { shard: SHARD.shard, results: vec![result], error: None }],
    };
    let hits = |hits| found(p::ShardResult { hits, ..Default::default() });
    refused("shards", "0 entries", p::ShardSearchResponse::default().answered(&asked(plain())));
    let other = p::ShardSearchResponse { shards: vec![p::ShardResults { shard: 5, ..Default::default() }] };
    refused("shards[0].shard", "is 5, asked was 17", other.answered(&asked(plain())));
    let none = p::ShardSearchResponse { shards: vec![p::ShardResults { shard: 17, ..Default::default() }] };
    refused("shards[0].results", "0 entries", none.answered(&asked(plain())));
    let many = hits(vec![hit(0.5), hit(0.5)]);
    refused("shards[0].results[0].hits", "2 entries", many.answered(&asked(plain())));
    let nan = hits(vec![hit(f32::NAN)]).answered(&asked(plain()));
    refused("shards[0].results[0].hits[0].similarity", "finite", nan);
    let unknown = hits(vec![p::ShardHit::default()]).answered(&asked(plain()));
    refused("shards[0].results[0].hits[0].similarity", "is missing", unknown);
    let group = || p::ShardGroup { key: Some(v1::Value::default()), hits: Vec::new() };
    let groups = |groups| found(p::ShardResult { groups, ..Default::default() });
    refused("shards[0].results[0].groups", "1 entries", groups(vec![group()]).answered(&asked(plain())));
    let keyless = groups(vec![p::ShardGroup::default()]);
    refused("shards[0].results[0].groups[0].key", "is missing", keyless.answered(&asked(query.clone())));
    let error = |error| p::ShardCountResponse { count: 0, error: Some(error) }.answered(&());
    let good = || super::shard::error(None).into_proto();
    refused("error.kind", "is 0", error(p::ShardError { kind: 0, ..good() }));
    refused("error.message", "4097 bytes", error(p::ShardError { message: "x".repeat(4_097), ..good() }));
    let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    refused("error.retry_after", "-1s", error(p::ShardError { retry_after: negative, ..good() }));
    let nobody = Some(p::shard_error::Elsewhere::NotLeader(p::NotLeader { hint: Some(0) }));
    refused("error.not_leader.hint", "no node", error(p::ShardError { elsewhere: nobody, ..good() }));
    refused("result", "is missing", p::ShardWriteResponse::default().answered(&()));
    refused("statistics", "is missing", p::ShardStatisticsResponse::default().answered(&()));
    let points = get_answer(Ok(vec![golden::record(); 2]));
    refused("points", "2 entries", points.answered(&(1, golden::selection())));
}

#[test]
fn an_error_is_cut_to_what_may_be_said_and_nobody_says_that_it_cannot_be_reached() {
    let long = ShardError {
        elsewhere: Some(Elsewhere::Unreachable),
        ..ShardError::new(ErrorKind::Internal, "é".repeat(4_000))
    };
    let arrived = ShardError::from_proto(sent(&long.into_proto())).unwrap();
    assert!(arrived.message.len() <= 4_096 && arrived.message.ends_with("é..."), "{}", arrived.message.len());
    assert_eq!(arrived.elsewhere, None);
}

#[test]
fn an_answer_that_is_larger_than_a_message_says_so_instead() {
    const RECORDS: usize = 300;
    let payload = Object::from([("text".to_owned(), "x".repeat(limits::MAX_PAYLOAD_BYTES - 64).as_str().into())]);
    let record = Record { id: PointId::Num(1), version: 1, payload: Some(payload), vectors: NamedVectors::new() };
    let selection = Selection { payload: PayloadSelection::All, ..Selection::default() };
    let asked = (RECORDS, selection.clone());
    let fits = get_answer(Ok(vec![record.clone(); 3])).answered(&asked).unwrap();
    assert_eq!(fits, Ok(vec![record.clone(); 3]));
    let heavy = get_answer(Ok(vec![record.clone(); RECORDS])).answered(&asked).unwrap().unwrap_err();
    assert_eq!((heavy.kind, heavy.message), (ErrorKind::Invalid, Record::too_heavy().reason));

    let hit = FoundPoint { id: record.id, similarity: 1.0, record: Some(Box::new(record)) };
    let result = SearchResult { hits: vec![hit; RECORDS / 2 + 1], ..SearchResult::default() };
    let answers = [1, 2].map(|shard| (shard, Ok(vec![result.clone()]))).to_vec();
    let query = SearchQuery { group_by: None, k: RECORDS, ..query().0 };
    let shards = [1, 2].map(|shard| ShardRef { shard, epoch: 1, split: 0 }).to_vec();
    let found = search_answer(answers).answered(&(shards, Arc::from([(query, selection)]))).unwrap();
    for (_, answer) in found {
        assert_eq!(answer.unwrap_err().message, Record::too_heavy().reason, "of all, since none alone is too large");
    }
}

#[test]
fn the_numbers_that_the_proto_files_promise_are_the_ones_that_hold() {
    let shard = include_str!("../../../../proto/sagitta/internal/v1/shard.proto");
    let promise = |promise: String| assert!(shard.contains(&promise), "`{promise}` is not what the proto file says");
    promise(format!(
        "request is at most {} MiB, an answer at most {} MiB",
        MAX_REQUEST_BYTES >> 20,
        MAX_ANSWER_BYTES >> 20
    ));
    assert_eq!((MAX_SHARDS, limits::MAX_BATCH_SEARCHES, crate::version::MAX_PLACES), (1_024, 1_024, 1_024));
    promise("1 to 1,024 shards".to_owned());
    promise("1 to 1,024 queries".to_owned());
    promise("At most 1,024; those".to_owned());
    assert_eq!((limits::MAX_K, limits::MAX_PAGE, limits::MAX_BATCH_POINTS), (10_000, 10_000, 10_000));
    promise("hits wanted, 1 to 10,000".to_owned());
    promise("to return, 1 to 10,000".to_owned());
    promise("1 to 10,000 points".to_owned());
    assert_eq!(limits::MAX_DIMENSION, 16_384);
    promise("1 to 16,384 of them".to_owned());
}
