//! The control state and what nodes told, at one moment.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sagitta_cluster::{
    Collection, Node, NodeStatus, ReplicaReport, ReplicaRole, Report, ShardDescriptor, SplitStep, State, schedule,
};
use sagitta_model::{Health, NodeInfo, ReplicaInfo, ReplicaTold, ShardInfo};

use crate::reports::{MAX_LAG, Reports, SILENT};

const NO_CONTROL_LEADER: &str = "the control group has no leader: nothing can be changed; start its coordinators, or, if most of them are lost for \
     ever, see sagittad recover-control-group --help";

pub(super) struct View<'r> {
    pub(super) state: Arc<State>,
    reports: &'r Reports,
    /// What each node told, and how long ago.
    told: BTreeMap<u64, (Arc<Report>, Duration)>,
    /// The nodes that tell of each shard, ascending.
    hosts: OnceCell<HashMap<u64, Vec<u64>>>,
    /// How many replicas each node should have.
    wanted: OnceCell<HashMap<u64, u32>>,
}

impl<'r> View<'r> {
    pub(super) fn new(state: Arc<State>, reports: &'r Reports, now: Duration) -> Self {
        let told = state.nodes().keys().filter_map(|node| {
            let heard = reports.of(*node)?;
            Some((*node, (heard.report, now.saturating_sub(heard.at))))
        });
        let (hosts, wanted) = Default::default();
        Self { told: told.collect(), state, reports, hosts, wanted }
    }

    /// The nodes that tell of a shard. Gathered for all shards at once: of a large cluster all are asked for.
    fn hosts(&self, shard: u64) -> &[u64] {
        let gather = || {
            let mut hosts: HashMap<u64, Vec<u64>> = HashMap::new();
            for (node, (report, _)) in &self.told {
                for replica in &report.replicas {
                    hosts.entry(replica.shard).or_default().push(*node);
                }
            }
            hosts
        };
        self.hosts.get_or_init(gather).get(&shard).map_or(&[], Vec::as_slice)
    }

    /// How many replicas a node should have. Counted for all nodes at once, for the same reason.
    fn wanted(&self, node: u64) -> u32 {
        let count = || {
            let mut wanted: HashMap<u64, u32> = HashMap::new();
            for node in self.state.shards().flat_map(|(_, shard)| &shard.replicas) {
                *wanted.entry(*node).or_default() += 1;
            }
            wanted
        };
        self.wanted.get_or_init(count).get(&node).copied().unwrap_or(0)
    }

    /// What a node last told of a replica.
    pub(super) fn told(&self, node: u64, shard: u64) -> Option<&ReplicaReport> {
        let (report, _) = self.told.get(&node)?;
        let at = report.replicas.binary_search_by_key(&shard, |replica| replica.shard).ok()?;
        Some(&report.replicas[at])
    }

    fn is_silent(&self, node: u64) -> bool {
        self.told.get(&node).is_none_or(|(_, silence)| *silence >= SILENT)
    }

    /// How many nodes have each status that any has.
    pub(super) fn count_nodes(&self) -> Vec<(NodeStatus, u32)> {
        let mut counts: BTreeMap<NodeStatus, u32> = BTreeMap::new();
        for node in self.state.nodes().values() {
            *counts.entry(node.status).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    /// How well the cluster is, and what is wrong with it, worst first. `leader` leads the control group.
    pub(super) fn health(&self, leader: Option<u64>) -> (Health, Vec<String>) {
        let mut problems: Vec<(Health, String)> = Vec::new();
        if leader.is_none() {
            problems.push((Health::Unavailable, NO_CONTROL_LEADER.to_owned()));
        }
        for node in self.state.nodes().values() {
            let found = self.node_problems(node).into_iter();
            problems.extend(found.map(|problem| (Health::Degraded, format!("node {}: {problem}", node.id))));
        }
        for (collection, shard) in self.state.shards() {
            let info = self.shard(collection, shard);
            let name = &collection.name;
            let found = info.problems.iter().map(|problem| format!("shard {} of {name}: {problem}", shard.id));
            problems.extend(found.map(|problem| (info.health, problem)));
        }
        problems.sort_by_key(|(health, _)| std::cmp::Reverse(*health));
        let health = problems.first().map_or(Health::Healthy, |(health, _)| *health);
        (health, problems.into_iter().map(|(_, problem)| problem).collect())
    }

    pub(super) fn node(&self, node: &Node) -> NodeInfo {
        let report = self.told.get(&node.id).map(|(report, _)| &**report);
        let hosted = report.map(|report| report.replicas.as_slice()).unwrap_or_default();
        // Who has not been heard of for a while may lead no longer.
        let led = hosted.iter().filter(|replica| replica.role == ReplicaRole::Leader && !self.is_silent(node.id));
        NodeInfo {
            id: node.id,
            incarnation: node.incarnation,
            peer_address: node.place.peer_address.clone(),
            api_address: node.place.api_address.clone(),
            zone: node.place.zone.clone(),
            coordinator: node.place.roles.coordinator,
            shard: node.place.roles.shard,
            status: node.status,
            joined_unix_micros: node.joined_unix_micros,
            voter: self.state.voters().contains(&node.id),
            silent_ms: self.told.get(&node.id).map(|(_, silence)| silence.as_millis() as u64),
            wanted_replicas: self.wanted(node.id),
            hosted_replicas: hosted.len() as u32,
            led_shards: led.count() as u32,
            waiting_searches: report.map_or(0, |report| report.searches_waiting),
            problems: self.node_problems(node),
        }
    }

    fn node_problems(&self, node: &Node) -> Vec<String> {
        let mut problems = Vec::new();
        let told = self.told.get(&node.id);
        match (node.status, told) {
            (NodeStatus::Removed | NodeStatus::Drained | NodeStatus::Joining, _) => return problems,
            (NodeStatus::Lost, _) => problems.push("lost: start it again, or let its replicas be made anew".to_owned()),
            (_, Some((_, silence))) if *silence >= SILENT => {
                problems.push(format!("not heard of for {} s", silence.as_secs()));
            }
            (_, None) => problems.push("not heard of yet".to_owned()),
            _ => {}
        }
        if let Some((report, _)) = told {
            problems.extend(report.shortage.clone());
        }
        problems
    }

    pub(super) fn shard(&self, collection: &Collection, shard: &ShardDescriptor) -> ShardInfo {
        let leader = self.reports.leader(shard.id).filter(|leader| !self.is_silent(*leader));
        // What a node told that has fallen silent may be wrong by now, that it leads above all.
        let told = |node| self.told(node, shard.id).filter(|_| !self.is_silent(node));
        let led = leader.and_then(told);
        let hosts = self.hosts(shard.id).iter().filter(|node| !self.is_silent(**node));
        let mut nodes: Vec<u64> = shard.replicas.iter().chain(hosts).copied().collect();
        nodes.sort_unstable();
        nodes.dedup();
        let replicas: Vec<ReplicaInfo> = nodes
            .into_iter()
            .map(|node| ReplicaInfo {
                node,
                wanted: shard.replicas.contains(&node),
                told: told(node).map(|replica| shown(replica, led)),
            })
            .collect();
        let mut problems = Vec::new();
        if leader.is_none() {
            let way_out = schedule::way_out(&self.state, shard, collection.name.as_str());
            let way_out = way_out.map_or_else(String::new, |what| format!("; {what}"));
            problems.push(format!("it has no leader: it takes no writes{way_out}"));
        }
        if let Some(split) = self.state.split_on(shard.id).filter(|split| split.step == SplitStep::Found) {
            let (id, right) = (split.id, split.right.id);
            problems
                .push(format!("it is being split (operation {id}): it answers nobody until shard {right} does, too"));
        }
        if shard.replicas.len() < collection.replication as usize {
            let (have, want) = (shard.replicas.len(), collection.replication);
            problems.push(format!("it has {have} replicas instead of {want}"));
        }
        for replica in &replicas {
            let problem = self.replica_problem(replica);
            problems.extend(problem.map(|problem| format!("the replica on node {} {problem}", replica.node)));
        }
        let health = match (leader, problems.is_empty()) {
            (None, _) => Health::Unavailable,
            (Some(_), false) => Health::Degraded,
            (Some(_), true) => Health::Healthy,
        };
        ShardInfo {
            id: shard.id,
            collection: collection.name.clone(),
            first_hash: shard.range.first,
            last_hash: shard.range.last,
            epoch: shard.epoch,
            replicas,
            leader,
            applied: led.map_or(0, |led| led.applied),
            points: led.map_or(0, |led| led.points),
            disk_bytes: led.map_or(0, |led| led.disk_bytes),
            data_bytes: led.map_or(0, |led| led.data_bytes),
            load: led.map_or_else(Default::default, |led| led.load),
            health,
            problems,
        }
    }

    fn replica_problem(&self, replica: &ReplicaInfo) -> Option<String> {
        if !replica.wanted {
            return None;
        }
        if self.is_silent(replica.node) {
            return Some("is not heard of".to_owned());
        }
        let Some(told) = &replica.told else { return Some("is not there yet".to_owned()) };
        if let Some(problem) = &told.problem {
            return Some(format!("does not serve: {problem}"));
        }
        match told.lag_entries {
            Some(lag) if lag > MAX_LAG => Some(format!("is {lag} entries behind")),
            _ if told.role == ReplicaRole::Learner => Some("has no vote yet".to_owned()),
            _ => None,
        }
    }
}

fn shown(replica: &ReplicaReport, leader: Option<&ReplicaReport>) -> ReplicaTold {
    ReplicaTold {
        role: replica.role,
        epoch: replica.epoch,
        term: replica.term,
        applied: replica.applied,
        lag_entries: leader.map(|leader| leader.applied.saturating_sub(replica.applied)),
        points: replica.points,
        disk_bytes: replica.disk_bytes,
        data_bytes: replica.data_bytes,
        load: replica.load,
        problem: replica.problem.clone(),
    }
}

#[cfg(test)]
mod tests;
