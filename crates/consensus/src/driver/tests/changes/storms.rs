//! Promise: whatever happens to members, in whatever order, the group decides again once a majority is up.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::settings::OFFER_AGAIN_TICKS;

/// Steps of one storm.
const STEPS: usize = 60;
/// Nodes, those that were wiped among them.
const MOST_NODES: usize = 12;

/// What a client and an operator know of a group while things happen to it.
struct Storm {
    crew: Crew,
    seed: u64,
    next: u64,
    outcomes: BTreeMap<u64, oneshot::Receiver<Outcome>>,
    acknowledged: Vec<u64>,
    /// Nodes that lost their disk: they never come back.
    wiped: BTreeSet<usize>,
    seen: Seen,
}

/// How often what was to be tried came about.
#[derive(Default)]
struct Seen {
    changes: usize,
    joint: usize,
    handovers: usize,
    crashes: usize,
    wiped: usize,
    installed: usize,
}

impl Storm {
    fn new(seed: u64) -> Self {
        // Half of the storms are over members that offer their states, and cut their logs.
        let crew = if seed.is_multiple_of(2) { Crew::new(seed, 3) } else { Crew::offering(seed, 3) };
        let (outcomes, acknowledged, wiped) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        Self { crew, seed, next: 0, outcomes, acknowledged, wiped, seen: Seen::default() }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.crew.draw(below)
    }

    fn up(&self) -> Vec<usize> {
        (0..self.crew.len()).filter(|node| self.crew.is_up(*node)).collect()
    }

    fn leader(&self) -> Option<usize> {
        let leads = |node: &usize| self.crew.status(*node).role == Role::Leader;
        self.up().into_iter().filter(leads).max_by_key(|node| self.crew.status(*node).term)
    }

    /// The newest membership that anybody knows.
    fn membership(&self) -> Membership {
        let newest = self.up().into_iter().max_by_key(|node| self.crew.status(*node).applied);
        newest.map(|node| self.crew.status(node).membership).expect("somebody is up")
    }

    /// How many voters may still fail: of both sets while a change is under way.
    fn spare(&self) -> usize {
        let now = self.membership();
        let spare = |voters: &[NodeId]| {
            let up = voters.iter().filter(|voter| self.crew.is_up(voter.0 as usize - 1)).count();
            up.saturating_sub(voters.len() / 2 + 1)
        };
        if now.is_joint() { spare(&now.voters).min(spare(&now.outgoing)) } else { spare(&now.voters) }
    }

    fn step(&mut self) {
        match self.draw(11) {
            0..3 => self.write(),
            3 | 4 => self.change(),
            5 => self.hand_over(),
            6 => self.crash(),
            7 => self.restart(),
            8 => self.part(),
            9 => self.cut_log(),
            _ => self.crew.network.heal(),
        }
        let ticks = self.draw(8);
        self.crew.ticks(ticks);
        self.collect();
        for node in self.up() {
            let condition = self.crew.status(node).condition;
            assert_eq!(condition, Condition::Running, "seed {}, node at {node}", self.seed);
        }
    }

    fn write(&mut self) {
        let Some(leader) = self.leader() else { return };
        for _ in 0..=self.draw(20) {
            self.outcomes.insert(self.next, self.crew.propose(leader, self.next));
            self.next += 1;
        }
    }

    fn change(&mut self) {
        let Some(leader) = self.leader() else { return };
        let now = self.crew.status(leader).membership;
        let mut wanted = now.members();
        for _ in 0..=self.draw(2) {
            match self.draw(4) {
                0 if wanted.voters.len() > 1 => drop(wanted.voters.remove(self.crew.draw(wanted.voters.len()))),
                1 if !wanted.learners.is_empty() => {
                    let grown = wanted.learners.remove(self.crew.draw(wanted.learners.len()));
                    wanted.voters.push(grown);
                }
                2 if wanted.voters.len() > 1 => {
                    let idle = wanted.voters.remove(self.crew.draw(wanted.voters.len()));
                    wanted.learners.push(idle);
                }
                _ if self.crew.len() < MOST_NODES => wanted.learners.push(node_id(self.crew.join())),
                _ => {}
            }
        }
        let mut outcome = change(&mut self.crew, leader, &wanted);
        self.crew.bench(leader).run();
        if !matches!(outcome.try_recv(), Ok(Outcome::Refused(_))) {
            self.seen.changes += 1;
            self.seen.joint += usize::from(now.steps_to(&wanted).get_changes().len() > 1);
        }
    }

    fn hand_over(&mut self) {
        let Some(leader) = self.leader() else { return };
        let voters = self.crew.status(leader).membership.voters;
        let to = voters[self.draw(voters.len())].0 as usize - 1;
        let mut outcome = hand_over(&mut self.crew, leader, to);
        self.crew.ticks(3);
        self.seen.handovers += usize::from(to != leader && outcome.try_recv() == Ok(HandoverOutcome::Done));
    }

    /// A node loses power, or its disk too: then it is gone for good, and only an operator can take it out.
    fn crash(&mut self) {
        let up = self.up();
        let node = up[self.draw(up.len())];
        if self.spare() == 0 || up.len() == 1 {
            return;
        }
        self.crew.crash(node);
        self.seen.crashes += 1;
        if self.draw(3) == 0 && self.may_lose(node) {
            self.wiped.insert(node);
            self.seen.wiped += 1;
        }
    }

    /// Whether the others decide without this node, now and after whatever is under way. They learn at once that it is silent.
    fn may_lose(&mut self, node: usize) -> bool {
        self.crew.network.heal();
        for other in (0..self.crew.len()).filter(|other| *other != node) {
            if !self.crew.is_up(other) && !self.wiped.contains(&other) {
                self.crew.restart(other);
            }
        }
        self.crew.ticks(STUCK_TICKS as usize + 4 * ELECTION_TICKS);
        let decide = self.leader().is_some_and(|leader| self.crew.status(leader).membership.voters.len() > 2);
        decide && !self.membership().is_joint() && self.spare() > 0
    }

    fn restart(&mut self) {
        let comes_back = |node: &usize| !self.crew.is_up(*node) && !self.wiped.contains(node);
        let down: Vec<_> = (0..self.crew.len()).filter(comes_back).collect();
        if !down.is_empty() {
            let node = down[self.draw(down.len())];
            self.crew.restart(node);
        }
    }

    fn part(&mut self) {
        let (from, to) = (self.draw(self.crew.len()), self.draw(self.crew.len()));
        if self.draw(2) == 0 {
            self.crew.network.cut(node_id(from), node_id(to));
        } else {
            let others: Vec<_> = (0..self.crew.len()).filter(|node| *node != from).collect();
            self.crew.network.isolate(node_id(from), &ids(&others));
        }
    }

    fn cut_log(&mut self) {
        let up = self.up();
        let node = up[self.draw(up.len())];
        self.crew.machine(node).make_durable();
        self.crew.crowd(node);
        self.crew.ticks(PURGE_TICKS as usize + POLL_TICKS as usize);
    }

    fn collect(&mut self) {
        self.outcomes.retain(|number, outcome| match outcome.try_recv() {
            Ok(Outcome::Applied(_)) => {
                self.acknowledged.push(*number);
                false
            }
            Ok(_) => false,
            Err(error) => error == oneshot::error::TryRecvError::Empty,
        });
    }

    /// Peace: everybody is up and hears everybody. The group has a leader, decides, and has lost nothing.
    fn end(mut self) -> Seen {
        let seed = self.seed;
        self.crew.network.heal();
        for node in 0..self.crew.len() {
            if !self.crew.is_up(node) && !self.wiped.contains(&node) {
                self.crew.restart(node);
            }
        }
        self.crew.ticks(OFFER_AGAIN_TICKS as usize + STUCK_TICKS as usize + 4 * ELECTION_TICKS);
        let leader = self.leader().unwrap_or_else(|| panic!("seed {seed}: nobody leads: {:?}", self.membership()));
        let now = self.crew.status(leader).membership;
        assert!(!now.is_joint(), "seed {seed}: a change never ended: {now:?}");
        let mut last = self.crew.propose(leader, u64::MAX);
        self.crew.ticks(6);
        let last = last.try_recv();
        let statuses = || self.up().into_iter().map(|node| self.crew.status(node)).collect::<Vec<_>>();
        assert!(matches!(last, Ok(Outcome::Applied(_))), "seed {seed}: {last:?}, {:#?}", statuses());
        self.collect();

        let commands = self.crew.commands(leader);
        for number in &self.acknowledged {
            assert!(commands.contains(&text(*number)), "seed {seed}: {number} was acknowledged and is lost");
        }
        for member in now.voters.iter().chain(&now.learners) {
            let node = member.0 as usize - 1;
            if self.wiped.contains(&node) {
                continue;
            }
            assert!(self.crew.commands(node) == commands, "seed {seed}: {member} holds something else");
            assert_eq!(self.crew.status(node).membership, now, "seed {seed}: {member}");
        }
        let installed = |node: &usize| self.crew.machine(*node).lock().live.installed.is_some();
        self.seen.installed = (0..self.crew.len()).filter(installed).count();
        self.seen
    }
}

/// So many seeds, or the one of `SAGITTA_SEED`.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SAGITTA_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..count).collect(),
    }
}

#[test]
fn whatever_happens_to_members_the_group_decides_again_and_has_lost_nothing() {
    let mut seen = Seen::default();
    for seed in seeds(200) {
        let mut storm = Storm::new(seed);
        for _ in 0..STEPS {
            storm.step();
        }
        let Seen { changes, joint, handovers, crashes, wiped, installed } = storm.end();
        seen.changes += changes;
        seen.joint += joint;
        seen.handovers += handovers;
        seen.crashes += crashes;
        seen.wiped += wiped;
        seen.installed += installed;
    }
    let Seen { changes, joint, handovers, crashes, wiped, installed } = seen;
    println!("{changes} changes, {joint} of them joint, {handovers} handovers, {crashes} crashes, {wiped} disks wiped");
    println!("{installed} states installed");
    assert!(
        changes > 500 && joint > 200 && handovers > 100 && crashes > 200 && wiped > 10 && installed > 50,
        "too little happened"
    );
}
