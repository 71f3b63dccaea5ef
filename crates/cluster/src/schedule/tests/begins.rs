//! Which operations begin, in which order, and where to.

use super::played::Played;
use super::*;
use crate::node::NodeStatus;
use crate::report::ReplicaLoad;

/// What begins now: where from and where to.
fn begun(played: &Played) -> Vec<(OperationKind, Option<u64>, u64)> {
    let begun = played.plan().commands.into_iter().filter_map(|command| match command {
        Command::BeginOperation { kind, from, to, .. } => Some((kind, from, to)),
        _ => None,
    });
    begun.collect()
}

fn waits(played: &Played) -> Vec<String> {
    played.plan().waiting.into_iter().map(|(_, why)| why).collect()
}

#[test]
fn what_a_lost_node_held_is_repaired_by_as_many_operations_as_may_be_under_way() {
    // Into each of three nodes two at once; into each of seven two would be fourteen.
    for (nodes, expected) in [(4, 6), (8, 8)] {
        let mut played = Played::new(1, nodes, nodes);
        played.create(120, 3);
        played.lose(1);
        played.silent(1, minutes(11));
        let limits = played.limits;
        let mut most = 0;
        while played.placed_on(1) > 0 {
            played.step();
            let under_way: Vec<_> = played.state.operations().filter(|one| one.is_under_way()).collect();
            most = most.max(under_way.len());
            assert!(under_way.len() <= limits.at_once, "{under_way:?}");
            for node in 1..=nodes {
                let into = under_way.iter().filter(|one| one.to == node).count();
                assert!(into <= limits.per_node, "node {node}: {under_way:?}");
            }
        }
        assert_eq!(most, expected, "{nodes} nodes: a node that is lost sends nothing, so no more may leave it");
    }
}

#[test]
fn all_that_one_look_begins_keeps_to_the_limits() {
    let mut played = Played::new(1, 8, 8);
    played.create(40, 3);
    played.set(1, NodeStatus::Draining);
    assert_eq!(begun(&played).len(), played.limits.per_node, "out of one node");
    played.set(1, NodeStatus::Up);
    played.lose(1);
    played.silent(1, minutes(11));
    assert_eq!(begun(&played).len(), played.limits.at_once);
}

#[test]
fn what_is_lost_is_repaired_before_what_is_only_to_be_emptied() {
    let mut played = Played::new(1, 5, 1);
    played.create(1, 3);
    let held = played.state.shards().next().expect("there is one").1.replicas.clone();
    played.set(held[0], NodeStatus::Draining);
    played.lose(held[2]);
    played.silent(held[2], minutes(11));
    assert!(matches!(begun(&played)[..], [(OperationKind::Repair, Some(from), _)] if from == held[2]));
}

#[test]
fn who_is_silent_and_not_called_lost_is_not_repaired_and_gets_nothing() {
    let mut played = Played::new(1, 3, 1);
    played.create(1, 3);
    played.silent(1, minutes(11));
    assert_eq!(played.plan(), Plan::default());
    played.silent(1, Duration::ZERO);
    played.join(4, "z1");
    played.silent(4, minutes(11));
    played.set(2, NodeStatus::Draining);
    assert_eq!(begun(&played), []);
    assert!(waits(&played)[0].ends_with("silent or short of room"), "{:?}", waits(&played));
}

#[test]
fn a_shard_with_too_few_replicas_gets_one_more_and_gives_none_up() {
    let mut played = Played::new(1, 3, 3);
    played.create(1, 3);
    let shard = played.state.shards().next().expect("there is one").1.id;
    played.apply(Command::SetReplicas { shard, epoch: 1, replicas: vec![1, 2] });
    played.have_members(shard, &[1, 2], &[]);
    assert_eq!(begun(&played), [(OperationKind::Repair, None, 3)]);
    played.run_to_rest();
    assert_eq!(played.state.shards().next().expect("there is one").1.replicas, [1, 2, 3]);
}

#[test]
fn nothing_begins_while_somebody_votes_who_should_not() {
    let mut played = Played::new(1, 5, 1);
    played.create(1, 3);
    let shard = played.state.shards().next().expect("there is one").1.clone();
    let from = shard.replicas[0];
    let stray = (1..=5).find(|node| !shard.replicas.contains(node)).expect("there are five");
    let mut voters = shard.replicas.clone();
    played.set(from, NodeStatus::Draining);
    voters.push(stray);
    voters.sort_unstable();
    played.have_members(shard.id, &voters, &[]);
    assert_eq!(begun(&played), []);
    assert!(waits(&played)[0].contains(&format!("node {stray} votes in its group and should not")));
    played.have_members(shard.id, &shard.replicas, &[]);
    assert_eq!(begun(&played).len(), 1);
}

#[test]
fn a_replica_goes_to_the_node_with_the_fewest_and_those_on_their_way_count() {
    let mut played = Played::new(1, 3, 1);
    played.create(2, 3);
    played.join(4, "z0");
    played.create(1, 1);
    played.join(5, "z0");
    assert_eq!((played.placed_on(4), played.placed_on(5)), (1, 0));
    played.set(1, NodeStatus::Draining);
    let to: Vec<u64> = begun(&played).into_iter().map(|(_, _, to)| to).collect();
    assert_eq!(to, [5, 4], "the second finds one on its way to node 5, and of equals the first");
    played.join(6, "z0");
    let to: Vec<u64> = begun(&played).into_iter().map(|(_, _, to)| to).collect();
    assert_eq!(to, [5, 6]);
}

#[test]
fn replicas_wait_for_a_node_that_keeps_the_zones_apart_while_others_are_free() {
    let mut played = Played::new(1, 6, 3);
    played.create(12, 3);
    let lost = 1;
    played.lose(lost);
    played.silent(lost, minutes(11));
    assert!(played.placed_on(lost) > played.limits.per_node, "{}", played.placed_on(lost));
    let begins = begun(&played);
    assert_eq!(begins.len(), played.limits.per_node, "{begins:?}");
    assert!(begins.iter().all(|(_, _, to)| *to == 4), "node 4 is in the zone of node 1: {begins:?}");
    assert!(waits(&played)[0].contains("on their way into each node that suits"), "{:?}", waits(&played));
    played.run_to_rest();
    for (_, shard) in played.state.shards() {
        let zones: BTreeSet<_> = shard.replicas.iter().map(|node| &played.state.nodes()[node].place.zone).collect();
        assert_eq!(zones.len(), 3, "{:?}", shard.replicas);
    }
}

#[test]
fn of_two_that_say_they_lead_the_one_of_the_later_term_counts() {
    let leads = |term: u64| {
        let members = GroupMembers { voters: vec![term], learners: vec![] };
        let (epoch, role, leader, points, disk_bytes, problem) = (1, ReplicaRole::Leader, None, 0, 0, None);
        let (data_bytes, load) = (0, ReplicaLoad::default());
        let (applied, members, split, last) = (10 * term, Some(members), None, Floor { term, index: 10 * term });
        ReplicaReport {
            shard: 16,
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
            split,
            members,
            last,
        }
    };
    for terms in [[5, 6], [6, 5]] {
        let told = (1..).zip(terms).map(|(node, term)| {
            let report = Report { replicas: vec![leads(term)], ..Report::default() };
            (node, Told { report: Some(Arc::new(report)), silence: Duration::ZERO })
        });
        let told: BTreeMap<u64, Told> = told.collect();
        let view = View::new(&told);
        let (members, at) = view.group(16).expect("somebody leads");
        assert_eq!((&*members.voters, at), (&[6][..], Floor { term: 6, index: 60 }), "{terms:?}");
    }
}

#[test]
fn a_node_that_is_drained_and_gone_for_good_gives_up_all_that_it_held() {
    let mut played = Played::new(1, 5, 5);
    played.create(6, 3);
    played.lose(1);
    played.set(1, NodeStatus::Draining);
    played.silent(1, minutes(11));
    assert!(played.placed_on(1) > played.limits.per_node);
    played.run_to_rest();
    assert_eq!(played.placed_on(1), 0);
    assert_eq!(played.state.nodes()[&1].status, NodeStatus::Drained);
}
