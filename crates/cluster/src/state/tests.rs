mod merges;
mod nodes;
mod operations;
mod placement;
mod random;
mod recovery;
mod splits;

use sagitta_model::{FieldType, IndexPolicy, Metric, PointId, Schema, VectorSpec};

use super::*;
use crate::command::Replaces;
use crate::node::{NodeStatus, Place, Roles};
use crate::snapshot::SnapshotError;

fn schema() -> Schema {
    let mut schema = Schema::default();
    schema.vectors.insert("v".into(), VectorSpec { dim: 4, metric: Metric::Cosine, index: IndexPolicy::Auto });
    schema.fields.insert("a.b".parse().expect("path"), FieldType::Datetime);
    schema
}

fn place(id: u64, zone: &str) -> Place {
    let roles = Roles { coordinator: id <= 3, shard: true };
    let (peer_address, api_address) = (format!("http://n{id}:6381"), format!("http://n{id}:6380"));
    Place { peer_address, api_address, zone: zone.into(), roles }
}

fn join(id: u64, place: Place) -> Command {
    join_as(id, 0, place)
}

fn join_as(id: u64, run: u64, place: Place) -> Command {
    Command::Join { id, incarnation: u128::from(id), run, place, unix_micros: 5 }
}

fn token(digest: u8, replaces: Replaces) -> Command {
    Command::SetJoinToken { digest: [digest; 32], replaces }
}

fn status(id: u64, status: NodeStatus) -> Command {
    Command::SetNodeStatus { id, status }
}

/// Applies a command and checks what is true of every state.
#[track_caller]
fn apply(state: &mut State, command: Command) -> Result<Effect, Refusal> {
    let before = state.clone();
    let outcome = state.apply(command.clone());
    if let Err(wrong) = state.check(Some(&before)) {
        panic!("{wrong} after {command:?}");
    }
    assert!(outcome.is_ok() || *state == before, "{outcome:?} changed something");
    outcome
}

/// A cluster of so many nodes that are up, numbered from 1, the first three of them coordinators, in as many zones.
fn cluster(nodes: u64, zones: u64) -> State {
    let mut state = State::new(1);
    for id in 1..=nodes {
        apply(&mut state, join(id, place(id, &format!("z{}", id % zones)))).expect("joined");
        apply(&mut state, status(id, NodeStatus::Up)).expect("up");
    }
    state
}

fn state(nodes: u64) -> State {
    cluster(nodes, 1)
}

fn create_replicated(request_id: u128, name: &str, shards: u32, replication: u32) -> Command {
    match create(request_id, name, shards) {
        Command::CreateCollection { request_id, id, name, schema, shards, unix_micros, .. } => {
            Command::CreateCollection { request_id, id, name, schema, shards, replication, unix_micros }
        }
        other => other,
    }
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
    Command::DeleteCollection { request_id, name: name.parse().expect("name"), keep_name: false }
}

fn delete_and_keep_name(request_id: u128, name: &str) -> Command {
    Command::DeleteCollection { request_id, name: name.parse().expect("name"), keep_name: true }
}

fn free(name: &str, deletion: u64) -> Command {
    Command::FreeName { name: name.parse().expect("name"), deletion }
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
fn a_request_id_stands_for_one_request_only() {
    let mut state = state(1);
    apply(&mut state, create(1, "a", 1)).expect("created");
    let reused = Err(Refusal::RequestIdReused(1));
    assert_eq!(apply(&mut state, create(1, "b", 1)), reused, "another name");
    assert_eq!(apply(&mut state, delete(1, "a")), reused, "another change");
    let mut other = create(1, "a", 1);
    if let Command::CreateCollection { schema, .. } = &mut other {
        schema.fields.clear();
    }
    assert_eq!(apply(&mut state, other), reused, "another shape");
    apply(&mut state, delete(2, "a")).expect("deleted");
    assert_eq!(apply(&mut state, create(1, "a", 1)), reused, "a late repetition brings nothing back");
    assert!(state.collections().is_empty());
}

#[test]
fn the_name_of_a_deleted_collection_is_taken_until_it_is_given_free() {
    let mut state = state(3);
    apply(&mut state, create_replicated(1, "a", 2, 3)).expect("created");
    apply(&mut state, delete_and_keep_name(2, "a")).expect("deleted");
    apply(&mut state, delete_and_keep_name(2, "a")).expect("deleted by the same request");
    assert_eq!(state.deletions(), 1);
    let taken = Refusal::StillLeaving { name: "a".into(), nodes: vec![1, 2, 3] };
    assert_eq!(apply(&mut state, create(3, "a", 1)), Err(taken.clone()));
    assert_eq!(taken.kind(), sagitta_model::ErrorKind::Unavailable, "it may be free later");
    let leaving = state.leaving()[&"a".parse().expect("name")].clone();
    let awaited = |state: &State, followed: &[u64]| {
        state.awaited(&leaving, |node| if followed.contains(&node) { leaving.deletion } else { leaving.deletion - 1 })
    };
    assert_eq!(awaited(&state, &[]), [1, 2, 3]);
    assert_eq!(awaited(&state, &[2]), [1, 3], "two of three can go on writing");
    assert!(awaited(&state, &[2, 3]).is_empty(), "one of three cannot");
    apply(&mut state, Command::SetVoters { voters: vec![3] }).expect("noted");
    apply(&mut state, status(1, NodeStatus::Lost)).expect("lost");
    assert_eq!(awaited(&state, &[2]), [1, 3], "a lost one may be with somebody else");
    apply(&mut state, status(1, NodeStatus::Removed)).expect("removed");
    assert!(awaited(&state, &[2]).is_empty(), "a removed one is gone for ever");
    apply(&mut state, free("a", 2)).expect("harmless");
    assert_eq!(state.leaving().len(), 1, "that was another deletion");
    apply(&mut state, free("a", 1)).expect("free");
    apply(&mut state, free("a", 1)).expect("once more is harmless");
    apply(&mut state, create(3, "a", 1)).expect("created");
    apply(&mut state, free("a", 1)).expect("harmless");
    apply(&mut state, delete_and_keep_name(4, "a")).expect("deleted");
    assert_eq!(apply(&mut state, free("a", 1)), Ok(Effect::NameFree));
    assert_eq!((state.leaving().len(), state.deletions()), (1, 2), "a late repetition frees no later one");
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
        assert!(collection.shard_of(id).range.contains(sagitta_model::shard_hash(id)));
    }
}

/// What came later to the oldest forms.
#[test]
fn golden_joins_and_tokens() {
    let commands =
        [join_as(4, 7, place(4, "rack-2")), token(0xb1, Replaces::Nothing), token(0xb2, Replaces::Token([0xb1; 32]))];
    let golden = [
        r#"{"command":"join","id":4,"incarnation":"00000000000000000000000000000004","run":7,"place":{"peer_address":"http://n4:6381","api_address":"http://n4:6380","zone":"rack-2","roles":{"coordinator":false,"shard":true}},"unix_micros":5}"#,
        r#"{"command":"set-join-token","digest":"b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1","replaces":""}"#,
        r#"{"command":"set-join-token","digest":"b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2","replaces":"b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1"}"#,
    ];
    for (command, golden) in commands.iter().zip(golden) {
        assert_eq!(String::from_utf8(command.encode()).expect("text"), golden);
        assert_eq!(Command::decode(golden.as_bytes()).as_ref(), Ok(command));
    }
    let mut state = State::new(1);
    apply(&mut state, commands[0].clone()).expect("joined");
    let bytes = state.encode(1, 1);
    assert!(String::from_utf8_lossy(&bytes).contains(r#""run":7,"place""#));
    assert_eq!(State::decode(&bytes), Ok((state, 1, 1)));
}

/// The bytes that version 1 wrote must stay readable for ever.
#[test]
fn golden_snapshot_and_command_of_format_1() {
    let golden = include_str!("golden-snapshot-1.json");
    let (mut state, index, term) = State::decode(golden.as_bytes()).expect("readable");
    assert_eq!((state.cluster_id(), index, term), (0xab, 7, 2));
    let Ok(collection) = state.collection(&"docs".parse().expect("name")).cloned() else { panic!("lost") };
    assert!(collection.shards[0].replicas.is_empty() && state.nodes().is_empty());
    apply(&mut state, join(3, place(3, ""))).expect("joined");
    let settled = &state.collection(&collection.name).expect("still there").shards[0];
    assert_eq!((&settled.replicas[..], &settled.founders[..]), (&[3][..], &[3][..]));
    let command = include_str!("golden-command-1.json");
    assert_eq!(String::from_utf8(create(1, "docs", 1).encode()).expect("text"), command);
    assert_eq!(Command::decode(command.as_bytes()), Ok(create(1, "docs", 1)));
}

/// So must those of version 2; this build writes them.
#[test]
fn golden_snapshot_and_commands_of_format_2() {
    let commands = golden_commands();
    let mut whole = State::new(0xab);
    for command in commands.clone() {
        apply(&mut whole, command).expect("applied");
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let snapshot = text(whole.encode(9, 3));
    assert_eq!(snapshot, include_str!("golden-snapshot-2.json"), "{snapshot}");
    assert_eq!(State::decode(snapshot.as_bytes()), Ok((whole, 9, 3)));
    let lines: String = commands.iter().map(|command| text(command.encode()) + "\n").collect();
    assert_eq!(lines, include_str!("golden-commands-2.jsonl"), "{lines}");
    let decoded: Vec<_> = lines.lines().map(|line| Command::decode(line.as_bytes()).expect("readable")).collect();
    assert_eq!(decoded, commands);
}

fn golden_commands() -> Vec<Command> {
    let mut commands = vec![token(0xa7, Replaces::Any)];
    for id in 1..=3 {
        commands.push(join(id, place(id, "rack-1")));
        commands.push(status(id, NodeStatus::Up));
    }
    commands.extend([
        Command::SetVoters { voters: vec![2, 1] },
        create_replicated(1, "docs", 2, 2),
        delete(2, "docs"),
        create_replicated(3, "docs", 1, 2),
        Command::SetReplicas { shard: 18, epoch: 1, replicas: vec![3, 1] },
        status(2, NodeStatus::Lost),
    ]);
    commands
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
    let newer = br#"{"format":8}"#;
    let newer = [&newer[..], format!("\n{:016x}\n", xxhash_rust::xxh3::xxh3_64(newer)).as_bytes()].concat();
    assert_eq!(State::decode(&newer), Err(SnapshotError::Newer { found: 8 }));
}
