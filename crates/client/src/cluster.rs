//! The calls of `ClusterService`: for operators.

use sagitta_model::{ClusterInfo, NewCluster, NodeChange, NodeInfo, OperationInfo, ShardInfo};
use sagitta_wire::cluster::{
    CancelOperation, ChangeNode, ListNodes, ListOperations, ListShards, MergeShards, MoveReplica, NodeChanged,
    NodePage, OperationPage, RecoverShard, ReplicaMoved, ShardPage, ShardRecovered, ShardSplit, ShardsMerged,
    SplitShard, TransferLeader,
};
use sagitta_wire::{Convert as _, v1};

use crate::client::Client;
use crate::error::ClientError;

impl Client {
    /// Makes the node at the endpoint found a cluster. Not tried again: the token is answered once, and a second attempt would be
    /// refused whatever came of the first.
    pub async fn init_cluster(&self) -> Result<NewCluster, ClientError> {
        let once = self.without_retries();
        let call = |request| {
            let mut service = once.cluster_service();
            async move { service.init_cluster(request).await }
        };
        let (answer, attempts) = once.call(&v1::InitClusterRequest {}, call).await?;
        NewCluster::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Makes a new join token; the one before is worth nothing from then on.
    pub async fn rotate_join_token(&self) -> Result<String, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.rotate_join_token(request).await }
        };
        self.call(&v1::RotateJoinTokenRequest {}, call).await.map(|(answer, _)| answer.join_token)
    }

    /// Shows the cluster.
    pub async fn get_cluster(&self) -> Result<ClusterInfo, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.get_cluster(request).await }
        };
        let (answer, attempts) = self.call(&v1::GetClusterRequest {}, call).await?;
        ClusterInfo::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Lists a page of nodes by id. `page_size` 0 leaves it to the server, an empty `page_token` begins.
    pub async fn list_nodes(&self, page_size: usize, page_token: String) -> Result<NodePage, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.list_nodes(request).await }
        };
        let (answer, attempts) = self.call(&ListNodes.into_proto(page_size, page_token), call).await?;
        NodePage::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Shows a node.
    pub async fn get_node(&self, id: u64) -> Result<NodeInfo, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.get_node(request).await }
        };
        let (answer, attempts) = self.call(&v1::GetNodeRequest { id }, call).await?;
        NodeInfo::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Lists a page of shards by id. `page_size` 0 leaves it to the server, an empty `page_token` begins.
    pub async fn list_shards(
        &self,
        list: ListShards,
        page_size: usize,
        page_token: String,
    ) -> Result<ShardPage, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.list_shards(request).await }
        };
        let (answer, attempts) = self.call(&list.into_proto(page_size, page_token), call).await?;
        ShardPage::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Shows a shard.
    pub async fn get_shard(&self, id: u64) -> Result<ShardInfo, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.get_shard(request).await }
        };
        let (answer, attempts) = self.call(&v1::GetShardRequest { id }, call).await?;
        ShardInfo::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Has another replica lead a shard.
    pub async fn transfer_leader(&self, shard: u64, to: u64) -> Result<(), ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.transfer_leader(request).await }
        };
        self.call(&TransferLeader { shard, to }.into_proto(), call).await.map(|((), _)| ())
    }

    /// Moves a replica of a shard to another node, or only tells whether it could be.
    pub async fn move_replica(
        &self,
        shard: u64,
        from: u64,
        to: u64,
        dry_run: bool,
    ) -> Result<ReplicaMoved, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.move_replica(request).await }
        };
        let request = MoveReplica { shard, from, to, dry_run }.into_proto();
        let (answer, attempts) = self.call(&request, call).await?;
        ReplicaMoved::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Splits a shard in two, or only tells whether it could be. `epoch` is that of its placement, as it was last seen.
    pub async fn split_shard(&self, shard: u64, epoch: u64, dry_run: bool) -> Result<ShardSplit, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.split_shard(request).await }
        };
        let (answer, attempts) = self.call(&SplitShard { shard, epoch, dry_run }.into_proto(), call).await?;
        ShardSplit::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Has a shard that has lost its majority for ever go on with what is left, or only tells what that is. `epoch` is that of its
    /// placement, as it was last seen.
    pub async fn recover_shard(&self, shard: u64, epoch: u64, dry_run: bool) -> Result<ShardRecovered, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.recover_shard(request).await }
        };
        let (answer, attempts) = self.call(&RecoverShard { shard, epoch, dry_run }.into_proto(), call).await?;
        ShardRecovered::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Merges two neighbouring shards into a new one, or only tells whether they could be. Each comes with the epoch of its placement,
    /// as it was last seen.
    pub async fn merge_shards(
        &self,
        left: (u64, u64),
        right: (u64, u64),
        dry_run: bool,
    ) -> Result<ShardsMerged, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.merge_shards(request).await }
        };
        let (answer, attempts) = self.call(&MergeShards { left, right, dry_run }.into_proto(), call).await?;
        ShardsMerged::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Changes how a node stands to the cluster, or only tells what would follow.
    pub async fn change_node(&self, id: u64, change: NodeChange, dry_run: bool) -> Result<NodeChanged, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.change_node(request).await }
        };
        let (answer, attempts) = self.call(&ChangeNode { id, change, dry_run }.into_proto(), call).await?;
        NodeChanged::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Lists a page of operations by id. `page_size` 0 leaves it to the server, an empty `page_token` begins.
    pub async fn list_operations(&self, page_size: usize, page_token: String) -> Result<OperationPage, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.list_operations(request).await }
        };
        let (answer, attempts) = self.call(&ListOperations.into_proto(page_size, page_token), call).await?;
        OperationPage::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Shows an operation.
    pub async fn get_operation(&self, id: u64) -> Result<OperationInfo, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.get_operation(request).await }
        };
        let (answer, attempts) = self.call(&v1::GetOperationRequest { id }, call).await?;
        OperationInfo::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Wants an operation not to come about, or only tells whether it could be.
    pub async fn cancel_operation(&self, id: u64, dry_run: bool) -> Result<OperationInfo, ClientError> {
        let call = |request| {
            let mut service = self.cluster_service();
            async move { service.cancel_operation(request).await }
        };
        let (answer, attempts) = self.call(&CancelOperation { id, dry_run }.into_proto(), call).await?;
        OperationInfo::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }
}
