use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::SegmentId;
use crate::folder::Folder;

/// Segments that were replaced, whose folders stay until the database has forgotten them on disk: until then a crash
/// brings them back.
#[derive(Debug, Default)]
pub(crate) struct Retired(Mutex<Vec<RetiredSegment>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetiredSegment {
    pub(crate) id: SegmentId,
    /// Kept for whoever wants to look at it, instead of being removed.
    pub(crate) damaged: bool,
}

impl Retired {
    pub(crate) fn add(&self, segments: impl IntoIterator<Item = RetiredSegment>) {
        self.lock().extend(segments);
    }

    /// Those that a flush which begins now will let go.
    pub(crate) fn list(&self) -> Vec<RetiredSegment> {
        self.lock().clone()
    }

    /// Removes the folders; what cannot be removed is tried again after the next flush, or at the next opening. Flushes may
    /// end side by side: each folder is one's to remove.
    pub(crate) fn clean(&self, folder: &Folder, segments: &[RetiredSegment]) {
        for &segment in segments {
            if !self.take(segment) {
                continue;
            }
            let RetiredSegment { id, damaged } = segment;
            let done = if damaged { folder.quarantine_segment(id) } else { folder.remove_segment(id) };
            if let Err(error) = done {
                tracing::warn!(segment = id, %error, "a replaced segment cannot be removed yet");
                self.add([segment]);
            }
        }
    }

    /// Takes one out; false if somebody else has.
    fn take(&self, segment: RetiredSegment) -> bool {
        let mut list = self.lock();
        let at = list.iter().position(|other| *other == segment);
        at.map(|at| list.swap_remove(at)).is_some()
    }

    /// A panic elsewhere leaves the list whole: it is changed by single calls.
    fn lock(&self) -> MutexGuard<'_, Vec<RetiredSegment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What was set aside for whoever wants to look at it would be removed by setting it aside a second time.
    #[test]
    fn of_two_flushes_that_end_side_by_side_one_sets_a_damaged_segment_aside() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::create(temp.path()).expect("made");
        for id in [1, 2] {
            fs::create_dir(folder.segment(id)).expect("made");
        }
        let retired = Retired::default();
        retired.add([RetiredSegment { id: 1, damaged: true }, RetiredSegment { id: 2, damaged: false }]);
        let (one, other) = (retired.list(), retired.list());
        retired.clean(&folder, &one);
        retired.clean(&folder, &other);
        assert_eq!(folder.quarantined().expect("read"), [1]);
        assert_eq!(fs::read_dir(folder.segments()).expect("read").count(), 0);
        assert_eq!(retired.list(), []);
    }
}
