//! What is sent is what arrives: model, message, bytes, message, model.

use std::fmt::Debug;

use proptest::prelude::*;
use prost::Message;
use sagitta_model::*;

use super::any;
use crate::Convert;
use crate::collections::{CollectionPage, CreateCollection, DeleteCollection, GetCollection, ListCollections, View};
use crate::points::{Count, Get, PointPage, Scroll, Write, WriteRequest, get_response, points_of};
use crate::search::{ScoredResult, SearchAnswer, Searches};
use crate::upload::{
    Ack, CHUNK_OVERHEAD_BYTES, ChunkWrite, Credit, Open, UploadAnswer, UploadRequest, chunk_message, cost, point_bytes,
};

/// Sends a message through its bytes.
pub(super) fn sent<M: Message + Default>(message: &M) -> M {
    M::decode(&*message.encode_to_vec()).unwrap()
}

pub(super) fn check<T>(value: T) -> Result<(), TestCaseError>
where
    T: Convert<Error: Debug> + Clone + Debug + PartialEq,
    T::Proto: Message + Default,
{
    let arrived = T::from_proto(sent(&value.clone().into_proto()));
    prop_assert_eq!(arrived.unwrap(), value);
    Ok(())
}

proptest! {
    #[test]
    fn ids_vectors_and_values(id in any::id(), vector in any::vector(), value in any::value()) {
        check(id)?;
        check(vector)?;
        check(value)?;
    }

    #[test]
    fn filters(filter in any::filter()) {
        check(filter)?;
    }

    #[test]
    fn points(point in any::point(), consistency in any::consistency()) {
        check(point)?;
        check(consistency)?;
    }

    #[test]
    fn writes(write in any::write()) {
        let arrived = match write.clone().into_proto() {
            WriteRequest::Upsert(proto) => Write::from_upsert(sent(&proto)),
            WriteRequest::Delete(proto) => Write::from_delete(sent(&proto)),
            WriteRequest::DeleteByFilter(proto) => Write::from_delete_by_filter(sent(&proto)),
            WriteRequest::UpdatePayload(proto) => Write::from_update_payload(sent(&proto)),
        };
        prop_assert_eq!(arrived.unwrap(), write);
    }

    #[test]
    fn write_results(result in any::write_result(), problem in any::problem()) {
        check(result.clone())?;
        let credit = Credit { points: 3, bytes: 7 };
        for outcome in [Ok(result), Err(problem)] {
            check(UploadAnswer { credit, ack: Some(Ack { sequence: 9, outcome }) })?;
        }
        check(UploadAnswer { credit, ack: None })?;
    }

    #[test]
    fn reads(
        collection in any::name(),
        ids in proptest::collection::vec(any::id(), 1..5),
        filter in proptest::option::of(any::filter()),
        selection in any::selection(),
        consistency in any::consistency(),
    ) {
        let filter = filter.map(std::sync::Arc::new);
        let (c, f, s) = (|| collection.clone(), || filter.clone(), || consistency.clone());
        check(Get { collection: c(), ids, selection: selection.clone(), consistency: s() })?;
        check(Count { collection: c(), filter: f(), consistency: s() })?;

        let scroll = Scroll { collection: c(), filter: f(), selection, consistency: s() };
        let first = sent(&scroll.clone().into_proto(7, String::new()));
        let (arrived, page) = Scroll::from_proto(first).unwrap();
        prop_assert_eq!(&arrived, &scroll);
        prop_assert_eq!((page.size, page.after), (7, None));
        let second = sent(&scroll.into_proto(0, page.next_token(&PointId::Num(5))));
        let (_, page) = Scroll::from_proto(second).unwrap();
        prop_assert_eq!((page.size, page.after), (crate::DEFAULT_PAGE, Some(PointId::Num(5))));
    }

    #[test]
    fn pages_of_points((selection, points) in any::selection().prop_flat_map(|selection| {
        let points = proptest::collection::vec(any::record(selection.clone()), 0..4);
        (Just(selection), points)
    })) {
        let answer = sent(&get_response(points.clone()));
        prop_assert_eq!(points_of(answer, &selection).unwrap(), points.clone());
        let page = PointPage { points, next_page_token: "next".to_owned() };
        let arrived = PointPage::from_proto(sent(&page.clone().into_proto()), &selection);
        prop_assert_eq!(arrived.unwrap(), page);
    }

    #[test]
    fn uploads(collection in any::name(), points in any::points(), request_id in any::request_id()) {
        let open = Open { collection, wait: Wait::Indexed };
        let arrived = UploadRequest::from_proto(sent(&open.clone().into_proto())).unwrap();
        prop_assert_eq!(arrived, UploadRequest::Open(open));

        let write = ChunkWrite { request_id, points };
        let chunk = write.clone().into_chunk(u64::MAX);
        let used = cost(&chunk);
        prop_assert_eq!(used.bytes, chunk.encode_to_vec().len() as u64);
        let points: u64 = chunk.points.iter().map(point_bytes).sum();
        prop_assert!(used.bytes <= points + CHUNK_OVERHEAD_BYTES);
        let message = chunk_message(chunk);
        let UploadRequest::Chunk(chunk) = UploadRequest::from_proto(sent(&message)).unwrap() else {
            return Err(TestCaseError::fail("a chunk arrives as a chunk"));
        };
        prop_assert_eq!((chunk.sequence, chunk.cost()), (u64::MAX, used));
        prop_assert_eq!(chunk.write.unwrap(), write);
    }

    #[test]
    fn searches(searches in any::searches()) {
        let arrived = if searches.batch {
            Searches::from_batch(sent(&searches.clone().into_batch()))
        } else {
            Searches::from_single(sent(&searches.clone().into_single()))
        };
        prop_assert_eq!(arrived.unwrap(), searches);
    }

    #[test]
    fn search_answers(
        (selection, result) in any::selection().prop_flat_map(|s| (Just(s.clone()), any::search_result(s))),
        metric in proptest::sample::select(&Metric::ALL[..]),
        coverage in any::coverage(),
    ) {
        let scored = ScoredResult::new(result.clone(), metric);
        for (scored, found) in scored.hits.iter().zip(&result.hits) {
            prop_assert_eq!(metric.similarity(scored.score), found.similarity);
        }
        let answer = SearchAnswer { results: vec![scored], coverage };
        let single = sent(&answer.clone().into_single());
        prop_assert_eq!(&SearchAnswer::from_single(single, &selection).unwrap(), &answer);
        let batch = sent(&answer.clone().into_batch());
        prop_assert_eq!(SearchAnswer::from_batch(batch, &[selection]).unwrap(), answer);
    }

    #[test]
    fn collections(info in any::collection(), request_id in any::request_id()) {
        check(info.clone())?;
        let name = info.name.clone();
        for (shards, replication) in [(None, None), (Some(1), Some(7)), (Some(limits::MAX_SHARDS), None)] {
            let (name, schema) = (name.clone(), info.schema.clone());
            check(CreateCollection { name, schema, shards, replication, request_id })?;
        }
        check(DeleteCollection { name: name.clone(), allow_missing: true, request_id })?;
        for view in [View::Basic, View::Full] {
            check(GetCollection { name: name.clone(), view })?;
            let list = sent(&ListCollections { view }.into_proto(3, String::new()));
            let (list, page) = ListCollections::from_proto(&list).unwrap();
            prop_assert_eq!((list.view, page.size, &page.after), (view, 3, &None));
            let next = list.into_proto(3, page.next_token(&name));
            let (_, page) = ListCollections::from_proto(&sent(&next)).unwrap();
            prop_assert_eq!(page.after.as_ref(), Some(&name));
        }
        check(CollectionPage { collections: vec![info], next_page_token: "next".to_owned() })?;
    }
}
