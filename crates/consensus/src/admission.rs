//! How much may be on its way at once: back-pressure by count and by bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::settings::{MAX_WAITING, MAX_WAITING_BYTES};

/// The places that are taken, shared by all handles of a host.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place taken by one proposal until its entry is applied or dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    /// A place for a proposal of this size, if there is one.
    pub(crate) fn admit(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let fits = |taken: &AtomicUsize, more: usize, max: usize| {
            taken
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                    now.checked_add(more).filter(|sum| *sum <= max)
                })
                .is_ok()
        };
        if !fits(&self.count, 1, MAX_WAITING) {
            return None;
        }
        if !fits(&self.bytes, bytes, MAX_WAITING_BYTES) {
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
