//! The API over TLS: who is let in, who is not and what they are told. The server runs in this process, over sockets of the system, with the
//! twins of the engines.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sagitta_client::{
    Client, ClientConfig, ClientError, ClientTls, Count, RetryPolicy, Search, Searches, UploadOptions,
};
use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::kv::MemoryEngine;
use sagitta_env::Env;
use sagitta_model::{CollectionName, Consistency, Metric, Object, Point, PointId, Schema, VectorSpec};
use sagitta_server::{Config, Engines, Platform, Server, ServerTls, StartError};
use sagitta_tls::testing::{Authority, Identity};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// Hangs become failures. Nothing is expected to take this long.
const PATIENCE: Duration = Duration::from_secs(60);
const DIM: usize = 64;

struct Rig {
    folder: tempfile::TempDir,
    ours: Authority,
    theirs: Authority,
    identity: Identity,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [ours, theirs] = ["ours", "theirs"].map(|name| Authority::new(folder.path(), name));
        let identity = ours.sign("server", &["127.0.0.1"]);
        Self { folder, ours, theirs, identity }
    }

    fn tls(&self) -> ServerTls {
        ServerTls { cert: self.identity.cert.clone(), key: self.identity.key.clone(), client_ca: None }
    }

    fn demanding(&self) -> ServerTls {
        ServerTls { client_ca: Some(self.ours.path()), ..self.tls() }
    }

    async fn start(&self, tls: Option<ServerTls>) -> Result<Server, StartError> {
        let mut config = Config::new(self.folder.path().join("data"), "127.0.0.1:0".parse().expect("an address"));
        (config.search_threads, config.build_threads, config.tls) = (1, 1, tls);
        let engines = Engines { kv: Arc::new(MemoryEngine::new()), index: Arc::new(ExactEngine) };
        Server::start(config, Platform::system(engines), Env::real()).await
    }

    fn trusts(&self) -> ClientTls {
        ClientTls { ca: Some(self.ours.path()), ..ClientTls::default() }
    }

    fn shows(&self, identity: &Identity) -> ClientTls {
        ClientTls { cert: Some(identity.cert.clone()), key: Some(identity.key.clone()), ..self.trusts() }
    }
}

fn client(address: SocketAddr, tls: ClientTls) -> Client {
    let retry = RetryPolicy { max_attempts: 2, initial_backoff: Duration::from_millis(1), ..RetryPolicy::default() };
    Client::connect(ClientConfig { retry, tls, ..ClientConfig::new(address.to_string()) }).expect("a client")
}

fn docs() -> CollectionName {
    "docs".parse().expect("a name")
}

async fn ask(client: &Client) -> Result<u64, ClientError> {
    client.count(Count { collection: docs(), filter: None, consistency: Consistency::Strong }).await
}

async fn told(client: &Client) -> String {
    ask(client).await.expect_err("not let in").reason
}

fn point(id: u64) -> Point {
    let vector =
        (0..DIM).map(|component| if component as u64 == id % DIM as u64 { 1.0 } else { id as f32 * 1e-6 }).collect();
    Point { id: PointId::Num(id), vectors: [("v".to_owned(), vector)].into(), payload: Object::new() }
}

/// Loads points over one stream, counts them and finds one.
async fn use_all(client: &Client) {
    const POINTS: u64 = 3_000;
    let mut schema = Schema::default();
    schema.vectors.insert("v".to_owned(), VectorSpec { dim: DIM, metric: Metric::L2, index: Default::default() });
    client.create_collection(docs(), schema).await.expect("created");
    let options = UploadOptions { chunk_points: 500, ..UploadOptions::default() };
    let mut upload = client.upload(docs(), tokio_stream::iter((0..POINTS).map(point)), options);
    let mut acknowledged = 0;
    while let Some(ack) = upload.next().await {
        acknowledged += ack.expect("acknowledged").points as u64;
    }
    assert_eq!((acknowledged, ask(client).await.expect("counted")), (POINTS, POINTS));
    let wanted = point(1_234).vectors.remove("v").expect("a vector");
    let answer = client.search(Searches::one(docs(), Search::nearest(wanted, 1))).await.expect("searched");
    assert_eq!(answer.results[0].hits[0].id, PointId::Num(1_234));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_are_loaded_and_found_over_tls() {
    let rig = Rig::new();
    let server = rig.start(Some(rig.tls())).await.expect("starts");
    assert_eq!(server.url(), format!("https://{}", server.address()));
    use_all(&client(server.address(), rig.trusts())).await;
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shows_the_certificate_that_is_demanded_is_let_in_and_nobody_else() {
    let rig = Rig::new();
    let server = rig.start(Some(rig.demanding())).await.expect("starts");
    use_all(&client(server.address(), rig.shows(&rig.ours.sign("client", &["client"])))).await;
    let stranger = rig.theirs.sign("stranger", &["client"]);
    let old = rig.ours.sign_between("old", &["client"], (2020, 2021));
    for (tls, reason) in [
        (rig.trusts(), "TLS_CERTIFICATE_DEMANDED"),
        (rig.shows(&stranger), "TLS_CERTIFICATE_REFUSED"),
        (rig.shows(&old), "TLS_CERTIFICATE_REFUSED"),
    ] {
        assert_eq!(told(&client(server.address(), tls)).await, reason);
    }
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_speaks_otherwise_than_the_server_is_told_so() {
    let rig = Rig::new();
    let server = rig.start(Some(rig.tls())).await.expect("starts");
    let plain = ask(&client(server.address(), ClientTls::default())).await.expect_err("not let in");
    assert_eq!(plain.reason, "TLS_SPOKEN", "{plain}");
    let other = ClientTls { ca: Some(rig.theirs.path()), ..ClientTls::default() };
    assert_eq!(told(&client(server.address(), other)).await, "TLS_UNTRUSTED");
    let named = ClientTls { name: Some("db.example.org".to_owned()), ..rig.trusts() };
    assert_eq!(told(&client(server.address(), named)).await, "TLS_OTHER_NAME");
    server.stop().await.expect("stopped");
    let server = rig.start(None).await.expect("starts");
    assert_eq!(server.url(), format!("http://{}", server.address()));
    assert_eq!(told(&client(server.address(), rig.trusts())).await, "TLS_NOT_SPOKEN");
    server.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_never_end_hold_up_nobody_and_neither_does_the_servers_end() {
    let rig = Rig::new();
    let server = rig.start(Some(rig.tls())).await.expect("starts");
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(server.address()).await.expect("connects"));
    }
    let (env, honest) = (Env::real(), client(server.address(), rig.trusts()));
    env.timeout(PATIENCE, Box::pin(use_all(&honest))).await.expect("answered while others say nothing");
    server.stop().await.expect("stopped");
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap_or(0), 0, "closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_files_cannot_be_used_does_not_start_and_names_flag_and_file() {
    let rig = Rig::new();
    let other = rig.theirs.sign("other", &["127.0.0.1"]);
    let missing = rig.folder.path().join("missing.pem");
    for (tls, flag, file) in [
        (ServerTls { key: other.key.clone(), ..rig.tls() }, "--tls-key: ", &other.key),
        (ServerTls { cert: missing.clone(), ..rig.tls() }, "--tls-cert: ", &missing),
        (ServerTls { key: missing.clone(), ..rig.tls() }, "--tls-key: ", &missing),
        (ServerTls { client_ca: Some(rig.identity.key.clone()), ..rig.tls() }, "--tls-client-ca: ", &rig.identity.key),
    ] {
        let error = rig.start(Some(tls)).await.map(drop).expect_err("refused").to_string();
        assert!(error.starts_with(flag) && error.contains(&file.display().to_string()), "{error}");
    }
    assert!(!Path::new(&rig.folder.path().join("data")).exists(), "nothing was begun");
}
