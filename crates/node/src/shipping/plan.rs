//! Who builds a segment, and which ones are worth fetching: decided from what is known, without doing anything.

use std::time::Duration;

use sagitta_consensus::{NodeId, Part};
use sagitta_shard::JobKind;

/// How long a replica whose group has no leader waits for one: several elections.
const FOR_A_LEADER: Duration = Duration::from_secs(5);
/// How long it waits for a leader that does not say that it is at work: it will freeze the same rows a little later, or never.
const FOR_A_BEGINNING: Duration = Duration::from_secs(15);
/// How long it waits for a leader that is sealing, or for a segment that is on its way. Beside this the rows in memory are bounded.
const FOR_A_SEAL: Duration = Duration::from_secs(120);
/// The same for merges, of which the largest take as long. Until then searches are slower, no more.
const FOR_A_MERGE: Duration = Duration::from_secs(3600);

/// Who leads the group, as far as this member knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leadership {
    Own,
    Unknown,
    Of(NodeId),
}

/// What is to be done here, unless segments of the leader make it unnecessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Generations are frozen, none of whose rows is of an older version.
    Seal { first: u64 },
    /// Segments are to be one, the largest of which has so many live rows.
    Merge { rows: u64 },
}

/// The two kinds of it. A replica waits for each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Seal,
    Merge,
}

/// What is known when it is decided who does it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    pub(super) leadership: Leadership,
    /// How long the work has been there.
    pub(super) waited: Duration,
    /// Whether the rows in memory have to go soon, or somebody waits for them to be indexed.
    pub(super) urgent: bool,
    /// Whether what was tried to get the leader's segment has failed for good.
    pub(super) in_vain: bool,
    /// Whether the leader has said that it is at work, or a segment is on its way.
    pub(super) under_way: bool,
}

impl Work {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Seal { .. } => Kind::Seal,
            Self::Merge { .. } => Kind::Merge,
        }
    }
}

impl Kind {
    /// `None` for jobs that are every replica's own: a damaged segment is mended from the replica's own truth, and files are verified where
    /// they are.
    pub(super) fn of(job: &JobKind) -> Option<Self> {
        match job {
            JobKind::Seal { .. } => Some(Self::Seal),
            JobKind::Merge { .. } => Some(Self::Merge),
            JobKind::Rebuild { .. } | JobKind::Verify { .. } | JobKind::Trim => None,
        }
    }
}

/// Whether this replica does the work by itself.
pub(super) fn is_own(work: Work, at: &Situation) -> bool {
    let is_seal = work.kind() == Kind::Seal;
    if at.leadership == Leadership::Own || at.in_vain || is_seal && at.urgent {
        return true;
    }
    let patience = match (at.leadership, at.under_way) {
        (Leadership::Unknown, _) => FOR_A_LEADER,
        (_, false) => FOR_A_BEGINNING,
        (_, true) if is_seal => FOR_A_SEAL,
        (_, true) => FOR_A_MERGE,
    };
    at.waited >= patience
}

/// Whether a segment may make the work unnecessary: one that has rows as new as those that are to be sealed; one that is no smaller than
/// what is to be merged, since merging makes larger ones.
pub(super) fn helps(part: &Part, work: Work) -> bool {
    match work {
        Work::Seal { first } => part.last >= first,
        Work::Merge { rows } => part.rows >= rows,
    }
}

#[cfg(test)]
mod tests {
    use sagitta_consensus::Manifest;

    use super::*;

    const SEAL: Work = Work::Seal { first: 100 };
    const MERGE: Work = Work::Merge { rows: 50 };
    const CALM: Situation = Situation {
        leadership: Leadership::Of(NodeId(2)),
        waited: Duration::ZERO,
        urgent: false,
        in_vain: false,
        under_way: false,
    };

    fn check(work: Work, at: Situation, patience: Duration) {
        let after = |waited| is_own(work, &Situation { waited, ..at });
        assert!(after(patience), "{work:?} {at:?}");
        let before = patience.checked_sub(Duration::from_millis(1));
        assert!(before.is_none_or(|waited| !after(waited)), "{work:?} {at:?} before {patience:?}");
    }

    #[test]
    fn the_leader_builds_and_others_wait_for_it_for_a_while() {
        for work in [SEAL, MERGE] {
            check(work, Situation { leadership: Leadership::Own, ..CALM }, Duration::ZERO);
            check(work, Situation { in_vain: true, under_way: true, ..CALM }, Duration::ZERO);
            check(work, CALM, FOR_A_BEGINNING);
            for under_way in [false, true] {
                check(work, Situation { leadership: Leadership::Unknown, under_way, ..CALM }, FOR_A_LEADER);
            }
        }
        check(SEAL, Situation { under_way: true, ..CALM }, FOR_A_SEAL);
        check(MERGE, Situation { under_way: true, ..CALM }, FOR_A_MERGE);
    }

    #[test]
    fn what_fills_memory_or_is_waited_for_is_sealed_at_once_and_a_merge_can_wait() {
        for under_way in [false, true] {
            check(SEAL, Situation { urgent: true, under_way, ..CALM }, Duration::ZERO);
        }
        check(MERGE, Situation { urgent: true, ..CALM }, FOR_A_BEGINNING);
    }

    #[test]
    fn segments_that_cannot_save_the_work_are_not_fetched() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let part = |rows, last| Part { manifest: Manifest::of(dir.path(), 1).expect("a manifest"), rows, last };
        for (part, seal, merge) in
            [(part(50, 100), true, true), (part(49, 100), true, false), (part(50, 99), false, true)]
        {
            assert_eq!((helps(&part, SEAL), helps(&part, MERGE)), (seal, merge), "{part:?}");
        }
    }
}
