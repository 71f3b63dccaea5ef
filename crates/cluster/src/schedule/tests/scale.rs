//! The scheduler over a large cluster, of which each second is played: how it heals and fills up, within which bounds, and how long a look
//! at it takes. `SAGITTA_SCALE=1000` plays as many nodes, with thirty shards of three replicas each.

use std::collections::btree_map::Entry;
use std::time::Instant;

use sagitta_model::{IndexPolicy, Metric, Schema, VectorSpec};

use super::*;
use crate::node::{Place, Roles};
use crate::operation::MemberChange;
use crate::report::ReplicaLoad;

const ZONES: u64 = 10;
const SHARDS_A_NODE: u64 = 30;
/// The last entry of every log.
const COMMITTED: u64 = 10_000;
/// Bytes that a node receives in a second.
const RECEIVED: u64 = 100 << 20;
/// After so many seconds of silence the leader of the control group calls a node lost.
const LOST_AFTER: u64 = 30;
const FOR_EVER: u64 = u64::MAX;

struct Crowd {
    state: State,
    limits: Limits,
    dice: u64,
    second: u64,
    groups: BTreeMap<u64, Group>,
    /// The shards of which each node has data.
    hosted: BTreeMap<u64, BTreeSet<u64>>,
    told: BTreeMap<u64, Told>,
    /// Nodes that have other things to tell than they told last.
    changed: BTreeSet<u64>,
    /// Nodes that are down: since when, and until when.
    down: BTreeMap<u64, (u64, u64)>,
    /// Whether nodes restart now and then.
    restarts: bool,
    figures: Figures,
}

struct Group {
    members: GroupMembers,
    leader: Option<u64>,
    leads_since: u64,
    term: u64,
    bytes: u64,
    /// What each copy has of them.
    copies: BTreeMap<u64, u64>,
}

/// What happened in one part of the play.
#[derive(Default)]
struct Figures {
    looks: u32,
    looked: Duration,
    longest: Duration,
    begun: BTreeMap<OperationKind, usize>,
    commands: usize,
    handovers: usize,
    at_once: usize,
    restarts: usize,
}

impl Crowd {
    fn new(nodes: u64) -> Self {
        let mut crowd = Self {
            state: State::new(1),
            limits: Limits::default(),
            dice: 0x9e37_79b9_7f4a_7c15,
            second: 0,
            groups: BTreeMap::new(),
            hosted: BTreeMap::new(),
            told: BTreeMap::new(),
            changed: BTreeSet::new(),
            down: BTreeMap::new(),
            restarts: false,
            figures: Figures::default(),
        };
        (1..=nodes).for_each(|id| crowd.join(id));
        let (shards, collections) = (10 * SHARDS_A_NODE as u32, nodes.div_ceil(10));
        (1..=collections).for_each(|id| crowd.create(u128::from(id), shards));
        crowd
    }

    fn join(&mut self, id: u64) {
        let roles = Roles { coordinator: false, shard: true };
        let (peer_address, api_address) = (format!("http://n{id}:1"), format!("http://n{id}:2"));
        let place = Place { peer_address, api_address, zone: format!("z{}", id % ZONES), roles };
        self.apply(Command::Join { id, incarnation: id.into(), run: 0, place, unix_micros: 1 });
        self.apply(Command::SetNodeStatus { id, status: NodeStatus::Up });
        self.hosted.insert(id, BTreeSet::new());
        self.changed.insert(id);
    }

    fn create(&mut self, id: u128, shards: u32) {
        let mut schema = Schema::default();
        schema.vectors.insert("v".into(), VectorSpec { dim: 1, metric: Metric::L2, index: IndexPolicy::Flat });
        let (name, replication) = (format!("c{id}").parse().expect("a name"), 3);
        let create =
            Command::CreateCollection { request_id: id, id, name, schema, shards, replication, unix_micros: 1 };
        let Ok(crate::outcome::Effect::Created(created)) = self.state.apply(create) else { panic!("not created") };
        for shard in &created.shards {
            let bytes = (64 << 20) + self.below(2 << 30);
            let leader = Some(shard.replicas[self.below(3) as usize]);
            let members = GroupMembers { voters: shard.replicas.clone(), learners: Vec::new() };
            let copies = shard.replicas.iter().map(|node| (*node, bytes)).collect();
            self.groups.insert(shard.id, Group { members, leader, leads_since: 0, term: 2, bytes, copies });
            for node in &shard.replicas {
                self.hosted.entry(*node).or_default().insert(shard.id);
            }
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % bound
    }

    #[track_caller]
    fn apply(&mut self, command: Command) {
        if let Err(refusal) = self.state.apply(command.clone()) {
            panic!("second {}: {command:?}: {refusal}", self.second);
        }
    }

    fn is_up(&self, node: u64) -> bool {
        !self.down.contains_key(&node)
    }

    /// One second: nodes fall and come back, the scheduler looks, and everybody does what is decided.
    fn step(&mut self) {
        self.second += 1;
        self.fail_and_come_back();
        self.tell();
        let (commands, handovers) = self.look();
        self.figures.commands += commands.len();
        for command in commands {
            if let Command::BeginOperation { kind, .. } = &command {
                *self.figures.begun.entry(*kind).or_default() += 1;
            }
            self.apply(command);
        }
        for Handover { shard, to, .. } in handovers {
            self.figures.handovers += 1;
            self.lead(shard, Some(to));
        }
        self.follow();
        self.check_limits();
    }

    fn fail_and_come_back(&mut self) {
        let nodes = self.state.nodes().len() as u64;
        // Each node restarts every six hours, for up to a minute and a half.
        if self.restarts && self.below(21_600) < nodes {
            let node = 1 + self.below(nodes);
            if self.is_up(node) {
                let until = self.second + 20 + self.below(70);
                self.figures.restarts += 1;
                self.fall(node, until);
            }
        }
        for (node, (since, until)) in self.down.clone() {
            let status = self.state.nodes()[&node].status;
            if self.second >= until {
                self.down.remove(&node);
                self.come_back(node);
                if status == NodeStatus::Lost {
                    self.apply(Command::SetNodeStatus { id: node, status: NodeStatus::Up });
                }
            } else if self.second - since >= LOST_AFTER && status == NodeStatus::Up {
                self.apply(Command::SetNodeStatus { id: node, status: NodeStatus::Lost });
            }
        }
    }

    fn fall(&mut self, node: u64, until: u64) {
        self.down.insert(node, (self.second, until));
        for shard in self.hosted[&node].clone() {
            if self.groups[&shard].leader == Some(node) {
                self.elect(shard);
            }
        }
    }

    fn come_back(&mut self, node: u64) {
        let wanted: BTreeSet<u64> = self.state.shards_on(node).map(|(_, shard)| shard.id).collect();
        for shard in self.hosted[&node].clone() {
            if !wanted.contains(&shard) {
                self.remove(node, shard);
            } else if self.groups[&shard].leader.is_none() {
                self.elect(shard);
            }
        }
        self.changed.insert(node);
    }

    /// A voter that is up leads, if most are.
    fn elect(&mut self, shard: u64) {
        let voters = self.groups[&shard].members.voters.clone();
        let up: Vec<u64> = voters.iter().copied().filter(|voter| self.is_up(*voter)).collect();
        let leader = if 2 * up.len() > voters.len() { Some(up[self.below(up.len() as u64) as usize]) } else { None };
        self.lead(shard, leader);
    }

    fn lead(&mut self, shard: u64, leader: Option<u64>) {
        let group = self.groups.get_mut(&shard).expect("it is there");
        (group.leader, group.leads_since, group.term) = (leader, self.second, group.term + 1);
        self.changed.extend(group.copies.keys());
    }

    fn remove(&mut self, node: u64, shard: u64) {
        let group = self.groups.get_mut(&shard).expect("it is there");
        assert!(!group.members.voters.contains(&node), "the data of a voter is removed");
        group.copies.remove(&node);
        self.hosted.entry(node).or_default().remove(&shard);
        self.changed.insert(node);
    }

    fn tell(&mut self) {
        for node in std::mem::take(&mut self.changed) {
            let replicas = self.hosted[&node].iter().map(|shard| self.replica(node, *shard)).collect();
            let report = Some(Arc::new(Report { replicas, ..Report::default() }));
            self.told.insert(node, Told { report, silence: Duration::ZERO });
        }
        for (node, (since, _)) in &self.down {
            let silence = Duration::from_secs(self.second - since);
            self.told.insert(*node, Told { report: None, silence });
        }
    }

    fn replica(&self, node: u64, shard: u64) -> ReplicaReport {
        let group = &self.groups[&shard];
        let (leads, has) = (group.leader == Some(node), group.copies[&node]);
        ReplicaReport {
            shard,
            epoch: 1,
            role: match leads {
                true => ReplicaRole::Leader,
                false if group.members.learners.contains(&node) => ReplicaRole::Learner,
                false => ReplicaRole::Follower,
            },
            leader: group.leader,
            term: group.term,
            applied: if has == group.bytes { COMMITTED } else { 1 },
            points: 0,
            disk_bytes: has,
            data_bytes: has,
            load: ReplicaLoad::default(),
            problem: None,
            split: None,
            members: leads.then(|| group.members.clone()),
            last: Floor { term: group.term, index: COMMITTED },
        }
    }

    #[expect(clippy::disallowed_methods, reason = "how long a look takes is what is measured; nothing passes by it")]
    fn look(&mut self) -> (Vec<Command>, Vec<Handover>) {
        let before = Instant::now();
        let commands = plan(&self.state, &self.told, &self.limits, self.second * 1_000_000).commands;
        let leads_for = |shard: u64| Duration::from_secs(self.second - self.groups[&shard].leads_since);
        let handovers = handovers(&self.state, &self.told, &self.limits, leads_for);
        let took = Instant::now() - before;
        self.figures.looks += 1;
        self.figures.looked += took;
        self.figures.longest = self.figures.longest.max(took);
        (commands, handovers)
    }

    /// Nodes host and remove what they should; leaders make members whom operations ask for, and send them what they lack.
    fn follow(&mut self) {
        let operations: Vec<_> = self.state.operations().cloned().collect();
        let mut into: BTreeMap<u64, u64> = BTreeMap::new();
        for one in operations.iter().filter(|one| one.is_under_way()) {
            *into.entry(one.to).or_default() += 1;
        }
        for one in operations {
            if one.brings_to(one.to) {
                if self.is_up(one.to) {
                    self.receive(&one, RECEIVED / into[&one.to]);
                }
            } else {
                let gone = if one.step == OperationStep::Cancelled { Some(one.to) } else { one.from };
                let gone = gone.filter(|node| self.is_up(*node) && self.groups[&one.shard].copies.contains_key(node));
                let is_wanted = |node: &u64| self.state.shards_on(*node).any(|(_, shard)| shard.id == one.shard);
                if let Some(node) = gone.filter(|node| !is_wanted(node)) {
                    self.remove(node, one.shard);
                }
            }
            let group = &self.groups[&one.shard];
            let Some(leader) = group.leader.filter(|_| one.is_under_way()) else { continue };
            match one.next_change(&group.members, leader) {
                Some(MemberChange::HandOver(others)) => {
                    let next = others.into_iter().find(|other| self.is_up(*other));
                    next.into_iter().for_each(|next| self.lead(one.shard, Some(next)));
                }
                Some(MemberChange::Members(next)) => self.change(one.shard, leader, next),
                None => {}
            }
        }
    }

    fn receive(&mut self, one: &Operation, most: u64) {
        let group = self.groups.get_mut(&one.shard).expect("it is there");
        if let Entry::Vacant(new) = group.copies.entry(one.to) {
            new.insert(0);
            self.hosted.entry(one.to).or_default().insert(one.shard);
            self.changed.insert(one.to);
        }
        let has = group.copies.get_mut(&one.to).expect("a moment ago");
        if group.members.learners.contains(&one.to) && group.leader.is_some() && *has < group.bytes {
            *has = (*has + most).min(group.bytes);
            self.changed.insert(one.to);
        }
    }

    fn change(&mut self, shard: u64, leader: u64, next: GroupMembers) {
        let group = &self.groups[&shard];
        let ready = |voter: &u64| group.copies.get(voter) == Some(&group.bytes);
        let up = next.voters.iter().filter(|voter| self.is_up(**voter)).count();
        if next.voters.iter().all(ready) && 2 * up > next.voters.len() {
            self.groups.get_mut(&shard).expect("it is there").members = next;
            self.changed.insert(leader);
        }
    }

    fn check_limits(&mut self) {
        let limits = self.limits.for_nodes(self.state.nodes_for_replicas());
        let under_way: Vec<_> = self.state.operations().filter(|one| one.is_under_way()).collect();
        self.figures.at_once = self.figures.at_once.max(under_way.len());
        assert!(under_way.len() <= limits.at_once, "{} at once", under_way.len());
        let balancing = under_way.iter().filter(|one| one.kind == OperationKind::Rebalance).count();
        assert!(balancing <= limits.balance_at_once, "{balancing} of them for balance");
        let (mut into, mut out_of) = (BTreeMap::new(), BTreeMap::new());
        for one in &under_way {
            *into.entry(one.to).or_insert(0) += 1;
            if let Some(from) = one.from.filter(|_| one.kind != OperationKind::Repair) {
                *out_of.entry(from).or_insert(0) += 1;
            }
        }
        let most = into.into_values().chain(out_of.into_values()).max().unwrap_or(0);
        assert!(most <= limits.per_node, "{most} into or out of one node");
    }

    fn is_idle(&self) -> bool {
        // While a node is silent its replicas stay where they are.
        self.down.values().all(|(_, until)| *until == FOR_EVER)
            && self.state.operations().all(|one| !one.is_under_way())
            && plan(&self.state, &self.told, &self.limits, self.second * 1_000_000) == Plan::default()
    }

    fn placed_on(&self, nodes: &[u64]) -> usize {
        self.state.shards().flat_map(|(_, shard)| &shard.replicas).filter(|node| nodes.contains(node)).count()
    }

    /// Plays until something has come about, at most for so many seconds. Tells what happened meanwhile.
    fn run(&mut self, what: &str, seconds: u64, come_about: impl Fn(&Self) -> bool) -> Figures {
        let begun = self.second;
        self.figures = Figures::default();
        while self.figures.looks == 0 || !come_about(self) {
            assert!(self.second < begun + seconds, "{what}: not within {seconds} s");
            self.step();
        }
        self.state.check(None).expect("the state is sound");
        let figures = std::mem::take(&mut self.figures);
        let mean = figures.looked / figures.looks;
        println!(
            "{what}: {} s, {:?}, {} commands, at most {} at once, {} handovers, {} restarts; a look {:.1} ms, at most {:.1}",
            self.second - begun,
            figures.begun,
            figures.commands,
            figures.at_once,
            figures.handovers,
            figures.restarts,
            mean.as_secs_f64() * 1e3,
            figures.longest.as_secs_f64() * 1e3,
        );
        figures
    }

    /// Every replica of a shard is in a zone of its own.
    fn check_zones(&self) {
        for (_, shard) in self.state.shards() {
            let zones: BTreeSet<_> = shard.replicas.iter().map(|node| &*self.state.nodes()[node].place.zone).collect();
            assert_eq!((zones.len(), shard.replicas.len()), (3, 3), "shard {}: {:?}", shard.id, shard.replicas);
        }
    }
}

#[test]
fn a_large_cluster_heals_and_fills_up_within_bounds() {
    let nodes = std::env::var("SAGITTA_SCALE").ok().and_then(|nodes| nodes.parse().ok()).unwrap_or(100);
    let mut crowd = Crowd::new(nodes);
    println!("{nodes} nodes, {} shards of three replicas", crowd.groups.len());
    crowd.run("to hold alike by bytes", 20_000, Crowd::is_idle);
    crowd.check_zones();
    crowd.restarts = true;
    // A rack of one zone: groups that lose one member only can be healed.
    let lost: Vec<u64> = (1..=nodes).filter(|node| node % ZONES == 3).take((nodes / 100).max(2) as usize).collect();
    let replicas = crowd.placed_on(&lost);
    for node in &lost {
        crowd.fall(*node, FOR_EVER);
    }
    let gone = lost.clone();
    let is_healed = move |crowd: &Crowd| {
        crowd.second.is_multiple_of(10)
            && crowd.placed_on(&gone) == 0
            && crowd.state.operations().all(|one| !one.is_under_way() || one.kind != OperationKind::Repair)
    };
    let healed = crowd.run(&format!("to heal {} lost nodes with {replicas} replicas", lost.len()), 7_200, is_healed);
    crowd.check_zones();
    let repairs = healed.begun[&OperationKind::Repair];
    assert!(repairs >= replicas && repairs <= replicas + replicas / 10 + 2, "{repairs} repairs of {replicas} replicas");
    let ended: usize = healed.begun.values().sum();
    assert!(healed.commands <= 5 * ended + 2 * crowd.limits.for_nodes(nodes as usize).at_once, "{}", healed.commands);
    crowd.restarts = false;
    crowd.run("to be at rest again", 20_000, Crowd::is_idle);
    for new in 1..=(nodes / 20) {
        crowd.join(nodes + new);
    }
    let filled = crowd.run(&format!("to fill {} new nodes", nodes / 20), 40_000, Crowd::is_idle);
    crowd.check_zones();
    let held: Vec<usize> = (nodes + 1..=nodes + nodes / 20).map(|node| crowd.placed_on(&[node])).collect();
    let mean = 90 * nodes as usize / crowd.state.nodes_for_replicas();
    assert!(held.iter().all(|held| *held > mean / 2), "{held:?} of {mean}");
    assert_eq!(filled.begun.keys().collect::<Vec<_>>(), [&OperationKind::Rebalance]);
}
