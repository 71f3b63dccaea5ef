//! Three Raft hosts over real sockets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagitta_consensus::{
    ApplyError, Committed, GroupHandle, GroupId, GroupSpec, Host, HostSettings, Membership, MemoryLog, NodeId, Outcome,
    Position, Role, Shelf, StateMachine,
};
use sagitta_env::Env;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;

use super::super::transport::outbound_in;
use super::super::{AddressBook, Guests, PeerCounters, PeerListener, Sending};
use super::rig::*;

const GROUP: GroupId = GroupId(1);
const NODES: [u64; 3] = [1, 2, 3];
const LONG: Duration = Duration::from_secs(100);

/// A list of commands. Nothing is durable, so that the log is kept whole. Clones are the same list.
#[derive(Clone)]
struct List(Arc<watch::Sender<Image>>);

#[derive(Clone, Debug, Default)]
struct Image {
    applied: Position,
    membership: Option<Membership>,
    commands: Vec<Bytes>,
}

impl StateMachine for List {
    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Bytes>, ApplyError> {
        self.0.send_modify(|image| {
            for entry in entries {
                image.applied = Position { index: entry.index, term: entry.term };
                image.membership = entry.membership.clone().or(image.membership.take());
                image.commands.extend(Some(entry.data.clone()).filter(|data| !data.is_empty()));
            }
        });
        Ok(vec![Bytes::new(); entries.len()])
    }

    fn applied(&self) -> Position {
        self.0.borrow().applied
    }

    fn durable(&self) -> u64 {
        0
    }

    fn membership(&self) -> Option<Membership> {
        self.0.borrow().membership.clone()
    }

    fn flush(&mut self, _wait: bool) -> Result<(), ApplyError> {
        Ok(())
    }
}

struct Member {
    id: u64,
    host: Host,
    group: GroupHandle,
    list: List,
    counters: Arc<PeerCounters>,
    _sending: Sending,
    listener: Option<PeerListener>,
}

struct Trio {
    env: Env,
    book: AddressBook,
    members: Vec<Member>,
}

impl Trio {
    async fn start() -> Self {
        let (env, book) = (Env::real(), AddressBook::default());
        let mut members = Vec::new();
        for id in NODES {
            let me = identity(id);
            let counters = Arc::new(PeerCounters::default());
            let (transport, outbound) = outbound_in(&env, me, book.clone(), counters.clone(), brisk());
            let settings = HostSettings { tick: Duration::from_millis(50), ..HostSettings::new(CLUSTER, me.node) };
            let host = Host::start(&env, settings, Arc::new(MemoryLog::new()), Arc::new(transport)).unwrap();
            let sending = outbound.start(Arc::new(host.handle()));
            let list = List(Arc::new(watch::Sender::new(Image::default())));
            let spec = GroupSpec {
                group: GROUP,
                found_with: Some(NODES.map(NodeId).to_vec()),
                found_at: None,
                floor: None,
                stands_first: false,
                alone_from: None,
            };
            let group = host.handle().open_group(spec, Box::new(list.clone())).await.unwrap();
            members.push(Member { id, host, group, list, counters, _sending: sending, listener: None });
        }
        let mut trio = Self { env, book, members };
        for at in 0..NODES.len() {
            trio.listen(at, "127.0.0.1:0").await;
            trio.publish(at);
        }
        trio
    }

    async fn listen(&mut self, at: usize, address: &str) {
        let socket = TcpListener::bind(address).await.unwrap();
        let member = &mut self.members[at];
        let (inbox, counters) = (Arc::new(member.host.handle()), member.counters.clone());
        let listener = PeerListener::start(
            &self.env,
            socket,
            Guests::of(identity(member.id)),
            inbox,
            Shelf::default(),
            counters,
            Routes::default(),
        )
        .unwrap();
        member.listener = Some(listener);
    }

    fn publish(&self, at: usize) {
        let member = &self.members[at];
        self.book.set(NodeId(member.id), uri(self.address(at)));
    }

    fn address(&self, at: usize) -> String {
        self.members[at].listener.as_ref().unwrap().address().to_string()
    }

    async fn stop_listening(&mut self, at: usize) {
        self.members[at].listener.take().unwrap().stop().await;
    }

    fn leader(&self) -> Option<usize> {
        self.members.iter().position(|member| member.group.status().role == Role::Leader)
    }

    async fn follower(&self) -> usize {
        until("a leader", || self.leader().is_some()).await;
        let leader = self.leader();
        (0..NODES.len()).find(|at| Some(*at) != leader).unwrap()
    }

    /// Proposes each command until it is applied. One whose fate is unknown may be applied twice.
    async fn propose(&self, commands: Vec<Bytes>) {
        let mut left = commands;
        while !left.is_empty() {
            until("a leader", || self.leader().is_some()).await;
            let Some(leader) = self.leader() else { continue };
            let group = &self.members[leader].group;
            let deadline = self.env.now() + LONG;
            let waiting: Vec<_> =
                left.drain(..).map(|command| (group.propose(command.clone(), deadline), command)).collect();
            for (outcome, command) in waiting {
                match within("an outcome", outcome).await {
                    Outcome::Applied(_) => {}
                    Outcome::NotLeader { .. } | Outcome::Unknown(_) => left.push(command),
                    refused @ Outcome::Refused(_) => panic!("{refused:?}"),
                }
            }
        }
    }

    /// Waits until a member has applied all commands.
    async fn caught_up(&self, at: usize, wanted: &[Bytes]) {
        let mut watching = self.members[at].list.0.subscribe();
        let all = |image: &Image| {
            let applied: std::collections::BTreeSet<_> = image.commands.iter().collect();
            image.commands.len() >= wanted.len() && wanted.iter().all(|command| applied.contains(command))
        };
        within("all is applied", watching.wait_for(all)).await.unwrap();
    }

    /// All members have applied all commands and hold the same.
    async fn agree(&self, wanted: &[Bytes]) {
        for at in 0..NODES.len() {
            self.caught_up(at, wanted).await;
        }
        let longest = self.members.iter().map(|member| member.list.0.borrow().applied.index).max().unwrap();
        for member in &self.members {
            let mut watching = member.list.0.subscribe();
            within("the rest", watching.wait_for(|image| image.applied.index >= longest)).await.unwrap();
        }
        let lists: Vec<_> = self.members.iter().map(|member| member.list.0.borrow().commands.clone()).collect();
        let shortest = lists.iter().map(Vec::len).min().unwrap();
        assert!(lists.iter().all(|list| list[..shortest] == lists[0][..shortest]), "the same order everywhere");
    }

    async fn stop(self) {
        for member in self.members {
            let stats = member.counters.read();
            println!("node {}: {stats:?}", member.id);
            assert_eq!((stats.refused, stats.malformed, stats.dropped_too_large), (0, 0, 0));
            member.host.shutdown(self.env.now() + LONG).await.unwrap();
        }
    }
}

fn commands(numbers: std::ops::Range<usize>) -> Vec<Bytes> {
    numbers.map(text).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hosts_replicate_a_thousand_proposals() {
    let trio = Trio::start().await;
    let wanted = commands(0..1_000);
    trio.propose(wanted.clone()).await;
    trio.agree(&wanted).await;
    for member in &trio.members {
        let stats = member.counters.read();
        assert!(stats.sent > 0 && stats.received > 0, "{stats:?}");
    }
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_listener_was_away_catches_up_when_it_is_back_on_its_port() {
    let mut trio = Trio::start().await;
    trio.propose(commands(0..100)).await;
    let follower = trio.follower().await;
    let address = trio.address(follower);
    trio.stop_listening(follower).await;
    let wanted = commands(0..400);
    trio.propose(commands(100..400)).await;
    assert!(trio.members[follower].list.0.borrow().commands.len() < 400, "it hears nothing");
    trio.listen(follower, &address).await;
    trio.agree(&wanted).await;
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moved_catches_up_once_the_address_book_has_changed() {
    let mut trio = Trio::start().await;
    trio.propose(commands(0..100)).await;
    let follower = trio.follower().await;
    let before = trio.address(follower);
    trio.stop_listening(follower).await;
    trio.propose(commands(100..300)).await;
    trio.listen(follower, "127.0.0.1:0").await;
    assert_ne!(trio.address(follower), before);
    assert!(trio.members[follower].list.0.borrow().commands.len() < 300, "nobody knows where it is");
    trio.publish(follower);
    trio.agree(&commands(0..300)).await;
    trio.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_proposal_is_replicated() {
    const LARGEST_BYTES: usize = 80 << 20;
    let trio = Trio::start().await;
    let largest = Bytes::from(vec![b'x'; LARGEST_BYTES]);
    trio.propose(vec![largest.clone()]).await;
    trio.propose(commands(0..10)).await;
    let wanted: Vec<_> = std::iter::once(largest).chain(commands(0..10)).collect();
    trio.agree(&wanted).await;
    trio.stop().await;
}
