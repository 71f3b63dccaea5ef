//! What every log must do.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState};
use sagitta_env::Env;

use super::{GroupMeta, GroupWrite, LogBatch, LogStore};
use crate::error::LogError;
use crate::ids::{ClusterId, GroupId, NodeId, Position};
use crate::membership::Membership;

/// Opens the log under test; with `true` closes it first and opens it anew from what is durable.
pub(crate) type Opener = Box<dyn Fn(bool) -> Arc<dyn LogStore>>;

/// Runs the whole suite, each part on a fresh log.
pub(crate) fn run(fresh: impl Fn() -> Opener) {
    entries_read_back_within_their_bounds(&fresh());
    a_conflicting_suffix_is_replaced(&fresh());
    truncation_moves_the_front_and_keeps_the_term_before_it(&fresh());
    a_restart_forgets_everything_and_goes_on_elsewhere(&fresh());
    a_log_may_begin_anywhere(&fresh());
    groups_share_a_batch_and_nothing_else(&fresh());
    a_removed_group_is_gone_and_can_be_founded_again(&fresh());
    for seed in 0..8 {
        random_histories_match_a_model(&fresh(), seed);
    }
}

pub(crate) fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    let mut entry = Entry::default();
    (entry.index, entry.term, entry.data) = (index, term, Bytes::copy_from_slice(data));
    entry
}

pub(crate) fn meta() -> GroupMeta {
    GroupMeta { cluster: ClusterId(7), node: NodeId(1), founders: Membership::of_voters(&[NodeId(1)]) }
}

/// The first write of every group: an empty log that begins after index 1, term 1.
pub(crate) fn founding(group: GroupId) -> LogBatch {
    let mut batch = LogBatch::default();
    let write = batch.of(group);
    write.meta = Some(meta());
    write.truncate = Some(Position { index: 1, term: 1 });
    write.hard_state = Some(hard_state(1, 0, 1));
    batch
}

pub(crate) fn found(log: &dyn LogStore, group: GroupId) {
    log.append(&founding(group)).unwrap();
}

pub(crate) fn write_entries(group: GroupId, entries: Vec<Entry>) -> LogBatch {
    LogBatch { writes: vec![GroupWrite { entries, ..GroupWrite::new(group) }] }
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    let mut state = HardState::default();
    (state.term, state.vote, state.commit) = (term, vote, commit);
    state
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.index).collect()
}

fn entries_read_back_within_their_bounds(open: &Opener) {
    let (log, group) = (open(false), GroupId(3));
    assert_eq!(log.load(group).unwrap(), None);
    found(&*log, group);
    let written: Vec<_> = (2..12).map(|index| entry(index, 1, &[index as u8; 100])).collect();
    log.append(&write_entries(group, written.clone())).unwrap();
    drop(log);
    for reopen in [false, true] {
        let log = open(reopen);
        assert_eq!(log.entries(group, 2..12, u64::MAX).unwrap(), written);
        assert_eq!(log.entries(group, 5..7, u64::MAX).unwrap(), written[3..5]);
        assert_eq!(indexes(&log.entries(group, 2..12, 350).unwrap()), [2, 3, 4]);
        assert_eq!(indexes(&log.entries(group, 4..12, 0).unwrap()), [4], "at least one");
        assert_eq!(log.entries(group, 4..4, 0).unwrap(), []);
        assert!(matches!(log.entries(group, 11..13, u64::MAX), Err(LogError::NoEntry { .. })));
        assert!(matches!(log.entries(group, 1..3, u64::MAX), Err(LogError::NoEntry { .. })));
        assert!(matches!(log.term(group, 12), Err(LogError::NoEntry { .. })));
        assert_eq!((log.term(group, 1).unwrap(), log.term(group, 11).unwrap()), (1, 1));
        let state = log.load(group).unwrap().unwrap();
        assert_eq!(state.meta, meta());
        assert_eq!(state.hard_state, hard_state(1, 0, 1));
        assert_eq!((state.truncated.index, state.last), (1, Position { index: 11, term: 1 }));
    }
}

fn a_conflicting_suffix_is_replaced(open: &Opener) {
    let (log, group) = (open(false), GroupId(3));
    found(&*log, group);
    log.append(&write_entries(group, (2..10).map(|index| entry(index, 1, b"old")).collect())).unwrap();
    let mut batch = write_entries(group, vec![entry(5, 2, b"new")]);
    batch.writes[0].hard_state = Some(hard_state(2, 1, 4));
    log.append(&batch).unwrap();
    drop(log);
    for reopen in [false, true] {
        let log = open(reopen);
        let state = log.load(group).unwrap().unwrap();
        assert_eq!((state.last, state.hard_state), (Position { index: 5, term: 2 }, hard_state(2, 1, 4)));
        assert_eq!(log.entries(group, 4..6, u64::MAX).unwrap()[1], entry(5, 2, b"new"));
        assert!(log.entries(group, 5..7, u64::MAX).is_err());
    }
}

fn truncation_moves_the_front_and_keeps_the_term_before_it(open: &Opener) {
    let (log, group) = (open(false), GroupId(3));
    found(&*log, group);
    log.append(&write_entries(group, (2..50).map(|index| entry(index, index, b"x")).collect())).unwrap();
    let mut batch = write_entries(group, vec![entry(50, 50, b"x")]);
    batch.writes[0].truncate = Some(Position { index: 40, term: 40 });
    log.append(&batch).unwrap();
    drop(log);
    for reopen in [false, true] {
        let log = open(reopen);
        let state = log.load(group).unwrap().unwrap();
        assert_eq!((state.truncated.index, state.last.index), (40, 50));
        assert_eq!((log.term(group, 40).unwrap(), log.term(group, 41).unwrap()), (40, 41));
        assert!(log.term(group, 39).is_err());
        assert!(log.entries(group, 40..42, u64::MAX).is_err());
        assert_eq!(log.entries(group, 41..51, u64::MAX).unwrap().len(), 10);
        log.purge().unwrap();
    }
}

fn a_log_may_begin_anywhere(open: &Opener) {
    let (group, begin) = (GroupId(3), Position { index: 4_000, term: 7 });
    let log = open(false);
    let mut batch = founding(group);
    batch.writes[0].truncate = Some(begin);
    batch.writes[0].hard_state = Some(hard_state(7, 0, begin.index));
    log.append(&batch).unwrap();
    let check = |log: &dyn LogStore, last: Position| {
        let state = log.load(group).unwrap().unwrap();
        assert_eq!((state.truncated, state.last, state.hard_state.commit), (begin, last, begin.index));
        assert_eq!(log.term(group, begin.index).unwrap(), begin.term);
    };
    check(&*log, begin);
    drop(log);
    let log = open(true);
    check(&*log, begin);
    log.append(&write_entries(group, vec![entry(4_001, 8, b"new")])).unwrap();
    drop(log);
    let log = open(true);
    check(&*log, Position { index: 4_001, term: 8 });
    assert_eq!(log.entries(group, 4_001..4_002, u64::MAX).unwrap(), [entry(4_001, 8, b"new")]);
}

fn a_restart_forgets_everything_and_goes_on_elsewhere(open: &Opener) {
    let group = GroupId(3);
    // Within what the log holds, at its end, right after it, and far beyond.
    for (round, at) in [20, 49, 50, 1_000].into_iter().enumerate() {
        let log = open(false);
        if round > 0 {
            log.remove_group(group).unwrap();
        }
        found(&*log, group);
        log.append(&write_entries(group, (2..50).map(|index| entry(index, 2, b"old")).collect())).unwrap();
        let mut batch = write_entries(group, Vec::new());
        batch.writes[0].restart = Some(Position { index: at, term: 7 });
        batch.writes[0].hard_state = Some(hard_state(7, 0, at));
        log.append(&batch).unwrap();
        let check = |log: &dyn LogStore, last: Position| {
            let state = log.load(group).unwrap().unwrap();
            assert_eq!((state.truncated, state.last), (Position { index: at, term: 7 }, last));
            assert_eq!((state.hard_state, log.term(group, at).unwrap()), (hard_state(7, 0, at), 7));
            assert!(log.entries(group, at..at + 1, u64::MAX).is_err() && log.term(group, at - 1).is_err());
        };
        check(&*log, Position { index: at, term: 7 });
        drop(log);
        let log = open(true);
        check(&*log, Position { index: at, term: 7 });
        log.append(&write_entries(group, vec![entry(at + 1, 8, b"new")])).unwrap();
        check(&*log, Position { index: at + 1, term: 8 });
        drop(log);
        let log = open(true);
        check(&*log, Position { index: at + 1, term: 8 });
        assert_eq!(log.entries(group, at + 1..at + 2, u64::MAX).unwrap(), [entry(at + 1, 8, b"new")]);
    }
}

fn groups_share_a_batch_and_nothing_else(open: &Opener) {
    let log = open(false);
    let groups: Vec<_> = (1..20).map(GroupId).collect();
    let mut batch = LogBatch::default();
    for group in &groups {
        batch.writes.extend(founding(*group).writes);
    }
    log.append(&batch).unwrap();
    let mut batch = LogBatch::default();
    for group in &groups {
        let data = group.0.to_le_bytes();
        batch.of(*group).entries = (2..2 + group.0).map(|index| entry(index, 1, &data)).collect();
    }
    log.append(&batch).unwrap();
    drop(log);
    let log = open(true);
    assert_eq!(log.groups().unwrap(), groups);
    for group in groups {
        let read = log.entries(group, 2..2 + group.0, u64::MAX).unwrap();
        assert!(read.iter().all(|entry| entry.data == group.0.to_le_bytes().to_vec()));
        assert_eq!(log.load(group).unwrap().unwrap().last.index, 1 + group.0);
    }
}

fn a_removed_group_is_gone_and_can_be_founded_again(open: &Opener) {
    let log = open(false);
    for group in [GroupId(1), GroupId(2)] {
        found(&*log, group);
        log.append(&write_entries(group, vec![entry(2, 1, b"old")])).unwrap();
    }
    log.remove_group(GroupId(1)).unwrap();
    drop(log);
    let log = open(true);
    assert_eq!((log.groups().unwrap(), log.load(GroupId(1)).unwrap()), (vec![GroupId(2)], None));
    found(&*log, GroupId(1));
    drop(log);
    let log = open(true);
    assert_eq!(log.load(GroupId(1)).unwrap().unwrap().last.index, 1);
    assert_eq!(log.load(GroupId(2)).unwrap().unwrap().last.index, 2);
}

#[derive(Default)]
struct Model {
    truncated: Position,
    entries: BTreeMap<u64, Entry>,
    hard_state: HardState,
}

fn random_histories_match_a_model(open: &Opener, seed: u64) {
    let (env, _) = Env::seeded(seed);
    let mut model: BTreeMap<GroupId, Model> = BTreeMap::new();
    let mut log = open(false);
    for step in 0..200 {
        let mut batch = LogBatch::default();
        for group in (1..4).map(GroupId).filter(|_| env.random_below(2) == 0) {
            let write = random_write(&env, model.get(&group), group);
            let group = model.entry(group).or_default();
            if let Some(truncate) = write.truncate {
                group.entries.retain(|index, _| *index > truncate.index);
                group.truncated = truncate;
            }
            if let Some(restart) = write.restart {
                group.entries.clear();
                group.truncated = restart;
            }
            if let Some(first) = write.entries.first() {
                group.entries.retain(|index, _| *index < first.index);
            }
            group.entries.extend(write.entries.iter().map(|entry| (entry.index, entry.clone())));
            group.hard_state = write.hard_state.clone().unwrap_or_else(|| group.hard_state.clone());
            batch.writes.push(write);
        }
        log.append(&batch).unwrap();
        if env.random_below(20) == 0 {
            log.purge().unwrap();
        }
        if env.random_below(20) == 0 {
            drop(log);
            log = open(true);
        }
        for (group, wanted) in &model {
            let context = format!("seed {seed}, step {step}, {group}");
            let state = log.load(*group).unwrap().unwrap();
            let last = wanted.entries.last_key_value().map_or(wanted.truncated.index, |(index, _)| *index);
            assert_eq!((state.truncated, state.last.index), (wanted.truncated, last), "{context}");
            assert_eq!(state.hard_state, wanted.hard_state, "{context}");
            let range = wanted.truncated.index + 1..last + 1;
            let read = log.entries(*group, range, u64::MAX).unwrap();
            assert!(read.iter().eq(wanted.entries.values()), "{context}");
        }
    }
}

fn random_write(env: &Env, model: Option<&Model>, group: GroupId) -> GroupWrite {
    let Some(model) = model else {
        return founding(group).writes.remove(0);
    };
    let mut write = GroupWrite::new(group);
    let last = model.entries.last_key_value().map_or(model.truncated.index, |(index, _)| *index);
    if env.random_below(20) == 0 {
        let index = model.truncated.index + 1 + env.random_below(2 * (last - model.truncated.index) + 10);
        write.restart = Some(Position { index, term: model.hard_state.term });
        write.hard_state = Some(hard_state(model.hard_state.term, 0, index));
        return write;
    }
    let from = if env.random_below(8) == 0 {
        model.truncated.index + 1 + env.random_below(last - model.truncated.index + 1)
    } else {
        last + 1
    };
    let term = model.hard_state.term + 1;
    write.entries = (from..from + env.random_below(30))
        .map(|index| entry(index, term, &vec![index as u8; env.random_below(300) as usize]))
        .collect();
    write.hard_state = Some(hard_state(term, 1, last));
    // Truncation leaves an entry, and what a batch truncates it does not also replace.
    if env.random_below(6) == 0 && from > model.truncated.index + 3 {
        let index = model.truncated.index + 1 + env.random_below(from - model.truncated.index - 2);
        if let Some(entry) = model.entries.get(&index).filter(|_| index < last) {
            write.truncate = Some(Position::of(entry));
        }
    }
    write
}
