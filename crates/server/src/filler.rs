//! Fills the new shards of merges, where this node leads them, with what the leaders of the others have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sagitta_cluster::{MergeStep, ShardDescriptor, State};
use sagitta_consensus::Role;
use sagitta_coordinator::{Elsewhere, NodeClient, ShardError, ShardRef};
use sagitta_env::{Env, JoinHandle};
use sagitta_model::ErrorKind;
use sagitta_node::{Node, NodeError, Progress, Pull, Pulled, Pump, Replica, Source};
use sagitta_shard::codec::Record as _;
use tokio::sync::watch;

use crate::agent::Seen;
use crate::peers::Throttle;
use crate::steward::next_state;

/// How often it looks while a shard is filled here, or may come to be led here.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long one question may take: less than an election, after which another one leads.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// How long it takes at most until what has been asked for is in the log of the new shard.
const FILL_WITHIN: Duration = Duration::from_secs(3_600);
/// How long nothing is done for a shard that cannot take what the others remember.
const FULL_PAUSE: Duration = Duration::from_secs(60);

/// Follows the merges. What it has done is in the logs of the shards, so another leader goes on.
pub(crate) struct Filler<C> {
    env: Env,
    node: Arc<Node>,
    nodes: Arc<C>,
    throttle: Throttle,
}

/// A shard that is filled: by itself, so that none waits for another. An import that is cut off does no harm, since they are counted.
struct Task {
    into: Arc<Replica>,
    /// Set once the others are frozen: what is left is little, and waited for.
    hurries: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// The replicas of a shard that is merged.
struct Replicas<C> {
    env: Env,
    nodes: Arc<C>,
    shard: ShardDescriptor,
    /// Which of the replicas led last.
    leader: AtomicUsize,
    throttle: Throttle,
    hurries: Arc<AtomicBool>,
}

impl<C: NodeClient> Filler<C> {
    /// Asks other nodes by `nodes`, no faster than `throttle` lets it.
    pub(crate) fn new(env: Env, node: Arc<Node>, nodes: Arc<C>, throttle: Throttle) -> Self {
        Self { env, node, nodes, throttle }
    }

    /// Follows the states until nobody sends any more.
    pub(crate) async fn run(self, mut states: watch::Receiver<Option<Seen>>) {
        let (mut tasks, mut wait) = (BTreeMap::new(), Some(Duration::ZERO));
        while next_state(&self.env, &mut states, wait).await {
            let seen = states.borrow_and_update().clone();
            let may_lead = seen.is_some_and(|seen| self.look(&seen.state, &mut tasks));
            wait = may_lead.then_some(LOOK_EVERY);
        }
    }

    /// Has each shard filled that is led here, and no other; whether one is hosted here that is to be filled.
    fn look(&self, state: &State, tasks: &mut BTreeMap<u64, Task>) -> bool {
        let filled = state.merges_under_way().filter(|merge| matches!(merge.step, MergeStep::Copy | MergeStep::Freeze));
        let hosted: Vec<_> = filled.filter_map(|merge| Some((merge, self.node.replica(merge.into.id).ok()?))).collect();
        // Whoever leads later knows nothing of what was read here.
        let led = |into: &Replica| into.status().role == Role::Leader && into.filling().is_some();
        let led: BTreeMap<u64, _> =
            hosted.iter().filter(|(_, into)| led(into)).map(|(merge, into)| (merge.id, (*merge, into))).collect();
        tasks.retain(|id, task| {
            led.get(id).is_some_and(|(_, into)| Arc::ptr_eq(into, &task.into)) && !task.handle.is_finished()
        });
        for (id, (merge, into)) in led {
            if !tasks.contains_key(&id)
                && let (Ok((_, left)), Ok((_, right))) = (state.shard(merge.left), state.shard(merge.right))
            {
                let hurries = Arc::<AtomicBool>::default();
                let sources = [left, right].map(|shard| (self.replicas(shard, hurries.clone()), shard.range));
                let handle = self.env.spawn(fill(self.env.clone(), id, Pump::new(into.clone(), id, sources)));
                tasks.insert(id, Task { into: into.clone(), hurries, handle });
            }
            if let Some(task) = tasks.get(&id) {
                task.hurries.store(merge.step == MergeStep::Freeze, Ordering::Relaxed);
            }
        }
        !hosted.is_empty()
    }

    fn replicas(&self, shard: &ShardDescriptor, hurries: Arc<AtomicBool>) -> Replicas<C> {
        let (env, nodes, throttle) = (self.env.clone(), self.nodes.clone(), self.throttle.clone());
        Replicas { env, nodes, shard: shard.clone(), leader: AtomicUsize::new(0), throttle, hurries }
    }
}

/// Fills a shard until it takes writes.
async fn fill<C: NodeClient>(env: Env, merge: u64, mut pump: Pump<Replicas<C>>) {
    let mut failed = false;
    loop {
        let deadline = env.deadline(FILL_WITHIN);
        let filled = match pump.round(deadline).await {
            Ok(Progress::Settled) => pump.complete(deadline).await.map(|()| true),
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        };
        match filled {
            Ok(true) => {
                tracing::info!(merge, "a shard has all of two others");
                return;
            }
            Ok(false) => {}
            // It would come to the same point again and again.
            Err(error @ NodeError::Command(_)) if error.kind() == ErrorKind::Overloaded => {
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(merge, %error, "a shard cannot be filled: `sagitta operation cancel {merge}`");
                }
                env.sleep(FULL_PAUSE).await;
            }
            Err(error) => tracing::debug!(merge, %error, "filling a shard goes on in a moment"),
        }
        env.sleep(LOOK_EVERY).await;
    }
}

impl<C: NodeClient> Source for Replicas<C> {
    async fn pull(&self, pull: Pull) -> Result<Pulled, NodeError> {
        let question: bytes::Bytes = pull.to_sealed().into();
        let replicas = &self.shard.replicas;
        let shard = ShardRef {
            shard: self.shard.id,
            epoch: self.shard.epoch,
            split: self.shard.split.map_or(0, |split| split.index),
        };
        let mut failed = ShardError::new(ErrorKind::Unavailable, "it has no replica");
        // Each once, and whoever they say leads.
        for _ in 0..=replicas.len() {
            let at = self.leader.load(Ordering::Relaxed) % replicas.len().max(1);
            let Some(node) = replicas.get(at) else { break };
            let deadline = self.env.deadline(ASK_WITHIN);
            let answered = self.env.until(deadline, self.nodes.pull(*node, shard, question.clone(), deadline)).await;
            let error = match answered {
                Ok(Ok(answer)) => {
                    if !self.hurries.load(Ordering::Relaxed) {
                        self.throttle.pass(answer.len()).await;
                    }
                    return Pulled::from_sealed(&answer)
                        .map_err(|error| self.failed(ErrorKind::Internal, error.to_string()));
                }
                Ok(Err(error)) => error,
                Err(_) => ShardError::new(ErrorKind::Unavailable, format!("node {node} did not answer in time")),
            };
            let hint = match error.elsewhere {
                Some(Elsewhere::NotLeader { hint }) => {
                    hint.and_then(|leader| replicas.iter().position(|one| *one == leader))
                }
                _ => None,
            };
            self.leader.store(hint.unwrap_or(at + 1), Ordering::Relaxed);
            failed = error;
        }
        Err(self.failed(failed.kind, failed.message))
    }
}

impl<C> Replicas<C> {
    fn failed(&self, kind: ErrorKind, message: String) -> NodeError {
        NodeError::Source { shard: self.shard.id, kind, message }
    }
}
