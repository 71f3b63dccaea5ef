//! The control group: the cluster's state, agreed on by Raft and kept in one small file beside its log.

mod file;
mod machine;

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use sagitta_cluster::State;
use sagitta_consensus::{
    ConsensusError, Doubt, GroupHandle, GroupId, GroupSpec, HostHandle, LogMark, NodeId, Outcome, ReadOutcome, States,
};
use sagitta_env::{Deadline, Env};
use sagitta_model::ErrorKind;
use tokio::sync::watch;

pub use self::file::Kept;
use self::machine::ControlMachine;

/// The control group's id; shards begin at [`State::FIRST_SHARD_ID`].
pub const GROUP: GroupId = GroupId(1);

/// A handle to the control group; cheap to clone.
#[derive(Clone)]
pub struct Control {
    group: GroupHandle,
    state: Arc<ArcSwap<State>>,
    applied: watch::Receiver<u64>,
}

/// What became of a request that only the leader of the control group can answer.
pub enum Decided<T> {
    /// It was answered.
    Done(T),
    /// Nothing was done here; the leader, if that is known.
    NotLeader(Option<u64>),
}

/// Why the control group could not be opened or asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", if *.in_doubt { "; what was asked for may have been done all the same" } else { "" })]
pub struct ControlError {
    kind: ErrorKind,
    message: String,
    in_doubt: bool,
}

impl ControlError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), in_doubt: false }
    }

    /// Of a change that may have been made all the same.
    pub(crate) fn in_doubt_if(self, in_doubt: bool) -> Self {
        Self { in_doubt: self.in_doubt || in_doubt, ..self }
    }

    /// Whether a change may have been made all the same.
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        if self.in_doubt { ErrorKind::Unavailable } else { self.kind }
    }
}

impl From<ConsensusError> for ControlError {
    fn from(error: ConsensusError) -> Self {
        Self::new(error.kind(), format!("the control group: {error}"))
    }
}

impl Control {
    /// Opens the control group in its folder. `founders` are its first voters, the same on every coordinator for ever;
    /// `states` is where whole states go to and come from.
    pub async fn open(
        env: &Env,
        dir: &Path,
        cluster_id: u128,
        founders: Vec<NodeId>,
        host: &HostHandle,
        states: States,
    ) -> Result<Self, ControlError> {
        let spec = LogMark::in_folder(dir).spec(GROUP, founders);
        Self::open_as(env, dir, cluster_id, host, states, spec).await
    }

    /// Opens the control group as one of this member alone, from a term on, since its majority is lost for ever: see
    /// [`GroupSpec::alone_from`].
    pub async fn open_alone(
        env: &Env,
        dir: &Path,
        cluster_id: u128,
        host: &HostHandle,
        term: u64,
    ) -> Result<Self, ControlError> {
        let spec =
            GroupSpec { found_with: None, alone_from: Some(term), ..LogMark::in_folder(dir).spec(GROUP, Vec::new()) };
        Self::open_as(env, dir, cluster_id, host, States::default(), spec).await
    }

    async fn open_as(
        env: &Env,
        dir: &Path,
        cluster_id: u128,
        host: &HostHandle,
        states: States,
        spec: GroupSpec,
    ) -> Result<Self, ControlError> {
        let machine = ControlMachine::open(env, GROUP, dir, cluster_id, states)?;
        let (state, applied) = (machine.shared.clone(), machine.seen.subscribe());
        let mark = LogMark::in_folder(dir);
        let group = host.open_group(spec, Box::new(machine)).await;
        let group = group.map_err(|error| match error {
            ConsensusError::Absent { .. } => ControlError::new(
                ErrorKind::Corrupt,
                format!("{} holds the state of a member of the control group whose Raft log is gone", dir.display()),
            ),
            error => error.into(),
        })?;
        let marked = env.spawn_blocking(move || mark.set()).await;
        if let Ok(Err(error)) = marked {
            // It is set when the group is opened next.
            tracing::warn!(%error, "it is not kept that the control group has a log");
        }
        Ok(Self { group, state, applied })
    }

    /// The state as this coordinator has applied it.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// The last entry of the log that is in the state; whoever subscribes learns of changes.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// The control group, for its members and its leader.
    pub fn group(&self) -> &GroupHandle {
        &self.group
    }

    /// Agrees on a command, if this coordinator leads, and says what came of it: see [`sagitta_cluster::decode_outcome`].
    pub async fn propose(&self, command: Bytes, deadline: Deadline) -> Result<Decided<Bytes>, ControlError> {
        match self.group.propose(command, deadline.at()).await {
            Outcome::Applied(applied) => Ok(Decided::Done(applied.response)),
            Outcome::NotLeader { hint } => Ok(Decided::NotLeader(hint.map(|node| node.0))),
            Outcome::Refused(refusal) => {
                Err(ControlError::new(refusal.kind(), format!("the control group: {refusal}")))
            }
            Outcome::Unknown(doubt) => Err(doubted(&doubt).in_doubt_if(true)),
        }
    }

    /// An index that is at least that of every change that was acknowledged before, if this coordinator leads.
    pub async fn read_index(&self, deadline: Deadline) -> Result<Decided<u64>, ControlError> {
        match self.group.read_index(deadline.at()).await {
            // Of a voter that is alone, the group may be yet to note what was applied and acknowledged; a learner would be told too little.
            ReadOutcome::At(index) => Ok(Decided::Done(index.max(*self.applied.borrow()))),
            ReadOutcome::NotLeader { hint } => Ok(Decided::NotLeader(hint.map(|node| node.0))),
            ReadOutcome::Refused(refusal) => {
                Err(ControlError::new(refusal.kind(), format!("the control group: {refusal}")))
            }
            ReadOutcome::Unknown(doubt) => Err(doubted(&doubt)),
        }
    }

    /// Waits until the state has everything up to an index.
    pub async fn wait_applied(&self, index: u64) {
        // Ends early only when the group is closed, and then with its last state.
        let _ = self.applied.clone().wait_for(|applied| *applied >= index).await;
    }

    /// Writes the state to its file and closes the group.
    pub async fn close(&self, deadline: Deadline) -> Result<(), ControlError> {
        Ok(self.group.close(deadline.at()).await?)
    }
}

fn doubted(doubt: &Doubt) -> ControlError {
    ControlError::new(ErrorKind::Unavailable, format!("the control group: {doubt}"))
}

#[cfg(test)]
impl Control {
    /// The same for a coordinator that learns of nothing more until what comes with it is called.
    pub(crate) fn behind(&self) -> (Self, impl FnOnce() + use<>) {
        let (now, shown) = (self.clone(), Arc::new(ArcSwap::new(self.state())));
        let (sender, applied) = watch::channel(*self.applied.borrow());
        let behind = Self { group: self.group.clone(), state: shown.clone(), applied };
        let learn = move || {
            shown.store(now.state());
            sender.send_replace(*now.applied.borrow());
        };
        (behind, learn)
    }
}
