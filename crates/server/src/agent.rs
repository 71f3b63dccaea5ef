//! Makes the node host what the control state says it should, and tells what it hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::future::{Either, select};
use sagitta_cluster::{
    Collection, Floor, GroupMembers, MergeReport, MergeStage, ReplicaReport, ReplicaRole, Report, ShardDescriptor,
    SnapshotError, State,
};
use sagitta_consensus::{Condition, GroupStatus, NodeId, Position, Role, write_whole};
use sagitta_coordinator::Control;
use sagitta_env::Env;
use sagitta_model::ErrorKind;
use sagitta_node::{Node, NodeError, Replica};
use sagitta_shard::{Beginning, ShardSpec};
use tokio::sync::watch;

use crate::data_dir::DataDirError;

/// How often the node reports when nothing has changed: soon enough to tell whether it is there.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A replica that could not be opened, or whose group stopped, is tried again after so long, for the cause may be gone: a full disk, too many files.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// After twice as long each time that it fails again, up to this: whoever mends the cause need not wait long, and a replica that
/// stays broken costs next to nothing.
const RETRY_AT_MOST: Duration = Duration::from_secs(60);

/// What the control state says of the replicas of this node. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Placed(Arc<ArcSwap<BTreeMap<u64, Placement>>>);

#[derive(Clone)]
struct Placement {
    epoch: u64,
    /// Why it is not hosted, if it is not.
    problem: Option<(ErrorKind, String)>,
}

impl Placed {
    /// The epoch of a shard's placement, if the shard should be here.
    pub(crate) fn epoch(&self, shard: u64) -> Option<u64> {
        self.0.load().get(&shard).map(|placement| placement.epoch)
    }

    /// Why a shard that should be here is not.
    pub(crate) fn problem(&self, shard: u64) -> Option<(ErrorKind, String)> {
        self.0.load().get(&shard).and_then(|placement| placement.problem.clone())
    }
}

/// The control state as of an entry of its log.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The entry, by which the newest state is known. All of a later era come after those of an earlier one.
    pub index: u64,
    /// The state.
    pub state: Arc<State>,
}

/// An era's part of [`Seen::index`]: above any place in a log.
const ERA: u64 = 1 << 40;

impl Seen {
    /// What a control group has applied here.
    pub(crate) fn of(control: &Control) -> Self {
        // The index first: a state that is later than its index is looked at once more, the other way around it would be missed.
        let index = *control.applied().borrow();
        Self::at(index, control.state())
    }

    /// The state as of an entry of its log.
    pub(crate) fn at(entry: u64, state: Arc<State>) -> Self {
        Self { index: state.era() * ERA + entry, state }
    }

    /// The state as a file keeps it: that of a node with its place among all, that of a control group with its entry.
    pub(crate) fn kept(index: u64, state: Arc<State>) -> Self {
        Self::at(index % ERA, state)
    }

    /// Its entry in the log of its era.
    pub(crate) fn entry(&self) -> u64 {
        self.index.saturating_sub(self.state.era() * ERA)
    }

    /// Whether `later`, which is of a later era, lacks what this state is of the last: where that ended for it.
    pub(crate) fn is_ahead_of(&self, later: &Self) -> Option<u64> {
        later.state.end_of_era(self.state.era()).filter(|ended| self.entry() > *ended)
    }
}

/// Follows the control state.
pub(crate) struct Agent {
    env: Env,
    me: u64,
    node: Arc<Node>,
    placed: Placed,
    reporter: Reporter,
    followed: Followed,
    /// Has the connections to other nodes go by a state.
    heed: Box<dyn Fn(&State) + Send + Sync>,
    /// Up to which deletion all is removed, and nobody is asked or heard who was given up, for good.
    deletions: u64,
    /// Whether a shard is to be opened once it is split off.
    waits_for_split: bool,
    /// Those of them that wait for one that cannot be opened.
    blocked: BTreeSet<u64>,
    /// The era that is not followed, since its beginning lacks what was followed here.
    lacking: Option<u64>,
}

/// Says what the node hosts.
#[derive(Clone)]
struct Reporter {
    env: Env,
    me: u64,
    node: Arc<Node>,
    placed: Placed,
    reports: watch::Sender<Report>,
    /// Why the node does not follow what the cluster is now.
    ahead: Arc<ArcSwapOption<String>>,
}

/// The latest state that the node has followed, kept in a file: so that a node that restarts knows where its cluster is, hosts
/// its replicas though no coordinator is there, and never follows an older state.
pub(crate) struct Followed {
    path: PathBuf,
    last: Option<Seen>,
    /// Whether that is what is in the file.
    kept: bool,
}

impl Followed {
    /// Reads the file, if there is one.
    pub(crate) fn open(path: PathBuf) -> Result<Self, DataDirError> {
        let last = match fs::read(&path) {
            Ok(bytes) => {
                let damaged = |error: SnapshotError| {
                    let reason = format!("{error}; removing it is safe while a coordinator can be reached");
                    DataDirError::Damaged { path: path.clone(), reason }
                };
                let (state, index, _) = State::decode(&bytes).map_err(damaged)?;
                Some(Seen { index, state: Arc::new(state) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(DataDirError::Io { path, source }),
        };
        Ok(Self { path, last, kept: true })
    }

    /// What was followed last.
    pub(crate) fn last(&self) -> Option<&Seen> {
        self.last.as_ref()
    }

    /// Keeps a state before it is followed. False for an older one than the last, which must not be.
    fn keep(&mut self, seen: &Seen) -> bool {
        match &self.last {
            Some(last) if seen.index < last.index => return false,
            Some(last) if last.state == seen.state && self.kept => {}
            _ => {
                let written = write_whole(&self.path, &seen.state.encode(seen.index, 0));
                self.kept = written.is_ok();
                if let Err(error) = written {
                    tracing::warn!(%error, "the control state was not kept for a restart, so nothing is removed by it");
                }
            }
        }
        self.last = Some(seen.clone());
        true
    }
}

/// When what failed is tried again.
#[derive(Debug, Default)]
struct Retry {
    due: Option<Duration>,
    /// How long was waited last, and when it was tried after that.
    wait: Duration,
    tried: Duration,
}

impl Retry {
    /// Something does not work, since now or for a while.
    fn failed(&mut self, now: Duration) {
        if self.due.is_some() {
            return;
        }
        // What has worked for longer than it was waited for fails anew.
        let again = now.saturating_sub(self.tried) < self.wait;
        self.wait = if again { (2 * self.wait).min(RETRY_AT_MOST) } else { RETRY_AFTER };
        self.due = Some(now + self.wait);
    }

    /// All was tried, because it was due or because there was a reason to.
    fn tried(&mut self, now: Duration, well: bool) {
        // A failure ahead of time changes nothing: control states may come in a burst.
        if !well && self.due.is_some_and(|due| now < due) {
            return;
        }
        (self.due, self.tried) = (None, now);
        if !well {
            self.failed(now);
        }
    }
}

impl Agent {
    /// An agent of the node, which is known to the cluster as `me`, that shares what it knows in `placed`.
    pub(crate) fn new(env: Env, me: u64, node: Arc<Node>, placed: Placed, followed: Followed) -> Self {
        let reports = watch::Sender::default();
        let ahead = Arc::<ArcSwapOption<String>>::default();
        let reporter = Reporter { env: env.clone(), me, node: node.clone(), placed: placed.clone(), reports, ahead };
        Self {
            env,
            me,
            node,
            placed,
            reporter,
            followed,
            heed: Box::new(|_| ()),
            deletions: 0,
            waits_for_split: false,
            blocked: BTreeSet::new(),
            lacking: None,
        }
    }

    /// What has the connections to other nodes go by a state: this agent tells that it has followed one.
    pub(crate) fn heeding(self, heed: impl Fn(&State) + Send + Sync + 'static) -> Self {
        Self { heed: Box::new(heed), ..self }
    }

    /// What the node hosts, whenever that changes, and every second.
    pub(crate) fn reports(&self) -> watch::Receiver<Report> {
        self.reporter.reports.subscribe()
    }

    /// Follows the states until nobody sends any more.
    pub(crate) async fn run(mut self, mut states: watch::Receiver<Option<Seen>>) {
        // What came before this was called is to be followed as well.
        states.mark_changed();
        let mut changes = self.node.changes();
        let mut retry = Retry::default();
        loop {
            changes.mark_unchanged();
            self.report().await;
            if !self.node.stopped().is_empty() {
                retry.failed(self.env.now());
            }
            let until_retry = retry.due.map_or(REPORT_EVERY, |due| due.saturating_sub(self.env.now()));
            tokio::select! {
                changed = states.changed() => match changed {
                    Ok(()) => {}
                    Err(_) => return,
                },
                // The node, which holds the other end, is held here.
                _ = changes.changed() => {
                    if !self.waits_for_split {
                        continue;
                    }
                    // Whoever leads the cluster can note the split while its other half is being opened.
                    self.report().await;
                },
                () = self.env.sleep(until_retry.min(REPORT_EVERY)) => {
                    if !self.waits_for_split && retry.due.is_none_or(|due| self.env.now() < due) {
                        continue;
                    }
                }
            }
            let Some(seen) = states.borrow_and_update().clone() else { continue };
            let followed = self.follow_and_report(&seen).await;
            retry.tried(self.env.now(), followed.is_ok());
        }
    }

    /// Follows a state, and says meanwhile what the node hosts: a replica may take long to open, and who says nothing is taken for lost.
    async fn follow_and_report(&mut self, seen: &Seen) -> Result<(), NodeError> {
        let (reporter, deletions) = (self.reporter.clone(), self.deletions);
        let report = async {
            loop {
                reporter.env.sleep(REPORT_EVERY).await;
                reporter.report(deletions).await;
            }
        };
        match select(pin!(self.follow(seen)), pin!(report)).await {
            Either::Left((followed, _)) => followed,
            Either::Right((never, _)) => never,
        }
    }

    /// Hosts every replica that should be here and removes every one that should not. Changes nothing when all is as it should be,
    /// so it mends what a crash between a decision and its execution left. What fails is kept for those who ask for it, and
    /// does not hold up the rest; the error is the first one.
    pub(crate) async fn follow(&mut self, seen: &Seen) -> Result<(), NodeError> {
        if self.stays_behind(seen) || !self.followed.keep(seen) {
            return Ok(());
        }
        let state = &seen.state;
        (self.heed)(state);
        let mut first = Ok(());
        self.waits_for_split = false;
        let mut blocked = BTreeSet::new();
        let here: Vec<_> = state.shards_on(self.me).collect();
        let mut placed: BTreeMap<_, _> =
            here.iter().map(|(_, shard)| (shard.id, Placement { epoch: shard.epoch, problem: None })).collect();
        // Before anything is opened, which takes its time: from now on nobody writes to what goes.
        self.placed.0.store(Arc::new(placed.clone()));
        for (collection, shard) in here {
            if let Err(error) = self.host(state, collection, shard).await {
                let problem = Some((error.kind(), error.to_string()));
                placed.insert(shard.id, Placement { epoch: shard.epoch, problem });
                if let NodeError::NotSplit { left, .. } = error {
                    self.waits_for_split = true;
                    let left_fails = placed.get(&left).is_some_and(|left| left.problem.is_some());
                    if left_fails && blocked.insert(shard.id) && !self.blocked.contains(&shard.id) {
                        tracing::warn!(
                            shard = shard.id,
                            left,
                            "cannot begin a replica before that of the shard it is split off from is open"
                        );
                    }
                    continue;
                }
                tracing::error!(shard = shard.id, %error, "cannot host a replica");
                first = first.and(Err(error));
            }
        }
        self.blocked = blocked;
        let wanted: BTreeSet<u64> = placed.keys().copied().collect();
        self.placed.0.store(Arc::new(placed));
        let mut all_gone = true;
        while all_gone {
            let hosted = match self.node.hosted() {
                Ok(hosted) => hosted,
                Err(error) => return first.and(Err(error)),
            };
            // What this state does not know of yet was placed by a later one.
            let gone = hosted.into_iter().filter(|shard| !wanted.contains(shard) && state.has_placed(*shard));
            let gone: BTreeSet<u64> = gone.collect();
            if gone.is_empty() {
                break;
            }
            if !self.followed.kept {
                // After a restart an older state would be followed, which may place them here. Tried again, as all that fails.
                return first.and(Err(NodeError::Failed { what: "keeping the control state" }));
            }
            // Until it is gone, one that is being split makes another, which has a higher number: then that is found in the next round.
            for shard in gone {
                if let Err(error) = self.node.remove(shard).await {
                    tracing::error!(shard, %error, "cannot remove a replica");
                    all_gone = false;
                    first = first.and(Err(error));
                }
            }
        }
        // Only what is kept holds after a restart, too: an older state could have a replica that was never here founded.
        if all_gone && self.followed.kept {
            self.deletions = state.deletions();
        } else if self.deletions < state.deletions() {
            first = first.and(Err(NodeError::Failed { what: "keeping the control state" }));
        }
        first
    }

    /// Whether a state is not to be followed: the control group has gone on without its majority, from before what was followed here. What that
    /// state says is older then, whatever its era: by it replicas would be removed that the lost coordinators had brought here, and others
    /// founded anew that they had taken away. So all stays as it is, and who was given up is heard no more all the same.
    fn stays_behind(&mut self, seen: &Seen) -> bool {
        let ended = self.followed.last().and_then(|last| Some((last.entry(), last.is_ahead_of(seen)?)));
        let why = ended.map(|(followed, ended)| {
            format!(
                "it follows the control state no further: the control group goes on from entry {ended}, and this node has followed {followed}; what it \
                 holds is kept as it was (sagittad recover-control-group --help, at \"Afterwards\")"
            )
        });
        if let Some(why) = &why {
            (self.heed)(&seen.state);
            if self.lacking.replace(seen.state.era()) != Some(seen.state.era()) {
                tracing::error!("{why}");
            }
        }
        let stays = why.is_some();
        self.reporter.ahead.store(why.map(Arc::new));
        stays
    }

    async fn host(&self, state: &State, collection: &Collection, shard: &ShardDescriptor) -> Result<(), NodeError> {
        let spec = ShardSpec { collection: collection.id, shard: shard.id, schema: collection.schema.clone() };
        let founders = shard.founders.iter().copied().map(NodeId).collect();
        let position = |floor: &Floor| Position { term: floor.term, index: floor.index };
        let floor = shard.left.get(&self.me);
        let recovery = state.recovery_of(shard.id).filter(|recovery| recovery.survivor == self.me);
        if recovery.is_some() && !self.followed.kept {
            // After a restart an older state would be followed, and the members that are lost for ever be heard again.
            return Err(NodeError::Failed { what: "keeping the control state" });
        }
        if let Some(merge) = state.merges_under_way().find(|merge| merge.into.id == shard.id) {
            let (range, Floor { term, index }) = (shard.range, merge.floor);
            let beginning = Beginning { merge: merge.id, range, index, term };
            return self.node.ensure_filling(spec, founders, None, beginning).await;
        }
        let left = shard.parent;
        let floor = floor.or(shard.split.as_ref().filter(|_| left.is_some())).map(position);
        match (recovery, left) {
            (Some(recovery), left) => self.node.ensure_alone(spec, founders, (floor, left), recovery.term).await,
            (None, Some(left)) => self.node.ensure_half(spec, founders, floor, left).await,
            (None, None) => self.node.ensure(spec, founders, floor).await,
        }
    }

    async fn report(&self) {
        self.reporter.report(self.deletions).await;
    }
}

impl Reporter {
    /// On a thread that may wait: the figures of a replica come from its database and its folder, and a slow disk must not hold up
    /// what else runs here. A node whose disk answers nothing says nothing.
    async fn report(&self, deletions: u64) {
        let (node, placed, me) = (self.node.clone(), self.placed.clone(), self.me);
        let ahead = self.ahead.load_full().map(|why| String::clone(&why));
        match self.env.spawn_blocking(move || report(&node, &placed, me, deletions)).await {
            // Nothing new is to be brought to a node that would not hear of it.
            Ok(report) => drop(self.reports.send_replace(Report { shortage: ahead.or(report.shortage), ..report })),
            Err(_) => tracing::error!("the figures of the replicas were not told: the server's log says why"),
        }
    }
}

fn report(node: &Node, placed: &Placed, me: u64, deletions: u64) -> Report {
    let placed = placed.0.load();
    let epoch = |shard: u64| placed.get(&shard).map_or(0, |placement| placement.epoch);
    let replicas = node.replicas();
    let merges = replicas.iter().flat_map(|(shard, replica)| merges_of(*shard, replica)).collect();
    let replicas = replicas.iter().map(|(shard, replica)| of_replica(*shard, epoch(*shard), me, replica));
    Report {
        replicas: replicas.collect(),
        searches_waiting: u32::try_from(node.searches_waiting()).unwrap_or(u32::MAX),
        search_threads: u32::try_from(node.search_threads()).unwrap_or(u32::MAX),
        shortage: node.room().err().map(|shortage| shortage.to_string()),
        deletions,
        merges,
    }
}

fn of_replica(shard: u64, epoch: u64, me: u64, replica: &Replica) -> ReplicaReport {
    let (status, statistics) = (replica.status(), replica.statistics());
    let members = members(&status);
    let role = match status.role {
        Role::Leader => ReplicaRole::Leader,
        _ if status.membership.learners.contains(&NodeId(me)) => ReplicaRole::Learner,
        Role::Follower | Role::Candidate => ReplicaRole::Follower,
    };
    ReplicaReport {
        shard,
        epoch,
        role,
        leader: status.leader.map(|node| node.0),
        term: status.term,
        applied: status.applied,
        points: statistics.points,
        disk_bytes: statistics.disk_bytes,
        data_bytes: replica.data_bytes(),
        load: replica.load(),
        problem: match status.condition {
            Condition::Running => None,
            Condition::Full(why) | Condition::Stopped(why) => Some(why),
        },
        split: replica.last_split().map(|split| Floor { term: split.term, index: split.index }),
        members,
        last: Floor { term: status.last_term, index: status.last },
    }
}

/// What a replica tells of merges: what is in its log is so, whoever tells it.
fn merges_of(shard: u64, replica: &Replica) -> Vec<MergeReport> {
    let of = |stage| move |merge| MergeReport { shard, merge, stage };
    let ready = replica.ready_for().filter(|_| replica.status().role == Role::Leader).map(of(MergeStage::Ready));
    let filled = replica.filled_by().map(of(MergeStage::Filled));
    let frozen = replica.frozen_by().map(|frozen| frozen.merge).map(of(MergeStage::Frozen));
    let thawed = Some(replica.thawed()).filter(|merge| *merge > 0).map(of(MergeStage::Thawed));
    [ready, filled, frozen, thawed].into_iter().flatten().collect()
}

/// Who belongs to a group, if this replica leads it and no change of that is under way.
pub(crate) fn members(status: &GroupStatus) -> Option<GroupMembers> {
    let membership = &status.membership;
    if status.role != Role::Leader || membership.is_joint() {
        return None;
    }
    let ascending = |nodes: &[NodeId]| {
        let mut ids: Vec<u64> = nodes.iter().map(|node| node.0).collect();
        ids.sort_unstable();
        ids
    };
    Some(GroupMembers { voters: ascending(&membership.voters), learners: ascending(&membership.learners) })
}

#[cfg(test)]
pub(crate) mod tests;
