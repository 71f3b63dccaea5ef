use sagitta_engine::index::{IndexKind, IndexMemory};
use sagitta_engine::kv::KvHealth;

use crate::damage::DamageReport;
use crate::search::Calibration;
use crate::{JobFailure, JobKind, SegmentId, SegmentView, Shard};

/// Figures of a shard at one moment.
#[derive(Clone, Debug)]
pub struct ShardStats {
    /// Log index up to which everything is applied.
    pub applied_index: u64,
    /// Log index up to which everything is on disk.
    pub durable_index: u64,
    /// Log index up to which every live row is in a segment.
    pub indexed_index: u64,
    /// Points that exist.
    pub points: u64,
    /// The sealed segments.
    pub segments: Vec<SegmentStats>,
    /// Rows that are in no segment, generation by generation, the growing one last.
    pub generations: Vec<GenerationStats>,
    /// Jobs that could be run now or are running, most urgent first.
    pub pending_jobs: Vec<JobKind>,
    /// Jobs that are running.
    pub running_jobs: Vec<JobKind>,
    /// Jobs that failed and are tried again.
    pub failed_jobs: Vec<JobFailure>,
    /// What was found damaged since the shard was opened, the last few.
    pub damages: Vec<DamageReport>,
    /// Segments that were set aside because they were damaged, the last few.
    pub quarantined: Vec<SegmentId>,
    /// How the database is doing.
    pub database: KvHealth,
}

/// Figures of a segment.
#[derive(Clone, Debug)]
pub struct SegmentStats {
    /// Its number.
    pub id: SegmentId,
    /// Rows, dead ones included.
    pub rows: u64,
    /// Of these, the dead ones.
    pub dead_rows: u64,
    /// A part of it is damaged and waits to be rebuilt.
    pub damaged: bool,
    /// Every byte was verified since the shard was opened.
    pub verified: bool,
    /// What it occupies.
    pub memory: IndexMemory,
    /// By the position of the vector's name in the schema; `None` while it is damaged.
    pub vectors: Vec<Option<VectorStats>>,
}

/// Figures of one index of a segment.
#[derive(Clone, Debug)]
pub struct VectorStats {
    /// How it finds neighbours.
    pub kind: IndexKind,
    /// Recall by breadth, as measured when it was built.
    pub calibration: Calibration,
}

/// Figures of rows in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationStats {
    /// Number of the generation.
    pub number: u32,
    /// Rows, dead ones included.
    pub rows: u64,
    /// Of these, the dead ones.
    pub dead_rows: u64,
    /// Bytes of vectors.
    pub vector_bytes: u64,
}

impl Shard {
    /// Figures of the moment; cheap enough to be asked for every second.
    pub fn stats(&self) -> ShardStats {
        let view = self.view();
        let generations = view.generations().iter().map(|generation| GenerationStats {
            number: generation.number(),
            rows: generation.rows() as u64,
            dead_rows: (generation.rows() - generation.live()) as u64,
            vector_bytes: generation.vector_bytes() as u64,
        });
        ShardStats {
            applied_index: view.applied_index(),
            durable_index: self.durable_index(),
            indexed_index: view.indexed_index(),
            points: view.points(),
            segments: view.segments().iter().map(|view| self.segment_stats(view)).collect(),
            generations: generations.collect(),
            pending_jobs: self.wanted_jobs(),
            running_jobs: self.running_jobs(),
            failed_jobs: self.failed_jobs(),
            damages: self.damages.reports(),
            quarantined: self.folder.quarantined().unwrap_or_default(),
            database: self.kv.health(),
        }
    }

    fn segment_stats(&self, view: &SegmentView) -> SegmentStats {
        let segment = &view.segment;
        let vector = |ordinal| {
            let vector = segment.vector(ordinal)?;
            Some(VectorStats { kind: vector.index.shape().kind, calibration: vector.calibration.clone() })
        };
        SegmentStats {
            id: segment.id(),
            rows: segment.rows() as u64,
            dead_rows: (segment.rows() - view.live.count()) as u64,
            damaged: segment.is_damaged(),
            verified: segment.is_verified(),
            memory: segment.memory(),
            vectors: (0..self.schema().vectors.len()).map(vector).collect(),
        }
    }
}
