//! What keeps a node of a cluster from being two, or from being another than it was. The servers run in this process, over sockets of the
//! system and the real Raft log, with the twins of the other engines.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::kv::MemoryEngine;
use sagitta_env::Env;
use sagitta_server::{ClusterConfig, Config, Engines, Platform, Roles, Server, StartError};
use sagitta_wire::v1;
use sagitta_wire::v1::cluster_service_client::ClusterServiceClient;
use tonic::transport::Endpoint;

/// Hangs become failures. Nothing is expected to take this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A data folder, and where its process listens.
struct Member {
    data: PathBuf,
    api: SocketAddr,
    peers: SocketAddr,
    coordinator: bool,
}

impl Member {
    fn new(data: PathBuf, coordinator: bool) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        Self { data, api: free(), peers: free(), coordinator }
    }

    async fn start(&self, join: Option<(&Member, &str)>) -> Result<Server, StartError> {
        let mut config = Config::new(self.data.clone(), self.api);
        config.cluster = Some(ClusterConfig {
            peer_listen: self.peers,
            peer_tls: None,
            roles: Roles { coordinator: self.coordinator, shard: true },
            zone: String::new(),
            join: join.iter().map(|(member, _)| format!("http://{}", member.peers)).collect(),
            join_token: join.map(|(_, token)| token.to_owned()),
        });
        (config.search_threads, config.build_threads) = (1, 1);
        let engines = Engines { kv: Arc::new(MemoryEngine::new()), index: Arc::new(ExactEngine) };
        let starting = Box::pin(Server::start(config, Platform::system(engines), Env::real()));
        Env::real().timeout(PATIENCE, starting).await.expect("it starts or says why not")
    }

    async fn client(&self) -> ClusterServiceClient<tonic::transport::Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.api)).expect("an address");
        loop {
            match endpoint.connect().await {
                Ok(channel) => return ClusterServiceClient::new(channel),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// Starts as the founder of a cluster; the server and the join token.
    async fn found(&self) -> (Server, String) {
        let init = async { self.client().await.init_cluster(v1::InitClusterRequest {}).await };
        let (server, answer) = tokio::join!(self.start(None), init);
        (server.expect("founded"), answer.expect("founded").into_inner().join_token)
    }

    /// How many nodes the cluster has, as this one knows.
    async fn nodes(&self) -> usize {
        let answer = self.client().await.list_nodes(v1::ListNodesRequest::default()).await.expect("answered");
        answer.into_inner().nodes.len()
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy_folder(&path, &to),
            false => drop(fs::copy(&path, &to).expect("a copy")),
        }
    }
}

#[track_caller]
fn refused(started: Result<Server, StartError>, named: &[String]) {
    let error = started.map(drop).expect_err("refused").to_string();
    for name in named {
        assert!(error.contains(name), "{name} in {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_folder_is_refused_beside_its_original_and_a_node_that_has_moved_is_let_in() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let first = Member::new(temp.path().join("first"), true);
    let (server, token) = first.found().await;
    let member = Member::new(temp.path().join("member"), false);
    let original = member.start(Some((&first, &token))).await.expect("let in");

    // Copied while nothing writes to them: a copy of a folder in use misses files at random.
    let copy = Member::new(temp.path().join("copy"), false);
    original.stop().await.expect("stopped");
    copy_folder(&member.data, &copy.data);
    let of_founder = Member::new(temp.path().join("founder"), true);
    server.stop().await.expect("stopped");
    copy_folder(&first.data, &of_founder.data);
    let server = first.start(None).await.expect("started again");
    let original = member.start(Some((&first, &token))).await.expect("started again");
    let both = [member.peers.to_string(), copy.peers.to_string()];
    refused(copy.start(Some((&first, &token))).await, &both);
    refused(of_founder.start(Some((&first, &token))).await, &[first.peers.to_string(), of_founder.peers.to_string()]);

    original.stop().await.expect("stopped");
    let moved = Member { data: member.data.clone(), ..Member::new(PathBuf::new(), false) };
    let moved_server = moved.start(Some((&first, &token))).await.expect("it has moved");
    moved_server.stop().await.expect("stopped");
    // It started less often than the one that has moved.
    let late = Member::new(temp.path().join("late"), false);
    fs::rename(&copy.data, &late.data).expect("renamed");
    let mut identity = fs::read_to_string(late.data.join("sagitta.json")).expect("an identity");
    assert!(identity.contains("\"starts\": 2"), "{identity}");
    identity = identity.replace("\"starts\": 2", "\"starts\": 1");
    fs::write(late.data.join("sagitta.json"), identity).expect("written");
    refused(late.start(Some((&first, &token))).await, &[moved.peers.to_string(), late.peers.to_string()]);
    assert_eq!(first.nodes().await, 2);
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_told_both_ids_and_leaves_nothing_behind() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let (ours, theirs) = (Member::new(temp.path().join("ours"), true), Member::new(temp.path().join("theirs"), true));
    let ((one, token), (other, other_token)) = (ours.found().await, theirs.found().await);
    let member = Member::new(temp.path().join("member"), false);
    member.start(Some((&ours, &token))).await.expect("let in").stop().await.expect("stopped");
    let moved = Member { data: member.data.clone(), ..Member::new(PathBuf::new(), false) };
    let mut ids = Vec::new();
    for member in [&ours, &theirs] {
        let answer = member.client().await.get_cluster(v1::GetClusterRequest {}).await.expect("answered");
        ids.push(answer.into_inner().id.replace('-', ""));
    }
    refused(moved.start(Some((&theirs, &other_token))).await, &ids);
    assert_eq!((ours.nodes().await, theirs.nodes().await), (2, 1));
    one.stop().await.expect("stopped");
    other.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_log_is_gone_does_not_start_and_says_what_helps() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let first = Member::new(temp.path().join("first"), true);
    let (server, _) = first.found().await;
    server.stop().await.expect("stopped");
    let (log, moved) = (first.data.join("log"), temp.path().join("moved"));
    // As after a crash: what was decided is in the log alone.
    fs::remove_file(first.data.join("control/state.json")).expect("removed");
    fs::rename(&log, &moved).expect("moved");
    let told = [log.display().to_string(), first.data.display().to_string(), "--join".to_owned()];
    for _ in 0..2 {
        refused(first.start(None).await, &told);
    }
    fs::remove_dir_all(&log).expect("removed");
    fs::rename(&moved, &log).expect("put back");
    first.start(None).await.expect("as it was").stop().await.expect("stopped");
}
