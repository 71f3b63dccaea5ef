//! What operators make of nodes, and what they are told of operations.

use std::time::Duration;

use sagitta_cluster::schedule::{self, ByHand};
use sagitta_cluster::{
    Command, Effect, Floor, Limits, Merge, MergeStep, NodeStatus, Operation, Refusal, Split, SplitStep, State, plan,
};
use sagitta_env::Deadline;
use sagitta_model::{CollectionName, ErrorKind, NodeChange, NodeInfo, OperationInfo, Work};

use crate::client::{NodeClient, ShardError};
use crate::cluster::view::View;
use crate::keeper::vote_when_drained;
use crate::{Coordinator, Error};

/// Lines about what follows that are told at most.
const MAX_LINES: usize = 1_000;

impl<C> Coordinator<C> {
    /// The first `limit` operations after an id, in the order of their ids, and whether there are more.
    pub fn operation_infos(&self, after: Option<u64>, limit: usize) -> (Vec<OperationInfo>, bool) {
        let state = self.control.state();
        let told = self.told(&state, Duration::ZERO);
        let view = schedule::View::new(&told);
        // Those of either kind are numbered together, and a hundred of each are known.
        let is_later = |id: u64| after.is_none_or(|after| id > after);
        let operations = state.operations().filter(|one| is_later(one.id)).map(|one| info(&state, &view, one));
        let splits = state.splits().filter(|one| is_later(one.id)).map(|one| split_info(&state, &view, one));
        let now = self.env.unix_micros();
        let merges = state.merges().filter(|one| is_later(one.id)).map(|one| merge_info(&state, &view, one, now));
        let infos = operations.take(limit + 1).chain(splits.take(limit + 1)).chain(merges.take(limit + 1));
        let mut infos: Vec<_> = infos.collect();
        infos.sort_by_key(|one| one.id);
        let more = infos.len() > limit;
        infos.truncate(limit);
        (infos, more)
    }

    /// One operation.
    pub fn operation_info(&self, id: u64) -> Result<OperationInfo, Error> {
        let state = self.control.state();
        let told = self.told(&state, Duration::ZERO);
        let view = schedule::View::new(&told);
        match (state.split(id), state.merge(id)) {
            (Ok(split), _) => Ok(split_info(&state, &view, split)),
            (_, Ok(merge)) => Ok(merge_info(&state, &view, merge, self.env.unix_micros())),
            _ => Ok(info(&state, &view, state.operation(id)?)),
        }
    }

    /// What would be done about replicas, without limits on how much at once, in words.
    fn follows(&self, before: &State, state: &State) -> Vec<String> {
        let told = self.told(state, Duration::ZERO);
        let (at_once, per_node, balance_at_once, balance_per_node) = (usize::MAX, usize::MAX, MAX_LINES, usize::MAX);
        let limits = Limits { at_once, per_node, balance_at_once, balance_per_node, ..self.limits };
        let now = self.env.unix_micros();
        let all = |state: &State| plan(state, &told, &limits, now);
        let (known, then) = (all(before), all(state));
        let name = |shard: u64| state.shard(shard).map_or(String::new(), |(owner, _)| format!(" of {}", owner.name));
        let new = then.commands.iter().filter(|command| !known.commands.contains(command));
        let begun = new.filter_map(|command| match command {
            Command::BeginOperation { kind, shard, from, to, reason, .. } => {
                let from = from.map_or(String::new(), |from| format!("from node {from} "));
                Some(format!("{kind} shard {shard}{}: {from}to node {to}: {reason}", name(*shard)))
            }
            _ => None,
        });
        let waiting = then.waiting.iter().filter(|waits| !known.waiting.contains(waits));
        let waiting = waiting.map(|(shard, why)| format!("shard {shard}{} has to wait: {why}", name(*shard)));
        begun.chain(waiting).take(MAX_LINES).collect()
    }
}

impl<C: NodeClient> Coordinator<C> {
    /// Changes how a node stands to the cluster, or only tells what would follow. Answers with the node and what follows, in words.
    pub async fn change_node(
        &self,
        id: u64,
        change: NodeChange,
        dry_run: bool,
        deadline: Deadline,
    ) -> Result<(NodeInfo, Vec<String>), Error> {
        self.catch_up(deadline).await?;
        let before = self.control.state();
        let command = match change {
            NodeChange::GiveUp => Command::GiveUpNode { id },
            change => Command::SetNodeStatus { id, status: wanted(&before, id, change)? },
        };
        let mut then = State::clone(&before);
        then.apply(command.clone())?;
        let mut follows = self.follows(&before, &then);
        if matches!(command, Command::SetNodeStatus { status: NodeStatus::Draining, .. }) {
            let voters = self.control.group().status().membership.voters;
            follows.extend(vote_when_drained(&before, &voters, id));
        }
        if change == NodeChange::GiveUp {
            follows.extend(without_majority(&then, id).take(MAX_LINES.saturating_sub(follows.len())));
        }
        if !dry_run {
            self.decide(command, deadline).await?;
            then = State::clone(&self.control.state());
        }
        let view = View::new(then.into(), &self.reports, self.env.now());
        let node = view.state.nodes().get(&id).ok_or(Refusal::NoNode(id))?;
        Ok((view.node(node), follows))
    }

    /// Moves a replica of a shard to another node, or only tells whether it could be. Answers with the operation that does it, and what
    /// there is to say about it.
    pub async fn move_replica(
        &self,
        asked: ByHand,
        dry_run: bool,
        deadline: Deadline,
    ) -> Result<(Option<OperationInfo>, Vec<String>), Error> {
        self.catch_up(deadline).await?;
        let (state, shard) = (self.control.state(), asked.shard);
        // The first answer was lost.
        if let Some(known) = state.operation_on(shard).filter(|known| asked.is(known)) {
            return Ok((Some(self.operation_info(known.id)?), Vec::new()));
        }
        let told = self.told(&state, Duration::ZERO);
        let begun = schedule::move_by_hand(&state, &told, &self.limits, asked, self.env.unix_micros());
        let (command, notes) = begun.map_err(|refused| why_not(shard, refused))?;
        if dry_run {
            return Ok((None, notes));
        }
        match self.decide(command, deadline).await? {
            Effect::Operation(begun) => Ok((Some(self.operation_info(begun.id)?), notes)),
            other => Err(unexpected(shard, &other)),
        }
    }

    /// Splits a shard in two, or only tells whether it could be. `epoch` is that of the placement that the caller has seen. Answers with
    /// the operation that does it, and what there is to say about it.
    pub async fn split_shard(
        &self,
        shard: u64,
        epoch: u64,
        dry_run: bool,
        deadline: Deadline,
    ) -> Result<(Option<OperationInfo>, Vec<String>), Error> {
        self.catch_up(deadline).await?;
        let state = self.control.state();
        // The first answer was lost.
        if let Some(known) = state.split_as_of(shard, epoch) {
            return Ok((Some(self.operation_info(known.id)?), Vec::new()));
        }
        let told = self.told(&state, Duration::ZERO);
        let begun = schedule::split_by_hand(&state, &told, &self.limits, (shard, epoch), self.env.unix_micros());
        let (command, notes) = begun.map_err(|refused| why_not(shard, refused))?;
        if dry_run {
            return Ok((None, notes));
        }
        match self.decide(command, deadline).await? {
            Effect::Split(begun) => Ok((Some(self.operation_info(begun.id)?), notes)),
            other => Err(unexpected(shard, &other)),
        }
    }

    /// Has a shard that has lost its majority for ever go on with what is left, or only tells what that is. `epoch` is that of the placement
    /// that the caller has seen. Answers with the node whose replica goes on, and what may be lost, in words.
    pub async fn recover_shard(
        &self,
        shard: u64,
        epoch: u64,
        dry_run: bool,
        deadline: Deadline,
    ) -> Result<(u64, Vec<String>), Error> {
        self.catch_up(deadline).await?;
        let state = self.control.state();
        // The first answer was lost.
        if let Some(known) = state.recovery_of(shard).filter(|known| known.epoch == epoch) {
            return Ok((known.survivor, vec![format!("node {} is about to go on with it alone", known.survivor)]));
        }
        let told = self.told(&state, Duration::ZERO);
        let begun = schedule::recover_by_hand(&state, &told, (shard, epoch), self.env.unix_micros());
        let (command, notes) = begun.map_err(|refused| why_not(shard, refused))?;
        let Command::RecoverShard { survivor, .. } = command else { unreachable!("it is no other command") };
        if dry_run {
            return Ok((survivor, notes));
        }
        tracing::error!(shard, survivor, ?notes, "an operator has a shard go on without its majority");
        match self.decide(command, deadline).await? {
            Effect::Recovery(begun) => Ok((begun.survivor, notes)),
            other => Err(unexpected(shard, &other)),
        }
    }

    /// Merges two neighbouring shards into a new one, or only tells whether they could be. Each comes with the epoch of its placement that
    /// the caller has seen. Answers with the operation that does it, and what there is to say about it.
    pub async fn merge_shards(
        &self,
        shards: [(u64, u64); 2],
        dry_run: bool,
        deadline: Deadline,
    ) -> Result<(Option<OperationInfo>, Vec<String>), Error> {
        self.catch_up(deadline).await?;
        let (state, [(left, _), (right, _)]) = (self.control.state(), shards);
        // The first answer was lost.
        if let Some(known) = state.merges().rev().find(|merge| {
            (merge.left, merge.right) == (left, right) && !matches!(merge.step, MergeStep::Thaw | MergeStep::Cancelled)
        }) {
            return Ok((Some(self.operation_info(known.id)?), Vec::new()));
        }
        let told = self.told(&state, Duration::ZERO);
        let begun = schedule::merge_by_hand(&state, &told, &self.limits, shards, self.env.unix_micros());
        let (command, notes) = begun.map_err(|refused| why_not(left, refused))?;
        if dry_run {
            return Ok((None, notes));
        }
        match self.decide(command, deadline).await? {
            Effect::Merge(begun) => Ok((Some(self.operation_info(begun.id)?), notes)),
            other => Err(unexpected(left, &other)),
        }
    }

    /// Wants an operation not to come about, or only tells whether it could be.
    pub async fn cancel_operation(&self, id: u64, dry_run: bool, deadline: Deadline) -> Result<OperationInfo, Error> {
        self.catch_up(deadline).await?;
        let state = self.control.state();
        let command = match state.split(id) {
            Ok(_) => {
                let (from, to, at) = (SplitStep::Prepare, SplitStep::Cancelled, Floor { term: 0, index: 0 });
                Command::AdvanceSplit { id, from, to, at, unix_micros: self.env.unix_micros() }
            }
            Err(_) => match state.merge(id) {
                Ok(merge) => {
                    // A step from which it cannot be is refused with what to do.
                    let from = if merge.step == MergeStep::Copy { MergeStep::Copy } else { MergeStep::Prepare };
                    let (to, unix_micros) = (MergeStep::Cancelled, self.env.unix_micros());
                    Command::AdvanceMerge { id, from, to, unix_micros }
                }
                Err(_) => Command::CancelOperation { id },
            },
        };
        State::clone(&state).apply(command.clone())?;
        if !dry_run {
            self.decide(command, deadline).await?;
        }
        self.operation_info(id)
    }
}

/// Why something that somebody asked for is not begun: by what is agreed, or for now.
fn why_not(shard: u64, refused: Result<Refusal, String>) -> Error {
    match refused {
        Ok(refusal) => Error::Refused(refusal),
        Err(why) => Error::Shard { shard, error: ShardError::new(ErrorKind::Conflict, why) },
    }
}

fn unexpected(shard: u64, effect: &Effect) -> Error {
    let message = format!("the control group answered what it should not: {effect:?}");
    Error::Shard { shard, error: ShardError::new(ErrorKind::Internal, message) }
}

/// The status that a change asks for. What a node is already is no mistake, but for what it could not have become.
fn wanted(state: &State, id: u64, change: NodeChange) -> Result<NodeStatus, Refusal> {
    let from = state.nodes().get(&id).ok_or(Refusal::NoNode(id))?.status;
    match (change, from) {
        (NodeChange::Drain, NodeStatus::Drained) => Ok(NodeStatus::Drained),
        (NodeChange::Drain, _) => Ok(NodeStatus::Draining),
        // Whether a node is heard of is not for an operator to say.
        (NodeChange::Undrain, NodeStatus::Lost | NodeStatus::Joining) => {
            Err(Refusal::Transition { node: id, from, to: NodeStatus::Up })
        }
        (NodeChange::Undrain, _) => Ok(NodeStatus::Up),
        (NodeChange::Remove | NodeChange::GiveUp, _) => Ok(NodeStatus::Removed),
    }
}

/// What is to be done about the shards that have lost their majority with a node, in words.
fn without_majority(state: &State, node: u64) -> impl Iterator<Item = String> {
    let held = state.shards().filter(move |(_, shard)| shard.replicas.contains(&node));
    held.filter_map(move |(owner, shard)| {
        let what = schedule::way_out(state, shard, owner.name.as_str())?;
        Some(format!("shard {} of {}: {what}", shard.id, owner.name))
    })
}

fn info(state: &State, told: &schedule::View<'_>, operation: &Operation) -> OperationInfo {
    let Operation { kind, from, to, step, .. } = *operation;
    OperationInfo {
        id: operation.id,
        work: Work::Replica { kind, from, to, step },
        collection: owner(state, operation.shard),
        shard: operation.shard,
        reason: operation.reason.clone(),
        waits_for: schedule::waits_for(state, told, operation),
        cancelled: operation.cancelled,
        begun_unix_micros: operation.begun_unix_micros,
        ended_unix_micros: operation.ended_unix_micros,
    }
}

fn split_info(state: &State, told: &schedule::View<'_>, split: &Split) -> OperationInfo {
    OperationInfo {
        id: split.id,
        work: Work::Split { right: split.right.id, at: split.at, step: split.step },
        collection: owner(state, split.shard),
        shard: split.shard,
        reason: split.reason.clone(),
        waits_for: schedule::split_waits_for(state, told, split),
        cancelled: split.step == SplitStep::Cancelled,
        begun_unix_micros: split.begun_unix_micros,
        ended_unix_micros: split.ended_unix_micros,
    }
}

fn merge_info(state: &State, told: &schedule::View<'_>, merge: &Merge, unix_micros: u64) -> OperationInfo {
    OperationInfo {
        id: merge.id,
        work: Work::Merge { right: merge.right, into: merge.into.id, step: merge.step },
        collection: owner(state, merge.left).or_else(|| owner(state, merge.into.id)),
        shard: merge.left,
        reason: merge.reason.clone(),
        waits_for: schedule::merge_waits_for(state, told, merge, unix_micros),
        cancelled: matches!(merge.step, MergeStep::Thaw | MergeStep::Cancelled),
        begun_unix_micros: merge.begun_unix_micros,
        ended_unix_micros: merge.ended_unix_micros,
    }
}

fn owner(state: &State, shard: u64) -> Option<CollectionName> {
    state.shard(shard).ok().map(|(owner, _)| owner.name.clone())
}
