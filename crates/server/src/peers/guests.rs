//! Which nodes are connected to this one, and which run of each is the one that is heard.
//!
//! A data folder that was copied, or brought back from a backup, is a second process under one Raft identity: it does not know how the
//! first one has voted. So a folder counts its starts, and of two runs of one folder only one is heard: the one that is
//! connected, and never one that is not later than another that was heard. A later run that comes when the one before is
//! gone is a restart. So is that of a copy whose original has ended for ever, as far as anybody can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sagitta_cluster::{Node, NodeStatus, State};
use sagitta_consensus::NodeId;
use sagitta_model::ErrorKind;
use sagitta_wire::Failure;
use sagitta_wire::peer::{Hello, Run, refusal};
use tokio::sync::oneshot;

use super::PeerIdentity;

/// One place for each sender and kind of stream.
#[derive(Debug)]
pub struct Guests {
    me: PeerIdentity,
    books: Mutex<Books>,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// Raft messages.
    Messages,
    /// Reports to a coordinator.
    Reports,
}

#[derive(Debug, Default)]
struct Books {
    /// Every node that was ever let in. As many as the cluster has.
    heard: BTreeMap<NodeId, Heard>,
    /// What the cluster has noted of each node: its last start that has joined, and where that is.
    noted: BTreeMap<NodeId, Arc<Node>>,
    /// The nodes that were removed for ever. They decide nothing any more, and are told the control state, by which they learn it.
    removed: BTreeSet<NodeId>,
    last_number: u64,
}

/// The run of a node that was let in last.
#[derive(Debug)]
struct Heard {
    incarnation: u128,
    run: Run,
    seats: BTreeMap<Topic, Seat>,
}

#[derive(Debug)]
struct Seat {
    number: u64,
    /// Dropped when a newer stream takes the place.
    _taken: oneshot::Sender<()>,
}

/// A sender whose stream is open. It leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    guests: Arc<Guests>,
    node: NodeId,
    topic: Topic,
    number: u64,
    taken: oneshot::Receiver<()>,
}

impl Guests {
    /// The guests of a node: none yet.
    pub fn of(me: PeerIdentity) -> Arc<Self> {
        Arc::new(Self { me, books: Mutex::default() })
    }

    /// Whose guests they are.
    pub(crate) fn me(&self) -> &PeerIdentity {
        &self.me
    }

    /// Lets a sender in. An older stream of the same run is told to go: its connection has broken unnoticed.
    pub(crate) fn enter(self: &Arc<Self>, hello: &Hello, topic: Topic) -> Result<Guest, Failure> {
        let (node, incarnation, run) = (NodeId(hello.sender), hello.incarnation, hello.run);
        let mut books = self.lock();
        if topic == Topic::Messages {
            self.judge_standing(&books, node)?;
        }
        self.judge(&books, node, incarnation, &run)?;
        let (seat_taken, taken) = oneshot::channel();
        books.last_number += 1;
        let number = books.last_number;
        let heard = books.heard.entry(node).or_insert_with(|| Heard { incarnation, run, seats: BTreeMap::new() });
        (heard.incarnation, heard.run) = (incarnation, run);
        heard.seats.insert(topic, Seat { number, _taken: seat_taken });
        Ok(Guest { guests: self.clone(), node, topic, number, taken })
    }

    /// Whether a run of a node would be let in now.
    pub(crate) fn check(&self, node: NodeId, incarnation: u128, run: &Run) -> Result<(), Failure> {
        if node == self.me.node && incarnation == self.me.incarnation && run.id != self.me.run.id {
            return Err(two_at_once(node, &self.me.run, run));
        }
        self.judge(&self.lock(), node, incarnation, run)
    }

    /// Whether who calls may ask something now: not once it was removed, a later run of it is known, or another folder has its name. A run whose
    /// predecessor's streams have not been found broken yet need not wait for that here: what it asks for decides no vote.
    pub(crate) fn hears(&self, hello: &Hello) -> Result<(), Failure> {
        let books = self.lock();
        self.judge_standing(&books, NodeId(hello.sender))?;
        self.judge_age(&books, NodeId(hello.sender), hello.incarnation, &hello.run)
    }

    /// Learns which runs the cluster has noted. Whoever is an earlier one is heard no longer.
    pub(crate) fn follow(&self, state: &State) {
        let mut books = self.lock();
        let Books { heard, noted, removed, .. } = &mut *books;
        for node in state.nodes().values().filter(|node| node.status == NodeStatus::Removed) {
            let id = NodeId(node.id);
            if removed.insert(id)
                && let Some(heard) = heard.get_mut(&id)
            {
                heard.seats.remove(&Topic::Messages);
            }
        }
        for node in state.nodes().values().filter(|node| node.status != NodeStatus::Removed && node.run > 0) {
            let id = NodeId(node.id);
            noted.insert(id, node.clone());
            if let Some(heard) = heard.get_mut(&id).filter(|heard| is_overtaken(&heard.run, node)) {
                heard.seats.clear();
            }
        }
    }

    /// Whether a node still belongs to the cluster, as far as this one has followed.
    fn judge_standing(&self, books: &Books, node: NodeId) -> Result<(), Failure> {
        if !books.removed.contains(&node) {
            return Ok(());
        }
        let message = format!(
            "{node} was removed from the cluster for ever, and {} hears it no more: start it with an empty data folder, so that it joins as a new node",
            self.me.node
        );
        Err(Failure::new(ErrorKind::Denied, message).with_reason(refusal::REMOVED))
    }

    fn judge(&self, books: &Books, node: NodeId, incarnation: u128, run: &Run) -> Result<(), Failure> {
        self.judge_age(books, node, incarnation, run)?;
        let present = books.heard.get(&node).filter(|heard| heard.run.id != run.id && !heard.seats.is_empty());
        present.map_or(Ok(()), |heard| Err(two_at_once(node, &heard.run, run)))
    }

    /// The same, but for whether an earlier run is connected.
    fn judge_age(&self, books: &Books, node: NodeId, incarnation: u128, run: &Run) -> Result<(), Failure> {
        let noted = books.noted.get(&node);
        if let Some(noted) = noted.filter(|noted| is_overtaken(run, noted)) {
            return Err(overtaken(node, noted.run, &noted.place.peer_address, run));
        }
        // Of two runs of one number it is the one that counts, whichever was heard here.
        let counts = noted.is_some_and(|noted| noted.run == run.number);
        let Some(heard) = books.heard.get(&node) else { return Ok(()) };
        if heard.incarnation != incarnation {
            if heard.seats.is_empty() {
                return Ok(());
            }
            return Err(two_folders(node, self.me.node, heard.incarnation, incarnation));
        }
        if heard.run.id != run.id && run.number <= heard.run.number && !counts {
            return Err(overtaken(node, heard.run.number, &heard.run.address.to_string(), run));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a run is not, or not any more, the one that the cluster has noted: an earlier one, or one of the same number elsewhere, for
/// one start is in one place from its beginning to its end.
pub(crate) fn is_overtaken(run: &Run, noted: &Node) -> bool {
    let address = &noted.place.peer_address;
    // Without an address another node has that.
    let elsewhere = !address.is_empty() && *address != format!("http://{}", run.address);
    run.number < noted.run || run.number == noted.run && elsewhere
}

const HELP: &str = "the data folder was copied or brought back from a backup, and two processes cannot be one node: stop one of them for \
     good, remove its folder, and start a new node with an empty one in its place";

/// Of another kind than what no time can change: the one before may be gone soon.
fn two_at_once(node: NodeId, present: &Run, asking: &Run) -> Failure {
    let (here, there) = (present.address, asking.address);
    let message = format!(
        "{node} is running at {here} (start {} of its data folder), and the process at {there} (start {}) claims to be it, too; unless the one \
         at {here} ended a moment ago, {HELP}",
        present.number, asking.number
    );
    Failure::new(ErrorKind::Conflict, message).with_reason(refusal::OTHER_RUN)
}

fn overtaken(node: NodeId, number: u64, address: &str, asking: &Run) -> Failure {
    let message = format!(
        "{node} was heard at {address} with start {number} of its data folder, and the process at {} is start {} of it: {HELP}",
        asking.address, asking.number
    );
    Failure::new(ErrorKind::Denied, message).with_reason(refusal::OTHER_RUN)
}

fn two_folders(node: NodeId, here: NodeId, present: u128, asking: u128) -> Failure {
    let message = format!(
        "{node} is connected to {here} with the data folder {present:032x}, and {asking:032x} claims to be it, too: \
         two nodes share an id; stop one of them and let it join anew"
    );
    Failure::new(ErrorKind::Conflict, message).with_reason(refusal::OTHER_INCARNATION)
}

impl Guest {
    /// Who it is.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Waits until a newer stream or a later run of the same sender has taken the place.
    pub(crate) async fn replaced(&mut self) {
        // The other half is never used, only dropped.
        let _ = (&mut self.taken).await;
    }

    /// What a guest is told that was replaced.
    pub(crate) fn farewell(&self) -> Failure {
        let message = format!("a newer stream or a later start of {} took the place", self.node);
        Failure::new(ErrorKind::Conflict, message)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut books = self.guests.lock();
        let seats = books.heard.get_mut(&self.node).map(|heard| &mut heard.seats);
        if let Some(seats) = seats
            && seats.get(&self.topic).is_some_and(|seat| seat.number == self.number)
        {
            seats.remove(&self.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use sagitta_cluster::{Command, Place, Roles};

    use super::super::tests::rig::identity;
    use super::*;

    /// How a run of node 1 introduces itself to node 2. Runs listen at ports of their own.
    fn hello(incarnation: u128, number: u64, id: u16) -> Hello {
        let run = Run { number, id: id.into(), address: ([127, 0, 0, 1], id).into() };
        PeerIdentity { incarnation, run, ..identity(1) }.hello_to(NodeId(2))
    }

    fn guests() -> Arc<Guests> {
        Guests::of(identity(2))
    }

    #[track_caller]
    fn check(refused: Result<Guest, Failure>, kind: ErrorKind, named: [&str; 2]) {
        let failure = refused.expect_err("refused");
        assert_eq!((failure.kind, &*failure.reason), (kind, refusal::OTHER_RUN), "{failure:?}");
        for name in named {
            assert!(failure.message.contains(name), "{name} in {}", failure.message);
        }
    }

    #[tokio::test]
    async fn a_newer_stream_takes_the_place_and_the_older_ones_leaving_does_not_free_it() {
        let guests = guests();
        let mut old = guests.enter(&hello(10, 1, 1), Topic::Messages).unwrap();
        let new = guests.enter(&hello(10, 1, 1), Topic::Messages).unwrap();
        let mut reports = guests.enter(&hello(10, 1, 1), Topic::Reports).unwrap();
        old.replaced().await;
        drop(old);
        let failure = guests.enter(&hello(11, 1, 2), Topic::Messages).unwrap_err();
        assert_eq!(failure.reason, refusal::OTHER_INCARNATION);
        assert!(reports.taken.try_recv().is_err(), "another kind of stream stays");
        drop((new, reports));
        assert!(guests.enter(&hello(11, 1, 2), Topic::Messages).is_ok());
    }

    #[test]
    fn of_two_runs_of_one_folder_the_one_that_is_connected_is_heard() {
        let guests = guests();
        let original = guests.enter(&hello(10, 3, 1_111), Topic::Reports).unwrap();
        let copy = hello(10, 4, 2_222);
        for topic in [Topic::Messages, Topic::Reports] {
            check(guests.enter(&copy, topic), ErrorKind::Conflict, ["127.0.0.1:1111", "127.0.0.1:2222"]);
        }
        let asked = guests.check(NodeId(1), 10, &copy.run).unwrap_err();
        assert_eq!(asked.reason, refusal::OTHER_RUN);
        assert_eq!(guests.hears(&copy), Ok(()), "it may be a restart, and what it asks decides no vote");
        drop(original);
        let restarted = guests.enter(&copy, Topic::Messages).expect("the one before is gone");
        assert_eq!(guests.hears(&hello(10, 3, 1_111)).unwrap_err().reason, refusal::OTHER_RUN);
        assert_eq!(guests.hears(&hello(11, 9, 3_333)).unwrap_err().reason, refusal::OTHER_INCARNATION);
        drop(restarted);
        check(
            guests.enter(&hello(10, 3, 1_111), Topic::Messages),
            ErrorKind::Denied,
            ["127.0.0.1:2222", "127.0.0.1:1111"],
        );
        check(guests.enter(&hello(10, 4, 3_333), Topic::Messages), ErrorKind::Denied, ["127.0.0.1:2222", "start 4"]);
        assert!(guests.enter(&copy, Topic::Messages).is_ok(), "it comes back");
    }

    #[test]
    fn a_copy_of_the_folder_of_this_node_itself_is_told_where_this_one_is() {
        let guests = guests();
        let me = *guests.me();
        let copy = Run { number: me.run.number + 1, id: 77, address: ([127, 0, 0, 1], 7_777).into() };
        let failure = guests.check(me.node, me.incarnation, &copy).unwrap_err();
        assert_eq!(failure.reason, refusal::OTHER_RUN);
        for address in [me.run.address, copy.address] {
            assert!(failure.message.contains(&address.to_string()), "{failure:?}");
        }
    }

    #[tokio::test]
    async fn a_run_that_was_overtaken_in_the_control_state_is_heard_no_longer() {
        let place = Place {
            peer_address: "http://127.0.0.1:2222".to_owned(),
            api_address: String::new(),
            zone: String::new(),
            roles: Roles { coordinator: true, shard: true },
        };
        // By a later start, and by one of the same number elsewhere.
        for number in [3, 4] {
            let guests = guests();
            let mut original = guests.enter(&hello(10, number, 1_111), Topic::Messages).unwrap();
            let mut state = State::new(1);
            let place = place.clone();
            state.apply(Command::Join { id: 1, incarnation: 10, run: 4, place, unix_micros: 1 }).unwrap();
            guests.follow(&state);
            original.replaced().await;
            for again in [number, 4] {
                let asking = hello(10, again, 1_111);
                let told = ["http://127.0.0.1:2222", "127.0.0.1:1111"];
                check(guests.enter(&asking, Topic::Messages), ErrorKind::Denied, told);
            }
            drop(original);
            assert!(guests.enter(&hello(10, 4, 2_222), Topic::Messages).is_ok(), "start {number} was heard before");
        }
    }

    #[tokio::test]
    async fn a_node_that_was_removed_is_told_and_not_heard() {
        let roles = Roles { coordinator: true, shard: true };
        let place = |id: u64| Place {
            peer_address: format!("http://127.0.0.1:{id}"),
            api_address: String::new(),
            zone: String::new(),
            roles,
        };
        let mut state = State::new(1);
        for id in [1, 2] {
            state
                .apply(Command::Join { id, incarnation: 9 + u128::from(id), run: 0, place: place(id), unix_micros: 1 })
                .unwrap();
        }
        let guests = guests();
        let mut messages = guests.enter(&hello(10, 1, 1_111), Topic::Messages).unwrap();
        let mut reports = guests.enter(&hello(10, 1, 1_111), Topic::Reports).unwrap();
        guests.follow(&state);
        assert_eq!(guests.hears(&hello(10, 1, 1_111)), Ok(()));
        let removal = [
            Command::SetVoters { voters: vec![2] },
            Command::SetNodeStatus { id: 1, status: NodeStatus::Lost },
            Command::GiveUpNode { id: 1 },
        ];
        removal.into_iter().for_each(|command| drop(state.apply(command).unwrap()));
        guests.follow(&state);
        messages.replaced().await;
        let taken = reports.taken.try_recv();
        assert_eq!(taken, Err(oneshot::error::TryRecvError::Empty), "by these it learns of it");
        drop((messages, reports));
        // Whichever start of its folder it is.
        for again in [hello(10, 1, 1_111), hello(10, 7, 2_222)] {
            let refused = guests.enter(&again, Topic::Messages).unwrap_err();
            assert_eq!((refused.kind, &*refused.reason), (ErrorKind::Denied, refusal::REMOVED));
            assert_eq!(guests.hears(&again).unwrap_err().reason, refusal::REMOVED);
            assert!(guests.enter(&again, Topic::Reports).is_ok(), "it must learn of it");
        }
        guests.follow(&State::new(1));
        assert!(guests.enter(&hello(10, 8, 1_111), Topic::Messages).is_err(), "an older state takes nothing back");
    }
}
