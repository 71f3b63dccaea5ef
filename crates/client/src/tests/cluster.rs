//! The calls of `ClusterService`, against a cluster of two nodes and three shards.

use std::time::Duration;

use sagitta_model::*;
use sagitta_wire::cluster::{
    ListNodes, ListShards, MergeShards, NodePage, RecoverShard, ShardPage, ShardRecovered, ShardSplit, ShardsMerged,
    SplitShard, TransferLeader,
};
use sagitta_wire::v1::cluster_service_server::ClusterService;
use sagitta_wire::{ById, Convert as _, Failure, reason, v1};
use tonic::{Request, Response, Status};

use super::fake::{Fake, Turn};
use crate::{Client, ClientConfig, CreateCollection, RetryPolicy};

type Answer<T> = Result<Response<T>, Status>;

fn node(id: u64) -> NodeInfo {
    NodeInfo {
        id,
        incarnation: u128::from(id),
        peer_address: format!("http://n{id}:6381"),
        api_address: format!("http://n{id}:6380"),
        zone: String::new(),
        coordinator: true,
        shard: true,
        status: NodeStatus::Up,
        joined_unix_micros: 1,
        voter: true,
        silent_ms: Some(1),
        wanted_replicas: 3,
        hosted_replicas: 3,
        led_shards: 1,
        waiting_searches: 0,
        problems: Vec::new(),
    }
}

fn shard(id: u64) -> ShardInfo {
    ShardInfo {
        id,
        collection: "docs".parse().unwrap(),
        first_hash: 0,
        last_hash: u64::MAX,
        epoch: 1,
        replicas: Vec::new(),
        leader: Some(2),
        applied: 9,
        points: 8,
        disk_bytes: 7,
        data_bytes: 6,
        load: ReplicaLoad { recent_us: 5, lasting_us: 4 },
        health: Health::Healthy,
        problems: Vec::new(),
    }
}

fn cluster() -> ClusterInfo {
    ClusterInfo {
        id: 7,
        coordinator: 1,
        leader: Some(1),
        term: 3,
        applied: 9,
        voters: vec![1, 2],
        nodes: vec![(NodeStatus::Up, 2)],
        collections: 1,
        shards: 3,
        health: Health::Healthy,
        problems: Vec::new(),
    }
}

#[tonic::async_trait]
impl ClusterService for Fake {
    async fn init_cluster(&self, request: Request<v1::InitClusterRequest>) -> Answer<v1::InitClusterResponse> {
        self.turn(&request, None).await?;
        Ok(Response::new(NewCluster { id: 7, join_token: "token".to_owned() }.into_proto()))
    }

    async fn rotate_join_token(
        &self,
        request: Request<v1::RotateJoinTokenRequest>,
    ) -> Answer<v1::RotateJoinTokenResponse> {
        self.turn(&request, None).await?;
        Ok(Response::new(v1::RotateJoinTokenResponse { join_token: "other".to_owned() }))
    }

    async fn get_cluster(&self, request: Request<v1::GetClusterRequest>) -> Answer<v1::Cluster> {
        self.turn(&request, None).await?;
        Ok(Response::new(cluster().into_proto()))
    }

    async fn list_nodes(&self, request: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesResponse> {
        self.turn(&request, None).await?;
        let (_, page) = ListNodes::from_proto(request.get_ref())?;
        let (nodes, next_page_token) = match page.after {
            None => (vec![node(1)], page.next_token(&ById(1))),
            Some(after) => (vec![node(after.0 + 1)], String::new()),
        };
        Ok(Response::new(NodePage { nodes, next_page_token }.into_proto()))
    }

    async fn get_node(&self, request: Request<v1::GetNodeRequest>) -> Answer<v1::Node> {
        self.turn(&request, None).await?;
        Ok(Response::new(node(request.get_ref().id).into_proto()))
    }

    async fn list_shards(&self, request: Request<v1::ListShardsRequest>) -> Answer<v1::ListShardsResponse> {
        self.turn(&request, None).await?;
        let (list, page) = ListShards::from_proto(request.get_ref())?;
        let wanted =
            list.collection.is_none_or(|name| name.as_str() == "docs") && list.node.is_none_or(|node| node == 2);
        let shards = (16..19).map(shard).filter(|_| wanted).take(page.size).collect();
        Ok(Response::new(ShardPage { shards, next_page_token: String::new() }.into_proto()))
    }

    async fn get_shard(&self, request: Request<v1::GetShardRequest>) -> Answer<v1::Shard> {
        self.turn(&request, None).await?;
        Ok(Response::new(shard(request.get_ref().id).into_proto()))
    }

    async fn transfer_leader(&self, request: Request<v1::TransferLeaderRequest>) -> Answer<()> {
        self.turn(&request, None).await?;
        let transfer = TransferLeader::from_proto(request.into_inner()).map_err(Failure::from)?;
        let failure = Failure::new(ErrorKind::NotFound, format!("no shard {}", transfer.shard));
        if transfer.shard == 16 && transfer.to == 2 { Ok(Response::new(())) } else { Err(failure.into()) }
    }

    async fn move_replica(&self, _: Request<v1::MoveReplicaRequest>) -> Answer<v1::MoveReplicaResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn split_shard(&self, request: Request<v1::SplitShardRequest>) -> Answer<v1::SplitShardResponse> {
        self.turn(&request, None).await?;
        let SplitShard { shard, epoch, dry_run } =
            SplitShard::from_proto(request.into_inner()).map_err(Failure::from)?;
        let notes = vec![format!("{shard} at {epoch}, dry run: {dry_run}")];
        Ok(Response::new(ShardSplit { operation: None, notes }.into_proto()))
    }

    async fn merge_shards(&self, request: Request<v1::MergeShardsRequest>) -> Answer<v1::MergeShardsResponse> {
        self.turn(&request, None).await?;
        let MergeShards { left, right, dry_run } =
            MergeShards::from_proto(request.into_inner()).map_err(Failure::from)?;
        let notes = vec![format!("{left:?} and {right:?}, dry run: {dry_run}")];
        Ok(Response::new(ShardsMerged { operation: None, notes }.into_proto()))
    }

    async fn change_node(&self, _: Request<v1::ChangeNodeRequest>) -> Answer<v1::ChangeNodeResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn list_operations(&self, _: Request<v1::ListOperationsRequest>) -> Answer<v1::ListOperationsResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn get_operation(&self, _: Request<v1::GetOperationRequest>) -> Answer<v1::Operation> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn cancel_operation(&self, _: Request<v1::CancelOperationRequest>) -> Answer<v1::Operation> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn recover_shard(&self, request: Request<v1::RecoverShardRequest>) -> Answer<v1::RecoverShardResponse> {
        self.turn(&request, None).await?;
        let RecoverShard { shard, epoch, dry_run } =
            RecoverShard::from_proto(request.into_inner()).map_err(Failure::from)?;
        let notes = vec![format!("{shard} at {epoch}, dry run: {dry_run}")];
        Ok(Response::new(ShardRecovered { survivor: 7, notes }.into_proto()))
    }
}

fn client(fake: &Fake) -> Client {
    let retry = RetryPolicy { max_attempts: 4, initial_backoff: Duration::from_millis(1), ..RetryPolicy::default() };
    Client::connect(ClientConfig { retry, ..ClientConfig::new(fake.address.to_string()) }).unwrap()
}

#[tokio::test]
async fn every_call_arrives_and_its_answer_comes_back() {
    let fake = Fake::start().await;
    let client = client(&fake);
    assert_eq!(client.init_cluster().await.unwrap(), NewCluster { id: 7, join_token: "token".to_owned() });
    assert_eq!(client.rotate_join_token().await.unwrap(), "other");
    assert_eq!(client.get_cluster().await.unwrap(), cluster());
    let first = client.list_nodes(1, String::new()).await.unwrap();
    assert_eq!(first.nodes, [node(1)]);
    let second = client.list_nodes(1, first.next_page_token).await.unwrap();
    assert_eq!(second, NodePage { nodes: vec![node(2)], next_page_token: String::new() });
    assert_eq!(client.get_node(2).await.unwrap(), node(2));
    let listed = |list, size| client.list_shards(list, size, String::new());
    assert_eq!(listed(ListShards::default(), 2).await.unwrap().shards, [shard(16), shard(17)]);
    let docs = Some("docs".parse().unwrap());
    assert_eq!(listed(ListShards { collection: docs, node: Some(2) }, 9).await.unwrap().shards.len(), 3);
    assert_eq!(listed(ListShards { collection: None, node: Some(3) }, 9).await.unwrap().shards.len(), 0);
    assert_eq!(client.get_shard(17).await.unwrap(), shard(17));
    client.transfer_leader(16, 2).await.unwrap();
    assert_eq!(client.split_shard(16, 3, true).await.unwrap().notes, ["16 at 3, dry run: true"]);
    let recovered = client.recover_shard(16, 3, false).await.unwrap();
    assert_eq!((recovered.survivor, &*recovered.notes[0]), (7, "16 at 3, dry run: false"));
    let merged = client.merge_shards((16, 3), (17, 1), true).await.unwrap();
    assert_eq!(merged.notes, ["(16, 3) and (17, 1), dry run: true"]);
    assert_eq!(client.transfer_leader(17, 2).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn founding_is_tried_once_and_everything_else_again() {
    let fake = Fake::start().await;
    let client = client(&fake);
    let away = || Turn::Fail(Failure::new(ErrorKind::Unavailable, "away").with_retry_after(Duration::ZERO));
    fake.order([away()]);
    let error = client.init_cluster().await.unwrap_err();
    assert_eq!((error.kind, error.attempts), (ErrorKind::Unavailable, 1));
    fake.order([Turn::Fail(Failure::cluster_exists("7"))]);
    let error = client.init_cluster().await.unwrap_err();
    assert_eq!((error.kind, &*error.reason), (ErrorKind::Conflict, reason::CLUSTER_EXISTS));
    fake.order([away(), away()]);
    assert_eq!(client.get_cluster().await.unwrap().id, 7);
    fake.order([Turn::Fail(Failure::no_cluster())]);
    let error = client.get_cluster().await.unwrap_err();
    assert_eq!((error.kind, &*error.reason), (ErrorKind::NotFound, reason::NO_CLUSTER));
}

#[tokio::test]
async fn a_collection_is_created_with_the_shards_and_replicas_asked_for() {
    let fake = Fake::start().await;
    let client = client(&fake);
    let spec = VectorSpec { dim: 1, metric: Metric::L2, index: IndexPolicy::Auto };
    let schema = Schema { vectors: [("v".to_owned(), spec)].into(), ..Schema::default() };
    let plain = CreateCollection::new("docs".parse().unwrap(), schema);
    let asked = CreateCollection { shards: Some(12), replication: Some(5), ..plain.clone() };
    let info = client.create(asked).await.unwrap();
    assert_eq!((info.shards, info.replication), (12, 5));
    let info = client.create(plain).await.unwrap();
    assert_eq!((info.shards, info.replication), (1, 3), "as the server likes");
    let ids: Vec<_> = fake.seen().calls.iter().map(|call| call.request_id).collect();
    assert!(ids[0].is_some() && ids[1].is_some() && ids[0] != ids[1], "{ids:?}");
}
