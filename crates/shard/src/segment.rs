//! Sealed segments: immutable files derived from the database.
//!
//! `segments/<number>/` holds `ids`, `payload`, a folder `vectors-<n>` for each vector name of the schema, and
//! `segment.manifest` with the digests of all these. The digest of the manifest is in the database.

mod copy;
mod manifest;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use sagitta_engine::index::{IndexEngine, IndexError, IndexMemory, Stop, VectorIndex};
use sagitta_engine::kv::KvRead;
use sagitta_engine::mapped::Damaged;
use sagitta_model::{Schema, VectorSpec};

use crate::ShardError;
use crate::damage::DamageLog;
use crate::ids::IdTable;
use crate::payload::PayloadIndex;
use crate::records::ManifestEntry;
use crate::search::Calibration;

pub(crate) use self::copy::write_ids_copy;
pub(crate) use self::manifest::{SegmentManifest, VectorManifest};

/// Number of a segment in its shard; never used again.
pub type SegmentId = u64;

/// What a segment is called on every replica that has it: the hash of its manifest, which has those of all its files.
pub type SegmentName = u128;

/// A part of a segment that can be damaged by itself; the others go on being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Ids and versions.
    Ids,
    /// The payload index.
    Payload,
    /// The index of one vector name, by its position in the schema.
    Vector(usize),
}

/// An opened segment. A row's number is the rank of its id among the segment's rows, dead ones included.
pub struct Segment {
    entry: ManifestEntry,
    dir: PathBuf,
    ids: IdTable,
    payload: Option<PayloadIndex>,
    vectors: Vec<Option<SegmentVector>>,
    /// Files of each index, as far as the manifest could be read.
    index_files: Vec<VectorManifest>,
    /// One bit per [`Part`] that is not to be used.
    broken: AtomicU32,
    verified: AtomicBool,
    damages: Arc<DamageLog>,
}

/// The index of one vector name in a segment.
pub struct SegmentVector {
    /// The index.
    pub index: Arc<dyn VectorIndex>,
    /// How its breadth relates to recall.
    pub calibration: Calibration,
}

/// What opening a segment takes.
pub(crate) struct SegmentContext<'a> {
    pub(crate) schema: &'a Arc<Schema>,
    pub(crate) engine: &'a dyn IndexEngine,
    pub(crate) kv: &'a dyn KvRead,
    pub(crate) damages: &'a Arc<DamageLog>,
}

/// Names of the files within a segment's folder.
pub(crate) struct SegmentFiles<'a>(pub(crate) &'a Path);

impl SegmentFiles<'_> {
    pub(crate) fn ids(&self) -> PathBuf {
        self.0.join("ids")
    }

    pub(crate) fn payload(&self) -> PathBuf {
        self.0.join("payload")
    }

    pub(crate) fn vectors(&self, ordinal: usize) -> PathBuf {
        self.0.join(format!("vectors-{ordinal}"))
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.0.join("segment.manifest")
    }
}

impl Segment {
    /// Opens a segment without reading its data. Damaged and missing files are reported and served around.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) fn open(dir: PathBuf, entry: ManifestEntry, context: &SegmentContext<'_>) -> Result<Self, ShardError> {
        let files = SegmentFiles(&dir);
        let manifest = SegmentManifest::read(&files.manifest(), &entry);
        let mut broken = Vec::new();
        let mut part = |part: Part, reason: String| broken.push((part, reason));
        let manifest_of = |what: &str| format!("{what} cannot be checked without the segment's manifest");

        let ids = match &manifest {
            Ok(manifest) => IdTable::open(&files.ids(), &manifest.ids).map_err(|error| error.to_string()),
            Err(_) => Err(manifest_of("the table of ids")),
        };
        let ids = match ids {
            Ok(ids) if ids.rows() == entry.rows as usize => ids,
            Ok(_) => return Err(contradiction(&dir, "the table of ids has another number of rows than the manifest")),
            Err(reason) => {
                part(Part::Ids, reason);
                copy::read_ids_copy(context.kv, entry.id)?
            }
        };
        let payload = match &manifest {
            Ok(manifest) => {
                let rows = entry.rows as usize;
                PayloadIndex::open(&files.payload(), &manifest.payload, context.schema, rows)
                    .map_err(|error| error.to_string())
            }
            Err(_) => Err(manifest_of("the payload index")),
        };
        let payload = payload.map_err(|reason| part(Part::Payload, reason)).ok();
        let mut vectors = Vec::new();
        for (ordinal, spec) in context.schema.vectors.values().enumerate() {
            let opened = match &manifest {
                Ok(manifest) => open_vector(&files, ordinal, spec, &entry, manifest, context.engine),
                Err(_) => Err(manifest_of("the index")),
            };
            vectors.push(opened.map_err(|reason| part(Part::Vector(ordinal), reason)).ok());
        }
        if let Err(reason) = &manifest {
            context.damages.warn(entry.id, reason);
        }

        let segment = Self {
            entry,
            dir,
            ids,
            payload,
            vectors,
            index_files: manifest.map(|manifest| manifest.vectors).unwrap_or_default(),
            broken: AtomicU32::new(0),
            verified: AtomicBool::new(false),
            damages: Arc::clone(context.damages),
        };
        broken.into_iter().for_each(|(part, reason)| segment.report(part, &reason));
        Ok(segment)
    }

    /// Number in the shard.
    pub fn id(&self) -> SegmentId {
        self.entry.id
    }

    /// What it is called on every replica that has it.
    pub fn name(&self) -> SegmentName {
        self.entry.digest.hash
    }

    /// The folder of its files, which never change; it goes some time after the segment was replaced. Other replicas of the shard may
    /// take a copy of it over by [`Shard::adopt`](crate::Shard::adopt).
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Number of rows, dead ones included.
    pub fn rows(&self) -> usize {
        self.entry.rows as usize
    }

    /// The index of a vector name, by its position in the schema; `None` while it is damaged.
    pub fn vector(&self, ordinal: usize) -> Option<&SegmentVector> {
        self.vectors[ordinal].as_ref().filter(|_| !self.is_broken(Part::Vector(ordinal)))
    }

    /// The payload index; `None` while it is damaged.
    pub fn payload(&self) -> Option<&PayloadIndex> {
        self.payload.as_ref().filter(|_| !self.is_broken(Part::Payload))
    }

    /// Reads from the table of ids; if that is damaged, from its copy in `kv`.
    pub(crate) fn read_ids<T>(
        &self,
        kv: &dyn KvRead,
        read: impl Fn(&IdTable) -> Result<T, Damaged>,
    ) -> Result<T, ShardError> {
        let damage = match read(&self.ids) {
            Ok(value) => return Ok(value),
            Err(damage) => damage,
        };
        self.report(Part::Ids, &damage.to_string());
        self.ids.restore(copy::read_ids_bytes(kv, self.id())?).map_err(|reason| contradiction(&self.dir, reason))?;
        Ok(read(&self.ids)?)
    }

    /// Notes that a part is damaged: it is not used again, and rebuilt.
    pub(crate) fn report(&self, part: Part, reason: &str) {
        let before = self.broken.fetch_or(part.bit(), Ordering::AcqRel);
        if before & part.bit() == 0 {
            self.damages.add(self.id(), part, reason);
        }
    }

    /// Whether any part is damaged.
    pub(crate) fn is_damaged(&self) -> bool {
        self.broken.load(Ordering::Acquire) != 0
    }

    /// Whether every byte was verified since the segment was opened.
    pub(crate) fn is_verified(&self) -> bool {
        self.verified.load(Ordering::Acquire)
    }

    /// What the manifest of the shard says about it.
    pub(crate) fn entry(&self) -> &ManifestEntry {
        &self.entry
    }

    /// Verifies every byte that is in use; damage is reported, not returned. False if stopped.
    pub(crate) fn verify(&self, stop: &dyn Stop) -> Result<bool, ShardError> {
        self.look_for_files();
        let should_stop = || stop.should_stop();
        let mut complete = self.verify_part(Part::Ids, self.ids.verify(&should_stop).map_err(ShardError::from))?;
        if let Some(payload) = self.payload() {
            let verified = payload.verify(&should_stop).map_err(ShardError::from);
            complete &= self.verify_part(Part::Payload, verified)?;
        }
        for ordinal in 0..self.vectors.len() {
            if let Some(vector) = self.vector(ordinal) {
                let verified = vector.index.verify(stop).map_err(ShardError::from);
                complete &= self.verify_part(Part::Vector(ordinal), verified)?;
            }
        }
        self.verified.fetch_or(complete, Ordering::AcqRel);
        Ok(complete)
    }

    /// What the indexes of all names occupy.
    pub(crate) fn memory(&self) -> IndexMemory {
        let mut total = IndexMemory::default();
        for vector in self.vectors.iter().flatten() {
            let memory = vector.index.memory();
            total.mapped_hot += memory.mapped_hot;
            total.mapped_cold += memory.mapped_cold;
            total.heap += memory.heap;
        }
        total.mapped_hot += self.payload.as_ref().map_or(0, PayloadIndex::bytes);
        total
    }

    /// A file that was removed is still mapped, but will be missing at the next opening.
    fn look_for_files(&self) {
        let files = SegmentFiles(&self.dir);
        let expect = |part: Part, path: PathBuf| {
            if !path.exists() {
                self.report(part, &format!("{} is gone", path.display()));
            }
        };
        expect(Part::Ids, files.manifest());
        expect(Part::Ids, files.ids());
        expect(Part::Payload, files.payload());
        for (ordinal, index) in self.index_files.iter().enumerate() {
            index.files.iter().for_each(|file| expect(Part::Vector(ordinal), files.vectors(ordinal).join(&file.name)));
        }
    }

    fn is_broken(&self, part: Part) -> bool {
        self.broken.load(Ordering::Acquire) & part.bit() != 0
    }

    fn verify_part(&self, part: Part, verified: Result<bool, ShardError>) -> Result<bool, ShardError> {
        match verified {
            Err(ShardError::Damaged(damage)) => {
                self.report(part, &damage.to_string());
                Ok(true)
            }
            Err(ShardError::Stopped) => Ok(false),
            other => other,
        }
    }
}

impl Part {
    fn bit(self) -> u32 {
        match self {
            Self::Ids => 1,
            Self::Payload => 2,
            Self::Vector(ordinal) => 4 << ordinal,
        }
    }
}

fn open_vector(
    files: &SegmentFiles<'_>,
    ordinal: usize,
    spec: &VectorSpec,
    entry: &ManifestEntry,
    manifest: &SegmentManifest,
    engine: &dyn IndexEngine,
) -> Result<SegmentVector, String> {
    let Some(VectorManifest { files: built, calibration }) = manifest.vectors.get(ordinal) else {
        return Err("the segment's manifest does not list the index".to_owned());
    };
    let index = engine.open(&files.vectors(ordinal), built).map_err(|error: IndexError| error.to_string())?;
    let shape = index.shape();
    if (shape.rows, shape.dim, shape.metric) != (entry.rows as usize, spec.dim, spec.metric) {
        return Err("the index is of another shape than the segment".to_owned());
    }
    Ok(SegmentVector { index, calibration: calibration.clone() })
}

fn contradiction(dir: &Path, what: &str) -> ShardError {
    ShardError::Inconsistent { what: format!("{}: {what}", dir.display()) }
}
