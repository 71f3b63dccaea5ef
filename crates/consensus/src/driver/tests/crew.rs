//! Several nodes in one process, driven by hand: messages travel when told to, nodes lose power and come back.

use std::hash::{DefaultHasher, Hash, Hasher};

use sagitta_env::ManualClock;
use tokio::sync::watch;

use super::*;
use crate::log::GroupState;
use crate::testing::{Depot, Image};
use crate::transport::memory::MemoryNetwork;

pub(super) struct Crew {
    pub(super) network: MemoryNetwork,
    env: Env,
    clock: ManualClock,
    founders: Vec<NodeId>,
    members: Vec<Member>,
    /// Who stands at once when the group is founded.
    pub(super) stands_first: Option<usize>,
    /// Who is to go on alone when it is opened next, and from which term on.
    pub(super) alone_from: Option<(usize, u64)>,
    /// Whether members offer their states.
    depot: Option<Depot>,
    trace: DefaultHasher,
}

struct Member {
    log: MemoryLog,
    machine: TestMachine,
    /// Where its log begins, if the group was founded on a state that it had.
    found_at: Option<Position>,
    /// Where the log stood when it left the group, if it did, or when the group was founded.
    floor: Option<Position>,
    /// `None` while it is down.
    life: Option<(Bench, watch::Receiver<GroupStatus>)>,
}

/// The name of the node at a place, counted from 0.
pub(super) fn node_id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

pub(super) fn ids(nodes: &[usize]) -> Vec<NodeId> {
    nodes.iter().copied().map(node_id).collect()
}

impl Crew {
    /// A group founded by so many nodes.
    pub(super) fn new(seed: u64, founders: usize) -> Self {
        Self::with(seed, founders, None)
    }

    /// The same, with members that offer their states to each other.
    pub(super) fn offering(seed: u64, founders: usize) -> Self {
        Self::with(seed, founders, Some(Depot::default()))
    }

    fn with(seed: u64, founders: usize, depot: Option<Depot>) -> Self {
        let (env, clock) = Env::seeded(seed);
        let mut crew = Self {
            network: MemoryNetwork::default(),
            env,
            clock,
            founders: (0..founders).map(node_id).collect(),
            members: Vec::new(),
            stands_first: None,
            alone_from: None,
            depot,
            trace: DefaultHasher::new(),
        };
        for _ in 0..founders {
            crew.join();
        }
        crew
    }

    /// A group founded on a state by so many nodes, of which these have it, and the others nothing.
    pub(super) fn founded_on(seed: u64, founders: usize, state: &Image, have: &[usize]) -> Self {
        let mut crew = Self::about_to_found(seed, founders, state, have);
        (0..founders).for_each(|node| crew.start(node));
        crew
    }

    /// The same before any of them runs.
    pub(super) fn about_to_found(seed: u64, founders: usize, state: &Image, have: &[usize]) -> Self {
        let mut crew = Self::with(seed, 0, Some(Depot::default()));
        crew.founders = (0..founders).map(node_id).collect();
        for node in 0..founders {
            let machine = TestMachine::default();
            machine.lock().depot = crew.depot.clone();
            let has = have.contains(&node);
            if has {
                let mut held = machine.lock();
                (held.live, held.durable) = (state.clone(), state.clone());
            }
            let (found_at, floor) = (has.then_some(state.applied), Some(state.applied));
            crew.members.push(Member { log: MemoryLog::new(), machine, found_at, floor, life: None });
        }
        crew
    }

    /// One more node, which nobody knows of yet. Returns its place.
    pub(super) fn join(&mut self) -> usize {
        let node = self.members.len();
        let machine = TestMachine::default();
        machine.lock().depot = self.depot.clone();
        self.members.push(Member { log: MemoryLog::new(), machine, found_at: None, floor: None, life: None });
        self.start(node);
        node
    }

    fn start(&mut self, node: usize) {
        let (id, env, clock) = (node_id(node), self.env.clone(), self.clock.clone());
        let member = &mut self.members[node];
        let transport = Arc::new(self.network.of(id));
        let mut bench = Bench::with(env, clock, id, Arc::new(member.log.clone()), transport);
        let (found_with, found_at, floor) = (Some(self.founders.clone()), member.found_at, member.floor);
        let stands_first = self.stands_first == Some(node);
        let alone_from = self.alone_from.filter(|(alone, _)| *alone == node).map(|(_, term)| term);
        let spec = GroupSpec { group: GROUP, found_with, found_at, floor, stands_first, alone_from };
        // A fault may have been injected: then it is not up.
        member.life = bench.open_as(spec, &member.machine).ok().map(|status| (bench, status));
        assert!(member.life.is_some() || alone_from.is_some(), "it opens");
    }

    /// The power fails: what was not synced is gone, and so is what was on its way to the node.
    pub(super) fn crash(&mut self, node: usize) {
        let member = &mut self.members[node];
        member.life = None;
        member.log = member.log.after_power_loss(0);
        member.machine = member.machine.after_power_loss();
        self.network.fetch(node_id(node));
    }

    pub(super) fn restart(&mut self, node: usize) {
        self.network.fetch(node_id(node));
        self.start(node);
    }

    /// Removes all that a node holds, which is opened anew like one that left the group when its log stood there.
    pub(super) fn wipe(&mut self, node: usize, floor: Option<Position>) {
        self.crash(node);
        let machine = TestMachine::default();
        machine.lock().depot = self.depot.clone();
        self.members[node] = Member { log: MemoryLog::new(), machine, found_at: None, floor, life: None };
        self.start(node);
    }

    pub(super) fn is_up(&self, node: usize) -> bool {
        self.members[node].life.is_some()
    }

    /// A number below this, by the seed.
    pub(super) fn draw(&self, below: usize) -> usize {
        self.env.random_below(below as u64) as usize
    }

    pub(super) fn now(&self) -> Duration {
        self.env.now()
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn bench(&mut self, node: usize) -> &mut Bench {
        &mut self.members[node].life.as_mut().expect("it is up").0
    }

    pub(super) fn status(&self, node: usize) -> GroupStatus {
        status(&self.members[node].life.as_ref().expect("it is up").1)
    }

    pub(super) fn machine(&self, node: usize) -> &TestMachine {
        &self.members[node].machine
    }

    /// Has the node's log ask for room.
    pub(super) fn crowd(&self, node: usize) {
        self.members[node].log.crowd(GROUP);
    }

    /// What the node's log holds of the group.
    pub(super) fn log(&self, node: usize) -> GroupState {
        self.members[node].log.load(GROUP).expect("readable").expect("founded")
    }

    /// Has an append of the node's log fail, the next or one so many later.
    pub(super) fn inject(&self, node: usize, later: u64, fault: Fault) {
        let log = &self.members[node].log;
        log.inject(log.appends() + later, fault);
    }

    pub(super) fn commands(&self, node: usize) -> Vec<Bytes> {
        self.machine(node).commands()
    }

    pub(super) fn propose(&mut self, node: usize, number: u64) -> oneshot::Receiver<Outcome> {
        self.bench(node).propose(GROUP, text(number))
    }

    pub(super) fn read(&mut self, node: usize) -> oneshot::Receiver<ReadOutcome> {
        self.bench(node).read(GROUP)
    }

    /// Delivers until nothing is under way.
    pub(super) fn settle(&mut self) {
        loop {
            let mut quiet = true;
            self.members.iter_mut().filter_map(|member| member.life.as_mut()).for_each(|(bench, _)| bench.run());
            for node in 0..self.members.len() {
                let mail = self.network.fetch(node_id(node));
                mail.hash(&mut self.trace);
                if let Some((bench, _)) = self.members[node].life.as_mut().filter(|_| !mail.is_empty()) {
                    bench.driver.handle(Input::Messages(mail, None));
                    quiet = false;
                }
            }
            if quiet {
                break;
            }
        }
    }

    pub(super) fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.clock.advance(TICK);
            for (bench, _) in self.members.iter_mut().filter_map(|member| member.life.as_mut()) {
                bench.driver.tick();
            }
            self.settle();
        }
    }

    /// Waits until exactly these nodes agree on a leader among them.
    pub(super) fn leader_among(&mut self, among: &[usize]) -> usize {
        for _ in 0..200 {
            let leads = |node: &usize| self.status(*node).role == Role::Leader;
            let leaders: Vec<_> = among.iter().copied().filter(leads).collect();
            let agreed = |leader| among.iter().all(|node| self.status(*node).leader == Some(node_id(leader)));
            if let [leader] = leaders[..]
                && agreed(leader)
            {
                return leader;
            }
            self.ticks(1);
        }
        panic!("no leader after 200 ticks");
    }

    /// What all messages so far come to.
    pub(super) fn trace(&self) -> u64 {
        self.trace.finish()
    }
}
