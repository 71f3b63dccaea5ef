//! `cargo xtask layers`: which crate may know which.
//!
//! The tables below are the rule; `ARCHITECTURE.md` draws the same rows for people and is compared with them.

mod graph;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::Result;

use crate::files::read_tree;
use crate::finding::Finding;
use crate::source::{Source, words};
use graph::{Dependency, Kind, Package, Workspace};

/// The picture that shows these rows to people.
const MAP: &str = "ARCHITECTURE.md";
/// Where these tables are, for messages.
const HERE: &str = "crates/xtask/src/layers.rs";

/// The row of each folder below `crates/`. A dependency leads to a strictly lower row.
const ROWS: [(&str, u8); 21] = [
    ("model", 1),
    ("env", 1),
    ("console", 1),
    ("xtask", 1),
    ("engine", 2),
    ("cluster", 2),
    ("security", 2),
    ("tls", 2),
    ("shard", 3),
    ("consensus", 3),
    ("wire", 3),
    ("engine-rocksdb", 3),
    ("engine-faiss", 3),
    ("coordinator", 4),
    ("node", 4),
    ("server", 5),
    ("client", 5),
    ("sagittad", 6),
    ("cli", 6),
    ("load", 6),
    // Not a folder below `crates/`: every package below `tests/` and `benches/`.
    (ABOVE_ALL, 7),
];

/// Stands for the packages that use the others from outside.
const ABOVE_ALL: &str = "tests and benches";

/// What tests share, though it stands above them: they know nothing of how what they talk to is run.
const SHARED_BY_TESTS: [&str; 2] = ["sagitta-history", "sagitta-callers"];

/// A crate of others that only some of ours may name.
struct Reserved {
    /// Its name, or with a `*` at the end the start of several.
    name: &'static str,
    /// The folders whose crates may depend on it.
    owners: &'static [&'static str],
    /// Tests may use it anywhere.
    free_in_tests: bool,
    why: &'static str,
}

const RESERVED: [Reserved; 17] = [
    only("rocksdb", &["engine-rocksdb"], "one crate knows the store, the rest knows the port `Kv`"),
    only("librocksdb-sys", &["engine-rocksdb"], "one crate knows the store, the rest knows the port `Kv`"),
    only("faiss-sys", &["engine-faiss"], "one crate knows the index library, the rest knows the port `VectorIndex`"),
    only("raft", &["consensus"], "one crate knows Raft, the rest proposes and applies"),
    only("raft-proto", &["consensus"], "one crate knows Raft, the rest proposes and applies"),
    only("raft-engine", &["consensus"], "one crate knows the log's files"),
    only("protobuf", &["consensus"], "raft's own codec, which must never meet the API's"),
    only("tonic*", RIM, "wire types stay at the rim"),
    only("prost*", RIM, "wire types stay at the rim"),
    only("protox", &["wire"], "one crate compiles the proto files"),
    only("cc", &["engine-faiss"], "one crate has C++ of its own"),
    only("rustls*", &["tls"], "one crate knows certificates and handshakes"),
    only("tokio-rustls", &["tls"], "one crate knows certificates and handshakes"),
    only("tokio*", ASYNC, "storage and pure logic are synchronous"),
    only("clap*", &["sagittad", "cli", "load", ABOVE_ALL], "arguments end where a program starts"),
    Reserved {
        free_in_tests: true,
        ..only(
            "anyhow",
            &["sagittad", "cli", "load", "xtask", ABOVE_ALL],
            "a library has an error enum that callers can act on",
        )
    },
    Reserved {
        free_in_tests: true,
        ..only("rand*", &["env", ABOVE_ALL], "randomness comes from a seed, through `env`")
    },
];

/// Those that name gRPC.
const RIM: &[&str] = &["wire", "server", "client", "load", ABOVE_ALL];
/// Those that wait.
const ASYNC: &[&str] =
    &["env", "tls", "consensus", "coordinator", "node", "server", "client", "sagittad", "cli", "load", ABOVE_ALL];

const fn only(name: &'static str, owners: &'static [&'static str], why: &'static str) -> Reserved {
    Reserved { name, owners, free_in_tests: false, why }
}

/// Paths that reach a reserved crate even without a dependency on it, through what another crate passes on.
const RESERVED_PATHS: [(&str, &str); 4] =
    [("tonic", "tonic*"), ("prost", "prost*"), ("rocksdb", "rocksdb"), ("faiss_sys", "faiss-sys")];

/// The crates that need a C++ build. Nothing among the workspace's default members may reach them.
const NATIVE: [&str; 2] = ["engine-rocksdb", "engine-faiss"];

/// All findings.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let workspace = Workspace::read(root)?;
    let tree = read_tree(root)?;
    let mut findings = Vec::new();
    for package in &workspace.packages {
        findings.extend(check_package(package, &workspace));
    }
    findings.extend(check_default_members(&workspace));
    for file in tree.texts.iter().filter(|file| file.path.ends_with(".rs")) {
        findings.extend(check_source(&Source::parse(&file.path, &file.text)));
    }
    let map = tree.texts.iter().find(|file| file.path == MAP).map(|file| file.text.as_str());
    findings.extend(check_map(map.unwrap_or_default(), &workspace));
    Ok(findings)
}

fn row_of(folder: &str) -> Option<u8> {
    ROWS.iter().find(|(name, _)| *name == folder).map(|&(_, row)| row)
}

fn check_package(package: &Package, workspace: &Workspace) -> Vec<Finding> {
    let Some(row) = row_of(&package.folder) else {
        let what = format!("`{}` has no row", package.folder);
        let mend = format!("give it one in `ROWS` of {HERE} and in the table of {MAP}, with what it may not know");
        return vec![Finding::new(&package.manifest, 0, what, mend)];
    };
    let mut findings = Vec::new();
    findings.extend(check_name(package));
    for dependency in &package.dependencies {
        findings.extend(match workspace.named(&dependency.name) {
            Some(target) => check_arrow(package, row, dependency, target),
            None => check_reserved(package, dependency),
        });
    }
    findings
}

fn check_name(package: &Package) -> Option<Finding> {
    let expected = match package.folder.as_str() {
        ABOVE_ALL => return None,
        "sagittad" => "sagittad".to_owned(),
        folder => format!("sagitta-{folder}"),
    };
    (package.name != expected).then(|| {
        let what = format!("the package is called `{}`", package.name);
        Finding::new(&package.manifest, 0, what, format!("folder = crate: call it `{expected}`"))
    })
}

/// Tests may look sideways (a twin, a fixture), never up; only what they share stands beside all of them, because it
/// knows nothing of what they talk to.
fn check_arrow(package: &Package, row: u8, dependency: &Dependency, target: &Package) -> Option<Finding> {
    let target_row = row_of(&target.folder)?;
    let shared = SHARED_BY_TESTS.contains(&target.name.as_str());
    let allowed = match dependency.kind {
        Kind::Normal | Kind::Build => target_row < row || (shared && target_row == row),
        Kind::Test => target_row <= row || shared,
    };
    (!allowed).then(|| {
        let what = format!("`{}` (row {row}) depends on `{}` (row {target_row})", package.folder, target.folder);
        let mend =
            "arrows lead to lower rows: define a trait where it is needed and implement it above, or move the code";
        Finding::new(&package.manifest, 0, what, mend)
    })
}

fn check_reserved(package: &Package, dependency: &Dependency) -> Option<Finding> {
    let reserved = RESERVED.iter().find(|reserved| reserved.covers(&dependency.name))?;
    let test = dependency.kind == Kind::Test;
    let allowed = reserved.owners.contains(&package.folder.as_str()) || (test && reserved.free_in_tests);
    (!allowed).then(|| {
        let what = format!("`{}` depends on `{}`", package.folder, dependency.name);
        let mend = format!("{}; only {} may name it ({HERE})", reserved.why, reserved.owners.join(", "));
        Finding::new(&package.manifest, 0, what, mend)
    })
}

impl Reserved {
    fn covers(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(start) => name == start || name.strip_prefix(start).is_some_and(|rest| rest.starts_with('-')),
            None => name == self.name,
        }
    }
}

/// What a plain `cargo test` builds must build without a C++ compiler.
fn check_default_members(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in workspace.packages.iter().filter(|package| package.default_member) {
        for native in workspace.reach(member).into_iter().filter(|package| NATIVE.contains(&package.folder.as_str())) {
            let what = format!("`{}` is a default member and needs `{}`", member.folder, native.folder);
            let mend =
                "a plain `cargo test` needs no C++ build: use the in-memory twin, or leave it out of `default-members`";
            findings.push(Finding::new(&member.manifest, 0, what, mend));
        }
    }
    findings
}

fn check_source(source: &Source) -> Vec<Finding> {
    let folder = graph::folder_of(&source.path);
    let mut findings = Vec::new();
    for (number, line) in source.numbered() {
        for (path, name) in RESERVED_PATHS {
            let Some(reserved) = RESERVED.iter().find(|reserved| reserved.name == name) else {
                continue;
            };
            let named = words(&line.code, path).any(|at| line.code[at + path.len()..].starts_with("::"));
            if named && !reserved.owners.contains(&folder) {
                let mend = format!("{}; only {} may name it", reserved.why, reserved.owners.join(", "));
                findings.push(Finding::new(&source.path, number, format!("`{path}::` in `{folder}`"), mend));
            }
        }
    }
    findings
}

/// The table for people says the same: one line `| row | `crate` | …` for each crate.
fn check_map(map: &str, workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in workspace.packages.iter().map(|package| package.folder.as_str()).filter(|&folder| folder != ABOVE_ALL)
    {
        let Some(row) = row_of(folder) else { continue };
        let line = format!("| {row} | `{folder}` |");
        if !map.contains(&line) {
            findings.push(Finding::new(
                MAP,
                0,
                format!("no line `{line} …`"),
                "the table of crates shows every crate in its row",
            ));
        }
    }
    findings
}
