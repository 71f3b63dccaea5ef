//! Settings of a host, and the bounds that nobody has needed to turn yet.

use std::time::Duration;

use crate::ids::{ClusterId, GroupId, NodeId, Position};

/// Who this host is and how it keeps time.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// The cluster. Logs and messages of another one are refused.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Raft's unit of time. Deadlines are kept to within one tick.
    pub tick: Duration,
}

/// A group to open.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    /// Which one.
    pub group: GroupId,
    /// The first voters, if the group is to be founded when there is no log of it; all of them must be given the
    /// same list. `None` opens only what exists.
    pub found_with: Option<Vec<NodeId>>,
    /// Where the log begins when the group is founded, if its state machine begins with a state: the position that it has applied. The
    /// first voters that have none fetch it from one that has; `floor` must keep them from deciding anything before.
    pub found_at: Option<Position>,
    /// Of a node that was a member once, and may have forgotten how it voted and what it held: where the log stood when it had left. It
    /// votes for nobody whose log ends before, and does not stand until its own log is there.
    pub floor: Option<Position>,
    /// Whether this member, if it founds the group, stands at once and again at every tick until somebody leads, for as long as an election
    /// takes: the others may be about to found it. Any of them may lead; that one stands first only saves the time until they take turns.
    pub stands_first: bool,
    /// Of a group that has lost its majority for ever: the term from which on this member goes on alone. Whatever its log holds is taken for
    /// agreed, which may be wrong for its end, and followed by the change that leaves it the only member, all in one write. Nothing is
    /// done where the log has been in that term. Others must be kept from deciding anything as the group that it was: nothing here can.
    pub alone_from: Option<u64>,
}

impl HostSettings {
    /// The usual tick.
    pub fn new(cluster: ClusterId, node: NodeId) -> Self {
        Self { cluster, node, tick: Duration::from_millis(100) }
    }
}

/// Ticks without a leader after which a member may be elected, and without a majority after which a leader steps down. With
/// 100 ms a tick: 1 s.
pub(crate) const ELECTION_TICKS: usize = 10;
/// Ticks without a leader after which the first member stands. Those who have heard the leader a tick later than it must not
/// take that leader for alive any more.
pub(crate) const FIRST_TURN: usize = ELECTION_TICKS + 1;
/// Ticks between one member's turn to stand and the next one's, if there are not too many of them: time enough to be elected.
pub(crate) const TURN_TICKS: usize = 3;
/// Ticks after which the last one stands: raft's bound is twice [`ELECTION_TICKS`].
pub(crate) const LAST_TURN: usize = 2 * ELECTION_TICKS - 1;
/// Ticks between heartbeats. A follower may miss four before it stands.
pub(crate) const HEARTBEAT_TICKS: usize = 2;

/// A learner may become a voter when it lacks no more than so many entries. What it lacks then it gets within a round
/// trip or two; without a bound a group could have to wait for an empty copy to be filled before it decides anything.
pub(crate) const PROMOTE_WITHIN: u64 = 256;
/// Ticks after which a joint change that nobody ends is ended by the leader. Raft does that by itself as a rule.
pub(crate) const STUCK_TICKS: u64 = 2 * ELECTION_TICKS as u64;

/// Largest manifest of an offered state: it travels in a message of the group.
pub(crate) const MAX_MANIFEST_BYTES: usize = 1 << 20;
/// Ticks after which the leader offers its state anew to a member of which nothing was heard in that matter: 60 s. A
/// member that has it by then says so; one that is fetching it goes on.
pub(crate) const OFFER_AGAIN_TICKS: u64 = 600;
/// Ticks for which an offer that nobody fetches is kept for the next one who needs it.
pub(crate) const KEEP_OFFER_TICKS: u64 = 50;
/// Ticks before a state is offered again after that failed, and how often this doubles: up to 64 s.
pub(crate) const OFFER_PAUSE_TICKS: u64 = 5;
/// See [`OFFER_PAUSE_TICKS`].
pub(crate) const OFFER_PAUSE_DOUBLINGS: u32 = 7;
/// Entries that are kept for a member that lags. One that lags more fetches the state, which costs less then.
pub(crate) const KEEP_FOR_PEERS: u64 = 10_000;

/// Largest proposal: the largest request of the API, which is a message of 64 MiB, with what its encoding as a command adds.
/// A shard's part of a write is applied whole or not at all, so it is one entry.
pub const MAX_PROPOSAL_BYTES: usize = 80 << 20;
/// Proposals from the inbox to the answer, all groups together. 8,192 fill many fsyncs' worth of batches.
pub(crate) const MAX_WAITING: usize = 8_192;
/// Their bytes. Bounds what a slow disk can make the process hold.
pub(crate) const MAX_WAITING_BYTES: usize = 128 << 20;
/// Arrivals from other nodes that have not been looked at, in number and bytes. While the log waits for its disk nothing is
/// looked at; the largest message must fit.
pub(crate) const MAX_ARRIVED: usize = 4_096;
/// See [`MAX_ARRIVED`].
pub(crate) const MAX_ARRIVED_BYTES: usize = 128 << 20;
/// Room in the inbox beside the proposals, for reads, messages and control.
pub(crate) const INBOX_SLACK: usize = 8_192;
/// Inputs handled between two rounds, so that a flood cannot hold up what has arrived.
pub(crate) const MAX_DRAIN: usize = 4_096;

/// Largest message of entries to a follower.
pub(crate) const MAX_MESSAGE_BYTES: u64 = 1 << 20;
/// Messages of entries on their way to one follower.
pub(crate) const MAX_INFLIGHT_MESSAGES: usize = 256;
/// Uncommitted bytes of one group. Above what the admission lets through, so that raft never drops what we let in.
pub(crate) const MAX_UNCOMMITTED_BYTES: u64 = 2 * MAX_WAITING_BYTES as u64;
/// Committed bytes that raft looks at in one Ready.
pub(crate) const MAX_COMMITTED_BYTES: u64 = 4 << 20;

/// Bytes and entries handed to the state machine at once.
pub(crate) const MAX_APPLY_BYTES: u64 = 4 << 20;
/// See [`MAX_APPLY_BYTES`].
pub(crate) const MAX_APPLY_ENTRIES: u64 = 4_096;
/// Batches of one group at the apply thread: one being applied, one waiting, so that it never idles.
pub(crate) const MAX_APPLY_JOBS: usize = 2;
/// Newest entries of a group kept in memory so that committing does not read them back from the log.
pub(crate) const TAIL_BYTES: usize = 16 << 20;

/// Entries kept below the durable index: a follower that is a little behind catches up without a snapshot.
pub(crate) const KEEP_ENTRIES: u64 = 128;
/// Bytes that are, if that is less. A member that begins with nothing would get all that there is as entries, if there are all of them, one
/// after the other by threads that others wait for; its state comes beside them.
pub(crate) const KEEP_BYTES: u64 = 16 << 20;
/// Truncate only when this many entries become free.
pub(crate) const TRUNCATE_STEP: u64 = 256;
/// Or this many bytes.
pub(crate) const TRUNCATE_STEP_BYTES: u64 = 16 << 20;
/// Ticks between looks at what the state machines made durable.
pub(crate) const POLL_TICKS: u64 = 10;
/// Ticks between giving the log's unused files back.
pub(crate) const PURGE_TICKS: u64 = 50;

/// First wait after a full disk; doubles up to [`MAX_BACKOFF`].
pub(crate) const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// A disk that has room again is noticed within this.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(2);
