//! Life of a request: check it, find its shards, ask them, put the answers together.
//!
//! Holds the control group (what the cluster is) and routes by it. May not know: gRPC, the threads and storage of a
//! node; it asks nodes through [`NodeClient`].

mod client;
mod cluster;
mod collections;
mod control;
mod decide;
mod error;
mod keeper;
mod merge;
mod points;
mod reports;
mod router;
mod scatter;
mod search;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use sagitta_cluster::Limits;
use sagitta_env::{Alarm, Env};

pub use client::{Elsewhere, NodeClient, Page, Read, ShardError, ShardRef, ShardStatistics, Tokens};
pub use collections::NewCollection;
pub use control::{Control, ControlError, Decided, GROUP as CONTROL_GROUP, Kept};
pub use error::Error;
pub use points::Write;
pub use reports::{Heard, Reports};
pub use search::Search;

/// Answers every request of the API, in the words of the model. Cheap to share.
pub struct Coordinator<C> {
    env: Env,
    /// For answers that may be late.
    alarm: Alarm,
    me: u64,
    control: Control,
    nodes: Arc<C>,
    reports: Arc<Reports>,
    limits: Limits,
}

impl<C> Coordinator<C> {
    /// The coordinator on node `me`, over an open control group.
    pub fn new(env: Env, me: u64, control: Control, nodes: Arc<C>, reports: Arc<Reports>) -> Self {
        Self { alarm: env.alarm(), env, me, control, nodes, reports, limits: Limits::default() }
    }

    /// With other limits on what the cluster does by itself.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Its time and chance.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The control group.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// What was heard from the nodes.
    pub fn reports(&self) -> &Arc<Reports> {
        &self.reports
    }
}
