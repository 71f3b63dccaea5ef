//! Has the control group go on with one coordinator, whose process has stopped, since a majority of it is lost for ever.
//!
//! First it is seen what that coordinator has, in copies: its state file and its log, all of which counts as agreed. A control state that a node
//! has followed may be newer; then that one is gone on with, as with a state that was fetched whole. Only then anything is written: the log, then
//! that a new era has begun, then the state that this node follows from its first moment on, by which it hears the lost ones no more.

mod look;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagitta_cluster::recovery::SKIPPED_TERMS;
use sagitta_cluster::{Command, State, decode_outcome};
use sagitta_consensus::{ClusterId, Condition, Host, HostSettings, LogError, NodeId, SilentTransport, write_whole};
use sagitta_coordinator::{Control, ControlError, Decided};
use sagitta_env::{Deadline, Env};
use serde::{Serialize, Serializer};

use self::look::{Look, look};
use crate::agent::Seen;
use crate::data_dir::{DataDir, DataDirError, Layout, StoppedDir};
use crate::start::{OpenLog, StartError, log_settings};

/// How long all of it may take: a few entries are written.
const WITHIN: Duration = Duration::from_secs(60);
/// Between two looks whether the only voter leads, or has applied its log. It is looked at, not waited for, since the group may stop or run out of disk
/// instead, which is told by its status alone.
const PAUSE: Duration = Duration::from_millis(20);

/// What is left of a control group, and what is lost with the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ControlRecovery {
    /// Whether it was only looked at.
    pub dry_run: bool,
    /// The node whose folder it is.
    #[serde(serialize_with = "id")]
    pub node: u64,
    /// The last entry of its log. Of several coordinators that are left, the one with the latest, first by term, is the one to go on with.
    pub last_index: u64,
    /// Its term.
    pub last_term: u64,
    /// The last entry that it knows to be agreed on. What comes after it counts as agreed, too.
    pub committed: u64,
    /// Who votes, by the end of its log.
    #[serde(serialize_with = "ids")]
    pub voters: Vec<u64>,
    /// The last entry that is kept: that of its log, or a later one that another node has followed.
    pub goes_on_from: u64,
    /// The control state that is gone on with instead of what the folder's log comes to.
    pub followed: Option<PathBuf>,
    /// How often a control group of this cluster has gone on like this, this time included.
    pub era: u64,
    /// How many collections there are.
    pub collections: usize,
    /// How many shards they have.
    pub shards: usize,
    /// The voters but this node.
    pub lost: Vec<LostCoordinator>,
}

/// A coordinator that is given up for ever, with all that it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostCoordinator {
    /// Its id.
    #[serde(serialize_with = "id")]
    pub node: u64,
    /// Where others reached it.
    pub address: String,
    /// How many shards should have a replica there.
    pub replicas: usize,
}

/// Ids are text: they have more digits than JSON's readers keep of a number.
fn id<S: Serializer>(id: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}

fn ids<S: Serializer>(ids: &[u64], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(ids.iter().map(u64::to_string))
}

/// Why it is not done.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The folder cannot be used.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// It is the folder of no member of a control group.
    #[error("{path} holds no member of a control group: name the data folder of a coordinator that is left")]
    NoMember {
        /// The folder.
        path: PathBuf,
    },
    /// It has left the control group, or the cluster.
    #[error("node {node} belongs to the control group no more: {why}; name the data folder of another coordinator")]
    Gone {
        /// The node whose folder it is.
        node: u64,
        /// Since when.
        why: String,
    },
    /// Somebody is there.
    #[error(
        "node {node}, which would be given up for ever, answers at {address}: with it nothing may be lost; stop it first if it is to be given up all the same"
    )]
    Alive {
        /// Who.
        node: u64,
        /// Where.
        address: String,
    },
    /// There is nobody to go on without.
    #[error(
        "the control group has no other voter than node {node}, so that nothing is lost: start it, with sagittad serve"
    )]
    NothingLost {
        /// The node whose folder it is.
        node: u64,
    },
    /// A control state that was followed cannot be used.
    #[error("{path} is no control state of this cluster that could be gone on with: {why}")]
    Followed {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The log cannot be opened.
    #[error("the Raft log: {0}")]
    Log(#[from] LogError),
    /// The control state cannot be read, or the group not be opened.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Anything else.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The control group refuses, or takes too long.
    #[error("the control group did not go on, which can be tried again: {0}")]
    Refused(String),
}

/// Has the control group go on with the coordinator that a folder belongs to, whose process must have stopped. All other voters are given up
/// for ever, and the state begins a new era, by which whoever has followed it tells it from what they may still agree on. `followed` are control
/// states as other nodes have kept them. With `dry_run` nothing is changed. Cut off in the middle it can be done again.
///
/// # Errors
/// If the folder is none of a member, in use, or damaged, or nobody else has a vote.
pub async fn recover_control_group(
    folder: &Path,
    followed: &[PathBuf],
    open_log: &OpenLog,
    env: &Env,
    dry_run: bool,
) -> Result<ControlRecovery, RecoverError> {
    let no_member = || RecoverError::NoMember { path: folder.to_owned() };
    // It makes nothing of a folder that is none.
    let identity = StoppedDir::hold(folder)?.identity?.ok_or_else(no_member)?;
    if dry_run {
        let held = StoppedDir::hold(folder)?;
        return Ok(look(env, &held.layout, &identity, followed).await?.recovery);
    }
    let data = DataDir::open(folder, env)?;
    let look = look(env, data.layout(), &identity, followed).await?;
    tracing::error!(recovery = ?look.recovery, "an operator has this node go on alone with a control group that has lost its majority");
    let seen = go_on(env, data.layout(), &look, open_log).await?;
    keep(data.layout(), &seen)?;
    Ok(ControlRecovery { dry_run: false, ..look.recovery })
}

/// Has the group decide that a new era begins; returns the state as of then.
async fn go_on(env: &Env, layout: &Layout, look: &Look, open_log: &OpenLog) -> Result<Seen, RecoverError> {
    if look.recovery.lost.is_empty() {
        return Ok(look.seen.clone());
    }
    if let Some(installed) = &look.install {
        installed.write(&layout.control())?;
    }
    let log = open_log(&layout.log(), log_settings(sagitta_node::volume_bytes(layout.path())))?;
    let settings = HostSettings::new(ClusterId(look.cluster), NodeId(look.recovery.node));
    let host = Host::start(env, settings, log, Arc::new(SilentTransport)).map_err(StartError::from)?;
    let term = look.term.saturating_add(SKIPPED_TERMS);
    let control = Control::open_alone(env, &layout.control(), look.cluster, &host.handle(), term).await?;
    let deadline = env.deadline(WITHIN);
    let decided = decide(env, &control, &look.recovery, deadline).await;
    let seen = Seen::of(&control);
    let closed = control.close(deadline).await;
    host.shutdown(deadline.at()).await.map_err(StartError::from)?;
    decided?;
    closed?;
    Ok(seen)
}

/// Has the state say so, once the only voter leads and has applied what the log held.
async fn decide(
    env: &Env,
    control: &Control,
    recovery: &ControlRecovery,
    deadline: Deadline,
) -> Result<(), RecoverError> {
    let ControlRecovery { node: survivor, goes_on_from: ended, .. } = *recovery;
    let lost: Vec<u64> = recovery.lost.iter().map(|lost| lost.node).collect();
    let command = Command::RecoverControl { survivor, lost, era: recovery.era - 1, ended };
    let command = Bytes::from(command.encode());
    loop {
        let why = match control.propose(command.clone(), deadline).await {
            Ok(Decided::Done(answer)) => {
                return match decode_outcome(&answer) {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(refusal)) => Err(RecoverError::Refused(refusal.to_string())),
                    Err(error) => Err(RecoverError::Refused(error.to_string())),
                };
            }
            Ok(Decided::NotLeader(_)) => "it does not lead".to_owned(),
            // It is harmless that it comes again.
            Err(error) => error.to_string(),
        };
        give_up_if_stuck(env, control, deadline, why)?;
        env.sleep(PAUSE).await;
    }
}

/// Waiting goes on while it can help.
fn give_up_if_stuck(env: &Env, control: &Control, deadline: Deadline, why: String) -> Result<(), RecoverError> {
    match control.group().status().condition {
        Condition::Stopped(what) | Condition::Full(what) => Err(RecoverError::Refused(what)),
        Condition::Running if deadline.has_passed(env) => Err(RecoverError::Refused(why)),
        Condition::Running => Ok(()),
    }
}

/// Keeps what this node follows when it starts, before it listens to anybody: the lost ones must not be heard. Last, for it says that all is done.
fn keep(layout: &Layout, seen: &Seen) -> Result<(), RecoverError> {
    let path = layout.followed();
    let written = write_whole(&path, &seen.state.encode(seen.index, 0));
    written.map_err(|source| DataDirError::Io { path, source }.into())
}

/// Why a coordinator must not go on with what its folder holds, if it must not: the control group has gone on without it. It could agree with
/// others that were given up on what nobody else goes by.
pub(crate) fn superseded(state: &State, me: NodeId) -> Option<String> {
    let node = state.nodes().get(&me.0).filter(|node| node.place.roles.coordinator)?;
    if state.era() == 0 || !state.given_up().contains_key(&node.id) {
        return None;
    }
    Some(format!(
        "{me} was a coordinator that was lost, and was given up for ever: the cluster's control group has gone on without it, and hears it no more. \
         What this data folder holds is of before; keep it until nothing of it is missed, and start a new node in its place: \
         sagittad serve --data EMPTY-FOLDER --join URL --join-token TOKEN"
    ))
}

#[cfg(test)]
mod tests;
