//! Makes the members of the groups that this node leads those that operations ask for, has shards split, which the others prepare, and freezes and
//! thaws those that are merged.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all};
use sagitta_cluster::{GroupMembers, MemberChange, Merge, MergeStep, Operation, Split, SplitStep, State};
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
/// How long it may take to freeze a shard or to thaw it: whether it should be frozen may be decided anew in as short a time.
const FREEZE_WITHIN: Duration = Duration::from_millis(500);

/// Follows the operations. It does what a step asks for and nothing else, so it may do it again, and so may another leader.
pub(crate) struct Steward {
    env: Env,
    me: u64,
    node: Arc<Node>,
    /// Why splits that are under way did not come about when that was tried last.
    failed: Mutex<BTreeMap<u64, Discriminant<NodeError>>>,
}

impl Steward {
    pub(crate) fn new(env: Env, me: u64, node: Arc<Node>) -> Self {
        Self { env, me, node, failed: Mutex::default() }
    }

    /// Follows the states until nobody sends any more. What is frozen answers nobody, so nothing else holds that up.
    pub(crate) async fn run(self, states: watch::Receiver<Option<Seen>>) {
        join(self.change_all(states.clone()), self.close_all(states)).await;
    }

    async fn change_all(&self, mut states: watch::Receiver<Option<Seen>>) {
        let mut wait = Some(Duration::ZERO);
        while next_state(&self.env, &mut states, wait).await {
            let seen = states.borrow_and_update().clone();
            let is_busy = match seen {
                Some(seen) => self.look(&seen.state).await,
                None => false,
            };
            wait = is_busy.then_some(LOOK_EVERY);
        }
    }

    async fn close_all(&self, mut states: watch::Receiver<Option<Seen>>) {
        let mut wait = Some(Duration::ZERO);
        while next_state(&self.env, &mut states, wait).await {
            let seen = states.borrow_and_update().clone();
            let is_busy = match seen {
                Some(seen) => self.look_at_merges(&seen.state).await,
                None => false,
            };
            wait = is_busy.then_some(LOOK_EVERY);
        }
    }

    /// Whether there is something to be looked at again, but for merges.
    pub(crate) async fn look(&self, state: &State) -> bool {
        let here = state.operations_under_way().filter_map(|operation| {
            let replica = self.node.replica(operation.shard).ok()?;
            Some(self.advance(operation, replica))
        });
        let here: Vec<_> = here.collect();
        let halves = state.splits().filter(|split| matches!(split.step, SplitStep::Prepare | SplitStep::Divide));
        let halves = halves.filter_map(|split| Some(self.divide(split, self.node.replica(split.shard).ok()?)));
        let halves: Vec<_> = halves.collect();
        self.forget_all_but(state);
        let busy = !here.is_empty() || !halves.is_empty();
        join(join_all(here), join_all(halves)).await;
        busy
    }

    /// Whether a shard is to be frozen or thawed that may be led here.
    pub(crate) async fn look_at_merges(&self, state: &State) -> bool {
        let merged = state.merges().flat_map(|merge| [merge.left, merge.right].map(|shard| (merge, shard)));
        let merged = merged.filter_map(|(merge, shard)| {
            let replica = self.node.replica(shard).ok()?;
            let is_left = match merge.step {
                MergeStep::Freeze | MergeStep::Thaw => true,
                // What told that it was thawed may have been lost for ever since, with the entry that says so.
                MergeStep::Cancelled => replica.frozen_by().is_some_and(|frozen| frozen.merge == merge.id),
                MergeStep::Prepare | MergeStep::Copy | MergeStep::Done => false,
            };
            if !is_left {
                return None;
            }
            Some(self.close(merge, shard, replica))
        });
        let merged: Vec<_> = merged.collect();
        let busy = !merged.is_empty();
        join_all(merged).await;
        busy
    }

    /// Freezes a shard that is merged, or thaws it, if it is led here.
    async fn close(&self, merge: &Merge, shard: u64, replica: Arc<Replica>) {
        let (id, freezes) = (merge.id, merge.step == MergeStep::Freeze);
        let is_so = match freezes {
            true => replica.frozen_by().is_some_and(|frozen| frozen.merge == id),
            false => replica.thawed() >= id,
        };
        if is_so || replica.status().role != Role::Leader {
            return;
        }
        let deadline = self.env.deadline(FREEZE_WITHIN);
        let done = if freezes { replica.freeze(id, deadline).await } else { replica.thaw(id, deadline).await };
        match done {
            Ok(()) if freezes => tracing::info!(merge = id, shard, "froze a shard"),
            Ok(()) => tracing::info!(merge = id, shard, "thawed a shard"),
            Err(error) => tracing::debug!(merge = id, shard, %error, "a shard was neither frozen nor thawed"),
        }
    }

    /// Prepares a split, and has the shard split if it is led here, unless it was.
    async fn divide(&self, split: &Split, replica: Arc<Replica>) {
        let (id, shard, right) = (split.id, split.shard, split.right.id);
        if replica.is_split_from(right) {
            return;
        }
        let done = match split.step == SplitStep::Divide && replica.status().role == Role::Leader {
            true => {
                replica.split(split.request_id(), split.at, right, self.env.deadline(CHANGE_WITHIN)).await.map(Some)
            }
            false if replica.is_prepared(split.at) => return,
            false => replica.prepare_split(split.at).await.map(|()| None),
        };
        match done {
            Ok(Some(at)) => tracing::info!(split = id, shard, right, %at, "split a shard"),
            Ok(None) => tracing::debug!(split = id, shard, right, "prepared the split of a shard"),
            Err(error) if self.is_news(id, &error) => {
                tracing::warn!(split = id, shard, right, %error, "a shard is not split, which is tried again");
            }
            Err(error) => tracing::debug!(split = id, shard, right, %error, "a shard was not split"),
        }
    }

    /// Whether it is worth a warning that a split did not come about: once for each kind of reason, and not for what passes by itself.
    fn is_news(&self, split: u64, error: &NodeError) -> bool {
        if matches!(error, NodeError::NotLeader { .. } | NodeError::Unknown(_) | NodeError::DeadlinePassed) {
            return false;
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.insert(split, discriminant(error)) != Some(discriminant(error))
    }

    /// Lets go of what there is of splits and merges that are over.
    fn forget_all_but(&self, state: &State) {
        let under_way = state.splits_under_way();
        let (splits, shards): (BTreeSet<_>, BTreeSet<_>) = under_way.map(|split| (split.id, split.shard)).unzip();
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).retain(|split, _| splits.contains(split));
        for (_, replica) in self.node.replicas().into_iter().filter(|(shard, _)| !shards.contains(shard)) {
            replica.forget_split();
        }
        let merged: BTreeSet<u64> = state.merges_under_way().flat_map(|merge| [merge.left, merge.right]).collect();
        for (_, replica) in self.node.replicas().into_iter().filter(|(shard, _)| !merged.contains(shard)) {
            replica.unwatch();
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

/// Waits for another state, at most so long if that is said; false once nobody sends any more.
pub(crate) async fn next_state(
    env: &Env,
    states: &mut watch::Receiver<Option<Seen>>,
    at_most: Option<Duration>,
) -> bool {
    match at_most {
        Some(at_most) => match env.timeout(at_most, states.changed()).await {
            Ok(changed) => changed.is_ok(),
            Err(_) => states.has_changed().is_ok(),
        },
        None => states.changed().await.is_ok(),
    }
}

#[cfg(test)]
mod tests;
