//! Putting a new segment in the place of what it was made of.
//!
//! The order, each step durable or harmless before the next: build in a temporary folder, sync it, give it its name; then,
//! under the writer's lock, one batch in the database that names the new segment, forgets its sources and buries the
//! rows that died while it was built; then the view; then a flush; then the folders of the sources go. A crash before the
//! batch is on disk leaves a folder that nothing names, and the sources as they were.
//!
//! A source whose rows are not all in the new segment stays without those that are, or, if it is a frozen generation, grows again: that
//! is so for segments that come from elsewhere ([`super::adopt`]), never for those that were built of it.

use std::sync::Arc;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::BuildControl;
use sagitta_engine::kv::WriteBatch;
use sagitta_model::{PointId, Schema};

use super::rows::{BuildRows, NO_ROW};
use crate::codec::Record;
use crate::layout::{HEAD_KEY, Key, MANIFEST_KEY, META, PENDING, SEGMENT_IDS, TOMBSTONES};
use crate::records::{Head, Manifest};
use crate::retire::RetiredSegment;
use crate::state::State;
use crate::steps::Step;
use crate::{Generation, ReadView, Segment, SegmentId, SegmentView, Shard, ShardError};

/// What a segment is made of, or takes rows over from, as of the view it is made from.
pub(super) enum Source {
    Generation(Arc<Generation>),
    Segment(SegmentView),
}

/// What an installation leaves of a source.
enum Left {
    /// Nothing: no row is alive any more, so it goes.
    Nothing,
    /// All but these rows, which are in the new segment from now on.
    AllBut(Vec<u32>),
    /// These rows of a frozen generation, which goes: they grow again. The replica that built the segment froze its generation a
    /// little earlier, so that there they have been growing all along, and are sealed together with what comes next.
    Growing(Vec<u32>),
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
            return self.install(&sources, &mapping, None).map(drop);
        }
        let id = self.lock_state()?.next_segment();
        let built = self.build_segment(id, &rows, control);
        self.install_or_clean_up(id, &sources, &mapping, built).map(drop)
    }

    /// Installs what came of making a segment; if nothing did, removes what is left of it. Says how many of its rows are alive.
    pub(super) fn install_or_clean_up(
        &self,
        id: SegmentId,
        sources: &[Source],
        mapping: &[Vec<u32>],
        made: Result<Arc<Segment>, ShardError>,
    ) -> Result<usize, ShardError> {
        let installed = made.and_then(|segment| self.install(sources, mapping, Some(segment)));
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
    ) -> Result<usize, ShardError> {
        let steps = &self.options.step_hook;
        let mut state = self.lock_state()?;
        let (live, left) = state.take_over(sources, mapping, segment.as_ref().map_or(0, |segment| segment.rows()))?;
        let live_rows = live.count();
        let view = segment.map(|segment| SegmentView { segment, live: Arc::new(live) });
        let sources: Vec<_> = sources.iter().zip(left).collect();
        let manifest = state.manifest_with(&sources, view.as_ref());
        self.kv.write(&state.installation(&manifest, &sources, view.as_ref()))?;
        steps.done(Step::Installed)?;
        self.retired.add(sources.iter().filter_map(|(source, left)| source.retired(left)));
        state.install(manifest, &sources, view, self.schema());
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
        steps.done(Step::Cleaned)?;
        Ok(live_rows)
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
    fn retired(&self, left: &Left) -> Option<RetiredSegment> {
        match (self, left) {
            (Self::Segment(view), Left::Nothing) => {
                Some(RetiredSegment { id: view.segment.id(), damaged: view.segment.is_damaged() })
            }
            _ => None,
        }
    }

    /// Whether a view has it.
    pub(super) fn is_in(&self, view: &ReadView) -> bool {
        match self {
            Self::Generation(generation) => {
                view.generations().iter().any(|other| other.number() == generation.number())
            }
            Self::Segment(own) => view.segments().iter().any(|other| other.segment.id() == own.segment.id()),
        }
    }
}

fn forget_generation(batch: &mut WriteBatch, generation: &Generation) {
    let (start, end) = (generation.number(), generation.number() + 1);
    batch.delete_range(PENDING, &Key::generation(start), &Key::generation(end));
}

/// The id of a row of a generation.
fn id_of(generation: &Generation, row: u32) -> PointId {
    let (chunk, at) = generation.locate(row);
    chunk.ids()[at]
}

impl State {
    /// What is written when a segment takes the place of its sources.
    fn installation(&self, manifest: &Manifest, sources: &[(&Source, Left)], new: Option<&SegmentView>) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(META, MANIFEST_KEY, &manifest.to_sealed());
        for (source, left) in sources {
            self.release(&mut batch, source, left, self.growing_after(sources));
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

    /// Number of the generation that grows once these are gone.
    fn growing_after(&self, sources: &[(&Source, Left)]) -> u32 {
        let growing = self.growing.number();
        let goes = |(source, left): &(&Source, Left)| match (source, left) {
            (Source::Generation(generation), Left::Nothing) => generation.number() == growing,
            _ => false,
        };
        growing + u32::from(sources.iter().any(goes))
    }

    /// Takes out of the database what a source loses.
    fn release(&self, batch: &mut WriteBatch, source: &Source, left: &Left, growing: u32) {
        match (source, left) {
            (Source::Generation(generation), Left::Nothing) => forget_generation(batch, generation),
            (Source::Generation(generation), Left::Growing(rest)) => {
                forget_generation(batch, generation);
                let now = self.present(generation);
                for &row in rest {
                    let (chunk, at) = now.locate(row);
                    let (key, version) = (Key::pending(growing, chunk.ids()[at]), chunk.versions()[at]);
                    batch.put(PENDING, &key, &version.to_le_bytes());
                }
                batch.put(META, HEAD_KEY, &Head { generation: growing, ..self.head }.to_sealed());
            }
            (Source::Generation(generation), Left::AllBut(taken)) => {
                for &row in taken {
                    batch.delete(PENDING, &Key::pending(generation.number(), id_of(generation, row)));
                }
            }
            (Source::Segment(view), Left::Nothing) => {
                let (start, end) = (Key::segment(view.segment.id()), Key::segment(view.segment.id() + 1));
                batch.delete_range(TOMBSTONES, &start, &end);
                batch.delete_range(SEGMENT_IDS, &start, &end);
            }
            (Source::Segment(view), Left::AllBut(taken)) => {
                for &row in taken {
                    batch.put(TOMBSTONES, &Key::tombstone(view.segment.id(), row), &[]);
                }
            }
            (Source::Segment(_), Left::Growing(_)) => unreachable!("only rows of generations grow"),
        }
    }

    /// A number for a segment to be. It is used once, at least until a crash before anything refers to it.
    pub(super) fn next_segment(&mut self) -> SegmentId {
        let id = self.manifest.next_segment;
        self.manifest.next_segment += 1;
        id
    }

    /// The rows of a new segment that take the place of live rows: not of those that were overwritten or deleted while it was
    /// made. And what that leaves of each source.
    fn take_over(
        &self,
        sources: &[Source],
        mapping: &[Vec<u32>],
        rows: usize,
    ) -> Result<(Bitmap, Vec<Left>), ShardError> {
        let mut live = Bitmap::new(rows);
        let mut left = Vec::with_capacity(sources.len());
        for (source, mapping) in sources.iter().zip(mapping) {
            let now = self.live_rows(source)?;
            let mut taken = Vec::new();
            for (row, &new) in (0..).zip(mapping) {
                if new != NO_ROW && now.contains(row) {
                    live.set(new);
                    taken.push(row);
                }
            }
            left.push(match now {
                _ if taken.len() == now.count() => Left::Nothing,
                LiveRows::Generation(now) if now.number() != self.growing.number() && !taken.is_empty() => {
                    // It may have grown, and been frozen, since the mapping was made.
                    let is_left = |row: &u32| mapping.get(*row as usize).is_none_or(|new| *new == NO_ROW);
                    Left::Growing(now.live_rows().filter(is_left).collect())
                }
                _ => Left::AllBut(taken),
            });
        }
        Ok((live, left))
    }

    fn live_rows(&self, source: &Source) -> Result<LiveRows<'_>, ShardError> {
        let rows = match source {
            Source::Generation(generation) => self.generation(generation.number()).map(|now| LiveRows::Generation(now)),
            Source::Segment(view) => {
                let now = self.segments.iter().find(|other| other.segment.id() == view.segment.id());
                now.map(|now| LiveRows::Segment(&now.live))
            }
        };
        rows.ok_or_else(|| ShardError::Inconsistent {
            what: "the source of a new segment was replaced while it was built".to_owned(),
        })
    }

    fn manifest_with(&self, sources: &[(&Source, Left)], new: Option<&SegmentView>) -> Manifest {
        let mut manifest = self.manifest.clone();
        let goes = |(source, left): &(&Source, Left), id| matches!(left, Left::Nothing) && source.is_segment(id);
        manifest.segments.retain(|entry| !sources.iter().any(|source| goes(source, entry.id)));
        manifest.segments.extend(new.map(|view| *view.segment.entry()));
        manifest.segments.sort_unstable_by_key(|entry| entry.id);
        manifest
    }

    fn install(&mut self, manifest: Manifest, sources: &[(&Source, Left)], new: Option<SegmentView>, schema: &Schema) {
        let mut growing = Vec::new();
        for (source, left) in sources {
            match (source, left) {
                (Source::Generation(generation), Left::Nothing) => self.drop_generation(generation.number()),
                (Source::Generation(generation), Left::Growing(rest)) => {
                    growing.push(self.present(generation).rows_of(rest, schema));
                    self.drop_generation(generation.number());
                }
                (Source::Generation(generation), Left::AllBut(taken)) => {
                    for &row in taken {
                        self.unsealed.remove(&id_of(generation, row));
                    }
                    Arc::make_mut(self.generation_mut(generation.number())).kill_all(taken);
                }
                (Source::Segment(view), Left::Nothing) => {
                    let id = view.segment.id();
                    self.segments.retain(|other| other.segment.id() != id);
                }
                (Source::Segment(view), Left::AllBut(taken)) => {
                    let live = Arc::make_mut(&mut self.segment_mut(view.segment.id()).live);
                    taken.iter().for_each(|row| live.clear(*row));
                }
                (Source::Segment(_), Left::Growing(_)) => unreachable!("only rows of generations grow"),
            }
        }
        growing.into_iter().for_each(|rows| self.grow(rows));
        self.segments.extend(new);
        self.segments.sort_unstable_by_key(|view| view.segment.id());
        self.manifest = manifest;
    }

    /// A source as it is now.
    fn present(&self, source: &Generation) -> &Arc<Generation> {
        self.generation(source.number()).expect("invariant: nobody else removes what is being replaced")
    }

    fn drop_generation(&mut self, number: u32) {
        self.unsealed.retain(|_, location| location.generation != number);
        if self.growing.number() == number {
            // Frozen first, so that the number is not used again.
            self.freeze();
        }
        self.frozen.retain(|other| other.number() != number);
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
    fn count(&self) -> usize {
        match self {
            Self::Generation(generation) => generation.live(),
            Self::Segment(live) => live.count(),
        }
    }

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
