//! Whether what is there in the end follows from what was acknowledged. Needs no search: one pass for histories of any
//! length, and no reads in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::{History, Operation, Outcome, PointInput, PointOutput};

/// A point that is not as it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// The point.
    pub id: u64,
    /// What it is.
    pub found: Option<u64>,
    /// What it can be: by the writes that no acknowledged write certainly followed.
    pub possible: BTreeSet<Option<u64>>,
    /// What that is called.
    pub fault: Fault,
}

/// How an end contradicts what was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An acknowledged write is gone: there is no point.
    Lost,
    /// An acknowledged write is gone: there is an older one.
    Stale,
    /// A point is back that was deleted.
    Resurrected,
    /// Nobody wrote this, or only somebody who was told that it had no effect.
    NeverWritten,
}

type PointHistory = History<PointInput, PointOutput>;
type Write<'a> = &'a Operation<PointInput, PointOutput>;

/// Compares the points that exist after all clients ended with what they were told. A write that was overwritten has no
/// part in the end, and certainly was if an acknowledged one was called after its return.
pub fn unsettled(history: &PointHistory, found: &BTreeMap<u64, u64>) -> Vec<Unsettled> {
    let mut writes: BTreeMap<u64, Vec<Write<'_>>> = found.keys().map(|id| (*id, Vec::new())).collect();
    for operation in &history.operations {
        if operation.input.written().is_some() && !matches!(operation.outcome, Outcome::Failed) {
            writes.entry(operation.input.id()).or_default().push(operation);
        }
    }
    writes.into_iter().filter_map(|(id, writes)| judge(id, found.get(&id).copied(), &writes)).collect()
}

fn judge(id: u64, found: Option<u64>, writes: &[Write<'_>]) -> Option<Unsettled> {
    let effect = |write: &Write<'_>| write.input.written().flatten();
    let overwritten_before = writes.iter().filter(|write| write.returned().is_some()).map(|write| write.called).max();
    let last = |write: &&Write<'_>| write.returned().is_none_or(|end| Some(end) >= overwritten_before);
    let mut possible: BTreeSet<Option<u64>> = writes.iter().filter(last).map(effect).collect();
    if overwritten_before.is_none() {
        possible.insert(None);
    }
    let fault = match found {
        _ if possible.contains(&found) => return None,
        None => Fault::Lost,
        Some(_) if !writes.iter().any(|write| effect(write) == found) => Fault::NeverWritten,
        Some(_) if possible.contains(&None) => Fault::Resurrected,
        Some(_) => Fault::Stale,
    };
    Some(Unsettled { id, found, possible, fault })
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, found, possible, fault } = self;
        write!(f, "point {id}: {fault:?}: is {found:?}, can be {possible:?}")
    }
}
