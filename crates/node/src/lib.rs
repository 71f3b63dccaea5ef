//! Hosts shard replicas: joins each shard to its Raft group, searches on its own threads, builds in the background.
//!
//! May not know: other nodes, the control plane, gRPC.

mod answer;
mod builder;
mod error;
mod load;
mod machine;
mod merge;
mod pool;
mod replica;
mod resources;
mod shipping;
mod split;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sagitta_consensus::{
    Condition, ConsensusError, GroupHandle, GroupId, GroupSpec, GroupStatus, HostHandle, LogMark, NodeId, Position,
    States,
};
use sagitta_engine::kv::KvEngine;
use sagitta_env::Env;
use sagitta_shard::{Beginning, Engines, Home, ShardOptions, ShardSpec};

use crate::builder::Builder;
use crate::machine::ShardMachine;
use crate::pool::Pool;
use crate::replica::Shared;
use crate::resources::{Resources, Watch};
use crate::shipping::Shipping;
use crate::whole::{Opener, Present, Whole};

pub use error::NodeError;
pub use merge::{Progress, Pull, Pulled, PulledPart, Pump, Source};
pub use replica::{Freshness, Replica, Sight};
pub use resources::{BudgetError, ByteSize, MemoryBudget, MemoryShares, Shortage, volume_bytes};
pub use shipping::SegmentOrigins;

/// Searches that wait for a thread at most, per thread: at 100 microseconds each a queue this long takes 25 ms.
const QUEUE_PER_THREAD: usize = 256;

/// How long a replica may take to finish what runs and to flush.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a node runs.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The folder of the replicas' folders.
    pub dir: PathBuf,
    /// This node's name in every Raft group.
    pub node: NodeId,
    /// Threads that search.
    pub search_threads: usize,
    /// Threads that one index build uses.
    pub build_threads: usize,
    /// What the node may use.
    pub memory: MemoryBudget,
    /// Gives memory that the process holds without using it back to the system; called when memory is scarce.
    pub release_memory: fn(),
    /// Settings of every shard; made smaller where the budget wants it.
    pub shard: ShardOptions,
    /// Where whole states are kept for other nodes and fetched from them. A node that others share no shards with needs none.
    pub states: States,
}

/// The replicas of this process and what they share.
pub struct Node {
    env: Env,
    options: NodeOptions,
    engines: Engines,
    host: HostHandle,
    pool: Arc<Pool>,
    replicas: Arc<Replicas>,
    builder: Builder,
    resources: Arc<Resources>,
    watch: Watch,
    changes: tokio::sync::watch::Sender<u64>,
}

/// Counts the changes of a group that others want to know of; an applied entry is none.
async fn tell_changes(mut group: GroupHandle, changes: tokio::sync::watch::Sender<u64>) {
    let known = |status: &GroupStatus| {
        (status.role, status.leader, status.term, status.condition.clone(), status.membership.clone())
    };
    let mut before = known(&group.status());
    while let Ok(status) = group.changed().await {
        let now = known(&status);
        if now != before {
            changes.send_modify(|count| *count += 1);
        }
        before = now;
    }
}

/// Has the database of a replica that is removed let go of all that it keeps; what is left goes with the folder.
fn clear_away(dir: &Path, kv: &dyn KvEngine) {
    if !dir.is_dir() {
        return;
    }
    let cleared = Home::create(dir).and_then(|home| home.remove_state(&home.current()?, kv));
    if let Err(error) = cleared {
        tracing::debug!(%error, "a replica is removed file by file");
    }
}

/// The open replicas by shard.
#[derive(Default)]
pub(crate) struct Replicas(RwLock<BTreeMap<u64, Arc<Replica>>>);

impl Replicas {
    fn get(&self, shard: u64) -> Option<Arc<Replica>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&shard).cloned()
    }

    fn insert(&self, shard: u64, replica: Arc<Replica>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(shard, replica);
    }

    fn remove(&self, shard: u64) -> Option<Arc<Replica>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&shard)
    }

    pub(crate) fn all(&self) -> Vec<(u64, Arc<Replica>)> {
        let replicas = self.0.read().unwrap_or_else(PoisonError::into_inner);
        replicas.iter().map(|(shard, replica)| (*shard, replica.clone())).collect()
    }
}

impl Node {
    /// Starts the threads; hosts nothing yet.
    pub fn start(env: Env, mut options: NodeOptions, engines: Engines, host: HostHandle) -> Result<Self, NodeError> {
        let threads = |source| NodeError::Threads { source };
        fs::create_dir_all(&options.dir).map_err(|source| NodeError::Io { path: options.dir.clone(), source })?;
        let queue = QUEUE_PER_THREAD * options.search_threads;
        let pool = Arc::new(Pool::start(&env, "search", options.search_threads, queue).map_err(threads)?);
        let replicas = Arc::new(Replicas::default());
        let builder = Builder::start(&env, options.build_threads, replicas.clone()).map_err(threads)?;
        let resources = Arc::new(Resources::new(options.memory.shares().request_bytes));
        let changes = tokio::sync::watch::Sender::default();
        let looked_at = (replicas.clone(), builder.bell(), resources.clone());
        let watch = Watch::start(&env, &options, engines.kv.clone(), looked_at, changes.clone()).map_err(threads)?;
        options.shard = options.memory.shares().fit(options.shard);
        options.shard.siblings = Some(options.dir.clone());
        Ok(Self { env, options, engines, host, pool, replicas, builder, resources, watch, changes })
    }

    /// Hosts a replica of a shard; one that is hosted already stays as it is, unless its group has stopped, which is then opened anew:
    /// the cause may be gone. `founders` are the first voters of its group, the
    /// same on every member for ever; `floor` is where its log stood when this node last left it, if it did.
    pub async fn ensure(
        &self,
        spec: ShardSpec,
        founders: Vec<NodeId>,
        floor: Option<Position>,
    ) -> Result<(), NodeError> {
        self.host_replica(spec, founders, (floor, None), None, None).await
    }

    /// As [`Node::ensure`], or for a shard that is split off from the shard `left` as [`Node::ensure_half`], on the node that goes on alone with
    /// a group that has lost its majority for ever: see [`GroupSpec::alone_from`]. A replica that has not done so is opened anew.
    pub async fn ensure_alone(
        &self,
        spec: ShardSpec,
        founders: Vec<NodeId>,
        (floor, left): (Option<Position>, Option<u64>),
        alone_from: u64,
    ) -> Result<(), NodeError> {
        self.host_replica(spec, founders, (floor, Some(alone_from)), left, None).await
    }

    /// Hosts a replica; `left` is the shard that it is split off from, if it is, and `beginning` how it begins if a merge fills it.
    async fn host_replica(
        &self,
        spec: ShardSpec,
        founders: Vec<NodeId>,
        (floor, alone_from): (Option<Position>, Option<u64>),
        left: Option<u64>,
        beginning: Option<Beginning>,
    ) -> Result<(), NodeError> {
        let id = spec.shard;
        let goes_on = |replica: &Replica| alone_from.is_some_and(|term| replica.status().term < term);
        match self.replicas.get(id) {
            Some(replica) if self.has_stopped(&replica) || goes_on(&replica) => self.let_go(id, replica).await,
            Some(_) => return Ok(()),
            None => {}
        }
        self.has_come_to_be(id, left, floor)?;
        let dir = self.folder(id);
        let engine = self.engines.kv.clone();
        let (engines, env, options) = (self.engines.clone(), self.env.clone(), self.options.shard.clone());
        let opener = Opener { spec, beginning, engines, env, options };
        let opening = self.env.spawn_blocking(move || {
            let home = Home::create(&dir)?;
            home.settle()?;
            if let Err(error) = home.clear(&*engine) {
                // It takes up room, no more.
                tracing::warn!(%error, "what is left over of a replica cannot be removed yet");
            }
            let shard = opener.open(&home.current()?)?;
            Ok((home, opener, Present::new(shard)))
        });
        let opened = opening.await.map_err(|_| NodeError::Failed { what: "opening the shard" })?;
        let (home, opener, shard) = opened.map_err(|error| NodeError::Shard { shard: id, error })?;
        let mark = LogMark::in_folder(&self.folder(id));
        let spec = self.group_spec(&mark, id, founders, (floor, left), shard.get().born())?;
        let spec = GroupSpec { alone_from, ..spec };
        let arrivals = home.arrivals();
        let whole = Whole::new(GroupId(id), home, opener, self.options.states.clone());
        let doomed = whole.doomed();
        let (machine, told) = ShardMachine::new(shard.clone(), whole, self.builder.bell(), self.changes.clone());
        let group = self.host.open_group(spec, Box::new(machine)).await;
        let group = group.map_err(|error| match error {
            ConsensusError::Absent { .. } => NodeError::LogGone { folder: self.folder(id) },
            error => NodeError::Consensus { shard: id, error },
        })?;
        if let Ok(Err(error)) = self.env.spawn_blocking(move || mark.set()).await {
            // It is set when the replica is opened next.
            tracing::warn!(shard = id, %error, "it is not kept that the replica has a log");
        }
        let shared =
            Shared { pool: self.pool.clone(), resources: self.resources.clone(), builder: self.builder.bell() };
        self.env.spawn(tell_changes(group.clone(), self.changes.clone()));
        let (env, bell) = (self.env.clone(), self.builder.bell());
        let states = self.options.states.clone();
        let shipping = Shipping::new(GroupId(id), env, arrivals, states, (shard.clone(), group.clone()), bell);
        let replica = Replica::new(id, self.env.clone(), (shard, doomed), group, told, shipping, shared);
        self.replicas.insert(id, Arc::new(replica));
        self.builder.bell().ring();
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Whether a replica's group has stopped, and opening it anew could help.
    fn has_stopped(&self, replica: &Replica) -> bool {
        // Without the log of all groups none can be opened, and what can be read goes on being read.
        matches!(replica.status().condition, Condition::Stopped(_)) && !self.host.stats().stopped
    }

    /// The shards whose groups have stopped; [`Node::ensure`] opens them anew.
    pub fn stopped(&self) -> Vec<u64> {
        let replicas = self.replicas.all().into_iter();
        replicas.filter(|(_, replica)| self.has_stopped(replica)).map(|(shard, _)| shard).collect()
    }

    /// Closes a replica whose group has stopped, or is to be another. Its database is free when the last of those who read it ends.
    async fn let_go(&self, shard: u64, replica: Arc<Replica>) {
        tracing::info!(shard, condition = ?replica.status().condition, "opening a replica's group anew");
        self.replicas.remove(shard);
        if let Err(error) = replica.close(self.env.deadline(CLOSE_TIMEOUT)).await {
            // It cannot flush, as it stopped; what is not flushed is in the log.
            tracing::debug!(shard, %error, "not closed cleanly");
        }
    }

    /// Stops hosting a shard and removes its data; one that is not there is fine.
    pub async fn remove(&self, shard: u64) -> Result<(), NodeError> {
        if let Some(replica) = self.replicas.remove(shard) {
            // Closing flushes, which a full disk keeps from succeeding; it need not, for what is flushed goes next.
            if let Err(error) = replica.close(self.env.deadline(CLOSE_TIMEOUT)).await {
                tracing::warn!(shard, %error, "not closed cleanly, and removed all the same");
            }
        }
        // First: a log that is gone while the mark is there is taken for lost.
        let mark = LogMark::in_folder(&self.folder(shard));
        let cleared = self.env.spawn_blocking(move || mark.clear()).await;
        let cleared = cleared.map_err(|_| NodeError::Failed { what: "removing the shard's folder" })?;
        cleared.map_err(|source| NodeError::Io { path: self.folder(shard), source })?;
        let removed = self.host.remove_group(GroupId(shard)).await;
        removed.map_err(|error| NodeError::Consensus { shard, error })?;
        let dir = self.folder(shard);
        let doomed = dir.with_extension("removed");
        let kv = self.engines.kv.clone();
        let moved = self.env.spawn_blocking(move || {
            clear_away(&dir, &*kv);
            // Renamed first: a folder that is half removed must not look like a replica.
            match fs::rename(&dir, &doomed) {
                Ok(()) => fs::remove_dir_all(&doomed).map_err(|source| NodeError::Io { path: doomed, source }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(source) => Err(NodeError::Io { path: dir, source }),
            }
        });
        moved.await.map_err(|_| NodeError::Failed { what: "removing the shard's folder" })?
    }

    /// The shards that have a folder here, open or not; leftovers of removed ones are cleared away.
    pub fn hosted(&self) -> Result<Vec<u64>, NodeError> {
        let failed = |path: &Path, source| NodeError::Io { path: path.to_owned(), source };
        let mut shards = Vec::new();
        for entry in fs::read_dir(&self.options.dir).map_err(|e| failed(&self.options.dir, e))? {
            let path = entry.map_err(|e| failed(&self.options.dir, e))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(".removed") {
                // It takes up room, no more: nobody else is kept waiting for it.
                if let Err(error) = fs::remove_dir_all(&path) {
                    tracing::warn!(path = %path.display(), %error, "what is left over of a replica cannot be removed yet");
                }
            } else if let Ok(shard) = name.parse() {
                shards.push(shard);
            }
        }
        Ok(shards)
    }

    /// Whether there is room for more data.
    ///
    /// # Errors
    /// [`NodeError::Shortage`], which names what there is too little of.
    pub fn room(&self) -> Result<(), NodeError> {
        Ok(self.resources.check()?)
    }

    /// All hosted replicas, ascending by shard.
    pub fn replicas(&self) -> Vec<(u64, Arc<Replica>)> {
        self.replicas.all()
    }

    /// Changes whenever a replica comes, its shard is split, frozen, thawed or filled, its group has another leader or other members or stops working, or data begins or ceases to be refused.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Searches that wait for a thread.
    pub fn searches_waiting(&self) -> usize {
        self.pool.waiting()
    }

    /// Threads that search.
    pub fn search_threads(&self) -> usize {
        self.options.search_threads
    }

    /// A hosted replica.
    pub fn replica(&self, shard: u64) -> Result<Arc<Replica>, NodeError> {
        self.replicas.get(shard).ok_or(NodeError::NotHosted { shard })
    }

    /// Finishes what runs, flushes every shard, ends the threads. What could not be flushed is kept in the log.
    pub async fn close(&self) {
        // They use the database, which must not be in use when the process takes it down.
        for worker in self.watch.stop().into_iter().chain(self.builder.stop()) {
            if !worker.ended(&self.env).await {
                tracing::warn!("a worker of the node panicked");
            }
        }
        for (shard, _) in self.replicas.all() {
            let Some(replica) = self.replicas.remove(shard) else { continue };
            if let Err(error) = replica.close(self.env.deadline(CLOSE_TIMEOUT)).await {
                tracing::warn!(shard, %error, "not closed cleanly; the log is kept and replayed");
            }
        }
    }

    fn folder(&self, shard: u64) -> PathBuf {
        self.options.dir.join(shard.to_string())
    }
}
