//! Looks at the data folder of a process that has stopped: what it is, what is in it, what is wrong with it.
//!
//! Nothing in the folder is made, changed or removed, and what is damaged keeps nothing else from being shown.

mod control;
mod log;
mod report;
mod shards;

use std::collections::BTreeMap;
use std::path::Path;

use sagitta_cluster::State;
use sagitta_env::Env;
use sagitta_model::PointId;
use sagitta_shard::{Engines, Inspected};

pub use self::report::{
    CollectionReport, ControlReport, GroupReport, InspectReport, LogReport, MemberReport, NodeReport, Problem,
    SegmentReport, Seriousness, ShardReport, StateReport,
};
use crate::data_dir::{DataDirError, StoppedDir};
use crate::start::raft_id;

/// Looks at a data folder. With `all`, every byte of it is read and verified, which takes as long as the disk needs for it; else
/// what a start would read.
///
/// # Errors
/// Only if it is no data folder, cannot be read at all, or a process works on it.
pub fn inspect(folder: &Path, engines: &Engines, env: &Env, all: bool) -> Result<InspectReport, DataDirError> {
    let held = StoppedDir::hold(folder)?;
    let report = InspectReport::of(folder, all);
    let mut look = Look { held: &held, engines, env, all, me: None, cluster: None, replicas: BTreeMap::new(), report };
    look.at_identity();
    let state = look.at_control();
    look.at_node(state.as_ref());
    let log = look.open_log();
    look.at_shards(state.as_ref(), log.as_ref());
    look.at_log(state.as_ref(), log.as_ref());
    look.report.problems.sort_by_key(|problem| std::cmp::Reverse(problem.seriousness));
    Ok(look.report)
}

/// A look at a folder, under way.
struct Look<'a> {
    held: &'a StoppedDir,
    engines: &'a Engines,
    env: &'a Env,
    all: bool,
    /// The node's Raft id and the cluster, as the identity says.
    me: Option<u64>,
    cluster: Option<u128>,
    /// What was seen of the replicas.
    replicas: BTreeMap<u64, Inspected>,
    report: InspectReport,
}

impl Look<'_> {
    fn at_identity(&mut self) {
        match &self.held.identity {
            Ok(Some(identity)) => {
                self.me = Some(raft_id(identity.node_id()).0);
                self.cluster = identity.cluster_id();
                self.report.node = Some(NodeReport {
                    id: raft_id(identity.node_id()).0.to_string(),
                    incarnation: PointId::Uuid(identity.node_id()).to_string(),
                    cluster: self.cluster.map(|id| PointId::Uuid(id).to_string()),
                    founder: identity.founder(),
                    known_as: None,
                });
                if self.cluster.is_none() {
                    let what = "the folder belongs to no cluster yet: its process waits to found one or to be let in";
                    self.problem(
                        Seriousness::Note,
                        what,
                        "sagitta cluster init, or a start with --join and --join-token",
                    );
                }
            }
            Ok(None) => {
                let what = "no process has come so far as to write whose folder it is";
                self.problem(Seriousness::Note, what, "the next start makes it a new node");
            }
            Err(error) => {
                let newer = matches!(error, DataDirError::Newer { .. });
                let help = if newer {
                    RUN_NEWER
                } else {
                    "bring sagitta.json back from a backup; nothing else of the folder is harmed by it"
                };
                self.problem(Seriousness::Damage, error.to_string(), help);
            }
        }
    }

    /// What the cluster knows of the node.
    fn at_node(&mut self, state: Option<&State>) {
        let known = self.me.and_then(|me| state?.nodes().get(&me));
        if let (Some(node), Some(known)) = (&mut self.report.node, known) {
            node.known_as = Some(MemberReport::of(known));
        }
        let is_dev = known.is_some_and(|known| known.place.peer_address.is_empty());
        let how = if is_dev { "dev" } else { "serve" };
        self.report.start = format!("sagittad {how} --data {}", self.held.layout.path().display());
    }

    fn problem(&mut self, seriousness: Seriousness, what: impl Into<String>, help: impl Into<String>) {
        self.report.problems.push(Problem { seriousness, what: what.into(), help: help.into() });
    }
}

const RUN_NEWER: &str = "run the newer version of sagittad on it; there is no way back";
