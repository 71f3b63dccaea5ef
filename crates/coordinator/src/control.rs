//! The control group: the cluster's state, agreed on by Raft and kept in one small file beside its log.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use sagitta_cluster::{Command, SnapshotError, State, encode_outcome};
use sagitta_consensus::{
    ApplyError, Committed, ConsensusError, Doubt, GroupHandle, GroupId, GroupSpec, HostHandle, Membership, NodeId,
    Outcome, Position, ReadOutcome, StateMachine,
};
use sagitta_env::Deadline;
use sagitta_model::ErrorKind;
use tokio::sync::watch;

/// The control group's id; shards begin at [`State::FIRST_SHARD_ID`].
const GROUP: GroupId = GroupId(1);
const STATE_FILE: &str = "state.json";
/// Entries after which the state is written to its file, so that the log can be cut: replaying as many takes milliseconds.
const SNAPSHOT_EVERY: u64 = 256;

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
#[error("{message}")]
pub struct ControlError {
    kind: ErrorKind,
    message: String,
}

impl ControlError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<ConsensusError> for ControlError {
    fn from(error: ConsensusError) -> Self {
        Self::new(error.kind(), format!("the control group: {error}"))
    }
}

impl Control {
    /// Opens the control group in its folder. `founders` are its first voters, the same on every coordinator for ever.
    pub async fn open(
        dir: &Path,
        cluster_id: u128,
        founders: Vec<NodeId>,
        host: &HostHandle,
    ) -> Result<Self, ControlError> {
        let machine = ControlMachine::open(dir, cluster_id)?;
        let (state, applied) = (machine.shared.clone(), machine.seen.subscribe());
        let spec = GroupSpec { group: GROUP, found_with: Some(founders) };
        let group = host.open_group(spec, Box::new(machine)).await?;
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
            Outcome::Unknown(doubt) => Err(doubted(&doubt)),
        }
    }

    /// An index that is at least that of every change that was acknowledged before, if this coordinator leads.
    pub async fn read_index(&self, deadline: Deadline) -> Result<Decided<u64>, ControlError> {
        match self.group.read_index(deadline.at()).await {
            ReadOutcome::At(index) => Ok(Decided::Done(index)),
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

/// The control group's state machine.
struct ControlMachine {
    dir: PathBuf,
    state: State,
    shared: Arc<ArcSwap<State>>,
    seen: watch::Sender<u64>,
    applied: Position,
    durable: u64,
}

impl ControlMachine {
    fn open(dir: &Path, cluster_id: u128) -> Result<Self, ControlError> {
        let failed = |path: &Path, error: io::Error| {
            ControlError::new(ErrorKind::Unavailable, format!("{}: {error}", path.display()))
        };
        fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
        let path = dir.join(STATE_FILE);
        let (state, applied) = match fs::read(&path) {
            Ok(bytes) => {
                let (state, index, term) = State::decode(&bytes).map_err(|e| refused(&path, &e))?;
                (state, Position { index, term })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (State::new(cluster_id), Position::default()),
            Err(error) => return Err(failed(&path, error)),
        };
        if state.cluster_id() != cluster_id {
            let (found, expected) = (state.cluster_id(), cluster_id);
            let message =
                format!("{} belongs to cluster {found:032x}, the data folder to {expected:032x}", path.display());
            return Err(ControlError::new(ErrorKind::Conflict, message));
        }
        let shared = Arc::new(ArcSwap::from_pointee(state.clone()));
        let seen = watch::Sender::new(applied.index);
        Ok(Self { dir: dir.to_owned(), state, shared, seen, applied, durable: applied.index })
    }

    /// Writes the state whole or not at all: to another name, synced, then renamed.
    fn save(&mut self) -> io::Result<()> {
        let partial = self.dir.join("state.json.partial");
        let mut file = File::create(&partial)?;
        file.write_all(&self.state.encode(self.applied.index, self.applied.term))?;
        file.sync_all()?;
        fs::rename(&partial, self.dir.join(STATE_FILE))?;
        File::open(&self.dir)?.sync_all()?;
        self.durable = self.applied.index;
        Ok(())
    }
}

fn refused(path: &Path, error: &SnapshotError) -> ControlError {
    ControlError::new(ErrorKind::Corrupt, format!("{}: {error}", path.display()))
}

impl StateMachine for ControlMachine {
    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Bytes>, ApplyError> {
        let mut responses = Vec::with_capacity(entries.len());
        for entry in entries {
            let response = if entry.data.is_empty() {
                Bytes::new()
            } else {
                let command = Command::decode(&entry.data);
                let command = command.map_err(|e| ApplyError::Corrupt(format!("entry {}: {e}", entry.index)))?;
                encode_outcome(&self.state.apply(command)).into()
            };
            responses.push(response);
            self.applied = Position { index: entry.index, term: entry.term };
        }
        self.shared.store(Arc::new(self.state.clone()));
        self.seen.send_replace(self.applied.index);
        if self.applied.index - self.durable >= SNAPSHOT_EVERY {
            // Not yet on disk is no loss: the log keeps the entries until it is.
            if let Err(error) = self.save() {
                tracing::warn!(%error, "the control state was not saved; its log is kept");
            }
        }
        Ok(responses)
    }

    fn applied(&self) -> Position {
        self.applied
    }

    fn durable(&self) -> u64 {
        self.durable
    }

    fn membership(&self) -> Option<Membership> {
        None
    }

    fn flush(&mut self, _wait: bool) -> Result<(), ApplyError> {
        if self.durable == self.applied.index {
            return Ok(());
        }
        self.save().map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => ApplyError::Full(error.to_string()),
            _ => ApplyError::Failed(error.to_string()),
        })
    }
}
