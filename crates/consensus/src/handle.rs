//! What callers hold.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::{oneshot, watch};

use crate::admission::Admission;
use crate::apply::{Caller, Ticket};
use crate::driver::change::Peer;
use crate::driver::{Input, gone};
use crate::error::ConsensusError;
use crate::group::{GroupStatus, Handover, Incoming};
use crate::host::{Counters, HostStats};
use crate::ids::{GroupId, NodeId};
use crate::machine::StateMachine;
use crate::membership::Members;
use crate::outcome::{HandoverOutcome, Outcome, ReadOutcome, Refusal};
use crate::reads::Reader;
use crate::settings::{GroupSpec, MAX_PROPOSAL_BYTES};

/// A host, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct HostHandle {
    pub(crate) inbox: Sender<Input>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) arrivals: Arc<Admission>,
    pub(crate) counters: Arc<Counters>,
}

/// One group on a host. Cheap to clone.
#[derive(Clone)]
pub struct GroupHandle {
    host: HostHandle,
    group: GroupId,
    status: watch::Receiver<GroupStatus>,
}

impl HostHandle {
    /// Opens a group over its state machine. A lone member serves at once.
    pub async fn open_group(
        &self,
        spec: GroupSpec,
        machine: Box<dyn StateMachine>,
    ) -> Result<GroupHandle, ConsensusError> {
        let (answer, opened) = oneshot::channel();
        let group = spec.group;
        self.control(Input::Open { spec, machine, answer })?;
        let status = opened.await.map_err(|_| ended())??;
        Ok(GroupHandle { host: self.clone(), group, status })
    }

    /// Erases the log of a group that is not open.
    pub async fn remove_group(&self, group: GroupId) -> Result<(), ConsensusError> {
        let (answer, removed) = oneshot::channel();
        self.control(Input::Remove { group, answer })?;
        removed.await.map_err(|_| ended())?
    }

    /// Hands over messages that arrived from other nodes. False if the inbox is full, in number or bytes, or the host has
    /// ended: they are dropped then, and Raft repeats what matters.
    pub fn receive(&self, messages: Vec<Bytes>) -> bool {
        let Some(room) = self.arrivals.admit(messages.iter().map(Bytes::len).sum()) else { return false };
        self.inbox.try_send(Input::Messages(messages, Some(room))).is_ok()
    }

    /// Says that a node cannot be reached, so that leaders probe it instead of streaming to it.
    pub fn unreachable(&self, node: NodeId) {
        let _ = self.inbox.try_send(Input::Unreachable(node));
    }

    /// What the host has done and holds.
    pub fn stats(&self) -> HostStats {
        self.counters.read(&self.admission)
    }

    fn control(&self, input: Input) -> Result<(), ConsensusError> {
        self.inbox.try_send(input).map_err(|error| match error {
            TrySendError::Full(_) => ConsensusError::Overloaded,
            TrySendError::Disconnected(_) => ended(),
        })
    }
}

impl GroupHandle {
    /// Proposes `data`, in the order of the calls; what is returned only waits. The deadline is a time of the
    /// host's [`sagitta_env::Env`], kept to within a tick. Dropping the future changes nothing.
    pub fn propose(&self, data: Bytes, deadline: Duration) -> impl Future<Output = Outcome> + Send + use<> {
        let sent = self.send_proposal(data, deadline);
        async move {
            match sent {
                Ok(answer) => answer.await.unwrap_or_else(|_| Outcome::Unknown(gone())),
                Err(refusal) => Outcome::Refused(refusal),
            }
        }
    }

    /// Waits until reading the local state machine is linearizable; after opening, also until the group serves.
    pub fn read_index(&self, deadline: Duration) -> impl Future<Output = ReadOutcome> + Send + use<> {
        let (answer, read) = oneshot::channel();
        let input = Input::Read { group: self.group, reader: Reader { answer, deadline } };
        let sent = self.host.inbox.try_send(input).map_err(|error| refusal(&error));
        async move {
            match sent {
                Ok(()) => read.await.unwrap_or_else(|_| ReadOutcome::Unknown(gone())),
                Err(refusal) => ReadOutcome::Refused(refusal),
            }
        }
    }

    /// Makes these the members: learners at once, voters only out of learners that have caught up. Answers when the
    /// change is whole; asking again for what is changes nothing. One change at a time.
    pub fn change_members(&self, members: Members, deadline: Duration) -> impl Future<Output = Outcome> + Send + use<> {
        let sent = self.send_change(members, deadline);
        async move {
            match sent {
                Ok(answer) => answer.await.unwrap_or_else(|_| Outcome::Unknown(gone())),
                Err(refusal) => Outcome::Refused(refusal),
            }
        }
    }

    /// Has another voter lead instead of this member. Proposals are turned away meanwhile, for about a round trip.
    pub fn hand_over(&self, to: NodeId, deadline: Duration) -> impl Future<Output = HandoverOutcome> + Send + use<> {
        let (answer, outcome) = oneshot::channel();
        let input = Input::HandOver { group: self.group, handover: Handover { to, begun: false, deadline, answer } };
        let sent = self.host.inbox.try_send(input).map_err(|error| refusal(&error));
        async move {
            match sent {
                Ok(()) => outcome.await.unwrap_or_else(|_| HandoverOutcome::Unknown(gone())),
                Err(refusal) => HandoverOutcome::Refused(refusal),
            }
        }
    }

    /// How far the other members are, if this one leads; else nothing.
    pub async fn peers(&self) -> Result<Vec<Peer>, ConsensusError> {
        let (answer, peers) = oneshot::channel();
        self.host.control(Input::Peers { group: self.group, answer })?;
        peers.await.map_err(|_| ended())
    }

    /// The group's present state, as of the last round.
    pub fn status(&self) -> GroupStatus {
        self.status.borrow().clone()
    }

    /// Waits for the next change of [`GroupHandle::status`]; an error when the host has ended.
    pub async fn changed(&mut self) -> Result<GroupStatus, ConsensusError> {
        self.status.changed().await.map_err(|_| ended())?;
        Ok(self.status.borrow_and_update().clone())
    }

    /// Takes no more proposals, finishes those under way, flushes the state machine and lets go of it. What is not
    /// finished by the deadline is in doubt. The error says why the state machine could not be flushed.
    pub async fn close(&self, deadline: Duration) -> Result<(), ConsensusError> {
        let (answer, closed) = oneshot::channel();
        self.host.control(Input::Close { group: self.group, deadline, answer })?;
        let group = self.group;
        closed.await.map_err(|_| ended())?.map_err(|what| ConsensusError::Refused { group, what })
    }

    /// Which group it is.
    pub fn group(&self) -> GroupId {
        self.group
    }

    fn send_proposal(&self, data: Bytes, deadline: Duration) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        if data.is_empty() {
            return Err(Refusal::Empty);
        }
        if data.len() > MAX_PROPOSAL_BYTES {
            return Err(Refusal::TooLarge { bytes: data.len(), max_bytes: MAX_PROPOSAL_BYTES });
        }
        let permit = self.host.admission.admit(data.len()).ok_or(Refusal::Overloaded)?;
        let (answer, outcome) = oneshot::channel();
        let incoming = Incoming { data, caller: Caller { answer, deadline }, permit };
        self.host.inbox.try_send(Input::Propose { group: self.group, incoming }).map_err(|error| refusal(&error))?;
        Ok(outcome)
    }

    fn send_change(&self, members: Members, deadline: Duration) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        let permit = self.host.admission.admit(0).ok_or(Refusal::Overloaded)?;
        let (answer, outcome) = oneshot::channel();
        let ticket = Ticket { caller: Some(Caller { answer, deadline }), _permit: permit };
        let input = Input::Change { group: self.group, members, ticket };
        self.host.inbox.try_send(input).map_err(|error| refusal(&error))?;
        Ok(outcome)
    }
}

fn refusal(error: &TrySendError<Input>) -> Refusal {
    match error {
        TrySendError::Full(_) => Refusal::Overloaded,
        TrySendError::Disconnected(_) => Refusal::Stopped { why: "the consensus host has ended".to_owned() },
    }
}

fn ended() -> ConsensusError {
    ConsensusError::Stopped { why: "the consensus host has ended".to_owned() }
}
