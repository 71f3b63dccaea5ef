//! Every bound on what a request may ask for, in one place. Each keeps one request from starving the others.

/// Longest vector, in dimensions: far above today's embedding models (up to about 8,192).
pub const MAX_DIMENSION: usize = 16_384;
/// Largest component of a vector, so that squared distances stay far inside a 32-bit float.
pub const MAX_MAGNITUDE: f32 = 1e15;
/// Shortest vector that has a direction under cosine, so that its inverse length is a sound 32-bit float.
pub const MIN_NORM: f32 = 1e-15;
/// Named vectors per point.
pub const MAX_VECTORS: usize = 16;
/// Declared payload fields per collection: each costs an index per segment.
pub const MAX_FIELDS: usize = 64;
/// Hits that one search may ask for, and groups times group size.
pub const MAX_K: usize = 10_000;
/// Candidates that a search may be told to visit or to re-rank.
pub const MAX_BREADTH: usize = 100_000;
/// Searches in one batch.
pub const MAX_BATCH_SEARCHES: usize = 1_024;
/// Points in one write batch, and ids in one get or delete.
pub const MAX_BATCH_POINTS: usize = 10_000;
/// Points on one page of a scroll.
pub const MAX_PAGE: usize = 10_000;
/// Weight of the points on one page of a scroll: the page ends with the point that reaches it, well below a message.
pub const MAX_PAGE_WEIGHT: usize = 16 << 20;
/// Weight of the points that one get or one batch of searches may return: more would not fit into a message, and
/// gathering it would take the memory of others.
pub const MAX_ANSWER_WEIGHT: usize = 4 * MAX_MESSAGE_BYTES;
/// Levels of conditions within conditions.
pub const MAX_FILTER_DEPTH: usize = 8;
/// Conditions in one filter, over all levels.
pub const MAX_FILTER_CONDITIONS: usize = 256;
/// Values in one any-of condition, and ids in one has-id condition.
pub const MAX_FILTER_VALUES: usize = 10_000;
/// Encoded size of one payload, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// Levels of objects and arrays in a payload.
pub const MAX_PAYLOAD_DEPTH: usize = 32;
/// Length of a dotted field path, in bytes.
pub const MAX_PATH_BYTES: usize = 256;
/// Length of a keyword, and of text that it is filtered by, in bytes: longer text belongs into an undeclared field.
pub const MAX_KEYWORD_BYTES: usize = 4_096;
/// Length of a collection's or vector's name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// Shards of a collection.
pub const MAX_SHARDS: u32 = 1_024;
/// Replicas of a shard: seven survive three losses at once, and every write waits for the majority of them.
pub const MAX_REPLICATION: u32 = 7;
/// Size of one gRPC message, in bytes: room for a full write batch of 1,536-dimensional vectors.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
