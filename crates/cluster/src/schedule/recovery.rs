//! Which replica a shard goes on with that has lost its majority for ever, and when that is done. Somebody has to ask for it: what only the
//! lost ones had is lost, and whether they are is not for a program to say.

use std::collections::{BTreeMap, BTreeSet};

use super::{Told, View};
use crate::collection::{Floor, ShardDescriptor};
use crate::command::Command;
use crate::node::NodeStatus;
use crate::outcome::Refusal;
use crate::recovery::SKIPPED_TERMS;
use crate::report::ReplicaReport;
use crate::state::State;

/// The command that has a shard go on with the replica that is left of it, and what there is to say about it, above all what may be lost.
/// `epoch` is that of the placement that whoever asks has seen.
///
/// Refused unless so many members are removed for ever that the others cannot decide; and until every coordinator, and every node whose
/// replica could go on, has followed that. From then on none of them asks or hears the lost ones, wherever those should turn up, so nothing
/// can be acknowledged by them any more.
///
/// # Errors
/// What is wrong with it by what is agreed, or else why it cannot be done now, in words.
pub fn recover_by_hand(
    state: &State,
    told: &BTreeMap<u64, Told>,
    (id, epoch): (u64, u64),
    unix_micros: u64,
) -> Result<(Command, Vec<String>), Result<Refusal, String>> {
    let (collection, shard) = state.shard(id).map_err(Ok)?;
    let view = View::new(told);
    let (living, lost) = (state.living(shard), state.lost_members(shard));
    let Some(first) = living.first().copied() else {
        let what =
            "no replica of it is left: what it held is lost, and its collection can only be deleted and loaded anew";
        return Err(Err(format!("{what} ({} had it)", nodes(&lost))));
    };
    let candidates = candidates(&view, &living, id);
    let best = candidates.first().map_or((first, None), |(node, told)| (*node, Some(*told)));
    let (survivor, at) = (best.0, best.1.map_or(Floor { term: 0, index: 0 }, |told| told.last));
    let terms = living.iter().filter_map(|node| view.replica(*node, id)).map(|told| told.term.max(told.last.term));
    let known = state.recovery_of(id).map_or(0, |recovery| recovery.term);
    let term = terms.max().unwrap_or(0).max(known).saturating_add(SKIPPED_TERMS);
    let command = Command::RecoverShard { shard: id, epoch, survivor, term, at, unix_micros };
    // What the state refuses says more than what follows from reports.
    State::clone(state).apply(command.clone()).map_err(Ok)?;
    if let Some((leader, _)) = view.leaders.get(&id).filter(|(leader, _)| living.contains(leader)) {
        return Err(Err(format!(
            "node {leader} leads it, so it has what it needs: look again at `sagitta shard show {id}`"
        )));
    }
    if let Some(silent) = living.iter().find(|node| view.report(**node).is_none()) {
        return Err(Err(format!(
            "node {silent}, which may have a later replica of it, is not heard of: start it; if it is lost for ever, too, \
             `sagitta node remove {silent} --lost-for-ever`"
        )));
    }
    await_all(state, &view, &living, &lost).map_err(Err)?;
    let Some(chosen) = best.1 else {
        return Err(Err(format!(
            "no replica of it works and holds anything, of those on {}: `sagitta shard show {id}` tells more",
            nodes(&living)
        )));
    };
    let left_out: Vec<u64> = living.iter().copied().filter(|node| *node != survivor).collect();
    let broken: Vec<u64> =
        left_out.iter().copied().filter(|node| candidates.iter().all(|one| one.0 != *node)).collect();
    let mut notes = notes((survivor, chosen), (&lost, &left_out, &broken), collection.replication);
    let is_later = |told: &&ReplicaReport| (told.last.term, told.last.index) > (at.term, at.index);
    for node in broken {
        let Some(told) = view.replica(node, id).filter(is_later) else { continue };
        let (Floor { term, index }, problem) = (told.last, told.problem.as_deref().unwrap_or("it holds nothing"));
        notes.insert(
            0,
            format!(
                "the replica on node {node} has a later log, up to entry {index} of term {term}, and does not work ({problem}): mend that first, or what \
                 only it has is lost"
            ),
        );
    }
    if state.operation_on(id).is_some_and(|one| one.to == survivor) {
        notes.insert(0, format!("node {survivor} was being brought its replica, which may lack most of the shard"));
    }
    Ok((command, notes))
}

/// The only entry of a log that nobody has written to: the founding.
const FOUNDING: u64 = 1;

/// Those whose replica works and holds anything, the one with the latest log first: whatever any of them knows to be agreed, that one has
/// as well.
fn candidates<'t>(view: &View<'t>, living: &[u64], shard: u64) -> Vec<(u64, &'t ReplicaReport)> {
    let told = living.iter().filter_map(|node| Some((*node, view.replica(*node, shard)?)));
    let mut candidates: Vec<_> =
        told.filter(|(_, told)| told.problem.is_none() && told.last.index > FOUNDING).collect();
    candidates.sort_by_key(|(node, told)| (std::cmp::Reverse((told.last.term, told.last.index)), *node));
    candidates
}

/// Whether everybody who could bring a request to the lost nodes, or hear them, has followed that they are removed.
fn await_all(state: &State, view: &View<'_>, living: &[u64], lost: &[u64]) -> Result<(), String> {
    let needed = lost.iter().filter_map(|node| state.given_up().get(node)).max().copied().unwrap_or(0);
    let is_there = |status| !matches!(status, NodeStatus::Removed);
    let coordinators = state.nodes().values().filter(|node| node.place.roles.coordinator && is_there(node.status));
    let all: BTreeSet<u64> = coordinators.map(|node| node.id).chain(living.iter().copied()).collect();
    let has_followed = |node: &u64| view.report(*node).is_some_and(|report| report.deletions >= needed);
    let awaited: Vec<u64> = all.into_iter().filter(|node| !has_followed(node)).collect();
    if awaited.is_empty() {
        return Ok(());
    }
    let is_drained = |node: &u64| state.nodes().get(node).is_some_and(|node| node.status == NodeStatus::Drained);
    let (drained, others): (Vec<u64>, Vec<u64>) = awaited.iter().copied().partition(is_drained);
    let commands = drained.iter().map(|node| format!("`sagitta node remove {node}`"));
    let commands = commands.chain(others.iter().map(|node| format!("`sagitta node remove {node} --lost-for-ever`")));
    Err(format!(
        "{} may not know yet what is lost for ever ({}), and could go on writing there: wait until that is heard of, or remove what never comes back \
         by {}",
        nodes(&awaited),
        nodes(lost),
        commands.collect::<Vec<_>>().join(", ")
    ))
}

/// What is kept and what may be lost, in words.
fn notes(
    (survivor, told): (u64, &ReplicaReport),
    (lost, left_out, broken): (&[u64], &[u64], &[u64]),
    replication: u32,
) -> Vec<String> {
    let Floor { term, index } = told.last;
    let mut notes = vec![
        format!(
            "node {survivor} goes on alone: its log is the latest of what is left and ends with entry {index} of term {term}; {} of it are \
             applied, and the rest will be, since it may have been acknowledged",
            told.applied
        ),
        format!(
            "what only {} had is lost, although it may have been acknowledged: writes that had not reached node {survivor}; nobody can tell which",
            nodes(lost)
        ),
    ];
    if !broken.is_empty() {
        notes.push(format!("the replica on {} does not work, and what only it has is lost as well", nodes(broken)));
    }
    if !left_out.is_empty() {
        notes.push(format!("what is on {} is dropped once node {survivor} leads", nodes(left_out)));
    }
    if replication > 1 {
        notes.push(format!(
            "until it has {replication} replicas again, which begins by itself, node {survivor} has the only one"
        ));
    }
    notes
}

/// Nodes in words.
fn nodes(nodes: &[u64]) -> String {
    let ids: Vec<_> = nodes.iter().map(u64::to_string).collect();
    match &ids[..] {
        [id] => format!("node {id}"),
        ids => format!("nodes {}", ids.join(", ")),
    }
}

/// The recoveries that have come about: the survivor leads, and nobody else has a vote.
pub(super) fn ended(state: &State, view: &View<'_>) -> Vec<Command> {
    let ended = state.recoveries().filter(|recovery| {
        let leader = view.leaders.get(&recovery.shard).filter(|(node, _)| *node == recovery.survivor);
        let members = leader.filter(|(_, told)| told.term >= recovery.term).and_then(|(_, told)| told.members.as_ref());
        members.is_some_and(|members| members.voters == [recovery.survivor])
    });
    ended.map(|recovery| Command::EndRecovery { shard: recovery.shard, id: recovery.id }).collect()
}

/// What to do about a shard that nobody leads and that has lost its majority, in words; nothing where it may have it back by itself.
pub fn way_out(state: &State, shard: &ShardDescriptor, collection: &str) -> Option<String> {
    let id = shard.id;
    if let Some(recovery) = state.recovery_of(id) {
        return Some(format!("node {} is about to go on with it alone (recovery {})", recovery.survivor, recovery.id));
    }
    let is = |node: &u64, wanted: NodeStatus| state.nodes().get(node).is_some_and(|node| node.status == wanted);
    let count = |wanted| shard.replicas.iter().filter(|node| is(node, wanted)).count();
    let (lost, removed) = (count(NodeStatus::Lost), count(NodeStatus::Removed));
    if 2 * (shard.replicas.len() - lost - removed) > shard.replicas.len() {
        return None;
    }
    let of = |wanted| shard.replicas.iter().copied().filter(move |node| is(node, wanted)).collect::<Vec<_>>();
    if lost > 0 && 2 * (shard.replicas.len() - removed) > shard.replicas.len() {
        let lost = of(NodeStatus::Lost);
        return Some(format!(
            "it has lost its majority: start {}; only what is lost for ever is given up, by `sagitta node remove NODE --lost-for-ever`, and then \
             `sagitta shard unsafe-recover {collection} {id} --dry-run` tells what is left",
            nodes(&lost)
        ));
    }
    Some(format!(
        "it has lost its majority for ever: `sagitta shard unsafe-recover {collection} {id} --dry-run` tells what is left of it"
    ))
}
