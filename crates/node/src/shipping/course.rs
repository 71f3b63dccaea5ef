//! How far a replica has got with the segments of its leader: what it waits for, what it asks and fetches next. It says what is to be done,
//! and does none of it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sagitta_consensus::{NodeId, Part, Parts};
use sagitta_shard::SegmentName;

use super::plan::{Kind, Leadership, Situation, Work, helps, is_own};

/// Time between two questions to a leader: short next to what a seal takes.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long an answer counts.
const ANSWER_HOLDS: Duration = Duration::from_secs(10);
/// Fetches that may fail before the work is done here. One may: a segment can be replaced while it is on its way.
const MAX_FAILURES: u32 = 3;
/// What counts as waited for between two looks. A worker that is busy elsewhere for an hour has not waited for an hour.
const MOST_BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// Names of segments that are not fetched again; more than a shard sees between two starts as a rule.
const MAX_SEEN: usize = 4096;

/// How far a replica has got.
#[derive(Default)]
pub(super) struct Course {
    /// What is left to a leader, by [`Kind`].
    waits: [Option<Wait>; 2],
    looked: Duration,
    asking: bool,
    next_question: Duration,
    answer: Option<Answer>,
    /// The leader, if it did not answer when it was asked last.
    silent: Option<NodeId>,
    fetching: Option<Fetching>,
    arrived: Option<Arrived>,
    /// What is not fetched again: it has been here, or was not fit.
    seen: BTreeSet<SegmentName>,
}

/// How work of one kind has been waited for.
#[derive(Clone, Copy, Default)]
struct Wait {
    time: Duration,
    failures: u32,
}

/// What a replica has and lacks at a moment.
pub(super) struct Outlook<'a> {
    pub(super) leadership: Leadership,
    /// Whether the rows in memory have to go soon, or somebody waits for them to be indexed.
    pub(super) urgent: bool,
    /// The names of its segments.
    pub(super) segments: BTreeSet<SegmentName>,
    /// Index of the last entry that it has applied.
    pub(super) applied: u64,
    /// What there is to do.
    pub(super) work: &'a [Work],
}

/// What a leader has said.
struct Answer {
    from: NodeId,
    at: Duration,
    parts: Parts,
}

/// A segment on its way.
struct Fetching {
    name: SegmentName,
    _wanted: Arc<()>,
}

/// A segment that is here and is not adopted yet.
pub(super) struct Arrived {
    pub(super) part: Part,
    /// The work for which it was fetched.
    pub(super) kind: Kind,
    pub(super) folder: Folder,
}

/// A folder that goes when nobody has it any more.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

/// What is to be done so that the leader's segments come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    Ask(NodeId),
    Fetch(NodeId, Kind, Part),
}

impl Course {
    /// Looks at what there is to do; returns what is left to the leader for now, and what is to be done for it.
    pub(super) fn look(&mut self, at: &Outlook<'_>, now: Duration) -> (Vec<Work>, Next) {
        self.see(at.segments.iter().copied());
        let since = now.saturating_sub(std::mem::replace(&mut self.looked, now)).min(MOST_BETWEEN_LOOKS);
        for kind in [Kind::Seal, Kind::Merge] {
            let is_left = at.leadership != Leadership::Own && at.work.iter().any(|work| work.kind() == kind);
            let wait = &mut self.waits[kind as usize];
            let before = wait.map(|wait| Wait { time: wait.time + since, ..wait });
            *wait = is_left.then(|| before.unwrap_or_default());
        }
        let is_left = |work: &&Work| !is_own(**work, &self.situation(**work, at, now));
        let left: Vec<_> = at.work.iter().filter(is_left).copied().collect();
        let next = self.next(&left, at, now);
        (left, next)
    }

    fn situation(&self, work: Work, at: &Outlook<'_>, now: Duration) -> Situation {
        let wait = self.waits[work.kind() as usize].unwrap_or_default();
        Situation {
            leadership: at.leadership,
            waited: wait.time,
            urgent: at.urgent,
            in_vain: wait.failures >= MAX_FAILURES,
            under_way: self.is_under_way(work, at, now),
        }
    }

    /// Whether the leader is at work, or a segment is there to be fetched, or on its way.
    fn is_under_way(&self, work: Work, at: &Outlook<'_>, now: Duration) -> bool {
        if self.fetching.is_some() || self.arrived.is_some() {
            return true;
        }
        let Leadership::Of(leader) = at.leadership else { return false };
        match self.answer_of(leader, now) {
            Some(parts) if parts.leads => parts.working || self.new_of(parts, at).any(|part| helps(part, work)),
            Some(_) => false,
            // It was not asked yet, or long ago.
            None => self.silent != Some(leader),
        }
    }

    /// What a node has said of itself a moment ago.
    fn answer_of(&self, leader: NodeId, now: Duration) -> Option<&Parts> {
        let holds = |answer: &&Answer| answer.from == leader && now < answer.at + ANSWER_HOLDS;
        self.answer.as_ref().filter(holds).map(|answer| &answer.parts)
    }

    /// What can be fetched and adopted: of entries that are not applied here yet the rows would be dead here for ever.
    fn new_of<'a>(&'a self, parts: &'a Parts, at: &Outlook<'_>) -> impl Iterator<Item = &'a Part> {
        let applied = at.applied;
        parts.parts.iter().filter(move |part| part.last <= applied && !self.seen.contains(&part.manifest.offer()))
    }

    fn next(&mut self, left: &[Work], at: &Outlook<'_>, now: Duration) -> Next {
        let Leadership::Of(leader) = at.leadership else { return Next::Nothing };
        if left.is_empty() || self.fetching.is_some() || self.arrived.is_some() {
            return Next::Nothing;
        }
        let helping =
            |part: &Part| left.iter().find(|work| helps(part, **work)).map(|work| (work.kind(), part.clone()));
        let leads = self.answer_of(leader, now).filter(|parts| parts.leads);
        match leads.and_then(|parts| self.new_of(parts, at).find_map(helping)) {
            Some((kind, part)) => Next::Fetch(leader, kind, part),
            None if !self.asking && now >= self.next_question => {
                self.asking = true;
                self.next_question = now + ASK_EVERY;
                Next::Ask(leader)
            }
            None => Next::Nothing,
        }
    }

    /// A node was asked what it has. Without an answer, what it said before counts for as long as it would have.
    pub(super) fn answered(&mut self, from: NodeId, parts: Option<Parts>, at: Duration) {
        self.asking = false;
        self.silent = parts.is_none().then_some(from);
        if let Some(parts) = parts {
            self.answer = Some(Answer { from, at, parts });
        }
    }

    /// A segment is being fetched for as long as what is returned can be upgraded.
    pub(super) fn begin(&mut self, name: SegmentName) -> Weak<()> {
        let wanted = Arc::new(());
        let weak = Arc::downgrade(&wanted);
        self.fetching = Some(Fetching { name, _wanted: wanted });
        weak
    }

    /// A fetch has ended: with a segment, or without one.
    pub(super) fn ended(&mut self, name: SegmentName, kind: Kind, arrived: Option<Arrived>) {
        if self.fetching.take_if(|fetching| fetching.name == name).is_none() {
            return;
        }
        match arrived {
            Some(arrived) => self.arrived = Some(arrived),
            None => self.failed(kind),
        }
    }

    pub(super) fn take_arrived(&mut self) -> Option<Arrived> {
        self.arrived.take()
    }

    pub(super) fn put_back(&mut self, arrived: Arrived) {
        self.arrived = Some(arrived);
    }

    /// A segment did not come. The leader is asked anew before another try: it may have been replaced.
    pub(super) fn failed(&mut self, kind: Kind) {
        self.answer = None;
        if let Some(wait) = &mut self.waits[kind as usize] {
            wait.failures += 1;
        }
    }

    /// A segment came and is of no use: another one would be none either.
    pub(super) fn in_vain(&mut self, kind: Kind, name: SegmentName) {
        self.see([name]);
        if let Some(wait) = &mut self.waits[kind as usize] {
            wait.failures = MAX_FAILURES;
        }
    }

    /// Work was done, by whomever: what comes next of its kind is waited for anew.
    pub(super) fn done(&mut self, kind: Kind) {
        self.waits[kind as usize] = None;
    }

    fn see(&mut self, names: impl IntoIterator<Item = SegmentName>) {
        self.seen.extend(names);
        while self.seen.len() > MAX_SEEN {
            // Any will do: that one is fetched once more at worst.
            self.seen.pop_first();
        }
    }
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, folder = %self.0.display(), "what was fetched of a segment cannot be removed yet");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
