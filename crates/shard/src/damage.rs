use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sagitta_env::Env;

use crate::{Part, SegmentId};

/// Reports that are kept: enough to see what happened, few enough not to matter.
const MAX_REPORTS: usize = 64;

/// What was found damaged since the shard was opened, whoever found it.
#[derive(Debug)]
pub(crate) struct DamageLog {
    env: Env,
    /// Whether damage is told to the operator at once.
    told: bool,
    reports: Mutex<VecDeque<DamageReport>>,
}

/// A part of a segment that was found damaged. It is served from the database and rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamageReport {
    /// Which segment.
    pub segment: SegmentId,
    /// Which part of it.
    pub part: Part,
    /// What was found, with the file.
    pub reason: String,
    /// When, in microseconds since 1970.
    pub unix_micros: u64,
}

impl DamageLog {
    pub(crate) fn new(env: Env) -> Self {
        Self { env, told: true, reports: Mutex::default() }
    }

    /// For a segment that is looked at before it belongs to the shard: whoever looks tells what comes of it.
    pub(crate) fn silent(env: Env) -> Self {
        Self { told: false, ..Self::new(env) }
    }

    /// Notes damage to a part that was whole until now.
    pub(crate) fn add(&self, segment: SegmentId, part: Part, reason: &str) {
        if self.told {
            tracing::error!(segment, ?part, reason, "a derived file is damaged; it is served around and rebuilt");
        }
        let report = DamageReport { segment, part, reason: reason.to_owned(), unix_micros: self.env.unix_micros() };
        let mut reports = self.lock();
        if reports.len() == MAX_REPORTS {
            reports.pop_front();
        }
        reports.push_back(report);
    }

    /// Notes damage to the manifest of a segment, which the damage of its parts follows from.
    pub(crate) fn warn(&self, segment: SegmentId, reason: &str) {
        if self.told {
            tracing::error!(segment, reason, "the manifest of a segment is damaged; the segment is rebuilt");
        }
    }

    /// The last reports, oldest first.
    pub(crate) fn reports(&self) -> Vec<DamageReport> {
        self.lock().iter().cloned().collect()
    }

    /// A panic elsewhere leaves the list whole: it is changed by single calls.
    fn lock(&self) -> MutexGuard<'_, VecDeque<DamageReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
