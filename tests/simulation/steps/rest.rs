//! A cluster that has come to rest: what it did has ended, every replica is where the state says, and nothing else is anywhere.

use std::collections::BTreeSet;

use sagitta_callers::name;
use sagitta_client::{Client, ClientError, ListShards};
use sagitta_model::{Health, NodeInfo, NodeStatus, OperationInfo, OperationKind, ShardInfo};

use super::cases::{Case, Doing};

/// What one coordinator says.
pub(super) struct Told {
    operations: Vec<OperationInfo>,
    shards: Vec<ShardInfo>,
    nodes: Vec<NodeInfo>,
    /// Why a shard is not well enough to be split, if one is not: its members are others, a replica does not work or lags.
    unwell: Option<String>,
}

/// What it has to have come to.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    pub(super) case: Case,
    /// Where the replicas of the only shard are when nothing has come about and when it has, if that follows from the case.
    pub(super) replicas: Option<[BTreeSet<u64>; 2]>,
    /// A node that is to hold nothing.
    pub(super) empty: Option<u64>,
    /// A node that is still down.
    pub(super) down: Option<u64>,
    /// How many shards there were.
    pub(super) shards: usize,
}

impl Told {
    /// Asks a coordinator.
    pub(super) async fn by(client: &Client) -> Result<Self, ClientError> {
        let list = ListShards { collection: Some(name("points")), node: None };
        let operations = client.list_operations(1_000, String::new()).await?.operations;
        let shards = client.list_shards(list, 100, String::new()).await?.shards;
        let nodes = client.list_nodes(100, String::new()).await?.nodes;
        let mut unwell = None;
        for shard in &shards {
            // Nobody splits a shard whose members are not those of its placement, or of which a replica lacks something.
            if let Err(error) = client.split_shard(shard.id, shard.epoch, true).await {
                unwell = Some(format!("shard {}: {error}", shard.id));
            }
        }
        Ok(Self { operations, shards, nodes, unwell })
    }

    /// How many operations of the kind have come to an end, by whether they came about.
    fn ended(&self, doing: Doing) -> (usize, usize) {
        let kind = doing.kind_name();
        let of = |step: &str| {
            self.operations.iter().filter(|one| one.work.kind() == kind && one.work.step() == step).count()
        };
        (of("done"), of("cancelled"))
    }
}

impl Goal {
    /// Whether a cluster has come to it, or what is missing.
    pub(super) fn is_met(&self, told: &Told) -> Result<(), String> {
        if let Some(one) = told.operations.iter().find(|one| !one.work.has_ended()) {
            return Err(format!("operation {} is at {}, and waits for {}", one.id, one.work.step(), one.waits_for));
        }
        self.have_ended(told)?;
        told.unwell.clone().map_or(Ok(()), Err)?;
        let has_come_about = told.ended(self.case.doing).0 > 0;
        told.shards.iter().try_for_each(|shard| self.is_well(shard, has_come_about))?;
        told.nodes.iter().filter(|node| Some(node.id) != self.down).try_for_each(|node| self.holds_its_own(node))
    }

    fn have_ended(&self, told: &Told) -> Result<(), String> {
        let (done, cancelled) = told.ended(self.case.doing);
        let shards = match self.case.doing {
            Doing::Split => self.shards + done,
            Doing::Merge => self.shards - done,
            Doing::Replica(_) | Doing::OnlyReplica => self.shards,
        };
        if told.shards.len() != shards {
            return Err(format!("{} shards, and not {shards}", told.shards.len()));
        }
        let as_wanted = match self.case.cancelled_at {
            // Nobody wants it cancelled, and no node is gone for long; but a merge has no time for as much as that.
            None if self.case.doing == Doing::Merge => done > 0 || cancelled > 0,
            None => done > 0 && cancelled == 0,
            Some(_) => cancelled > 0 || done > 0 && self.case.may_be_cancelled_too_late(),
        };
        if as_wanted { Ok(()) } else { Err(format!("{done} are done and {cancelled} are cancelled")) }
    }

    fn is_well(&self, shard: &ShardInfo, has_come_about: bool) -> Result<(), String> {
        let wanted: BTreeSet<u64> = shard.replicas.iter().filter(|one| one.wanted).map(|one| one.node).collect();
        if shard.health != Health::Healthy || wanted.len() != self.case.doing.replication() as usize {
            return Err(format!("{shard:?}"));
        }
        match &self.replicas {
            Some(replicas) if replicas[usize::from(has_come_about)] != wanted => {
                Err(format!("shard {} is on {wanted:?}", shard.id))
            }
            _ => Ok(()),
        }
    }

    fn holds_its_own(&self, node: &NodeInfo) -> Result<(), String> {
        let is_emptied = self.empty == Some(node.id);
        let status = match self.case.doing {
            Doing::Replica(OperationKind::Drain) if is_emptied => NodeStatus::Drained,
            Doing::Replica(_) | Doing::OnlyReplica | Doing::Split | Doing::Merge => NodeStatus::Up,
        };
        let holds_its_own = node.hosted_replicas == node.wanted_replicas;
        match node.status == status && holds_its_own && (node.wanted_replicas == 0 || !is_emptied) {
            true => Ok(()),
            false => Err(format!("{node:?}")),
        }
    }
}
