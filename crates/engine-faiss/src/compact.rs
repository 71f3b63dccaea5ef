//! Compact indexes: FAISS finds candidates by 4-bit product codes in the nearest cells of a partition (IVF-PQ fast-scan: André,
//! Kermarrec, Le Scouarnec 2015; Jégou, Douze, Schmid 2011), and the best are scored on the lossless rows, of which only
//! those are read from disk.

mod inverted;

use std::cell::RefCell;
use std::path::Path;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::{
    BuildControl, Candidate, IndexError, IndexMemory, IndexShape, IndexSpec, PreparedQuery, RowSet, Rows, ScanParams,
    SearchParams, SearchStats, Stop, VectorIndex, inverse_norm,
};
use sagitta_engine::mapped::FileDigest;
use sagitta_model::Metric;

pub(crate) use self::inverted::Inverted;
use crate::kernels::Kernels;
use crate::rows::RowStore;
use crate::vectors::{Scratch, exact_scan, rerank, rerank_or};

/// Fewer rows do not train a partition: such segments are built flat.
const MIN_ROWS: usize = 1024;

/// Rows per cell that the partition is trained on at most: more hardly moves a centre.
const TRAINING_ROWS_PER_LIST: usize = 128;

/// Rows added between two looks at whether to stop.
const BATCH: usize = 16_384;

/// Cells visited when the caller does not say.
const DEFAULT_BREADTH: usize = 32;

/// Re-scored candidates per result, and at least so many: 4-bit codes err more than bytes do.
const RERANK_FACTOR: usize = 10;
const RERANK_MIN: usize = 100;

/// An index of an inverted file.
pub(crate) struct CompactIndex {
    pub(crate) shape: IndexShape,
    pub(crate) rows: RowStore,
    pub(crate) inverted: Inverted,
    pub(crate) kernels: &'static Kernels,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Builds the inverted file of an index.
pub(crate) fn build(
    path: &Path,
    spec: &IndexSpec,
    rows: Rows<'_>,
    control: &BuildControl<'_>,
) -> Result<FileDigest, IndexError> {
    if rows.len() < MIN_ROWS {
        let reason = format!("a compact index wants {MIN_ROWS} rows or more, not {}", rows.len());
        return Err(IndexError::Spec { reason });
    }
    let lists = spec.compact.lists.unwrap_or_else(|| default_lists(rows.len()));
    let dim = padded(spec.dim);
    let codes = spec.compact.codes.unwrap_or(dim / 2);
    if lists == 0 || lists > rows.len() || codes == 0 || !dim.is_multiple_of(codes) {
        let reason = format!("{lists} cells and {codes} codes for {} rows of {dim} dimensions", rows.len());
        return Err(IndexError::Spec { reason });
    }
    let every = (rows.len() / (lists * TRAINING_ROWS_PER_LIST)).max(1);
    let sample = normalised(spec.metric, rows.iter().step_by(every));
    let mut inverted = Inverted::train(dim, lists, codes, spec.metric, &sample, control.threads)?;
    drop(sample);
    let mut added = 0;
    for batch in rows.values().chunks(BATCH * spec.dim) {
        if control.stop.should_stop() {
            return Err(IndexError::Stopped);
        }
        let batch = normalised(spec.metric, batch.chunks(spec.dim));
        inverted.add(&batch, control.threads)?;
        added += batch.len() / dim;
        (control.progress)(added as f32 / rows.len() as f32);
    }
    inverted.write(path)
}

/// About four times the square root of the rows, as a power of two: cells and rows per cell grow alike.
fn default_lists(rows: usize) -> usize {
    let wanted = 4.0 * (rows as f64).sqrt();
    1 << (wanted.log2().floor() as u32)
}

/// Product codes of two dimensions each want an even number of them; the one that is added is zero everywhere.
pub(crate) fn padded(dim: usize) -> usize {
    dim.next_multiple_of(2)
}

/// Rows as FAISS is to compare them: normalised for cosine, padded.
fn normalised<'a>(metric: Metric, rows: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut values = Vec::new();
    for row in rows {
        let factor = if metric == Metric::Cosine { inverse_norm(row) } else { 1.0 };
        values.extend(row.iter().map(|value| value * factor));
        values.resize(values.len() + padded(row.len()) - row.len(), 0.0);
    }
    values
}

impl VectorIndex for CompactIndex {
    fn shape(&self) -> IndexShape {
        self.shape
    }

    fn search(
        &self,
        query: &PreparedQuery,
        params: &SearchParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        out.clear();
        self.shape.check_query(query)?;
        self.shape.check_allow(params.allow)?;
        if params.stop.should_stop() {
            return Err(IndexError::Stopped);
        }
        let wanted = params.k.min(params.allow.map_or(self.shape.rows, Bitmap::count));
        if wanted == 0 {
            return Ok(SearchStats::default());
        }
        let probe = if params.breadth == 0 { DEFAULT_BREADTH } else { params.breadth };
        let probe = probe.min(self.inverted.lists());
        let reranked = rerank_or(params.rerank, params.k, RERANK_FACTOR * params.k, RERANK_MIN);
        let reranked = reranked.min(self.shape.rows);
        let mut stats = SCRATCH.with_borrow_mut(|scratch| {
            self.inverted.search(query.values(), reranked, probe, params.allow, &mut scratch.rows)?;
            rerank(&self.rows, self.kernels, query, params.k, scratch, out)?;
            Ok::<_, IndexError>(SearchStats {
                distances: (self.shape.rows * probe / self.inverted.lists()) as u64,
                expanded: probe as u64,
                reranked: scratch.rows.len() as u64,
            })
        })?;
        if out.len() < wanted {
            // Too few rows that pass in the cells visited: k results exist, and k are returned.
            let rows = params.allow.map_or(RowSet::All, RowSet::Bitmap);
            let scan = ScanParams { stop: params.stop, ..ScanParams::exact(params.k, rows) };
            stats.reranked += self.search_rows(query, &scan, out)?.reranked;
        }
        Ok(stats)
    }

    /// There are no codes to scan row by row: every scan is exact.
    fn search_rows(
        &self,
        query: &PreparedQuery,
        params: &ScanParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        out.clear();
        self.shape.check_query(query)?;
        params.rows.check(self.shape.rows)?;
        SCRATCH.with_borrow_mut(|scratch| exact_scan(self.shape, &self.rows, self.kernels, query, params, scratch, out))
    }

    fn similarities(&self, query: &PreparedQuery, rows: &[u32], out: &mut Vec<f32>) -> Result<(), IndexError> {
        self.shape.check_query(query)?;
        self.rows.similarities(self.kernels, query, rows, out)
    }

    fn read_row(&self, row: u32, out: &mut [f32]) -> Result<(), IndexError> {
        self.rows.read(row, out)
    }

    fn verify(&self, stop: &dyn Stop) -> Result<bool, IndexError> {
        // The inverted file was verified before FAISS read it.
        Ok(self.rows.file().verify_all(&|| stop.should_stop())?)
    }

    fn memory(&self) -> IndexMemory {
        let rows = self.rows.file().bytes().len() as u64;
        IndexMemory { mapped_hot: 0, mapped_cold: rows, heap: self.inverted.bytes() }
    }
}
