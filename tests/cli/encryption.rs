//! The two programs over TLS, as their users start them.

use std::path::Path;

use sagitta_tls::testing::Authority;

use crate::harness::{DONE, UNAVAILABLE, World, sample};

fn text(path: &Path) -> &str {
    path.to_str().expect("a name in UTF-8")
}

#[test]
fn the_sample_is_loaded_and_searched_over_tls_and_nobody_comes_in_without_a_certificate() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "authority");
    let (server, shown) = (authority.sign("server", &["127.0.0.1"]), authority.sign("client", &["client"]));
    let ca = authority.path();
    let world =
        World::with(&["--tls-cert", text(&server.cert), "--tls-key", text(&server.key), "--tls-client-ca", text(&ca)]);
    assert!(world.server.endpoint.starts_with("https://"), "{}", world.server.endpoint);
    let tls = ["--tls-ca", text(&ca), "--tls-cert", text(&shown.cert), "--tls-key", text(&shown.key)];
    let run = |args: &[&str], tls: &[&str]| world.run([args, tls].concat());
    let base = sample("text384-4k.base.f16.npy");
    run(&["import", "docs", &base, "--create"], &tls).ends_with(DONE);
    run(&["count", "docs"], &tls).ends_with(DONE).shows("4,000");
    run(&["search", "docs", "--query", &sample("text384-4k.query.f32.npy"), "-k", "3"], &tls).ends_with(DONE);

    let count = ["count", "docs", "--timeout", "5s"];
    let refused = run(&count, &tls[..2]).ends_with(UNAVAILABLE);
    refused.says("it demands a client certificate").says("hint: show one with --tls-cert FILE and --tls-key FILE");
    let refused = run(&count, &[]).ends_with(UNAVAILABLE);
    refused.says("not signed by an authority that is trusted here").says("hint: --tls-ca FILE");
    let plain = world.server.endpoint.replace("https://", "http://");
    run(&[&count[..], &["--endpoint", &plain]].concat(), &[]).ends_with(UNAVAILABLE).says("it speaks TLS");
    let other = [&tls[..], &["--tls-name", "db.example.org"]].concat();
    run(&count, &other).ends_with(UNAVAILABLE).says("is not for db.example.org, but for 127.0.0.1").says("--tls-name");
}

#[test]
fn a_server_that_speaks_no_tls_is_told_as_such() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "authority");
    let world = World::new();
    let endpoint = world.server.endpoint.replace("http://", "https://");
    let ca = authority.path();
    let refused = world.run(["count", "docs", "--timeout", "5s", "--endpoint", &endpoint, "--tls-ca", text(&ca)]);
    refused.ends_with(UNAVAILABLE).says("it does not speak TLS").says("hint: start the server with --tls-cert");
}
