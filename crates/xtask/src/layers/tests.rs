use serde_json::{Value, json};

use super::*;

/// A workspace of packages, each with its dependencies as `name`, `build:name` or `dev:name`; the first is a default member.
fn workspace(packages: &[(&str, &str, &[&str])]) -> Workspace {
    let dependency = |text: &&str| match text.split_once(':') {
        Some((kind, name)) => json!({ "name": name, "kind": kind }),
        None => json!({ "name": text, "kind": Value::Null }),
    };
    let package = |(folder, name, dependencies): &(&str, &str, &[&str])| {
        json!({
            "id": name,
            "name": name,
            "manifest_path": format!("/repo/{folder}/Cargo.toml"),
            "dependencies": dependencies.iter().map(dependency).collect::<Vec<_>>(),
        })
    };
    let metadata = json!({
        "workspace_root": "/repo",
        "workspace_default_members": [packages[0].1],
        "packages": packages.iter().map(package).collect::<Vec<_>>(),
    });
    Workspace::parse(&metadata).expect("well-formed metadata")
}

/// What is found in the packages, as `manifest: what`.
fn found(packages: &[(&str, &str, &[&str])]) -> Vec<String> {
    let workspace = workspace(packages);
    let in_packages = workspace.packages.iter().flat_map(|package| check_package(package, &workspace));
    let findings = in_packages.chain(check_default_members(&workspace));
    findings.map(|finding| format!("{}: {}", finding.path, finding.what)).collect()
}

#[test]
fn arrows_lead_down() {
    let model: (&str, &str, &[&str]) = ("crates/model", "sagitta-model", &[]);
    assert_eq!(found(&[model, ("crates/shard", "sagitta-shard", &["sagitta-model", "serde"])]), [""; 0]);
    assert_eq!(
        found(&[("crates/model", "sagitta-model", &["sagitta-shard"]), ("crates/shard", "sagitta-shard", &[])]),
        ["crates/model/Cargo.toml: `model` (row 1) depends on `shard` (row 3)"]
    );
    assert_eq!(
        found(&[model, ("crates/env", "sagitta-env", &["build:sagitta-model"])]),
        ["crates/env/Cargo.toml: `env` (row 1) depends on `model` (row 1)"]
    );
}

#[test]
fn tests_may_look_sideways_but_not_up() {
    let shard: (&str, &str, &[&str]) = ("crates/shard", "sagitta-shard", &[]);
    assert_eq!(found(&[shard, ("crates/wire", "sagitta-wire", &["dev:sagitta-shard"])]), [""; 0]);
    assert_eq!(
        found(&[shard, ("crates/engine", "sagitta-engine", &["dev:sagitta-shard"])]),
        ["crates/engine/Cargo.toml: `engine` (row 2) depends on `shard` (row 3)"]
    );
}

#[test]
fn a_crate_without_a_row_is_refused_with_where_to_add_it() {
    let workspace = workspace(&[("crates/novel", "sagitta-novel", &[])]);
    let finding = &check_package(&workspace.packages[0], &workspace)[0];
    assert_eq!(finding.what, "`novel` has no row");
    assert!(finding.mend.contains(HERE) && finding.mend.contains(MAP), "{}", finding.mend);
}

#[test]
fn a_package_is_called_like_its_folder() {
    assert_eq!(found(&[("crates/model", "model", &[])]), ["crates/model/Cargo.toml: the package is called `model`"]);
    assert_eq!(found(&[("crates/sagittad", "sagittad", &[]), ("tests/golden", "golden", &[])]), [""; 0]);
}

#[test]
fn reserved_crates_stay_with_their_owners() {
    for (folder, name, dependency) in [
        ("shard", "sagitta-shard", "rocksdb"),
        ("node", "sagitta-node", "faiss-sys"),
        ("node", "sagitta-node", "raft"),
        ("coordinator", "sagitta-coordinator", "tonic-types"),
        ("model", "sagitta-model", "prost"),
        ("shard", "sagitta-shard", "tokio"),
        ("shard", "sagitta-shard", "dev:tokio"),
        ("shard", "sagitta-shard", "rand"),
        ("server", "sagitta-server", "anyhow"),
    ] {
        let path = format!("crates/{folder}");
        assert_eq!(found(&[(&path, name, &[dependency])]).len(), 1, "{folder} -> {dependency}");
    }
    for (path, name, dependency) in [
        ("crates/engine-rocksdb", "sagitta-engine-rocksdb", "rocksdb"),
        ("crates/wire", "sagitta-wire", "build:prost-types"),
        ("crates/shard", "sagitta-shard", "dev:rand"),
        ("crates/shard", "sagitta-shard", "prostrate"),
        ("benches/echo", "echo", "tonic"),
    ] {
        let first: (&str, &str, &[&str]) = ("crates/xtask", "sagitta-xtask", &[]);
        assert_eq!(found(&[first, (path, name, &[dependency])]), [""; 0], "{path} -> {dependency}");
    }
}

#[test]
fn default_members_need_no_native_build() {
    let faiss: (&str, &str, &[&str]) = ("crates/engine-faiss", "sagitta-engine-faiss", &[]);
    let node: (&str, &str, &[&str]) = ("crates/node", "sagitta-node", &["sagitta-engine-faiss"]);
    assert_eq!(
        found(&[("crates/server", "sagitta-server", &["sagitta-node"]), node, faiss]),
        ["crates/server/Cargo.toml: `server` is a default member and needs `engine-faiss`"]
    );
    let tested: (&str, &str, &[&str]) = ("crates/node", "sagitta-node", &["dev:sagitta-engine-faiss"]);
    assert_eq!(found(&[("crates/server", "sagitta-server", &["sagitta-node"]), tested, faiss]), [""; 0]);
    assert_eq!(found(&[tested, faiss]).len(), 1);
}

#[test]
fn source_names_no_reserved_crate() {
    let found = |path: &str, text: &str| check_source(&Source::parse(path, text)).len();
    assert_eq!(found("crates/node/src/a.rs", "use tonic::Status;\n"), 1);
    assert_eq!(found("crates/node/src/a.rs", "fn f() -> sagitta_wire::prost::Message {}\n"), 1);
    assert_eq!(found("crates/node/src/a.rs", "// tonic::Status\nuse my_tonic::A; let tonic = 1;\n"), 0);
    assert_eq!(found("crates/server/src/a.rs", "use tonic::Status;\n"), 0);
}

#[test]
fn the_map_shows_every_crate_in_its_row() {
    let workspace = workspace(&[("crates/shard", "sagitta-shard", &[]), ("tests/golden", "golden", &[])]);
    assert_eq!(check_map("| 3 | `shard` | one replica |", &workspace), []);
    assert_eq!(check_map("| 2 | `shard` | one replica |", &workspace)[0].what, "no line `| 3 | `shard` | …`");
}
