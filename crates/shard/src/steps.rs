use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ShardError;

/// A step of building and installing a segment, of splitting a shard or of trimming one, that has just been done: where a crash test can cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The temporary folder exists.
    FolderMade,
    /// The table of ids is written.
    IdsWritten,
    /// Its copy is in the database.
    IdsCopied,
    /// All vector indexes are built.
    VectorsIndexed,
    /// The payload index is written.
    PayloadIndexed,
    /// The segment's manifest is written.
    ManifestWritten,
    /// The temporary folder and what is in it are on disk.
    FolderSynced,
    /// The folder has its name.
    FolderNamed,
    /// The segment is open; nothing refers to it yet.
    Opened,
    /// The database names the segment, in memory.
    Installed,
    /// Readers see it.
    Published,
    /// The database names it on disk.
    Flushed,
    /// The folders of the segments that it replaces are gone.
    Cleaned,
    /// The database says what is to be split off.
    HalfNoted,
    /// Its database is there, under another name.
    HalfDatabase,
    /// So are the files of its segments.
    HalfSegments,
    /// All that is on disk.
    HalfSynced,
    /// It has its name.
    HalfNamed,
    /// The database has the split, in memory.
    Divided,
    /// It has it on disk.
    DividedFlushed,
    /// Rows of another shard's points that are in no segment are gone.
    PendingTrimmed,
    /// Some of another shard's points are gone.
    PointsTrimmed,
    /// Some of their rows in segments have tombstones.
    RowsTrimmed,
    /// The database says that nothing is left of them.
    Trimmed,
}

impl Step {
    /// Those of building and installing a segment, in order.
    pub const ALL: [Self; 13] = [
        Self::FolderMade,
        Self::IdsWritten,
        Self::IdsCopied,
        Self::VectorsIndexed,
        Self::PayloadIndexed,
        Self::ManifestWritten,
        Self::FolderSynced,
        Self::FolderNamed,
        Self::Opened,
        Self::Installed,
        Self::Published,
        Self::Flushed,
        Self::Cleaned,
    ];

    /// Those of a split, in order.
    pub const OF_SPLIT: [Self; 7] = [
        Self::HalfNoted,
        Self::HalfDatabase,
        Self::HalfSegments,
        Self::HalfSynced,
        Self::HalfNamed,
        Self::Divided,
        Self::DividedFlushed,
    ];

    /// Those of trimming a shard that was split, in order.
    pub const OF_TRIM: [Self; 4] = [Self::PendingTrimmed, Self::PointsTrimmed, Self::RowsTrimmed, Self::Trimmed];
}

/// What is told about each [`Step`], and may cut the job off there as if the process had died: the job ends with
/// [`ShardError::Stopped`] and cleans nothing up. For crash tests; by default nobody is told.
#[derive(Clone, Default)]
pub struct StepHook(Option<Arc<Hook>>);

struct Hook {
    told: Box<dyn Fn(Step) -> ControlFlow<()> + Send + Sync>,
    cut: AtomicBool,
}

impl StepHook {
    /// Tells `told`, which cuts the job off by breaking.
    pub fn new(told: impl Fn(Step) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(Hook { told: Box::new(told), cut: AtomicBool::new(false) })))
    }

    /// Whether a job was cut off.
    pub fn has_cut(&self) -> bool {
        self.0.as_ref().is_some_and(|hook| hook.cut.load(Ordering::Acquire))
    }

    pub(crate) fn done(&self, step: Step) -> Result<(), ShardError> {
        match &self.0 {
            Some(hook) if (hook.told)(step).is_break() => {
                hook.cut.store(true, Ordering::Release);
                Err(ShardError::Stopped)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for StepHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "StepHook(..)" } else { "StepHook(none)" })
    }
}
