//! How nodes come, change and go.

use super::*;

#[test]
fn a_status_changes_only_along_its_life_cycle() {
    use NodeStatus::*;
    // Rows: from. Columns: to, in the order of the rows.
    let allowed = [
        (Joining, [true, true, false, false, true, true]),
        (Up, [false, true, true, false, true, false]),
        (Draining, [false, true, true, true, false, false]),
        (Drained, [false, true, false, true, false, true]),
        (Lost, [false, true, true, false, true, true]),
        (Removed, [false, false, false, false, false, true]),
    ];
    let way = |to| match to {
        Joining => vec![],
        Up => vec![Up],
        Draining => vec![Up, Draining],
        Drained => vec![Up, Draining, Drained],
        Lost => vec![Lost],
        Removed => vec![Removed],
    };
    for (from, row) in allowed {
        for ((to, name), allowed) in NodeStatus::NAMES.into_iter().zip(row) {
            // Node 9 is no coordinator, so nothing but its status can be in the way.
            let mut state = state(1);
            apply(&mut state, join(9, place(9, ""))).expect("joined");
            for step in way(from) {
                apply(&mut state, status(9, step)).expect("a step of the way");
            }
            assert_eq!(crate::node::may_become(from, to), allowed, "{from} to {to}");
            match apply(&mut state, status(9, to)) {
                Ok(Effect::Node(node)) => assert!(allowed && node.status == to, "{from} to {to}"),
                Err(refusal) => {
                    let told = refusal.to_string();
                    assert!(!allowed && (from == Removed || told.contains(name)), "{from} to {to}: {told}");
                }
                other => panic!("{from} to {to}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_node_that_holds_replicas_or_votes_cannot_go() {
    let mut state = state(4);
    apply(&mut state, create_replicated(1, "a", 3, 4)).expect("created");
    apply(&mut state, status(4, NodeStatus::Draining)).expect("draining");
    let wanted = Refusal::Wanted { node: 4, shard: 16, shards: 3 };
    assert_eq!(apply(&mut state, status(4, NodeStatus::Drained)), Err(wanted.clone()));
    let no_shards = Place { roles: Roles { coordinator: true, shard: false }, ..place(4, "z0") };
    assert_eq!(apply(&mut state, join(4, no_shards)), Err(wanted.clone()));
    apply(&mut state, status(2, NodeStatus::Lost)).expect("lost");
    assert!(matches!(apply(&mut state, status(2, NodeStatus::Removed)), Err(Refusal::Wanted { node: 2, .. })));
    apply(&mut state, delete(2, "a")).expect("deleted");
    // Nobody has said who votes, so every coordinator may.
    assert_eq!(apply(&mut state, status(2, NodeStatus::Removed)), Err(Refusal::Votes(2)));
    apply(&mut state, Command::SetVoters { voters: vec![3, 2, 1, 2] }).expect("noted");
    assert_eq!(state.voters(), [1, 2, 3]);
    assert_eq!(apply(&mut state, status(2, NodeStatus::Removed)), Err(Refusal::Votes(2)));
    let no_coordinator = Place { roles: Roles { coordinator: false, shard: true }, ..place(3, "z0") };
    assert_eq!(apply(&mut state, join(3, no_coordinator.clone())), Err(Refusal::Votes(3)));
    apply(&mut state, Command::SetVoters { voters: vec![1] }).expect("noted");
    apply(&mut state, join(3, no_coordinator)).expect("it may give up a role");
    apply(&mut state, status(2, NodeStatus::Removed)).expect("removed");
    apply(&mut state, status(2, NodeStatus::Removed)).expect("once more is harmless");
    assert_eq!(apply(&mut state, join(2, place(2, ""))), Err(Refusal::Removed(2)));
    for (voters, refusal) in [
        (vec![], Refusal::invalid("voters", "are none: a group without voters decides nothing")),
        (vec![1, 2], Refusal::Removed(2)),
        (vec![1, 77], Refusal::NoNode(77)),
        (vec![3], Refusal::invalid("voters", "name node 3, which has not the role coordinator")),
    ] {
        assert_eq!(apply(&mut state, Command::SetVoters { voters }), Err(refusal));
    }
}

#[test]
fn there_are_at_most_five_coordinators_and_the_refusal_says_so() {
    let coordinator = |id| Place { roles: Roles { coordinator: true, shard: false }, ..place(id, "") };
    let mut state = State::new(1);
    for id in 1..=5 {
        apply(&mut state, join(id, coordinator(id))).expect("joined");
    }
    let refusal = apply(&mut state, join(6, coordinator(6))).expect_err("one too many");
    assert_eq!(refusal, Refusal::TooManyCoordinators(5));
    assert!(refusal.to_string().contains("5 is the most"), "{refusal}");
    apply(&mut state, join(3, coordinator(3))).expect("one that is in may come back");
    let shard = Place { roles: Roles { coordinator: false, shard: true }, ..place(6, "") };
    apply(&mut state, join(6, shard)).expect("others may join");
    assert_eq!(apply(&mut state, join(6, coordinator(6))), Err(Refusal::TooManyCoordinators(5)));
    apply(&mut state, status(5, NodeStatus::Lost)).expect("lost");
    apply(&mut state, join(6, coordinator(6))).expect("it takes the place of the lost one");
    apply(&mut state, status(5, NodeStatus::Up)).expect("which may come back all the same");
    assert_eq!(apply(&mut state, join(7, coordinator(7))), Err(Refusal::TooManyCoordinators(6)));
}

#[test]
fn an_address_is_taken_over_only_from_a_node_that_is_out_of_service() {
    let mut state = state(3);
    let takes = |peer: &str, api: &str| Place { peer_address: peer.into(), api_address: api.into(), ..place(9, "") };
    for (peer, api, taken) in [
        ("http://n2:6381", "http://n9:6380", "http://n2:6381"),
        ("http://n9:6381", "HTTP://N2:6380", "HTTP://N2:6380"),
        // What is another's peer address cannot be one's API address.
        ("http://n9:6381", "http://n2:6381", "http://n2:6381"),
    ] {
        let refusal = apply(&mut state, join(9, takes(peer, api))).expect_err("taken");
        let (address, node, status) = (taken.to_owned(), 2, NodeStatus::Up);
        assert_eq!(refusal, Refusal::AddressTaken { address, node, status });
    }
    apply(&mut state, status(2, NodeStatus::Lost)).expect("lost");
    apply(&mut state, join(9, takes("http://N2:6381", "http://n9:6380"))).expect("taken over");
    let left = &state.nodes()[&2].place;
    assert_eq!((left.peer_address.as_str(), left.api_address.as_str()), ("", "http://n2:6380"));
    let back = apply(&mut state, join(2, place(2, ""))).expect_err("it is another's now");
    assert!(matches!(back, Refusal::AddressTaken { node: 9, .. }), "{back}");
    apply(&mut state, join(2, Place { peer_address: "http://n2b:6381".into(), ..place(2, "") })).expect("moved");
    for none in [10, 11] {
        let unreachable = Place { peer_address: String::new(), api_address: String::new(), ..place(none, "") };
        apply(&mut state, join(none, unreachable)).expect("no address is nobody's");
    }
}

#[test]
fn what_an_earlier_start_of_a_folder_said_undoes_nothing_and_two_starts_of_one_number_are_two_nodes() {
    let mut state = state(1);
    let at = |host: u64| place(host, "");
    let refused = |known, claimed| Err(Refusal::OtherRun { id: 7, known, claimed });
    apply(&mut state, join_as(7, 2, at(7))).expect("joined");
    apply(&mut state, join_as(7, 2, at(7))).expect("once more is harmless");
    assert_eq!(apply(&mut state, join_as(7, 2, at(8))), refused(2, 2), "a copy that was started as often");
    apply(&mut state, join_as(7, 3, at(8))).expect("moved");
    assert_eq!(apply(&mut state, join_as(7, 2, at(7))), refused(3, 2), "sent again, it arrives late");
    assert_eq!(apply(&mut state, join(7, at(7))), refused(3, 0), "the oldest form is older than any other");
    assert_eq!((&state.nodes()[&7].place, state.nodes()[&7].run), (&at(8), 3));
    let told = Refusal::OtherRun { id: 7, known: 3, claimed: 2 };
    assert_eq!(told.kind(), sagitta_model::ErrorKind::Conflict);
    assert!(told.to_string().contains("empty data folder"), "{told}");
}

#[test]
fn a_join_token_that_arrives_late_undoes_no_later_one() {
    let mut state = state(1);
    let [first, second] = [1, 2].map(|digest| Replaces::Token([digest; 32]));
    apply(&mut state, token(1, Replaces::Nothing)).expect("the first one");
    apply(&mut state, token(2, first)).expect("replaced");
    apply(&mut state, token(2, first)).expect("once more is harmless");
    apply(&mut state, token(3, second)).expect("replaced again");
    for late in [token(2, first), token(1, Replaces::Nothing)] {
        assert_eq!(apply(&mut state, late), Err(Refusal::TokenReplaced));
    }
    assert_eq!(state.join_token(), Some(&[3; 32]));
    apply(&mut state, token(4, Replaces::Any)).expect("the oldest form asks for nothing");
    assert_eq!(state.join_token(), Some(&[4; 32]));
}

#[test]
fn places_that_can_never_be_right_are_refused_by_field() {
    let good = place(1, "rack-1");
    let none = Roles { coordinator: false, shard: false };
    for (place, field) in [
        (Place { peer_address: "x".repeat(271), ..good.clone() }, "peer_address has 271 bytes, at most 270"),
        (Place { api_address: "http://a b".into(), ..good.clone() }, "api_address has the character ' '"),
        (Place { zone: "z\n".into(), ..good.clone() }, "zone has the character '\\n'"),
        (Place { zone: "z".repeat(129), ..good.clone() }, "zone has 129 bytes"),
        (Place { api_address: good.peer_address.clone(), ..good.clone() }, "peer_address is the api_address"),
        (Place { roles: none, ..good.clone() }, "roles are none"),
    ] {
        let refusal = apply(&mut State::new(1), join(1, place)).expect_err(field);
        assert!(refusal.to_string().starts_with(field), "{refusal}");
        assert_eq!(refusal.kind(), sagitta_model::ErrorKind::Invalid);
    }
}

#[test]
fn a_cluster_holds_so_many_nodes_and_no_more() {
    let mut state = State::new(1);
    let nodes = (1..=crate::limits::MAX_NODES as u64).map(|id| {
        let place = Place { roles: Roles { coordinator: false, shard: true }, ..place(id, "") };
        let node = Node { id, incarnation: 1, run: 0, place, status: NodeStatus::Up, joined_unix_micros: 1 };
        (id, Arc::new(node))
    });
    state.nodes = Arc::new(nodes.collect());
    let refusal = apply(&mut state, join(20_000, place(20_000, ""))).expect_err("one too many");
    assert_eq!(refusal, Refusal::TooManyNodes(10_000));
    let again = Place { roles: Roles { coordinator: false, shard: true }, ..place(7, "z") };
    let again = Command::Join { id: 7, incarnation: 1, run: 0, place: again, unix_micros: 9 };
    apply(&mut state, again).expect("one that is in may come back");
    let stranger = Command::Join { id: 7, incarnation: 2, run: 9, place: place(7, ""), unix_micros: 9 };
    assert_eq!(apply(&mut state, stranger), Err(Refusal::OtherIncarnation { id: 7, known: 1, claimed: 2 }));
}
