//! What reads and writes answer.

use crate::value::Object;
use crate::{CollectionName, ErrorKind, NamedVectors, PointId, Schema, Value, VersionToken, Violation, limits};

/// A stored point, or the selected parts of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Which point.
    pub id: PointId,
    /// Grows with every write of the point.
    pub version: u64,
    /// The selected part of its payload; `None` if none was selected.
    pub payload: Option<Object>,
    /// The selected vectors by name.
    pub vectors: NamedVectors,
}

/// Bytes of a name, tags and lengths around a value in a message, at most.
const FRAME_BYTES: usize = 16;

impl Record {
    /// A bound on the bytes that the record takes in a message: never less than that, and the same wherever it is computed,
    /// so that whoever gets a page can tell whether its weight ended it.
    pub fn weight(&self) -> usize {
        let vectors = self.vectors.iter().map(|(name, vector)| FRAME_BYTES + name.len() + size_of_val(&vector[..]));
        // The frames are those of the id and of the version.
        3 * FRAME_BYTES + vectors.sum::<usize>() + self.payload.as_ref().map_or(0, object_weight)
    }

    /// Whether these are as many points as one page takes by their weight, so that there may be more.
    pub fn fill_a_page(records: &[Self]) -> bool {
        records.iter().map(Self::weight).sum::<usize>() >= limits::MAX_PAGE_WEIGHT
    }

    /// Ends a page with the point that fills it; false if none does. A page holds one point at least, however heavy.
    pub fn cut_to_a_page(records: &mut Vec<Self>) -> bool {
        let mut weight = 0;
        let filled = records.iter().position(|record| {
            weight += record.weight();
            weight >= limits::MAX_PAGE_WEIGHT
        });
        records.truncate(filled.map_or(records.len(), |last| last + 1));
        filled.is_some()
    }

    /// Why an answer is refused that would be larger than a message.
    pub fn too_heavy() -> Violation {
        let most = limits::MAX_MESSAGE_BYTES >> 20;
        let reason = format!(
            "the points asked for do not fit into an answer of {most} MiB: ask for fewer, or for less of their payloads and vectors, or split the batch"
        );
        Violation::new("", reason)
    }
}

fn object_weight(object: &Object) -> usize {
    object.iter().map(|(name, value)| FRAME_BYTES + name.len() + value_weight(value)).sum()
}

fn value_weight(value: &Value) -> usize {
    FRAME_BYTES
        + match value {
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(value_weight).sum(),
            Value::Object(fields) => object_weight(fields),
        }
}

/// A found point.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundPoint {
    /// Which point.
    pub id: PointId,
    /// How near it is to the query, exactly: greater is nearer.
    pub similarity: f32,
    /// The selected parts of it; `None` if nothing was selected.
    pub record: Option<Box<Record>>,
}

/// The hits of one value of the grouping field.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The value.
    pub key: Value,
    /// The group's best hits, best first.
    pub hits: Vec<FoundPoint>,
}

/// What one search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SearchResult {
    /// The hits, best first; empty with grouping.
    pub hits: Vec<FoundPoint>,
    /// With grouping: the groups, ordered by their best hits.
    pub groups: Vec<Group>,
    /// How the search was run, if that was asked for.
    pub explanation: Option<Box<Explanation>>,
}

/// Where a search's time went and what it did. All times are wall time in microseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explanation {
    /// From arrival to answer.
    pub total_us: u64,
    /// Waiting for a free search thread.
    pub queue_us: u64,
    /// Evaluating the filter and choosing plans.
    pub plan_us: u64,
    /// Walking or scanning.
    pub search_us: u64,
    /// Comparing candidates again at full precision.
    pub rerank_us: u64,
    /// Merging the results of segments and shards.
    pub merge_us: u64,
    /// Reading payloads and vectors of the hits.
    pub hydrate_us: u64,
    /// What was done with each segment.
    pub segments: Vec<SegmentPlan>,
}

/// What a search did with one segment.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentPlan {
    /// The segment's shard.
    pub shard: u64,
    /// The segment's number in its shard; a generation's number if it is growing.
    pub segment: u64,
    /// How the segment is indexed.
    pub index: SegmentIndex,
    /// What was done.
    pub plan: Plan,
    /// Rows of the segment, dead ones included.
    pub rows: u64,
    /// The share of its rows that was expected to pass the filter, 0 to 1.
    pub selectivity: f32,
    /// Candidates kept by a graph walk, or inverted lists read.
    pub breadth: u64,
    /// Comparisons of codes or vectors with the query.
    pub compared: u64,
    /// Candidates compared again at full precision.
    pub reranked: u64,
    /// Wall time spent in it.
    pub duration_us: u64,
}

/// How a segment is indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentIndex {
    /// In memory, not indexed.
    Growing,
    /// Codes without structure.
    Flat,
    /// A proximity graph.
    Graph,
    /// Quantised inverted lists.
    Compact,
}

/// How a segment was searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plan {
    /// Not at all: no row passes the filter.
    Skip,
    /// Every row that passes the filter was compared.
    Scan,
    /// The index was searched among the rows that pass.
    Index,
    /// The index was searched among all rows, and what it found was checked.
    IndexThenCheck,
}

/// What came of a write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteResult {
    /// Points that were inserted, replaced, changed or deleted.
    pub applied: u64,
    /// Points that could not be written, while others were.
    pub failures: Vec<ItemFailure>,
    /// Where the write landed in each shard it touched.
    pub tokens: Vec<VersionToken>,
}

/// A point that could not be written.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemFailure {
    /// Its position in the request's list; 0 where there is none.
    pub index: usize,
    /// Its id.
    pub id: PointId,
    /// What went wrong.
    pub problem: Problem,
}

/// What went wrong with a part of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// What to do about it.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
    /// The offending fields, if the kind is `Invalid`.
    pub violations: Vec<Violation>,
}

/// Which part of a collection a search covered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage {
    /// Shards of the collection.
    pub shards: usize,
    /// Shards that could not be searched, and why.
    pub missing: Vec<(u64, Problem)>,
}

/// A collection as users see it.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    /// Its name.
    pub name: CollectionName,
    /// Its identity: a UUID.
    pub id: u128,
    /// Vectors and declared fields.
    pub schema: Schema,
    /// Into how many shards its points are partitioned.
    pub shards: u32,
    /// How many replicas each shard should have.
    pub replication: u32,
    /// When it was created, in microseconds since 1970.
    pub created_unix_micros: u64,
    /// Figures of the moment, if they were asked for.
    pub statistics: Option<CollectionStatistics>,
}

/// Figures of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectionStatistics {
    /// Every shard takes reads and writes.
    pub ready: bool,
    /// Points that exist.
    pub points: u64,
    /// Of these, the ones in sealed segments.
    pub indexed_points: u64,
    /// Rows of deleted or overwritten points that are still in segments.
    pub dead_rows: u64,
    /// Generations in memory.
    pub growing_segments: u32,
    /// Sealed segments.
    pub sealed_segments: u32,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes of memory that stay resident.
    pub memory_bytes: u64,
    /// Shards.
    pub shards: u32,
    /// A shard's node has too little memory or disk left for writes that add data.
    pub refuses_data: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: usize) -> Record {
        let payload = Object::from([("text".to_owned(), Value::String("x".repeat(text)))]);
        let vectors = NamedVectors::from([("v".to_owned(), vec![0.5; 100])]);
        Record { id: PointId::Num(1), version: 1, payload: Some(payload), vectors }
    }

    #[test]
    fn a_page_ends_with_the_point_that_fills_it() {
        let (light, heavy) = (record(10), record(limits::MAX_PAGE_WEIGHT / 4));
        assert!(light.weight() >= 10 + 400 && light.weight() < 1_000, "{}", light.weight());
        let mut records = vec![heavy.clone(); 3];
        assert!(!Record::cut_to_a_page(&mut records) && !Record::fill_a_page(&records));
        records.extend(vec![heavy.clone(), light.clone(), heavy]);
        assert!(Record::cut_to_a_page(&mut records) && Record::fill_a_page(&records));
        assert_eq!(records.len(), 4);
        let mut records = vec![record(2 * limits::MAX_PAGE_WEIGHT), light];
        assert!(Record::cut_to_a_page(&mut records));
        assert_eq!(records.len(), 1, "however heavy");
        assert!(!Record::cut_to_a_page(&mut Vec::new()));
    }
}
