//! Life of a request: check it, find its shards, ask them, put the answers together.
//!
//! Holds the control group (which collections exist) and routes by it. May not know: gRPC, the threads and
//! storage of a node; it asks shards through [`ShardClient`].

mod client;
mod collections;
mod control;
mod error;
mod merge;
mod points;
mod search;

use std::sync::Arc;

use sagitta_env::Env;

pub use client::{Read, ShardClient, ShardError, ShardSpec, ShardStatistics, Tokens};
pub use control::{Control, ControlError};
pub use error::Error;
pub use points::{Page, Write};
pub use search::Search;

/// Answers every request of the API, in the words of the model. Cheap to share.
pub struct Coordinator<C> {
    env: Env,
    control: Control,
    shards: Arc<C>,
}

impl<C: ShardClient> Coordinator<C> {
    /// A coordinator over an open control group; makes sure that every shard of it is hosted.
    pub async fn start(env: Env, control: Control, shards: Arc<C>) -> Result<Self, Error> {
        let coordinator = Self { env, control, shards };
        coordinator.reconcile().await?;
        Ok(coordinator)
    }

    /// The control group, for shutting down.
    pub fn control(&self) -> &Control {
        &self.control
    }
}
