//! Makes the members of the groups that this node leads those that operations ask for, and has their shards split.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sagitta_cluster::{GroupMembers, MemberChange, Operation, Split, SplitStep, State};
use sagitta_consensus::{Members, NodeId, Role};
use sagitta_env::Env;
use sagitta_node::{Node, NodeError, Replica};
use tokio::sync::watch;

use crate::agent::{Seen, members};

/// How often it looks while an operation is under way on a shard that is hosted here: a change may be refused for a while, and the
/// leadership come here.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long one change may take; what was not changed is looked at again.
const CHANGE_WITHIN: Duration = Duration::from_secs(5);

/// Follows the operations. It does what a step asks for and nothing else, so it may do it again, and so may another leader.
pub(crate) struct Steward {
    env: Env,
    me: u64,
    node: Arc<Node>,
}

impl Steward {
    pub(crate) fn new(env: Env, me: u64, node: Arc<Node>) -> Self {
        Self { env, me, node }
    }

    /// Follows the states until nobody sends any more.
    pub(crate) async fn run(self, mut states: watch::Receiver<Option<Seen>>) {
        loop {
            let seen = states.borrow_and_update().clone();
            let busy = match seen {
                Some(seen) => self.look(&seen.state).await,
                None => false,
            };
            if busy {
                self.env.sleep(LOOK_EVERY).await;
                if states.has_changed().is_err() {
                    return;
                }
            } else if states.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether there is something to be looked at again.
    async fn look(&self, state: &State) -> bool {
        let here = state.operations().filter(|operation| operation.is_under_way()).filter_map(|operation| {
            let replica = self.node.replica(operation.shard).ok()?;
            Some(self.advance(operation, replica))
        });
        let here: Vec<_> = here.collect();
        let halves = state.splits().filter(|split| split.step == SplitStep::Divide);
        let halves = halves.filter_map(|split| Some(self.divide(split, self.node.replica(split.shard).ok()?)));
        let halves: Vec<_> = halves.collect();
        let busy = !here.is_empty() || !halves.is_empty();
        futures_util::future::join(join_all(here), join_all(halves)).await;
        busy
    }

    /// Has a shard split that is led here, and was not yet.
    async fn divide(&self, split: &Split, replica: Arc<Replica>) {
        if replica.status().role != Role::Leader {
            return;
        }
        let (id, shard, right) = (split.id, split.shard, split.right.id);
        match replica.split(split.request_id(), split.at, right, self.env.deadline(CHANGE_WITHIN)).await {
            Ok(at) => tracing::info!(split = id, shard, right, %at, "split a shard"),
            Err(error) => tracing::debug!(split = id, shard, right, %error, "a shard was not split"),
        }
    }

    async fn advance(&self, operation: &Operation, replica: Arc<Replica>) {
        let Some(change) = members(&replica.status()).and_then(|now| operation.next_change(&now, self.me)) else {
            return;
        };
        let (id, shard, step) = (operation.id, operation.shard, operation.step);
        match self.change(&replica, change).await {
            Ok(()) => tracing::info!(operation = id, shard, %step, "changed the members of a group"),
            Err(error) => {
                tracing::debug!(operation = id, shard, %step, %error, "the members of a group were not changed");
            }
        }
    }

    async fn change(&self, replica: &Replica, change: MemberChange) -> Result<(), NodeError> {
        let deadline = || self.env.deadline(CHANGE_WITHIN);
        match change {
            MemberChange::Members(GroupMembers { voters, learners }) => {
                let ids = |nodes: Vec<u64>| nodes.into_iter().map(NodeId).collect();
                replica.change_members(Members { voters: ids(voters), learners: ids(learners) }, deadline()).await
            }
            MemberChange::HandOver(others) => {
                let mut handed = Ok(());
                for other in others {
                    handed = replica.hand_over(NodeId(other), deadline()).await;
                    if handed.is_ok() {
                        break;
                    }
                }
                handed
            }
        }
    }
}
