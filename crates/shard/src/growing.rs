//! Rows that are in no segment yet, in memory.

use std::sync::Arc;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::inverse_norm;
use sagitta_model::{Metric, Object, PointId, Schema};

/// Bytes of vectors up to which chunks are merged: beyond, a scan gains nothing from longer ones.
const MAX_MERGED_BYTES: usize = 4 << 20;

/// The newest rows, or those that wait for their segment to be built; searched exactly.
///
/// A view's generation does not change: the writer changes a copy, which shares all chunks that are the same.
#[derive(Clone, Debug, Default)]
pub struct Generation {
    number: u32,
    chunks: Vec<Chunk>,
    rows: usize,
    live: usize,
    bytes: usize,
    first_version: Option<u64>,
}

/// Consecutive rows of a generation. Few and large: small ones are merged as they come, so that a row is copied about as
/// often as the number of rows can be halved.
#[derive(Clone, Debug)]
pub struct Chunk {
    start: u32,
    rows: Arc<ChunkRows>,
    live: Arc<Bitmap>,
}

/// What is to be appended to a generation: rows as columns.
#[derive(Debug)]
pub(crate) struct ChunkRows {
    ids: Vec<PointId>,
    versions: Vec<u64>,
    payloads: Vec<Arc<Object>>,
    /// In the order of the schema's names.
    vectors: Vec<VectorColumn>,
}

/// The vectors of one name of a chunk's rows.
#[derive(Clone, Debug)]
pub struct VectorColumn {
    dim: usize,
    metric: Metric,
    values: Vec<f32>,
    inverse_norms: Vec<f32>,
}

impl Generation {
    /// An empty generation.
    pub(crate) fn new(number: u32) -> Self {
        Self { number, ..Self::default() }
    }

    /// Counts up with every generation of the shard.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The chunks in the order of their rows.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Number of rows, dead ones included.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of live rows.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Bytes of vectors.
    pub fn vector_bytes(&self) -> usize {
        self.bytes
    }

    /// A version that none of its live rows is older than, if it has any rows.
    pub fn first_version(&self) -> Option<u64> {
        self.first_version
    }

    /// The chunk that holds a row, and the row's number within it.
    pub(crate) fn locate(&self, row: u32) -> (&Chunk, usize) {
        let at = self.chunk_of(row);
        (&self.chunks[at], (row - self.chunks[at].start) as usize)
    }

    /// The live rows, ascending.
    pub(crate) fn live_rows(&self) -> impl Iterator<Item = u32> + '_ {
        self.chunks.iter().flat_map(|chunk| chunk.live.iter().map(|row| chunk.start + row))
    }

    /// A copy of some rows.
    pub(crate) fn rows_of(&self, rows: &[u32], schema: &Schema) -> ChunkRows {
        let mut copy = ChunkRows::with_capacity(schema, rows.len());
        for &row in rows {
            let (chunk, at) = self.locate(row);
            copy.push(chunk.ids()[at], chunk.versions()[at], Arc::clone(&chunk.payloads()[at]));
            for (ordinal, column) in chunk.rows.vectors.iter().enumerate() {
                copy.push_vector(ordinal, column.row(at));
            }
        }
        copy
    }

    /// Appends rows, all alive, and returns the number of the first.
    pub(crate) fn append(&mut self, rows: ChunkRows) -> u32 {
        let start = self.rows as u32;
        let count = rows.ids.len();
        if count == 0 {
            return start;
        }
        self.rows += count;
        self.live += count;
        self.bytes += rows.vector_bytes();
        self.first_version = self.first_version.into_iter().chain(rows.versions.iter().copied()).min();
        self.chunks.push(Chunk { start, rows: Arc::new(rows), live: Arc::new(Bitmap::full(count)) });
        self.merge_small();
        start
    }

    /// Marks a row as dead.
    pub(crate) fn kill(&mut self, row: u32) {
        let at = self.chunk_of(row);
        let chunk = &mut self.chunks[at];
        let live = Arc::make_mut(&mut chunk.live);
        self.live -= live.count();
        live.clear(row - chunk.start);
        self.live += live.count();
    }

    /// Marks many rows as dead, which is seen in [`Generation::first_version`], too.
    pub(crate) fn kill_all(&mut self, rows: &[u32]) {
        for &row in rows {
            let at = self.chunk_of(row);
            let chunk = &mut self.chunks[at];
            Arc::make_mut(&mut chunk.live).clear(row - chunk.start);
        }
        self.recount();
    }

    /// Marks the rows of all ids but these as dead.
    pub(crate) fn retain(&mut self, keep: impl Fn(PointId) -> bool) {
        for chunk in &mut self.chunks {
            let mut live = Bitmap::new(chunk.rows.ids.len());
            chunk.live.iter().filter(|row| keep(chunk.rows.ids[*row as usize])).for_each(|row| live.set(row));
            chunk.live = Arc::new(live);
        }
        self.recount();
    }

    fn recount(&mut self) {
        self.live = self.chunks.iter().map(|chunk| chunk.live.count()).sum();
        let versions = self.chunks.iter().flat_map(|chunk| chunk.live.iter().map(|row| chunk.versions()[row as usize]));
        self.first_version = versions.min();
    }

    fn chunk_of(&self, row: u32) -> usize {
        assert!((row as usize) < self.rows, "row {row} of a generation of {}", self.rows);
        self.chunks.partition_point(|chunk| chunk.start <= row) - 1
    }

    /// Keeps each chunk larger than the next, up to a size.
    fn merge_small(&mut self) {
        while let [.., before, last] = &self.chunks[..] {
            let bytes = before.rows.vector_bytes() + last.rows.vector_bytes();
            if before.len() > last.len() || bytes > MAX_MERGED_BYTES {
                return;
            }
            let merged = before.merge(last);
            self.chunks.truncate(self.chunks.len() - 2);
            self.chunks.push(merged);
        }
    }
}

impl Chunk {
    /// Number in the generation of the chunk's first row.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// Number of rows, dead ones included.
    pub fn len(&self) -> usize {
        self.rows.ids.len()
    }

    /// Whether there are none; never so in a view.
    pub fn is_empty(&self) -> bool {
        self.rows.ids.is_empty()
    }

    /// Which of the chunk's rows (0 is its first) are alive: neither deleted nor overwritten.
    pub fn live(&self) -> &Bitmap {
        &self.live
    }

    /// Ids by row; not sorted.
    pub fn ids(&self) -> &[PointId] {
        &self.rows.ids
    }

    /// Versions by row.
    pub fn versions(&self) -> &[u64] {
        &self.rows.versions
    }

    /// Payloads by row.
    pub fn payloads(&self) -> &[Arc<Object>] {
        &self.rows.payloads
    }

    /// Vectors of one name, by its position in the schema ([`crate::ReadView::vector_ordinal`]).
    pub fn vectors(&self, ordinal: usize) -> &VectorColumn {
        &self.rows.vectors[ordinal]
    }

    fn merge(&self, next: &Self) -> Self {
        let (a, b) = (&self.rows, &next.rows);
        let vectors = a.vectors.iter().zip(&b.vectors).map(|(a, b)| VectorColumn {
            dim: a.dim,
            metric: a.metric,
            values: [&a.values[..], &b.values].concat(),
            inverse_norms: [&a.inverse_norms[..], &b.inverse_norms].concat(),
        });
        let rows = ChunkRows {
            ids: [&a.ids[..], &b.ids].concat(),
            versions: [&a.versions[..], &b.versions].concat(),
            payloads: [&a.payloads[..], &b.payloads].concat(),
            vectors: vectors.collect(),
        };
        let mut live = Bitmap::new(rows.ids.len());
        self.live.iter().for_each(|row| live.set(row));
        next.live.iter().for_each(|row| live.set(self.len() as u32 + row));
        Self { start: self.start, rows: Arc::new(rows), live: Arc::new(live) }
    }
}

impl ChunkRows {
    /// No rows, with room for some.
    pub(crate) fn with_capacity(schema: &Schema, rows: usize) -> Self {
        let column = |dim: usize, metric| VectorColumn {
            dim,
            metric,
            values: Vec::with_capacity(rows * dim),
            inverse_norms: Vec::new(),
        };
        Self {
            ids: Vec::with_capacity(rows),
            versions: Vec::with_capacity(rows),
            payloads: Vec::with_capacity(rows),
            vectors: schema.vectors.values().map(|spec| column(spec.dim, spec.metric)).collect(),
        }
    }

    /// Adds a row; its vectors, in the order of the schema's names, are pushed by [`ChunkRows::push_vector`].
    pub(crate) fn push(&mut self, id: PointId, version: u64, payload: Arc<Object>) {
        self.ids.push(id);
        self.versions.push(version);
        self.payloads.push(payload);
    }

    /// Adds the vector of the last row with this position in the schema.
    pub(crate) fn push_vector(&mut self, ordinal: usize, values: &[f32]) {
        let column = &mut self.vectors[ordinal];
        debug_assert_eq!(values.len(), column.dim);
        column.values.extend_from_slice(values);
        if column.metric == Metric::Cosine {
            column.inverse_norms.push(inverse_norm(values));
        }
    }

    /// Ids by row.
    pub(crate) fn ids(&self) -> &[PointId] {
        &self.ids
    }

    /// Vector names of the schema.
    pub(crate) fn vector_names(&self) -> usize {
        self.vectors.len()
    }

    fn vector_bytes(&self) -> usize {
        self.vectors.iter().map(|column| size_of_val(&column.values[..])).sum()
    }
}

impl VectorColumn {
    /// Values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// One per row for cosine; empty for other metrics.
    pub fn inverse_norms(&self) -> &[f32] {
        &self.inverse_norms
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..][..self.dim]
    }
}

#[cfg(test)]
mod tests {
    use sagitta_model::{IndexPolicy, VectorSpec};

    use super::*;

    fn schema() -> Schema {
        let spec = VectorSpec { dim: 2, metric: Metric::Cosine, index: IndexPolicy::Auto };
        Schema { vectors: [("v".to_owned(), spec)].into(), fields: Default::default() }
    }

    fn rows(from: u64, count: u64) -> ChunkRows {
        let mut rows = ChunkRows::with_capacity(&schema(), count as usize);
        for n in from..from + count {
            rows.push(PointId::Num(n), n + 10, Arc::default());
            rows.push_vector(0, &[n as f32, 1.0]);
        }
        rows
    }

    #[test]
    fn rows_keep_their_numbers_and_death_while_chunks_are_merged() {
        let mut generation = Generation::new(3);
        let mut next = 0;
        for count in [1, 1, 5, 1, 2, 1, 0, 40, 1, 1, 1] {
            assert_eq!(u64::from(generation.append(rows(next, count))), next);
            if next.is_multiple_of(2) && count > 0 {
                generation.kill(next as u32);
            }
            next += count;
        }
        let sizes: Vec<_> = generation.chunks().iter().map(Chunk::len).collect();
        assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
        let mut live = 0;
        for row in 0..next as u32 {
            let (chunk, at) = generation.locate(row);
            assert_eq!(chunk.ids()[at], PointId::Num(row.into()));
            assert_eq!(chunk.vectors(0).row(at), [row as f32, 1.0]);
            assert_eq!(chunk.vectors(0).inverse_norms()[at], inverse_norm(&[row as f32, 1.0]));
            live += usize::from(chunk.live().contains(at as u32));
        }
        assert_eq!((generation.rows(), generation.live(), generation.first_version()), (54, live, Some(10)));
        assert!(live < 54);
    }

    #[test]
    fn rows_that_are_retained_are_those_of_the_ids_that_were_alive() {
        let mut generation = Generation::new(0);
        for (from, count) in [(0, 50), (50, 20), (70, 3)] {
            generation.append(rows(from, count));
        }
        assert!(generation.chunks().len() > 1);
        [1, 2, 71].into_iter().for_each(|row| generation.kill(row));
        generation.retain(|id| matches!(id, PointId::Num(n) if n % 3 != 0));
        let live = generation.chunks().iter().flat_map(|chunk| chunk.live().iter().map(|row| chunk.start() + row));
        let expected: Vec<u32> = (0..73).filter(|row| row % 3 != 0 && ![1, 2, 71].contains(row)).collect();
        assert_eq!((live.collect::<Vec<_>>(), generation.live()), (expected.clone(), expected.len()));
    }

    #[test]
    fn a_view_of_a_generation_does_not_change() {
        let mut generation = Generation::new(0);
        generation.append(rows(0, 3));
        let view = generation.clone();
        generation.kill(1);
        generation.append(rows(3, 9));
        assert_eq!((view.rows(), view.live()), (3, 3));
        assert!(view.chunks()[0].live().contains(1));
        assert_eq!((generation.rows(), generation.live()), (12, 11));
    }
}
