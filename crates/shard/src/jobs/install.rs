//! Putting a new segment in the place of what it was made of.
//!
//! The order, each step durable or harmless before the next: build in a temporary folder, sync it, give it its name; then,
//! under the writer's lock, one batch in the database that names the new segment, forgets its sources and buries the
//! rows that died while it was built; then the view; then a flush; then the folders of the sources go. A crash before the
//! batch is on disk leaves a folder that nothing names, and the sources as they were.

use std::sync::Arc;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::BuildControl;
use sagitta_engine::kv::WriteBatch;

use super::rows::{BuildRows, NO_ROW};
use crate::codec::Record;
use crate::layout::{Key, MANIFEST_KEY, META, PENDING, SEGMENT_IDS, TOMBSTONES};
use crate::records::Manifest;
use crate::retire::RetiredSegment;
use crate::state::State;
use crate::steps::Step;
use crate::{Generation, ReadView, Segment, SegmentId, SegmentView, Shard, ShardError};

/// What a segment is made of, as of the view it is made from.
pub(super) enum Source {
    Generation(Arc<Generation>),
    Segment(SegmentView),
}

impl Source {
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Generation(generation) => generation.rows(),
            Self::Segment(view) => view.segment.rows(),
        }
    }

    pub(super) fn live_rows(&self) -> usize {
        match self {
            Self::Generation(generation) => generation.live(),
            Self::Segment(view) => view.live.count(),
        }
    }
}

impl Shard {
    /// Makes one segment of the sources and puts it in their place; none if no row is alive.
    pub(super) fn replace(
        &self,
        view: &ReadView,
        sources: Vec<Source>,
        control: &BuildControl<'_>,
    ) -> Result<(), ShardError> {
        if sources.is_empty() {
            return Ok(());
        }
        let rows = BuildRows::gather(view, &sources)?;
        let mapping = rows.mapping();
        if rows.len() == 0 {
            return self.install(&sources, &mapping, None);
        }
        let id = self.lock_state()?.next_segment();
        let installed =
            self.build_segment(id, &rows, control).and_then(|segment| self.install(&sources, &mapping, Some(segment)));
        if installed.is_err() && !self.options.step_hook.has_cut() {
            self.clean_up(id);
        }
        installed
    }

    fn install(
        &self,
        sources: &[Source],
        mapping: &[Vec<u32>],
        segment: Option<Arc<Segment>>,
    ) -> Result<(), ShardError> {
        let steps = &self.options.step_hook;
        let mut state = self.lock_state()?;
        let view = match segment {
            Some(segment) => {
                let live = Arc::new(state.still_alive(sources, mapping, segment.rows())?);
                Some(SegmentView { segment, live })
            }
            None => None,
        };
        let manifest = state.manifest_with(sources, view.as_ref());
        self.kv.write(&installation(&manifest, sources, view.as_ref()))?;
        steps.done(Step::Installed)?;
        self.retired.add(sources.iter().filter_map(Source::retired));
        state.install(manifest, sources, view);
        self.publish(&state);
        drop(state);
        steps.done(Step::Published)?;
        match self.flush_database() {
            Ok((_, retired)) => {
                steps.done(Step::Flushed)?;
                self.retired.clean(&self.folder, &retired);
            }
            // The installation holds; the folders stay until a flush succeeds.
            Err(error) => tracing::warn!(%error, "a new segment is installed, but not yet on disk"),
        }
        steps.done(Step::Cleaned)
    }

    /// Removes what a failed build left behind. What cannot be removed now goes at the next opening.
    fn clean_up(&self, id: SegmentId) {
        let removed = self.folder.remove_unfinished(id).and_then(|()| {
            let mut batch = WriteBatch::new();
            batch.delete_range(SEGMENT_IDS, &Key::segment(id), &Key::segment(id + 1));
            Ok(self.kv.write(&batch)?)
        });
        if let Err(error) = removed {
            tracing::warn!(segment = id, %error, "an unfinished segment cannot be removed yet");
        }
    }
}

impl Source {
    fn retired(&self) -> Option<RetiredSegment> {
        match self {
            Self::Generation(_) => None,
            Self::Segment(view) => Some(RetiredSegment { id: view.segment.id(), damaged: view.segment.is_damaged() }),
        }
    }
}

/// What is written when a segment takes the place of its sources.
fn installation(manifest: &Manifest, sources: &[Source], new: Option<&SegmentView>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(META, MANIFEST_KEY, &manifest.to_sealed());
    for source in sources {
        match source {
            Source::Generation(generation) => {
                let (start, end) = (generation.number(), generation.number() + 1);
                batch.delete_range(PENDING, &Key::generation(start), &Key::generation(end));
            }
            Source::Segment(view) => {
                let (start, end) = (Key::segment(view.segment.id()), Key::segment(view.segment.id() + 1));
                batch.delete_range(TOMBSTONES, &start, &end);
                batch.delete_range(SEGMENT_IDS, &start, &end);
            }
        }
    }
    if let Some(view) = new {
        let mut dead = Bitmap::clone(&view.live);
        dead.not();
        for row in dead.iter() {
            batch.put(TOMBSTONES, &Key::tombstone(view.segment.id(), row), &[]);
        }
    }
    batch
}

impl State {
    /// A number for a segment to be. It is used once, at least until a crash before anything refers to it.
    fn next_segment(&mut self) -> SegmentId {
        let id = self.manifest.next_segment;
        self.manifest.next_segment += 1;
        id
    }

    /// The rows of a new segment that are still the live rows of their points: not those that were overwritten or deleted
    /// while it was built.
    fn still_alive(&self, sources: &[Source], mapping: &[Vec<u32>], rows: usize) -> Result<Bitmap, ShardError> {
        let mut live = Bitmap::full(rows);
        for (source, mapping) in sources.iter().zip(mapping) {
            let now = self.live_rows(source)?;
            for (row, &new) in mapping.iter().enumerate() {
                if new != NO_ROW && !now.contains(row as u32) {
                    live.clear(new);
                }
            }
        }
        Ok(live)
    }

    fn live_rows(&self, source: &Source) -> Result<LiveRows<'_>, ShardError> {
        let rows = match source {
            Source::Generation(generation) => {
                let now = self.frozen.iter().find(|other| other.number() == generation.number());
                now.map(|now| LiveRows::Generation(now))
            }
            Source::Segment(view) => {
                let now = self.segments.iter().find(|other| other.segment.id() == view.segment.id());
                now.map(|now| LiveRows::Segment(&now.live))
            }
        };
        rows.ok_or_else(|| ShardError::Inconsistent {
            what: "the source of a new segment was replaced while it was built".to_owned(),
        })
    }

    fn manifest_with(&self, sources: &[Source], new: Option<&SegmentView>) -> Manifest {
        let mut manifest = self.manifest.clone();
        manifest.segments.retain(|entry| !sources.iter().any(|source| source.is_segment(entry.id)));
        manifest.segments.extend(new.map(|view| *view.segment.entry()));
        manifest.segments.sort_unstable_by_key(|entry| entry.id);
        manifest
    }

    fn install(&mut self, manifest: Manifest, sources: &[Source], new: Option<SegmentView>) {
        for source in sources {
            match source {
                Source::Generation(generation) => {
                    let number = generation.number();
                    self.frozen.retain(|other| other.number() != number);
                    self.unsealed.retain(|_, location| location.generation != number);
                }
                Source::Segment(view) => {
                    let id = view.segment.id();
                    self.segments.retain(|other| other.segment.id() != id);
                }
            }
        }
        self.segments.extend(new);
        self.segments.sort_unstable_by_key(|view| view.segment.id());
        self.manifest = manifest;
    }
}

impl Source {
    fn is_segment(&self, id: SegmentId) -> bool {
        matches!(self, Self::Segment(view) if view.segment.id() == id)
    }
}

/// The live rows of a source as of now.
enum LiveRows<'a> {
    Generation(&'a Generation),
    Segment(&'a Bitmap),
}

impl LiveRows<'_> {
    fn contains(&self, row: u32) -> bool {
        match self {
            Self::Generation(generation) => {
                let (chunk, at) = generation.locate(row);
                chunk.live().contains(at as u32)
            }
            Self::Segment(live) => live.contains(row),
        }
    }
}
