//! A cluster that runs itself, and somebody is killed right before or right after any step of anything that it does. Promises 1, 4, 8, 12
//! and 13 hold meanwhile, and it ends.

mod cases;
mod rest;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use sagitta_callers::{number, seed};
use sagitta_client::{Client, ClientError};
use sagitta_history::{Points, require, unsettled};
use sagitta_model::{Consistency, ErrorKind, MergeStep, NodeChange, OperationKind, ShardInfo};

use crate::disk::Disk;
use crate::heal::{IDS, wait_for};
use crate::lookout::Lookout;
use crate::merge::differences;
use crate::readers::{Readers, everything_at_rest, write};
use crate::workload::Workload;
use crate::world::{CALL, NEVER, Shape, World, breathe};
use cases::{Case, Doing, Event, Moment, Seen, Victim, cases, is_done};
use rest::{Goal, Told};

/// How many of those who can be killed at a moment are, one case each; `SAGITTA_VICTIMS` kills more, and 6 all of them.
const VICTIMS: u64 = 1;
const CLIENTS: u64 = 4;
/// Shorter than a node is silent before it is called lost.
const REPAIR_AFTER: Duration = Duration::from_secs(20);
/// A little shorter than that: clients that come before it see nothing happen.
const NEARLY_LOST: Duration = Duration::from_secs(27);
/// Longer than it takes until a node counts as silent, and shorter than until it counts as lost.
const UNHEARD: Duration = Duration::from_secs(5);
/// How long it may take to end once nobody is down any more. Another leader of the control group counts the silence of a node anew.
const ENDS_WITHIN: Duration = Duration::from_secs(90);
/// Seeds that are tried until something is cancelled before its next step, which takes a few milliseconds to agree on.
const TRIES: u64 = 20;
/// Exact searches that are compared with brute force in the end.
const QUERIES: u64 = 12;

/// Who is who before it begins.
struct Cast {
    /// Leads the control group.
    control: usize,
    /// A coordinator that is never killed.
    asked: usize,
    /// What the cluster calls each machine.
    ids: Vec<u64>,
    shards: Vec<ShardInfo>,
    /// A node that was killed for its replica to be made anew.
    gone: Option<usize>,
    /// Those of which whoever leads the control group hears nothing.
    unheard: Vec<usize>,
    /// The nodes that a replica is moved from and to where that is for the test to choose.
    from: u64,
    to: u64,
}

/// One case.
struct Run {
    case: Case,
    world: World,
    cast: Cast,
    workload: Workload,
    readers: Readers,
}

/// What came of the cases.
#[derive(Default)]
struct Tally {
    cases: usize,
    /// Of these, the ones in which whoever was killed had not gone beyond the step.
    exact: usize,
    writes: u64,
    looks: u64,
    virtual_time: Duration,
}

impl Cast {
    fn of(world: &mut World, case: Case, gone: Option<usize>) -> Self {
        let ids: Vec<u64> = (0..world.nodes.len()).map(|at| world.id(at)).collect();
        let lost = gone.map(|at| ids[at]);
        let shards = wait_for(world, 0, "points", move |shard| shard.leader.is_some() && shard.leader != lost);
        let control = world.control_leader();
        let asked = world.coordinators().into_iter().find(|at| *at != control).expect("there are three");
        let first = &shards[0];
        let leader = first.leader.expect("it was waited for");
        let holds = |node: &u64| first.replicas.iter().any(|replica| replica.node == *node);
        let follower = first.replicas.iter().map(|replica| replica.node).find(|node| *node != leader);
        // The harder way, unless somebody else than the source is to lead.
        let from = follower.filter(|_| !case.victim.allows_the_source_to_lead()).unwrap_or(leader);
        let free = world.shard_nodes().into_iter().map(|at| ids[at]).find(|id| !holds(id));
        Self {
            control,
            asked,
            ids,
            shards,
            gone,
            unheard: Vec::new(),
            from: lost.unwrap_or(from),
            to: free.unwrap_or(from),
        }
    }

    /// The machine of a node; one that was not there when these were told is the one that has joined.
    fn at(&self, id: u64) -> usize {
        self.ids.iter().position(|known| *known == id).unwrap_or(self.ids.len())
    }

    /// Who is to be killed.
    fn of_victim(&self, victim: Victim, seen: &Seen) -> usize {
        let shard = self.shards.iter().find(|shard| shard.id == seen.shard).expect("it was there");
        let leader = shard.leader.expect("it was waited for");
        let follows = |node: &u64| *node != leader && Some(*node) != seen.from;
        match victim {
            Victim::ControlLeader => self.control,
            Victim::LeadingSource | Victim::Source => self.at(seen.from.expect("it leaves a node")),
            Victim::Destination => self.at(seen.to.expect("it comes to a node")),
            Victim::Leader => self.at(leader),
            Victim::Follower => {
                let mut nodes = shard.replicas.iter().map(|replica| replica.node);
                self.at(nodes.find(follows).expect("three have a replica"))
            }
        }
    }
}

impl Run {
    fn set_up(case: Case, seed: u64) -> Self {
        let (nodes, shards, repair_after) = match case.doing {
            Doing::Replica(OperationKind::Repair) => (4, 1, REPAIR_AFTER),
            Doing::Replica(OperationKind::Drain | OperationKind::Move) => (4, 1, NEVER),
            // Of six replicas on three nodes one comes to a fourth.
            Doing::Replica(OperationKind::Rebalance) => (3, 2, NEVER),
            Doing::OnlyReplica => (2, 1, NEVER),
            Doing::Split => (3, 1, NEVER),
            Doing::Merge => (3, 2, NEVER),
        };
        let shape = Shape { coordinators: 3, shards: nodes };
        let mut world = World::found_with(seed, shape, |_| Disk::honest(), repair_after);
        world.create("points", shards, case.doing.replication());
        let steady = write(&mut world, "points");
        let is_repair = case.doing == Doing::Replica(OperationKind::Repair);
        let gone = is_repair.then(|| {
            let shards = wait_for(&mut world, 0, "points", |_| true);
            let holders: Vec<u64> = shards[0].replicas.iter().map(|replica| replica.node).collect();
            let id = world.dice.pick(&holders);
            let at = world.shard_nodes().into_iter().find(|at| world.id(*at) == id).expect("it is one of ours");
            world.kill(at);
            world.run_for(NEARLY_LOST);
            at
        });
        let cast = Cast::of(&mut world, case, gone);
        let workload = Workload::new("points", IDS, 50).pausing(100);
        workload.start(&world, CLIENTS);
        // A node that comes back shows any copy's reader what it had, of which it may have lost all that it had not flushed.
        let mut kinds = vec![Consistency::Strong];
        kinds.extend((!is_repair).then_some(Consistency::Eventual));
        let readers = Readers::of(&world, &steady, 100, &kinds);
        workload.wait_for(&mut world, 10);
        Self { case, world, cast, workload, readers }
    }

    /// Has it begin.
    fn begin(&mut self) {
        let (from, to) = (self.cast.from, self.cast.to);
        let (shard, epoch) = (self.cast.shards[0].id, self.cast.shards[0].epoch);
        // Asked for again once it has ended, it names what is not so any more.
        let is_over = |error: &ClientError| matches!(error.kind, ErrorKind::Invalid | ErrorKind::NotFound);
        match self.case.doing {
            Doing::Replica(OperationKind::Repair) => {}
            Doing::Replica(OperationKind::Drain) => self.insist(is_over, async move |client: &Client| {
                client.change_node(from, NodeChange::Drain, false).await.map(drop)
            }),
            Doing::Replica(OperationKind::Move) | Doing::OnlyReplica => self
                .insist(is_over, async move |client: &Client| {
                    client.move_replica(shard, from, to, false).await.map(drop)
                }),
            Doing::Replica(OperationKind::Rebalance) => {
                self.world.join();
            }
            Doing::Split => {
                if self.case.cancelled_at.is_some() {
                    self.part();
                }
                self.insist(is_over, async move |client: &Client| {
                    client.split_shard(shard, epoch, false).await.map(drop)
                });
            }
            Doing::Merge => {
                if self.case.cancelled_at == Some(Event::Merge(MergeStep::Prepare)) {
                    self.part();
                }
                let right = (self.cast.shards[1].id, self.cast.shards[1].epoch);
                self.insist(is_over, async move |client: &Client| {
                    client.merge_shards((shard, epoch), right, false).await.map(drop)
                });
            }
        }
    }

    /// Has whoever leads the control group hear nothing of a replica, of which all others do: what is begun waits there until that is over.
    fn part(&mut self) {
        let shard = &self.cast.shards[0];
        let mut nodes = shard.replicas.iter().map(|replica| replica.node);
        let unheard = self.cast.at(nodes.find(|node| Some(*node) != shard.leader).expect("three have a replica"));
        self.world.part(unheard, self.cast.control);
        self.world.run_for(UNHEARD);
        self.cast.unheard.push(unheard);
    }

    /// Has whoever leads the control group hear nothing of all nodes, so that what is frozen takes too long.
    fn part_from_all(&mut self) {
        for at in self.world.shard_nodes() {
            self.world.part(at, self.cast.control);
            self.cast.unheard.push(at);
        }
    }

    fn reconnect(&mut self) {
        for at in std::mem::take(&mut self.cast.unheard) {
            self.world.reconnect(at);
        }
    }

    fn cancel(&self, id: u64) {
        let is_over = |error: &ClientError| matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound);
        self.insist(is_over, async move |client: &Client| client.cancel_operation(id, false).await.map(drop));
    }

    /// Asks one coordinator after the other until it is done, or refused for good.
    fn insist(
        &self,
        is_over: impl Fn(&ClientError) -> bool + 'static,
        mut ask: impl AsyncFnMut(&Client) -> Result<(), ClientError> + 'static,
    ) {
        let others = self.world.coordinators().into_iter().filter(|at| *at != self.cast.asked);
        let makers: Vec<_> =
            [self.cast.asked].into_iter().chain(others).map(|at| self.world.client(at, CALL)).collect();
        let env = self.world.client_env();
        self.world.spawn(async move {
            let clients: Vec<Client> = makers.iter().map(|make| make()).collect();
            for client in clients.iter().cycle() {
                match ask(client).await {
                    Ok(()) => return,
                    Err(error) if is_over(&error) => return,
                    Err(_) => breathe(&env, 50).await,
                }
            }
        });
    }

    /// Has it begin, and lets time pass until the moment has come. Who is to be killed then, and what it is killed into; nothing if it was
    /// cancelled too late to come there.
    fn reach(&mut self) -> Option<(usize, Seen)> {
        self.begin();
        let mut lookout = Lookout::over(&self.world);
        let Some(at) = self.case.cancelled_at else { return self.moment(&mut lookout, None) };
        let Self { world, cast, case, .. } = self;
        let mut seen = None;
        world.until("a step to be cancelled at", || {
            seen = lookout.state(cast.control).and_then(|state| at.agreed(state, case.doing));
            seen.is_some()
        });
        let cancelled = seen.map(|seen| seen.id)?;
        if at != Event::Merge(MergeStep::Freeze) {
            self.cancel(cancelled);
            return self.moment(&mut lookout, Some(cancelled));
        }
        self.part_from_all();
        if self.case.event == Event::Merge(MergeStep::Cancelled) {
            let Self { world, cast, case, .. } = self;
            let thaw = Event::Merge(MergeStep::Thaw);
            world.until("a merge that takes too long", || {
                let state = lookout.state(cast.control);
                state.is_some_and(|state| thaw.agreed(state, case.doing).is_some() || is_done(state, cancelled))
            });
            self.reconnect();
        }
        self.moment(&mut lookout, Some(cancelled))
    }

    /// Lets time pass until the moment has come, or what was to be cancelled is done.
    fn moment(&mut self, lookout: &mut Lookout, cancelled: Option<u64>) -> Option<(usize, Seen)> {
        let Self { world, cast, case, .. } = self;
        let mut reached = None;
        world.until("the moment", || {
            reached = match case.moment {
                Moment::Before => {
                    let proposed = lookout.proposed();
                    let state = lookout.state(cast.control).expect("it has followed one");
                    let seen = proposed.iter().find_map(|command| case.event.proposed(command, state));
                    seen.map(|seen| (cast.of_victim(case.victim, &seen), seen))
                }
                Moment::After => {
                    let agreed = |lookout: &mut Lookout, at: usize| {
                        lookout.state(at).and_then(|state| case.event.agreed(state, case.doing))
                    };
                    agreed(lookout, cast.control).and_then(|seen| {
                        let at = cast.of_victim(case.victim, &seen);
                        // One that is gone learns nothing.
                        let seen = if cast.gone == Some(at) { Some(seen) } else { agreed(lookout, at) };
                        Some((at, seen?))
                    })
                }
            };
            let is_done = |id: u64| lookout.state(cast.control).is_some_and(|state| is_done(state, id));
            reached.is_some() || cancelled.is_some_and(is_done)
        });
        reached
    }

    /// Kills somebody for a while, who may lose power, too. One that was gone from the beginning on comes back instead.
    fn kill_for_a_while(&mut self, at: usize) {
        if self.cast.gone == Some(at) {
            self.cast.gone = None;
            self.world.restart(at);
            return;
        }
        match self.world.dice.below(2) {
            0 => self.world.kill(at),
            _ => {
                let kept = self.world.dice.below(3) as usize;
                self.world.cut_power(at, None, kept);
            }
        }
        self.reconnect();
        // Others may take over, or not.
        let down = 200 + self.world.dice.below(3_800);
        self.world.run_for(Duration::from_millis(down));
        self.world.restart(at);
    }

    /// What the cluster has to come to.
    fn goal(&self, seen: &Seen) -> Goal {
        let Self { case, cast, .. } = self;
        let before: BTreeSet<u64> = cast.shards[0].replicas.iter().map(|replica| replica.node).collect();
        let moved: BTreeSet<u64> = before.iter().copied().filter(|node| *node != cast.from).chain([cast.to]).collect();
        let (replicas, empty) = match case.doing {
            Doing::Replica(OperationKind::Move) | Doing::OnlyReplica => (Some([before, moved]), None),
            // It is drained, or lost, all the same, and another operation begins.
            Doing::Replica(OperationKind::Drain) => (Some([moved.clone(), moved]), seen.from),
            // One that comes back after it was cancelled need not be made anew.
            Doing::Replica(OperationKind::Repair) if case.cancelled_at.is_none() || cast.gone.is_some() => {
                (Some([moved.clone(), moved]), seen.from)
            }
            Doing::Replica(OperationKind::Repair | OperationKind::Rebalance) | Doing::Split | Doing::Merge => {
                (None, None)
            }
        };
        let down = cast.gone.map(|at| cast.ids[at]);
        Goal { case: *case, replicas, empty, down, shards: cast.shards.len() }
    }

    /// Lets time pass until the cluster has come to rest.
    fn come_to_rest(&mut self, goal: &Goal) {
        let (make, env) = (self.world.client(self.cast.asked, CALL), self.world.client_env());
        let missing = Rc::new(RefCell::new(Some("an answer".to_owned())));
        let (told, wanted) = (missing.clone(), goal.clone());
        self.world.spawn(async move {
            let client = make();
            loop {
                let met = match Told::by(&client).await {
                    Ok(now) => wanted.is_met(&now),
                    Err(error) => Err(error.to_string()),
                };
                let is_met = met.is_ok();
                *told.borrow_mut() = met.err();
                if is_met {
                    return;
                }
                breathe(&env, 200).await;
            }
        });
        let end = self.world.now() + ENDS_WITHIN;
        loop {
            let now = missing.borrow().clone();
            let Some(missing) = now else { return };
            assert!(self.world.now() < end, "seed {}, {}: it does not end: {missing}", self.world.seed, self.case);
            self.world.run_for(Duration::from_millis(20));
        }
    }

    /// Every disk has what the state says, and nothing else.
    fn check_disks(&mut self) {
        let (nodes, world) = (self.world.nodes.clone(), &mut self.world);
        let ids: Vec<u64> = (0..nodes.len()).map(|at| world.id(at)).collect();
        let mut lookout = Lookout::over(world);
        world.until("what disks should have", || {
            ids.iter().enumerate().all(|(at, id)| nodes[at].shards() == lookout.wanted(at, *id))
        });
    }

    /// Nothing that was acknowledged is lost, no read was wrong, and searches find what brute force does.
    fn check_points(self, tally: &mut Tally) {
        let Self { case, mut world, workload, readers, .. } = self;
        let world = &mut world;
        workload.wait_for(world, 10);
        tally.looks += readers.stop(world);
        let history = workload.stop(world);
        require(&Points, &history, &format!("points of seed {}, {case}", world.seed));
        let found = everything_at_rest(world);
        let written = found.range(..IDS).map(|(id, value)| (*id, *value)).collect();
        assert_eq!(unsettled(&history, &written), [], "seed {}, {case}", world.seed);
        let (client, dice) = (world.client(0, 4 * CALL), world.dice.clone());
        let differ = world.ask(async move { differences(&client(), "points", &found, (dice, QUERIES)).await });
        assert_eq!(differ, Vec::<String>::new(), "seed {}, {case}", world.seed);
        tally.cases += 1;
        tally.writes += workload.acknowledged();
        tally.virtual_time += world.now();
    }
}

fn run(case: Case, seed: u64, tally: &mut Tally) {
    let mut tries = (seed..seed + TRIES).map(|seed| Run::set_up(case, seed));
    let reached = tries.find_map(|mut run| run.reach().map(|(victim, seen)| (run, victim, seen)));
    let (mut run, victim, seen) = reached.unwrap_or_else(|| panic!("seed {seed}, {case}: always cancelled too late"));
    tally.exact += usize::from(seen.exact);
    run.kill_for_a_while(victim);
    let mut goal = run.goal(&seen);
    run.come_to_rest(&goal);
    if let Some(gone) = run.cast.gone.take() {
        // It has to remove what it held.
        run.world.restart(gone);
        goal.down = None;
        run.come_to_rest(&goal);
    }
    run.check_disks();
    run.check_points(tally);
}

/// Runs the cases of something that the cluster does; `SAGITTA_CASE` those whose names have this in them.
fn run_all(doing: Doing) {
    let (seed, victims) = (seed(), number("SAGITTA_VICTIMS", VICTIMS));
    let only = std::env::var("SAGITTA_CASE").unwrap_or_default();
    let all = cases(doing, usize::MAX, seed).len();
    let chosen: Vec<Case> = cases(doing, victims as usize, seed);
    let chosen: Vec<Case> = chosen.into_iter().filter(|case| case.to_string().contains(&only)).collect();
    let mut tally = Tally::default();
    for case in &chosen {
        println!("{case}");
        run(*case, seed, &mut tally);
    }
    let Tally { cases, exact, writes, looks, virtual_time } = tally;
    println!(
        "seed {seed}: {doing}: {cases} of {all} cases, somebody killed at the very step in {exact}, {writes} writes, {looks} reads of all \
         points, {virtual_time:?} of virtual time"
    );
    assert_eq!(cases, chosen.len());
    assert!(cases > 0 || !only.is_empty(), "no case was run");
}

#[test]
fn a_repair_ends_well_whoever_is_killed_at_a_step_of_it() {
    run_all(Doing::Replica(OperationKind::Repair));
}

#[test]
fn a_drain_ends_well_whoever_is_killed_at_a_step_of_it() {
    run_all(Doing::Replica(OperationKind::Drain));
}

#[test]
fn a_move_ends_well_whoever_is_killed_at_a_step_of_it() {
    run_all(Doing::Replica(OperationKind::Move));
}

#[test]
fn a_move_of_the_only_replica_ends_well_whoever_is_killed_at_a_step_of_it() {
    run_all(Doing::OnlyReplica);
}

#[test]
fn a_rebalance_ends_well_whoever_is_killed_at_a_step_of_it() {
    run_all(Doing::Replica(OperationKind::Rebalance));
}

#[test]
fn a_split_ends_well_whoever_is_killed_at_a_step_of_it() {
    run_all(Doing::Split);
}

#[test]
fn a_merge_ends_well_whoever_is_killed_at_a_step_of_it() {
    run_all(Doing::Merge);
}
