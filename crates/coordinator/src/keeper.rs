//! What the leader of the control group does unasked: notes which nodes are there, makes coordinators vote, and has replicas and leaders where they should be.

mod replicas;

use std::time::Duration;

use sagitta_cluster::schedule::LOST_AFTER;
use sagitta_cluster::{Command, Node, NodeStatus, State};
use sagitta_consensus::{HandoverOutcome, Members, Membership, NodeId, Outcome, Role};
use sagitta_env::Deadline;

use crate::client::NodeClient;
use crate::{Coordinator, Error};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often it looks at splits, while nodes tell of them: a shard that was split answers nobody until the new one is routed to.
const LOOK_AT_SPLITS_EVERY: Duration = Duration::from_millis(20);
/// How often it looks whether replicas are where they should be: it looks at every shard, and nodes report once a second.
const LOOK_AT_REPLICAS_EVERY: Duration = Duration::from_secs(1);
/// How long one decision may take; what was not decided is looked at again.
const DECIDE_WITHIN: Duration = Duration::from_secs(5);
/// Coordinators that vote at most. More make decisions slower, and no safer.
const MAX_VOTERS: usize = 5;
/// Fewer withstand no loss.
const MIN_VOTERS: usize = 3;
/// How long one voter may take to take over from this one.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

impl<C: NodeClient> Coordinator<C> {
    /// Looks again and again, for ever; acts while this coordinator leads.
    pub async fn keep(&self) {
        let mut leads_since = None;
        let mut replicas_at = Duration::ZERO;
        loop {
            // What nodes tell comes in bursts.
            self.env.sleep(LOOK_AT_SPLITS_EVERY).await;
            let (wait, since) = (LOOK_EVERY.saturating_sub(LOOK_AT_SPLITS_EVERY), leads_since);
            let _ = self.env.timeout(wait, self.a_split_goes_on(since)).await;
            if self.control.group().status().role != Role::Leader {
                leads_since = None;
                continue;
            }
            let since = *leads_since.get_or_insert(self.env.now());
            let deadline = self.env.deadline(DECIDE_WITHIN);
            if let Err(error) = self.keep_once(since, deadline).await {
                tracing::debug!(%error, "the cluster could not be looked after; trying again");
            }
            if let Err(error) = self.keep_splits(since, self.env.deadline(DECIDE_WITHIN)).await {
                tracing::debug!(%error, "a split could not go on; trying again");
            }
            if self.env.now() >= replicas_at {
                replicas_at = self.env.now() + LOOK_AT_REPLICAS_EVERY;
                if let Err(error) = self.keep_replicas(since, self.env.deadline(DECIDE_WITHIN)).await {
                    tracing::debug!(%error, "the replicas could not be looked after; trying again");
                }
                // Another one may have decided otherwise since; and while shards are frozen nothing is waited for that is less urgent.
                if self.control.group().status().role == Role::Leader && !self.control.state().is_any_frozen() {
                    self.keep_leaders(since).await;
                }
            }
        }
    }

    async fn keep_once(&self, since: Duration, deadline: Deadline) -> Result<(), Error> {
        let state = self.control.state();
        for node in state.nodes().values() {
            if let Some(status) = self.status_of(node, since) {
                tracing::info!(node = node.id, before = %node.status, now = %status, "a node's status changed");
                self.note(Command::SetNodeStatus { id: node.id, status }, deadline).await?;
            }
        }
        for (name, leaving) in state.leaving() {
            if self.awaited(leaving).is_empty() {
                let (name, deletion) = (name.clone(), leaving.deletion);
                self.note(Command::FreeName { name, deletion }, deadline).await?;
            }
        }
        let status = self.control.group().status();
        if status.membership.is_joint() {
            return Ok(());
        }
        let mut voters: Vec<u64> = status.membership.voters.iter().map(|voter| voter.0).collect();
        voters.sort_unstable();
        if state.voters() != voters && voters.iter().all(|voter| state.nodes().contains_key(voter)) {
            self.note(Command::SetVoters { voters }, deadline).await?;
        }
        let peers = self.control.group().peers().await.map_err(crate::ControlError::from)?;
        let caught_up = |node: NodeId| peers.iter().any(|peer| peer.node == node && peer.heard && peer.matched > 0);
        let Some(members) = wanted_members(&state, &status.membership, caught_up) else { return Ok(()) };
        if let Some(me) = status.leader.filter(|me| !members.voters.contains(me)) {
            return self.hand_over(me, &members, deadline).await;
        }
        tracing::info!(voters = ?members.voters, learners = ?members.learners, "changing the control group");
        match self.control.group().change_members(members, deadline.at()).await {
            Outcome::Applied(_) => {}
            // A learner that lags, a voter that is silent for a moment: looked at again soon.
            other => tracing::debug!(?other, "the control group was not changed"),
        }
        Ok(())
    }

    /// Has another voter lead before this one leaves, which will see to the rest.
    async fn hand_over(&self, me: NodeId, members: &Members, deadline: Deadline) -> Result<(), Error> {
        for to in &members.voters {
            let deadline = self.env.deadline(LEAVE_WITHIN).at().min(deadline.at());
            match self.control.group().hand_over(*to, deadline).await {
                HandoverOutcome::Done => {
                    tracing::info!(node = me.0, to = to.0, "handed the control group over, to leave it");
                    return Ok(());
                }
                // One that has just come up or lags.
                other => tracing::debug!(to = to.0, ?other, "the control group was not handed over"),
            }
        }
        Ok(())
    }

    /// Decides something. One that is refused, since the state has changed or knows better, keeps nothing else from being decided.
    async fn note(&self, command: Command, deadline: Deadline) -> Result<(), Error> {
        match self.decide(command, deadline).await {
            Ok(_) => Ok(()),
            Err(Error::Refused(refusal)) => {
                tracing::debug!(%refusal, "a decision of the keeper was refused");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The status that a node should have, if it is another one than it has.
    fn status_of(&self, node: &Node, since: Duration) -> Option<NodeStatus> {
        let heard = self.reports.of(node.id).map(|heard| heard.at);
        let silent = self.env.now().saturating_sub(heard.unwrap_or(since).max(since)) >= LOST_AFTER;
        match node.status {
            NodeStatus::Joining | NodeStatus::Lost if heard.is_some() && !silent => Some(NodeStatus::Up),
            NodeStatus::Joining | NodeStatus::Up if silent => Some(NodeStatus::Lost),
            _ => None,
        }
    }
}

/// The members that the control group should have next, if they are others than it has.
///
/// Coordinators become learners as they come. They become voters in pairs, so that the number of voters stays odd: an even number
/// withstands no more losses than the odd one below it. One that has caught up takes the place of a lost one at once, and else of one
/// that is being drained. A lost one stays until then, for it may come back; one that is drained stays only where three vote, for two
/// would withstand no loss: of five it leaves with another one, which receives from then on and does not count.
fn wanted_members(state: &State, now: &Membership, caught_up: impl Fn(NodeId) -> bool) -> Option<Members> {
    let status = |node: &NodeId| state.nodes().get(&node.0).map_or(NodeStatus::Removed, |node| node.status);
    let mut members = now.members();
    // A learner decides nothing, so a lost one is let go, and taken in again should it come back.
    members.learners.retain(|node| matches!(status(node), NodeStatus::Joining | NodeStatus::Up));
    let present = state.nodes().values().filter(|node| node.place.roles.coordinator && node.status == NodeStatus::Up);
    for node in present.map(|node| NodeId(node.id)) {
        if !now.contains(node) && members.learners.len() < MAX_VOTERS {
            members.learners.push(node);
        }
    }
    let ready: Vec<NodeId> = now.learners.iter().copied().filter(|node| caught_up(*node)).collect();
    let mut ready = ready.into_iter().filter(|node| status(node) == NodeStatus::Up);
    let promote = |members: &mut Members, node: NodeId| {
        members.learners.retain(|learner| *learner != node);
        members.voters.push(node);
    };
    let gone = |node: &NodeId| matches!(status(node), NodeStatus::Lost | NodeStatus::Removed);
    let drained = |node: &NodeId| matches!(status(node), NodeStatus::Draining | NodeStatus::Drained);
    let has_to_go = |found: &dyn Fn(&NodeId) -> bool| now.voters.iter().copied().find(|voter| found(voter));
    if let Some(leaving) = has_to_go(&gone).or_else(|| has_to_go(&drained)) {
        if let Some(node) = ready.next() {
            members.voters.retain(|voter| *voter != leaving);
            promote(&mut members, node);
        } else if let Some(first) = has_to_go(&drained)
            && now.voters.len() > MIN_VOTERS
        {
            let others = || now.voters.iter().copied().filter(move |voter| *voter != first);
            let second = others().find(gone).or_else(|| others().find(drained)).or_else(|| others().next_back());
            members.voters.retain(|voter| *voter != first && Some(*voter) != second);
            members.learners.extend(second.filter(|second| status(second) == NodeStatus::Up));
        }
    } else if now.voters.len() + 2 <= MAX_VOTERS
        && let (Some(one), Some(other)) = (ready.next(), ready.next())
    {
        promote(&mut members, one);
        promote(&mut members, other);
    }
    (members != now.members()).then_some(members)
}

/// What becomes of the vote of a coordinator that is to be drained, in words; nothing of a node that has none. Those who vote at the moment
/// are noted in the state a little later.
pub(crate) fn vote_when_drained(state: &State, voters: &[NodeId], id: u64) -> Option<String> {
    voters.contains(&NodeId(id)).then_some(())?;
    let can_vote = |node: &&Node| node.place.roles.coordinator && node.status == NodeStatus::Up;
    let others = state.nodes().values().map(|node| &**node).filter(can_vote);
    let mut others = others.filter(|node| node.id != id && !voters.contains(&NodeId(node.id))).peekable();
    Some(match others.peek() {
        Some(_) => {
            let others: Vec<_> = others.map(|node| node.id.to_string()).collect();
            format!("its vote in the control group goes to node {}", others.join(" or "))
        }
        None if voters.len() > MIN_VOTERS => {
            "it leaves the control group, and another voter with it, so that their number stays odd".to_owned()
        }
        None => "it votes in the control group, and no other coordinator is there to do so: start one, or it cannot be removed".to_owned(),
    })
}

#[cfg(test)]
mod tests;
