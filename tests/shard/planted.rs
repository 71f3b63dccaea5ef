//! The real engines with one planted bug each: proof that the model test would notice.

use std::path::Path;
use std::sync::Arc;

use sagitta_engine::index::{
    BuildControl, Built, Candidate, IndexEngine, IndexError, IndexFile, IndexMemory, IndexShape, IndexSpec,
    PreparedQuery, RowSet, Rows, ScanParams, SearchParams, SearchStats, Similarities, Stop, VectorIndex,
};
use sagitta_engine::kv::{
    EngineMemory, Family, FamilySpec, Kv, KvEngine, KvError, KvHealth, KvOptions, KvRead, Op, ScanRange, VisitRow,
    VisitValue, WriteBatch,
};
use sagitta_model::IndexPolicy;
use sagitta_shard::testing::Rig;
use sagitta_shard::{Engines, Shard};

use crate::rig::RealRig;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A row of a segment that died is not noted.
    SkipsTombstones,
    /// One of the rows that are in no segment is lost when the shard is opened.
    LosesAPendingRow,
    /// Flushing does nothing, so that what is said to be durable is not.
    FlushesNothing,
    /// Deleted points stay in the database.
    KeepsDeletedPoints,
    /// A request is forgotten, so that repeating it does it twice.
    ForgetsRequests,
    /// The vector of another point is read.
    ReadsTheNextVector,
    /// Dead and filtered rows are found.
    FindsExcludedRows,
    /// One candidate too few is found.
    FindsOneTooFew,
    /// What makes a database the new shard's is left in it.
    KeepsTheHalf,
}

impl Bug {
    pub(crate) const ALL: [Self; 8] = [
        Self::SkipsTombstones,
        Self::LosesAPendingRow,
        Self::FlushesNothing,
        Self::KeepsDeletedPoints,
        Self::ForgetsRequests,
        Self::ReadsTheNextVector,
        Self::FindsExcludedRows,
        Self::FindsOneTooFew,
    ];

    /// Those that shards which are split are to show, too.
    pub(crate) const OF_SPLITS: [Self; 5] = [
        Self::SkipsTombstones,
        Self::FlushesNothing,
        Self::KeepsDeletedPoints,
        Self::ForgetsRequests,
        Self::KeepsTheHalf,
    ];
}

/// [`RealRig`] with a bug.
pub(crate) struct PlantedRig {
    real: RealRig,
    bug: Bug,
}

impl PlantedRig {
    pub(crate) fn new(bug: Bug) -> Self {
        Self { real: RealRig::default(), bug }
    }
}

impl Rig for PlantedRig {
    fn engines(&self) -> Engines {
        let Engines { kv, index } = self.real.engines();
        let bug = self.bug;
        Engines {
            kv: Arc::new(PlantedKvEngine { inner: kv, bug }),
            index: Arc::new(PlantedIndexEngine { inner: index, bug }),
        }
    }

    fn crash(&self, shard: Arc<Shard>, dir: &Path, survivors: u64) {
        self.real.crash(shard, dir, survivors);
    }

    fn is_exact(&self) -> bool {
        self.real.is_exact()
    }

    fn policies(&self) -> &[IndexPolicy] {
        self.real.policies()
    }
}

struct PlantedKvEngine {
    inner: Arc<dyn KvEngine>,
    bug: Bug,
}

/// A database, or with `R` a snapshot of one.
struct Planted<R> {
    bug: Bug,
    families: Vec<&'static str>,
    inner: R,
}

impl KvEngine for PlantedKvEngine {
    fn open(&self, dir: &Path, families: &[FamilySpec], options: &KvOptions) -> Result<Arc<dyn Kv>, KvError> {
        let inner = self.inner.open(dir, families, options)?;
        let families = families.iter().map(|family| family.name).collect();
        Ok(Arc::new(Planted { bug: self.bug, families, inner }))
    }

    fn open_read_only(
        &self,
        dir: &Path,
        families: &[FamilySpec],
        options: &KvOptions,
    ) -> Result<Box<dyn KvRead>, KvError> {
        self.inner.open_read_only(dir, families, options)
    }

    fn destroy(&self, dir: &Path) -> Result<(), KvError> {
        self.inner.destroy(dir)
    }

    fn memory(&self) -> EngineMemory {
        self.inner.memory()
    }
}

impl<R> Planted<R> {
    fn name(&self, family: Family) -> &'static str {
        self.families[family.index()]
    }
}

impl Kv for Planted<Arc<dyn Kv>> {
    fn write(&self, batch: &WriteBatch) -> Result<(), KvError> {
        let mut changed = WriteBatch::new();
        for op in batch.ops() {
            match op {
                Op::Put { family, .. } if self.bug == Bug::SkipsTombstones && self.name(family) == "tombstones" => {}
                Op::Put { family, key, .. }
                    if self.bug == Bug::ForgetsRequests
                        && self.name(family) == "meta"
                        && key.starts_with(b"request/") => {}
                Op::Delete { family, .. } if self.bug == Bug::KeepsDeletedPoints && self.name(family) == "points" => {}
                Op::Delete { family, key }
                    if self.bug == Bug::KeepsTheHalf && self.name(family) == "meta" && key == b"half" => {}
                Op::Put { family, key, value } => changed.put(family, key, value),
                Op::Delete { family, key } => changed.delete(family, key),
                Op::DeleteRange { family, start, end } => changed.delete_range(family, start, end),
            }
        }
        self.inner.write(&changed)
    }

    fn snapshot(&self) -> Box<dyn KvRead> {
        let (bug, families) = (self.bug, self.families.clone());
        Box::new(Planted { bug, families, inner: self.inner.snapshot() })
    }

    fn flush(&self) -> Result<(), KvError> {
        if self.bug == Bug::FlushesNothing { Ok(()) } else { self.inner.flush() }
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), KvError> {
        self.inner.checkpoint(dir)
    }

    fn purge(&self, family: Family) -> Result<(), KvError> {
        self.inner.purge(family)
    }

    fn health(&self) -> KvHealth {
        self.inner.health()
    }
}

impl KvRead for Planted<Arc<dyn Kv>> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.inner.get(family, key)
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]], visit: &mut VisitValue<'_>) -> Result<(), KvError> {
        self.inner.multi_get(family, keys, visit)
    }

    fn scan(&self, family: Family, range: &ScanRange, visit: &mut VisitRow<'_>) -> Result<(), KvError> {
        let mut skip = self.bug == Bug::LosesAPendingRow && self.name(family) == "pending";
        self.inner.scan(family, range, &mut |key, value| match std::mem::take(&mut skip) {
            true => std::ops::ControlFlow::Continue(()),
            false => visit(key, value),
        })
    }
}

impl KvRead for Planted<Box<dyn KvRead>> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.inner.get(family, key)
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]], visit: &mut VisitValue<'_>) -> Result<(), KvError> {
        if self.bug != Bug::ReadsTheNextVector || self.name(family) != "vectors" {
            return self.inner.multi_get(family, keys, visit);
        }
        let mut keys = keys.to_vec();
        if keys.len() > 1 {
            keys[0] = keys[1];
        }
        self.inner.multi_get(family, &keys, visit)
    }

    fn scan(&self, family: Family, range: &ScanRange, visit: &mut VisitRow<'_>) -> Result<(), KvError> {
        self.inner.scan(family, range, visit)
    }
}

struct PlantedIndexEngine {
    inner: Arc<dyn IndexEngine>,
    bug: Bug,
}

struct PlantedIndex {
    inner: Arc<dyn VectorIndex>,
    bug: Bug,
}

impl IndexEngine for PlantedIndexEngine {
    fn build(
        &self,
        spec: &IndexSpec,
        rows: Rows<'_>,
        dir: &Path,
        control: &BuildControl<'_>,
    ) -> Result<Built, IndexError> {
        self.inner.build(spec, rows, dir, control)
    }

    fn open(&self, dir: &Path, files: &[IndexFile]) -> Result<Arc<dyn VectorIndex>, IndexError> {
        Ok(Arc::new(PlantedIndex { inner: self.inner.open(dir, files)?, bug: self.bug }))
    }

    fn similarities(&self) -> &dyn Similarities {
        self.inner.similarities()
    }
}

impl PlantedIndex {
    fn miss(&self, out: &mut Vec<Candidate>) {
        if self.bug == Bug::FindsOneTooFew {
            out.pop();
        }
    }
}

impl VectorIndex for PlantedIndex {
    fn shape(&self) -> IndexShape {
        self.inner.shape()
    }

    fn search(
        &self,
        query: &PreparedQuery,
        params: &SearchParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        let allow = params.allow.filter(|_| self.bug != Bug::FindsExcludedRows);
        let stats = self.inner.search(query, &SearchParams { allow, ..*params }, out)?;
        self.miss(out);
        Ok(stats)
    }

    fn search_rows(
        &self,
        query: &PreparedQuery,
        params: &ScanParams<'_>,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        let rows = if self.bug == Bug::FindsExcludedRows { RowSet::All } else { params.rows };
        let stats = self.inner.search_rows(query, &ScanParams { rows, ..*params }, out)?;
        self.miss(out);
        Ok(stats)
    }

    fn similarities(&self, query: &PreparedQuery, rows: &[u32], out: &mut Vec<f32>) -> Result<(), IndexError> {
        self.inner.similarities(query, rows, out)
    }

    fn read_row(&self, row: u32, out: &mut [f32]) -> Result<(), IndexError> {
        self.inner.read_row(row, out)
    }

    fn verify(&self, stop: &dyn Stop) -> Result<bool, IndexError> {
        self.inner.verify(stop)
    }

    fn memory(&self) -> IndexMemory {
        self.inner.memory()
    }
}
