use super::*;

fn operation(step: OperationStep, from: Option<u64>) -> Operation {
    Operation {
        id: 1,
        kind: OperationKind::Drain,
        shard: 16,
        from,
        to: 4,
        step,
        reason: String::new(),
        cancelled: false,
        begun_unix_micros: 0,
        ended_unix_micros: None,
    }
}

fn members(voters: &[u64], learners: &[u64]) -> GroupMembers {
    GroupMembers { voters: voters.to_vec(), learners: learners.to_vec() }
}

/// Does what a step asks for until nothing is left, with whoever has to lead. Says what the members and the leader were on the way.
fn run(operation: &Operation, mut now: GroupMembers, mut leader: u64) -> Vec<(GroupMembers, u64)> {
    let mut way = vec![(now.clone(), leader)];
    while let Some(change) = operation.next_change(&now, leader) {
        match change {
            MemberChange::Members(next) => now = next,
            MemberChange::HandOver(others) => leader = others[0],
        }
        assert!(now.voters.contains(&leader), "a leader left its group: {way:?}");
        way.push((now.clone(), leader));
        assert!(way.len() < 10, "it does not end: {way:?}");
    }
    way
}

#[test]
fn a_replica_is_switched_in_one_change_by_another_leader_than_the_one_that_leaves() {
    let switch = operation(OperationStep::Switch, Some(3));
    let way = run(&switch, members(&[1, 2, 3], &[4]), 1);
    assert_eq!(way[1..], [(members(&[1, 2, 4], &[]), 1)]);
    let way = run(&switch, members(&[1, 2, 3], &[4]), 3);
    assert_eq!(way[1..], [(members(&[1, 2, 3], &[4]), 1), (members(&[1, 2, 4], &[]), 1)]);
}

#[test]
fn the_only_voter_makes_the_other_one_vote_and_lead_before_it_leaves() {
    let way = run(&operation(OperationStep::Switch, Some(3)), members(&[3], &[4]), 3);
    let expected = [(members(&[3, 4], &[]), 3), (members(&[3, 4], &[]), 4), (members(&[4], &[]), 4)];
    assert_eq!(way[1..], expected);
}

#[test]
fn each_step_asks_for_nothing_once_it_has_come_about_and_makes_no_learner_of_a_voter() {
    use OperationStep::*;
    let steps = [Join, CatchUp, Switch, Drop, Undo, Done, Cancelled];
    for from in [Some(3), None] {
        for (voters, learners) in
            [(&[1, 2, 3][..], &[][..]), (&[1, 2, 3], &[4]), (&[1, 2, 4], &[]), (&[1, 2, 3, 4], &[])]
        {
            for step in steps {
                for leader in voters.iter().copied() {
                    let before = members(voters, learners);
                    let way = run(&operation(step, from), before.clone(), leader);
                    for pair in way.windows(2) {
                        let demoted = |node: &&u64| pair[0].0.voters.contains(*node);
                        assert_eq!(pair[1].0.learners.iter().find(demoted), None, "{step}: {way:?}");
                        let lost = pair[0].0.voters.iter().filter(|voter| !pair[1].0.contains(**voter)).count();
                        assert!(lost <= 1, "{step}: {way:?}");
                    }
                    let (last, _) = way.last().expect("there is one");
                    match step {
                        Join | CatchUp => assert!(last.contains(4), "{way:?}"),
                        Switch => assert!(operation(step, from).is_switched(last), "{way:?}"),
                        Undo => assert!(!last.learners.contains(&4), "{way:?}"),
                        Drop | Done | Cancelled => assert_eq!(*last, before),
                    }
                }
            }
        }
    }
}
