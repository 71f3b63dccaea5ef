//! What a cluster does about its replicas by itself: repairs what is lost, empties what is drained, splits what has grown too large, merges
//! what it has split and has become small, has nodes hold alike. Pure: who leads the control group asks it again and again, and proposes
//! what it says.
//!
//! An operation is decided step by step from what is agreed ([`State`]) and what was told lately ([`Told`]). Nothing is remembered
//! between two looks, so it goes on wherever another leader, or a crash, left it.

mod balance;
mod by_hand;
mod halve;
mod leaders;
mod merges;
mod progress;
mod recovery;
mod splits;
mod target;
mod unite;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::collection::{Collection, Floor, ShardDescriptor};
use crate::command::Command;
use crate::merge::Merge;
use crate::node::NodeStatus;
use crate::operation::{Operation, OperationKind};
use crate::report::{GroupMembers, MergeStage, ReplicaReport, ReplicaRole, Report};
use crate::state::State;

pub use by_hand::{ByHand, move_by_hand};
pub use leaders::{Handover, handovers};
pub use merges::{merge_by_hand, merge_steps, merge_waits_for, next_merge_deadline};
pub use progress::waits_for;
pub use recovery::{recover_by_hand, way_out};
pub use splits::{split_by_hand, split_steps, split_waits_for};

/// Entries that a replica may lack when it is to vote: as many as its group lets pass.
const CAUGHT_UP: u64 = 256;
/// A node that has not been heard of for so long is lost. Longer than a restart takes, so that one causes nothing.
pub const LOST_AFTER: Duration = Duration::from_secs(30);

/// How much is done at once, and how soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A node that was not heard of for so long does not come back soon: its replicas are made anew. Longer than a restart or a
    /// repair of the machine takes, since every replica is copied whole.
    pub repair_after: Duration,
    /// Operations under way in the cluster.
    pub at_once: usize,
    /// Of these, into one node, and out of one node that is there.
    pub per_node: usize,
    /// Of those under way in the cluster, the ones that only have nodes hold alike: fewer, so that a repair always finds room.
    pub balance_at_once: usize,
    /// How many operations may be under way into a node, or out of it, once one of these is begun.
    pub balance_per_node: usize,
    /// Leaders that hand over at once, so that nodes lead alike: writes of these shards pause for a moment.
    pub handovers_at_once: usize,
    /// How long one leads a shard before it hands over for that. So a restart causes no more handovers than it has to, and a leader that
    /// an operator has chosen stays for as long at least.
    pub leads_at_least: Duration,
    /// A shard is split whose points take more bytes than this; none if the cluster splits and merges no shards by itself.
    pub split_above: Option<u64>,
    /// Splits under way in the cluster beyond which it begins none by itself.
    pub splits_at_once: usize,
    /// Merges that it has begun by itself under way in the cluster, however large that is: each copies two shards whole, and nobody waits
    /// for it.
    pub merges_at_once: usize,
    /// How long the halves of a shard are left whole: until then the points that each has lost are removed and segments merged.
    pub whole_at_least: Duration,
    /// How long after a split what the halves do says nothing of them yet: what is told is smoothed over ten minutes, so the half that kept the
    /// shard's number is told to do what the whole did.
    pub load_known_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            repair_after: Duration::from_secs(600),
            at_once: 8,
            per_node: 2,
            balance_at_once: 4,
            balance_per_node: 1,
            handovers_at_once: 4,
            leads_at_least: Duration::from_secs(60),
            split_above: Some(16 << 30),
            splits_at_once: 2,
            merges_at_once: 1,
            whole_at_least: Duration::from_secs(300),
            load_known_after: Duration::from_secs(1_800),
        }
    }
}

impl Limits {
    /// Those of a cluster in which so many nodes take replicas. The larger it is, the more are lost at once, and the more copy: an eighth
    /// of the nodes have something under way.
    pub(crate) fn for_nodes(&self, nodes: usize) -> Self {
        let more = |few: usize, share: usize| if few == 0 { 0 } else { few.max(nodes / share) };
        let (at_once, balance_at_once) = (more(self.at_once, 8), more(self.balance_at_once, 16));
        Self { at_once, balance_at_once, splits_at_once: more(self.splits_at_once, 16), ..*self }
    }
}

/// What a node told last.
#[derive(Clone, Debug)]
pub struct Told {
    /// What it told, if that was a moment ago.
    pub report: Option<Arc<Report>>,
    /// For how long it has told nothing while the leader of the control group has listened.
    pub silence: Duration,
}

/// What is to be done now, and what cannot be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// To be proposed.
    pub commands: Vec<Command>,
    /// Shards that need an operation that cannot begin, and why, in words.
    pub waiting: Vec<(u64, String)>,
}

/// What was told, ready to be asked.
pub struct View<'t> {
    told: &'t BTreeMap<u64, Told>,
    /// Who leads each shard's group: of those that say so, the one of the latest term. In no order, which nobody asks for.
    leaders: HashMap<u64, (u64, &'t ReplicaReport)>,
}

impl<'t> View<'t> {
    /// Of what nodes told. Looks at every replica once.
    pub fn new(told: &'t BTreeMap<u64, Told>) -> Self {
        let mut leaders: HashMap<u64, (u64, &ReplicaReport)> = HashMap::new();
        for (node, told) in told {
            let replicas = told.report.iter().flat_map(|report| &report.replicas);
            for replica in replicas.filter(|replica| replica.role == ReplicaRole::Leader) {
                let known = leaders.get(&replica.shard);
                if known.is_none_or(|(_, known)| known.term < replica.term) {
                    leaders.insert(replica.shard, (*node, replica));
                }
            }
        }
        Self { told, leaders }
    }

    /// The members of a shard's group and where its log stands, as its leader tells.
    fn group(&self, shard: u64) -> Option<(&'t GroupMembers, Floor)> {
        let (_, leader) = self.leaders.get(&shard)?;
        let at = Floor { term: leader.term, index: leader.applied };
        leader.members.as_ref().map(|members| (members, at))
    }

    /// What a node that is there tells of its replica of a shard.
    fn replica(&self, node: u64, shard: u64) -> Option<&'t ReplicaReport> {
        self.report(node)?.of(shard)
    }

    /// How far a merge is, as those who have a replica of a shard tell.
    fn merge_stages(&self, merge: &Merge, shard: &ShardDescriptor) -> impl Iterator<Item = MergeStage> {
        let (merge, shard) = (merge.id, shard.id);
        let reports = self.told.values().filter_map(|told| told.report.as_deref());
        let told = reports.flat_map(|report| &report.merges);
        told.filter(move |told| (told.merge, told.shard) == (merge, shard)).map(|told| told.stage)
    }

    fn report(&self, node: u64) -> Option<&'t Report> {
        self.told.get(&node)?.report.as_deref()
    }

    fn silence(&self, node: u64) -> Duration {
        self.told.get(&node).map_or(Duration::ZERO, |told| told.silence)
    }
}

/// What is to be done now.
pub fn plan(state: &State, told: &BTreeMap<u64, Told>, limits: &Limits, unix_micros: u64) -> Plan {
    let (view, limits) = (View::new(told), &limits.for_nodes(state.nodes_for_replicas()));
    let mut plan = Plan::default();
    let under_way: Vec<_> = state.operations_under_way().collect();
    for operation in &under_way {
        if let Some((to, at)) = progress::next_step(state, &view, operation) {
            let (id, from) = (operation.id, operation.step);
            plan.commands.push(Command::AdvanceOperation { id, from, to, at, unix_micros });
        }
    }
    plan.commands.extend(split_steps(state, &view, unix_micros));
    plan.commands.extend(recovery::ended(state, &view));
    plan.commands.extend(merge_steps(state, &view, unix_micros));
    let mut busy = state.busy_shards();
    let mut traffic = target::Traffic::new(&under_way);
    let standing = Standing::of(state, &view, limits);
    let idle = state.shards().filter(|(_, shard)| !busy.contains(&shard.id));
    let needs = idle.filter_map(|(collection, shard)| Some((need(&standing, limits, collection, shard)?, shard)));
    let mut needs: Vec<_> = needs.collect();
    // What is lost is less safe than what is only to be emptied.
    needs.sort_by_key(|(need, _)| need.kind);
    let is_urgent = !needs.is_empty();
    for (need, shard) in needs {
        match begin(state, &view, limits, &mut traffic, (shard, &need)) {
            Ok((to, why)) => {
                let (kind, epoch, from) = (need.kind, shard.epoch, need.from);
                let reason = format!("{}; {why}", need.reason);
                let shard = shard.id;
                plan.commands.push(Command::BeginOperation { kind, shard, epoch, from, to, reason, unix_micros });
            }
            Err(why) => plan.waiting.push((shard.id, format!("{}; {why}", need.reason))),
        }
    }
    // What is lost or leaves comes first: nothing is split, merged, or moved for the looks of it, until all of that is under way. What is
    // about to be split or merged is moved afterwards.
    if !is_urgent {
        let splits = halve::splits(state, &view, limits, (&mut busy, unix_micros));
        // What is begun counts from the next look on, and what has grown comes before what has shrunk.
        let merge = match splits.is_empty() {
            true => unite::merge(state, &view, limits, (&mut busy, unix_micros)),
            false => None,
        };
        plan.commands.extend(splits.into_iter().chain(merge));
        plan.commands.extend(balance::moves(state, &view, limits, &mut traffic, (&busy, unix_micros)));
    }
    for node in state.nodes().values().filter(|node| node.status == NodeStatus::Draining) {
        // What is brought there is among its shards.
        let leaves = |one: &&Arc<Operation>| one.from == Some(node.id);
        if state.shards_on(node.id).next().is_none() && !under_way.iter().any(leaves) {
            plan.commands.push(Command::SetNodeStatus { id: node.id, status: NodeStatus::Drained });
        }
    }
    plan
}

/// That a shard needs a replica elsewhere.
struct Need {
    kind: OperationKind,
    from: Option<u64>,
    reason: String,
}

/// The nodes that replicas have to leave: few, so that it is soon seen of most shards that they have none there.
struct Standing {
    /// Lost for longer than they are given, with how long they have been silent.
    lost: BTreeMap<u64, Duration>,
    /// Given up with what they held.
    given_up: BTreeSet<u64>,
    draining: BTreeSet<u64>,
}

impl Standing {
    fn of(state: &State, view: &View<'_>, limits: &Limits) -> Self {
        let of = |status: NodeStatus| state.nodes().values().filter(move |node| node.status == status);
        let lost = of(NodeStatus::Lost).map(|node| (node.id, view.silence(node.id)));
        let lost = lost.filter(|(_, silence)| *silence >= limits.repair_after).collect();
        let given_up = state.given_up().keys().copied().collect();
        Self { lost, given_up, draining: of(NodeStatus::Draining).map(|node| node.id).collect() }
    }
}

fn need(standing: &Standing, limits: &Limits, collection: &Collection, shard: &ShardDescriptor) -> Option<Need> {
    let minutes = |time: Duration| time.as_secs() / 60;
    if let Some(from) = shard.replicas.iter().copied().find(|node| standing.given_up.contains(node)) {
        let reason = format!("node {from} was removed, lost for ever");
        return Some(Need { kind: OperationKind::Repair, from: Some(from), reason });
    }
    let lost = |node: &u64| standing.lost.get(node).map(|silence| (*node, *silence));
    if let Some((from, silence)) = shard.replicas.iter().find_map(lost) {
        let (silent, after) = (minutes(silence), minutes(limits.repair_after));
        let reason = format!("node {from} has not been heard of for {silent} min, and is given {after}");
        return Some(Need { kind: OperationKind::Repair, from: Some(from), reason });
    }
    let (have, wanted) = (shard.replicas.len(), collection.replication as usize);
    if have < wanted {
        let reason = format!("the shard has {have} of {wanted} replicas");
        return Some(Need { kind: OperationKind::Repair, from: None, reason });
    }
    let from = shard.replicas.iter().copied().find(|node| standing.draining.contains(node))?;
    let reason = format!("node {from} is being drained");
    Some(Need { kind: OperationKind::Drain, from: Some(from), reason })
}

/// Where the replica goes, and why there; or why it goes nowhere now.
fn begin(
    state: &State,
    view: &View<'_>,
    limits: &Limits,
    traffic: &mut target::Traffic,
    (shard, need): (&ShardDescriptor, &Need),
) -> Result<(u64, String), String> {
    let Some((members, _)) = view.group(shard.id) else {
        return Err("it has no leader that tells who its members are, and only a leader can change them".to_owned());
    };
    // What is agreed and what is do not fit yet: an operation would not know what it changes.
    if let Some(stray) = members.voters.iter().find(|voter| !shard.replicas.contains(voter)) {
        return Err(format!("node {stray} votes in its group and should not"));
    }
    if traffic.total() >= limits.at_once {
        return Err(format!("{} operations are under way, and no more are begun at once", traffic.total()));
    }
    // A node that is lost sends nothing: the others do.
    if let Some(from) = need.from.filter(|_| need.kind != OperationKind::Repair)
        && traffic.out_of(from) >= limits.per_node
    {
        return Err(format!("{} replicas leave node {from}, and no more do at once", traffic.out_of(from)));
    }
    let to = traffic.choose(state, view, limits, (shard, need.from))?;
    traffic.note(need.kind, need.from, to.node);
    Ok((to.node, to.why))
}

/// Why a shard is not as it should be, in words. One whose replicas are all there and up to date can spare any of them once another one
/// is, too.
fn unwell(state: &State, view: &View<'_>, collection: &Collection, shard: &ShardDescriptor) -> Option<String> {
    let Some((members, at)) = view.group(shard.id) else {
        return Some("it has no leader that tells who its members are".to_owned());
    };
    if members.voters != shard.replicas || !members.learners.is_empty() {
        return Some("the members of its group are not those that it should have".to_owned());
    }
    let (have, wanted) = (shard.replicas.len(), collection.replication);
    if have < wanted as usize {
        return Some(format!("it has {have} of {wanted} replicas"));
    }
    shard.replicas.iter().find_map(|node| {
        let status = state.nodes().get(node).map(|node| node.status);
        if !matches!(status, Some(NodeStatus::Up | NodeStatus::Draining)) {
            return Some(format!("node {node}, which has a replica of it, is not up"));
        }
        let Some(told) = view.replica(*node, shard.id) else {
            return Some(format!("node {node} does not tell of its replica"));
        };
        if let Some(problem) = &told.problem {
            return Some(format!("the replica on node {node} does not work: {problem}"));
        }
        let lacks = at.index.saturating_sub(told.applied);
        (lacks > CAUGHT_UP).then(|| format!("the replica on node {node} lacks {lacks} entries"))
    })
}

#[cfg(test)]
mod tests;
