//! Has replicas and leaders where they should be: proposes, and asks for, what the scheduler says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use sagitta_cluster::schedule::{Handover, View, handovers, merge_steps, next_merge_deadline, split_steps};
use sagitta_cluster::{Command, State, Told, plan};
use sagitta_env::Deadline;

use crate::client::{NodeClient, ShardRef};
use crate::reports::SILENT;
use crate::{Coordinator, Error, Reports};

/// How long leaders may take to hand over. What they have not by then is looked at again, and meanwhile nothing else is looked after.
const HAND_OVER_WITHIN: Duration = Duration::from_millis(500);

impl<C: NodeClient> Coordinator<C> {
    /// Decides what is to be done about replicas now. Nothing is kept from one look to the next.
    pub(crate) async fn keep_replicas(&self, since: Duration, deadline: Deadline) -> Result<(), Error> {
        let state = self.control.state();
        let plan = plan(&state, &self.told(&state, since), &self.limits, self.env.unix_micros());
        for (shard, why) in plan.waiting {
            tracing::debug!(shard, why, "a shard needs a replica elsewhere, and nothing can be begun");
        }
        for command in plan.commands {
            match &command {
                Command::BeginOperation { kind, shard, from, to, reason, .. } => {
                    tracing::info!(%kind, shard, from, to, reason, "beginning an operation");
                }
                Command::AdvanceOperation { id, from, to, .. } => {
                    tracing::info!(operation = id, before = %from, now = %to, "an operation goes on");
                }
                Command::BeginSplit { shard, at, reason, .. } => {
                    tracing::info!(shard, at, reason, "beginning to split a shard");
                }
                Command::BeginMerge { left, right, reason, .. } => {
                    tracing::info!(left, right, reason, "beginning to merge shards");
                }
                Command::EndRecovery { shard, .. } => {
                    tracing::warn!(shard, "a shard that had lost its majority goes on with one replica");
                }
                _ => {}
            }
            self.note(command, deadline).await?;
        }
        Ok(())
    }

    /// Decides which splits and merges are a step further.
    pub(super) async fn keep_splits(&self, since: Duration, deadline: Deadline) -> Result<(), Error> {
        for command in self.split_steps(since) {
            match &command {
                Command::AdvanceSplit { id, from, to, .. } => {
                    tracing::info!(split = id, before = %from, now = %to, "a split goes on");
                }
                Command::AdvanceMerge { id, from, to, .. } => {
                    tracing::info!(merge = id, before = %from, now = %to, "a merge goes on");
                }
                _ => {}
            }
            self.note(command, deadline).await?;
        }
        Ok(())
    }

    /// Waits until nodes have told what brings a split or a merge a step further, or it is time to give a merge up, if this coordinator
    /// leads since then.
    pub(super) async fn a_split_goes_on(&self, since: Option<Duration>) {
        let Some(since) = since else { return std::future::pending().await };
        let told = self.reports.find(|_| (!self.split_steps(since).is_empty()).then_some(()));
        match next_merge_deadline(&self.control.state(), self.env.unix_micros()) {
            Some(left) => drop(self.env.timeout(left, told).await),
            None => told.await,
        }
    }

    fn split_steps(&self, since: Duration) -> Vec<Command> {
        let state = self.control.state();
        let under_way = state.splits_under_way();
        let mut nodes: BTreeSet<u64> = under_way.flat_map(|split| split.right.replicas.iter().copied()).collect();
        for merge in state.merges_under_way() {
            let merged = [merge.left, merge.right].into_iter().filter_map(|shard| Some(state.shard(shard).ok()?.1));
            nodes.extend(merged.chain([&merge.into]).flat_map(|shard| shard.replicas.iter().copied()));
        }
        if nodes.is_empty() {
            return Vec::new();
        }
        let told = told(nodes, &self.reports, self.env.now(), since);
        let (view, now) = (View::new(&told), self.env.unix_micros());
        [split_steps(&state, &view, now), merge_steps(&state, &view, now)].concat()
    }

    /// Has leaders hand over, so that nodes lead alike.
    pub(super) async fn keep_leaders(&self, since: Duration) {
        let state = self.control.state();
        let leads_for = |shard| self.reports.leads_for(shard);
        let handovers = handovers(&state, &self.told(&state, since), &self.limits, leads_for);
        join_all(handovers.into_iter().map(|handover| self.have_handed_over(handover))).await;
    }

    async fn have_handed_over(&self, Handover { shard, epoch, from, to, reason }: Handover) {
        let deadline = self.env.deadline(HAND_OVER_WITHIN);
        // Whatever points it has.
        let led = ShardRef { shard, epoch, split: 0 };
        let handed = self.env.until(deadline, self.nodes.hand_over(from, led, to, deadline));
        match handed.await {
            Ok(Ok(())) => {
                tracing::info!(shard, from, to, reason, "another replica leads");
                self.reports.note_leader(shard, to);
            }
            Ok(Err(error)) => tracing::debug!(shard, from, to, error = error.message, "a leader did not hand over"),
            Err(_) => tracing::debug!(shard, from, to, "a leader did not hand over in time"),
        }
    }
}

impl<C> Coordinator<C> {
    /// What nodes told, for the scheduler. Silence counts while this coordinator has listened, from `since` on.
    pub(crate) fn told(&self, state: &State, since: Duration) -> BTreeMap<u64, Told> {
        told(state.nodes().keys().copied(), &self.reports, self.env.now(), since)
    }
}

pub(super) fn told(
    nodes: impl IntoIterator<Item = u64>,
    reports: &Reports,
    now: Duration,
    since: Duration,
) -> BTreeMap<u64, Told> {
    let told = nodes.into_iter().map(|node| {
        let heard = reports.of(node);
        let at = heard.as_ref().map_or(since, |heard| heard.at.max(since));
        let report = heard.filter(|heard| now.saturating_sub(heard.at) < SILENT).map(|heard| heard.report);
        (node, Told { report, silence: now.saturating_sub(at) })
    });
    told.collect()
}
