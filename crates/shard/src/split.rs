//! Splitting a shard in two.
//!
//! Every replica applies the entry at the same index, for itself. The order, each step durable or harmless before the next: the
//! new shard is noted in the database; a checkpoint of it and links to the segments' files are made in the folder `half`; that is
//! synced, and renamed to the new shard's folder; then one batch leaves this shard the lower half and moves the applied
//! index. A crash before that batch is on disk has the entry applied again: the folder that has its name by then is complete,
//! perhaps in use and further on, and stays as it is; one that has not is made anew.
//!
//! Nothing is rewritten. What is outside of a shard's range is dead from the entry on: segments by their live bitmaps, generations by
//! theirs, the database by a look at the range. What that takes in memory follows from the ids, so it is found again at every
//! opening, until [`crate::JobKind::Trim`] has removed the rows. The new shard finds out what it is when it is first opened.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::kv::{KvError, KvRead, WriteBatch};
use sagitta_model::{HashRange, shard_hash};

use crate::codec::Record;
use crate::folder::{Folder, io_error, remove, sync_all, sync_folder};
use crate::layout::{HALF_KEY, HEAD_KEY, IDENTITY_KEY, META};
use crate::records::{Half, Identity, Relative, Span, SplitPoint};
use crate::state::{Changes, State};
use crate::steps::Step;
use crate::whole::link_all;
use crate::{Generation, Segment, SegmentId, SegmentView, Shard, ShardError, Split};

/// Rows below a hash, by segment.
type Rows = HashMap<SegmentId, Arc<Bitmap>>;

/// Rows below a hash, found before the split that needs them.
#[derive(Default)]
pub(crate) struct Prepared(Mutex<Option<(u64, Rows)>>);

/// What a state shows of a range.
struct Narrowed {
    span: Arc<Span>,
    segments: Vec<SegmentView>,
    frozen: Vec<Arc<Generation>>,
    growing: Arc<Generation>,
}

impl Shard {
    /// Does beside the thread that applies what a split at this hash would do on it: finds out which rows stay, and
    /// flushes. A split is right without it, and takes longer the more rows have come since. Does nothing when the hash does not
    /// divide the shard's, as after the split.
    ///
    /// # Errors
    /// What the database reports; [`ShardError::Io`] when the file system does not let the new shard's folder be made.
    pub fn prepare_split(&self, at: u64) -> Result<(), ShardError> {
        let view = self.view();
        let Some((lower, _)) = view.range().split(at) else { return Ok(()) };
        self.try_out()?;
        let known = self.prepared.known(at);
        let mut rows = HashMap::new();
        for SegmentView { segment, .. } in view.segments() {
            let within = match known.get(&segment.id()) {
                Some(within) => Arc::clone(within),
                None => Arc::new(rows_within(segment, view.snapshot(), lower)?),
            };
            rows.insert(segment.id(), within);
        }
        drop(view);
        let state = self.lock_state()?;
        // The split may have come meanwhile: nobody would ever ask for them.
        if state.span.range.split(at).is_some() {
            *self.prepared.lock() = Some((at, rows));
        }
        drop(state);
        self.flush().map(drop)
    }

    /// The hash that [`Shard::prepare_split`] was called for last, until the split comes or is forgotten.
    pub fn prepared_for(&self) -> Option<u64> {
        self.prepared.lock().as_ref().map(|(at, _)| *at)
    }

    /// The split that was prepared does not come: frees what was found for it.
    pub fn forget_split(&self) {
        *self.prepared.lock() = None;
    }

    /// Index and term of the log entry that it was split off by, if it was: its own log goes on after it.
    pub fn born(&self) -> Option<(u64, u64)> {
        self.view().born()
    }

    /// The hashes of the ids that the shard is responsible for.
    pub fn range(&self) -> HashRange {
        self.view().range()
    }

    /// Carries out a split that was decided, with its batch.
    pub(crate) fn divide(
        &self,
        state: &mut State,
        split: Split,
        mut batch: WriteBatch,
        mut changes: Changes,
    ) -> Result<(), ShardError> {
        let place = self.place_of(split.right)?;
        let (lower, upper) = state.span.range.split(split.at).expect("invariant: decided so");
        let at = SplitPoint { index: changes.head.applied_index, term: changes.head.applied_term };
        let span = |range, shard| state.span.divided(range, Relative { shard, split: at }, state.manifest.next_segment);
        let prepared = self.prepared.take(split.at);
        let narrowed = state.narrowed(Arc::new(span(lower, split.right)), &prepared, &*self.kv)?;
        let points = narrowed.points();
        let half = Half {
            shard: split.right,
            range: upper,
            split: at,
            points: state.head.points - points,
            relatives: span(upper, self.context.shard).relatives,
        };
        self.make_half(state, &half, place)?;

        changes.head.points = points;
        batch.put(META, HEAD_KEY, &changes.head.to_sealed());
        batch.put(META, IDENTITY_KEY, &self.identity(Span::clone(&narrowed.span)).to_sealed());
        batch.delete(META, HALF_KEY);
        self.kv.write(&batch)?;
        self.options.step_hook.done(Step::Divided)?;
        state.commit(changes);
        state.narrow(narrowed);
        Ok(())
    }

    /// Whose database this is.
    pub(crate) fn identity(&self, span: Span) -> Identity {
        self.context.identity(span)
    }

    /// Where the folder of another shard is.
    fn place_of(&self, shard: u64) -> Result<PathBuf, ShardError> {
        let all = self.options.siblings.as_ref();
        all.map(|all| all.join(shard.to_string())).ok_or(ShardError::NoPlace { shard })
    }

    /// Does to a file what a split does to the shard's: a split that is decided and cannot be carried out would end the replica.
    fn try_out(&self) -> Result<(), ShardError> {
        let Some(all) = &self.options.siblings else { return Ok(()) };
        // A leftover of a removed shard, to whoever looks for shards there.
        let place = all.join(format!("{}.tried.removed", self.context.shard));
        let half = self.folder.half();
        // Held, so that nobody is making one.
        let _state = self.lock_state()?;
        remove_half(&self.folder, &*self.kv_engine)?;
        let tried = remove(&place).and_then(|()| {
            let tried = |path: &Path, done: std::io::Result<()>| done.map_err(|source| io_error(path, source));
            let file = self.folder.root().join("tried");
            tried(&half, fs::create_dir(&half))?;
            tried(&file, fs::write(&file, b""))?;
            let linked = tried(&half, fs::hard_link(&file, half.join("tried")));
            remove(&file)?;
            linked?;
            tried(&place, fs::rename(&half, &place))
        });
        let removed = remove(&half).and(remove(&place));
        tried.and(removed)
    }

    /// Makes the folder of the new shard durable and complete under its name, unless it is there. Holding the state, so that neither
    /// entries nor installations come between its parts.
    fn make_half(&self, state: &State, half: &Half, place: PathBuf) -> Result<(), ShardError> {
        let parent = place.parent().expect("invariant: it is in the folder of all shards").to_owned();
        if place.exists() {
            tracing::info!(shard = half.shard, "the new shard of a split is there already");
            return sync_folder(&parent);
        }
        let steps = &self.options.step_hook;
        let mut batch = WriteBatch::new();
        batch.put(META, HALF_KEY, &half.to_sealed());
        self.kv.write(&batch)?;
        steps.done(Step::HalfNoted)?;
        let made = self.fill_half(state).and_then(|folder| {
            let renamed = fs::rename(folder.root(), &place);
            renamed.map_err(|error| io_failure(&place, "naming the new shard's folder", &error))
        });
        if made.is_err()
            && !steps.has_cut()
            && let Err(error) = remove_half(&self.folder, &*self.kv_engine)
        {
            tracing::warn!(%error, "an unfinished half cannot be removed yet");
        }
        made?;
        steps.done(Step::HalfNamed)?;
        sync_folder(&parent)
    }

    /// Makes the folder under another name.
    fn fill_half(&self, state: &State) -> Result<Folder, ShardError> {
        let steps = &self.options.step_hook;
        remove_half(&self.folder, &*self.kv_engine)?;
        let root = self.folder.half();
        let to = Folder::create(&root).map_err(no_space)?;
        self.kv.checkpoint(&to.database())?;
        steps.done(Step::HalfDatabase)?;
        for entry in &state.manifest.segments {
            link_all(&self.folder.segment(entry.id), &to.segment(entry.id)).map_err(no_space)?;
        }
        steps.done(Step::HalfSegments)?;
        // The segments' folders are derived: what a crash leaves of them is made anew.
        sync_all(&to.database()).map_err(no_space)?;
        for path in [to.segments(), root] {
            sync_folder(&path).map_err(no_space)?;
        }
        steps.done(Step::HalfSynced)?;
        Ok(to)
    }
}

/// Removes what a crash has left of the folder of a new shard.
pub(crate) fn remove_half(folder: &Folder, kv: &dyn sagitta_engine::kv::KvEngine) -> Result<(), ShardError> {
    let half = Folder::at(&folder.half());
    if let Err(error) = kv.destroy(&half.database()) {
        tracing::debug!(%error, "the database of an unfinished half is removed file by file");
    }
    remove(half.root())
}

/// The rows of a segment whose ids are in a range: about 10 ns a row when its ids are in memory.
pub(crate) fn rows_within(segment: &Segment, kv: &dyn KvRead, range: HashRange) -> Result<Bitmap, ShardError> {
    segment.read_ids(kv, |ids| {
        let mut within = Bitmap::new(segment.rows());
        for row in 0..segment.rows() as u32 {
            if range.contains(shard_hash(ids.id(row)?)) {
                within.set(row);
            }
        }
        Ok(within)
    })
}

/// Of the live rows of a segment those that are the shard's: its tombstones may not know of a split yet.
pub(crate) fn narrow(live: &mut Bitmap, segment: &Segment, kv: &dyn KvRead, span: &Span) -> Result<(), ShardError> {
    if span.foreign.is_some_and(|below| segment.id() < below) {
        live.and(&rows_within(segment, kv, span.range)?);
    }
    Ok(())
}

impl Prepared {
    fn lock(&self) -> MutexGuard<'_, Option<(u64, Rows)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found for this hash.
    pub(crate) fn known(&self, at: u64) -> Rows {
        self.lock().as_ref().filter(|(prepared, _)| *prepared == at).map(|(_, rows)| rows.clone()).unwrap_or_default()
    }

    /// The same, for the last time.
    fn take(&self, at: u64) -> Rows {
        let taken = self.lock().take();
        taken.filter(|(prepared, _)| *prepared == at).map(|(_, rows)| rows).unwrap_or_default()
    }
}

impl State {
    /// What is left within a part of the range.
    fn narrowed(&self, span: Arc<Span>, prepared: &Rows, kv: &dyn KvRead) -> Result<Narrowed, ShardError> {
        let range = span.range;
        let mut segments = self.segments.clone();
        for view in &mut segments {
            let live = Arc::make_mut(&mut view.live);
            match prepared.get(&view.segment.id()) {
                Some(rows) => live.and(rows),
                None => live.and(&rows_within(&view.segment, kv, range)?),
            }
        }
        let generation = |generation: &Arc<Generation>| {
            let mut narrowed = Generation::clone(generation);
            narrowed.retain(|id| range.holds(id));
            Arc::new(narrowed)
        };
        let (frozen, growing) = (self.frozen.iter().map(generation).collect(), generation(&self.growing));
        Ok(Narrowed { span, segments, frozen, growing })
    }

    fn narrow(&mut self, narrowed: Narrowed) {
        let Narrowed { span, segments, frozen, growing } = narrowed;
        let range = span.range;
        self.unsealed.retain(|id, _| range.holds(*id));
        (self.span, self.segments, self.frozen, self.growing) = (span, segments, frozen, growing);
    }
}

impl Narrowed {
    fn points(&self) -> u64 {
        let sealed: usize = self.segments.iter().map(|view| view.live.count()).sum();
        let unsealed: usize = self.frozen.iter().chain([&self.growing]).map(|generation| generation.live()).sum();
        (sealed + unsealed) as u64
    }
}

/// A full disk goes away by itself: it is told as such, so that the entry is tried again.
fn no_space(error: ShardError) -> ShardError {
    match error {
        ShardError::Io { path, source } => io_failure(&path, "making the new shard's folder", &source),
        error => error,
    }
}

fn io_failure(path: &Path, doing: &str, error: &std::io::Error) -> ShardError {
    KvError::from_io(path, doing, error).into()
}
