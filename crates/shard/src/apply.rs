//! Applying committed entries: decided against the present state, written at once, then shown to readers.

mod divide;
mod merge;
mod stage;
mod write;

use sagitta_engine::kv::KvRead;
use sagitta_model::{ErrorKind, PointId, Problem, Violation};

pub(crate) use self::stage::Stage;
use crate::codec::{Reader, Record};
use crate::layout::{Key, META};
use crate::{Command, Entry, MergeEntry, ShardError, Split, WriteOutcome};

/// What an entry holds.
pub(crate) enum Decoded {
    /// Nothing: it only moves the position in the log.
    Empty,
    Command(Box<Command>),
    Split(Split),
    Merge(MergeEntry),
    /// Intact bytes that are no command. Every replica finds the same and refuses it.
    Nonsense(Problem),
}

/// Decodes an entry.
///
/// # Errors
/// When this replica must not go on, because others may read the entry: its bytes are damaged here, or newer than this
/// version of the program.
pub(crate) fn decode(entry: &Entry<'_>) -> Result<Decoded, ShardError> {
    if entry.data.is_empty() {
        return Ok(Decoded::Empty);
    }
    let row = |source| ShardError::Row { what: format!("log entry {}", entry.index), source };
    let envelope = Reader::unseal(entry.data, Command::NAME, u8::MAX).map_err(row)?;
    let newest = Command::FORMAT.max(Split::FORMAT).max(MergeEntry::FORMAT);
    if envelope.format() > newest {
        let (found, supported) = (envelope.format().into(), newest.into());
        return Err(ShardError::NewerCommand { index: entry.index, found, supported });
    }
    let decoded = if is_split(entry) {
        Split::from_sealed(entry.data).map(Decoded::Split)
    } else if envelope.format() == MergeEntry::FORMAT {
        MergeEntry::from_sealed(entry.data).map(Decoded::Merge)
    } else {
        Command::from_sealed(entry.data).map(|command| Decoded::Command(Box::new(command)))
    };
    Ok(match decoded {
        Ok(decoded) => decoded,
        Err(error) => {
            Decoded::Nonsense(Problem { kind: ErrorKind::Invalid, message: error.to_string(), violations: Vec::new() })
        }
    })
}

/// Whether an entry has the format of a [`Split`], which is a batch of its own.
pub(crate) fn is_split(entry: &Entry<'_>) -> bool {
    entry.data.first() == Some(&Split::FORMAT)
}

/// The outcome that is kept for the command applied at an index, if it is still remembered.
pub(crate) fn stored_outcome(kv: &dyn KvRead, index: u64) -> Result<Option<WriteOutcome>, ShardError> {
    let Some(bytes) = kv.get(META, &Key::outcome(index))? else { return Ok(None) };
    let row = |source| ShardError::Row { what: format!("the outcome of log entry {index}"), source };
    WriteOutcome::from_sealed(&bytes).map(Some).map_err(row)
}

/// A request that was refused as a whole.
fn refusal(violation: Violation) -> Problem {
    Problem { kind: ErrorKind::Invalid, message: violation.to_string(), violations: vec![violation] }
}

/// A request whose id was taken by another one: doing it might be doing it twice, ignoring it might be losing it.
fn reused_request(request_id: u128, index: u64) -> Problem {
    let id = PointId::Uuid(request_id);
    let message = format!("request id {id} was used before, for another command (log entry {index}); choose a new one");
    Problem { kind: ErrorKind::Conflict, message, violations: Vec::new() }
}
