//! Taking over a segment that another replica of the shard has built: its files instead of the work.
//!
//! The version of a point is the index of the log entry that wrote it, so points of the same version are the same on every
//! replica, however far each of them has come. A row of the segment is therefore alive here if this replica has its point in
//! that very version, wherever the row has been until then, and leaves that place; all others are dead from the beginning. What
//! has no live row left goes, and what is left of a frozen generation grows again. All of this is one installation, as that of a segment that was built here ([`super::install`]).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sagitta_engine::index::Stop;
use sagitta_model::PointId;

use super::Reserved;
use super::install::Source;
use super::rows::NO_ROW;
use crate::damage::DamageLog;
use crate::folder::{list, sync_all};
use crate::ids::IdTable;
use crate::records::ManifestEntry;
use crate::segment::{SegmentContext, SegmentFiles, SegmentManifest, write_ids_copy};
use crate::steps::Step;
use crate::{Generation, ReadView, Segment, SegmentId, SegmentView, Shard, ShardError};

/// What came of taking a segment over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Its number here.
    pub segment: SegmentId,
    /// Its rows.
    pub rows: usize,
    /// Those of them that are alive here.
    pub live: usize,
}

/// A segment in a folder of its own, found whole and of this shard.
struct Candidate {
    entry: ManifestEntry,
    ids: IdTable,
}

/// Which rows a segment takes over from what is here.
#[derive(Default)]
struct Moves {
    sources: Vec<Source>,
    /// For each source, the new row of each of its rows, or [`NO_ROW`].
    mapping: Vec<Vec<u32>>,
}

impl Shard {
    /// Takes over a segment that another replica of this shard has built: `dir` is a copy of its folder ([`Segment::dir`]) in
    /// the file system of the shard's own. Nothing of it is believed before it is verified. It may have been built by a replica that
    /// has applied more or less than this one. From the moment on that it is found fit the folder is gone, whatever comes of it.
    ///
    /// # Errors
    /// Everything is as it was. [`ShardError::Unfit`] for a folder that is damaged, is of another shape than this shard's segments, is here
    /// already, or has no row that this replica could use; [`ShardError::Occupied`] while a job works on what it would
    /// replace; [`ShardError::Stopped`]; what the file system or the database reports.
    pub fn adopt(&self, dir: &Path, stop: &dyn Stop) -> Result<Adopted, ShardError> {
        let view = self.view();
        let candidate = self.look_over(dir, &view, stop)?;
        let moves = Moves::find(&view, &candidate.ids, stop)?;
        if moves.sources.is_empty() {
            return Err(unfit(dir, "this replica has none of its rows in that version"));
        }
        let reserved = self.jobs.reserve(moves.touched()).ok_or(ShardError::Occupied)?;
        // From here on no job begins to work on them, and one that has ended shows in the view.
        let now = self.view();
        if !moves.sources.iter().all(|source| source.is_in(&now)) {
            return Err(ShardError::Occupied);
        }
        drop((view, now));
        let id = self.lock_state()?.next_segment();
        let rows = candidate.entry.rows as usize;
        let made = self.take_in(dir, id, candidate);
        let live = self.install_or_clean_up(id, &moves.sources, &moves.mapping, made)?;
        drop(reserved);
        Ok(Adopted { segment: id, rows, live })
    }

    /// Checks a folder from elsewhere: all of its bytes, its shape, and that nothing else is in it.
    fn look_over(&self, dir: &Path, view: &ReadView, stop: &dyn Stop) -> Result<Candidate, ShardError> {
        let files = SegmentFiles(dir);
        let (manifest, digest) = SegmentManifest::discover(&files.manifest()).map_err(|reason| unfit(dir, reason))?;
        if view.segments().iter().any(|own| own.segment.name() == digest.hash) {
            return Err(unfit(dir, "it is here already"));
        }
        if manifest.vectors.len() != self.schema().vectors.len() {
            return Err(unfit(dir, "it has another number of vectors than the schema"));
        }
        if all_files(dir)? != named_files(&files, &manifest) {
            return Err(unfit(dir, "its files are not those that its manifest names"));
        }
        let ids = IdTable::open(&files.ids(), &manifest.ids).map_err(|error| unfit(dir, error.to_string()))?;
        if ids.rows() != manifest.rows as usize || manifest.rows == 0 {
            return Err(unfit(dir, "its table of ids has another number of rows than its manifest, or none"));
        }
        // No segment here ever has this number.
        let entry = ManifestEntry { id: SegmentId::MAX, rows: manifest.rows, digest };
        let damages = Arc::new(DamageLog::silent(self.env().clone()));
        let segment = self.open_segment(dir.to_path_buf(), entry, &damages)?;
        if !segment.verify(stop)?
            || !ids.verify(&|| stop.should_stop()).map_err(|error| unfit(dir, error.to_string()))?
        {
            return Err(ShardError::Stopped);
        }
        if let Some(damage) = damages.reports().first() {
            return Err(unfit(dir, damage.reason.clone()));
        }
        if !ascends(&ids)? {
            return Err(unfit(dir, "its ids do not ascend"));
        }
        Ok(Candidate { entry, ids })
    }

    /// Makes a folder one of the shard's own. Nothing refers to it until it is installed.
    fn take_in(&self, dir: &Path, id: SegmentId, candidate: Candidate) -> Result<Arc<Segment>, ShardError> {
        let steps = &self.options.step_hook;
        self.folder.take_in(dir, id)?;
        steps.done(Step::FolderMade)?;
        write_ids_copy(&*self.kv, id, candidate.ids.bytes())?;
        steps.done(Step::IdsCopied)?;
        sync_all(&self.folder.unfinished(id))?;
        steps.done(Step::FolderSynced)?;
        self.folder.name_segment(id)?;
        steps.done(Step::FolderNamed)?;
        let entry = ManifestEntry { id, ..candidate.entry };
        let segment = self.open_segment(self.folder.segment(id), entry, &self.damages)?;
        steps.done(Step::Opened)?;
        Ok(Arc::new(segment))
    }

    fn open_segment(
        &self,
        dir: PathBuf,
        entry: ManifestEntry,
        damages: &Arc<DamageLog>,
    ) -> Result<Segment, ShardError> {
        let (schema, engine) = (self.schema(), self.index_engine());
        Segment::open(dir, entry, &SegmentContext { schema, engine, kv: &*self.kv, damages })
    }
}

impl Moves {
    /// The live rows that are in a segment in the same version.
    fn find(view: &ReadView, ids: &IdTable, stop: &dyn Stop) -> Result<Self, ShardError> {
        let mut moves = Self::default();
        for generation in view.generations() {
            let mapping = of_generation(generation, ids)?;
            moves.add(Source::Generation(Arc::clone(generation)), mapping);
        }
        for own in view.segments() {
            if stop.should_stop() {
                return Err(ShardError::Stopped);
            }
            let mapping = of_segment(view, own, ids)?;
            moves.add(Source::Segment(own.clone()), mapping);
        }
        Ok(moves)
    }

    fn add(&mut self, source: Source, mapping: Vec<u32>) {
        if mapping.iter().any(|new| *new != NO_ROW) {
            self.sources.push(source);
            self.mapping.push(mapping);
        }
    }

    fn touched(&self) -> Reserved {
        let mut touched = Reserved::default();
        for source in &self.sources {
            match source {
                Source::Generation(generation) => touched.generations.push(generation.number()),
                Source::Segment(own) => touched.segments.push(own.segment.id()),
            }
        }
        touched
    }
}

fn of_generation(generation: &Generation, ids: &IdTable) -> Result<Vec<u32>, ShardError> {
    let mut mapping = vec![NO_ROW; generation.rows()];
    for chunk in generation.chunks() {
        for row in chunk.live().iter() {
            let (id, version) = (chunk.ids()[row as usize], chunk.versions()[row as usize]);
            if let Some(new) = ids.find(id)?
                && ids.version(new)? == version
            {
                mapping[(chunk.start() + row) as usize] = new;
            }
        }
    }
    Ok(mapping)
}

/// Both are sorted by id: one walk through the new one, in which the other is looked at where it has such ids.
fn of_segment(view: &ReadView, own: &SegmentView, ids: &IdTable) -> Result<Vec<u32>, ShardError> {
    let mut mapping = vec![NO_ROW; own.segment.rows()];
    let mut next = 0;
    for new in 0..ids.rows() as u32 {
        let (id, version) = (ids.id(new)?, ids.version(new)?);
        let same = own.segment.read_ids(view.snapshot(), |own| {
            let row = own.seek(id, next)?;
            let is_same = (row as usize) < own.rows() && own.id(row)? == id && own.version(row)? == version;
            Ok((row, is_same))
        });
        let (row, is_same) = same?;
        if row as usize == own.segment.rows() {
            break;
        }
        if is_same && own.live.contains(row) {
            mapping[row as usize] = new;
        }
        next = row;
    }
    Ok(mapping)
}

fn ascends(ids: &IdTable) -> Result<bool, ShardError> {
    let mut before: Option<PointId> = None;
    for row in 0..ids.rows() as u32 {
        let id = ids.id(row)?;
        if before >= Some(id) {
            return Ok(false);
        }
        before = Some(id);
    }
    Ok(true)
}

fn named_files(files: &SegmentFiles<'_>, manifest: &SegmentManifest) -> BTreeSet<PathBuf> {
    let indexes = manifest.vectors.iter().enumerate().flat_map(|(ordinal, index)| {
        let folder = files.vectors(ordinal);
        index.files.iter().map(move |file| folder.join(&file.name))
    });
    indexes.chain([files.manifest(), files.ids(), files.payload()]).collect()
}

fn all_files(dir: &Path) -> Result<BTreeSet<PathBuf>, ShardError> {
    let mut files = BTreeSet::new();
    for path in list(dir)? {
        if path.is_dir() { files.append(&mut all_files(&path)?) } else { _ = files.insert(path) }
    }
    Ok(files)
}

fn unfit(dir: &Path, reason: impl Into<String>) -> ShardError {
    ShardError::Unfit { dir: dir.to_path_buf(), reason: reason.into() }
}
