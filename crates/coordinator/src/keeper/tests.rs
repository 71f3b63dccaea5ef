use sagitta_cluster::{Place, Report, Roles};
use sagitta_env::Env;

use super::*;
use crate::Reports;
use crate::reports::SILENT;

/// Coordinators of these statuses, numbered from 1.
fn state(statuses: &[NodeStatus]) -> State {
    let mut state = State::new(1);
    for (id, status) in (1..).zip(statuses) {
        let place = Place {
            peer_address: format!("http://peer:{id}"),
            api_address: format!("http://api:{id}"),
            zone: String::new(),
            roles: Roles { coordinator: true, shard: false },
        };
        state.apply(Command::Join { id, incarnation: u128::from(id), run: 0, place, unix_micros: 1 }).expect("joined");
        let before = if *status == NodeStatus::Drained { NodeStatus::Draining } else { NodeStatus::Up };
        for step in [NodeStatus::Up, before, *status] {
            if state.nodes()[&id].status != step {
                state.apply(Command::SetNodeStatus { id, status: step }).expect("set");
            }
        }
    }
    state
}

fn members(voters: &[u64], learners: &[u64]) -> Members {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    Members { voters: ids(voters), learners: ids(learners) }
}

fn wanted(state: &State, voters: &[u64], learners: &[u64], ready: &[u64]) -> Option<Members> {
    let Members { voters, learners } = members(voters, learners);
    let now = Membership { voters, learners, ..Membership::default() };
    wanted_members(state, &now, |node| ready.contains(&node.0))
}

#[test]
fn coordinators_become_learners_at_once_and_voters_in_pairs() {
    use NodeStatus::Up;
    let three = state(&[Up, Up, Up]);
    assert_eq!(wanted(&three, &[1], &[], &[]), Some(members(&[1], &[2, 3])));
    assert_eq!(wanted(&three, &[1], &[2, 3], &[2]), None, "an even number withstands no more losses");
    assert_eq!(wanted(&three, &[1], &[2, 3], &[2, 3]), Some(members(&[1, 2, 3], &[])));
    assert_eq!(wanted(&three, &[1, 2, 3], &[], &[]), None);
}

#[test]
fn one_that_has_caught_up_takes_the_place_of_a_lost_one_and_a_lost_one_stays_until_then() {
    use NodeStatus::{Lost, Up};
    let four = state(&[Up, Lost, Up, Up]);
    assert_eq!(wanted(&four, &[1, 2, 3], &[], &[]), Some(members(&[1, 2, 3], &[4])));
    assert_eq!(wanted(&four, &[1, 2, 3], &[4], &[]), None);
    assert_eq!(wanted(&four, &[1, 2, 3], &[4], &[4]), Some(members(&[1, 3, 4], &[])));
    assert_eq!(wanted(&state(&[Up, Lost, Up]), &[1, 2, 3], &[], &[]), None);
    assert_eq!(
        wanted(&state(&[Up, Lost, Up]), &[1], &[2, 3], &[]),
        Some(members(&[1], &[3])),
        "a lost learner takes no place"
    );
}

#[test]
fn one_that_is_drained_gives_its_vote_to_another_and_of_three_keeps_it_until_then() {
    use NodeStatus::{Drained, Draining, Lost, Up};
    let of_four = |third| state(&[Up, Up, third, Up]);
    for status in [Draining, Drained] {
        let four = of_four(status);
        assert_eq!(wanted(&four, &[1, 2, 3], &[], &[]), Some(members(&[1, 2, 3], &[4])));
        assert_eq!(wanted(&four, &[1, 2, 3], &[4], &[]), None, "the new one lags");
        assert_eq!(wanted(&four, &[1, 2, 3], &[4], &[4]), Some(members(&[1, 2, 4], &[])));
        assert_eq!(wanted(&state(&[Up, Up, status]), &[1, 2, 3], &[], &[]), None, "two withstand no loss");
        assert_eq!(wanted(&state(&[status]), &[1], &[], &[]), None);
        assert_eq!(wanted(&four, &[1, 2, 4], &[], &[]), None, "it is not taken in again");
        assert_eq!(wanted(&four, &[1, 2, 4], &[3], &[3]), Some(members(&[1, 2, 4], &[])));
    }
    let both = state(&[Up, Lost, Draining, Up]);
    assert_eq!(wanted(&both, &[1, 2, 3], &[4], &[4]), Some(members(&[1, 3, 4], &[])), "the lost one is first");
}

#[test]
fn of_five_one_that_is_drained_leaves_with_another() {
    use NodeStatus::{Drained, Draining, Lost, Up};
    let five = |statuses: &[NodeStatus]| wanted(&state(statuses), &[1, 2, 3, 4, 5], &[], &[]);
    assert_eq!(five(&[Up, Draining, Up, Up, Up]), Some(members(&[1, 3, 4], &[5])), "the other one stays ready");
    assert_eq!(five(&[Up, Draining, Up, Drained, Up]), Some(members(&[1, 3, 5], &[])));
    assert_eq!(five(&[Lost, Draining, Up, Up, Up]), Some(members(&[3, 4, 5], &[])));
    assert_eq!(five(&[Lost, Up, Up, Up, Up]), None, "a lost one may come back");
}

#[test]
fn what_becomes_of_the_vote_is_told_before_a_node_is_drained() {
    use NodeStatus::{Lost, Up};
    let says = |statuses: &[NodeStatus], voters: &[u64]| {
        let voters: Vec<_> = voters.iter().copied().map(NodeId).collect();
        vote_when_drained(&state(statuses), &voters, 1)
    };
    assert_eq!(says(&[Up, Up, Up, Up], &[2, 3, 4]), None);
    assert_eq!(says(&[Up, Up, Up, Up], &[1, 2, 3]), Some("its vote in the control group goes to node 4".to_owned()));
    assert!(
        says(&[Up, Up, Up, Lost], &[1, 2, 3]).is_some_and(|says| says.contains("start one, or it cannot be removed"))
    );
    assert!(says(&[Up; 5], &[1, 2, 3, 4, 5]).is_some_and(|says| says.contains("another voter with it")));
}

#[test]
fn no_more_than_five_vote() {
    // More than five are there only when lost ones came back after others had taken their places.
    let mut seven = state(&[NodeStatus::Up, NodeStatus::Up, NodeStatus::Up, NodeStatus::Lost, NodeStatus::Lost]);
    for id in [6, 7, 8, 9] {
        let api = format!("http://api:{id}");
        let place = Place { api_address: api, peer_address: String::new(), ..seven.nodes()[&1].place.clone() };
        let joined = seven.apply(Command::Join { id, incarnation: u128::from(id), run: 0, place, unix_micros: 1 });
        assert_eq!(joined.is_ok(), id <= 7, "{joined:?}");
    }
    for id in [4, 5, 6, 7] {
        seven.apply(Command::SetNodeStatus { id, status: NodeStatus::Up }).expect("up");
    }
    assert_eq!(wanted(&seven, &[1, 2, 3], &[4, 5, 6, 7], &[4, 5, 6, 7]), Some(members(&[1, 2, 3, 4, 5], &[6, 7])));
    assert_eq!(wanted(&seven, &[1, 2, 3, 4, 5], &[6, 7], &[6, 7]), None);
}

#[test]
fn silence_counts_while_the_leader_listens_and_what_a_silent_node_told_counts_no_more() {
    let (env, clock) = Env::seeded(1);
    let reports = Reports::new(env.clone());
    let state = state(&[NodeStatus::Up, NodeStatus::Up, NodeStatus::Up]);
    clock.advance(Duration::from_secs(50));
    reports.heard(1, Report::default());
    clock.advance(Duration::from_secs(100));
    let since = env.now();
    reports.heard(2, Report::default());
    let told = |since| {
        let told = replicas::told(state.nodes().keys().copied(), &reports, env.now(), since);
        told.into_iter().map(|(node, told)| (node, told.report.is_some(), told.silence)).collect::<Vec<_>>()
    };
    let moment = Duration::from_millis(1);
    clock.advance(SILENT - moment);
    let short = SILENT - moment;
    assert_eq!(told(since), [(1, false, short), (2, true, short), (3, false, short)], "it has just begun to listen");
    clock.advance(moment);
    let long = Duration::from_secs(100) + SILENT;
    assert_eq!(
        told(Duration::ZERO),
        [(1, false, long), (2, false, SILENT), (3, false, Duration::from_secs(50) + long)]
    );
}
