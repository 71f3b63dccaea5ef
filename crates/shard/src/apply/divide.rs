//! Deciding what has to do with which points are a shard's: splits, and commands that name points of another shard.

use sagitta_model::{Change, ErrorKind, PointId, Problem, Target, Violation};

use super::{Stage, refusal};
use crate::command::MAX_LISTED_FAILURES;
use crate::{Split, WriteOutcome};

impl Stage<'_> {
    /// Decides a split; what it takes besides the batch is up to the shard.
    pub(super) fn divide(&mut self, split: Split) -> WriteOutcome {
        let span = &self.state.span;
        let refused = if span.range.split(split.at).is_none() {
            let (first, last) = (span.range.first, span.range.last);
            let reason =
                format!("{:#018x} does not divide the shard's hashes, {first:#018x} to {last:#018x}", split.at);
            Some(refusal(Violation::new("at", reason)))
        } else if split.right == self.view.shard() || span.split_from(split.right).is_some() {
            let reason =
                format!("shard {} has been split from or into already; choose a number never used", split.right);
            Some(refusal(Violation::new("right", reason)))
        } else {
            self.split = Some(split);
            None
        };
        WriteOutcome { refused, ..WriteOutcome::default() }
    }

    /// Why a change is refused that names points of another shard.
    pub(super) fn misrouted(&self, change: &Change) -> Option<Problem> {
        match change {
            Change::Upsert(points) => self.strangers("points", points.iter().map(|point| point.id)),
            Change::Delete(ids) | Change::UpdatePayload { target: Target::Ids(ids), .. } => {
                self.strangers("ids", ids.iter().copied())
            }
            Change::DeleteByFilter(_) | Change::UpdatePayload { target: Target::Filter(_), .. } => None,
        }
    }

    fn strangers(&self, field: &str, ids: impl Iterator<Item = PointId>) -> Option<Problem> {
        let range = self.state.span.range;
        let mut strangers = ids.enumerate().filter(|(_, id)| !range.holds(*id)).peekable();
        let (_, id) = *strangers.peek()?;
        let shard = self.view.shard();
        let violation = |(at, id)| Violation::new(format!("{field}[{at}]"), format!("{id} is not of shard {shard}"));
        let violations = strangers.take(MAX_LISTED_FAILURES).map(violation).collect();
        let message = format!("{id} is not of shard {shard}, which has been split: look the route up again");
        Some(Problem { kind: ErrorKind::Unavailable, message, violations })
    }
}
