//! Whatever is asked for in whatever order, what is true of every state stays true.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;
use crate::collection::Floor;
use crate::merge::MergeStep;
use crate::operation::{OperationKind, OperationStep};
use crate::split::SplitStep;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Commands over few nodes, addresses, names and shards, so that they get in each other's way.
fn command() -> impl Strategy<Value = Command> {
    let node = 1u64..9;
    // Three of four say nothing of their start, so that the rest of what they say matters, too.
    let run = prop_oneof![3 => Just(0), 1 => 1u64..3];
    let join = (node.clone(), run, 0u64..3, 1u64..9, 0u64..3, 1u8..4, prop::bool::weighted(0.05)).prop_map(
        |(id, run, zone, address, api, roles, stranger)| {
            let place = Place {
                peer_address: format!("http://n{address}:6381"),
                api_address: if api == 0 { String::new() } else { format!("http://n{address}:638{}", api - 1) },
                zone: format!("z{zone}"),
                roles: Roles { coordinator: roles & 1 != 0, shard: roles & 2 != 0 },
            };
            Command::Join { id, incarnation: u128::from(id) + u128::from(stranger), run, place, unix_micros: 5 }
        },
    );
    let statuses = NodeStatus::NAMES.map(|(status, _)| status);
    let status = (node.clone(), prop::sample::select(statuses.to_vec()))
        .prop_map(|(id, status)| Command::SetNodeStatus { id, status });
    let up = node.clone().prop_map(|id| status_of(id, NodeStatus::Up));
    let create = (0u128..40, 0usize..4, 0u32..5, 0u32..5)
        .prop_map(|(request, name, shards, replication)| create_replicated(request, NAMES[name], shards, replication));
    let delete = (0u128..40, 0usize..4, any::<bool>()).prop_map(|(request, name, keep_name)| match keep_name {
        true => delete_and_keep_name(request, NAMES[name]),
        false => delete(request, NAMES[name]),
    });
    let free = (0usize..4, 0u64..6).prop_map(|(name, deletion)| free(NAMES[name], deletion));
    let replicas = (16u64..40, 1u64..5, prop::collection::vec(node.clone(), 0..4))
        .prop_map(|(shard, epoch, replicas)| Command::SetReplicas { shard, epoch, replicas });
    let begin = (16u64..40, 1u64..4, prop::option::of(node.clone()), node.clone(), 0u64..2).prop_map(
        |(shard, epoch, from, to, unix_micros)| {
            let (kind, reason) = (OperationKind::Move, "drawn".to_owned());
            Command::BeginOperation { kind, shard, epoch, from, to, reason, unix_micros }
        },
    );
    let steps = OperationStep::NAMES.iter().map(|(step, _)| *step).collect::<Vec<_>>();
    let step = || prop::sample::select(steps.clone());
    let advance = (1u64..8, step(), step(), 0u64..9).prop_map(|(id, from, to, place)| {
        let at = Floor { term: place / 3, index: place % 3 };
        Command::AdvanceOperation { id, from, to, at, unix_micros: 7 }
    });
    let begin_split =
        (16u64..40, 1u64..4, 0u64..5, 0u64..2, any::<bool>()).prop_map(|(shard, epoch, at, unix_micros, unasked)| {
            let reason = "drawn".to_owned();
            Command::BeginSplit { shard, epoch, at: at << 61, reason, unix_micros, unasked }
        });
    let split_step = || prop::sample::select(SplitStep::NAMES.iter().map(|(step, _)| *step).collect::<Vec<_>>());
    let advance_split = (1u64..8, split_step(), split_step(), 0u64..9).prop_map(|(id, from, to, place)| {
        let at = Floor { term: place / 3, index: place % 3 };
        Command::AdvanceSplit { id, from, to, at, unix_micros: 7 }
    });
    let give_up = node.clone().prop_map(|id| Command::GiveUpNode { id });
    let lose = node.clone().prop_map(|id| status_of(id, NodeStatus::Lost));
    // Few shards, so that one is met that has lost its majority.
    let recover = (16u64..20, 1u64..4, node.clone(), 0u64..9, 0u64..2).prop_map(
        |(shard, epoch, survivor, place, unix_micros)| {
            let at = Floor { term: place / 3, index: place % 3 };
            Command::RecoverShard { shard, epoch, survivor, term: 1 + place, at, unix_micros }
        },
    );
    let end_recovery = (16u64..40, 1u64..8).prop_map(|(shard, id)| Command::EndRecovery { shard, id });
    let recover_control = (node.clone(), prop::collection::vec(node.clone(), 0..4), 0u64..2, 0u64..2)
        .prop_map(|(survivor, lost, era, ended)| Command::RecoverControl { survivor, lost, era, ended });
    let cancel = (1u64..8).prop_map(|id| Command::CancelOperation { id });
    let begin_merge = (16u64..40, 1u64..3, 1u64..3, 0u64..2, (0u64..2, prop::bool::weighted(0.3))).prop_map(
        |(left, between, epoch, index, (unix_micros, unasked))| Command::BeginMerge {
            left,
            left_epoch: epoch,
            right: left + between,
            right_epoch: epoch,
            floor: Floor { term: 1, index },
            reason: "drawn".to_owned(),
            unix_micros,
            unasked,
        },
    );
    let merge_step = || prop::sample::select(MergeStep::NAMES.iter().map(|(step, _)| *step).collect::<Vec<_>>());
    let advance_merge = (1u64..8, merge_step(), merge_step()).prop_map(|(id, from, to)| Command::AdvanceMerge {
        id,
        from,
        to,
        unix_micros: 7,
    });
    let voters = prop::collection::vec(node, 0..3).prop_map(|voters| Command::SetVoters { voters });
    let replaces =
        prop_oneof![Just(Replaces::Any), Just(Replaces::Nothing), (0u8..3).prop_map(|at| Replaces::Token([at; 32]))];
    let token = (0u8..3, replaces).prop_map(|(digest, replaces)| token(digest, replaces));
    prop_oneof![5 => join, 4 => up, 4 => status, 4 => create, 2 => delete, 3 => free, 5 => replicas, 1 => voters, 2 => token, 6 => begin,
        12 => advance, 1 => cancel, 4 => begin_split, 12 => advance_split, 3 => lose, 3 => give_up, 8 => recover, 2 => end_recovery,
        6 => begin_merge, 12 => advance_merge, 1 => recover_control]
}

fn status_of(id: u64, status: NodeStatus) -> Command {
    Command::SetNodeStatus { id, status }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_state_is_sound_and_comes_out_alike_from_any_snapshot(
        nodes in 0u64..6,
        steps in prop::collection::vec(command(), 1..80),
        cut in 0usize..80,
    ) {
        let mut whole = cluster(nodes, 2);
        let mut restored = whole.clone();
        for (at, command) in steps.into_iter().enumerate() {
            if at == cut {
                restored = State::decode(&whole.encode(at as u64, 1)).expect("own bytes").0;
            }
            let decoded = Command::decode(&command.encode()).expect("own bytes");
            prop_assert_eq!(&decoded, &command);
            let before = whole.clone();
            let outcome = whole.apply(command.clone());
            if let Err(wrong) = whole.check(Some(&before)) {
                return Err(TestCaseError::fail(format!("{wrong} after {command:?}")));
            }
            prop_assert!(outcome.is_ok() || whole == before, "{:?} changed something", outcome);
            prop_assert_eq!(crate::decode_outcome(&crate::encode_outcome(&outcome)).expect("own bytes"), outcome.clone());
            prop_assert_eq!(outcome, restored.apply(decoded));
            prop_assert_eq!(&whole, &restored);
        }
        prop_assert_eq!(whole.encode(7, 2), restored.encode(7, 2));
    }
}

/// The random commands are worth something only if they are accepted and refused in every way.
#[test]
fn random_commands_reach_every_outcome() {
    let mut runner = TestRunner::deterministic();
    let mut reached = BTreeSet::new();
    for run in 0..4_000 {
        let steps = prop::collection::vec(command(), 80).new_tree(&mut runner).expect("drawn").current();
        let mut state = cluster(3, 2);
        if run % 2 == 0 {
            // It is rarely drawn that all of a shard's nodes may be lost for ever.
            apply(&mut state, Command::SetVoters { voters: vec![1] }).expect("noted");
            apply(&mut state, create_replicated(99, "a", 2, 2)).expect("created");
        }
        for command in steps {
            let outcome = crate::encode_outcome(&state.apply(command));
            let outcome: serde_json::Value = serde_json::from_slice(&outcome).expect("JSON");
            reached.insert(outcome["outcome"].as_str().expect("a name").to_owned());
        }
    }
    let bounds = ["too-many", "too-many-shards", "too-many-nodes", "too-many-operations"];
    let all = [
        "created",
        "deleted",
        "name-free",
        "still-leaving",
        "node",
        "join-token",
        "voters",
        "placed",
        "operation",
        "busy",
        "no-operation",
        "other-step",
        "split",
        "other-split-step",
        "merge",
        "other-merge-step",
        "already-exists",
        "request-id-reused",
        "not-found",
        "too-few-nodes",
        "invalid",
        "other-incarnation",
        "other-run",
        "token-replaced",
        "removed",
        "no-node",
        "too-many-coordinators",
        "address-taken",
        "transition",
        "wanted",
        "votes",
        "no-shard",
        "stale",
        "takes-no-replicas",
        "recovery",
        "recovery-ended",
        "not-lost",
        "has-majority",
    ];
    let missing: Vec<_> = all.iter().filter(|name| !reached.contains(**name)).collect();
    assert!(missing.is_empty(), "never {missing:?}");
    assert!(bounds.iter().all(|name| !reached.contains(*name)), "these have tests of their own");
}
