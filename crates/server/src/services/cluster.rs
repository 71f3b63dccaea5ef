//! `ClusterService`: of a process that belongs to a cluster, and of one that does not yet.

use std::future::Future;

use sagitta_cluster::schedule::ByHand;
use sagitta_coordinator::{Error, NodeClient};
use sagitta_model::{NewCluster, PointId};
use sagitta_wire::cluster::{
    CancelOperation, ChangeNode, ListNodes, ListOperations, ListShards, MergeShards, MoveReplica, NodeChanged,
    NodePage, OperationPage, RecoverShard, ReplicaMoved, ShardPage, ShardRecovered, ShardSplit, ShardsMerged,
    SplitShard, TransferLeader, id_from,
};
use sagitta_wire::v1::cluster_service_server::ClusterService;
use sagitta_wire::{ById, Convert as _, Failure, v1};
use tonic::{Request, Response, Status};

use super::Services;
use crate::deadline::deadline;
use crate::failure::failure;
use crate::gate::new_join_token;

type Answer<T> = Result<Response<T>, Status>;

fn told(error: Error) -> Failure {
    failure(error, None)
}

#[tonic::async_trait]
impl<C: NodeClient> ClusterService for Services<C> {
    async fn init_cluster(&self, _: Request<v1::InitClusterRequest>) -> Answer<v1::InitClusterResponse> {
        let id = self.coordinator.control().state().cluster_id();
        Err(Failure::cluster_exists(PointId::Uuid(id)).into())
    }

    async fn rotate_join_token(
        &self,
        request: Request<v1::RotateJoinTokenRequest>,
    ) -> Answer<v1::RotateJoinTokenResponse> {
        let deadline = deadline(request.metadata(), &self.env);
        let (join_token, digest) = new_join_token(&self.env);
        self.coordinator.set_join_token(digest, deadline).await.map_err(told)?;
        Ok(Response::new(v1::RotateJoinTokenResponse { join_token }))
    }

    async fn get_cluster(&self, _: Request<v1::GetClusterRequest>) -> Answer<v1::Cluster> {
        Ok(Response::new(self.coordinator.cluster_info().into_proto()))
    }

    async fn list_nodes(&self, request: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesResponse> {
        let (_, page) = ListNodes::from_proto(request.get_ref())?;
        let (nodes, more) = self.coordinator.node_infos(page.after.map(|after| after.0), page.size);
        let last = nodes.last().filter(|_| more);
        let next_page_token = last.map(|last| page.next_token(&ById(last.id))).unwrap_or_default();
        Ok(Response::new(NodePage { nodes, next_page_token }.into_proto()))
    }

    async fn get_node(&self, request: Request<v1::GetNodeRequest>) -> Answer<v1::Node> {
        let id = id_from("id", request.get_ref().id).map_err(Failure::from)?;
        Ok(Response::new(self.coordinator.node_info(id).map_err(told)?.into_proto()))
    }

    async fn list_shards(&self, request: Request<v1::ListShardsRequest>) -> Answer<v1::ListShardsResponse> {
        let (list, page) = ListShards::from_proto(request.get_ref())?;
        let after = page.after.map(|after| after.0);
        let listed = self.coordinator.shard_infos(list.collection.as_ref(), list.node, after, page.size);
        let (shards, more) = listed.map_err(told)?;
        let last = shards.last().filter(|_| more);
        let next_page_token = last.map(|last| page.next_token(&ById(last.id))).unwrap_or_default();
        Ok(Response::new(ShardPage { shards, next_page_token }.into_proto()))
    }

    async fn get_shard(&self, request: Request<v1::GetShardRequest>) -> Answer<v1::Shard> {
        let id = id_from("id", request.get_ref().id).map_err(Failure::from)?;
        Ok(Response::new(self.coordinator.shard_info(id).map_err(told)?.into_proto()))
    }

    async fn transfer_leader(&self, request: Request<v1::TransferLeaderRequest>) -> Answer<()> {
        let deadline = deadline(request.metadata(), &self.env);
        let transfer = TransferLeader::from_proto(request.into_inner()).map_err(Failure::from)?;
        self.coordinator.transfer_leader(transfer.shard, transfer.to, deadline).await.map_err(told)?;
        Ok(Response::new(()))
    }

    async fn move_replica(&self, request: Request<v1::MoveReplicaRequest>) -> Answer<v1::MoveReplicaResponse> {
        let deadline = deadline(request.metadata(), &self.env);
        let MoveReplica { shard, from, to, dry_run } =
            MoveReplica::from_proto(request.into_inner()).map_err(Failure::from)?;
        let asked = ByHand { shard, from, to };
        let (operation, notes) = self.coordinator.move_replica(asked, dry_run, deadline).await.map_err(told)?;
        Ok(Response::new(ReplicaMoved { operation, notes }.into_proto()))
    }

    async fn split_shard(&self, request: Request<v1::SplitShardRequest>) -> Answer<v1::SplitShardResponse> {
        let deadline = deadline(request.metadata(), &self.env);
        let SplitShard { shard, epoch, dry_run } =
            SplitShard::from_proto(request.into_inner()).map_err(Failure::from)?;
        let (operation, notes) = self.coordinator.split_shard(shard, epoch, dry_run, deadline).await.map_err(told)?;
        Ok(Response::new(ShardSplit { operation, notes }.into_proto()))
    }

    async fn recover_shard(&self, request: Request<v1::RecoverShardRequest>) -> Answer<v1::RecoverShardResponse> {
        let deadline = deadline(request.metadata(), &self.env);
        let RecoverShard { shard, epoch, dry_run } =
            RecoverShard::from_proto(request.into_inner()).map_err(Failure::from)?;
        let (survivor, notes) = self.coordinator.recover_shard(shard, epoch, dry_run, deadline).await.map_err(told)?;
        Ok(Response::new(ShardRecovered { survivor, notes }.into_proto()))
    }

    async fn merge_shards(&self, request: Request<v1::MergeShardsRequest>) -> Answer<v1::MergeShardsResponse> {
        let deadline = deadline(request.metadata(), &self.env);
        let MergeShards { left, right, dry_run } =
            MergeShards::from_proto(request.into_inner()).map_err(Failure::from)?;
        let merged = self.coordinator.merge_shards([left, right], dry_run, deadline).await;
        let (operation, notes) = merged.map_err(told)?;
        Ok(Response::new(ShardsMerged { operation, notes }.into_proto()))
    }

    async fn change_node(&self, request: Request<v1::ChangeNodeRequest>) -> Answer<v1::ChangeNodeResponse> {
        let deadline = deadline(request.metadata(), &self.env);
        let ChangeNode { id, change, dry_run } = ChangeNode::from_proto(request.into_inner()).map_err(Failure::from)?;
        let (node, follows) = self.coordinator.change_node(id, change, dry_run, deadline).await.map_err(told)?;
        Ok(Response::new(NodeChanged { node, follows }.into_proto()))
    }

    async fn list_operations(&self, request: Request<v1::ListOperationsRequest>) -> Answer<v1::ListOperationsResponse> {
        let (_, page) = ListOperations::from_proto(request.get_ref())?;
        let (operations, more) = self.coordinator.operation_infos(page.after.map(|after| after.0), page.size);
        let last = operations.last().filter(|_| more);
        let next_page_token = last.map(|last| page.next_token(&ById(last.id))).unwrap_or_default();
        Ok(Response::new(OperationPage { operations, next_page_token }.into_proto()))
    }

    async fn get_operation(&self, request: Request<v1::GetOperationRequest>) -> Answer<v1::Operation> {
        let id = id_from("id", request.get_ref().id).map_err(Failure::from)?;
        Ok(Response::new(self.coordinator.operation_info(id).map_err(told)?.into_proto()))
    }

    async fn cancel_operation(&self, request: Request<v1::CancelOperationRequest>) -> Answer<v1::Operation> {
        let deadline = deadline(request.metadata(), &self.env);
        let CancelOperation { id, dry_run } =
            CancelOperation::from_proto(request.into_inner()).map_err(Failure::from)?;
        Ok(Response::new(self.coordinator.cancel_operation(id, dry_run, deadline).await.map_err(told)?.into_proto()))
    }
}

/// How a process that belongs to no cluster founds one.
pub(crate) trait Founding: Send + Sync + 'static {
    /// Founds a cluster, once: of calls at the same time one succeeds and the others are told that it exists.
    fn found(&self) -> impl Future<Output = Result<NewCluster, Failure>> + Send;
}

/// `ClusterService` of a process that belongs to no cluster yet.
pub(crate) struct Unfounded<F>(pub(crate) F);

#[tonic::async_trait]
impl<F: Founding> ClusterService for Unfounded<F> {
    async fn init_cluster(&self, _: Request<v1::InitClusterRequest>) -> Answer<v1::InitClusterResponse> {
        Ok(Response::new(self.0.found().await?.into_proto()))
    }

    async fn rotate_join_token(&self, _: Request<v1::RotateJoinTokenRequest>) -> Answer<v1::RotateJoinTokenResponse> {
        Err(Failure::no_cluster().into())
    }

    async fn get_cluster(&self, _: Request<v1::GetClusterRequest>) -> Answer<v1::Cluster> {
        Err(Failure::no_cluster().into())
    }

    async fn list_nodes(&self, _: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesResponse> {
        Err(Failure::no_cluster().into())
    }

    async fn get_node(&self, _: Request<v1::GetNodeRequest>) -> Answer<v1::Node> {
        Err(Failure::no_cluster().into())
    }

    async fn list_shards(&self, _: Request<v1::ListShardsRequest>) -> Answer<v1::ListShardsResponse> {
        Err(Failure::no_cluster().into())
    }

    async fn get_shard(&self, _: Request<v1::GetShardRequest>) -> Answer<v1::Shard> {
        Err(Failure::no_cluster().into())
    }

    async fn transfer_leader(&self, _: Request<v1::TransferLeaderRequest>) -> Answer<()> {
        Err(Failure::no_cluster().into())
    }

    async fn move_replica(&self, _: Request<v1::MoveReplicaRequest>) -> Answer<v1::MoveReplicaResponse> {
        Err(Failure::no_cluster().into())
    }

    async fn split_shard(&self, _: Request<v1::SplitShardRequest>) -> Answer<v1::SplitShardResponse> {
        Err(Failure::no_cluster().into())
    }

    async fn recover_shard(&self, _: Request<v1::RecoverShardRequest>) -> Answer<v1::RecoverShardResponse> {
        Err(Failure::no_cluster().into())
    }

    async fn merge_shards(&self, _: Request<v1::MergeShardsRequest>) -> Answer<v1::MergeShardsResponse> {
        Err(Failure::no_cluster().into())
    }

    async fn change_node(&self, _: Request<v1::ChangeNodeRequest>) -> Answer<v1::ChangeNodeResponse> {
        Err(Failure::no_cluster().into())
    }

    async fn list_operations(&self, _: Request<v1::ListOperationsRequest>) -> Answer<v1::ListOperationsResponse> {
        Err(Failure::no_cluster().into())
    }

    async fn get_operation(&self, _: Request<v1::GetOperationRequest>) -> Answer<v1::Operation> {
        Err(Failure::no_cluster().into())
    }

    async fn cancel_operation(&self, _: Request<v1::CancelOperationRequest>) -> Answer<v1::Operation> {
        Err(Failure::no_cluster().into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use sagitta_wire::reason;
    use tonic::Code;

    use super::*;

    #[derive(Default)]
    struct Once(AtomicBool);

    impl Founding for Once {
        async fn found(&self) -> Result<NewCluster, Failure> {
            match self.0.swap(true, Ordering::SeqCst) {
                false => Ok(NewCluster { id: 7, join_token: "token".to_owned() }),
                true => Err(Failure::cluster_exists(PointId::Uuid(7))),
            }
        }
    }

    #[tokio::test]
    async fn a_process_without_a_cluster_founds_one_and_knows_nothing_else() {
        let service = Unfounded(Once::default());
        let init = || service.init_cluster(Request::new(v1::InitClusterRequest {}));
        let founded = NewCluster::from_proto(init().await.expect("founded").into_inner());
        assert_eq!(founded, Ok(NewCluster { id: 7, join_token: "token".to_owned() }));
        let twice = init().await.expect_err("there is one");
        assert_eq!(twice.code(), Code::AlreadyExists);
        let failure = Failure::from_status(&twice);
        assert_eq!(failure.reason, reason::CLUSTER_EXISTS);
        assert!(failure.message.contains("00000000-0000-0000-0000-000000000007"), "{failure}");
        let status = service.get_cluster(Request::new(v1::GetClusterRequest {})).await.expect_err("none");
        assert_eq!((status.code(), &*Failure::from_status(&status).reason), (Code::NotFound, reason::NO_CLUSTER));
        assert!(status.message().contains("sagitta cluster init"), "{status}");
    }
}
