//! A cluster whose nodes show each other certificates, and whose API is encrypted, too. The servers run in this process, over sockets of the system and the real Raft log, with
//! the twins of the other engines.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sagitta_client::{Client, ClientConfig, ClientTls, CreateCollection, ListShards, RetryPolicy, Search, Searches};
use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::kv::MemoryEngine;
use sagitta_env::Env;
use sagitta_model::{CollectionName, Consistency, Metric, NodeStatus, Object, Point, PointId, Schema, VectorSpec};
use sagitta_server::{ClusterConfig, Config, Engines, PeerTls, Platform, Roles, Server, ServerTls, StartError};
use sagitta_tls::testing::{Authority, Identity};

/// Hangs become failures. Nothing is expected to take this long.
const PATIENCE: Duration = Duration::from_secs(120);

struct Member {
    data: PathBuf,
    api: SocketAddr,
    peers: SocketAddr,
    tls: Option<PeerTls>,
    api_tls: Option<ServerTls>,
}

impl Member {
    fn new(data: PathBuf, tls: Option<PeerTls>) -> Self {
        let api_tls = tls.clone().map(|PeerTls { cert, key, .. }| ServerTls { cert, key, client_ca: None });
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        Self { data, api: free(), peers: free(), tls, api_tls }
    }

    async fn start(&self, join: Option<(String, &str)>) -> Result<Server, StartError> {
        let mut config = Config::new(self.data.clone(), self.api);
        let (join, join_token) = join.map(|(address, token)| (address, token.to_owned())).unzip();
        config.cluster = Some(ClusterConfig {
            peer_listen: self.peers,
            peer_tls: self.tls.clone(),
            roles: Roles { coordinator: true, shard: true },
            zone: String::new(),
            join: join.into_iter().collect(),
            join_token,
        });
        config.tls = self.api_tls.clone();
        (config.search_threads, config.build_threads) = (1, 1);
        let engines = Engines { kv: Arc::new(MemoryEngine::new()), index: Arc::new(ExactEngine) };
        let starting = Box::pin(Server::start(config, Platform::system(engines), Env::real()));
        Env::real().timeout(PATIENCE, starting).await.expect("it starts or says why not")
    }

    fn client(&self) -> Client {
        let retry = RetryPolicy { max_attempts: 1_000, ..RetryPolicy::default() };
        let tls = ClientTls { ca: self.tls.as_ref().map(|tls| tls.ca.clone()), ..ClientTls::default() };
        let config = ClientConfig { retry, tls, deadline: PATIENCE, ..ClientConfig::new(self.api.to_string()) };
        Client::connect(config).expect("a client")
    }
}

fn tls(authority: &Authority, Identity { cert, key }: Identity) -> Option<PeerTls> {
    Some(PeerTls { cert, key, ca: authority.path() })
}

fn docs() -> CollectionName {
    "docs".parse().expect("a name")
}

async fn nodes_up(client: &Client) -> usize {
    let nodes = client.list_nodes(0, String::new()).await.expect("listed").nodes;
    nodes.iter().filter(|node| node.status == NodeStatus::Up).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_replicate_and_answer_over_encrypted_connections() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(temp.path(), "authority");
    let node = |name: &str| Member::new(temp.path().join(name), tls(&authority, authority.sign(name, &["127.0.0.1"])));
    let (first, second) = (node("first"), node("second"));
    let founding = async {
        // The API listens when it is asked for the first time, or soon after.
        loop {
            match first.client().init_cluster().await {
                Ok(new) => return new.join_token,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let (server, token) = tokio::join!(first.start(None), founding);
    let server = server.expect("founded");
    let joined = second.start(Some((format!("https://{}", first.peers), &token))).await.expect("let in");

    let client = first.client();
    // It has reported once it is up.
    while nodes_up(&client).await < 2 {
        tokio::task::yield_now().await;
    }
    let mut schema = Schema::default();
    schema.vectors.insert("v".to_owned(), VectorSpec { dim: 2, metric: Metric::L2, index: Default::default() });
    let create = CreateCollection { shards: Some(2), replication: Some(2), ..CreateCollection::new(docs(), schema) };
    client.create(create).await.expect("created");
    let point = |id: u64| Point {
        id: PointId::Num(id),
        vectors: [("v".to_owned(), vec![id as f32, 0.0])].into(),
        payload: Object::new(),
    };
    // Either node has to hear of every write before it is answered.
    client.upsert(docs(), (0..100).map(point).collect()).await.expect("written");
    let shards = client.list_shards(ListShards::default(), 0, String::new()).await.expect("listed").shards;
    assert!(shards.len() == 2 && shards.iter().all(|shard| shard.replicas.len() == 2), "{shards:?}");
    for asked in [&first, &second] {
        let search = Searches::one(docs(), Search::nearest(vec![42.2, 0.0], 1));
        let answer =
            asked.client().search(Searches { consistency: Consistency::Strong, ..search }).await.expect("found");
        assert_eq!(answer.results[0].hits[0].id, PointId::Num(42));
    }
    joined.stop().await.expect("stopped");
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_node_that_no_other_would_believe_does_not_start_and_names_flag_and_file() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let [ours, theirs] = ["ours", "theirs"].map(|name| Authority::new(temp.path(), name));
    let good = ours.sign("good", &["127.0.0.1"]);
    let missing = temp.path().join("missing");
    let cases = [
        (
            tls(&ours, theirs.sign("stranger", &["127.0.0.1"])),
            "--peer-tls-cert: ",
            "stranger.crt",
            "not signed by an authority",
        ),
        (
            tls(&ours, ours.sign("elsewhere", &["10.0.0.7"])),
            "--peer-tls-cert: ",
            "elsewhere.crt",
            "not for 127.0.0.1, but for 10.0.0.7",
        ),
        (tls(&ours, Identity { key: missing.clone(), ..good.clone() }), "--peer-tls-key: ", "missing", "No such file"),
        (
            tls(&ours, good.clone()).map(|tls| PeerTls { ca: missing, ..tls }),
            "--peer-tls-ca: ",
            "missing",
            "No such file",
        ),
    ];
    for (tls, flag, file, says) in cases {
        let member = Member { api_tls: None, ..Member::new(temp.path().join("data"), tls) };
        let error = member.start(None).await.map(drop).expect_err("refused").to_string();
        assert!(error.starts_with(flag) && error.contains(file) && error.contains(says), "{error}");
    }
    let plain = Member::new(temp.path().join("data"), None);
    let error = plain.start(Some(("https://127.0.0.1:1".to_owned(), "token"))).await.map(drop).expect_err("refused");
    assert!(
        error.to_string().contains("--join https://127.0.0.1:1: nodes are reached so with --peer-tls-cert"),
        "{error}"
    );
}
