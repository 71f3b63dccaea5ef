//! An engine with one planted bug: proof that the suite would notice.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::kv::{
    EngineMemory, Family, FamilySpec, Kv, KvEngine, KvError, KvHealth, KvOptions, KvRead, MemoryEngine, Op, ScanRange,
    VisitRow, VisitValue, WriteBatch,
};

#[derive(Clone, Copy, Debug)]
pub(super) enum Bug {
    DeletesDoNothing,
    RangesIncludeTheirEnd,
    LaterChangesOfABatchAreLost,
    BatchesAreNotAtomic,
    FlushDoesNothing,
    FamiliesAreFlushedApart,
    SnapshotsAreLive,
    ScansIgnoreTheirStart,
    ScansIgnoreTheirEnd,
    ScansIgnoreBreaks,
    MultiGetStopsAtAMissingKey,
    EmptyValuesAreMissing,
    PurgeDropsRows,
    CheckpointsAreEmpty,
    DestroyKeepsTheRows,
}

impl Bug {
    pub(super) const ALL: [Self; 15] = [
        Self::DeletesDoNothing,
        Self::RangesIncludeTheirEnd,
        Self::LaterChangesOfABatchAreLost,
        Self::BatchesAreNotAtomic,
        Self::FlushDoesNothing,
        Self::FamiliesAreFlushedApart,
        Self::SnapshotsAreLive,
        Self::ScansIgnoreTheirStart,
        Self::ScansIgnoreTheirEnd,
        Self::ScansIgnoreBreaks,
        Self::MultiGetStopsAtAMissingKey,
        Self::EmptyValuesAreMissing,
        Self::PurgeDropsRows,
        Self::CheckpointsAreEmpty,
        Self::DestroyKeepsTheRows,
    ];
}

pub(super) struct BrokenEngine {
    inner: MemoryEngine,
    bug: Bug,
}

#[derive(Clone)]
struct Broken {
    engine: MemoryEngine,
    inner: Arc<dyn Kv>,
    families: usize,
    bug: Bug,
}

impl BrokenEngine {
    pub(super) fn new(inner: MemoryEngine, bug: Bug) -> Self {
        Self { inner, bug }
    }
}

impl KvEngine for BrokenEngine {
    fn open(&self, dir: &Path, families: &[FamilySpec], options: &KvOptions) -> Result<Arc<dyn Kv>, KvError> {
        let inner = self.inner.open(dir, families, options)?;
        Ok(Arc::new(Broken { engine: self.inner.clone(), inner, families: families.len(), bug: self.bug }))
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
        match self.bug {
            Bug::DestroyKeepsTheRows => self.inner.destroy(Path::new("/elsewhere")),
            _ => self.inner.destroy(dir),
        }
    }

    fn memory(&self) -> EngineMemory {
        self.inner.memory()
    }
}

impl Kv for Broken {
    fn write(&self, batch: &WriteBatch) -> Result<(), KvError> {
        let ops = batch.ops().filter(|op| match self.bug {
            Bug::DeletesDoNothing => !matches!(op, Op::Delete { .. }),
            _ => true,
        });
        let mut changed = WriteBatch::new();
        for (i, op) in ops.enumerate() {
            match op {
                Op::Put { family, key, value } => changed.put(family, key, value),
                Op::Delete { family, key } => changed.delete(family, key),
                Op::DeleteRange { family, start, end } => {
                    changed.delete_range(family, start, end);
                    if matches!(self.bug, Bug::RangesIncludeTheirEnd) {
                        changed.delete(family, end);
                    }
                }
            }
            match self.bug {
                Bug::LaterChangesOfABatchAreLost if i == 2 => break,
                Bug::BatchesAreNotAtomic => {
                    self.inner.write(&changed)?;
                    changed.clear();
                    std::thread::yield_now();
                }
                _ => {}
            }
        }
        self.inner.write(&changed)
    }

    fn snapshot(&self) -> Box<dyn KvRead> {
        match self.bug {
            Bug::SnapshotsAreLive => Box::new(self.clone()),
            _ => self.inner.snapshot(),
        }
    }

    fn flush(&self) -> Result<(), KvError> {
        match self.bug {
            Bug::FlushDoesNothing => Ok(()),
            Bug::FamiliesAreFlushedApart => {
                // The last family is flushed with what it had before its newest row.
                let family = Family::new(self.families - 1);
                let mut newest = None;
                self.inner.scan(family, &ScanRange::all(), &mut |key, value| {
                    newest = Some((key.to_vec(), value.to_vec()));
                    ControlFlow::Continue(())
                })?;
                let Some((key, value)) = newest else {
                    return self.inner.flush();
                };
                let mut batch = WriteBatch::new();
                batch.delete(family, &key);
                self.inner.write(&batch)?;
                self.inner.flush()?;
                batch.clear();
                batch.put(family, &key, &value);
                self.inner.write(&batch)
            }
            _ => self.inner.flush(),
        }
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), KvError> {
        match self.bug {
            Bug::CheckpointsAreEmpty => {
                let family = [FamilySpec::new("small")];
                self.engine.open(Path::new("/empty"), &family, &KvOptions::default())?.checkpoint(dir)
            }
            _ => self.inner.checkpoint(dir),
        }
    }

    fn purge(&self, family: Family) -> Result<(), KvError> {
        if matches!(self.bug, Bug::PurgeDropsRows) {
            let mut batch = WriteBatch::new();
            batch.delete_range(family, b"", b"\0\0\0\x10");
            self.inner.write(&batch)?;
        }
        self.inner.purge(family)
    }

    fn health(&self) -> KvHealth {
        self.inner.health()
    }
}

impl KvRead for Broken {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let value = self.inner.get(family, key)?;
        Ok(match self.bug {
            Bug::EmptyValuesAreMissing => value.filter(|value| !value.is_empty()),
            _ => value,
        })
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]], visit: &mut VisitValue<'_>) -> Result<(), KvError> {
        let mut stopped = false;
        self.inner.multi_get(family, keys, &mut |i, value| {
            stopped |= value.is_none() && matches!(self.bug, Bug::MultiGetStopsAtAMissingKey);
            if !stopped {
                visit(i, value);
            }
        })
    }

    fn scan(&self, family: Family, range: &ScanRange, visit: &mut VisitRow<'_>) -> Result<(), KvError> {
        let end: &[u8] = range.end().unwrap_or(&[255; 16]);
        match self.bug {
            Bug::ScansIgnoreTheirStart => self.inner.scan(family, &ScanRange::between(b"", end), visit),
            Bug::ScansIgnoreTheirEnd => self.inner.scan(family, &ScanRange::all().starting_at(range.start()), visit),
            Bug::ScansIgnoreBreaks => self.inner.scan(family, range, &mut |key, value| {
                let _ignored = visit(key, value);
                ControlFlow::Continue(())
            }),
            _ => self.inner.scan(family, range, visit),
        }
    }
}
