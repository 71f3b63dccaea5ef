//! Encrypted connections, over sockets: to a server that ends TLS before it passes on what it is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sagitta_env::Env;
use sagitta_model::{CollectionName, Consistency, ErrorKind, Object, Point, PointId};
use sagitta_tls::testing::{Authority, Identity};
use sagitta_tls::{Acceptor, ClientTls, ServerTls};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::fake::Fake;
use crate::{Client, ClientConfig, ClientError, Count, RetryPolicy, Search, Searches, UploadOptions};

struct Rig {
    _folder: tempfile::TempDir,
    ours: Authority,
    theirs: Authority,
    server: Identity,
    fake: Fake,
}

impl Rig {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [ours, theirs] = ["ours", "theirs"].map(|name| Authority::new(folder.path(), name));
        let server = ours.sign("server", &["127.0.0.1"]);
        Self { _folder: folder, ours, theirs, server, fake: Fake::start().await }
    }

    /// Where the server is spoken to in TLS.
    async fn before(&self, identity: &Identity, client_ca: Option<PathBuf>) -> SocketAddr {
        let (env, server) = (Env::real(), self.fake.address);
        let settings = ServerTls { cert: identity.cert.clone(), key: identity.key.clone(), client_ca };
        let acceptor = Acceptor::new(settings, &env).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        env.clone().spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                env.spawn(async move {
                    let Ok(mut near) = acceptor.accept(near).await else { return };
                    let mut far = TcpStream::connect(server).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        address
    }

    fn trusts(&self) -> ClientTls {
        ClientTls { ca: Some(self.ours.path()), ..ClientTls::default() }
    }

    fn shows(&self, identity: &Identity) -> ClientTls {
        ClientTls { cert: Some(identity.cert.clone()), key: Some(identity.key.clone()), ..self.trusts() }
    }
}

fn client(endpoint: impl std::fmt::Display, tls: ClientTls) -> Result<Client, ClientError> {
    let retry = RetryPolicy { max_attempts: 2, initial_backoff: Duration::from_millis(1), ..RetryPolicy::default() };
    Client::connect(ClientConfig { retry, tls, ..ClientConfig::new(endpoint.to_string()) })
}

fn docs() -> CollectionName {
    "docs".parse().unwrap()
}

fn count() -> Count {
    Count { collection: docs(), filter: None, consistency: Consistency::Strong }
}

async fn fails(endpoint: impl std::fmt::Display, tls: ClientTls) -> (String, String) {
    let error = client(endpoint, tls).unwrap().count(count()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
    (error.reason, error.message)
}

#[tokio::test]
async fn calls_searches_and_uploads_go_over_encrypted_connections_with_and_without_a_client_certificate() {
    let rig = Rig::new().await;
    let shown = rig.ours.sign("client", &["client"]);
    for (client_ca, tls) in [(None, rig.trusts()), (Some(rig.ours.path()), rig.shows(&shown))] {
        let address = rig.before(&rig.server, client_ca).await;
        let client = client(format!("https://{address}"), tls).unwrap();
        assert_eq!(client.endpoint(), format!("https://{address}"));
        client.count(count()).await.unwrap();
        let search = Search::nearest(vec![7.0], 1);
        let answer = client.search(Searches::one(docs(), search)).await.unwrap();
        assert_eq!(answer.results[0].hits[0].id, PointId::Num(7));
        let before = rig.fake.seen().streams;
        let point = |id| Point {
            id: PointId::Num(id),
            vectors: [(String::new(), vec![0.5; 300])].into(),
            payload: Object::new(),
        };
        let options = UploadOptions { chunk_points: 100, ..UploadOptions::default() };
        let mut upload = client.upload(docs(), tokio_stream::iter((0..5_000).map(point)), options);
        let mut acknowledged = 0;
        while let Some(ack) = upload.next().await {
            acknowledged += ack.unwrap().points;
        }
        assert_eq!((acknowledged, rig.fake.seen().streams), (5_000, before + 1));
        assert_eq!(rig.fake.seen().points.len(), 5_000);
    }
}

#[tokio::test]
async fn why_an_encrypted_connection_cannot_be_had_is_told_apart() {
    let rig = Rig::new().await;
    let good = rig.before(&rig.server, None).await;
    let theirs = ClientTls { ca: Some(rig.theirs.path()), ..ClientTls::default() };
    let named = ClientTls { name: Some("db.example.org".to_owned()), ..rig.trusts() };
    let old = rig.before(&rig.ours.sign_between("old", &["127.0.0.1"], (2020, 2021)), None).await;
    let demanding = rig.before(&rig.server, Some(rig.ours.path())).await;
    let stranger = rig.theirs.sign("stranger", &["client"]);
    for (endpoint, tls, reason, says) in [
        (good, theirs, "TLS_UNTRUSTED", "not signed by an authority"),
        (good, named, "TLS_OTHER_NAME", "not for db.example.org, but for 127.0.0.1"),
        (old, rig.trusts(), "TLS_EXPIRED", "has expired"),
        (rig.fake.address, rig.trusts(), "TLS_NOT_SPOKEN", "does not speak TLS"),
        (demanding, rig.trusts(), "TLS_CERTIFICATE_DEMANDED", "demands a client certificate"),
        (demanding, rig.shows(&stranger), "TLS_CERTIFICATE_REFUSED", "none of the authorities"),
    ] {
        let (told, message) = fails(endpoint, tls).await;
        assert!(told == reason && message.contains(says), "{reason}, {says}: {told}, {message}");
    }
    let (reason, message) = fails(format!("http://{good}"), ClientTls::default()).await;
    assert!(reason == "TLS_SPOKEN" && message.contains("it speaks TLS"), "{reason}, {message}");
}

#[tokio::test]
async fn an_endpoint_whose_certificate_is_not_believed_is_passed_by() {
    let rig = Rig::new().await;
    let impostor = rig.before(&rig.theirs.sign("impostor", &["127.0.0.1"]), None).await;
    let good = rig.before(&rig.server, None).await;
    let client = client(format!("{impostor},{good}"), rig.trusts()).unwrap();
    client.count(count()).await.unwrap();
    assert_eq!(client.endpoint(), format!("https://{good}"));
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused_at_once_and_keys_are_shown_nowhere() {
    let rig = Rig::new().await;
    let good = rig.ours.sign("client", &["client"]);
    let lacks_key = ClientTls { key: None, ..rig.shows(&good) };
    let swapped = ClientTls { cert: Some(good.key.clone()), key: Some(good.cert.clone()), ..rig.trusts() };
    for (endpoint, tls, field, says) in [
        ("db", lacks_key, "tls.cert", "without its key"),
        ("db", swapped, "tls.cert", "swapped"),
        (
            "db",
            ClientTls { ca: Some("/dev/null".into()), ..ClientTls::default() },
            "tls.ca",
            "/dev/null: holds no certificate",
        ),
        ("https://a,http://b", rig.trusts(), "tls.ca", "say https://b"),
    ] {
        let error = client(endpoint, tls).unwrap_err();
        assert!(error.violations[0].field == field && error.message.contains(says), "{says}: {error}");
    }
    let secret = std::fs::read_to_string(&good.key).unwrap().lines().nth(1).unwrap()[..20].to_owned();
    let shown = format!("{:?}", client("db", rig.shows(&good)).unwrap());
    assert!(shown.contains("client.key") && !shown.contains(&secret), "{shown}");
}
