//! The gRPC handlers: decode and resolve, call one function of the coordinator, encode.

pub(crate) mod cluster;
mod collections;
mod points;
mod search;

use std::sync::Arc;

use sagitta_cluster::Collection;
use sagitta_coordinator::{Coordinator, NodeClient};
use sagitta_env::{Deadline, Env};
use sagitta_model::CollectionName;
use sagitta_wire::{Failure, RequestId};

use crate::failure::failure;

pub(crate) use cluster::{Founding, Unfounded};

/// What all handlers share.
pub(crate) struct Services<C> {
    coordinator: Arc<Coordinator<C>>,
    env: Env,
}

impl<C: NodeClient> Services<C> {
    pub(crate) fn new(coordinator: Arc<Coordinator<C>>, env: Env) -> Self {
        Self { coordinator, env }
    }

    async fn find(&self, name: &CollectionName, deadline: Deadline) -> Result<Arc<Collection>, Failure> {
        self.coordinator.find(name, deadline).await.map_err(|error| failure(error, Some(name)))
    }

    /// The caller's request id, or one of our own for a caller that gives up that protection.
    fn request_id(&self, asked: Option<RequestId>) -> u128 {
        asked.map_or_else(|| self.env.uuid(), |id| id.0)
    }
}
