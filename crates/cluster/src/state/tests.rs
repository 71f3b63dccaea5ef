use proptest::prelude::*;
use sagitta_model::{FieldType, IndexPolicy, Metric, PointId, Schema, VectorSpec};

use super::*;
use crate::node::Roles;
use crate::snapshot::SnapshotError;

fn schema() -> Schema {
    let mut schema = Schema::default();
    schema.vectors.insert("v".into(), VectorSpec { dim: 4, metric: Metric::Cosine, index: IndexPolicy::Auto });
    schema.fields.insert("a.b".parse().expect("path"), FieldType::Datetime);
    schema
}

fn place(zone: &str) -> Place {
    let roles = Roles { coordinator: true, shard: true };
    let (peer_address, api_address) = ("http://peer:6381".into(), "http://api:6380".into());
    Place { peer_address, api_address, zone: zone.into(), roles }
}

/// A cluster of so many nodes that are up, numbered from 1.
fn state(nodes: u64) -> State {
    let mut state = State::new(1);
    for id in 1..=nodes {
        let join = Command::Join { id, incarnation: u128::from(id), place: place(""), unix_micros: 5 };
        state.apply(join).expect("joined");
        state.apply(Command::SetNodeStatus { id, status: NodeStatus::Up }).expect("up");
    }
    state
}

fn create(request_id: u128, name: &str, shards: u32) -> Command {
    let name = name.parse().expect("name");
    Command::CreateCollection {
        request_id,
        id: request_id << 64,
        name,
        schema: schema(),
        shards,
        replication: 1,
        unix_micros: 5,
    }
}

fn delete(request_id: u128, name: &str) -> Command {
    Command::DeleteCollection { request_id, name: name.parse().expect("name") }
}

#[test]
fn a_repeated_request_changes_nothing_and_answers_the_same() {
    let mut state = state(1);
    let first = state.apply(create(1, "a", 2)).expect("created");
    assert_eq!(state.apply(create(1, "a", 2)).expect("same request"), first);
    assert_eq!(state.apply(create(2, "a", 2)), Err(Refusal::AlreadyExists("a".into())));
    assert!(matches!(state.apply(delete(3, "a")), Ok(Effect::Deleted { shards, .. }) if shards == [16, 17]));
    state.apply(create(4, "a", 1)).expect("the name is free again");
    assert!(matches!(state.apply(delete(3, "a")), Ok(Effect::Deleted { shards, .. }) if shards.is_empty()));
    assert_eq!(state.collections().len(), 1, "a late repetition deleted a younger collection");
    assert_eq!(state.apply(delete(5, "b")), Err(Refusal::NotFound("b".into())));
}

#[test]
fn shard_ids_are_never_reused_and_every_point_has_a_shard() {
    let mut state = state(1);
    state.apply(create(1, "a", 3)).expect("created");
    state.apply(delete(2, "a")).expect("deleted");
    let Ok(Effect::Created(collection)) = state.apply(create(3, "a", 3)) else { panic!("not created") };
    assert_eq!(collection.shards.iter().map(|shard| shard.id).collect::<Vec<_>>(), [19, 20, 21]);
    for n in 0..1000 {
        let id = PointId::Num(n);
        assert!(collection.shard_of(id).range.contains(crate::shard_hash(id)));
    }
}

/// The bytes that version 1 wrote must stay readable for ever.
#[test]
fn golden_snapshot_and_command_of_format_1() {
    let golden = include_str!("golden-snapshot-1.json");
    let (mut state, index, term) = State::decode(golden.as_bytes()).expect("readable");
    assert_eq!((state.cluster_id(), index, term), (0xab, 7, 2));
    let Ok(collection) = state.collection(&"docs".parse().expect("name")).cloned() else { panic!("lost") };
    assert!(collection.shards[0].replicas.is_empty() && state.nodes().is_empty());
    let join = Command::Join { id: 3, incarnation: 4, place: place(""), unix_micros: 5 };
    state.apply(join).expect("joined");
    let settled = &state.collection(&collection.name).expect("still there").shards[0];
    assert_eq!((&settled.replicas[..], &settled.founders[..]), (&[3][..], &[3][..]));
    let command = include_str!("golden-command-1.json");
    assert_eq!(String::from_utf8(create(1, "docs", 1).encode()).expect("text"), command);
    assert_eq!(Command::decode(command.as_bytes()), Ok(create(1, "docs", 1)));
}

#[test]
fn any_changed_byte_of_a_snapshot_is_noticed() {
    let mut state = state(1);
    state.apply(create(1, "docs", 1)).expect("created");
    let good = state.encode(7, 2);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        assert_eq!(State::decode(&bad), Err(SnapshotError::Damaged), "byte {at}");
        assert_eq!(State::decode(&good[..at]), Err(SnapshotError::Damaged), "cut at {at}");
    }
    let newer = br#"{"format":3}"#;
    let newer = [&newer[..], format!("\n{:016x}\n", xxhash_rust::xxh3::xxh3_64(newer)).as_bytes()].concat();
    assert_eq!(State::decode(&newer), Err(SnapshotError::Newer { found: 3 }));
}

proptest! {
    #[test]
    fn replaying_the_log_from_any_snapshot_gives_the_same_state(
        steps in prop::collection::vec((0u128..30, 0usize..4, any::<bool>(), 1u32..4), 1..60),
        cut in 0usize..60,
    ) {
        let names = ["a", "b", "c", "d"];
        let mut whole = state(3);
        let mut restored = whole.clone();
        for (at, (request, name, creates, shards)) in steps.into_iter().enumerate() {
            let command = if creates { create(request, names[name], shards) } else { delete(request, names[name]) };
            if at == cut {
                restored = State::decode(&whole.encode(at as u64, 1)).expect("own bytes").0;
            }
            let decoded = Command::decode(&command.encode()).expect("own bytes");
            prop_assert_eq!(&decoded, &command);
            let outcome = whole.apply(command);
            prop_assert_eq!(crate::decode_outcome(&crate::encode_outcome(&outcome)).expect("own bytes"), outcome.clone());
            prop_assert_eq!(outcome, restored.apply(decoded));
            let mut ids: Vec<_> = whole.collections().values().flat_map(|c| &c.shards).map(|s| s.id).collect();
            let count = ids.len();
            ids.dedup();
            prop_assert_eq!(ids.len(), count);
        }
        prop_assert_eq!(whole, restored);
    }
}
