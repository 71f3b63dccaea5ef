//! What the tests share: a node and a coordinator that do as they are told and remember what was asked, and a wire to cut.

use std::future::Future;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sagitta_cluster::{Command, Place, Report, Roles, State};
use sagitta_consensus::{NodeId, Shelf};
use sagitta_coordinator::{NodeClient, Page, Read, ShardError, ShardRef, ShardStatistics, Tokens};
use sagitta_env::{Deadline, Env};
use sagitta_model::*;
use sagitta_wire::Failure;
use sagitta_wire::control::{Join, Joined};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Uri;

use super::super::{Membership, control_service, shard_service};
use crate::Seen;
pub(super) use crate::peers::tests::rig::{CLUSTER, Recorder, brisk, identity, uri, within};
use crate::peers::{Guests, PeerIdentity, PeerListener};

pub(super) const SHARD: ShardRef = ShardRef { shard: 17, epoch: 3, split: 5 };

/// What a node was asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Call {
    Write(u64, ShardRef, u128, Change, Wait),
    Search(u64, Vec<ShardRef>, Vec<(SearchQuery, Selection)>, bool, Tokens),
    Get(u64, ShardRef, Vec<PointId>, Selection, Tokens),
    Count(u64, ShardRef, Option<Filter>, Tokens),
    Scroll(u64, ShardRef, Page, Tokens),
    Statistics(u64, ShardRef),
    Propose(u64, Bytes),
    ReadIndex(u64),
    HandOver(u64, ShardRef, u64),
    Pull(u64, ShardRef, Bytes),
}

/// A node that does as it is told.
#[derive(Default)]
pub(super) struct Scripted {
    pub(super) calls: watch::Sender<Vec<(Call, Deadline)>>,
    /// Calls that came in and are not answered before this says so.
    pub(super) hold: watch::Sender<bool>,
    /// Calls that were dropped without an answer.
    pub(super) dropped: watch::Sender<usize>,
    /// Instead of the answers below.
    pub(super) error: Mutex<Option<ShardError>>,
    pub(super) answers: Mutex<Answers>,
}

#[derive(Clone)]
pub(super) struct Answers {
    pub(super) written: WriteResult,
    pub(super) found: SearchResult,
    pub(super) records: Vec<Record>,
    pub(super) statistics: ShardStatistics,
}

impl Default for Answers {
    fn default() -> Self {
        let problem = Problem { kind: ErrorKind::Invalid, message: "no".to_owned(), violations: Vec::new() };
        let failure = ItemFailure { index: 1, id: PointId::Uuid(5), problem };
        let record = record(PointId::Num(7), "text");
        // The second is nearer than the third by the sign of a zero alone.
        let bare = |id, similarity| FoundPoint { id, similarity, record: Some(Box::new(self::record(id, ""))) };
        let hits = vec![
            FoundPoint { id: record.id, similarity: 0.25, record: Some(Box::new(record.clone())) },
            bare(PointId::Uuid(u128::MAX), 0.0),
            bare(PointId::Num(1), -0.0),
        ];
        Self {
            written: WriteResult {
                applied: 3,
                failures: vec![failure],
                tokens: vec![VersionToken { shard: 17, index: 9 }],
            },
            found: SearchResult { hits, ..SearchResult::default() },
            records: vec![record],
            statistics: ShardStatistics { ready: true, points: 300, shards: 1, ..ShardStatistics::default() },
        }
    }
}

pub(super) fn record(id: PointId, text: &str) -> Record {
    let payload = Object::from([("text".to_owned(), text.into())]);
    Record { id, version: 4, payload: Some(payload), vectors: NamedVectors::from([("v".to_owned(), vec![0.5, -1.0])]) }
}

/// Counts itself when it is dropped before its call was answered.
struct Pending<'a>(Option<&'a watch::Sender<usize>>);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(dropped) = self.0 {
            dropped.send_modify(|count| *count += 1);
        }
    }
}

impl Scripted {
    async fn enter(&self, call: Call, deadline: Deadline) -> Result<Answers, ShardError> {
        let mut hold = self.hold.subscribe();
        let mut pending = Pending(Some(&self.dropped));
        self.calls.send_modify(|calls| calls.push((call, deadline)));
        hold.wait_for(|hold| !hold).await.unwrap();
        pending.0 = None;
        match self.error.lock().unwrap().clone() {
            Some(error) => Err(error),
            None => Ok(self.answers.lock().unwrap().clone()),
        }
    }

    pub(super) fn fail_with(&self, error: Option<ShardError>) {
        *self.error.lock().unwrap() = error;
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.borrow().iter().map(|(call, _)| call.clone()).collect()
    }

    pub(super) async fn wait_for_calls(&self, count: usize) {
        let mut calls = self.calls.subscribe();
        within("calls arrive", calls.wait_for(|calls| calls.len() >= count)).await.unwrap();
    }

    pub(super) async fn wait_for_dropped(&self, count: usize) {
        let mut dropped = self.dropped.subscribe();
        within("calls are dropped", dropped.wait_for(|dropped| *dropped >= count)).await.unwrap();
    }
}

impl NodeClient for Scripted {
    async fn write(
        &self,
        node: u64,
        shard: ShardRef,
        request_id: u128,
        change: Arc<Change>,
        wait: Wait,
        deadline: Deadline,
    ) -> Result<WriteResult, ShardError> {
        let call = Call::Write(node, shard, request_id, (*change).clone(), wait);
        Ok(self.enter(call, deadline).await?.written)
    }

    async fn search(
        &self,
        node: u64,
        shards: &[ShardRef],
        queries: Arc<[(SearchQuery, Selection)]>,
        explain: bool,
        read: Read,
    ) -> Vec<(u64, Result<Vec<SearchResult>, ShardError>)> {
        let call = Call::Search(node, shards.to_vec(), queries.to_vec(), explain, read.tokens);
        let answer = self.enter(call, read.deadline).await;
        let answer = answer.map(|answers| vec![answers.found; queries.len()]);
        shards.iter().map(|shard| (shard.shard, answer.clone())).collect()
    }

    async fn get(
        &self,
        node: u64,
        shard: ShardRef,
        ids: Vec<PointId>,
        selection: Selection,
        read: Read,
    ) -> Result<Vec<Record>, ShardError> {
        Ok(self.enter(Call::Get(node, shard, ids, selection, read.tokens), read.deadline).await?.records)
    }

    async fn count(
        &self,
        node: u64,
        shard: ShardRef,
        filter: Option<Arc<Filter>>,
        read: Read,
    ) -> Result<u64, ShardError> {
        let call = Call::Count(node, shard, filter.as_deref().cloned(), read.tokens);
        Ok(self.enter(call, read.deadline).await?.statistics.points)
    }

    async fn scroll(&self, node: u64, shard: ShardRef, page: Page, read: Read) -> Result<Vec<Record>, ShardError> {
        Ok(self.enter(Call::Scroll(node, shard, page, read.tokens), read.deadline).await?.records)
    }

    async fn statistics(&self, node: u64, shard: ShardRef) -> Result<ShardStatistics, ShardError> {
        Ok(self.enter(Call::Statistics(node, shard), Deadline::NEVER).await?.statistics)
    }

    async fn propose(&self, node: u64, command: Bytes, deadline: Deadline) -> Result<Bytes, ShardError> {
        let outcome = command.iter().rev().copied().collect();
        self.enter(Call::Propose(node, command), deadline).await.map(|_| outcome)
    }

    async fn read_index(&self, node: u64, deadline: Deadline) -> Result<u64, ShardError> {
        Ok(self.enter(Call::ReadIndex(node), deadline).await?.statistics.points)
    }

    async fn hand_over(&self, node: u64, shard: ShardRef, to: u64, deadline: Deadline) -> Result<(), ShardError> {
        self.enter(Call::HandOver(node, shard, to), deadline).await.map(|_| ())
    }

    async fn pull(&self, node: u64, shard: ShardRef, question: Bytes, deadline: Deadline) -> Result<Bytes, ShardError> {
        let answer = question.iter().rev().copied().collect();
        self.enter(Call::Pull(node, shard, question), deadline).await.map(|_| answer)
    }
}

/// A coordinator that does as it is told.
pub(super) struct Members {
    pub(super) states: watch::Sender<Option<Seen>>,
    pub(super) reports: watch::Sender<Vec<(NodeId, Report)>>,
    pub(super) joins: watch::Sender<Vec<Join>>,
    pub(super) joined: Mutex<Result<Joined, Failure>>,
}

impl Default for Members {
    fn default() -> Self {
        let joined = Joined { cluster: CLUSTER.0, coordinators: vec![(2, "http://10.0.0.2:6381".to_owned())] };
        let (states, reports, joins) = Default::default();
        Self { states, reports, joins, joined: Mutex::new(Ok(joined)) }
    }
}

impl Members {
    pub(super) async fn wait_for_report(&self, what: &str, condition: impl Fn(&(NodeId, Report)) -> bool) {
        let mut reports = self.reports.subscribe();
        within(what, reports.wait_for(|reports| reports.last().is_some_and(&condition))).await.unwrap();
    }
}

impl Membership for Members {
    async fn join(&self, join: Join) -> Result<Joined, Failure> {
        self.joins.send_modify(|joins| joins.push(join));
        self.joined.lock().unwrap().clone()
    }

    fn states(&self) -> watch::Receiver<Option<Seen>> {
        self.states.subscribe()
    }

    fn reported(&self, node: NodeId, report: Report) {
        self.reports.send_modify(|reports| reports.push((node, report)));
    }
}

/// A node that is served, with the coordinator on it.
pub(super) struct Served {
    pub(super) env: Env,
    pub(super) node: Arc<Scripted>,
    pub(super) members: Arc<Members>,
    listener: PeerListener,
    stop: watch::Sender<bool>,
}

impl Served {
    pub(super) async fn start(me: PeerIdentity) -> Self {
        Self::start_at(me, "127.0.0.1:0", Arc::default(), Arc::default()).await
    }

    pub(super) async fn start_at(me: PeerIdentity, address: &str, node: Arc<Scripted>, members: Arc<Members>) -> Self {
        let (env, stop) = (Env::real(), watch::Sender::new(false));
        let listener = TcpListener::bind(address).await.unwrap();
        let guests = Guests::of(me);
        let control = control_service(env.clone(), guests.clone(), members.clone(), node.clone(), stop.subscribe());
        let routes = Routes::new(shard_service(env.clone(), guests.clone(), node.clone())).add_service(control);
        let inbox = Arc::new(Recorder::new());
        let listener =
            PeerListener::start(&env, listener, guests, inbox, Shelf::default(), Arc::default(), routes).unwrap();
        Self { env, node, members, listener, stop }
    }

    pub(super) fn address(&self) -> String {
        self.listener.address().to_string()
    }

    pub(super) fn uri(&self) -> Uri {
        uri(self.address())
    }

    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        self.listener.stop().await;
    }
}

/// Carries bytes to a target and back and counts its connections. Can cut them, or neither carry nor close.
pub(super) struct Wire {
    pub(super) uri: Uri,
    pub(super) connections: Arc<watch::Sender<usize>>,
    cut: Arc<watch::Sender<u64>>,
    frozen: Arc<watch::Sender<bool>>,
}

impl Wire {
    pub(super) async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = uri(listener.local_addr().unwrap());
        let (connections, cut) = (Arc::new(watch::Sender::new(0)), Arc::new(watch::Sender::new(0)));
        let (counting, cutting, frozen) = (connections.clone(), cut.clone(), Arc::new(watch::Sender::new(false)));
        let freezing = frozen.clone();
        let env = Env::real();
        env.clone().spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                counting.send_modify(|count| *count += 1);
                let (target, mut cut, mut freezing) = (target.clone(), cutting.subscribe(), freezing.subscribe());
                env.spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                        _ = async { drop(freezing.wait_for(|frozen| *frozen).await) } => std::future::pending().await,
                    }
                });
            }
        });
        Self { uri, connections, cut, frozen }
    }

    pub(super) fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    /// Present and new connections carry nothing any more, or those that are made from now on do.
    pub(super) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// Ends the present connections.
    pub(super) fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

/// A future on a task of its own, which is stopped by dropping the future.
pub(super) fn beside<F>(future: F) -> sagitta_env::JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    Env::real().spawn(future)
}

pub(super) fn query(k: usize) -> (SearchQuery, Selection) {
    let query = SearchQuery {
        vector_name: "v".to_owned(),
        vector: vec![0.5, -1.0],
        k,
        min_similarity: Some(-9.0),
        filter: Some(Arc::new(filter())),
        effort: Effort::Exact,
        group_by: None,
    };
    (query, selection())
}

pub(super) fn selection() -> Selection {
    Selection { payload: PayloadSelection::All, vectors: VectorSelection::Names(vec!["v".to_owned()]) }
}

pub(super) fn filter() -> Filter {
    Filter { must: vec![Condition::has_id(vec![PointId::Num(1), PointId::Uuid(2)])], ..Filter::default() }
}

pub(super) fn read(tokens: Tokens) -> Read {
    Read { tokens, deadline: Deadline::NEVER }
}

pub(super) fn place() -> Place {
    Place {
        peer_address: "http://10.0.0.7:6381".to_owned(),
        api_address: "http://10.0.0.7:6380".to_owned(),
        zone: "east".to_owned(),
        roles: Roles { coordinator: false, shard: true },
    }
}

/// A state that is as of an entry of the log, which it tells by its number of nodes.
pub(super) fn seen(index: u64) -> Seen {
    let mut state = State::new(CLUSTER.0);
    for node in 1..=index {
        let mut place = place();
        place.peer_address = format!("http://10.0.0.{node}:6381");
        place.api_address = format!("http://10.0.0.{node}:6380");
        let join = Command::Join { id: node, incarnation: node.into(), run: 0, place, unix_micros: 1 };
        state.apply(join).unwrap();
    }
    Seen { index, state: Arc::new(state) }
}
