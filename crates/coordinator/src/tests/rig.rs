//! See the module above.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sagitta_cluster::{
    Collection, Command, Floor, GroupMembers, NodeStatus, Place, ReplicaLoad, ReplicaReport, ReplicaRole, Report, Roles,
};
use sagitta_consensus::{ClusterId, Host, HostSettings, MemoryLog, NodeId, SilentTransport, States};
use sagitta_env::{Deadline, Env};
use sagitta_model::{
    Change, Consistency, Coverage, Effort, ErrorKind, Filter, FoundPoint, IndexPolicy, Metric, PointId, Record, Schema,
    SearchQuery, SearchResult, Selection, VectorSpec, VersionToken, Wait, WriteResult,
};

use crate::{
    Control, Coordinator, Elsewhere, Error, NodeClient, Page, Read, Reports, Search, ShardError, ShardRef,
    ShardStatistics, Write,
};

/// The coordinator is none of the nodes that hold replicas.
const ME: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(30);

/// What a node is asked.
pub(super) struct Call {
    pub(super) node: u64,
    pub(super) shard: u64,
    /// The split that the caller goes by.
    pub(super) split: u64,
}

type Answer = Box<dyn Fn(&Call) -> Result<SearchResult, ShardError> + Send + Sync>;

/// Nodes that answer as they are told.
struct Scripted {
    answer: Answer,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    hanging: BTreeSet<u64>,
    /// Node, and how many shards the call was for.
    calls: Vec<(u64, usize)>,
    /// Shard, and the split that the call went by.
    asked: BTreeSet<(u64, u64)>,
    /// What writes are answered with by each shard, instead of one point at the index 1,000.
    written: BTreeMap<u64, WriteResult>,
    request_ids: Vec<u128>,
    /// Shard, and what it was asked to change.
    changes: Vec<(u64, Arc<Change>)>,
}

pub(super) struct Rig {
    pub(super) coordinator: Coordinator<Scripts>,
    _host: Host,
    _dir: tempfile::TempDir,
}

/// Of this crate, so that the trait can be implemented for it.
pub(super) struct Scripts(Arc<Scripted>);

impl Rig {
    /// A cluster of so many nodes, with a collection of so many shards and replicas, whose nodes answer like this.
    pub(super) async fn start(
        nodes: u64,
        shards: u32,
        replication: u32,
        answer: impl Fn(&Call) -> Result<SearchResult, ShardError> + Send + Sync + 'static,
    ) -> Self {
        let (env, dir) = (Env::real(), tempfile::tempdir().expect("a temporary folder"));
        let settings = HostSettings::new(ClusterId(1), NodeId(ME));
        let host = Host::start(&env, settings, Arc::new(MemoryLog::new()), Arc::new(SilentTransport)).expect("a host");
        let handle = host.handle();
        let control = Control::open(&env, dir.path(), 1, vec![NodeId(ME)], &handle, States::default());
        let control = control.await.expect("a control group");
        let scripted = Arc::new(Scripted { answer: Box::new(answer), seen: Mutex::default() });
        let reports = Arc::new(Reports::new(env.clone()));
        let coordinator = Coordinator::new(env, ME, control, Arc::new(Scripts(scripted)), reports);
        let rig = Self { coordinator, _host: host, _dir: dir };
        for id in 1..=nodes {
            let (peer_address, api_address) = (format!("http://n{id}:2"), format!("http://n{id}:1"));
            let place = Place {
                peer_address,
                api_address,
                zone: String::new(),
                roles: Roles { coordinator: false, shard: true },
            };
            rig.decide(Command::Join { id, incarnation: u128::from(id), run: 0, place, unix_micros: 1 }).await;
            rig.decide(Command::SetNodeStatus { id, status: NodeStatus::Up }).await;
        }
        let (name, schema) = ("c".parse().expect("a name"), schema());
        let command =
            Command::CreateCollection { request_id: 1, id: 2, name, schema, shards, replication, unix_micros: 1 };
        rig.decide(command).await;
        rig.report(nodes);
        rig
    }

    /// Every node says that it hosts what it should; nobody says who leads.
    fn report(&self, nodes: u64) {
        let collection = self.collection();
        for node in 1..=nodes {
            let hosted = collection.shards.iter().filter(|shard| shard.replicas.contains(&node));
            let replicas = hosted.map(|shard| ReplicaReport {
                shard: shard.id,
                epoch: shard.epoch,
                role: ReplicaRole::Follower,
                leader: None,
                term: 1,
                applied: 1,
                points: 1,
                disk_bytes: 1,
                data_bytes: 1,
                load: ReplicaLoad::default(),
                problem: None,
                split: None,
                members: None,
                last: Floor { term: 1, index: 2 },
            });
            self.coordinator.reports().heard(node, Report { replicas: replicas.collect(), ..all_followed() });
        }
    }

    pub(super) async fn decide(&self, command: Command) {
        self.coordinator.decide(command, self.deadline()).await.expect("decided");
    }

    pub(super) fn env(&self) -> &Env {
        self.coordinator.env()
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.env().deadline(PATIENCE)
    }

    pub(super) fn collection(&self) -> Arc<Collection> {
        let state = self.coordinator.control().state();
        state.collections().values().next().cloned().expect("the collection")
    }

    pub(super) fn shards(&self) -> Vec<u64> {
        self.collection().shards.iter().map(|shard| shard.id).collect()
    }

    pub(super) async fn search(&self, mut search: Search) -> Result<(Vec<SearchResult>, Coverage), Error> {
        if search.deadline == Deadline::NEVER {
            search.deadline = self.deadline();
        }
        self.coordinator.search(&self.collection(), search).await
    }

    /// Writes one point, under this request id.
    pub(super) async fn write(&self, request_id: u128) -> Result<WriteResult, Error> {
        let change = Change::Delete(vec![PointId::Num(1)]);
        let write = Write { request_id, change, wait: Wait::Committed, deadline: self.deadline() };
        self.coordinator.write(&self.collection(), write).await
    }

    /// Writes to every shard, under this request id.
    pub(super) async fn write_everywhere(&self, request_id: u128) -> Result<WriteResult, Error> {
        let change = Change::DeleteByFilter(Filter::default());
        let write = Write { request_id, change, wait: Wait::Committed, deadline: self.deadline() };
        self.coordinator.write(&self.collection(), write).await
    }

    /// A node says up to which deletion it has followed.
    pub(super) fn followed(&self, node: u64, deletions: u64) {
        let heard = self.coordinator.reports().of(node).expect("it has reported");
        self.coordinator.reports().heard(node, Report { deletions, ..Report::clone(&heard.report) });
    }

    /// What a node says of its replicas: up to where they have applied their logs, and whether they lead.
    pub(super) fn told(&self, node: u64, applied: u64, role: ReplicaRole) {
        let heard = self.coordinator.reports().of(node).expect("it has reported");
        let replicas = heard.report.replicas.iter().cloned();
        let replicas = replicas.map(|replica| ReplicaReport { applied, role, ..replica }).collect();
        self.coordinator.reports().heard(node, Report { replicas, ..all_followed() });
    }

    /// A node says that it leads all shards since a term, with all their replicas.
    pub(super) fn leads(&self, node: u64, term: u64) {
        let heard = self.coordinator.reports().of(node).expect("it has reported");
        let collection = self.collection();
        let members = |id: u64| {
            let shard = collection.shards.iter().find(|shard| shard.id == id)?;
            Some(GroupMembers { voters: shard.replicas.clone(), learners: Vec::new() })
        };
        let replicas = heard.report.replicas.iter().cloned();
        let replicas = replicas.map(|replica| {
            let members = members(replica.shard);
            ReplicaReport { role: ReplicaRole::Leader, term, members, ..replica }
        });
        let replicas = replicas.collect();
        self.coordinator.reports().heard(node, Report { replicas, ..all_followed() });
    }

    /// From now on a node answers no read and no write.
    pub(super) fn hang(&self, node: u64) {
        self.seen(|seen| seen.hanging.insert(node));
    }

    /// The calls since this was asked last: node, and number of shards.
    pub(super) fn calls(&self) -> Vec<(u64, usize)> {
        self.seen(|seen| std::mem::take(&mut seen.calls))
    }

    /// The shards that were asked since this was asked last, with the splits that the calls went by.
    pub(super) fn asked(&self) -> Vec<(u64, u64)> {
        self.seen(|seen| std::mem::take(&mut seen.asked)).into_iter().collect()
    }

    /// From now on a shard says this of each write.
    pub(super) fn wrote(&self, shard: u64, written: WriteResult) {
        self.seen(|seen| seen.written.insert(shard, written));
    }

    /// Waits until the control group has noted what was applied.
    pub(super) async fn settle(&self) {
        let (mut group, applied) = (self.coordinator.control.group().clone(), self.coordinator.control.applied());
        while group.status().applied < *applied.borrow() {
            group.changed().await.expect("the group is open");
        }
    }

    /// Another coordinator, which learns of nothing more until what comes with it is called.
    pub(super) fn behind(&self) -> (Coordinator<Scripts>, impl FnOnce() + use<>) {
        let Coordinator { env, nodes, reports, control, .. } = &self.coordinator;
        let (control, learn) = control.behind();
        (Coordinator::new(env.clone(), ME + 1, control, nodes.clone(), reports.clone()), learn)
    }

    /// The request ids of all writes.
    pub(super) fn request_ids(&self) -> Vec<u128> {
        self.seen(|seen| seen.request_ids.clone())
    }

    /// What all writes asked for, by shard.
    pub(super) fn changes(&self) -> Vec<(u64, Arc<Change>)> {
        self.seen(|seen| std::mem::take(&mut seen.changes))
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.coordinator.nodes.0.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a node says that follows every deletion at once.
fn all_followed() -> Report {
    Report { deletions: u64::MAX, ..Report::default() }
}

pub(super) fn schema() -> Schema {
    let mut schema = Schema::default();
    schema.vectors.insert("v".into(), VectorSpec { dim: 1, metric: Metric::InnerProduct, index: IndexPolicy::Flat });
    schema
}

/// A search for so many points, with a deadline that [`Rig::search`] sets.
pub(super) fn query(k: usize) -> Search {
    let query = SearchQuery {
        vector_name: "v".into(),
        vector: vec![1.0],
        k,
        min_similarity: None,
        filter: None,
        effort: Effort::default(),
        group_by: None,
    };
    Search {
        queries: vec![(query, Selection::default())],
        consistency: Consistency::Eventual,
        allow_partial: false,
        explain: false,
        deadline: Deadline::NEVER,
    }
}

pub(super) fn ask(search: Search, allow_partial: bool) -> Search {
    Search { allow_partial, ..search }
}

/// What a shard finds: one point that has its number.
pub(super) fn found(shard: u64) -> SearchResult {
    let hits = vec![FoundPoint { id: PointId::Num(shard), similarity: 0.5, record: None }];
    SearchResult { hits, ..SearchResult::default() }
}

fn record(id: PointId) -> Record {
    Record { id, version: 1, payload: None, vectors: Default::default() }
}

pub(super) fn failing(elsewhere: Elsewhere) -> ShardError {
    ShardError { elsewhere: Some(elsewhere), ..ShardError::new(ErrorKind::Unavailable, "planted") }
}

pub(super) fn not_leader(hint: Option<u64>) -> ShardError {
    failing(Elsewhere::NotLeader { hint })
}

impl Scripts {
    fn answer(&self, node: u64, shard: ShardRef) -> Result<SearchResult, ShardError> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).asked.insert((shard.shard, shard.split));
        (self.0.answer)(&Call { node, shard: shard.shard, split: shard.split })
    }

    fn note(&self, node: u64, shards: usize) -> bool {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.calls.push((node, shards));
        seen.hanging.contains(&node)
    }

    /// For calls of one shard.
    fn one(&self, node: u64, shard: ShardRef) -> Result<SearchResult, ShardError> {
        self.note(node, 1);
        self.answer(node, shard)
    }

    /// For reads and writes of one shard.
    async fn read_or_write(&self, node: u64, shard: ShardRef) -> Result<SearchResult, ShardError> {
        if self.note(node, 1) {
            return std::future::pending().await;
        }
        self.answer(node, shard)
    }
}

impl NodeClient for Scripts {
    async fn write(
        &self,
        node: u64,
        shard: ShardRef,
        request_id: u128,
        change: Arc<Change>,
        _wait: Wait,
        _deadline: Deadline,
    ) -> Result<WriteResult, ShardError> {
        {
            let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.request_ids.push(request_id);
            seen.changes.push((shard.shard, change));
        }
        self.read_or_write(node, shard).await?;
        let told = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).written.get(&shard.shard).cloned();
        let tokens = vec![VersionToken { shard: shard.shard, index: 1_000 }];
        Ok(told.unwrap_or_else(|| WriteResult { applied: 1, tokens, ..WriteResult::default() }))
    }

    async fn search(
        &self,
        node: u64,
        shards: &[ShardRef],
        queries: Arc<[(SearchQuery, Selection)]>,
        _explain: bool,
        _read: Read,
    ) -> Vec<(u64, Result<Vec<SearchResult>, ShardError>)> {
        if self.note(node, shards.len()) {
            return std::future::pending().await;
        }
        let all = |shard: &ShardRef| {
            let result = self.answer(node, *shard).map(|result| vec![result; queries.len()]);
            (shard.shard, result)
        };
        shards.iter().map(all).collect()
    }

    async fn get(
        &self,
        node: u64,
        shard: ShardRef,
        ids: Vec<PointId>,
        _selection: Selection,
        _read: Read,
    ) -> Result<Vec<Record>, ShardError> {
        self.read_or_write(node, shard).await.map(|_| ids.into_iter().map(record).collect())
    }

    async fn count(
        &self,
        node: u64,
        shard: ShardRef,
        _filter: Option<Arc<Filter>>,
        _read: Read,
    ) -> Result<u64, ShardError> {
        self.read_or_write(node, shard).await.map(|found| found.hits.len() as u64)
    }

    async fn scroll(&self, node: u64, shard: ShardRef, _page: Page, _read: Read) -> Result<Vec<Record>, ShardError> {
        let found = self.read_or_write(node, shard).await?;
        Ok(found.hits.into_iter().map(|hit| record(hit.id)).collect())
    }

    async fn statistics(&self, node: u64, shard: ShardRef) -> Result<ShardStatistics, ShardError> {
        self.one(node, shard).map(|_| ShardStatistics::default())
    }

    async fn propose(&self, _node: u64, _command: Bytes, _deadline: Deadline) -> Result<Bytes, ShardError> {
        Err(not_leader(None))
    }

    async fn read_index(&self, _node: u64, _deadline: Deadline) -> Result<u64, ShardError> {
        Err(not_leader(None))
    }

    async fn hand_over(&self, node: u64, shard: ShardRef, _to: u64, _deadline: Deadline) -> Result<(), ShardError> {
        self.one(node, shard).map(drop)
    }

    async fn pull(&self, _: u64, _: ShardRef, _: Bytes, _: Deadline) -> Result<Bytes, ShardError> {
        Err(not_leader(None))
    }
}
