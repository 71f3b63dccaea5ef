//! Building the folder of a segment. Nothing refers to it until it is installed.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use sagitta_engine::index::{BuildControl, IndexSpec};
use sagitta_engine::mapped::{FileDigest, FileError, SealedFileWriter};
use sagitta_model::VectorSpec;

use super::rows::BuildRows;
use crate::folder::{io_error, sync_folder};
use crate::ids::IdTable;
use crate::payload::PayloadWriter;
use crate::records::ManifestEntry;
use crate::search::{calibrate, kind_for};
use crate::segment::{SegmentContext, SegmentFiles, SegmentManifest, VectorManifest, write_ids_copy};
use crate::steps::Step;
use crate::{Segment, SegmentId, Shard, ShardError};

impl Shard {
    /// Builds, names and opens a segment of these rows, of which there is at least one.
    pub(super) fn build_segment(
        &self,
        id: SegmentId,
        rows: &BuildRows<'_>,
        control: &BuildControl<'_>,
    ) -> Result<Arc<Segment>, ShardError> {
        let steps = &self.options.step_hook;
        let dir = self.folder.unfinished(id);
        fs::create_dir(&dir).map_err(|source| io_error(&dir, source))?;
        steps.done(Step::FolderMade)?;
        let files = SegmentFiles(&dir);

        let table = IdTable::encode(rows.ids());
        let ids = write_file(&files.ids(), &table)?;
        steps.done(Step::IdsWritten)?;
        write_ids_copy(&*self.kv, id, &table)?;
        drop(table);
        steps.done(Step::IdsCopied)?;

        let names = self.schema().vectors.len() as f32;
        let mut vectors = Vec::new();
        for (ordinal, spec) in self.schema().vectors.values().enumerate() {
            let progress = |share: f32| (control.progress)((ordinal as f32 + share) / names);
            let control = BuildControl { threads: control.threads, stop: control.stop, progress: &progress };
            vectors.push(self.build_vectors(&files, ordinal, spec, rows, &control)?);
        }
        steps.done(Step::VectorsIndexed)?;

        let mut payload = PayloadWriter::new(self.schema());
        rows.for_each_payload(control.stop, &mut |object| payload.add(object))?;
        let payload = payload.finish(&files.payload())?;
        steps.done(Step::PayloadIndexed)?;

        let count = rows.len() as u32;
        let digest = SegmentManifest { rows: count, ids, payload, vectors }.write(&files.manifest())?;
        steps.done(Step::ManifestWritten)?;
        sync_folder(&dir)?;
        steps.done(Step::FolderSynced)?;
        self.folder.name_segment(id)?;
        steps.done(Step::FolderNamed)?;

        let context = SegmentContext {
            schema: self.schema(),
            engine: self.index_engine(),
            kv: &*self.kv,
            damages: &self.damages,
        };
        let entry = ManifestEntry { id, rows: count, digest };
        let segment = Arc::new(Segment::open(self.folder.segment(id), entry, &context)?);
        steps.done(Step::Opened)?;
        Ok(segment)
    }

    fn build_vectors(
        &self,
        files: &SegmentFiles<'_>,
        ordinal: usize,
        spec: &VectorSpec,
        rows: &BuildRows<'_>,
        control: &BuildControl<'_>,
    ) -> Result<VectorManifest, ShardError> {
        let dir = files.vectors(ordinal);
        fs::create_dir(&dir).map_err(|source| io_error(&dir, source))?;
        let spool = dir.with_extension("spool");
        let values = rows.values(ordinal, spec.dim, (&spool, self.options.max_heap_build_bytes), control.stop)?;
        let kind = kind_for(spec.index, rows.len(), self.options.graph_min_rows);
        let index_spec = IndexSpec::new(spec.dim, spec.metric, kind);
        let built = self.index_engine().build(&index_spec, values.rows()?, &dir, control)?;
        sync_folder(&dir)?;
        let index = self.index_engine().open(&dir, &built.files)?;
        let calibration = calibrate(&*index, &values.rows()?, control.stop)?;
        drop(values);
        if spool.exists() {
            fs::remove_file(&spool).map_err(|source| io_error(&spool, source))?;
        }
        Ok(VectorManifest { files: built.files, calibration })
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<FileDigest, FileError> {
    let mut writer = SealedFileWriter::create(path)?;
    writer.append(bytes)?;
    writer.finish()
}
