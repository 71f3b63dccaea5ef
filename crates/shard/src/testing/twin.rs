//! A second replica of the shard that a model test drives: it applies the same log, at another pace, seals and merges at other
//! moments, and hands over the segments that it has built.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sagitta_engine::index::Never;
use sagitta_model::PointId;

use super::disturbance::{LogEntry, as_entries};
use super::model::Driver;
use super::naive::Naive;
use super::{open, run_jobs, small_options, unhurried};
use crate::{Adopted, ReadView, SegmentName, SegmentView, Shard, ShardError, Step};

/// The steps of taking over a segment, in order.
pub(super) const ADOPTION: [Step; 9] = [
    Step::FolderMade,
    Step::IdsCopied,
    Step::FolderSynced,
    Step::FolderNamed,
    Step::Opened,
    Step::Installed,
    Step::Published,
    Step::Flushed,
    Step::Cleaned,
];

/// What a segment's adoption must come to.
struct Forecast {
    rows: usize,
    /// Rows whose points the shard has in that version.
    live: usize,
    known: bool,
}

impl Driver<'_> {
    /// Takes over one of the twin's segments, now and then while entries are applied.
    pub(super) fn adopt(&mut self) {
        let before = self.naive.clone();
        let ahead = self.bring_twin_on();
        let Some((arrival, forecast)) = self.fetch(&before) else { return self.catch_up(&ahead) };
        // What the twin has applied before the shard is not applied again after what disturbs the adoption.
        let disturbed = ahead.is_empty() && self.dice.one_in(2);
        if disturbed {
            let step = *self.dice.pick(&ADOPTION[..5]);
            let entries = (0..1 + self.dice.below(4)).map(|_| self.new_entry()).collect();
            self.disturbance.plan(step, entries);
        }
        let names = names(&self.shard().view());
        let empty = empty_sources(&self.shard().view());
        let adopted = self.shard().adopt(&arrival, &Never);
        match adopted {
            Ok(Adopted { rows, live, .. }) => {
                assert!(!forecast.known && forecast.live > 0, "{}: adopted in vain", self.at);
                let exact = live == forecast.live || disturbed && live < forecast.live;
                assert!(exact && rows == forecast.rows, "{}: {live} of {rows} live rows", self.at);
                self.report.adoptions += 1;
                self.report.adopted_rows += live as u64;
                if !disturbed {
                    assert!(empty_sources(&self.shard().view()) <= empty, "{}: what is empty stays", self.at);
                }
            }
            Err(ShardError::Unfit { reason, .. }) => {
                assert!(forecast.known || forecast.live == 0, "{}: refused: {reason}", self.at);
                assert_eq!(names, self::names(&self.shard().view()), "{}", self.at);
                fs::remove_dir_all(&arrival).expect("a refused folder is still there");
                self.report.refusals += 1;
            }
            Err(error) => panic!("{}: {error}", self.at),
        }
        assert!(!arrival.exists(), "{}: an adopted folder was left", self.at);
        if disturbed {
            self.finish_disturbance();
        }
        self.catch_up(&ahead);
        self.check_everything();
    }

    /// Takes over that of the twin's segments up to a step of which the most rows are alive; returns whether it came that far. What the
    /// twin is ahead is in the log, and applied when the shard is opened.
    pub(super) fn cut_adoption_at(&mut self, step: Step) -> bool {
        let Some(view) = self.twin.as_ref().map(|twin| twin.view()) else { return false };
        let live = |own: &&SegmentView| self.forecast(&view, own, &self.naive).live;
        let here = names(&self.shard().view());
        let new = view.segments().iter().filter(|own| !here.contains(&own.segment.name()));
        let Some(own) = new.max_by_key(live) else { return false };
        let arrival = self.copy_of(own);
        self.disturbance.cut_at(Some(step));
        let adopted = self.shard().adopt(&arrival, &Never);
        self.disturbance.cut_at(None);
        match adopted {
            Err(ShardError::Stopped) => true,
            Ok(_) => panic!("{}: it went on", self.at),
            Err(ShardError::Unfit { .. }) => {
                fs::remove_dir_all(&arrival).expect("a refused folder is still there");
                false
            }
            Err(error) => panic!("{}: {error}", self.at),
        }
    }

    /// Has the twin apply all that the shard has, and make one segment of it.
    pub(super) fn seal_twin(&mut self) {
        let twin = self.open_twin();
        self.apply_to_twin(&twin, usize::MAX);
        twin.freeze().expect("the twin freezes");
        run_jobs(&twin).expect("jobs of the twin end well");
        assert!(!twin.view().segments().is_empty(), "{}: the twin has no segment", self.at);
    }

    /// Has the twin apply some of the log, and perhaps entries that the shard has not seen yet, which it returns; and do some jobs.
    pub(super) fn bring_twin_on(&mut self) -> Vec<LogEntry> {
        let twin = self.open_twin();
        let mut ahead = Vec::new();
        if self.dice.one_in(3) {
            ahead.extend((0..1 + self.dice.below(3)).map(|_| self.new_entry()));
            self.apply_to_twin(&twin, usize::MAX);
        } else {
            let most = *self.dice.pick(&[10, 30, 100, usize::MAX]);
            self.apply_to_twin(&twin, most);
        }
        if self.dice.one_in(2) {
            twin.freeze().expect("the twin freezes");
        }
        for _ in 0..self.dice.below(12) {
            let Some(job) = twin.next_job() else { break };
            job.run(&unhurried()).unwrap_or_else(|error| panic!("{}: a job of the twin failed: {error}", self.at));
        }
        ahead
    }

    fn catch_up(&mut self, ahead: &[LogEntry]) {
        let outcomes = self.shard().apply(&as_entries(ahead)).expect("entries apply");
        ahead.iter().zip(&outcomes).for_each(|(entry, outcome)| self.check_outcome(entry, outcome));
    }

    fn open_twin(&mut self) -> Arc<Shard> {
        let (dir, options) = (self.beside("twin"), small_options());
        let twin = self.twin.get_or_insert_with(|| open(self.rig, &dir, &self.schema, &self.env, &options));
        Arc::clone(twin)
    }

    fn apply_to_twin(&self, twin: &Shard, most: usize) {
        let at = twin.applied_index();
        let rest: Vec<_> = self.log.iter().filter(|entry| entry.index > at).take(most).cloned().collect();
        for entries in rest.chunks(5) {
            twin.apply(&as_entries(entries)).unwrap_or_else(|error| panic!("{}: the twin: {error}", self.at));
        }
    }

    /// Copies one of the twin's segments, as if it had come over the network, and says what must become of it in a shard that holds
    /// what the map does.
    fn fetch(&self, held: &Naive) -> Option<(PathBuf, Forecast)> {
        let view = self.twin.as_ref()?.view();
        let own = view.segments().get(self.dice.below(view.segments().len().max(1) as u64) as usize)?;
        Some((self.copy_of(own), self.forecast(&view, own, held)))
    }

    fn copy_of(&self, own: &SegmentView) -> PathBuf {
        let arrival = self.beside("arrival");
        copy(own.segment.dir(), &arrival);
        arrival
    }

    fn forecast(&self, view: &ReadView, own: &SegmentView, held: &Naive) -> Forecast {
        let is_held =
            |(id, version): &(PointId, u64)| held.points.get(id).is_some_and(|point| point.version == *version);
        let live = versions(view, own).iter().filter(|row| is_held(row)).count();
        let known = names(&self.shard().view()).contains(&own.segment.name());
        Forecast { rows: own.segment.rows(), live, known }
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.dir().with_file_name(name)
    }
}

fn names(view: &ReadView) -> BTreeSet<SegmentName> {
    view.segments().iter().map(|own| own.segment.name()).collect()
}

/// Segments and generations without a live row.
fn empty_sources(view: &ReadView) -> usize {
    let segments = view.segments().iter().filter(|own| own.live.count() == 0).count();
    segments + view.generations().iter().filter(|generation| generation.live() == 0).count()
}

fn versions(view: &ReadView, own: &SegmentView) -> Vec<(PointId, u64)> {
    let read = |row| own.segment.read_ids(view.snapshot(), |ids| Ok((ids.id(row)?, ids.version(row)?)));
    (0..own.segment.rows() as u32).map(|row| read(row).expect("ids are read")).collect()
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder is made");
    for entry in fs::read_dir(from).expect("the folder is read") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &to) } else { _ = fs::copy(&path, &to).expect("a file is copied") }
    }
}
