//! When a member stands for election once it hears of no leader.
//!
//! Members that draw their timeouts may draw alike, split the votes and wait once more. Ours take turns, in an order that
//! differs from group to group and from term to term: whoever stands first has been answered before the second one stands.

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{GroupId, NodeId};
use crate::membership::Membership;
use crate::settings::{FIRST_TURN, LAST_TURN, TURN_TICKS};

/// Ticks without a leader after which a member stands in a term.
pub(crate) fn turn(group: GroupId, term: u64, me: NodeId, membership: &Membership) -> usize {
    let mut voters = [&membership.voters[..], &membership.outgoing[..]].concat();
    voters.sort_unstable();
    voters.dedup();
    let Some(place) = voters.iter().position(|voter| *voter == me) else {
        return LAST_TURN;
    };
    let mut key = [0; 16];
    key[..8].copy_from_slice(&group.0.to_le_bytes());
    key[8..].copy_from_slice(&term.to_le_bytes());
    let shift = (xxh3_64(&key) % voters.len() as u64) as usize;
    let apart = TURN_TICKS.min((LAST_TURN - FIRST_TURN) / (voters.len() - 1).max(1));
    FIRST_TURN + (place + shift) % voters.len() * apart
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_member_has_a_turn_of_its_own_and_each_is_first_in_some_term() {
        for members in 1..=9 {
            let voters: Vec<_> = (1..=members).map(|node| NodeId(node * 1_000)).collect();
            let membership = Membership::of_voters(&voters);
            let mut first = BTreeSet::new();
            for term in 0..200 {
                let turns: Vec<_> = voters.iter().map(|me| turn(GroupId(7), term, *me, &membership)).collect();
                let distinct: BTreeSet<_> = turns.iter().copied().collect();
                assert_eq!(distinct.len(), voters.len(), "term {term}: {turns:?}");
                assert!(distinct.iter().all(|turn| (FIRST_TURN..=LAST_TURN).contains(turn)), "term {term}: {turns:?}");
                first.insert(turns.iter().position(|turn| *turn == FIRST_TURN).expect("somebody is first"));
            }
            assert_eq!(first.len(), voters.len());
        }
    }
}
