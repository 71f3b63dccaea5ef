//! Who waits to read, by how far that has come.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::ids::NodeId;
use crate::outcome::{Doubt, ReadOutcome};

/// Somebody who wants to read.
pub(crate) struct Reader {
    pub(crate) answer: oneshot::Sender<ReadOutcome>,
    pub(crate) deadline: Duration,
}

/// Reads by how far they have come.
#[derive(Default)]
pub(crate) struct Reads {
    /// Not asked for yet, because the leader has not committed in its term or no round has come.
    pub(crate) early: Vec<Reader>,
    /// Asked for; by the number given to raft.
    pub(crate) asked: BTreeMap<u64, Vec<Reader>>,
    /// Granted; waiting for the state machine to get there.
    pub(crate) granted: VecDeque<(u64, Reader)>,
}

impl Reads {
    pub(crate) fn is_empty(&self) -> bool {
        self.early.is_empty() && self.asked.is_empty() && self.granted.is_empty()
    }

    /// Grants the reads that were asked for under this number.
    pub(crate) fn grant(&mut self, number: u64, index: u64) {
        let readers = self.asked.remove(&number).unwrap_or_default();
        self.granted.extend(readers.into_iter().map(|reader| (index, reader)));
    }

    /// Answers the granted reads that the state machine has reached.
    pub(crate) fn answer_upto(&mut self, applied: u64) {
        for (index, reader) in std::mem::take(&mut self.granted) {
            if index <= applied {
                reader.answer(ReadOutcome::At(index));
            } else {
                self.granted.push_back((index, reader));
            }
        }
    }

    /// Sends those away whose read only a leader could have granted.
    pub(crate) fn turn_away(&mut self, hint: Option<NodeId>) {
        let asked = std::mem::take(&mut self.asked).into_values().flatten();
        for reader in self.early.drain(..).chain(asked) {
            reader.answer(ReadOutcome::NotLeader { hint });
        }
    }

    pub(crate) fn take_all(&mut self) -> Vec<Reader> {
        let Self { early, asked, granted } = std::mem::take(self);
        let granted = granted.into_iter().map(|(_, reader)| reader);
        early.into_iter().chain(asked.into_values().flatten()).chain(granted).collect()
    }

    pub(crate) fn expire(&mut self, now: Duration) {
        let Self { early, asked, granted } = std::mem::take(self);
        let late = |reader: Reader| {
            if reader.deadline > now {
                return Some(reader);
            }
            reader.answer(ReadOutcome::Unknown(Doubt::Deadline));
            None
        };
        self.early = early.into_iter().filter_map(late).collect();
        self.asked = asked
            .into_iter()
            .map(|(number, readers)| (number, readers.into_iter().filter_map(late).collect::<Vec<_>>()))
            .filter(|(_, readers)| !readers.is_empty())
            .collect();
        self.granted = granted.into_iter().filter_map(|(index, reader)| Some((index, late(reader)?))).collect();
    }
}

impl Reader {
    pub(crate) fn answer(self, outcome: ReadOutcome) {
        let _ = self.answer.send(outcome);
    }
}
