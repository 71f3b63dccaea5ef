//! Deciding what has to do with which points are a shard's: splits, and commands that name points of another shard.

use sagitta_model::{ErrorKind, PointId, Problem, Violation};

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
        } else if split.right == self.view.shard() || span.relatives.contains(&split.right) {
            let reason =
                format!("shard {} has been split from or into already; choose a number never used", split.right);
            Some(refusal(Violation::new("right", reason)))
        } else {
            self.split = Some(split);
            None
        };
        WriteOutcome { refused, ..WriteOutcome::default() }
    }

    /// Refuses a command that names points of another shard. It is not remembered: it comes again elsewhere, and perhaps the rest of
    /// it here, under the same request id.
    pub(super) fn misrouted(&self, field: &str, ids: impl Iterator<Item = PointId>) -> Option<WriteOutcome> {
        let range = self.state.span.range;
        let mut strangers = ids.enumerate().filter(|(_, id)| !range.holds(*id)).peekable();
        let (_, id) = *strangers.peek()?;
        let shard = self.view.shard();
        let violation = |(at, id)| Violation::new(format!("{field}[{at}]"), format!("{id} is not of shard {shard}"));
        let violations = strangers.take(MAX_LISTED_FAILURES).map(violation).collect();
        let message = format!("{id} is not of shard {shard}, which has been split: look the route up again");
        let refused = Some(Problem { kind: ErrorKind::Unavailable, message, violations });
        Some(WriteOutcome { refused, ..WriteOutcome::default() })
    }
}
