//! The vocabulary that every other crate shares: ids, vectors, payloads, filters, schemas, queries and hits.
//!
//! Plain data and pure functions. May not know: storage, the network, wire formats, time, threads.

pub mod answer;
pub mod datetime;
pub mod error;
pub mod filter;
pub mod hash;
pub mod hit;
pub mod id;
pub mod limits;
pub mod metric;
pub mod operation;
pub mod path;
pub mod point;
pub mod query;
pub mod schema;
pub mod shard;
pub mod topology;
pub mod value;
pub mod write;

pub use answer::{
    CollectionInfo, CollectionStatistics, Coverage, Explanation, FoundPoint, Group, ItemFailure, Plan, Problem, Record,
    SearchResult, SegmentIndex, SegmentPlan, WriteResult,
};
pub use error::{ErrorKind, Violation};
pub use filter::{Condition, Filter, Number, Range, Scalar, Test};
pub use hash::{HashRange, shard_hash};
pub use hit::{Hit, TopK, merge};
pub use id::PointId;
pub use metric::Metric;
pub use operation::{MergeStep, NodeChange, OperationInfo, OperationKind, OperationStep, SplitStep, Work};
pub use path::FieldPath;
pub use point::{NamedVectors, Point};
pub use query::{
    Consistency, Effort, GroupBy, Knobs, PayloadSelection, SearchQuery, Selection, VectorSelection, VersionToken,
};
pub use schema::{CollectionName, FieldType, IndexPolicy, Schema, VectorSpec};
pub use shard::{Elsewhere, Page, ShardError, ShardRef, Tokens};
pub use topology::{
    ClusterInfo, Health, NewCluster, NodeInfo, NodeStatus, ReplicaInfo, ReplicaLoad, ReplicaRole, ReplicaTold,
    ShardInfo,
};
pub use value::{Object, Value};
pub use write::{Change, PayloadChange, Target, Wait};
