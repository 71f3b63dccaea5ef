//! One test per step of the order.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use raft::eraftpb::{MessageType, Snapshot};
use sagitta_env::Env;

use super::*;
use crate::driver::Input;
use crate::ids::ClusterId;
use crate::ids::Position;
use crate::log::memory::{Fault, MemoryLog};
use crate::log::{GroupState, LogStore};
use crate::testing::{Bench, CLUSTER, Depot, GROUP, Image, ME, TestMachine};
use crate::transport::Transport;

/// What happened, in order.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    Sent(NodeId, MessageType),
    Written { entries: usize, vote: Option<u64> },
    HandedOver(usize),
}

type Trace = Arc<Mutex<Vec<Event>>>;

struct TracedLog(MemoryLog, Trace);
struct TracedTransport(Trace);

impl LogStore for TracedLog {
    fn groups(&self) -> Result<Vec<GroupId>, LogError> {
        self.0.groups()
    }

    fn load(&self, group: GroupId) -> Result<Option<GroupState>, LogError> {
        self.0.load(group)
    }

    fn append(&self, batch: &LogBatch) -> Result<(), LogError> {
        self.0.append(batch)?;
        let entries = batch.writes.iter().map(|write| write.entries.len()).sum();
        let vote = batch.writes.iter().find_map(|write| write.hard_state.as_ref()).map(|state| state.vote);
        self.1.lock().unwrap().push(Event::Written { entries, vote });
        Ok(())
    }

    fn term(&self, group: GroupId, index: u64) -> Result<u64, LogError> {
        self.0.term(group, index)
    }

    fn entries(&self, group: GroupId, range: Range<u64>, max_bytes: u64) -> Result<Vec<Entry>, LogError> {
        self.0.entries(group, range, max_bytes)
    }

    fn remove_group(&self, group: GroupId) -> Result<(), LogError> {
        self.0.remove_group(group)
    }

    fn purge(&self) -> Result<Vec<GroupId>, LogError> {
        self.0.purge()
    }
}

impl Transport for TracedTransport {
    fn send(&self, to: NodeId, messages: Vec<Bytes>) {
        for message in messages {
            let kind = Envelope::decode(&message).unwrap().message.get_msg_type();
            self.0.lock().unwrap().push(Event::Sent(to, kind));
        }
    }
}

struct Traced {
    bench: Bench,
    log: MemoryLog,
    machine: TestMachine,
    trace: Trace,
}

const A: NodeId = NodeId(2);
const B: NodeId = NodeId(3);

impl Traced {
    fn new(voters: &[NodeId]) -> Self {
        let (trace, log) = (Trace::default(), MemoryLog::new());
        let (env, clock) = Env::seeded(1);
        let traced = Arc::new(TracedLog(log.clone(), trace.clone()));
        let mut bench = Bench::with(env, clock, ME, traced, Arc::new(TracedTransport(trace.clone())));
        let machine = TestMachine::default();
        bench.open_among(GROUP, voters, &machine).unwrap();
        bench.run();
        trace.lock().unwrap().clear();
        Self { bench, log, machine, trace }
    }

    /// One round; what it handed over counts as its last event.
    fn round(&mut self) -> Vec<Event> {
        self.bench.driver.round();
        let mut events = std::mem::take(&mut *self.trace.lock().unwrap());
        let jobs = self.bench.driver.take_jobs();
        let handed: usize =
            jobs.iter().map(|job| if let Job::Apply(batch) = job { batch.entries.len() } else { 0 }).sum();
        if handed > 0 {
            events.push(Event::HandedOver(handed));
        }
        for job in jobs {
            for done in self.bench.applier.run(job, Duration::ZERO) {
                self.bench.driver.applied(done);
            }
        }
        events
    }

    fn receive(&mut self, kind: MessageType, from: NodeId, fill: impl Fn(&mut Message)) {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.from, message.to) = (from.0, ME.0);
        fill(&mut message);
        let bytes = Envelope { cluster: CLUSTER, group: GROUP, message }.encode();
        self.bench.driver.handle(Input::Messages(vec![bytes], None));
    }

    /// Makes this node the leader of three with the votes of another.
    fn elect(&mut self) {
        while !self.group().is_leader() {
            self.bench.driver.tick();
            self.round();
            let term = self.group().node.as_ref().unwrap().raft.term;
            self.receive(MessageType::MsgRequestPreVoteResponse, A, |message| message.term = term + 1);
            self.receive(MessageType::MsgRequestVoteResponse, A, |message| message.term = term);
        }
        while self.bench.driver.has_work() {
            self.round();
        }
        self.trace.lock().unwrap().clear();
    }

    fn group(&mut self) -> &mut Group {
        self.bench.driver.groups.get_mut(&GROUP).unwrap()
    }
}

fn entry(index: u64, term: u64) -> Entry {
    let mut entry = Entry::default();
    (entry.index, entry.term, entry.data) = (index, term, Bytes::from_static(b"x"));
    entry.context = seal(&entry.data);
    entry
}

#[test]
fn step_1_a_leader_sends_its_entries_before_they_are_durable_here() {
    let mut traced = Traced::new(&[ME, A, B]);
    traced.elect();
    // A follower that has answered is streamed to.
    traced.receive(MessageType::MsgAppendResponse, A, |message| (message.term, message.index) = (2, 2));
    traced.round();
    let _waiting = traced.bench.propose(GROUP, "x");
    let events = traced.round();
    let sent = events.iter().position(|event| *event == Event::Sent(A, MessageType::MsgAppend)).unwrap();
    let written = events.iter().position(|event| matches!(event, Event::Written { entries: 1, .. })).unwrap();
    assert!(sent < written, "{events:?}");
}

#[test]
fn step_2_raft_never_sees_a_snapshot() {
    let mut traced = Traced::new(&[ME, A, B]);
    let mut snapshot = Snapshot::default();
    let meta = snapshot.mut_metadata();
    (meta.index, meta.term) = (50, 3);
    meta.mut_conf_state().set_voters(vec![1, 2, 3]);
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgSnapshot);
    (message.from, message.to, message.term) = (2, 1, 3);
    message.set_snapshot(snapshot);
    // The state machine is asked to fetch the state, and this one cannot.
    let bytes = Envelope { cluster: CLUSTER, group: GROUP, message: message.clone() }.encode();
    traced.bench.driver.handle(Input::Messages(vec![bytes], None));
    assert_eq!((traced.round(), &traced.group().condition), (vec![], &Condition::Running));
    traced.bench.apply();
    traced.bench.driver.tick();
    assert_eq!(traced.round(), [Event::Sent(A, MessageType::MsgSnapStatus)]);
    assert_eq!(traced.group().node.as_ref().map(|node| node.raft.raft_log.last_index()), Some(1));
    // Past that way the round does not pretend.
    traced.group().with_node(|node| node.step(message)).unwrap().unwrap();
    traced.bench.driver.woken.insert(GROUP);
    assert_eq!(traced.round(), []);
    assert!(matches!(&traced.group().condition, Condition::Stopped(why) if why.contains("snapshot")));
}

/// A follower that has been offered the state as of an index, and the jobs that follow.
fn offered(index: u64) -> Traced {
    let mut traced = Traced::new(&[ME, A, B]);
    offer(&mut traced, index);
    traced
}

fn offer(traced: &mut Traced, index: u64) {
    let depot = Depot::default();
    let manifest = depot.put(Image { applied: Position { index, term: 3 }, ..Image::default() });
    traced.machine.lock().depot = Some(depot);
    traced.receive(MessageType::MsgSnapshot, A, |message| {
        message.term = 3;
        let snapshot = message.mut_snapshot();
        snapshot.data = manifest.clone();
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (index, 3);
        meta.mut_conf_state().set_voters(vec![1, 2, 3]);
    });
}

fn append(traced: &mut Traced) {
    traced.receive(MessageType::MsgAppend, A, |message| {
        (message.term, message.index, message.log_term, message.commit) = (3, 1, 1, 2);
        message.set_entries(vec![entry(2, 3)].into());
    });
}

#[test]
fn nothing_comes_between_a_state_that_is_installed_and_the_log_that_begins_after_it() {
    let mut traced = offered(50);
    traced.bench.apply();
    traced.bench.driver.tick();
    let last = |traced: &mut Traced| traced.group().node.as_ref().map(|node| node.raft.raft_log.last_index());
    // The applier is at it.
    append(&mut traced);
    assert_eq!((traced.round(), last(&mut traced)), (vec![], Some(1)), "raft does not see the entry");
    assert_eq!(traced.machine.lock().live.applied.index, 50);
    append(&mut traced);
    assert_eq!((traced.round(), last(&mut traced)), (vec![], Some(1)));
    traced.bench.driver.tick();
    assert_eq!(last(&mut traced), Some(50));
    let written = Event::Written { entries: 0, vote: Some(0) };
    assert_eq!(traced.round(), [written, Event::Sent(A, MessageType::MsgSnapStatus)]);
    assert_eq!(traced.group().condition, Condition::Running);
}

#[test]
fn no_log_is_cut_while_a_state_is_installed_that_it_does_not_lead_to() {
    let mut traced = Traced::new(&[ME, A, B]);
    traced.receive(MessageType::MsgAppend, A, |message| {
        (message.term, message.index, message.log_term, message.commit) = (2, 1, 1, 1);
        message.set_entries((2..=60).map(|index| entry(index, 2)).collect::<Vec<_>>().into());
    });
    traced.round();
    offer(&mut traced, 50);
    traced.bench.apply();
    traced.bench.driver.tick();
    // Another leader's entries stand where the state ends, and the log is asked for room.
    traced.group().crowded = true;
    traced.group().offers = true;
    traced.bench.apply();
    assert_eq!(traced.machine.lock().live.applied.index, 50);
    assert!(traced.bench.driver.truncations.is_empty());
    traced.bench.driver.tick();
    traced.round();
    let state = traced.log.load(GROUP).unwrap().unwrap();
    assert_eq!((state.truncated, state.last), (Position { index: 50, term: 3 }, Position { index: 50, term: 3 }));
}

#[test]
fn a_state_is_installed_after_what_was_handed_over_before() {
    let mut traced = offered(50);
    traced.bench.apply();
    append(&mut traced);
    traced.machine.lock().full = 1;
    while traced.group().handed < 2 {
        traced.round();
    }
    assert!(matches!(traced.group().condition, Condition::Full(_)), "it holds the entry");
    traced.bench.driver.tick();
    assert!(!traced.group().is_installing());
    traced.bench.ticks(3);
    assert_eq!(traced.machine.lock().live.applied.index, 50);
    assert_eq!(traced.machine.lock().batches.len(), 1);
    assert_eq!(traced.group().condition, Condition::Running);
}

#[test]
fn step_3_a_vote_and_entries_are_written_in_one_batch_of_all_groups() {
    let mut traced = Traced::new(&[ME]);
    let other = TestMachine::default();
    traced.bench.open(GroupId(2), &other).unwrap();
    traced.trace.lock().unwrap().clear();
    let _one = traced.bench.propose(GROUP, "one");
    let _two = traced.bench.propose(GroupId(2), "two");
    let events = traced.round();
    // The second group's first round: its election and its first entry are in the same write.
    assert_eq!(events, [Event::Written { entries: 3, vote: Some(1) }, Event::HandedOver(3)]);
}

#[test]
fn step_4_what_promises_durability_is_sent_after_the_write() {
    let mut traced = Traced::new(&[ME, A, B]);
    traced.receive(MessageType::MsgRequestVote, A, |message| {
        (message.term, message.index, message.log_term) = (2, 1, 1);
    });
    let vote = Event::Sent(A, MessageType::MsgRequestVoteResponse);
    assert_eq!(traced.round(), [Event::Written { entries: 0, vote: Some(2) }, vote]);
    traced.receive(MessageType::MsgAppend, A, |message| {
        (message.term, message.index, message.log_term) = (2, 1, 1);
        message.set_entries(vec![entry(2, 2), entry(3, 2)].into());
    });
    let accepted = Event::Sent(A, MessageType::MsgAppendResponse);
    assert_eq!(traced.round(), [Event::Written { entries: 2, vote: Some(2) }, accepted]);
}

#[test]
fn step_4_nothing_is_promised_when_the_write_fails() {
    for fault in [Fault::SyncFails, Fault::Full] {
        let mut traced = Traced::new(&[ME, A, B]);
        traced.log.inject(traced.log.appends(), fault);
        traced.receive(MessageType::MsgRequestVote, A, |message| {
            (message.term, message.index, message.log_term) = (2, 1, 1);
        });
        assert_eq!(traced.round(), [], "{fault:?}");
        traced.bench.clock.advance(Duration::from_secs(1));
        let sent_later = traced.round().contains(&Event::Sent(A, MessageType::MsgRequestVoteResponse));
        assert_eq!(sent_later, fault == Fault::Full, "after a full disk it is written after all");
    }
}

#[test]
fn step_5_committed_entries_are_applied_only_after_the_write() {
    let mut traced = Traced::new(&[ME, A, B]);
    traced.receive(MessageType::MsgAppend, A, |message| {
        (message.term, message.index, message.log_term, message.commit) = (2, 1, 1, 3);
        message.set_entries(vec![entry(2, 2), entry(3, 2)].into());
    });
    let accepted = Event::Sent(A, MessageType::MsgAppendResponse);
    let written = Event::Written { entries: 2, vote: Some(0) };
    assert_eq!(traced.round(), [written, accepted, Event::HandedOver(2)]);
    assert_eq!(traced.machine.commands().len(), 2);
}

#[test]
fn step_5_a_commit_alone_is_applied_and_not_written() {
    let mut traced = Traced::new(&[ME, A, B]);
    traced.receive(MessageType::MsgAppend, A, |message| {
        (message.term, message.index, message.log_term, message.commit) = (2, 1, 1, 1);
        message.set_entries(vec![entry(2, 2)].into());
    });
    traced.round();
    traced.receive(MessageType::MsgHeartbeat, A, |message| (message.term, message.commit) = (2, 2));
    let events = traced.round();
    assert_eq!(events, [Event::Sent(A, MessageType::MsgHeartbeatResponse), Event::HandedOver(1)]);
}

#[test]
fn steps_6_and_7_what_the_own_copy_commits_is_applied_in_the_same_round() {
    let mut traced = Traced::new(&[ME]);
    let _waiting = traced.bench.propose(GROUP, "x");
    assert_eq!(traced.round(), [Event::Written { entries: 1, vote: Some(1) }, Event::HandedOver(1)]);
    assert!(traced.round().is_empty(), "no second round, no second fsync");
}

#[test]
fn step_7_a_leader_tells_its_followers_what_its_own_copy_made_committed() {
    let mut traced = Traced::new(&[ME, A]);
    traced.elect();
    traced.receive(MessageType::MsgAppendResponse, A, |message| (message.term, message.index) = (2, 2));
    traced.round();
    // The follower is ahead of the leader's own disk: its answer arrives before the leader's fsync is over.
    let _waiting = traced.bench.propose(GROUP, "x");
    traced.group().propose_incoming(Duration::ZERO);
    traced.receive(MessageType::MsgAppendResponse, A, |message| (message.term, message.index) = (2, 3));
    let events = traced.round();
    let written = events.iter().position(|event| matches!(event, Event::Written { .. })).unwrap();
    let told = events.iter().rposition(|event| *event == Event::Sent(A, MessageType::MsgAppend)).unwrap();
    assert!(written < told, "{events:?}");
    assert_eq!(events.last(), Some(&Event::HandedOver(1)));
}

#[test]
fn step_8_raft_learns_of_applied_entries_when_the_applier_reports() {
    let mut traced = Traced::new(&[ME]);
    let _waiting = traced.bench.propose(GROUP, "x");
    let applied = |traced: &mut Traced| traced.group().node.as_ref().unwrap().raft.raft_log.applied;
    let before = applied(&mut traced);
    traced.bench.driver.round();
    assert_eq!(applied(&mut traced), before, "committed and handed over, not yet applied");
    traced.bench.apply();
    traced.bench.driver.round();
    assert_eq!(applied(&mut traced), before + 1);
}

#[test]
fn an_entry_that_was_damaged_on_its_way_is_never_applied() {
    let mut traced = Traced::new(&[ME, A, B]);
    let mut damaged = entry(3, 2);
    damaged.data = Bytes::from_static(b"y");
    traced.receive(MessageType::MsgAppend, A, |message| {
        (message.term, message.index, message.log_term, message.commit) = (2, 1, 1, 3);
        message.set_entries(vec![entry(2, 2), damaged.clone()].into());
    });
    traced.round();
    assert!(matches!(&traced.group().condition, Condition::Stopped(why) if why.contains("checksum")));
    assert_eq!(traced.machine.commands(), Vec::<Bytes>::new());
}

#[test]
fn messages_that_are_not_ours_change_nothing() {
    let mut traced = Traced::new(&[ME, A, B]);
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgHeartbeat);
    (message.from, message.to, message.term, message.commit) = (2, 1, 5, 1_000_000);
    for envelope in [
        Envelope { cluster: ClusterId(1), group: GROUP, message: message.clone() },
        Envelope { cluster: CLUSTER, group: GroupId(77), message: message.clone() },
        Envelope { cluster: CLUSTER, group: GROUP, message },
    ] {
        traced.bench.driver.handle(Input::Messages(vec![envelope.encode(), Bytes::from_static(b"noise")], None));
        assert_eq!(traced.round(), []);
    }
    let raft = &traced.group().node.as_ref().unwrap().raft;
    assert_eq!((raft.term, raft.raft_log.committed), (1, 1));
}
