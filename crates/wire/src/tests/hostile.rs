//! Whatever bytes arrive, they are converted or refused: nothing panics, nothing recurses without bound.

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use sagitta_model::{ClusterInfo, NewCluster};

use super::any;
use crate::cluster::{ListShards, NodePage, ShardPage, TransferLeader};
use crate::collections::{CollectionPage, CreateCollection, DeleteCollection, GetCollection, ListCollections};
use crate::points::{Count, Get, PointPage, Scroll, Write, WriteRequest, points_of};
use crate::search::{SearchAnswer, Searches};
use crate::upload::{UploadAnswer, UploadRequest};
use crate::{Convert, v1};

fn decode<M: Message + Default, T, E>(bytes: &[u8], convert: impl FnOnce(M) -> Result<T, E>) -> bool {
    M::decode(bytes).is_ok_and(|message| convert(message).is_ok())
}

/// Reads the bytes as every message there is; returns how many took them.
fn read_as_everything(bytes: &[u8]) -> usize {
    let selection = sagitta_model::Selection::default();
    [
        decode(bytes, CreateCollection::from_proto),
        decode(bytes, GetCollection::from_proto),
        decode(bytes, DeleteCollection::from_proto),
        decode(bytes, |proto: v1::ListCollectionsRequest| ListCollections::from_proto(&proto)),
        decode(bytes, CollectionPage::from_proto),
        decode(bytes, NewCluster::from_proto),
        decode(bytes, ClusterInfo::from_proto),
        decode(bytes, NodePage::from_proto),
        decode(bytes, ShardPage::from_proto),
        decode(bytes, TransferLeader::from_proto),
        decode(bytes, |proto: v1::ListShardsRequest| ListShards::from_proto(&proto)),
        decode(bytes, Write::from_upsert),
        decode(bytes, Write::from_delete),
        decode(bytes, Write::from_delete_by_filter),
        decode(bytes, Write::from_update_payload),
        decode(bytes, sagitta_model::WriteResult::from_proto),
        decode(bytes, Get::from_proto),
        decode(bytes, |proto| points_of(proto, &selection)),
        decode(bytes, Count::from_proto),
        decode(bytes, Scroll::from_proto),
        decode(bytes, |proto| PointPage::from_proto(proto, &selection)),
        decode(bytes, UploadRequest::from_proto),
        decode(bytes, UploadAnswer::from_proto),
        decode(bytes, Searches::from_single),
        decode(bytes, Searches::from_batch),
        decode(bytes, |proto| SearchAnswer::from_single(proto, &selection)),
        decode(bytes, |proto| SearchAnswer::from_batch(proto, std::slice::from_ref(&selection))),
    ]
    .into_iter()
    .filter(|&taken| taken)
    .count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn random_bytes_never_panic(bytes in vec(proptest::num::u8::ANY, 0..200)) {
        read_as_everything(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn damaged_requests_never_panic(
        searches in any::searches(),
        write in any::write(),
        flips in vec((any::<usize>(), any::<u8>()), 0..4),
        cut in any::<usize>(),
    ) {
        let write = match write.into_proto() {
            WriteRequest::Upsert(proto) => proto.encode_to_vec(),
            WriteRequest::Delete(proto) => proto.encode_to_vec(),
            WriteRequest::DeleteByFilter(proto) => proto.encode_to_vec(),
            WriteRequest::UpdatePayload(proto) => proto.encode_to_vec(),
        };
        for mut bytes in [searches.into_batch().encode_to_vec(), write] {
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

/// The encoding of a message within a message within a message: `fields` are the numbers of the fields that one
/// level goes through, innermost last.
fn nest(levels: usize, fields: &[u32]) -> Vec<u8> {
    // Built from the inside in reverse, because a length comes before what it is the length of.
    let mut reversed: Vec<u8> = Vec::new();
    for _ in 0..levels {
        for &field in fields.iter().rev() {
            let mut head = Vec::new();
            encode_key(field, WireType::LengthDelimited, &mut head);
            encode_varint(reversed.len() as u64, &mut head);
            reversed.extend(head.iter().rev());
        }
    }
    reversed.reverse();
    reversed
}

#[test]
fn nesting_beyond_all_limits_is_refused_before_the_stack_is_at_risk() {
    const MUST: u32 = 1;
    const FILTER: u32 = 8;
    const ARRAY: u32 = 6;
    const VALUES: u32 = 1;
    let deep = nest(200_000, &[MUST, FILTER]);
    assert!(deep.len() > 1_000_000);
    assert!(v1::Filter::decode(&*deep).unwrap_err().to_string().contains("recursion"));
    assert!(v1::Value::decode(&*nest(200_000, &[ARRAY, VALUES])).is_err());
    // Fields that no message has are skipped, nested groups among them.
    let groups = vec![0x7b; 1_000_000];
    assert!(v1::SearchRequest::decode(&*groups).is_err());

    // What is within the decoder's limit is judged by ours.
    use sagitta_model::{Filter, limits};
    let at = |levels| Filter::from_proto(v1::Filter::decode(&*nest(levels, &[MUST, FILTER])).unwrap());
    assert!(at(limits::MAX_FILTER_DEPTH - 1).is_ok());
    let refused = at(limits::MAX_FILTER_DEPTH).unwrap_err();
    assert!(refused.reason.contains("8 levels"), "{refused}");
    assert!(refused.field.ends_with("must[0].filter"), "{refused}");
}

#[test]
fn the_deepest_allowed_payload_can_be_decoded_wherever_it_occurs() {
    use sagitta_model::{Object, Point, PointId, Value, limits};
    let mut value = Value::Bool(true);
    for _ in 0..limits::MAX_PAYLOAD_DEPTH - 1 {
        value = Value::Object(Object::from([("k".to_owned(), value)]));
    }
    let point = |payload: Value| Point {
        id: PointId::Num(1),
        vectors: Default::default(),
        payload: Object::from([("k".to_owned(), payload)]),
    };
    let upload = |point: Point| {
        let chunk = v1::UpsertChunk { points: vec![point.into_proto()], ..Default::default() };
        let message = Some(v1::upsert_stream_request::Message::Chunk(chunk));
        v1::UpsertStreamRequest { message }.encode_to_vec()
    };
    let read = |bytes: Vec<u8>| match UploadRequest::from_proto(v1::UpsertStreamRequest::decode(&*bytes).unwrap()) {
        Ok(UploadRequest::Chunk(chunk)) => chunk.write,
        other => panic!("not a chunk: {other:?}"),
    };
    assert_eq!(read(upload(point(value.clone()))).unwrap().points, [point(value.clone())]);

    let deeper = Value::Array(vec![value]);
    let refused = read(upload(point(deeper))).unwrap_err().violation();
    assert!(refused.reason.contains("32 levels"), "{refused}");
    assert!(refused.field.starts_with("chunk.points[0].payload[\"k\"][0][\"k\"]"), "{refused}");
}
