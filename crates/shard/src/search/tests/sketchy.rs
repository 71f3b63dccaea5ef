//! An index that misses rows unless it is asked to look far, and that can be told to be damaged.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::index::{
    BuildControl, Built, Candidate, FilterWalk, IndexEngine, IndexError, IndexFile, IndexMemory, IndexShape, IndexSpec,
    PreparedQuery, RowSet, Rows, ScanParams, SearchParams, SearchStats, Similarities, Stop, VectorIndex,
};
use sagitta_engine::mapped::Damaged;

/// Builds indexes that find a row with the probability that [`share_found`] gives.
#[derive(Clone, Default)]
pub(super) struct SketchyEngine {
    pub(super) shared: Arc<Shared>,
}

#[derive(Default)]
pub(super) struct Shared {
    /// So many searches from now on fail as damaged.
    pub(super) damages: AtomicUsize,
    /// Searches of an index that looked at some rows only.
    pub(super) walks: AtomicUsize,
    pub(super) scans: AtomicUsize,
}

/// The share of the rows that a search of this breadth finds.
pub(super) fn share_found(breadth: usize, selectivity: f64, walk: FilterWalk) -> f64 {
    let penalty = if walk == FilterWalk::Plain { 1.0 / selectivity } else { selectivity.powf(-0.5) };
    1.0 - (-(breadth as f64) / 12.0 / penalty).exp()
}

impl IndexEngine for SketchyEngine {
    fn build(
        &self,
        spec: &IndexSpec,
        rows: Rows<'_>,
        dir: &Path,
        control: &BuildControl<'_>,
    ) -> Result<Built, IndexError> {
        ExactEngine.build(spec, rows, dir, control)
    }

    fn open(&self, dir: &Path, files: &[IndexFile]) -> Result<Arc<dyn VectorIndex>, IndexError> {
        let exact = ExactEngine.open(dir, files)?;
        Ok(Arc::new(SketchyIndex { exact, shared: Arc::clone(&self.shared) }))
    }

    fn similarities(&self) -> &dyn Similarities {
        ExactEngine.similarities()
    }
}

struct SketchyIndex {
    exact: Arc<dyn VectorIndex>,
    shared: Arc<Shared>,
}

impl SketchyIndex {
    fn fail_if_told(&self) -> Result<(), IndexError> {
        let told = self.shared.damages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match told {
            Ok(_) => Err(Damaged { file: "sketchy".into(), block: Some(3), reason: "it was told to be" }.into()),
            Err(_) => Ok(()),
        }
    }
}

impl VectorIndex for SketchyIndex {
    fn shape(&self) -> IndexShape {
        self.exact.shape()
    }

    fn search(
        &self,
        query: &PreparedQuery,
        params: &SearchParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        self.fail_if_told()?;
        self.shared.walks.fetch_add(1, Ordering::Relaxed);
        let rows = self.shape().rows;
        let all = Bitmap::full(rows);
        let allowed = params.allow.unwrap_or(&all);
        let selectivity = allowed.count() as f64 / rows as f64;
        let breadth = if params.breadth == 0 { 40 } else { params.breadth };
        let share = share_found(breadth, selectivity, params.filter_walk);
        let seed = query
            .values()
            .iter()
            .fold(7u64, |hash, value| (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3));
        let mut found = Bitmap::new(rows);
        for row in allowed.iter() {
            // The same row is found by every wider search.
            let dice = (seed ^ u64::from(row)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
            if (dice as f64) < share * (1u64 << 53) as f64 {
                found.set(row);
            }
        }
        self.exact.search_rows(
            query,
            &ScanParams { stop: params.stop, ..ScanParams::exact(params.k, RowSet::Bitmap(&found)) },
            out,
        )?;
        // So few that a scan is not cheaper, although the segments of tests are small.
        Ok(SearchStats { distances: breadth as u64 / 2, expanded: 0, reranked: out.len() as u64 })
    }

    fn search_rows(
        &self,
        query: &PreparedQuery,
        params: &ScanParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        self.fail_if_told()?;
        self.shared.scans.fetch_add(1, Ordering::Relaxed);
        self.exact.search_rows(query, params, out)
    }

    fn similarities(&self, query: &PreparedQuery, rows: &[u32], out: &mut Vec<f32>) -> Result<(), IndexError> {
        self.exact.similarities(query, rows, out)
    }

    fn read_row(&self, row: u32, out: &mut [f32]) -> Result<(), IndexError> {
        self.exact.read_row(row, out)
    }

    fn verify(&self, stop: &dyn Stop) -> Result<bool, IndexError> {
        self.exact.verify(stop)
    }

    fn memory(&self) -> IndexMemory {
        self.exact.memory()
    }
}
