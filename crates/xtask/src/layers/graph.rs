//! The workspace's packages and who depends on whom, out of `cargo metadata`.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::ABOVE_ALL;

#[derive(Debug)]
pub(super) struct Workspace {
    pub packages: Vec<Package>,
}

/// A package of ours.
#[derive(Debug)]
pub(super) struct Package {
    pub name: String,
    /// Its folder below `crates/`, or [`ABOVE_ALL`].
    pub folder: String,
    /// Path of its `Cargo.toml` from the root.
    pub manifest: String,
    pub dependencies: Vec<Dependency>,
    /// Built by a plain `cargo build`.
    pub default_member: bool,
}

#[derive(Debug)]
pub(super) struct Dependency {
    pub name: String,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Build,
    Test,
}

impl Workspace {
    /// Asks cargo, without the network and without resolving anything.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
            .current_dir(root)
            .output()
            .context("cannot run cargo metadata")?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
        Self::parse(&serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?)
    }

    pub(super) fn parse(metadata: &Value) -> Result<Self> {
        let root = text(metadata, "workspace_root")?;
        let default_members: HashSet<&str> =
            list(metadata, "workspace_default_members")?.filter_map(Value::as_str).collect();
        let packages = list(metadata, "packages")?
            .map(|package| Package::parse(package, root, &default_members))
            .collect::<Result<_>>()?;
        Ok(Self { packages })
    }

    pub(super) fn named(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// Our packages that building and testing `start` builds: its test dependencies too, but not those of others.
    pub(super) fn reach<'a>(&'a self, start: &'a Package) -> Vec<&'a Package> {
        let mut reached: Vec<&Package> = vec![start];
        let mut next = 0;
        while let Some(&package) = reached.get(next) {
            for dependency in &package.dependencies {
                if dependency.kind == Kind::Test && next > 0 {
                    continue;
                }
                let target = self.named(&dependency.name);
                reached.extend(target.filter(|target| !reached.iter().any(|known| known.name == target.name)));
            }
            next += 1;
        }
        reached
    }
}

impl Package {
    fn parse(package: &Value, root: &str, default_members: &HashSet<&str>) -> Result<Self> {
        let name = text(package, "name")?.to_owned();
        let manifest = text(package, "manifest_path")?;
        let manifest = manifest.strip_prefix(root).unwrap_or(manifest).trim_start_matches('/').to_owned();
        let dependencies = list(package, "dependencies")?.map(Dependency::parse).collect::<Result<_>>()?;
        let default_member = default_members.contains(text(package, "id")?);
        Ok(Self { name, folder: folder_of(&manifest).to_owned(), manifest, dependencies, default_member })
    }
}

impl Dependency {
    fn parse(dependency: &Value) -> Result<Self> {
        let kind = match dependency["kind"].as_str() {
            None => Kind::Normal,
            Some("build") => Kind::Build,
            Some(_) => Kind::Test,
        };
        Ok(Self { name: text(dependency, "name")?.to_owned(), kind })
    }
}

/// The crate that a file belongs to.
pub(super) fn folder_of(path: &str) -> &str {
    path.strip_prefix("crates/").and_then(|rest| rest.split('/').next()).unwrap_or(ABOVE_ALL)
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("cargo metadata has no text `{key}`"))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<impl Iterator<Item = &'a Value>> {
    Ok(value[key].as_array().with_context(|| format!("cargo metadata has no list `{key}`"))?.iter())
}
