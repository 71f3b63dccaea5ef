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

    /// Removes the folders; what cannot be removed is tried again after the next flush, or at the next opening.
    pub(crate) fn clean(&self, folder: &Folder, segments: &[RetiredSegment]) {
        for &segment in segments {
            let RetiredSegment { id, damaged } = segment;
            let done = if damaged { folder.quarantine_segment(id) } else { folder.remove_segment(id) };
            match done {
                Ok(()) => self.lock().retain(|other| *other != segment),
                Err(error) => tracing::warn!(segment = id, %error, "a replaced segment cannot be removed yet"),
            }
        }
    }

    /// A panic elsewhere leaves the list whole: it is changed by single calls.
    fn lock(&self) -> MutexGuard<'_, Vec<RetiredSegment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
