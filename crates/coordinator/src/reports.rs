//! What this coordinator has heard from the nodes, and what it has seen of them itself: where leaders are, and who is busy.
//!
//! Soft state: a guess that costs a detour when it is wrong, and nothing else.

mod load;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use sagitta_cluster::{NodeStatus, ReplicaReport, ReplicaRole, Report, State};
use sagitta_env::Env;
use tokio::sync::watch;

pub(crate) use load::Load;

/// A node that has not reported for so long is asked last.
pub(crate) const SILENT: Duration = Duration::from_secs(3);
/// A replica that lacks more entries than this is behind: as many are kept for it in the leader's log.
pub(crate) const MAX_LAG: u64 = 10_000;

/// What has been heard and seen.
pub struct Reports {
    env: Env,
    known: RwLock<Known>,
    /// Counts reports, for those who wait for a change.
    changes: watch::Sender<u64>,
    /// Counts changes of who leads something: rare, so that every call to a leader can wait for one.
    moves: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    nodes: BTreeMap<u64, Heard>,
    leaders: HashMap<u64, Leader>,
}

/// What a node last told of itself.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What it told.
    pub report: Arc<Report>,
    /// When, on the environment's clock.
    pub at: Duration,
    pub(crate) load: Arc<Load>,
}

#[derive(Clone, Copy)]
struct Leader {
    /// `None` once it did not act as one.
    node: Option<u64>,
    term: u64,
    /// Since when that node is said to lead, on the environment's clock.
    since: Duration,
}

impl Reports {
    /// Nothing heard yet.
    pub fn new(env: Env) -> Self {
        Self { env, known: RwLock::default(), changes: watch::Sender::new(0), moves: watch::Sender::new(0) }
    }

    /// Takes a node's report.
    pub fn heard(&self, node: u64, report: Report) {
        let now = self.env.now();
        let mut known = self.lock();
        let mut moved = false;
        for replica in &report.replicas {
            moved |= known.note_leader(node, replica, now);
        }
        let load = known.nodes.get(&node).map(|heard| heard.load.clone()).unwrap_or_default();
        known.nodes.insert(node, Heard { report: Arc::new(report), at: now, load });
        drop(known);
        self.changes.send_modify(|count| *count += 1);
        if moved {
            self.moves.send_modify(|count| *count += 1);
        }
    }

    /// Forgets the nodes and shards that the control state has no more. What it has not yet is reported again within a second.
    pub fn follow(&self, state: &State) {
        let shards: HashSet<u64> = state.shards().map(|(_, shard)| shard.id).collect();
        let present = |node: &u64| state.nodes().get(node).is_some_and(|node| node.status != NodeStatus::Removed);
        let mut known = self.lock();
        known.nodes.retain(|node, _| present(node));
        known.leaders.retain(|shard, leader| shards.contains(shard) && leader.node.as_ref().is_none_or(present));
    }

    /// What a node last told, if it ever did.
    pub fn of(&self, node: u64) -> Option<Heard> {
        self.read().nodes.get(&node).cloned()
    }

    /// Who leads a shard's group, as far as anybody told.
    pub fn leader(&self, shard: u64) -> Option<u64> {
        self.read().leaders.get(&shard)?.node
    }

    /// For how long the node that leads a shard's group has led it, as far as anybody told.
    pub(crate) fn leads_for(&self, shard: u64) -> Duration {
        let since = self.read().leaders.get(&shard).filter(|leader| leader.node.is_some()).map(|leader| leader.since);
        since.map_or(Duration::ZERO, |since| self.env.now().saturating_sub(since))
    }

    /// Waits until `found` finds something in what is known.
    pub(crate) async fn find<T>(&self, found: impl Fn(&Self) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            // Marked as seen before looking: what comes meanwhile is looked at again.
            changes.mark_unchanged();
            if let Some(found) = found(self) {
                return found;
            }
            // This holds the sender.
            let _ = changes.changed().await;
        }
    }

    /// Waits until another node than `node` is said to lead a shard's group, in a later term than any known so far: then `node`
    /// decides nothing any more.
    pub(crate) fn superseded(&self, shard: u64, node: u64) -> impl Future<Output = ()> + '_ {
        let leader = move || self.read().leaders.get(&shard).copied();
        let term = leader().map_or(0, |leader| leader.term);
        let other = move |leader: Leader| leader.term > term && leader.node.is_some_and(|leader| leader != node);
        async move {
            let mut moves = self.moves.subscribe();
            while !leader().is_some_and(other) {
                // This holds the sender.
                let _ = moves.changed().await;
            }
        }
    }

    /// A member named the leader: better than what was reported earlier.
    pub(crate) fn note_leader(&self, shard: u64, node: u64) {
        let now = self.env.now();
        let mut known = self.lock();
        let term = known.leaders.get(&shard).map_or(0, |leader| leader.term);
        known.lead(shard, node, term, now);
    }

    /// A node that was taken for the leader did not act as one.
    pub(crate) fn suspect(&self, shard: u64, node: u64) {
        let mut known = self.lock();
        if let Some(leader) = known.leaders.get_mut(&shard).filter(|leader| leader.node == Some(node)) {
            leader.node = None;
        }
    }

    /// The replicas of a shard that are worth asking, best first: two of those that are well and have applied the log up to
    /// `at_least` are drawn and the less busy one comes first (the power of two choices), then the other ones. Then come those that
    /// have applied as much and may be far from the latest, those that may have applied it since they reported, the leader first,
    /// which surely has, and then those of whom nothing good is known. Equals are drawn alike.
    pub(crate) fn rank(&self, shard: u64, replicas: &[u64], at_least: u64) -> Vec<u64> {
        let known = self.read();
        let now = self.env.now();
        let leader = known.leaders.get(&shard).and_then(|leader| leader.node);
        let well = |node: u64| {
            let heard = known.nodes.get(&node).filter(|heard| now.saturating_sub(heard.at) < SILENT)?;
            heard.hosts(shard).filter(|replica| replica.problem.is_none())
        };
        let latest = replicas.iter().filter_map(|node| Some(well(*node)?.applied)).max().unwrap_or(0);
        let (mut ranked, mut behind, mut late, mut doubtful) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for &node in replicas {
            match well(node) {
                Some(replica) if replica.applied < at_least => late.push(node),
                Some(replica) if !follows(replica) || latest - replica.applied > MAX_LAG => behind.push(node),
                Some(_) => ranked.push(node),
                None => doubtful.push(node),
            }
        }
        let cost = |node: u64| known.nodes.get(&node).map_or(0, |heard| heard.load.cost(&heard.report, now));
        for equals in [&mut ranked, &mut behind, &mut late, &mut doubtful] {
            self.shuffle(equals);
            if let [first, second, ..] = &mut equals[..]
                && cost(*second) < cost(*first)
            {
                std::mem::swap(first, second);
            }
        }
        // It keeps the order of the others.
        late.sort_by_key(|node| Some(*node) != leader);
        ranked.extend(behind.into_iter().chain(late).chain(doubtful));
        ranked
    }

    /// What this coordinator sees of a node.
    pub(crate) fn load(&self, node: u64) -> Arc<Load> {
        if let Some(heard) = self.read().nodes.get(&node) {
            return heard.load.clone();
        }
        Arc::default()
    }

    fn shuffle(&self, nodes: &mut [u64]) {
        for at in (1..nodes.len()).rev() {
            nodes.swap(at, self.env.random_below(at as u64 + 1) as usize);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    /// What the node told of its replica of a shard.
    fn hosts(&self, shard: u64) -> Option<&ReplicaReport> {
        let at = self.report.replicas.binary_search_by_key(&shard, |replica| replica.shard).ok()?;
        Some(&self.report.replicas[at])
    }
}

/// Whether a replica leads or knows who does: else nobody sends it anything, and it falls behind.
fn follows(replica: &ReplicaReport) -> bool {
    replica.role == ReplicaRole::Leader || replica.leader.is_some()
}

impl Known {
    /// Says whether that is news.
    fn note_leader(&mut self, node: u64, replica: &ReplicaReport, now: Duration) -> bool {
        let leader = match replica.role {
            ReplicaRole::Leader => Some(node),
            ReplicaRole::Follower | ReplicaRole::Learner => replica.leader,
        };
        let Some(node) = leader else { return false };
        let term = replica.term;
        match self.leaders.get(&replica.shard) {
            Some(known) if known.term > term || (known.node, known.term) == (Some(node), term) => false,
            _ => {
                self.lead(replica.shard, node, term, now);
                true
            }
        }
    }

    /// A node leads a shard in a term; since now, unless it did before.
    fn lead(&mut self, shard: u64, node: u64, term: u64, now: Duration) {
        let same = self.leaders.get(&shard).filter(|known| known.node == Some(node));
        let since = same.map_or(now, |known| known.since);
        self.leaders.insert(shard, Leader { node: Some(node), term, since });
    }
}

#[cfg(test)]
mod tests;
