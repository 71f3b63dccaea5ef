//! The messages of `ClusterService`: what is sent is what arrives, what cannot be is refused by field, bytes stay.

mod operation;

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use sagitta_model::*;

use super::any;
use super::golden::hex;
use crate::cluster::{ListNodes, ListShards, NodePage, ShardPage, TransferLeader, id_from};
use crate::{ById, Convert, Failure, v1};

fn sent<M: Message + Default>(message: &M) -> M {
    M::decode(&*message.encode_to_vec()).unwrap()
}

fn check<T>(value: T) -> Result<(), TestCaseError>
where
    T: Convert<Error: Debug> + Clone + Debug + PartialEq,
    T::Proto: Message + Default,
{
    let arrived = T::from_proto(sent(&value.clone().into_proto()));
    prop_assert_eq!(arrived.unwrap(), value);
    Ok(())
}

fn health() -> impl Strategy<Value = Health> {
    select(vec![Health::Healthy, Health::Degraded, Health::Unavailable])
}

fn status() -> impl Strategy<Value = NodeStatus> {
    select(NodeStatus::NAMES.map(|(status, _)| status).to_vec())
}

fn problems() -> impl Strategy<Value = Vec<String>> {
    vec(".{0,20}", 0..3)
}

fn cluster() -> impl Strategy<Value = ClusterInfo> {
    let nodes = vec((status(), any::<u32>()), 0..3);
    let place = (any::<u128>(), any::<[u64; 3]>(), option::of(any::<u64>()), vec(any::<u64>(), 0..5));
    (place, nodes, any::<[u32; 2]>(), health(), problems()).prop_map(
        |((id, [coordinator, term, applied], leader, voters), nodes, [collections, shards], health, problems)| {
            ClusterInfo { id, coordinator, leader, term, applied, voters, nodes, collections, shards, health, problems }
        },
    )
}

fn node() -> impl Strategy<Value = NodeInfo> {
    let texts = (".{0,9}", ".{0,9}", ".{0,9}");
    let flags = any::<[bool; 3]>();
    let ids = (any::<u64>(), any::<u128>(), 0..i64::MAX as u64, option::of(any::<u64>()));
    (ids, texts, flags, status(), any::<[u32; 4]>(), problems()).prop_map(
        |(
            (id, incarnation, joined_unix_micros, silent_ms),
            texts,
            [coordinator, shard, voter],
            status,
            counts,
            problems,
        )| {
            let (peer_address, api_address, zone) = texts;
            let [wanted_replicas, hosted_replicas, led_shards, waiting_searches] = counts;
            NodeInfo {
                id,
                incarnation,
                peer_address,
                api_address,
                zone,
                coordinator,
                shard,
                status,
                joined_unix_micros,
                voter,
                silent_ms,
                wanted_replicas,
                hosted_replicas,
                led_shards,
                waiting_searches,
                problems,
            }
        },
    )
}

fn shard() -> impl Strategy<Value = ShardInfo> {
    let role = select(vec![ReplicaRole::Leader, ReplicaRole::Follower, ReplicaRole::Learner]);
    let told = (role, any::<[u64; 8]>(), option::of(any::<u64>()), option::of(".{1,9}")).prop_map(
        |(
            role,
            [epoch, term, applied, points, disk_bytes, data_bytes, recent_us, lasting_us],
            lag_entries,
            problem,
        )| ReplicaTold {
            role,
            epoch,
            term,
            applied,
            lag_entries,
            points,
            disk_bytes,
            data_bytes,
            load: ReplicaLoad { recent_us, lasting_us },
            problem,
        },
    );
    let replica = (any::<u64>(), any::<bool>(), option::of(told));
    let replica = replica.prop_map(|(node, wanted, told)| ReplicaInfo { node, wanted, told });
    (any::<[u64; 10]>(), any::name(), vec(replica, 0..4), option::of(any::<u64>()), health(), problems()).prop_map(
        |(numbers, collection, replicas, leader, health, problems)| {
            let [id, first_hash, last_hash, epoch, applied, points, disk_bytes, data_bytes, recent_us, lasting_us] =
                numbers;
            ShardInfo {
                id,
                collection,
                first_hash,
                last_hash,
                epoch,
                replicas,
                leader,
                applied,
                points,
                disk_bytes,
                data_bytes,
                load: ReplicaLoad { recent_us, lasting_us },
                health,
                problems,
            }
        },
    )
}

proptest! {
    #[test]
    fn clusters_nodes_and_shards(
        cluster in cluster(),
        nodes in vec(node(), 0..3),
        shards in vec(shard(), 0..3),
        join_token in ".{0,40}",
        ids in (1u64.., 1u64..),
    ) {
        check(NewCluster { id: cluster.id, join_token })?;
        check(cluster)?;
        for node in &nodes {
            check(node.clone())?;
        }
        check(NodePage { nodes, next_page_token: "next".to_owned() })?;
        for shard in &shards {
            check(shard.clone())?;
        }
        check(ShardPage { shards, next_page_token: String::new() })?;
        check(TransferLeader { shard: ids.0, to: ids.1 })?;
    }

    #[test]
    fn pages_begin_after_their_place(
        collection in option::of(any::name()),
        node in option::of(any::<u64>()),
        place in any::<u64>(),
    ) {
        let list = ListShards { collection, node };
        let (arrived, page) = ListShards::from_proto(&sent(&list.clone().into_proto(7, String::new()))).unwrap();
        prop_assert_eq!((&arrived, page.size, page.after), (&list, 7, None));
        let token = page.next_token(&ById(place));
        let (_, page) = ListShards::from_proto(&list.clone().into_proto(0, token.clone())).unwrap();
        prop_assert_eq!((page.size, page.after), (crate::DEFAULT_PAGE, Some(ById(place))));
        prop_assert!(ListNodes::from_proto(&ListNodes.into_proto(0, token.clone())).is_err(), "a token of another list");
        let other = ListShards { node: Some(node.map_or(1, |node| node ^ 1)), ..list };
        prop_assert!(ListShards::from_proto(&other.into_proto(0, token)).is_err(), "a token of another node");
        let (_, page) = ListNodes::from_proto(&sent(&ListNodes.into_proto(9, String::new()))).unwrap();
        let token = page.next_token(&ById(place));
        let (_, page) = ListNodes::from_proto(&ListNodes.into_proto(9, token)).unwrap();
        prop_assert_eq!((page.size, page.after), (9, Some(ById(place))));
    }
}

#[test]
fn what_cannot_be_is_refused_by_field() {
    let refused = |field: &str, failure: Failure| assert_eq!(failure.violations[0].field, field, "{failure:?}");
    let transfer = |shard, to| TransferLeader::from_proto(v1::TransferLeaderRequest { shard, to }).unwrap_err();
    refused("shard", transfer(0, 1).into());
    refused("to", transfer(1, 0).into());
    refused("id", id_from("id", 0).unwrap_err().into());
    let list = v1::ListShardsRequest { collection: "Docs".to_owned(), ..Default::default() };
    refused("collection", ListShards::from_proto(&list).unwrap_err().into());
    let list = v1::ListNodesRequest { page_token: "x".to_owned(), ..Default::default() };
    refused("page_token", ListNodes::from_proto(&list).unwrap_err().into());
    let node = NodeInfo { id: 1, ..golden_node() }.into_proto();
    for status in [0, 99] {
        let node = v1::Node { status, ..node.clone() };
        let page = v1::ListNodesResponse { nodes: vec![node], next_page_token: String::new() };
        refused("nodes[0].status", NodePage::from_proto(page).unwrap_err().into());
    }
}

fn golden_node() -> NodeInfo {
    NodeInfo {
        id: 300,
        incarnation: 2,
        peer_address: "http://a:6381".to_owned(),
        api_address: "http://a:6380".to_owned(),
        zone: "z".to_owned(),
        coordinator: true,
        shard: true,
        status: NodeStatus::Lost,
        joined_unix_micros: 1_750_000_000_123_456,
        voter: true,
        silent_ms: Some(0),
        wanted_replicas: 1,
        hosted_replicas: 2,
        led_shards: 3,
        waiting_searches: 4,
        problems: vec!["p".to_owned()],
    }
}

fn golden_shard() -> ShardInfo {
    let told = ReplicaTold {
        role: ReplicaRole::Learner,
        epoch: 1,
        term: 2,
        applied: 3,
        lag_entries: Some(0),
        points: 5,
        disk_bytes: 6,
        data_bytes: 0,
        load: ReplicaLoad::default(),
        problem: Some("p".to_owned()),
    };
    let replicas = vec![
        ReplicaInfo { node: 1, wanted: true, told: None },
        ReplicaInfo { node: 300, wanted: false, told: Some(told) },
    ];
    ShardInfo {
        id: 16,
        collection: "docs".parse().unwrap(),
        first_hash: 1,
        last_hash: u64::MAX,
        epoch: 2,
        replicas,
        leader: Some(300),
        applied: 3,
        points: 4,
        disk_bytes: 5,
        data_bytes: 0,
        load: ReplicaLoad::default(),
        health: Health::Unavailable,
        problems: vec!["p".to_owned()],
    }
}

/// What older nodes and coordinators do not tell.
fn golden_shard_of_load() -> ShardInfo {
    let load = |recent_us| ReplicaLoad { recent_us, lasting_us: 300 };
    let mut shard = ShardInfo { data_bytes: 9, load: load(10), ..golden_shard() };
    if let Some(told) = &mut shard.replicas[1].told {
        (told.data_bytes, told.load) = (7, load(8));
    }
    shard
}

/// One message of each kind, for the golden bytes.
pub(super) fn golden() -> Vec<(&'static str, String)> {
    let cluster = ClusterInfo {
        id: 1,
        coordinator: 2,
        leader: Some(300),
        term: 4,
        applied: 5,
        voters: vec![2, 300],
        nodes: vec![(NodeStatus::Up, 2), (NodeStatus::Removed, 1)],
        collections: 6,
        shards: 7,
        health: Health::Degraded,
        problems: vec!["p".to_owned()],
    };
    let list = ListShards { collection: Some("docs".parse().unwrap()), node: Some(0) };
    let next = || "next".to_owned();
    let rotated = v1::RotateJoinTokenResponse { join_token: "token".to_owned() };
    let messages = vec![
        ("InitClusterResponse", hex(&NewCluster { id: 1, join_token: "token".to_owned() }.into_proto())),
        ("RotateJoinTokenResponse", hex(&rotated)),
        ("Cluster", hex(&cluster.into_proto())),
        ("ListNodesRequest", hex(&ListNodes.into_proto(5, "token".to_owned()))),
        ("ListNodesResponse", hex(&NodePage { nodes: vec![golden_node()], next_page_token: next() }.into_proto())),
        ("GetNodeRequest", hex(&v1::GetNodeRequest { id: 300 })),
        ("ListShardsRequest", hex(&list.into_proto(5, "token".to_owned()))),
        ("ListShardsResponse", hex(&ShardPage { shards: vec![golden_shard()], next_page_token: next() }.into_proto())),
        ("GetShardRequest", hex(&v1::GetShardRequest { id: 300 })),
        ("TransferLeaderRequest", hex(&TransferLeader { shard: 16, to: 300 }.into_proto())),
    ];
    let of_load = vec![("Shard.load", hex(&golden_shard_of_load().into_proto()))];
    [messages, operation::golden(), of_load].concat()
}
