//! Both sides, over a pipe.

use std::io;
use std::path::{Path, PathBuf};

use rcgen::ExtendedKeyUsagePurpose;
use sagitta_env::Env;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::testing::{Authority, Identity};
use super::*;

const PIPE_BYTES: usize = 64 << 10;

fn serves(identity: &Identity, client_ca: Option<PathBuf>) -> ServerTls {
    ServerTls { cert: identity.cert.clone(), key: identity.key.clone(), client_ca }
}

fn trusts(authority: &Authority) -> ClientTls {
    ClientTls { ca: Some(authority.path()), ..ClientTls::default() }
}

fn shows(authority: &Authority, identity: &Identity) -> ClientTls {
    ClientTls { cert: Some(identity.cert.clone()), key: Some(identity.key.clone()), ..trusts(authority) }
}

type Met = (Result<ClientStream<DuplexStream>, HandshakeError>, io::Result<ServerStream<DuplexStream>>);

async fn meet(connector: &Connector, host: &str, acceptor: &Acceptor) -> Met {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    // An HTTP/2 server speaks first.
    let accept = async {
        let mut accepted = acceptor.accept(far).await?;
        accepted.write_all(b"settings").await?;
        Ok(accepted)
    };
    tokio::join!(connector.connect(host, near), accept)
}

async fn check(client: ClientTls, host: &str, server: ServerTls) -> Result<(), HandshakeError> {
    let env = Env::real();
    let (connector, acceptor) = (Connector::new(client, &env).unwrap(), Acceptor::new(server, &env).unwrap());
    let (connected, accepted) = meet(&connector, host, &acceptor).await;
    let (mut connected, mut accepted) = (connected?, accepted.unwrap());
    let mut said = [0; 8];
    connected.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"settings");
    connected.write_all(b"preface").await.unwrap();
    connected.flush().await.unwrap();
    accepted.read_exact(&mut said[..7]).await.unwrap();
    assert_eq!(&said[..7], b"preface");
    Ok(())
}

struct Folder {
    _folder: tempfile::TempDir,
    path: PathBuf,
    ours: Authority,
    theirs: Authority,
}

fn folder() -> Folder {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let [ours, theirs] = ["ours", "theirs"].map(|name| Authority::new(&path, name));
    Folder { _folder: folder, path, ours, theirs }
}

#[tokio::test]
async fn whoever_is_asked_by_a_name_of_its_certificate_and_is_trusted_is_spoken_to() {
    let Folder { ours, .. } = &folder();
    let server = ours.sign("server", &["db.example.org", "127.0.0.1", "::1"]);
    for host in ["db.example.org", "127.0.0.1", "[::1]"] {
        check(trusts(ours), host, serves(&server, None)).await.unwrap();
    }
    let by_name = ClientTls { name: Some("db.example.org".to_owned()), ..trusts(ours) };
    check(by_name, "10.0.0.7", serves(&server, None)).await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_a_server_is_told_apart() {
    let Folder { ours, theirs, .. } = &folder();
    let good = ours.sign("good", &["db"]);
    let untrusted = check(trusts(theirs), "db", serves(&good, None)).await.unwrap_err();
    assert_eq!(untrusted, HandshakeError::Untrusted);
    let other = check(trusts(ours), "db2", serves(&good, None)).await.unwrap_err();
    assert_eq!(other, HandshakeError::OtherName { expected: "db2".to_owned(), presented: vec!["db".to_owned()] });
    assert_eq!(other.to_string(), "its certificate is not for db2, but for db");
    let old = ours.sign_between("old", &["db"], (2020, 2021));
    let expired = check(trusts(ours), "db", serves(&old, None)).await.unwrap_err();
    assert!(
        expired.to_string().starts_with("its certificate has expired ") && expired.to_string().ends_with(" days ago"),
        "{expired}"
    );
    let soon = ours.sign_between("soon", &["db"], (2090, 2091));
    assert_eq!(check(trusts(ours), "db", serves(&soon, None)).await.unwrap_err(), HandshakeError::NotYetValid);
    let itself = check(trusts(ours), "db", serves(&ours.itself(), None)).await.unwrap_err();
    assert_eq!(itself, HandshakeError::OfAuthority);
    let addresses = ours.sign("addresses", &["10.0.0.7"]);
    let other = check(trusts(ours), "10.0.0.8", serves(&addresses, None)).await.unwrap_err();
    assert_eq!(other.to_string(), "its certificate is not for 10.0.0.8, but for 10.0.0.7");
}

#[tokio::test]
async fn a_server_that_demands_a_certificate_says_whether_it_likes_the_one_it_was_shown() {
    let Folder { ours, theirs, .. } = &folder();
    let server = ours.sign("server", &["db"]);
    let demanding = || serves(&server, Some(ours.path()));
    check(shows(ours, &ours.sign("client", &["client"])), "db", demanding()).await.unwrap();
    assert_eq!(check(trusts(ours), "db", demanding()).await.unwrap_err(), HandshakeError::Demanded);
    let stranger = theirs.sign("stranger", &["client"]);
    let refused = check(shows(ours, &stranger), "db", demanding()).await.unwrap_err();
    assert!(refused.to_string().contains("none of the authorities that are trusted there"), "{refused:?}");
    let old = ours.sign_between("old", &["client"], (2020, 2021));
    let refused = check(shows(ours, &old), "db", demanding()).await.unwrap_err();
    assert_eq!(refused.to_string(), "it refuses the client certificate (it has expired)");
}

#[tokio::test]
async fn who_does_not_speak_tls_is_known_on_both_sides() {
    let Folder { ours, .. } = &folder();
    let env = Env::real();
    let connector = Connector::new(trusts(ours), &env).unwrap();
    let (near, mut far) = tokio::io::duplex(PIPE_BYTES);
    let settings = async { far.write_all(&[0, 0, 18, 4, 0, 0, 0, 0, 0]).await };
    let (connected, written) = tokio::join!(connector.connect("db", near), settings);
    written.unwrap();
    assert_eq!(connected.unwrap_err(), HandshakeError::NotTls);

    let acceptor = Acceptor::new(serves(&ours.sign("server", &["db"]), None), &env).unwrap();
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let mut near = Plaintext::new(near);
    let speak = async {
        near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let error = near.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(HandshakeError::find(error.get_ref().unwrap()), Some(&HandshakeError::SpeaksTls));
        drop(near);
    };
    let (accepted, ()) = tokio::join!(acceptor.accept(far), speak);
    accepted.map(drop).unwrap_err();
}

#[tokio::test]
async fn new_files_count_from_the_next_connection_on_and_bad_ones_change_nothing() {
    let Folder { ours, theirs, .. } = &folder();
    let env = Env::real();
    let server = ours.sign("server", &["db"]);
    let acceptor = Acceptor::new(serves(&server, None), &env).unwrap();
    let [old, new] = [ours, theirs].map(|authority| Connector::new(trusts(authority), &env).unwrap());
    let (before, _other_end) = meet(&old, "db", &acceptor).await;
    before.unwrap();

    std::fs::write(&server.key, "").unwrap();
    assert_eq!(acceptor.reload().unwrap_err().setting, Setting::Key);
    meet(&old, "db", &acceptor).await.0.unwrap();
    // The same files.
    theirs.sign("server", &["db"]);
    meet(&old, "db", &acceptor).await.0.unwrap();
    assert!(acceptor.reload().unwrap() && !acceptor.reload().unwrap());
    meet(&new, "db", &acceptor).await.0.unwrap();
    assert_eq!(meet(&old, "db", &acceptor).await.0.unwrap_err(), HandshakeError::Untrusted);
    std::fs::copy(theirs.path(), ours.path()).unwrap();
    assert!(old.reload().unwrap() && !old.reload().unwrap());
    meet(&old, "db", &acceptor).await.0.unwrap();
}

fn refused(server: ServerTls) -> SettingError {
    Acceptor::new(server, &Env::real()).map(drop).unwrap_err()
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn files_that_cannot_be_used_are_named_with_what_is_wrong_and_never_with_a_key() {
    let Folder { path, ours, theirs, .. } = &folder();
    let (good, other) = (ours.sign("good", &["db"]), theirs.sign("other", &["db"]));
    let key_text = std::fs::read_to_string(&good.key).unwrap();
    let secret: String = key_text.lines().nth(1).unwrap().chars().take(40).collect();
    let cut = write(path, "cut.key", &key_text[..key_text.len() / 2]);
    let joined = write(path, "joined.key", key_text.replacen("KEY-----\n", "KEY-----", 1));
    let garbled = write(
        path,
        "garbled.key",
        key_text.replacen(&secret, &secret.replace(|c: char| c.is_ascii_lowercase(), "!"), 1),
    );
    let sealed = write(path, "sealed.key", key_text.replace("PRIVATE", "ENCRYPTED PRIVATE"));
    let no_key = write(path, "no.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let no_cert = write(path, "no.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let (empty, missing) = (write(path, "empty", ""), path.join("missing"));
    let with = |cert: &Path, key: &Path, ca: Option<&Path>| ServerTls {
        cert: cert.to_owned(),
        key: key.to_owned(),
        client_ca: ca.map(Path::to_owned),
    };
    for (server, setting, file, says) in [
        (with(&missing, &good.key, None), Setting::Cert, &missing, "No such file"),
        (with(&empty, &good.key, None), Setting::Cert, &empty, "no certificate in PEM"),
        (with(&good.key, &good.cert, None), Setting::Cert, &good.key, "swapped"),
        (with(&no_cert, &good.key, None), Setting::Cert, &no_cert, "cannot be read as one"),
        (with(&good.cert, &missing, None), Setting::Key, &missing, "No such file"),
        (with(&good.cert, &empty, None), Setting::Key, &empty, "no secret key in PEM"),
        (with(&good.cert, &good.cert, None), Setting::Key, &good.cert, "swapped"),
        (with(&good.cert, &other.key, None), Setting::Key, &other.key, "does not belong to the certificate"),
        (with(&good.cert, &sealed, None), Setting::Key, &sealed, "encrypted"),
        (with(&good.cert, &no_key, None), Setting::Key, &no_key, "no kind that is supported"),
        (with(&good.cert, &cut, None), Setting::Key, &cut, "cut off"),
        (with(&good.cert, &garbled, None), Setting::Key, &garbled, "damaged"),
        (with(&good.cert, &joined, None), Setting::Key, &joined, "damaged"),
        (with(&good.cert, &good.key, Some(&missing)), Setting::ClientCa, &missing, "No such file"),
        (with(&good.cert, &good.key, Some(&empty)), Setting::ClientCa, &empty, "no certificate"),
        (with(&good.cert, &good.key, Some(&no_cert)), Setting::ClientCa, &no_cert, "number 1"),
    ] {
        let error = refused(server);
        assert_eq!(error.setting, setting, "{error}");
        assert!(error.why.starts_with(&file.display().to_string()) && error.why.contains(says), "{says}: {error}");
        assert!(!format!("{error} {error:?}").contains(&secret[..16]), "{error:?}");
    }
    let env = Env::real();
    let half = |cert: bool| {
        let settings = shows(ours, &good);
        let settings = if cert { ClientTls { key: None, ..settings } } else { ClientTls { cert: None, ..settings } };
        Connector::new(settings, &env).map(drop).unwrap_err().to_string()
    };
    assert!(half(true).contains("without its key") && half(false).contains("without its certificate"));
    let name = ClientTls { name: Some("no name".to_owned()), ..trusts(ours) };
    assert_eq!(Connector::new(name, &env).map(drop).unwrap_err().setting, Setting::Name);
    let connector = Connector::new(shows(ours, &good), &env).unwrap();
    let acceptor = Acceptor::new(serves(&good, None), &env).unwrap();
    let shown = format!("{connector:?} {acceptor:?}");
    assert!(shown.contains("good.key") && shown.len() < 1_000, "{shown}");
}

#[tokio::test]
async fn a_node_rehearses_what_others_will_say_to_its_certificate() {
    let Folder { ours, theirs, .. } = &folder();
    let env = Env::real();
    let tells = async |identity: Identity| {
        let connector = Connector::new(shows(ours, &identity), &env).unwrap();
        let acceptor = Acceptor::new(serves(&identity, Some(ours.path())), &env).unwrap();
        rehearse(&connector, &acceptor, "10.0.0.7").await
    };
    tells(ours.sign("good", &["10.0.0.7"])).await.unwrap();
    assert_eq!(tells(theirs.sign("theirs", &["10.0.0.7"])).await, Err(HandshakeError::Untrusted));
    let other = tells(ours.sign("other", &["10.0.0.8"])).await.unwrap_err();
    assert_eq!(other.to_string(), "its certificate is not for 10.0.0.7, but for 10.0.0.8");
    let server_only = tells(ours.sign_for("server", &["10.0.0.7"], &[ExtendedKeyUsagePurpose::ServerAuth])).await;
    assert!(matches!(server_only, Err(HandshakeError::Refused(_))), "{server_only:?}");
}

/// The script that README and SECURITY.md name.
#[tokio::test]
async fn certificates_that_the_script_makes_are_good_for_servers_and_clients() {
    let folder = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/certificates.sh");
    for args in [&["server", "db", "127.0.0.1", "::1"][..], &["client"]] {
        let mut command = std::process::Command::new("bash");
        let output = command.arg(script).arg(folder.path()).args(args).output().unwrap();
        if !output.status.success() && std::env::var_os("SAGITTA_MUST_RUN").is_none() {
            return println!("SKIPPED: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(output.status.success(), "{output:?}");
    }
    let path = |name: &str| folder.path().join(name);
    let client = ClientTls {
        ca: Some(path("ca.crt")),
        cert: Some(path("client.crt")),
        key: Some(path("client.key")),
        name: None,
    };
    let server = ServerTls { cert: path("server.crt"), key: path("server.key"), client_ca: Some(path("ca.crt")) };
    for host in ["db", "127.0.0.1", "[::1]"] {
        check(client.clone(), host, server.clone()).await.unwrap();
    }
}
