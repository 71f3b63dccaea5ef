//! What a coordinator has of its control group, and what would come of going on with it. Nothing in its folder is changed.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sagitta_cluster::recovery::SKIPPED_TERMS;
use sagitta_cluster::{NodeStatus, State};
use sagitta_consensus::{
    ClusterId, GroupState, Host, HostSettings, LogInspector, LogMark, LogStore as _, Membership, MemoryLog, NodeId,
    Position, SilentTransport, States,
};
use sagitta_coordinator::{CONTROL_GROUP, Control, Kept};
use sagitta_env::{Deadline, Env};

use super::{ControlRecovery, LostCoordinator, PAUSE, RecoverError, WITHIN, give_up_if_stuck};
use crate::agent::Seen;
use crate::data_dir::{DataDirError, Identity, Layout};
use crate::start::{StartError, raft_id};

/// How long a coordinator that runs may take to accept a connection.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// What was found.
pub(super) struct Look {
    pub(super) cluster: u128,
    pub(super) recovery: ControlRecovery,
    /// The latest term that this member was in.
    pub(super) term: u64,
    /// The state that is gone on with.
    pub(super) seen: Seen,
    /// What the control group's file has to say before, unless it goes on with what is in the folder.
    pub(super) install: Option<Kept>,
}

/// Looks at a folder that somebody holds.
pub(super) async fn look(
    env: &Env,
    layout: &Layout,
    identity: &Identity,
    followed: &[PathBuf],
) -> Result<Look, RecoverError> {
    let no_member = || RecoverError::NoMember { path: layout.path().to_owned() };
    let cluster = identity.cluster_id().ok_or_else(no_member)?;
    let me = raft_id(identity.node_id());
    let (held, log) = read_log(layout)?;
    let (attempt, own_file) = (last_attempt(&log, &held)?, read(&layout.followed())?);
    let (kept, end) = replay(env, layout, (cluster, me), &held, log).await?;
    // An attempt that was cut off has appended who leaves, and nobody has followed that: what others may have agreed on counts from before.
    let is_decided = |before: u64| (0..kept.state.era()).any(|era| kept.state.end_of_era(era) == Some(before));
    let is_followed = |before: u64| own_file.as_ref().is_some_and(|own| own.entry() > before);
    let end = attempt.filter(|before| !is_decided(*before) && !is_followed(*before)).unwrap_or(end);
    let members = kept.membership.unwrap_or_else(|| held.meta.founders.clone());
    let (seen, file) = newest(layout, followed, Seen::at(end, Arc::new(kept.state)))?;
    if !members.contains(me) {
        let why = format!("by the end of its log {:?} vote", voters(&members));
        return Err(RecoverError::Gone { node: me.0, why });
    }
    // If a crash came when all was done but the last.
    let is_unfinished = seen.state.era() > own_file.map_or(0, |own| own.state.era());
    let lost = lost(&seen.state, &members, me)?;
    if lost.is_empty() && !is_unfinished {
        return Err(RecoverError::NothingLost { node: me.0 });
    }
    if let Some(LostCoordinator { node, address, .. }) = lost.iter().find(|lost| answers(&lost.address)) {
        return Err(RecoverError::Alive { node: *node, address: address.clone() });
    }
    let term = held.hard_state.term.max(held.last.term);
    let install = file.as_ref().map(|_| {
        let position = Position { index: seen.entry(), term };
        let (state, membership) = (State::clone(&seen.state), Some(members.clone()));
        Kept { state, applied: position, membership, installed: Some(position) }
    });
    let recovery = ControlRecovery {
        dry_run: true,
        node: me.0,
        last_index: held.last.index,
        last_term: held.last.term,
        committed: held.hard_state.commit,
        voters: voters(&members),
        goes_on_from: seen.entry(),
        followed: file,
        era: seen.state.era() + u64::from(!lost.is_empty()),
        collections: seen.state.collections().len(),
        shards: seen.state.shards().count(),
        lost,
    };
    Ok(Look { cluster, recovery, term, seen, install })
}

/// The control group's log, and a copy of it.
fn read_log(layout: &Layout) -> Result<(GroupState, MemoryLog), RecoverError> {
    let absent = || -> RecoverError {
        let (log, data) = (layout.log(), layout.path().to_owned());
        match LogMark::in_folder(&layout.control()).is_set() {
            true => StartError::LogGone { log, groups: vec![CONTROL_GROUP], data }.into(),
            false => RecoverError::NoMember { path: data },
        }
    };
    if !layout.log().exists() {
        return Err(absent());
    }
    let inspector = LogInspector::open(&layout.log())?;
    let held = inspector.state(CONTROL_GROUP)?.ok_or_else(absent)?;
    let log = inspector.agreed(CONTROL_GROUP)?.ok_or_else(absent)?;
    Ok((held, log))
}

/// The entry before those by which the group was made one of this member alone, if it was since the log begins: they are of a much later term.
fn last_attempt(log: &MemoryLog, held: &GroupState) -> Result<Option<u64>, RecoverError> {
    let mut later = held.last.term;
    for index in (held.truncated.index..held.last.index).rev() {
        let term = log.term(CONTROL_GROUP, index)?;
        if later >= term + SKIPPED_TERMS {
            return Ok(Some(index));
        }
        later = term;
    }
    Ok(None)
}

/// What the state and the members come to by the end of the log, and where that is. A group is opened for it as ever, that nobody hears.
async fn replay(
    env: &Env,
    layout: &Layout,
    (cluster, me): (u128, NodeId),
    held: &GroupState,
    log: MemoryLog,
) -> Result<(Kept, u64), RecoverError> {
    let (scratch, kept) = (Scratch::make(env)?, Kept::read(&layout.control())?);
    if kept.is_none() && held.last == held.truncated {
        let why = "it has nothing of it yet, neither a state nor an entry of the log".to_owned();
        return Err(RecoverError::Gone { node: me.0, why });
    }
    if let Some(kept) = &kept {
        kept.write(&scratch.0)?;
    }
    let end = kept.map_or(0, |kept| kept.applied.index).max(held.last.index);
    let settings = HostSettings::new(ClusterId(cluster), me);
    let host = Host::start(env, settings, Arc::new(log), Arc::new(SilentTransport)).map_err(StartError::from)?;
    let founders = held.meta.founders.voters.clone();
    let control = Control::open(env, &scratch.0, cluster, founders, &host.handle(), States::default()).await?;
    let deadline = env.deadline(WITHIN);
    let applied = wait_applied(env, &control, end, deadline).await;
    let closed = control.close(deadline).await;
    host.shutdown(deadline.at()).await.map_err(StartError::from)?;
    applied?;
    closed?;
    let kept = Kept::read(&scratch.0)?;
    Ok((kept.ok_or_else(|| RecoverError::Refused("its log came to no state".to_owned()))?, end))
}

async fn wait_applied(env: &Env, control: &Control, end: u64, deadline: Deadline) -> Result<(), RecoverError> {
    loop {
        let applied = *control.applied().borrow();
        if applied >= end {
            return Ok(());
        }
        let why = format!("of the {end} entries of its log only {applied} could be applied in time");
        give_up_if_stuck(env, control, deadline, why)?;
        env.sleep(PAUSE).await;
    }
}

/// The newest state there is, and where it was found if the folder's control group does not come to it: this node may have been told of more
/// than it has taken part in.
fn newest(layout: &Layout, followed: &[PathBuf], own: Seen) -> Result<(Seen, Option<PathBuf>), RecoverError> {
    let (mut newest, mut file) = (own, None);
    let own_file = layout.followed();
    for path in followed.iter().chain([&own_file]) {
        let unusable = |why: String| RecoverError::Followed { path: path.clone(), why };
        let seen = match read(path)? {
            Some(seen) => seen,
            None if *path == own_file => continue,
            None => return Err(unusable("there is no such file".to_owned())),
        };
        if seen.state.cluster_id() != newest.state.cluster_id() {
            return Err(unusable(format!("it is of {}", ClusterId(seen.state.cluster_id()))));
        }
        if seen.state.era() > newest.state.era() {
            let what =
                "the control group has gone on with another coordinator since, and this folder has no part in it";
            return Err(unusable(what.to_owned()));
        }
        if let Some(ended) = seen.is_ahead_of(&newest) {
            return Err(unusable(format!("the control group has gone on from entry {ended} without it already")));
        }
        if seen.index > newest.index {
            (newest, file) = (seen, Some(path.clone()));
        }
    }
    Ok((newest, file))
}

/// A control state as a node keeps what it follows, or a coordinator what it has applied.
fn read(path: &Path) -> Result<Option<Seen>, RecoverError> {
    match fs::read(path) {
        Ok(bytes) => match State::decode(&bytes) {
            Ok((state, index, _)) => Ok(Some(Seen::kept(index, Arc::new(state)))),
            Err(error) => Err(RecoverError::Followed { path: path.to_owned(), why: error.to_string() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirError::Io { path: path.to_owned(), source }.into()),
    }
}

/// Who may have a vote, by the log or by what was noted last, and is no longer to have one.
fn lost(state: &State, members: &Membership, me: NodeId) -> Result<Vec<LostCoordinator>, RecoverError> {
    let stays = |id: &u64| state.nodes().get(id).filter(|node| node.status != NodeStatus::Removed);
    if stays(&me.0).is_none() {
        let why = "it was removed from the cluster".to_owned();
        return Err(RecoverError::Gone { node: me.0, why });
    }
    let others: BTreeSet<u64> = voters(members).into_iter().chain(state.voters().iter().copied()).collect();
    let lost = others.iter().filter(|voter| **voter != me.0).filter_map(stays);
    let lost = lost.map(|node| LostCoordinator {
        node: node.id,
        address: node.place.peer_address.clone(),
        replicas: state.shards_on(node.id).count(),
    });
    Ok(lost.collect())
}

/// Whether somebody listens at the address of a node. It is nobody else's: one that passes on to another node is taken from the one before.
fn answers(address: &str) -> bool {
    let address = address.rsplit_once("//").map_or(address, |(_, address)| address);
    address.parse().is_ok_and(|address| TcpStream::connect_timeout(&address, ANSWERS_WITHIN).is_ok())
}

fn voters(members: &Membership) -> Vec<u64> {
    let all: BTreeSet<u64> = members.voters.iter().chain(&members.outgoing).map(|voter| voter.0).collect();
    all.into_iter().collect()
}

/// A folder among the system's temporary ones, which goes with this.
struct Scratch(PathBuf);

impl Scratch {
    fn make(env: &Env) -> Result<Self, RecoverError> {
        let path = std::env::temp_dir().join(format!("sagitta-control-{:032x}", env.uuid()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(DataDirError::Io { path, source }.into()),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "a scratch folder cannot be removed");
        }
    }
}
