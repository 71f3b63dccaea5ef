//! Shards that are split: who proposes it, when the new shard's replica comes to be, and which of the two a caller means.
//!
//! Every replica that applies the split has the new shard's folder made ([`sagitta_shard::Split`]), and its group is founded on
//! what is in there: all members begin their logs after the same entry, with the same points. A node that got the other half
//! whole has missed that entry and has no such folder. It founds its group with nothing, above a floor: it votes for nobody who has less than
//! a replica that was split off, leads nothing, and fetches the state from one that has it.

use sagitta_consensus::{GroupId, GroupSpec, LogMark, NodeId, Position, Role};
use sagitta_env::Deadline;
use sagitta_shard::codec::Record as _;
use sagitta_shard::{ReadView, ShardError, ShardSpec, Split};

use crate::{Node, NodeError, Replica};

impl Node {
    /// As [`Node::ensure`], for a shard that is split off from the shard `left`. `floor` is where that was or, of a node that has left the group,
    /// where the log stood. A node that has a replica of `left` waits until that has come to the split.
    ///
    /// # Errors
    /// [`NodeError::NotSplit`] before that, and while it is not known here where the split was: nothing is begun then, since what is begun
    /// empty would stay instead of the half, and could decide without those who have the points.
    pub async fn ensure_half(
        &self,
        spec: ShardSpec,
        founders: Vec<NodeId>,
        floor: Option<Position>,
        left: u64,
    ) -> Result<(), NodeError> {
        self.host_replica(spec, founders, (floor, None), Some(left), None).await
    }

    /// Refuses to begin a shard that is yet to be split off.
    pub(crate) fn has_come_to_be(
        &self,
        shard: u64,
        left: Option<u64>,
        floor: Option<Position>,
    ) -> Result<(), NodeError> {
        let Some(left) = left else { return Ok(()) };
        // In this order: the folder is there before the split shows.
        let is_split = match self.folder(left).exists() {
            true => self.split_position(left, shard).is_some(),
            false => floor.is_some(),
        };
        if is_split || self.folder(shard).exists() { Ok(()) } else { Err(NodeError::NotSplit { shard, left }) }
    }

    /// How the group of a shard is opened that was found to be `born` there, if it was split off with its points.
    pub(crate) fn group_spec(
        &self,
        mark: &LogMark,
        shard: u64,
        founders: Vec<NodeId>,
        (floor, left): (Option<Position>, Option<u64>),
        born: Option<(u64, u64)>,
    ) -> Result<GroupSpec, NodeError> {
        let found_at = born.map(position);
        let spec = mark.spec(GroupId(shard), founders);
        let floor = floor.or_else(|| self.split_position(left?, shard));
        match left {
            // It has nothing: an attempt was cut off, or it was begun so, and may have a log by which it is to vote for nobody below the floor.
            Some(left) if found_at.or(floor).is_none() => Err(NodeError::NotSplit { shard, left }),
            // Its members are those of the other half, and have come to the split as far as that one's leader knows.
            _ => Ok(GroupSpec { found_at, floor, stands_first: left.is_some_and(|left| self.leads(left)), ..spec }),
        }
    }

    fn leads(&self, shard: u64) -> bool {
        self.replica(shard).is_ok_and(|replica| replica.status().role == Role::Leader)
    }

    /// Where a shard was split off from another, as far as the replica of that here has applied it.
    fn split_position(&self, left: u64, shard: u64) -> Option<Position> {
        self.replica(left).ok()?.shard().view().split_from(shard).map(position)
    }
}

impl Replica {
    /// Splits the shard: it keeps the points whose hashes are below `at`, and shard `right` of the same collection has the others. Returns
    /// the position in the log from which on that is so; the group of `right` begins after it. From then on the replica answers only
    /// who names that index.
    ///
    /// # Errors
    /// As [`Replica::write`]; a repeated request is answered as before.
    pub async fn split(
        &self,
        request_id: u128,
        at: u64,
        right: u64,
        deadline: Deadline,
    ) -> Result<Position, NodeError> {
        // It takes room, and could not be applied without: that would hold up all shards of each node.
        self.admit(true)?;
        self.prepare_split(at).await?;
        let split = Split { request_id, at, right };
        let outcome = self.propose(split.to_sealed(), true, deadline).await?;
        if let Some(problem) = outcome.refused {
            return Err(NodeError::Command(problem));
        }
        let split = self.shard().view().split_from(right);
        split.map(position).ok_or(NodeError::Failed { what: "splitting the shard" })
    }

    /// Does what a split at this hash needs and can be done before, off the thread that applies for all shards of the node. Once is enough; what comes
    /// in after that is left to the split.
    ///
    /// # Errors
    /// What keeps it from being split, as far as that can be told.
    pub async fn prepare_split(&self, at: u64) -> Result<(), NodeError> {
        let (shard, id) = (self.shard(), self.id());
        let prepared = self.env().spawn_blocking(move || shard.prepare_split(at)).await;
        let prepared = prepared.map_err(|_| NodeError::Failed { what: "preparing the split" })?;
        prepared.map_err(|error| NodeError::Shard { shard: id, error })
    }

    /// Whether [`Replica::prepare_split`] was called for this hash, and the split has not come.
    pub fn is_prepared(&self, at: u64) -> bool {
        self.shard().prepared_for() == Some(at)
    }

    /// The split that was prepared does not come.
    pub fn forget_split(&self) {
        self.shard().forget_split();
    }

    /// Whether it has applied the split from another shard.
    pub fn is_split_from(&self, shard: u64) -> bool {
        self.shard().view().split_from(shard).is_some()
    }

    /// The last split that the replica has applied.
    pub fn last_split(&self) -> Option<Position> {
        self.shard().view().last_split().map(position)
    }
}

/// Checks that a view shows the points that a caller means.
pub(crate) fn is_as_of(view: &ReadView, asked: u64) -> Result<(), ShardError> {
    let (shard, since) = (view.shard(), view.since());
    if since == asked { Ok(()) } else { Err(ShardError::OtherPoints { shard, since, asked }) }
}

fn position((index, term): (u64, u64)) -> Position {
    Position { index, term }
}
