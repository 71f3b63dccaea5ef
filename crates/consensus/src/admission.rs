//! How much may be on its way at once: back-pressure by count and by bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::settings::{MAX_WAITING, MAX_WAITING_BYTES};

/// The places that are taken, shared by all handles of a host.
#[derive(Debug)]
pub(crate) struct Admission {
    most: usize,
    most_bytes: usize,
    count: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place taken: by a proposal until its entry is applied or dropped, by messages until they are looked at.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Default for Admission {
    /// For proposals.
    fn default() -> Self {
        Self::new(MAX_WAITING, MAX_WAITING_BYTES)
    }
}

impl Admission {
    pub(crate) fn new(most: usize, most_bytes: usize) -> Self {
        Self { most, most_bytes, count: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }

    /// A place for something of this size, if there is one.
    pub(crate) fn admit(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let fits = |taken: &AtomicUsize, more: usize, max: usize| {
            taken
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                    now.checked_add(more).filter(|sum| *sum <= max)
                })
                .is_ok()
        };
        if !fits(&self.count, 1, self.most) {
            return None;
        }
        if !fits(&self.bytes, bytes, self.most_bytes) {
            self.count.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Permit { admission: self.clone(), bytes })
    }

    /// Proposals on their way.
    pub(crate) fn waiting(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.admission.count.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_by_count_and_by_bytes_and_come_back() {
        let admission = Arc::new(Admission::default());
        let mut permits: Vec<_> = (0..MAX_WAITING).map(|_| admission.admit(1).unwrap()).collect();
        assert!(admission.admit(0).is_none());
        permits.pop();
        assert!(admission.admit(MAX_WAITING_BYTES).is_none(), "too many bytes together");
        permits.clear();
        assert!(admission.admit(MAX_WAITING_BYTES).is_some());
        assert!(admission.admit(MAX_WAITING_BYTES + 1).is_none());
        assert_eq!(admission.waiting(), 0);
    }
}
