//! How nodes come, change and go.

use std::sync::Arc;

use super::State;
use crate::limits::{MAX_COORDINATORS, MAX_NODES};
use crate::node::{Node, NodeStatus, may_become, out_of_service};
use crate::outcome::{Effect, Refusal};

impl State {
    /// Lets a node in that is as new as this, or notes where one that is in is now.
    pub(super) fn join(&mut self, new: Node) -> Result<Effect, Refusal> {
        new.place.check()?;
        let id = new.id;
        let known = self.nodes.get(&id);
        let node = match known {
            Some(known) if known.incarnation != new.incarnation => {
                let (known, claimed) = (known.incarnation, new.incarnation);
                return Err(Refusal::OtherIncarnation { id, known, claimed });
            }
            Some(known) if known.status == NodeStatus::Removed => return Err(Refusal::Removed(id)),
            Some(known) if is_outdated(known, &new) => {
                let (known, claimed) = (known.run, new.run);
                return Err(Refusal::OtherRun { id, known, claimed });
            }
            Some(known) => Node { place: new.place, run: new.run, ..Node::clone(known) },
            None if self.nodes.len() >= MAX_NODES => return Err(Refusal::TooManyNodes(self.nodes.len())),
            None => new,
        };
        self.check_roles(known.map(|known| &**known), &node)?;
        let taken_over = self.taken_over(&node)?;
        let nodes = Arc::make_mut(&mut self.nodes);
        for other in taken_over {
            let other = Arc::make_mut(nodes.get_mut(&other).expect("invariant: it was found a moment ago"));
            for address in [&mut other.place.peer_address, &mut other.place.api_address] {
                if node.place.has(address) {
                    address.clear();
                }
            }
        }
        self.founder.get_or_insert(id);
        let node = Arc::new(node);
        nodes.insert(id, node.clone());
        if node.place.roles.shard {
            self.settle_on(id);
        }
        Ok(Effect::Node(node))
    }

    /// Whether a node may do what it says it does.
    fn check_roles(&self, before: Option<&Node>, node: &Node) -> Result<(), Refusal> {
        // One that is out of service counts no more: another one takes its place, or it could never be replaced.
        let serves = |other: &Node| is_coordinator(other) && !out_of_service(other.status);
        let others = self.nodes.values().filter(|other| other.id != node.id && serves(other)).count();
        let new = before.is_none_or(|before| !before.place.roles.coordinator);
        if new && node.place.roles.coordinator && others >= MAX_COORDINATORS {
            return Err(Refusal::TooManyCoordinators(others));
        }
        let Some(before) = before else { return Ok(()) };
        if !node.place.roles.coordinator && self.votes(before) {
            return Err(Refusal::Votes(node.id));
        }
        if !node.place.roles.shard {
            self.check_unwanted(node.id)?;
        }
        Ok(())
    }

    /// The nodes that lose an address to this one.
    fn taken_over(&self, node: &Node) -> Result<Vec<u64>, Refusal> {
        let mut losers = Vec::new();
        for other in self.nodes.values().filter(|other| other.id != node.id) {
            let Some(address) = node.place.addresses().into_iter().find(|address| other.place.has(address)) else {
                continue;
            };
            if !out_of_service(other.status) {
                let address = address.to_owned();
                return Err(Refusal::AddressTaken { address, node: other.id, status: other.status });
            }
            losers.push(other.id);
        }
        Ok(losers)
    }

    /// Shards that were made before nodes were known are on the only node that there was.
    fn settle_on(&mut self, node: u64) {
        if self.shards().all(|(_, shard)| !shard.replicas.is_empty()) {
            return;
        }
        for collection in Arc::make_mut(&mut self.collections).values_mut() {
            for shard in &mut Arc::make_mut(collection).shards {
                if shard.replicas.is_empty() {
                    (shard.replicas, shard.founders) = (vec![node], vec![node]);
                }
            }
        }
    }

    pub(super) fn set_node_status(&mut self, id: u64, status: NodeStatus) -> Result<Effect, Refusal> {
        let node = self.nodes.get(&id).ok_or(Refusal::NoNode(id))?;
        let from = node.status;
        if from == status {
            return Ok(Effect::Node(node.clone()));
        }
        if from == NodeStatus::Removed {
            return Err(Refusal::Removed(id));
        }
        if !may_become(from, status) {
            return Err(Refusal::Transition { node: id, from, to: status });
        }
        if matches!(status, NodeStatus::Drained | NodeStatus::Removed) {
            self.check_unwanted(id)?;
        }
        if status == NodeStatus::Removed && self.votes(node) {
            return Err(Refusal::Votes(id));
        }
        let nodes = Arc::make_mut(&mut self.nodes);
        let node = nodes.get_mut(&id).expect("invariant: it was found a moment ago");
        Arc::make_mut(node).status = status;
        Ok(Effect::Node(node.clone()))
    }

    /// Refuses if a shard should have a replica on this node.
    fn check_unwanted(&self, node: u64) -> Result<(), Refusal> {
        let mut wanting = self.shards_on(node).map(|(_, shard)| shard.id);
        match wanting.next() {
            Some(shard) => Err(Refusal::Wanted { node, shard, shards: 1 + wanting.count() }),
            None => Ok(()),
        }
    }

    /// Whether a node votes in the control group. Until somebody has said who does, every coordinator may.
    pub(super) fn votes(&self, node: &Node) -> bool {
        if self.voters.is_empty() { is_coordinator(node) } else { self.voters.contains(&node.id) }
    }

    pub(super) fn set_voters(&mut self, mut voters: Vec<u64>) -> Result<Effect, Refusal> {
        voters.sort_unstable();
        voters.dedup();
        if voters.is_empty() {
            return Err(Refusal::invalid("voters", "are none: a group without voters decides nothing"));
        }
        for &voter in &voters {
            let node = self.nodes.get(&voter).ok_or(Refusal::NoNode(voter))?;
            if node.status == NodeStatus::Removed {
                return Err(Refusal::Removed(voter));
            }
            if !node.place.roles.coordinator {
                return Err(Refusal::invalid(
                    "voters",
                    format!("name node {voter}, which has not the role coordinator"),
                ));
            }
        }
        self.voters.clone_from(&voters);
        Ok(Effect::Voters(voters))
    }
}

/// Whether what a start of a node's folder says of the node was overtaken. A start is in one place from its beginning to its end, so
/// that one of the same number elsewhere is that of a copy, or what it said before another node took its address over.
fn is_outdated(known: &Node, said: &Node) -> bool {
    said.run < known.run || said.run == known.run && said.run != 0 && said.place != known.place
}

/// Whether a node is one of the coordinators, of which there are few.
pub(crate) fn is_coordinator(node: &Node) -> bool {
    node.place.roles.coordinator && node.status != NodeStatus::Removed
}
