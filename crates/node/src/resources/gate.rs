//! Whether data may be added: the decision, without looking at anything.

use super::memory::MemoryBudget;
use super::size::ByteSize;

/// What a point takes, as a multiple of its bytes: in memory as a request, as Raft's newest entry, in a write buffer and as
/// an unsealed row; on disk in the log, in the database and in a segment.
const COPIES: u64 = 4;

/// What was found when the node was looked at. `None` where the system does not say: nothing is refused for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measurement {
    /// Memory of the process that the system cannot take back.
    pub(crate) memory_bytes: Option<u64>,
    /// Vectors that are in no segment yet, of all shards.
    pub(crate) unsealed_bytes: u64,
    /// The file system of the data folder.
    pub(crate) disk: Option<DiskSpace>,
}

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskSpace {
    /// Its size.
    pub(crate) total_bytes: u64,
    /// What this process may still write, less what it has yet to flush.
    pub(crate) free_bytes: u64,
}

/// How full something is, and its two marks: a figure that hovers around one mark must not turn the decision with
/// every look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    /// What is in use.
    pub(crate) used: u64,
    /// From here on data is refused ...
    pub(crate) close_at: u64,
    /// ... until no more than this is in use.
    pub(crate) open_at: u64,
}

/// What there is too little of to take more data, with the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The disk is nearly full. What is left is for deletes, sealing and compaction, which make room.
    #[error(
        "the disk is nearly full: {free} of {total} are free, and {reserve} are kept for deletes and compaction; writes that add data are refused until {resume} are free: delete points or collections, or give the data folder more space",
        free = ByteSize(*free_bytes), total = ByteSize(*total_bytes), reserve = ByteSize(*reserve_bytes), resume = ByteSize(*resume_bytes)
    )]
    Disk {
        /// What is free.
        free_bytes: u64,
        /// Size of the file system.
        total_bytes: u64,
        /// What is kept back.
        reserve_bytes: u64,
        /// What must be free again.
        resume_bytes: u64,
    },
    /// The process has nearly used up its budget.
    #[error(
        "memory is nearly used up: {used} of a budget of {budget}; writes that add data are refused until {resume} are in use: wait while points are indexed, send fewer at a time, or start the server with a larger --memory",
        used = ByteSize(*used_bytes), budget = ByteSize(*budget_bytes), resume = ByteSize(*resume_bytes)
    )]
    Memory {
        /// What is in use.
        used_bytes: u64,
        /// The whole.
        budget_bytes: u64,
        /// What may be in use when data is taken again.
        resume_bytes: u64,
    },
    /// Indexing is behind, and what waits for it is in memory.
    #[error(
        "too many points wait in memory to be indexed: {used} of {share}; writes that add data are refused until it is {resume}: slow down",
        used = ByteSize(*used_bytes), share = ByteSize(*share_bytes), resume = ByteSize(*resume_bytes)
    )]
    Unsealed {
        /// Vectors that wait.
        used_bytes: u64,
        /// How many may.
        share_bytes: u64,
        /// How many may wait when data is taken again.
        resume_bytes: u64,
    },
}

/// Which resources are short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gates {
    disk_closed: bool,
    memory_closed: bool,
    unsealed_closed: bool,
}

impl Gates {
    /// What follows from a look at the node.
    pub(crate) fn decide(self, budget: MemoryBudget, seen: &Measurement) -> Self {
        let memory = seen.memory_bytes.map(|bytes| memory_level(bytes, budget));
        Self {
            disk_closed: seen.disk.is_some_and(|disk| disk_level(disk).closes(self.disk_closed)),
            memory_closed: memory.is_some_and(|level| level.closes(self.memory_closed)),
            unsealed_closed: unsealed_level(seen.unsealed_bytes, budget).closes(self.unsealed_closed),
        }
    }

    /// What is short, the one that takes longest to mend first.
    pub(crate) fn shortage(self, budget: MemoryBudget, seen: &Measurement) -> Option<Shortage> {
        if let Some(disk) = seen.disk.filter(|_| self.disk_closed) {
            let DiskSpace { free_bytes, total_bytes } = disk;
            let (reserve_bytes, resume_bytes) = (reserve_bytes(total_bytes), resume_free_bytes(total_bytes));
            return Some(Shortage::Disk { free_bytes, total_bytes, reserve_bytes, resume_bytes });
        }
        if let Some(used_bytes) = seen.memory_bytes.filter(|_| self.memory_closed) {
            let resume_bytes = memory_level(used_bytes, budget).open_at;
            return Some(Shortage::Memory { used_bytes, budget_bytes: budget.bytes(), resume_bytes });
        }
        self.unsealed_closed.then(|| {
            let level = unsealed_level(seen.unsealed_bytes, budget);
            Shortage::Unsealed { used_bytes: level.used, share_bytes: level.close_at, resume_bytes: level.open_at }
        })
    }

    /// How many bytes of points may be let in before the node is looked at again, so that no burst runs past a mark.
    pub(crate) fn room_bytes(budget: MemoryBudget, seen: &Measurement) -> u64 {
        let memory = seen.memory_bytes.map(|bytes| memory_level(bytes, budget));
        let copied = memory.into_iter().chain(seen.disk.map(disk_level));
        let copied = copied.map(|level| level.close_at.saturating_sub(level.used) / COPIES);
        let unsealed = unsealed_level(seen.unsealed_bytes, budget);
        copied.chain([unsealed.close_at.saturating_sub(unsealed.used)]).min().unwrap_or_default()
    }

    /// Whether a full disk is the reason to refuse: what is written and then removed again would help.
    pub(crate) fn is_disk_short(self) -> bool {
        self.disk_closed
    }

    /// Whether unsealed rows should be made into segments now instead of when their generation is full: that frees
    /// memory, and with writes refused a generation would never fill.
    pub(crate) fn should_seal(self, budget: MemoryBudget, seen: &Measurement) -> bool {
        let level = unsealed_level(seen.unsealed_bytes, budget);
        self.memory_closed || level.used > level.open_at
    }
}

/// Whether little memory is left: time to give back what is held without being used.
pub(crate) fn is_memory_scarce(budget: MemoryBudget, seen: &Measurement) -> bool {
    seen.memory_bytes.is_some_and(|bytes| bytes > memory_level(bytes, budget).open_at)
}

impl Level {
    /// Whether data is refused, when it was `closed` before.
    fn closes(self, closed: bool) -> bool {
        if closed { self.used > self.open_at } else { self.used >= self.close_at }
    }
}

/// Refused at nine tenths, so that what was let in already still fits; taken again at eight.
pub(crate) fn memory_level(used: u64, budget: MemoryBudget) -> Level {
    let tenth = budget.bytes() / 10;
    Level { used, close_at: 9 * tenth, open_at: 8 * tenth }
}

fn unsealed_level(used: u64, budget: MemoryBudget) -> Level {
    let share = budget.shares().unsealed_bytes;
    Level { used, close_at: share, open_at: share / 4 * 3 }
}

fn disk_level(disk: DiskSpace) -> Level {
    let used = disk.total_bytes.saturating_sub(disk.free_bytes);
    let at = |free: u64| disk.total_bytes.saturating_sub(free);
    Level { used, close_at: at(reserve_bytes(disk.total_bytes)), open_at: at(resume_free_bytes(disk.total_bytes)) }
}

/// What of a disk is kept free of new data. A delete is a log entry and a tombstone, a compaction writes a file
/// before it removes those it replaces, and so does a merge of segments: with nothing free, nothing could be freed.
///
/// A fiftieth; at least a gigabyte, which is a few dozen files of the database, and at most eight, which is a large
/// segment; but no more than an eighth, so that a small volume is of use.
fn reserve_bytes(total: u64) -> u64 {
    const LEAST: u64 = 1 << 30;
    const MOST: u64 = 8 << 30;
    (total / 50).clamp(LEAST, MOST).min(total / 8)
}

/// Data is taken again when half as much again is free.
fn resume_free_bytes(total: u64) -> u64 {
    reserve_bytes(total) / 2 * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: u64 = 1_000 << 20;

    fn budget() -> MemoryBudget {
        MemoryBudget::new(BUDGET).unwrap()
    }

    /// Feeds measurements one after the other and says after which of them data was refused.
    fn check(seen: &[Measurement]) -> Vec<bool> {
        let mut gates = Gates::default();
        let refused = seen.iter().map(|seen| {
            gates = gates.decide(budget(), seen);
            gates.shortage(budget(), seen).is_some()
        });
        refused.collect()
    }

    fn memory(mib: u64) -> Measurement {
        Measurement { memory_bytes: Some(mib << 20), ..Measurement::default() }
    }

    fn unsealed(mib: u64) -> Measurement {
        Measurement { unsealed_bytes: mib << 20, ..Measurement::default() }
    }

    fn free(gib: u64) -> Measurement {
        let disk = DiskSpace { total_bytes: 1_000 << 30, free_bytes: gib << 30 };
        Measurement { disk: Some(disk), ..Measurement::default() }
    }

    #[test]
    fn data_is_refused_from_the_upper_mark_until_the_lower_one_is_reached() {
        assert_eq!(
            check(&[0, 899, 901, 850, 801, 799, 850, 899, 900].map(memory)),
            [false, false, true, true, true, false, false, false, true]
        );
        // A quarter of the budget.
        assert_eq!(
            check(&[0, 249, 250, 200, 188, 187, 249, 251].map(unsealed)),
            [false, false, true, true, true, false, false, true]
        );
        // Eight gigabytes of the disk are kept, and half as much again must be free.
        assert_eq!(
            check(&[900, 9, 8, 0, 10, 11, 12, 9, 7].map(free)),
            [false, false, true, true, true, true, false, false, true]
        );
    }

    #[test]
    fn what_the_system_does_not_say_is_no_reason_to_refuse() {
        assert_eq!(
            check(&[memory(990), Measurement::default(), free(1), Measurement::default()]),
            [true, false, true, false]
        );
    }

    #[test]
    fn each_resource_is_refused_and_accepted_for_itself_with_its_figures() {
        let all = Measurement { disk: free(1).disk, unsealed_bytes: BUDGET, ..memory(950) };
        let gates = Gates::default().decide(budget(), &all);
        let said = gates.shortage(budget(), &all).unwrap().to_string();
        assert!(
            said.contains("disk") && said.contains("1 GiB of 1000 GiB are free") && said.contains("12 GiB"),
            "{said}"
        );
        let mended = Measurement { disk: free(500).disk, ..all };
        let gates = gates.decide(budget(), &mended);
        let said = gates.shortage(budget(), &mended).unwrap().to_string();
        assert!(said.contains("950 MiB of a budget of 1000 MiB") && said.contains("800 MiB"), "{said}");
        let mended = Measurement { memory_bytes: Some(0), ..mended };
        let gates = gates.decide(budget(), &mended);
        let said = gates.shortage(budget(), &mended).unwrap().to_string();
        assert!(said.contains("1000 MiB of 250 MiB"), "{said}");
        let mended = Measurement { unsealed_bytes: 0, ..mended };
        assert_eq!(gates.decide(budget(), &mended), Gates::default());
    }

    #[test]
    fn between_two_looks_no_more_is_let_in_than_takes_the_nearest_resource_to_its_mark() {
        let room = |seen: Measurement| Gates::room_bytes(budget(), &seen);
        assert_eq!(room(memory(500)), (400 << 20) / COPIES);
        assert_eq!(room(free(9)), 250 << 20);
        assert_eq!(room(Measurement { disk: free(60).disk, ..memory(500) }), (400 << 20) / COPIES);
        let unsealed = |mib: u64| Measurement { unsealed_bytes: mib << 20, ..memory(100) };
        assert_eq!([100, 240, 260].map(|mib| room(unsealed(mib))), [150 << 20, 10 << 20, 0]);
        assert_eq!([memory(950), free(3)].map(room), [0, 0]);
    }

    #[test]
    fn unsealed_rows_are_sealed_early_when_memory_is_short_and_before_they_are_refused() {
        let early = |seen: Measurement| Gates::default().decide(budget(), &seen).should_seal(budget(), &seen);
        assert_eq!([memory(0), unsealed(180), unsealed(190), memory(950)].map(early), [false, false, true, true]);
        assert!(!early(free(0)), "a segment takes space before it frees any");
    }

    #[test]
    fn the_reserve_grows_with_the_disk_and_leaves_small_volumes_of_use() {
        let cases = [
            (64 << 20, 8 << 20),
            (4 << 30, 512 << 20),
            (20 << 30, 1 << 30),
            (200 << 30, 4 << 30),
            (1_000 << 30, 8 << 30),
        ];
        for (total, reserve) in cases {
            assert_eq!(reserve_bytes(total), reserve, "{total}");
            assert!(resume_free_bytes(total) > reserve && resume_free_bytes(total) < total, "{total}");
        }
    }
}
