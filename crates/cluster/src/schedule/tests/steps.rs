//! From each of its steps: when an operation goes on, where to, and when it does not.

use super::played::Played;
use super::*;
use crate::node::NodeStatus;
use crate::operation::OperationStep::{self, *};
use crate::report::ReplicaLoad;

/// The shard is on the nodes 1 to 3, of which 2 leads, and a replica comes from node 1 to node 4.
const SHARD: u64 = 16;
const AT: Floor = Floor { term: 5, index: 1_000 };

/// What is known when the scheduler looks.
#[derive(Clone, Debug)]
struct Case {
    kind: OperationKind,
    cancelled: bool,
    voters: Vec<u64>,
    learners: Vec<u64>,
    /// Whether the leader tells who the members are.
    told: bool,
    /// What the nodes that give the replica up and get it are.
    from: NodeStatus,
    to: NodeStatus,
    /// What node 3 is, which keeps its replica.
    other: NodeStatus,
    /// Whether node 4 takes no more data.
    full: bool,
    /// What node 4 tells of its replica.
    copy: Option<ReplicaReport>,
    /// Whether node 1 still tells of a replica.
    holds: bool,
    /// For how long both have told nothing.
    silence: [Duration; 2],
}

fn replica(role: ReplicaRole, term: u64, applied: u64) -> ReplicaReport {
    let (epoch, points, disk_bytes) = (1, 0, 0);
    let (leader, problem, members) = (Some(2), None, None);
    let (data_bytes, load) = (0, ReplicaLoad::default());
    ReplicaReport {
        shard: SHARD,
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
        split: None,
        members,
        last: Floor { term, index: applied },
    }
}

/// Everybody is there, and node 4 is a learner that lacks as much as may be.
fn usual() -> Case {
    Case {
        kind: OperationKind::Move,
        cancelled: false,
        voters: vec![1, 2, 3],
        learners: vec![4],
        told: true,
        from: NodeStatus::Up,
        to: NodeStatus::Up,
        other: NodeStatus::Up,
        full: false,
        copy: Some(replica(ReplicaRole::Learner, AT.term, AT.index - CAUGHT_UP)),
        holds: true,
        silence: [Duration::ZERO; 2],
    }
}

/// Where the operation goes from a step.
fn next(step: OperationStep, case: &Case) -> Option<OperationStep> {
    let mut played = Played::new(1, 3, 1);
    played.create(1, 3);
    played.join(4, "z");
    let (kind, reason) = (case.kind, String::new());
    played.apply(Command::BeginOperation {
        kind,
        shard: SHARD,
        epoch: 1,
        from: Some(1),
        to: 4,
        reason,
        unix_micros: 1,
    });
    if case.cancelled {
        played.apply(Command::CancelOperation { id: 1 });
    }
    let way: &[OperationStep] = match step {
        Join => &[],
        CatchUp => &[CatchUp],
        Switch => &[CatchUp, Switch],
        Drop => &[CatchUp, Switch, Drop],
        _ => &[Undo],
    };
    let mut from = Join;
    for to in way.iter().copied() {
        played.apply(Command::AdvanceOperation { id: 1, from, to, at: AT, unix_micros: 1 });
        from = to;
    }
    played.set(1, case.from);
    played.set(3, case.other);
    played.set(4, case.to);

    let members = GroupMembers { voters: case.voters.clone(), learners: case.learners.clone() };
    let leader =
        ReplicaReport { members: case.told.then_some(members), ..replica(ReplicaRole::Leader, AT.term, AT.index) };
    let shortage = |node| (node == 4 && case.full).then(|| "the disk is nearly full".to_owned());
    let report = |node, replicas| Arc::new(Report { replicas, shortage: shortage(node), ..Report::default() });
    let mut told: BTreeMap<u64, Told> = BTreeMap::new();
    let mut tell = |node, replicas, silence: Duration| {
        let report = silence.is_zero().then(|| report(node, replicas));
        told.insert(node, Told { report, silence })
    };
    let held = case.holds.then(|| replica(ReplicaRole::Follower, AT.term, AT.index));
    tell(1, held.into_iter().collect(), case.silence[0]);
    tell(2, vec![leader], Duration::ZERO);
    tell(4, case.copy.iter().cloned().collect(), case.silence[1]);
    let operation = played.state.operation(1).expect("it was begun");
    assert_eq!(operation.step, step);
    let next = progress::next_step(&played.state, &View::new(&told), operation);
    if let Some((Drop | Cancelled, at)) = next {
        assert_eq!(at, AT, "{step} {case:?}: where the log stands is what counts for who comes back");
    }
    next.map(|(step, _)| step)
}

#[track_caller]
fn check(step: OperationStep, expected: Option<OperationStep>, change: impl FnOnce(&mut Case)) {
    let mut case = usual();
    change(&mut case);
    assert_eq!(next(step, &case), expected, "{step}: {case:?}");
}

#[test]
fn who_joins_catches_up_once_the_leader_tells_that_it_is_a_member() {
    check(Join, Some(CatchUp), |_| {});
    check(Join, None, |case| case.learners.clear());
    check(Join, None, |case| case.told = false);
}

#[test]
fn who_has_not_joined_or_caught_up_is_given_up_when_it_is_not_wanted_or_goes() {
    for step in [Join, CatchUp] {
        check(step, Some(Undo), |case| case.cancelled = true);
        check(step, Some(Undo), |case| case.to = NodeStatus::Lost);
        check(step, Some(Undo), |case| case.to = NodeStatus::Draining);
        check(step, Some(Undo), |case| (case.cancelled, case.told) = (true, false));
    }
}

#[test]
fn what_has_nodes_hold_alike_gives_way_to_a_repair_that_it_would_keep_waiting_and_fills_no_disk() {
    let broken = || {
        let replica = replica(ReplicaRole::Learner, AT.term, AT.index);
        Some(ReplicaReport { problem: Some("planted".to_owned()), ..replica })
    };
    for (kind, gives_way) in [(OperationKind::Rebalance, Some(Undo)), (OperationKind::Drain, None)] {
        for (step, goes_on) in [(Join, Some(CatchUp)), (CatchUp, None)] {
            for copy in [broken(), None] {
                check(step, goes_on, |case| (case.kind, case.copy) = (kind, copy.clone()));
                let lost =
                    |case: &mut Case| (case.kind, case.copy, case.other) = (kind, copy.clone(), NodeStatus::Lost);
                check(step, gives_way.or(goes_on), lost);
                // What it was begun for comes about all the same.
                check(step, goes_on, |case| (case.kind, case.copy, case.from) = (kind, copy.clone(), NodeStatus::Lost));
            }
        }
        check(CatchUp, Some(Switch), |case| (case.kind, case.other) = (kind, NodeStatus::Lost));
        check(CatchUp, gives_way.or(Some(Switch)), |case| (case.kind, case.full) = (kind, true));
        check(Switch, None, |case| (case.kind, case.full, case.other) = (kind, true, NodeStatus::Lost));
    }
}

#[test]
fn nobody_is_to_vote_before_it_works_and_lacks_as_little_as_its_group_lets_pass() {
    check(CatchUp, Some(Switch), |_| {});
    check(CatchUp, None, |case| case.copy = None);
    check(CatchUp, None, |case| case.told = false);
    check(CatchUp, None, |case| case.learners.clear());
    let copy = |change: fn(&mut ReplicaReport)| move |case: &mut Case| change(case.copy.as_mut().expect("it tells"));
    check(CatchUp, None, copy(|copy| copy.applied -= 1));
    check(CatchUp, None, copy(|copy| copy.term -= 1));
    check(CatchUp, None, copy(|copy| copy.role = ReplicaRole::Leader));
    check(CatchUp, None, copy(|copy| copy.problem = Some("the disk is full".to_owned())));
}

#[test]
fn the_placement_follows_once_the_one_votes_and_the_other_is_no_member() {
    check(Switch, None, |_| {});
    check(Switch, None, |case| (case.voters, case.learners) = (vec![1, 2, 3, 4], vec![]));
    check(Switch, None, |case| (case.voters, case.learners) = (vec![2, 3], vec![4]));
    check(Switch, None, |case| (case.voters, case.learners) = (vec![2, 3, 4], vec![1]));
    check(Switch, None, |case| (case.voters, case.learners, case.told) = (vec![2, 3, 4], vec![], false));
    check(Switch, Some(Drop), |case| (case.voters, case.learners) = (vec![2, 3, 4], vec![]));
}

#[test]
fn a_switch_is_undone_only_while_nobody_needs_the_vote_of_who_is_gone() {
    let lost = |voters: &[u64], learners: &[u64]| {
        let members = (voters.to_vec(), learners.to_vec());
        move |case: &mut Case| (case.to, (case.voters, case.learners)) = (NodeStatus::Lost, members)
    };
    check(Switch, Some(Undo), lost(&[1, 2, 3], &[4]));
    check(Switch, Some(Undo), lost(&[1, 2, 3], &[]));
    check(Switch, None, lost(&[1, 2, 3, 4], &[]));
    check(Switch, Some(Drop), lost(&[2, 3, 4], &[]));
    // One that is being emptied is not called lost.
    let silent = |silence| move |case: &mut Case| (case.to, case.silence[1]) = (NodeStatus::Draining, silence);
    check(Switch, None, silent(LOST_AFTER - Duration::from_millis(1)));
    check(Switch, Some(Undo), silent(LOST_AFTER));
}

#[test]
fn it_is_done_once_who_gave_its_replica_up_tells_that_it_has_removed_it_or_is_gone() {
    check(Drop, None, |_| {});
    check(Drop, Some(Done), |case| case.holds = false);
    check(Drop, Some(Done), |case| case.from = NodeStatus::Lost);
    let silent = |from, silence| move |case: &mut Case| (case.from, case.silence[0]) = (from, silence);
    check(Drop, None, silent(NodeStatus::Up, LOST_AFTER));
    check(Drop, None, silent(NodeStatus::Draining, LOST_AFTER - Duration::from_millis(1)));
    check(Drop, Some(Done), silent(NodeStatus::Draining, LOST_AFTER));
}

#[test]
fn it_is_cancelled_once_the_node_is_no_member_and_goes_on_if_it_votes_already() {
    check(Undo, None, |_| {});
    check(Undo, None, |case| (case.learners, case.told) = (vec![], false));
    check(Undo, Some(Cancelled), |case| case.learners.clear());
    check(Undo, Some(Switch), |case| (case.voters, case.learners) = (vec![1, 2, 3, 4], vec![]));
    check(Undo, Some(Switch), |case| (case.voters, case.learners) = (vec![2, 3, 4], vec![]));
}
