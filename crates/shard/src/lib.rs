//! One replica of one shard: a folder that takes committed commands in order and answers searches.
//!
//! Synchronous and without a network. May not know: replicas, other shards, Raft, wire formats.
//!
//! What was applied is in a key-value database (the truth); segments are files derived from it that make searching fast,
//! built in the background by [`Job`]s, or taken over from another replica that has built them ([`Shard::adopt`]). Readers work on a [`ReadView`], an immutable picture as of one applied index.

mod apply;
pub mod codec;
mod command;
mod damage;
mod error;
mod folder;
mod footprint;
mod growing;
mod home;
mod ids;
mod inspect;
mod jobs;
mod layout;
mod merge;
mod open;
mod options;
pub mod payload;
mod records;
mod requests;
mod retire;
#[cfg(test)]
mod sample;
pub mod search;
mod segment;
mod shard;
mod split;
mod state;
mod stats;
mod steps;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod view;
mod watch;
mod whole;

pub use command::{
    Command, Entry, MAX_DELETED_BY_FILTER, MAX_LISTED_FAILURES, MAX_UPDATED_BY_FILTER, Split, WriteOutcome,
};
pub use damage::DamageReport;
pub use error::ShardError;
pub use growing::{Chunk, Generation, VectorColumn};
pub use home::Home;
pub use inspect::{Finding, Inspected, InspectedSegment, Severity, inspect};
pub use jobs::{Adopted, Job, JobFailure, JobKind};
pub use merge::{Beginning, Comparison, Filling, Frozen, Import, MAX_IMPORTED_REQUESTS, MergeEntry, RememberedRequest};
pub use options::{Engines, ShardOptions, ShardSpec};
pub use search::{SearchContext, SearchOutcome};
pub use segment::{Part, Segment, SegmentId, SegmentName, SegmentVector};
pub use shard::{Shard, WritePressure};
pub use stats::{GenerationStats, SegmentStats, ShardStats, VectorStats};
pub use steps::{Step, StepHook};
pub use view::{AnswerRoom, ReadView, SegmentView};
pub use watch::Touched;
pub use whole::Checkpoint;
