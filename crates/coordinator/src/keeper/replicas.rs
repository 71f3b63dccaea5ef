//! Has replicas and leaders where they should be: proposes, and asks for, what the scheduler says.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use sagitta_cluster::schedule::{Handover, handovers};
use sagitta_cluster::{Command, State, Told, plan};
use sagitta_env::Deadline;

use crate::client::{NodeClient, ShardRef};
use crate::reports::SILENT;
use crate::{Coordinator, Error, Reports};

/// How long leaders may take to hand over. What they have not by then is looked at again, and meanwhile nothing else is looked after.
const HAND_OVER_WITHIN: Duration = Duration::from_millis(500);

impl<C: NodeClient> Coordinator<C> {
    /// Decides what is to be done about replicas now. Nothing is kept from one look to the next.
    pub(super) async fn keep_replicas(&self, since: Duration, deadline: Deadline) -> Result<(), Error> {
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
                _ => {}
            }
            self.note(command, deadline).await?;
        }
        Ok(())
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
        told(state, &self.reports, self.env.now(), since)
    }
}

pub(super) fn told(state: &State, reports: &Reports, now: Duration, since: Duration) -> BTreeMap<u64, Told> {
    let told = state.nodes().keys().map(|node| {
        let heard = reports.of(*node);
        let at = heard.as_ref().map_or(since, |heard| heard.at.max(since));
        let report = heard.filter(|heard| now.saturating_sub(heard.at) < SILENT).map(|heard| heard.report);
        (*node, Told { report, silence: now.saturating_sub(at) })
    });
    told.collect()
}
