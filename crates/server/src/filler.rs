//! Fills the new shards of merges, where this node leads them, with what the leaders of the others have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use sagitta_cluster::{Merge, MergeStep, ShardDescriptor, State};
use sagitta_consensus::Role;
use sagitta_coordinator::{Elsewhere, NodeClient, ShardError, ShardRef};
use sagitta_env::Env;
use sagitta_model::ErrorKind;
use sagitta_node::{Node, NodeError, Progress, Pull, Pulled, Pump, Source};
use sagitta_shard::codec::Record as _;
use tokio::sync::watch;

use crate::agent::Seen;
use crate::peers::Throttle;

/// How often it looks while a shard is filled here, or may come to be led here.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long one question may take: less than an election, after which another one leads.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// How long it takes at most until what has been asked for is in the log of the new shard.
const FILL_WITHIN: Duration = Duration::from_secs(3_600);

/// Follows the merges. What it has done is in the logs of the shards, so another leader goes on.
pub(crate) struct Filler<C> {
    env: Env,
    node: Arc<Node>,
    nodes: Arc<C>,
    throttle: Throttle,
}

/// The replicas of a shard that is merged.
struct Replicas<C> {
    env: Env,
    nodes: Arc<C>,
    shard: ShardDescriptor,
    /// Which of the replicas led last.
    leader: AtomicUsize,
    throttle: Throttle,
}

impl<C: NodeClient> Filler<C> {
    /// Asks other nodes by `nodes`, no faster than `throttle` lets it.
    pub(crate) fn new(env: Env, node: Arc<Node>, nodes: Arc<C>, throttle: Throttle) -> Self {
        Self { env, node, nodes, throttle }
    }

    /// Follows the states until nobody sends any more.
    pub(crate) async fn run(self, mut states: watch::Receiver<Option<Seen>>) {
        let mut pumps = BTreeMap::new();
        loop {
            let seen = states.borrow_and_update().clone();
            let busy = match seen {
                Some(seen) => self.look(&seen.state, &mut pumps).await,
                None => false,
            };
            if busy {
                self.env.sleep(LOOK_EVERY).await;
                if states.has_changed().is_err() {
                    return;
                }
            } else if states.changed().await.is_err() {
                return;
            }
        }
    }

    /// Does one round for each shard that is filled here; whether there may be something to be looked at again.
    async fn look(&self, state: &State, pumps: &mut BTreeMap<u64, Pump<Replicas<C>>>) -> bool {
        let (mut led, mut hosted) = (Vec::new(), false);
        for merge in state.merges_under_way().filter(|merge| matches!(merge.step, MergeStep::Copy | MergeStep::Freeze))
        {
            let Ok(into) = self.node.replica(merge.into.id) else { continue };
            hosted = true;
            // Whoever leads later knows nothing of what was read here.
            if into.status().role == Role::Leader && into.filling().is_some() {
                led.push((merge, into));
            }
        }
        pumps.retain(|id, _| led.iter().any(|(merge, _)| merge.id == *id));
        for (merge, into) in led {
            let sources = [merge.left, merge.right].map(|shard| state.shard(shard).ok());
            if let ([Some((_, left)), Some((_, right))], false) = (sources, pumps.contains_key(&merge.id)) {
                let sources = [left, right].map(|shard| self.replicas(shard));
                pumps.insert(merge.id, Pump::new(into, merge.id, sources));
            }
        }
        let steps: BTreeMap<u64, &Merge> = state.merges_under_way().map(|merge| (merge.id, &**merge)).collect();
        let rounds = pumps.iter_mut().filter_map(|(id, pump)| Some(self.round(steps.get(id)?, pump)));
        join_all(rounds).await;
        hosted
    }

    fn replicas(&self, shard: &ShardDescriptor) -> Replicas<C> {
        let (env, nodes, throttle) = (self.env.clone(), self.nodes.clone(), self.throttle.clone());
        Replicas { env, nodes, shard: shard.clone(), leader: AtomicUsize::new(0), throttle }
    }

    async fn round(&self, merge: &Merge, pump: &mut Pump<Replicas<C>>) {
        let deadline = self.env.deadline(FILL_WITHIN);
        let filled = match pump.round(deadline).await {
            Ok(Progress::Settled) => pump.complete(deadline).await.map(|()| true),
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        };
        match filled {
            Ok(true) => tracing::info!(merge = merge.id, shard = merge.into.id, "a shard has all of two others"),
            Ok(false) => {}
            Err(error) => tracing::debug!(merge = merge.id, %error, "filling a shard begins anew"),
        }
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
                    self.throttle.pass(answer.len()).await;
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
