use sagitta_cluster::{Floor, ReplicaLoad};

use super::*;

fn replica(shard: u64, role: ReplicaRole, leader: Option<u64>, term: u64) -> ReplicaReport {
    let (epoch, applied, points, disk_bytes) = (1, 10, 0, 0);
    ReplicaReport {
        shard,
        epoch,
        role,
        leader,
        term,
        applied,
        points,
        disk_bytes,
        data_bytes: 0,
        load: ReplicaLoad::default(),
        problem: None,
        split: None,
        members: None,
        last: Floor { term, index: applied },
    }
}

fn report(replicas: Vec<ReplicaReport>) -> Report {
    Report { replicas, ..Report::default() }
}

#[test]
fn the_leader_of_the_latest_term_counts_whoever_tells_and_a_suspected_one_no_longer() {
    let reports = Reports::new(Env::seeded(1).0);
    reports.heard(1, report(vec![replica(7, ReplicaRole::Leader, None, 3)]));
    assert_eq!(reports.leader(7), Some(1));
    reports.heard(2, report(vec![replica(7, ReplicaRole::Follower, Some(3), 4)]));
    assert_eq!(reports.leader(7), Some(3));
    reports.heard(1, report(vec![replica(7, ReplicaRole::Leader, None, 3)]));
    assert_eq!(reports.leader(7), Some(3), "who leads an old term leads no longer");
    reports.suspect(7, 1);
    assert_eq!(reports.leader(7), Some(3));
    reports.suspect(7, 3);
    assert_eq!(reports.leader(7), None);
    reports.note_leader(7, 2);
    assert_eq!(reports.leader(7), Some(2));
    reports.follow(&State::new(1));
    assert_eq!((reports.leader(7), reports.of(2).is_none()), (None, true), "an empty cluster has neither");
}

#[test]
fn a_leader_leads_since_it_was_first_said_to_through_all_its_terms() {
    let (env, clock) = Env::seeded(5);
    let reports = Reports::new(env);
    assert_eq!(reports.leads_for(7), Duration::ZERO);
    let second = Duration::from_secs(1);
    let leads = |node, term| reports.heard(node, report(vec![replica(7, ReplicaRole::Leader, None, term)]));
    leads(1, 3);
    clock.advance(second);
    leads(1, 5);
    reports.heard(2, report(vec![replica(7, ReplicaRole::Follower, Some(1), 5)]));
    reports.note_leader(7, 1);
    assert_eq!(reports.leads_for(7), second);
    leads(2, 6);
    assert_eq!(reports.leads_for(7), Duration::ZERO, "another one leads");
    clock.advance(second);
    leads(1, 5);
    assert_eq!(reports.leads_for(7), second, "what is out of date changes nothing");
    reports.suspect(7, 2);
    assert_eq!(reports.leads_for(7), Duration::ZERO, "nobody is known to lead");
}

/// The replicas of the shard 7 in the order in which each of some draws ranks them.
fn ranks(reports: &Reports, replicas: &[u64], at_least: u64) -> Vec<Vec<u64>> {
    (0..20).map(|_| reports.rank(7, replicas, at_least)).collect()
}

#[test]
fn silent_failing_and_unknown_replicas_are_ranked_behind_those_that_are_well() {
    let (env, clock) = Env::seeded(2);
    let reports = Reports::new(env);
    let follower = || replica(7, ReplicaRole::Follower, Some(9), 1);
    reports.heard(1, report(vec![follower()]));
    clock.advance(SILENT);
    reports.heard(2, report(vec![follower()]));
    let problem = Some("damaged".into());
    reports.heard(3, report(vec![ReplicaReport { problem, ..follower() }]));
    reports.heard(4, report(vec![replica(8, ReplicaRole::Leader, None, 1)]));
    reports.heard(5, report(vec![replica(7, ReplicaRole::Follower, None, 1)]));
    for mut ranked in ranks(&reports, &[1, 2, 3, 4, 5, 6], 0) {
        assert_eq!(ranked[..2], [2, 5], "seed 2: {ranked:?}");
        ranked[2..].sort_unstable();
        assert_eq!(ranked[2..], [1, 3, 4, 6], "seed 2");
    }
}

#[test]
fn replicas_that_lag_or_know_no_leader_are_ranked_behind_those_that_follow_one() {
    let reports = Reports::new(Env::seeded(4).0);
    let tell = |node, role, leader, applied| {
        reports.heard(node, report(vec![ReplicaReport { applied, ..replica(7, role, leader, 1) }]));
    };
    tell(1, ReplicaRole::Follower, None, MAX_LAG + 10);
    tell(2, ReplicaRole::Follower, Some(4), 9);
    tell(3, ReplicaRole::Follower, Some(4), 10);
    tell(4, ReplicaRole::Leader, None, MAX_LAG + 10);
    let ranked = ranks(&reports, &[1, 2, 3, 4], 0);
    for ranked in &ranked {
        let (mut first, mut last) = (ranked[..2].to_vec(), ranked[2..].to_vec());
        first.sort_unstable();
        last.sort_unstable();
        assert_eq!((first, last), (vec![3, 4], vec![1, 2]), "seed 4: {ranked:?}");
    }
    let distinct: HashSet<_> = ranked.into_iter().collect();
    assert_eq!(distinct.len(), 4, "equals are shuffled, seed 4: {distinct:?}");
    for ranked in ranks(&reports, &[1, 2, 3, 4], 10) {
        assert_eq!(ranked[2..], [1, 2], "what has applied it is asked before what may have, seed 4: {ranked:?}");
    }
    for ranked in ranks(&reports, &[1, 2, 3, 4], MAX_LAG + 11) {
        assert_eq!(ranked[0], 4, "the leader surely has what nobody told of, seed 4: {ranked:?}");
    }
}

#[test]
fn of_two_replicas_of_any_rank_the_less_busy_one_comes_first() {
    let well = || replica(7, ReplicaRole::Follower, Some(3), 1);
    let ranks = [
        ("well", well(), 0),
        ("behind", replica(7, ReplicaRole::Follower, None, 1), 0),
        ("late", well(), 11),
        ("doubtful", ReplicaReport { problem: Some("damaged".into()), ..well() }, 0),
    ];
    for (rank, told, at_least) in ranks {
        let reports = Reports::new(Env::seeded(3).0);
        for node in [1, 2] {
            reports.heard(node, report(vec![told.clone()]));
        }
        let first = |reports: &Reports| {
            let first = (0..200).filter(|_| reports.rank(7, &[1, 2], at_least)[0] == 1).count();
            first as f64 / 200.0
        };
        let share = first(&reports);
        assert!((0.3..0.7).contains(&share), "{rank}: equal ones share the work: {share}");
        let load = reports.load(1);
        let env = Env::seeded(3).0;
        let _busy = load.begin(&env);
        assert!(first(&reports) < 0.01, "{rank}");
    }
}

#[tokio::test]
async fn whoever_waits_for_a_leader_learns_of_it_even_if_it_was_there_before() {
    let reports = Arc::new(Reports::new(Env::real()));
    let waiting = {
        let reports = reports.clone();
        Env::real().spawn(async move { reports.find(|reports| reports.leader(7)).await })
    };
    tokio::task::yield_now().await;
    reports.heard(2, report(vec![]));
    reports.heard(1, report(vec![replica(7, ReplicaRole::Leader, None, 1)]));
    assert_eq!(waiting.await.expect("no panic"), 1);
    assert_eq!(reports.find(|reports| reports.leader(7)).await, 1);
}
