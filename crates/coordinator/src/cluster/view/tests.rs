use sagitta_cluster::{Command, Floor, Place, Roles};
use sagitta_env::Env;
use sagitta_model::{IndexPolicy, Metric, ReplicaLoad, Schema, VectorSpec};

use super::*;

/// Three nodes that are up, and the collection `docs` with shards 16 and 17, three replicas each.
fn state() -> State {
    let mut state = State::new(1);
    for id in 1..=3 {
        let roles = Roles { coordinator: true, shard: true };
        let (peer_address, api_address) = (format!("http://n{id}:1"), format!("http://n{id}:2"));
        let place = Place { peer_address, api_address, zone: String::new(), roles };
        state.apply(Command::Join { id, incarnation: u128::from(id), run: 0, place, unix_micros: 1 }).expect("joined");
        state.apply(Command::SetNodeStatus { id, status: NodeStatus::Up }).expect("up");
    }
    let spec = VectorSpec { dim: 1, metric: Metric::L2, index: IndexPolicy::Auto };
    let schema = Schema { vectors: [("v".to_owned(), spec)].into(), ..Schema::default() };
    let name = "docs".parse().expect("name");
    let (request_id, id, shards, replication, unix_micros) = (1, 1, 2, 3, 1);
    let create = Command::CreateCollection { request_id, id, name, schema, shards, replication, unix_micros };
    state.apply(create).expect("created");
    state
}

fn replica(shard: u64, role: ReplicaRole, applied: u64) -> ReplicaReport {
    let (epoch, leader, term, points, disk_bytes) = (1, None, 2, 5, 6);
    ReplicaReport {
        shard,
        epoch,
        role,
        leader,
        term,
        applied,
        points,
        disk_bytes,
        data_bytes: 4,
        load: ReplicaLoad { recent_us: 3, lasting_us: 2 },
        problem: None,
        split: None,
        members: None,
        last: Floor { term, index: applied },
    }
}

/// Every node reports both shards; node 1 leads 16, node 2 leads 17.
fn all_well(reports: &Reports) {
    for node in 1..=3 {
        let role = |leader| if node == leader { ReplicaRole::Leader } else { ReplicaRole::Follower };
        let replicas = vec![replica(16, role(1), 10 - node), replica(17, role(2), 10)];
        reports.heard(node, Report { replicas, ..Report::default() });
    }
}

fn shard(view: &View<'_>, id: u64) -> ShardInfo {
    let (collection, shard) = view.state.shard(id).expect("there");
    view.shard(collection, shard)
}

#[test]
fn a_cluster_of_which_everything_is_heard_is_healthy() {
    let (env, _) = Env::seeded(1);
    let reports = Reports::new(env.clone());
    all_well(&reports);
    let view = View::new(Arc::new(state()), &reports, env.now());
    assert_eq!(view.health(Some(1)), (Health::Healthy, Vec::new()));
    assert_eq!(view.count_nodes(), [(NodeStatus::Up, 3)]);
    let info = shard(&view, 16);
    assert_eq!((info.leader, info.applied, info.points, info.disk_bytes), (Some(1), 9, 5, 6));
    assert_eq!((info.data_bytes, info.load), (4, ReplicaLoad { recent_us: 3, lasting_us: 2 }));
    let lags: Vec<_> =
        info.replicas.iter().map(|replica| replica.told.as_ref().and_then(|told| told.lag_entries)).collect();
    assert_eq!(lags, [Some(0), Some(1), Some(2)]);
    let node = view.node(&view.state.nodes()[&2]);
    assert_eq!((node.wanted_replicas, node.hosted_replicas, node.led_shards, node.silent_ms), (2, 2, 1, Some(0)));
    let (health, problems) = view.health(None);
    assert!(health == Health::Unavailable && problems[0].contains("control group"), "{problems:?}");
}

#[test]
fn what_is_wrong_is_named_worst_first() {
    let (env, clock) = Env::seeded(2);
    let reports = Reports::new(env.clone());
    all_well(&reports);
    clock.advance(SILENT);
    // Node 1, which leads shard 16, says nothing any more; node 3 has lost one replica and cannot serve the other.
    let of_2 = vec![replica(16, ReplicaRole::Follower, 8), replica(17, ReplicaRole::Leader, 20_000)];
    reports.heard(2, Report { replicas: of_2, shortage: Some("the disk is full".into()), ..Report::default() });
    let broken = ReplicaReport { problem: Some("damaged".into()), ..replica(17, ReplicaRole::Follower, 10) };
    reports.heard(3, Report { replicas: vec![broken], ..Report::default() });
    let view = View::new(Arc::new(state()), &reports, env.now());
    let (health, problems) = view.health(Some(2));
    assert_eq!(health, Health::Unavailable);
    let expected = [
        "shard 16 of docs: it has no leader",
        "shard 16 of docs: the replica on node 1 is not heard of",
        "shard 16 of docs: the replica on node 3 is not there yet",
        "node 1: not heard of for 3 s",
        "node 2: the disk is full",
        "shard 17 of docs: the replica on node 1 is not heard of",
        "shard 17 of docs: the replica on node 3 does not serve: damaged",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problems:#?}");
    }
    let told = shard(&view, 16).replicas.into_iter().map(|replica| replica.told.map(|told| told.role));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [None, Some(ReplicaRole::Follower), None],
        "what node 1 was is not told as what it is"
    );
    let led = view.state.nodes().values().map(|node| view.node(node).led_shards);
    assert_eq!(led.collect::<Vec<_>>(), [0, 1, 0]);
    let lagging = vec![replica(16, ReplicaRole::Learner, 8), replica(17, ReplicaRole::Follower, 9_999)];
    reports.heard(3, Report { replicas: lagging, ..Report::default() });
    let view = View::new(Arc::new(state()), &reports, env.now());
    assert!(shard(&view, 17).problems.iter().any(|problem| problem.contains("10001 entries behind")));
    assert!(shard(&view, 16).problems.iter().any(|problem| problem.contains("has no vote yet")));
}

#[test]
fn a_replica_that_is_there_and_not_wanted_is_shown_and_no_problem() {
    let (env, _) = Env::seeded(3);
    let reports = Reports::new(env.clone());
    all_well(&reports);
    let mut state = state();
    state.apply(Command::SetReplicas { shard: 16, epoch: 1, replicas: vec![1, 2] }).expect("placed");
    let view = View::new(Arc::new(state), &reports, env.now());
    let info = shard(&view, 16);
    let shown: Vec<_> = info.replicas.iter().map(|replica| (replica.node, replica.wanted)).collect();
    assert_eq!((info.epoch, shown), (2, vec![(1, true), (2, true), (3, false)]));
    assert_eq!(info.problems, ["it has 2 replicas instead of 3"]);
    assert_eq!(info.health, Health::Degraded);
}
