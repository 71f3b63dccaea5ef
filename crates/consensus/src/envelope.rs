//! The bytes between two members: an address, then a message in raft's own encoding, opaque to any transport.

use bytes::Bytes;
use protobuf::{CodedInputStream, Message as _};
use raft::eraftpb::{Message, MessageType};

use crate::codec::{Reader, put_u64, put_u128};
use crate::ids::{ClusterId, GroupId, NodeId};
use crate::membership::Membership;
use crate::settings::MAX_MANIFEST_BYTES;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 1 + 16 + 8;

/// One message and which group of which cluster it is for; the message itself says from whom and to whom.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Envelope {
    pub(crate) cluster: ClusterId,
    pub(crate) group: GroupId,
    pub(crate) message: Message,
}

/// Why a message was not taken. It is counted and dropped: Raft repeats what matters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMessage {
    #[error("not a message of this protocol")]
    Malformed,
    #[error("it is from {0}")]
    OtherCluster(ClusterId),
    #[error("it is for {0}")]
    Misaddressed(NodeId),
    #[error("its sender is {0}")]
    BadSender(NodeId),
    #[error("members do not send {0:?}")]
    BadType(MessageType),
    #[error("its term is 0")]
    NoTerm,
    #[error("it commits {commit}, the log here ends at {last}")]
    CommitBeyondLog { commit: u64, last: u64 },
    #[error("it names members that make no group: {0}")]
    BadMembers(String),
    #[error("its entries are not in sequence")]
    BrokenSequence,
}

impl Envelope {
    /// Format byte, cluster u128, group u64, then the message in protobuf.
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.message.compute_size() as usize);
        bytes.push(FORMAT);
        put_u128(&mut bytes, self.cluster.0);
        put_u64(&mut bytes, self.group.0);
        self.message.write_to_vec(&mut bytes).expect("invariant: messages within the size bounds always encode");
        Bytes::from(bytes)
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, BadMessage> {
        let mut reader = Reader::new(bytes);
        let mut header = || Some((reader.u8()?, reader.u128()?, reader.u64()?));
        match header() {
            Some((FORMAT, cluster, group)) => {
                let body = bytes.slice_ref(reader.rest());
                let mut message = Message::default();
                // The data of entries stays where it arrived: nothing is copied.
                let mut input = CodedInputStream::from_carllerche_bytes(&body);
                message.merge_from(&mut input).map_err(|_| BadMessage::Malformed)?;
                Ok(Self { cluster: ClusterId(cluster), group: GroupId(group), message })
            }
            _ => Err(BadMessage::Malformed),
        }
    }

    /// What raft takes on trust and would panic about.
    pub(crate) fn check(&self, cluster: ClusterId, node: NodeId, last_index: u64) -> Result<(), BadMessage> {
        let message = &self.message;
        if self.cluster != cluster {
            return Err(BadMessage::OtherCluster(self.cluster));
        }
        if message.to != node.0 {
            return Err(BadMessage::Misaddressed(NodeId(message.to)));
        }
        if message.from == 0 || message.from == node.0 {
            return Err(BadMessage::BadSender(NodeId(message.from)));
        }
        match message.get_msg_type() {
            MessageType::MsgAppend
            | MessageType::MsgAppendResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgTimeoutNow
            | MessageType::MsgReadIndexResp
            | MessageType::MsgSnapshot
            | MessageType::MsgSnapStatus
                if message.term == 0 =>
            {
                return Err(BadMessage::NoTerm);
            }
            MessageType::MsgAppend => self.check_sequence()?,
            MessageType::MsgSnapshot => {
                let snapshot = message.get_snapshot();
                let meta = snapshot.get_metadata();
                if meta.index == 0 || meta.term == 0 || meta.term > message.term {
                    return Err(BadMessage::BrokenSequence);
                }
                if snapshot.data.len() > MAX_MANIFEST_BYTES {
                    return Err(BadMessage::Malformed);
                }
                if let Some(problem) = Membership::from_raft(meta.get_conf_state()).problem() {
                    return Err(BadMessage::BadMembers(problem));
                }
            }
            MessageType::MsgHeartbeat if message.commit > last_index => {
                return Err(BadMessage::CommitBeyondLog { commit: message.commit, last: last_index });
            }
            MessageType::MsgAppendResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgTimeoutNow
            | MessageType::MsgSnapStatus
            | MessageType::MsgTransferLeader => {}
            // Proposals and reads are not forwarded: the caller is told where to go.
            other => return Err(BadMessage::BadType(other)),
        }
        Ok(())
    }

    fn check_sequence(&self) -> Result<(), BadMessage> {
        let (mut index, mut term) = (self.message.index, self.message.log_term);
        for entry in self.message.get_entries() {
            if Some(entry.index) != index.checked_add(1) || entry.term < term || entry.term > self.message.term {
                return Err(BadMessage::BrokenSequence);
            }
            (index, term) = (entry.index, entry.term);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
