//! Who belongs to a group.

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};

use crate::codec::{Reader, put_u32, put_u64};
use crate::ids::NodeId;

/// The members of a group as of some index. State machines store it as the bytes of [`Membership::encode`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Members that count towards a quorum.
    pub voters: Vec<NodeId>,
    /// Members that only receive.
    pub learners: Vec<NodeId>,
    /// The voters before, while a change of several is under way: both sets must agree.
    pub outgoing: Vec<NodeId>,
    /// Voters that become learners when that change is done.
    pub next_learners: Vec<NodeId>,
    /// Whether the leader ends that change by itself.
    pub auto_leave: bool,
}

/// The members that a group should have, for [`crate::GroupHandle::change_members`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Members that count towards a quorum.
    pub voters: Vec<NodeId>,
    /// Members that only receive: on their way to become voters, or copies that nobody waits for.
    pub learners: Vec<NodeId>,
}

const FORMAT: u8 = 1;

impl Members {
    /// What is wrong with it by itself.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.voters.is_empty() {
            return Some("a group needs a voter".to_owned());
        }
        let mut all = [&self.voters[..], &self.learners[..]].concat();
        all.sort_unstable();
        if all.first() == Some(&NodeId(0)) {
            return Some("nodes are numbered from 1".to_owned());
        }
        let twice = all.windows(2).find(|pair| pair[0] == pair[1])?;
        Some(format!("{} is named twice", twice[0]))
    }
}

impl Membership {
    /// A group of these voters.
    pub fn of_voters(voters: &[NodeId]) -> Self {
        Self { voters: voters.to_vec(), ..Self::default() }
    }

    /// Whether `node` needs nobody else for a decision.
    pub fn decides_alone(&self, node: NodeId) -> bool {
        self.voters == [node] && self.outgoing.is_empty()
    }

    /// Whether `node` is the only member.
    pub fn is_only(&self, node: NodeId) -> bool {
        self.decides_alone(node) && self.learners.is_empty()
    }

    /// What is wrong with it by itself.
    pub(crate) fn problem(&self) -> Option<String> {
        let outgoing = || Members { voters: self.outgoing.clone(), learners: Vec::new() }.problem();
        let next_learners = || self.next_learners.iter().find(|node| !self.outgoing.contains(node));
        self.members()
            .problem()
            .or_else(|| if self.is_joint() { outgoing() } else { None })
            .or_else(|| next_learners().map(|node| format!("{node} becomes a learner and was no voter")))
    }

    /// Whether a change of several members is under way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `node` takes part in any way.
    pub fn contains(&self, node: NodeId) -> bool {
        [&self.voters, &self.learners, &self.outgoing, &self.next_learners].iter().any(|list| list.contains(&node))
    }

    /// The members without what is under way.
    pub fn members(&self) -> Members {
        Members { voters: self.voters.clone(), learners: self.learners.clone() }
    }

    /// The steps from here to there: none if that is where we are. More than one make a joint change, which raft ends
    /// by itself.
    pub(crate) fn steps_to(&self, target: &Members) -> ConfChangeV2 {
        let mut steps = Vec::new();
        let mut step = |kind, node: NodeId| {
            let mut step = ConfChangeSingle::default();
            step.set_change_type(kind);
            step.node_id = node.0;
            steps.push(step);
        };
        for &node in target.voters.iter().filter(|node| !self.voters.contains(node)) {
            step(ConfChangeType::AddNode, node);
        }
        for &node in target.learners.iter().filter(|node| !self.learners.contains(node)) {
            step(ConfChangeType::AddLearnerNode, node);
        }
        for &node in self.voters.iter().chain(&self.learners) {
            if !target.voters.contains(&node) && !target.learners.contains(&node) {
                step(ConfChangeType::RemoveNode, node);
            }
        }
        let mut change = ConfChangeV2::default();
        change.set_changes(steps.into());
        change
    }

    /// Format byte, `auto_leave`, then the four lists: u32 count and u64 ids, little endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT, u8::from(self.auto_leave)];
        for list in [&self.voters, &self.learners, &self.outgoing, &self.next_learners] {
            put_u32(&mut bytes, u32::try_from(list.len()).unwrap_or(u32::MAX));
            for node in list {
                put_u64(&mut bytes, node.0);
            }
        }
        bytes
    }

    /// Reads what [`Membership::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let membership = Self::read(&mut reader)?;
        reader.is_at_end().then_some(membership)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        if reader.u8()? != FORMAT {
            return None;
        }
        let auto_leave = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let mut list = || {
            let count = reader.u32()?;
            (0..count).map(|_| reader.u64().map(NodeId)).collect::<Option<Vec<_>>>()
        };
        let (voters, learners, outgoing, next_learners) = (list()?, list()?, list()?, list()?);
        Some(Self { voters, learners, outgoing, next_learners, auto_leave })
    }

    pub(crate) fn to_raft(&self) -> ConfState {
        let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
        let mut state = ConfState::default();
        state.set_voters(ids(&self.voters));
        state.set_learners(ids(&self.learners));
        state.set_voters_outgoing(ids(&self.outgoing));
        state.set_learners_next(ids(&self.next_learners));
        state.set_auto_leave(self.auto_leave);
        state
    }

    pub(crate) fn from_raft(state: &ConfState) -> Self {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        let mut membership = Self {
            voters: nodes(state.get_voters()),
            learners: nodes(state.get_learners()),
            outgoing: nodes(state.get_voters_outgoing()),
            next_learners: nodes(state.get_learners_next()),
            auto_leave: state.get_auto_leave(),
        };
        // The library keeps them in hash sets; the same membership must always be the same bytes.
        let Self { voters, learners, outgoing, next_learners, auto_leave: _ } = &mut membership;
        for list in [voters, learners, outgoing, next_learners] {
            list.sort_unstable();
        }
        membership
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Membership {
        Membership {
            voters: vec![NodeId(1), NodeId(2)],
            learners: vec![NodeId(7)],
            outgoing: vec![],
            next_learners: vec![],
            auto_leave: true,
        }
    }

    #[test]
    fn the_bytes_of_format_1_stay_readable() {
        let golden = [
            &[1, 1][..],
            &[2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0],
            &[0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(sample().encode(), golden);
        assert_eq!(Membership::decode(&golden), Some(sample()));
    }

    #[test]
    fn bytes_that_are_cut_or_too_long_are_refused() {
        let bytes = sample().encode();
        for cut in 0..bytes.len() {
            assert_eq!(Membership::decode(&bytes[..cut]), None, "cut at {cut}");
        }
        assert_eq!(Membership::decode(&[bytes, vec![0]].concat()), None);
        assert_eq!(Membership::decode(&[2; 18]), None);
    }

    #[test]
    fn the_steps_to_other_members_are_those_that_are_needed() {
        let now = Membership { learners: vec![NodeId(4), NodeId(5)], ..Membership::of_voters(&[1, 2, 3].map(NodeId)) };
        let steps = |voters: &[u64], learners: &[u64]| {
            let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
            let change = now.steps_to(&Members { voters: nodes(voters), learners: nodes(learners) });
            change.get_changes().iter().map(|step| (step.get_change_type(), step.node_id)).collect::<Vec<_>>()
        };
        use ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
        assert_eq!(steps(&[3, 2, 1], &[5, 4]), []);
        assert_eq!(steps(&[1, 2, 3, 4], &[5]), [(AddNode, 4)]);
        assert_eq!(steps(&[1, 2], &[3, 4, 5, 6]), [(AddLearnerNode, 3), (AddLearnerNode, 6)]);
        assert_eq!(steps(&[1, 2, 4], &[]), [(AddNode, 4), (RemoveNode, 3), (RemoveNode, 5)]);
    }

    #[test]
    fn members_that_make_no_group_are_told_why() {
        let problem = |voters: &[u64], learners: &[u64]| {
            let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
            Members { voters: nodes(voters), learners: nodes(learners) }.problem().unwrap_or_default()
        };
        assert_eq!(problem(&[1, 2], &[3]), "");
        assert!(problem(&[], &[3]).contains("needs a voter"));
        assert!(problem(&[1], &[0]).contains("from 1"));
        assert!(problem(&[1, 2], &[2]).contains("node 2 is named twice"));
        assert!(problem(&[1, 1], &[]).contains("node 1 is named twice"));
    }

    #[test]
    fn the_librarys_form_and_ours_hold_the_same() {
        assert_eq!(Membership::from_raft(&sample().to_raft()), sample());
    }
}
