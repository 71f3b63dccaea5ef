use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use sagitta_engine::index::IndexEngine;
use sagitta_engine::kv::{Kv, KvEngine, KvError};
use sagitta_env::Env;
use sagitta_model::Schema;

use crate::apply::{Stage, is_split};
use crate::damage::DamageLog;
use crate::folder::Folder;
use crate::footprint::Sampled;
use crate::jobs::JobBoard;
use crate::open;
use crate::records::Installed;
use crate::retire::{Retired, RetiredSegment};
use crate::split::Prepared;
use crate::state::State;
use crate::steps::Step;
use crate::view::ViewContext;
use crate::watch::Watch;
use crate::{Beginning, Engines, Entry, ReadView, ShardError, ShardOptions, ShardSpec, WriteOutcome};

/// A replica of a shard, open.
///
/// One thread applies entries; any number read by [`Shard::view`], which takes no lock; build threads run what
/// [`Shard::next_job`] offers.
pub struct Shard {
    pub(crate) folder: Folder,
    pub(crate) options: ShardOptions,
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) kv_engine: Arc<dyn KvEngine>,
    pub(crate) context: Arc<ViewContext>,
    pub(crate) damages: Arc<DamageLog>,
    pub(crate) jobs: JobBoard,
    pub(crate) retired: Retired,
    pub(crate) prepared: Prepared,
    pub(crate) sampled: Sampled,
    pub(crate) watch: Watch,
    /// Held while a batch or a segment is written and put in place, so that both see all of each other or nothing.
    state: Mutex<State>,
    view: ArcSwap<ReadView>,
    durable_index: AtomicU64,
    /// Where it stood when it came here whole.
    pub(crate) installed: Mutex<Option<Installed>>,
    last_write_us: AtomicU64,
}

/// Whether writes should go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritePressure {
    /// Generations that wait for their segments.
    pub frozen_generations: usize,
    /// More than this and new writes should be refused. What is committed is applied all the same.
    pub max_frozen_generations: usize,
    /// The database waits for its compactions.
    pub database_stopped: bool,
    /// Why the database cannot be written, if it cannot.
    pub database_failing: Option<KvError>,
}

impl WritePressure {
    /// Whether new writes should be refused for now.
    pub fn is_over(&self) -> bool {
        self.frozen_generations > self.max_frozen_generations
            || self.database_stopped
            || self.database_failing.is_some()
    }
}

impl Shard {
    /// Opens the shard in a folder, or makes it. Takes the same time whatever the number of points, unless files were
    /// damaged.
    ///
    /// # Errors
    /// [`ShardError::Identity`] or [`ShardError::NewerFormat`] for a folder that is not this shard's;
    /// [`ShardError::Inconsistent`] and other errors of kind `Corrupt` for a database that must not be used. Damaged
    /// derived files are no error.
    pub fn open(
        dir: &Path,
        spec: ShardSpec,
        engines: Engines,
        env: Env,
        options: ShardOptions,
    ) -> Result<Arc<Self>, ShardError> {
        Self::open_or_begin(dir, spec, None, engines, env, options)
    }

    /// As [`Shard::open`], for a shard that a merge fills: one that is new begins so. It is born where its log begins.
    ///
    /// # Errors
    /// As [`Shard::open`].
    pub fn open_filling(
        dir: &Path,
        spec: ShardSpec,
        beginning: Beginning,
        engines: Engines,
        env: Env,
        options: ShardOptions,
    ) -> Result<Arc<Self>, ShardError> {
        Self::open_or_begin(dir, spec, Some(beginning), engines, env, options)
    }

    fn open_or_begin(
        dir: &Path,
        spec: ShardSpec,
        beginning: Option<Beginning>,
        engines: Engines,
        env: Env,
        options: ShardOptions,
    ) -> Result<Arc<Self>, ShardError> {
        spec.schema.validate()?;
        let folder = Folder::create(dir)?;
        let damages = Arc::new(DamageLog::new(env.clone()));
        let opened = open::open(&folder, &spec, &engines, &options, beginning, &damages)?;
        let ShardSpec { collection, shard, schema } = spec;
        let schema = Arc::new(schema);
        let context = Arc::new(ViewContext { collection, shard, schema, index_engine: engines.index, env });
        let view = opened.state.view(&*opened.kv, &context);
        let applied_index = view.applied_index();
        Ok(Arc::new(Self {
            folder,
            kv: opened.kv,
            kv_engine: engines.kv,
            damages,
            jobs: JobBoard::default(),
            retired: Retired::default(),
            prepared: Prepared::default(),
            sampled: Sampled::default(),
            watch: Watch::default(),
            state: Mutex::new(opened.state),
            view: ArcSwap::from_pointee(view),
            // There is no log of writes besides the caller's: what could be read at opening is on disk.
            durable_index: AtomicU64::new(applied_index),
            installed: Mutex::new(opened.installed),
            last_write_us: AtomicU64::new(micros(&context.env)),
            context,
            options,
        }))
    }

    /// Applies committed entries, in log order, as one atomic batch: readers see all of them or none. Entries that were
    /// applied before are skipped. There is one outcome per entry. A [`crate::Split`] is a batch of its own.
    ///
    /// Bad commands are refused in their outcomes.
    ///
    /// # Errors
    /// All may be tried again, and nothing is done twice; without a split among them, nothing was applied. [`ShardError::Kv`], for
    /// instance for a full disk; errors of kind `Corrupt` if this replica must not go on.
    pub fn apply(&self, entries: &[Entry<'_>]) -> Result<Vec<WriteOutcome>, ShardError> {
        let mut outcomes = Vec::with_capacity(entries.len());
        for batch in entries.chunk_by(|one, next| !is_split(one) && !is_split(next)) {
            match self.apply_batch(batch) {
                Ok(decided) => outcomes.extend(decided),
                Err(error) => {
                    let indexes = entries.iter().map(|entry| entry.index);
                    self.lock_state()?.untold.extend(indexes.zip(outcomes));
                    return Err(error);
                }
            }
        }
        Ok(outcomes)
    }

    fn apply_batch(&self, entries: &[Entry<'_>]) -> Result<Vec<WriteOutcome>, ShardError> {
        let mut state = self.lock_state()?;
        let view = self.view.load_full();
        let mut stage = Stage::new(&state, &view, &*self.kv);
        let outcomes = entries.iter().map(|entry| stage.entry(entry)).collect::<Result<Vec<_>, _>>()?;
        if stage.is_empty() {
            return Ok(outcomes);
        }
        let split = stage.split.take();
        let (batch, changes) = stage.finish(self.schema())?;
        drop(view);
        match split {
            Some(split) => self.divide(&mut state, split, batch, changes)?,
            None => {
                self.kv.write(&batch)?;
                self.watch.note(&changes);
                state.commit(changes);
            }
        }
        state.untold.clear();
        let growing = &state.growing;
        if growing.rows() >= self.options.seal_rows || growing.vector_bytes() >= self.options.seal_bytes {
            state.freeze();
        }
        self.publish(&state);
        self.last_write_us.store(micros(&self.context.env), Ordering::Relaxed);
        drop(state);
        if split.is_some() {
            self.settle_split()?;
        }
        Ok(outcomes)
    }

    /// Makes a split durable at once, so that it is hardly ever applied again.
    fn settle_split(&self) -> Result<(), ShardError> {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "a split is applied, but not yet on disk");
        }
        self.options.step_hook.done(Step::DividedFlushed)
    }

    /// The log index up to which everything is applied and visible.
    pub fn applied_index(&self) -> u64 {
        self.view.load().applied_index()
    }

    /// Term of the log entry at [`Shard::applied_index`].
    pub fn applied_term(&self) -> u64 {
        self.view.load().applied_term()
    }

    /// The log index up to which everything survives a crash: the log is needed only after it.
    pub fn durable_index(&self) -> u64 {
        self.durable_index.load(Ordering::Acquire)
    }

    /// The log index up to which every live row is in a sealed segment. [`Shard::freeze`] makes it move on.
    pub fn indexed_index(&self) -> u64 {
        self.view.load().indexed_index()
    }

    /// Makes everything that is applied durable; returns the durable index.
    ///
    /// # Errors
    /// [`ShardError::Kv`]; nothing is lost, and the next flush covers it.
    pub fn flush(&self) -> Result<u64, ShardError> {
        let (durable_index, retired) = self.flush_database()?;
        self.retired.clean(&self.folder, &retired);
        Ok(durable_index)
    }

    /// The present state, for reading.
    pub fn view(&self) -> Arc<ReadView> {
        self.view.load_full()
    }

    /// Ends the growing generation, so that its rows are sealed as soon as a build thread is free.
    ///
    /// # Errors
    /// [`ShardError::Inconsistent`] after a panic.
    pub fn freeze(&self) -> Result<(), ShardError> {
        let mut state = self.lock_state()?;
        state.freeze();
        self.publish(&state);
        Ok(())
    }

    /// Whether writes should go on.
    pub fn write_pressure(&self) -> WritePressure {
        let health = self.kv.health();
        let view = self.view.load();
        WritePressure {
            frozen_generations: view.frozen().count(),
            max_frozen_generations: self.options.max_frozen_generations,
            database_stopped: health.write_stopped,
            database_failing: health.write_error,
        }
    }

    /// What the collection holds.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.context.schema
    }

    /// How the shard is set.
    pub fn options(&self) -> &ShardOptions {
        &self.options
    }

    pub(crate) fn index_engine(&self) -> &dyn IndexEngine {
        &*self.context.index_engine
    }

    pub(crate) fn env(&self) -> &Env {
        &self.context.env
    }

    /// Whether nothing was written for a while.
    pub(crate) fn is_idle(&self) -> bool {
        let idle_us = micros(self.env()).saturating_sub(self.last_write_us.load(Ordering::Relaxed));
        u128::from(idle_us) >= self.options.idle_after.as_micros()
    }

    /// Flushes; returns the durable index and the segments whose folders may go now.
    pub(crate) fn flush_database(&self) -> Result<(u64, Vec<RetiredSegment>), ShardError> {
        let retired = self.retired.list();
        let applied_index = self.applied_index();
        self.kv.flush()?;
        let before = self.durable_index.fetch_max(applied_index, Ordering::AcqRel);
        Ok((before.max(applied_index), retired))
    }

    pub(crate) fn lock_state(&self) -> Result<MutexGuard<'_, State>, ShardError> {
        // A panic between writing and putting in place leaves memory behind the database.
        let poisoned = |_| ShardError::Inconsistent { what: "a thread panicked while it changed the shard".to_owned() };
        self.state.lock().map_err(poisoned)
    }

    /// Shows the state to readers.
    pub(crate) fn publish(&self, state: &State) {
        self.view.store(Arc::new(state.view(&*self.kv, &self.context)));
    }
}

fn micros(env: &Env) -> u64 {
    u64::try_from(env.now().as_micros()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("folder", &self.folder.root())
            .field("applied_index", &self.applied_index())
            .finish_non_exhaustive()
    }
}
