//! What a process does once it belongs to a cluster: the threads, tasks and connections of its roles.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sagitta_cluster::{Command, Limits, NodeStatus, Place, Report, State};
use sagitta_consensus::{
    Condition, GroupId, Host, HostSettings, LogStore, NodeId, Shelf, SilentTransport, StateSource, States, Transport,
};
use sagitta_coordinator::{CONTROL_GROUP, Control, Coordinator, NodeClient, Reports};
use sagitta_env::{Deadline, Env, JoinHandle};
use sagitta_model::ErrorKind;
use sagitta_node::{Node, NodeOptions};
use sagitta_shard::{Engines, ShardOptions};
use tokio::sync::watch;
use tonic::service::Routes;

use crate::agent::{Agent, Followed, Placed, Seen};
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError, Layout};
use crate::data_plane::{Attendant, RemoteNodes, control_service, shard_service};
use crate::filler::Filler;
use crate::gate::{Gate, coordinators};
use crate::net::{Door, Net};
use crate::nodes::Nodes;
use crate::own_node::OwnNode;
use crate::peers::{
    AddressBook, Guests, Lending, Outbound, PeerCounters, PeerIdentity, PeerListener, Sending, StateFetcher, Throttle,
    is_overtaken, outbound,
};
use crate::recover::superseded;
use crate::start::{OpenLog, StartError, log_settings};
use crate::steward::Steward;

/// The nodes of the cluster as the coordinator of this process reaches them.
pub(crate) type AllNodes = Nodes<OwnNode, RemoteNodes>;

/// How long a cluster of one node may take to decide something.
const ALONE: Duration = Duration::from_secs(10);
/// How often a node whose place has changed tries to have that noted.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);

/// What a process is made of.
pub(crate) struct Parts<'a> {
    pub(crate) env: &'a Env,
    pub(crate) net: &'a Net,
    pub(crate) config: &'a Config,
    pub(crate) data: &'a DataDir,
    pub(crate) me: PeerIdentity,
    pub(crate) place: Place,
    /// Where other nodes are listened for; nowhere by a process that is its own cluster.
    pub(crate) peers: Option<Door>,
    /// Coordinators that are known before any state is.
    pub(crate) known: Vec<(u64, String)>,
    /// BLAKE3 of the join token of a cluster that is founded now.
    pub(crate) join_token: Option<[u8; 32]>,
}

/// A process at work.
pub(crate) struct Started {
    pub(crate) host: Host,
    pub(crate) node: Arc<Node>,
    pub(crate) control: Option<Control>,
    pub(crate) coordinator: Option<Arc<Coordinator<AllNodes>>>,
    pub(crate) tasks: Vec<JoinHandle<()>>,
    pub(crate) network: Option<Network>,
    /// Why it must end, once it must.
    pub(crate) superseded: watch::Receiver<Option<String>>,
}

/// The connections with other nodes.
pub(crate) struct Network {
    listener: PeerListener,
    sending: Sending,
    attendant: Attendant,
    closing: watch::Sender<bool>,
}

impl Network {
    /// Where other nodes are listened for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Ends all connections.
    pub(crate) async fn stop(self) {
        // Nobody listening means that nobody is connected.
        let _ = self.closing.send(true);
        self.attendant.stop().await;
        self.sending.stop().await;
        self.listener.stop().await;
    }
}

impl Parts<'_> {
    /// Starts the roles. A new coordinator is ready when it has learned who founded its cluster, any other process at once.
    pub(crate) async fn start(self, engines: Engines, open_log: &OpenLog) -> Result<Started, StartError> {
        let Self { env, net, config, data, me, ref place, .. } = self;
        let (all, coordinators) = (AddressBook::on(net.clone()), AddressBook::on(net.clone()));
        let books = Books { guests: Guests::of(me), all, coordinators };
        let counters = Arc::<PeerCounters>::default();
        let (host, outgoing) = self.host(open_log, &books, &counters)?;
        let shelf = Shelf::default();
        let source = self.peers.as_ref().map(|_| StateFetcher::start(env, me, books.all.clone()));
        let source = source.map(|source| Arc::new(source) as Arc<dyn StateSource>);
        let whole = States { shelf: shelf.clone(), source };
        let node = Arc::new(Node::start(env.clone(), self.node_options(whole.clone()), engines, host.handle())?);
        let (placed, followed) = (Placed::default(), Followed::open(data.layout().followed())?);
        if let Some(why) = followed.last().and_then(|seen| superseded(&seen.state, me.node)) {
            return Err(StartError::Superseded(why));
        }
        let (ending, ends) = watch::channel(None);
        let states = Arc::new(watch::Sender::new(followed.last().cloned()));
        let agent = Agent::new(env.clone(), me.node.0, node.clone(), placed.clone(), followed);
        let heeding = books.clone();
        let mut agent = agent.heeding(move |state| heeding.follow(state));

        books.note(&self.known, states.borrow().as_ref());
        let mut tasks = vec![env.spawn(books.clone().keep(states.subscribe(), ending.clone()))];
        let connected = outgoing.map(|outgoing| {
            let sending = outgoing.start(Arc::new(host.handle()));
            let coordinators = books.coordinators.clone();
            (sending, Attendant::start(env, me, coordinators, agent.reports(), states.clone()))
        });

        let control = if place.roles.coordinator { Some(self.control(&host, &states, whole).await?) } else { None };
        let own = Arc::new(OwnNode::new(node.clone(), placed, control.clone()));
        let coordinator = match &control {
            Some(control) => {
                let coordinator = Arc::new(self.coordinator(control, own.clone(), books.all.clone()));
                tasks.push(env.spawn(publish(coordinator.clone(), states.clone())));
                tasks.push(env.spawn(look_ahead(control.clone(), states.subscribe(), ending)));
                tasks.push(env.spawn(tell(agent.reports(), coordinator.reports().clone(), me.node.0)));
                tasks.extend(self.take_part(&coordinator).await?);
                Some(coordinator)
            }
            None => None,
        };
        let alone = control.as_ref().zip(coordinator.as_deref()).filter(|_| self.peers.is_none());
        let last = states.borrow().clone();
        self.follow_first(&mut agent, alone, last).await?;
        let steward = Steward::new(env.clone(), me.node.0, node.clone());
        tasks.push(env.spawn(steward.run(states.subscribe())));
        let filler = self.filler(&node, own.clone(), books.all.clone());
        tasks.push(env.spawn(filler.run(states.subscribe())));
        tasks.push(env.spawn(agent.run(states.subscribe())));

        let network = match (self.peers, connected) {
            (Some(listener), Some((sending, attendant))) => {
                let (closing, closed) = watch::channel(false);
                let mut routes = Routes::new(shard_service(env.clone(), books.guests.clone(), own.clone()));
                if let Some(coordinator) = &coordinator {
                    let gate = Arc::new(Gate::new(coordinator.clone(), states.subscribe(), books.guests.clone()));
                    let service = control_service(env.clone(), books.guests.clone(), gate, own, closed);
                    routes = routes.add_service(service);
                }
                let inbox = Arc::new(host.handle());
                let listen = |source| StartError::Listen { address: config.listen, source };
                let lending = Lending { shelf, throttle: Throttle::new(env, config.copy_rate.0) };
                let listener = PeerListener::start(env, listener, books.guests, inbox, lending, counters, routes);
                let listener = listener.map_err(listen)?;
                Some(Network { listener, sending, attendant, closing })
            }
            _ => None,
        };
        Ok(Started { host, node, control, coordinator, tasks, network, superseded: ends })
    }

    /// Hosts what should be here, as far as it is known.
    async fn follow_first(
        &self,
        agent: &mut Agent,
        alone: Option<(&Control, &Coordinator<AllNodes>)>,
        last: Option<Seen>,
    ) -> Result<(), StartError> {
        if let Some((control, coordinator)) = alone {
            // Alone there is nobody else to serve a replica that cannot be opened: the process says so, and ends.
            coordinator.catch_up(self.env.deadline(ALONE)).await?;
            agent.follow(&Seen::of(control)).await?;
        } else if let Some(seen) = last {
            // What fails is logged, reported, and tried again.
            let _ = agent.follow(&seen).await;
        }
        Ok(())
    }

    /// What fills the new shards of merges.
    fn filler(&self, node: &Arc<Node>, own: Arc<OwnNode>, all: AddressBook) -> Filler<AllNodes> {
        let Self { env, me, .. } = *self;
        let nodes = Arc::new(Nodes::new(me.node.0, own, RemoteNodes::new(env.clone(), me, all)));
        Filler::new(env.clone(), node.clone(), nodes, Throttle::new(env, self.config.copy_rate.0))
    }

    /// Who answers requests here.
    fn coordinator(&self, control: &Control, own: Arc<OwnNode>, all: AddressBook) -> Coordinator<AllNodes> {
        let Self { env, me, .. } = *self;
        let nodes = Arc::new(Nodes::new(me.node.0, own, RemoteNodes::new(env.clone(), me, all)));
        let reports = Arc::new(Reports::new(env.clone()));
        let Config { repair_after, split_above, .. } = self.config;
        let split_above = split_above.map(|bytes| bytes.0);
        let limits = Limits { repair_after: *repair_after, split_above, ..Limits::default() };
        Coordinator::new(env.clone(), me.node.0, control.clone(), nodes, reports).with_limits(limits)
    }

    fn host(
        &self,
        open_log: &OpenLog,
        books: &Books,
        counters: &Arc<PeerCounters>,
    ) -> Result<(Host, Option<Outbound>), StartError> {
        let (transport, outgoing): (Arc<dyn Transport>, _) = match &self.peers {
            Some(_) => {
                let (transport, outgoing) = outbound(self.env, self.me, books.all.clone(), counters.clone());
                (Arc::new(transport), Some(outgoing))
            }
            None => (Arc::new(SilentTransport), None),
        };
        let settings = log_settings(sagitta_node::volume_bytes(self.data.path()));
        let log = open_log(&self.data.layout().log(), settings)?;
        check_log(self.data.layout(), &*log)?;
        let host = Host::start(self.env, HostSettings::new(self.me.cluster, self.me.node), log, transport)?;
        Ok((host, outgoing))
    }

    fn node_options(&self, states: States) -> NodeOptions {
        NodeOptions {
            dir: self.data.layout().shards(),
            node: self.me.node,
            search_threads: self.config.search_threads,
            build_threads: self.config.build_threads,
            memory: self.config.memory,
            release_memory: self.config.release_memory,
            shard: ShardOptions::default(),
            states,
        }
    }

    /// Opens the control group. Its first voter is whoever founded the cluster, which a new coordinator learns with the first
    /// state that another one sends.
    async fn control(
        &self,
        host: &Host,
        states: &watch::Sender<Option<Seen>>,
        whole: States,
    ) -> Result<Control, StartError> {
        let founder = if self.data.founder() {
            self.me.node
        } else {
            let mut states = states.subscribe();
            let known = states.wait_for(Option::is_some).await.expect("invariant: the sender is here");
            let founder = known.as_ref().and_then(|seen| seen.state.founder());
            NodeId(founder.ok_or_else(|| StartError::NotLetIn("the cluster does not say who founded it".to_owned()))?)
        };
        let cluster = self.me.cluster.0;
        let (dir, handle) = (self.data.layout().control(), host.handle());
        Ok(Control::open(self.env, &dir, cluster, vec![founder], &handle, whole).await?)
    }

    /// Takes this node's part in the cluster: as its founder if it has none yet, and whatever comes from then on.
    async fn take_part<C: NodeClient>(
        &self,
        coordinator: &Arc<Coordinator<C>>,
    ) -> Result<[JoinHandle<()>; 2], StartError> {
        let keeping = coordinator.clone();
        let keeping = self.env.spawn(async move { keeping.keep().await });
        // A founder that restarts may not know yet that others are voters by now, whom it cannot hear before it listens: it must wait
        // for nothing here. What it did not get to say before it stopped, it announces.
        let founds = self.peers.is_none() || self.join_token.is_some();
        if founds && self.data.founder() && !is_member(&coordinator.control().state(), self.me.node.0) {
            self.found(coordinator, self.env.deadline(ALONE)).await?;
        }
        Ok([keeping, self.env.spawn(announce(coordinator.clone(), self.new_self()))])
    }

    /// The first decisions of a cluster: who founded it, and that it is there.
    async fn found<C: NodeClient>(&self, coordinator: &Coordinator<C>, deadline: Deadline) -> Result<(), StartError> {
        coordinator.decide(self.new_self(), deadline).await?;
        let (id, status) = (self.me.node.0, NodeStatus::Up);
        coordinator.decide(Command::SetNodeStatus { id, status }, deadline).await?;
        if let Some(digest) = self.join_token {
            coordinator.set_join_token(digest, deadline).await?;
        }
        Ok(())
    }

    /// This node as it is now.
    fn new_self(&self) -> Command {
        let (id, incarnation, place) = (self.me.node.0, self.me.incarnation, self.place.clone());
        let run = self.me.run.number;
        Command::Join { id, incarnation, run, place, unix_micros: self.env.unix_micros() }
    }
}

/// Whether the log has what the folder says that it must have. A single replica without its log is reported and keeps nobody from
/// anything; but whoever has a vote in the control group, or none of all the logs, is not the node any more that it was.
fn check_log(layout: &Layout, log: &dyn LogStore) -> Result<(), StartError> {
    let marked = layout.groups_with_log().map_err(|source| DataDirError::Io { path: layout.shards(), source })?;
    let held = log.groups()?;
    let gone: Vec<GroupId> = marked.iter().copied().filter(|group| !held.contains(group)).collect();
    if gone.contains(&CONTROL_GROUP) || !gone.is_empty() && gone == marked {
        let (log, data) = (layout.log(), layout.path().to_owned());
        return Err(StartError::LogGone { log, groups: gone, data });
    }
    Ok(())
}

fn is_member(state: &State, node: u64) -> bool {
    state.nodes().contains_key(&node)
}

/// Has the cluster note where this node is now, should it have moved, and which start of its folder this is: earlier ones, which are
/// those of copies, are heard no more.
async fn announce<C: NodeClient>(coordinator: Arc<Coordinator<C>>, this: Command) {
    let Command::Join { id, place, run, .. } = &this else { return };
    let mut said = false;
    loop {
        let deadline = coordinator.env().deadline(ALONE);
        let noted = match coordinator.catch_up(deadline).await {
            Ok(())
                if coordinator
                    .control()
                    .state()
                    .nodes()
                    .get(id)
                    .is_some_and(|node| node.place == *place && node.run == *run) =>
            {
                return;
            }
            Ok(()) => coordinator.decide(this.clone(), deadline).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            if error.kind() == ErrorKind::Conflict && !std::mem::replace(&mut said, true) {
                tracing::error!(%error, "the cluster does not note where this node is");
            }
            tracing::debug!(%error, "where this node is was not noted yet");
        }
        coordinator.env().sleep(ANNOUNCE_AGAIN).await;
    }
}

/// Brings the reports of the own node to the own coordinator.
async fn tell(mut told: watch::Receiver<Report>, reports: Arc<Reports>, me: u64) {
    loop {
        let report = told.borrow_and_update().clone();
        reports.heard(me, report);
        if told.changed().await.is_err() {
            return;
        }
    }
}

/// Publishes what the control group of this process has applied, where it is newer than what others have told.
async fn publish<C: NodeClient>(coordinator: Arc<Coordinator<C>>, states: Arc<watch::Sender<Option<Seen>>>) {
    let control = coordinator.control();
    let mut applied = control.applied();
    loop {
        applied.borrow_and_update();
        let seen = Seen::of(control);
        coordinator.reports().follow(&seen.state);
        states.send_if_modified(|known| {
            let newer = known.as_ref().is_none_or(|known| seen.index > known.index);
            if newer {
                *known = Some(seen);
            }
            newer
        });
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Ends a process whose member of the control group has stopped, since more was agreed on in its log than the group goes on with: that can be undone
/// nowhere. (One that comes later reads the entries by which the group became another, and lacks the last of them for a moment.)
async fn look_ahead(
    control: Control,
    mut states: watch::Receiver<Option<Seen>>,
    ending: watch::Sender<Option<String>>,
) {
    let mut group = control.group().clone();
    loop {
        let known = states.borrow_and_update().clone();
        let ahead = known.and_then(|known| Seen::of(&control).is_ahead_of(&known));
        if let (Some(ended), Condition::Stopped(_)) = (ahead, group.status().condition) {
            ending.send_replace(Some(format!(
                "the cluster's control group goes on from entry {ended}, and this coordinator's log holds more that was agreed on, which counts for \
                 nothing: start it with --roles shard if it holds shards, and a new coordinator with an empty data folder"
            )));
        }
        let is_over = tokio::select! {
            biased;
            changed = states.changed() => changed.is_err(),
            changed = group.changed() => changed.is_err(),
        };
        if is_over {
            return;
        }
    }
}

/// Where nodes are.
#[derive(Clone)]
struct Books {
    guests: Arc<Guests>,
    all: AddressBook,
    coordinators: AddressBook,
}

impl Books {
    /// What is known at the start. A state that was followed counts before anybody is listened to: the members of a group that were given
    /// up must not be heard by what goes on without them.
    fn note(&self, coordinators: &[(u64, String)], followed: Option<&Seen>) {
        for (node, address) in coordinators {
            self.set(&self.coordinators, NodeId(*node), address);
            self.set(&self.all, NodeId(*node), address);
        }
        if let Some(seen) = followed {
            self.follow(&seen.state);
        }
    }

    /// Goes by the newest state, whenever there is one, and says if this process must end by it.
    async fn keep(self, mut states: watch::Receiver<Option<Seen>>, ending: watch::Sender<Option<String>>) {
        let mut said = false;
        loop {
            let seen = states.borrow_and_update().clone();
            if let Some(seen) = seen {
                self.follow(&seen.state);
                let me = self.guests.me();
                if let Some(why) = superseded(&seen.state, me.node) {
                    ending.send_replace(Some(why));
                }
                let overtaken = seen.state.nodes().get(&me.node.0).filter(|node| is_overtaken(&me.run, node));
                if let Some(node) = overtaken.filter(|_| !std::mem::replace(&mut said, true)) {
                    let (other, this) = (node.run, me.run.number);
                    tracing::error!(node = %me.node, at = node.place.peer_address, other, this, "a later start of a copy of this data folder has \
                        joined, and the cluster does not hear this process any more: stop it");
                }
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    fn follow(&self, state: &State) {
        for node in state.nodes().values() {
            if node.status == NodeStatus::Removed || node.place.peer_address.is_empty() {
                self.all.remove(NodeId(node.id));
                self.coordinators.remove(NodeId(node.id));
            } else {
                self.set(&self.all, NodeId(node.id), &node.place.peer_address);
            }
        }
        for (node, address) in coordinators(state) {
            self.set(&self.coordinators, NodeId(node), &address);
        }
        self.guests.follow(state);
    }

    fn set(&self, book: &AddressBook, node: NodeId, address: &str) {
        if node == self.guests.me().node {
            return;
        }
        match address.parse() {
            Ok(address) => book.set(node, address),
            Err(error) => tracing::error!(%node, address, %error, "a node's address is none"),
        }
    }
}

#[cfg(test)]
mod tests;
