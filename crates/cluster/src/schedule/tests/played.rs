//! A cluster that is played: nodes that come and go, groups whose leaders do what operations ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sagitta_model::{IndexPolicy, Metric, Schema, VectorSpec};

use super::super::*;
use crate::merge::MergeStep;
use crate::node::{NodeStatus, Place, Roles};
use crate::operation::MemberChange;
use crate::report::{MergeReport, MergeStage, ReplicaLoad};
use crate::split::{Split, SplitStep};

pub(super) struct Played {
    pub(super) state: State,
    pub(super) limits: Limits,
    pub(super) seed: u64,
    dice: u64,
    pub(super) now: u64,
    requests: u128,
    groups: BTreeMap<u64, Group>,
    down: BTreeMap<u64, Duration>,
    short: BTreeSet<u64>,
    leaders_are_mute: bool,
    /// Bytes of each replica of a shard; none where it is not named.
    pub(super) sizes: BTreeMap<u64, u64>,
    /// Points of a shard; none where it is not named. Each takes a KiB.
    pub(super) points: BTreeMap<u64, u64>,
    /// What a shard's leader does, and what each other replica of it does; nothing where it is not named.
    pub(super) loads: BTreeMap<u64, (u64, u64)>,
    /// Search threads of each node.
    pub(super) threads: u32,
    /// By how many parts of a hundred the figures that are told are wrong at most, each time otherwise.
    pub(super) noise: u64,
    /// Who leads a shard, where that is not left to its term.
    led_by: BTreeMap<u64, u64>,
    /// Replicas that do not work.
    pub(super) broken: BTreeSet<(u64, u64)>,
    /// Nodes that do not follow the state.
    pub(super) behind: BTreeSet<u64>,
    /// Where the replicas of shards that were split have applied that: by node and shard.
    pub(super) split: BTreeMap<(u64, u64), Floor>,
    /// How far merges are, by shard: told by every node that hosts it.
    pub(super) stages: BTreeMap<u64, MergeReport>,
    /// Shards that are filled are never complete.
    pub(super) merges_are_stuck: bool,
}

struct Group {
    members: GroupMembers,
    term: u64,
    committed: u64,
    /// How far each copy is.
    copies: BTreeMap<u64, u64>,
    /// Where it begins.
    founded: Floor,
}

impl Played {
    pub(super) fn new(seed: u64, nodes: u64, zones: u64) -> Self {
        let mut played = Self {
            state: State::new(1),
            limits: Limits::default(),
            seed,
            dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now: 0,
            requests: 0,
            groups: BTreeMap::new(),
            down: BTreeMap::new(),
            short: BTreeSet::new(),
            leaders_are_mute: false,
            sizes: BTreeMap::new(),
            points: BTreeMap::new(),
            loads: BTreeMap::new(),
            threads: 4,
            noise: 0,
            led_by: BTreeMap::new(),
            broken: BTreeSet::new(),
            behind: BTreeSet::new(),
            split: BTreeMap::new(),
            stages: BTreeMap::new(),
            merges_are_stuck: false,
        };
        for id in 1..=nodes {
            played.join(id, &format!("z{}", id % zones));
        }
        played
    }

    pub(super) fn join(&mut self, id: u64, zone: &str) {
        let roles = Roles { coordinator: false, shard: true };
        let (peer_address, api_address) = (format!("http://n{id}:1"), format!("http://n{id}:2"));
        let place = Place { peer_address, api_address, zone: zone.to_owned(), roles };
        self.apply(Command::Join { id, incarnation: id.into(), run: 0, place, unix_micros: 1 });
        self.set(id, NodeStatus::Up);
    }

    pub(super) fn create(&mut self, shards: u32, replication: u32) {
        self.requests += 1;
        let mut schema = Schema::default();
        schema.vectors.insert("v".into(), VectorSpec { dim: 1, metric: Metric::L2, index: IndexPolicy::Flat });
        let (request_id, name) = (self.requests, format!("c{}", self.requests).parse().expect("a name"));
        let id = request_id;
        self.apply(Command::CreateCollection { request_id, id, name, schema, shards, replication, unix_micros: 1 });
        for (_, shard) in self.state.shards() {
            self.groups.entry(shard.id).or_insert_with(|| Group {
                members: GroupMembers { voters: shard.replicas.clone(), learners: Vec::new() },
                term: 2,
                committed: 1_000,
                copies: shard.replicas.iter().map(|node| (*node, 1_000)).collect(),
                founded: Floor { term: 1, index: 1 },
            });
        }
    }

    #[track_caller]
    pub(super) fn apply(&mut self, command: Command) {
        let before = self.state.clone();
        let outcome = self.state.apply(command.clone());
        if let Err(wrong) = self.state.check(Some(&before)) {
            panic!("seed {}: {wrong} after {command:?}", self.seed);
        }
        assert!(outcome.is_ok(), "seed {}: {command:?}: {outcome:?}", self.seed);
    }

    pub(super) fn set(&mut self, id: u64, status: NodeStatus) {
        self.apply(Command::SetNodeStatus { id, status });
    }

    pub(super) fn lose(&mut self, id: u64) {
        self.set(id, NodeStatus::Lost);
        self.down.insert(id, Duration::ZERO);
    }

    pub(super) fn silent(&mut self, id: u64, silence: Duration) {
        self.down.insert(id, silence);
    }

    pub(super) fn shortage(&mut self, id: u64, short: bool) {
        if short {
            self.short.insert(id)
        } else {
            self.short.remove(&id)
        };
    }

    pub(super) fn mute_leaders(&mut self, mute: bool) {
        self.leaders_are_mute = mute;
    }

    pub(super) fn placed_on(&self, node: u64) -> usize {
        self.state.shards().filter(|(_, shard)| shard.replicas.contains(&node)).count()
    }

    pub(super) fn hosted_on(&self, node: u64) -> usize {
        self.groups.values().filter(|group| group.copies.contains_key(&node)).count()
    }

    pub(super) fn members(&self, shard: u64) -> &GroupMembers {
        &self.groups[&shard].members
    }

    /// Has the group of a shard these members, whatever operations ask for.
    pub(super) fn have_members(&mut self, shard: u64, voters: &[u64], learners: &[u64]) {
        let members = GroupMembers { voters: voters.to_vec(), learners: learners.to_vec() };
        let group = self.groups.get_mut(&shard).expect("it is one of ours");
        for node in voters.iter().chain(learners) {
            group.copies.entry(*node).or_insert(group.committed);
        }
        group.members = members;
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % bound
    }

    fn is_there(&self, node: u64) -> bool {
        !self.down.contains_key(&node)
    }

    /// The voter that leads: there must be a majority of voters.
    fn leader(&self, shard: u64) -> Option<u64> {
        let group = &self.groups[&shard];
        let there: Vec<u64> = group.members.voters.iter().copied().filter(|voter| self.is_there(*voter)).collect();
        let able = there.iter().copied().filter(|voter| group.copies.get(voter) == Some(&group.committed));
        let majority = 2 * there.len() > group.members.voters.len();
        let able: Vec<u64> = able.collect();
        if let Some(leader) = self.led_by.get(&shard).filter(|leader| majority && able.contains(leader)) {
            return Some(*leader);
        }
        // Who it is changes with the term.
        if majority && !able.is_empty() { Some(able[group.term as usize % able.len()]) } else { None }
    }

    pub(super) fn told(&self) -> BTreeMap<u64, Told> {
        let mut told = BTreeMap::new();
        for id in self.state.nodes().keys().copied() {
            let silence = self.down.get(&id).copied().unwrap_or_default();
            let shortage = self.short.contains(&id).then(|| "disk".to_owned());
            let deletions = if self.behind.contains(&id) { 0 } else { self.state.deletions() };
            let mut report = Report { shortage, deletions, search_threads: self.threads, ..Report::default() };
            for (shard, group) in self.groups.iter().filter(|(_, group)| group.copies.contains_key(&id)) {
                report.merges.extend(self.stages.get(shard));
                let leads = self.leader(*shard) == Some(id);
                let role = match leads {
                    true => ReplicaRole::Leader,
                    false if group.members.learners.contains(&id) => ReplicaRole::Learner,
                    false => ReplicaRole::Follower,
                };
                report.replicas.push(ReplicaReport {
                    shard: *shard,
                    epoch: 1,
                    role,
                    leader: self.leader(*shard),
                    term: group.term,
                    applied: group.copies[&id],
                    points: self.points.get(shard).copied().unwrap_or(0),
                    disk_bytes: self.bytes_told(id, *shard),
                    data_bytes: self.figure_told(id, *shard, self.data(*shard)),
                    load: self.load_told(id, *shard),
                    problem: self.broken.contains(&(id, *shard)).then(|| "planted".to_owned()),
                    split: self.split.get(&(id, *shard)).copied(),
                    members: (leads && !self.leaders_are_mute).then(|| group.members.clone()),
                    last: Floor { term: group.term, index: group.copies[&id] },
                });
            }
            told.insert(id, Told { report: self.is_there(id).then(|| Arc::new(report)), silence });
        }
        told
    }

    fn bytes_told(&self, node: u64, shard: u64) -> u64 {
        self.figure_told(node, shard, self.sizes.get(&shard).copied().unwrap_or(0))
    }

    /// Bytes that the points of a shard take.
    pub(super) fn data(&self, shard: u64) -> u64 {
        self.points.get(&shard).copied().unwrap_or(0) << 10
    }

    /// What a replica does.
    pub(super) fn load(&self, node: u64, shard: u64) -> u64 {
        let (leads, follows) = self.loads.get(&shard).copied().unwrap_or_default();
        if self.leader(shard) == Some(node) { leads } else { follows }
    }

    fn load_told(&self, node: u64, shard: u64) -> ReplicaLoad {
        let us = self.figure_told(node, shard, self.load(node, shard));
        ReplicaLoad { recent_us: us, lasting_us: us }
    }

    fn figure_told(&self, node: u64, shard: u64, figure: u64) -> u64 {
        let dice = [node, shard, self.now].iter().fold(self.seed, |dice, part| {
            let mixed = (dice ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^ mixed >> 29
        });
        figure * (1_000 - 10 * self.noise + dice % (20 * self.noise + 1)) / 1_000
    }

    /// Another replica leads a shard.
    pub(super) fn hand_over(&mut self, shard: u64, to: u64) {
        self.led_by.insert(shard, to);
        self.groups.get_mut(&shard).expect("it is one of ours").term += 1;
    }

    /// Who leads each shard that has a leader.
    pub(super) fn leaders(&self) -> BTreeMap<u64, u64> {
        self.groups.keys().filter_map(|shard| Some((*shard, self.leader(*shard)?))).collect()
    }

    /// A replica lacks so many entries.
    pub(super) fn lag(&mut self, node: u64, shard: u64, entries: u64) {
        let group = self.groups.get_mut(&shard).expect("it is one of ours");
        group.copies.insert(node, group.committed - entries);
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&self.state, &self.told(), &self.limits, self.now)
    }

    /// A look of the scheduler, whose leader may be killed after any of its decisions, and what nodes do about it.
    pub(super) fn step(&mut self) {
        self.now += 1;
        let commands = self.plan().commands;
        for command in &commands {
            let Command::SetNodeStatus { id, status: NodeStatus::Drained } = command else { continue };
            let leaves = |one: &Arc<Operation>| one.is_under_way() && one.from == Some(*id);
            let leaving = self.state.operations().find(|one| leaves(one));
            assert!(leaving.is_none(), "seed {}: node {id} may still hold what it gave up: {leaving:?}", self.seed);
        }
        let heard = self.below(commands.len() as u64 + 1) as usize;
        for command in commands.into_iter().take(heard.max(1)) {
            self.apply(command);
        }
        self.follow_merges();
        for shard in self.groups.keys().copied().collect::<Vec<_>>() {
            self.go_on_alone(shard);
            self.host(shard);
            if self.below(3) > 0 {
                self.lead(shard);
            }
        }
        let splits: Vec<_> = self.state.splits_under_way().cloned().collect();
        splits.iter().for_each(|split| self.divide(split));
    }

    /// The leader of a shard has it split, and whoever has applied that has a replica of the new one.
    fn divide(&mut self, split: &Split) {
        if split.step < SplitStep::Divide || self.leader(split.shard).is_none() {
            return;
        }
        let there: Vec<u64> = self.state.nodes().keys().copied().filter(|node| self.is_there(*node)).collect();
        let at = match self.groups.get(&split.right.id) {
            Some(right) => right.founded,
            None => {
                let group = self.groups.get_mut(&split.shard).expect("it is one of ours");
                group.committed += 1;
                let founded = Floor { term: group.term, index: group.committed };
                for (_, copy) in group.copies.iter_mut().filter(|(node, _)| there.contains(node)) {
                    *copy = founded.index;
                }
                let members = GroupMembers { voters: split.right.replicas.clone(), learners: Vec::new() };
                let (term, committed, copies) = (founded.term, founded.index, BTreeMap::new());
                self.groups.insert(split.right.id, Group { members, term, committed, copies, founded });
                let points = self.points.get(&split.shard).copied().unwrap_or(0);
                self.points.insert(split.shard, points / 2);
                self.points.insert(split.right.id, points - points / 2);
                founded
            }
        };
        let left = &self.groups[&split.shard];
        let applied: Vec<u64> =
            there.into_iter().filter(|node| left.copies.get(node).is_some_and(|copy| *copy >= at.index)).collect();
        let right = self.groups.get_mut(&split.right.id).expect("it is one of ours");
        for node in applied {
            if self.split.insert((node, split.shard), at) != Some(at) {
                self.split.insert((node, split.right.id), at);
                right.copies.insert(node, at.index);
            }
        }
    }

    /// The survivor of a shard that has lost its majority makes itself the only member, once.
    fn go_on_alone(&mut self, shard: u64) {
        let Some(recovery) = self.state.recovery_of(shard).filter(|one| self.is_there(one.survivor)) else { return };
        let group = self.groups.get_mut(&shard).expect("it is one of ours");
        if group.term < recovery.term {
            group.members = GroupMembers { voters: vec![recovery.survivor], learners: Vec::new() };
            (group.term, group.committed) = (recovery.term + 1, group.copies[&recovery.survivor]);
        }
    }

    /// Nodes found the groups of shards that are filled, and leaders do what the steps of merges ask for.
    fn follow_merges(&mut self) {
        for merge in self.state.merges().cloned().collect::<Vec<_>>() {
            if !merge.is_under_way() {
                // All of their groups, which no node names any more.
                let gone: &[u64] = match merge.step {
                    MergeStep::Done => &[merge.left, merge.right],
                    _ => &[merge.into.id],
                };
                let points = gone.iter().filter_map(|shard| self.points.remove(shard)).sum::<u64>();
                if merge.step == MergeStep::Done && points > 0 {
                    *self.points.entry(merge.into.id).or_default() += points;
                }
                gone.iter().for_each(|shard| drop(self.groups.remove(shard)));
                self.stages.retain(|_, stage| stage.merge != merge.id);
                continue;
            }
            let (into, index) = (&merge.into, merge.floor.index);
            self.groups.entry(into.id).or_insert_with(|| Group {
                members: GroupMembers { voters: into.replicas.clone(), learners: Vec::new() },
                term: merge.floor.term,
                committed: index,
                copies: into.replicas.iter().map(|node| (*node, index)).collect(),
                founded: merge.floor,
            });
            let reached: &[(u64, MergeStage)] = match merge.step {
                MergeStep::Copy => &[(into.id, MergeStage::Ready)],
                MergeStep::Freeze if self.merges_are_stuck => {
                    &[(merge.left, MergeStage::Frozen), (merge.right, MergeStage::Frozen)]
                }
                MergeStep::Freeze => &[
                    (merge.left, MergeStage::Frozen),
                    (merge.right, MergeStage::Frozen),
                    (into.id, MergeStage::Filled),
                ],
                MergeStep::Thaw => &[(merge.left, MergeStage::Thawed), (merge.right, MergeStage::Thawed)],
                _ => &[],
            };
            for (shard, stage) in reached {
                if self.below(3) == 0 && self.leader(*shard).is_some() {
                    self.stages.insert(*shard, MergeReport { shard: *shard, merge: merge.id, stage: *stage });
                }
            }
        }
    }

    /// Nodes host what they should, and remove what they should not.
    fn host(&mut self, shard: u64) {
        let there: Vec<u64> = self.state.nodes().keys().copied().filter(|node| self.is_there(*node)).collect();
        for node in there {
            let wanted = self.state.shards_on(node).any(|(_, one)| one.id == shard);
            let group = self.groups.get_mut(&shard).expect("it is one of ours");
            match wanted {
                true => {
                    group.copies.entry(node).or_insert(1);
                }
                false if group.copies.remove(&node).is_some() => {
                    assert!(!group.members.voters.contains(&node), "seed {}: a voter's data is removed", self.seed);
                }
                false => {}
            }
        }
    }

    /// The leader takes something in, brings it to who is there, and does what an operation asks for.
    fn lead(&mut self, shard: u64) {
        let fast = self.below(4) > 0;
        let Some(leader) = self.leader(shard) else { return };
        let there: BTreeSet<u64> = self.state.nodes().keys().copied().filter(|node| self.is_there(*node)).collect();
        let operation = self.state.operation_on(shard).cloned();
        let group = self.groups.get_mut(&shard).expect("it is one of ours");
        group.committed += 10;
        let (committed, members) = (group.committed, group.members.clone());
        for (node, applied) in
            group.copies.iter_mut().filter(|(node, _)| there.contains(node) && members.contains(**node))
        {
            // A voter has it at once; a learner catches up by and by.
            *applied = if members.voters.contains(node) || fast { committed } else { (*applied + 300).min(committed) };
        }
        let Some(change) = operation.and_then(|operation| operation.next_change(&members, leader)) else { return };
        match change {
            MemberChange::HandOver(_) => {
                group.term += 1;
                self.led_by.remove(&shard);
            }
            MemberChange::Members(next) => {
                let copies = &group.copies;
                let behind = |node: &&u64| copies.get(*node).is_none_or(|applied| applied + 256 < committed);
                let new = |node: &&u64| !members.voters.contains(*node);
                if next.voters.iter().filter(new).any(|node| behind(&node)) {
                    return;
                }
                let good = next.voters.iter().filter(|node| there.contains(*node) && !behind(node)).count();
                assert!(good > 0, "seed {}: {members:?} become {next:?}", self.seed);
                if 2 * next.voters.iter().filter(|node| there.contains(*node)).count() > next.voters.len() {
                    group.members = next;
                }
            }
        }
    }

    /// Something happens to a node.
    pub(super) fn trouble(&mut self) {
        let nodes = self.state.nodes().len() as u64;
        let node = 1 + self.below(nodes);
        let status = self.state.nodes()[&node].status;
        match self.below(8) {
            // At most two at once are down, so that groups of three get over it one after the other.
            0 if self.down.len() < 2 && matches!(status, NodeStatus::Up) => self.lose(node),
            0 if self.down.is_empty() && status == NodeStatus::Draining => {
                self.down.insert(node, Duration::ZERO);
            }
            1 | 2 => {
                if let Some(silence) = self.down.get_mut(&node) {
                    *silence += Duration::from_secs(400);
                }
            }
            3 => self.come_back(node),
            4 if status == NodeStatus::Up && self.draining() < 2 => self.set(node, NodeStatus::Draining),
            5 if matches!(status, NodeStatus::Draining | NodeStatus::Drained) => self.set(node, NodeStatus::Up),
            6 => {
                let open = self.state.operations().find(|one| one.step.can_be_cancelled()).map(|one| one.id);
                if let Some(id) = open {
                    self.apply(Command::CancelOperation { id });
                }
            }
            _ => {}
        }
    }

    fn draining(&self) -> usize {
        let leaving = [NodeStatus::Draining, NodeStatus::Drained];
        self.state.nodes().values().filter(|node| leaving.contains(&node.status)).count()
    }

    pub(super) fn come_back(&mut self, node: u64) {
        if self.down.remove(&node).is_some() && self.state.nodes()[&node].status == NodeStatus::Lost {
            self.set(node, NodeStatus::Up);
        }
    }

    /// Everybody is back; nothing happens any more.
    pub(super) fn end_trouble(&mut self) {
        for node in self.down.keys().copied().collect::<Vec<_>>() {
            self.come_back(node);
        }
    }

    /// Until nothing is left to do.
    pub(super) fn run_to_rest(&mut self) {
        for _ in 0..3_000 {
            self.step();
            let idle = self.plan() == Plan::default();
            let over = self.state.operations().all(|one| !one.is_under_way());
            let over = over && self.state.merges_under_way().next().is_none();
            if idle && over && self.state.splits_under_way().next().is_none() {
                for shard in self.groups.keys().copied().collect::<Vec<_>>() {
                    self.host(shard);
                }
                return;
            }
        }
        let open: Vec<_> = self.state.operations().filter(|one| one.is_under_way()).collect();
        panic!("seed {}: no rest: {open:?}, {:?}", self.seed, self.plan());
    }
}
