//! Which points of a shard are touched while somebody copies them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sagitta_model::PointId;

use crate::state::Changes;
use crate::{Shard, ShardError};

/// Ids that are kept at most: more than one command can touch. Whoever asks too late compares all points instead.
const MAX_WATCHED: usize = 200_000;

/// The ids that were touched since somebody began to copy points. In memory alone.
#[derive(Default)]
pub(crate) struct Watch(Mutex<Option<Touches>>);

struct Touches {
    /// All that was touched after this log index is here.
    since: u64,
    /// Ids by the log index of the batch that touched them, ascending.
    batches: VecDeque<(u64, Vec<PointId>)>,
    /// How many these are.
    ids: usize,
}

/// The points that were inserted, replaced, changed or deleted after one log index and up to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Ascending, each once.
    pub ids: Vec<PointId>,
    /// Views that come now are as of this log index or later.
    pub until: u64,
}

impl Shard {
    /// From now on remembers which points are touched, until [`Shard::unwatch`]. Returns the log index since when it has.
    ///
    /// # Errors
    /// [`ShardError::Inconsistent`] after a panic.
    pub fn watch(&self) -> Result<u64, ShardError> {
        let state = self.lock_state()?;
        let since = state.head.applied_index;
        let new = || Touches { since, batches: VecDeque::new(), ids: 0 };
        Ok(self.watch.lock().get_or_insert_with(new).since)
    }

    /// The points that were touched after a log index; `None` if that is not known: the shard has not been watched for so long, or more
    /// points were touched than are remembered.
    ///
    /// # Errors
    /// [`ShardError::Inconsistent`] after a panic.
    pub fn touched(&self, since: u64) -> Result<Option<Touched>, ShardError> {
        let state = self.lock_state()?;
        let watch = self.watch.lock();
        let Some(touches) = watch.as_ref().filter(|touches| touches.since <= since) else { return Ok(None) };
        let later = touches.batches.iter().filter(|(index, _)| *index > since);
        let ids: BTreeSet<PointId> = later.flat_map(|(_, ids)| ids.iter().copied()).collect();
        Ok(Some(Touched { ids: ids.into_iter().collect(), until: state.head.applied_index }))
    }

    /// Nobody copies points any more.
    pub fn unwatch(&self) {
        *self.watch.lock() = None;
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Option<Touches>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a batch has touched. Holding the state, so that nobody asks in between.
    pub(crate) fn note(&self, changes: &Changes) {
        if let Some(touches) = &mut *self.lock() {
            let ids = changes.dead.iter().map(|(id, _)| *id).chain(changes.rows.ids().iter().copied());
            touches.note(changes.head.applied_index, ids.collect(), MAX_WATCHED);
        }
    }
}

impl Touches {
    fn note(&mut self, index: u64, ids: Vec<PointId>, most: usize) {
        if ids.is_empty() {
            return;
        }
        self.ids += ids.len();
        self.batches.push_back((index, ids));
        while self.ids > most
            && let Some((index, ids)) = self.batches.pop_front()
        {
            (self.since, self.ids) = (index, self.ids - ids.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_forgotten_from_its_beginning() {
        let mut touches = Touches { since: 3, batches: VecDeque::new(), ids: 0 };
        for index in [4, 7, 9] {
            touches.note(index, vec![PointId::Num(index); 2], 4);
        }
        assert_eq!((touches.since, touches.ids, touches.batches.len()), (4, 4, 2));
        touches.note(10, vec![PointId::Num(1); 9], 4);
        assert_eq!((touches.since, touches.ids, touches.batches.len()), (10, 0, 0));
    }
}
