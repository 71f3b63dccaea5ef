use std::path::Path;

use sagitta_engine::index::{Rows, Stop};
use sagitta_engine::mapped::{Access, SealedFile, SealedFileWriter};
use sagitta_model::{Object, PointId};

use super::install::Source;
use crate::codec::write_vector;
use crate::view::{BLOCK_ROWS, bad_row, missing_row, read_points, read_vectors};
use crate::{ReadView, ShardError};

/// Of a source's row that does not become a row of the new segment.
pub(super) const NO_ROW: u32 = u32::MAX;

/// The rows of a segment to be, in their order: what is alive in its sources.
pub(super) struct BuildRows<'a> {
    view: &'a ReadView,
    sources: &'a [Source],
    rows: Vec<BuildRow>,
}

#[derive(Clone, Copy)]
struct BuildRow {
    id: PointId,
    version: u64,
    /// Position among the sources.
    source: u32,
    /// Row of the source.
    row: u32,
}

/// All vectors of one name, row by row: on the heap, or in a file if they are many.
pub(super) enum Values {
    Heap { dim: usize, values: Vec<f32> },
    File { dim: usize, file: SealedFile },
}

impl<'a> BuildRows<'a> {
    /// The live rows of the sources, by id.
    pub(super) fn gather(view: &'a ReadView, sources: &'a [Source]) -> Result<Self, ShardError> {
        let mut rows = Vec::with_capacity(sources.iter().map(Source::live_rows).sum());
        for (at, source) in sources.iter().enumerate() {
            let mut push = |id, version, row| rows.push(BuildRow { id, version, source: at as u32, row });
            match source {
                Source::Generation(generation) => {
                    for chunk in generation.chunks() {
                        for row in chunk.live().iter() {
                            let at = row as usize;
                            push(chunk.ids()[at], chunk.versions()[at], chunk.start() + row);
                        }
                    }
                }
                Source::Segment(segment) => {
                    for row in segment.live.iter() {
                        let read =
                            segment.segment.read_ids(view.snapshot(), |ids| Ok((ids.id(row)?, ids.version(row)?)));
                        let (id, version) = read?;
                        push(id, version, row);
                    }
                }
            }
        }
        // Segments are sorted already: a sort that finds runs merges them.
        rows.sort_by_key(|row| row.id);
        if let Some(twice) = rows.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(ShardError::Inconsistent { what: format!("point {} is alive twice", twice[0].id) });
        }
        Ok(Self { view, sources, rows })
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Ids and versions.
    pub(super) fn ids(&self) -> impl ExactSizeIterator<Item = (PointId, u64)> + Clone + '_ {
        self.rows.iter().map(|row| (row.id, row.version))
    }

    /// For each source, the new row of each of its rows, or [`NO_ROW`].
    pub(super) fn mapping(&self) -> Vec<Vec<u32>> {
        let mut mapping: Vec<_> = self.sources.iter().map(|source| vec![NO_ROW; source.rows()]).collect();
        for (new, row) in self.rows.iter().enumerate() {
            mapping[row.source as usize][row.row as usize] = new as u32;
        }
        mapping
    }

    /// Calls `visit` with each payload.
    pub(super) fn for_each_payload(&self, stop: &dyn Stop, visit: &mut dyn FnMut(&Object)) -> Result<(), ShardError> {
        let mut payloads = Vec::with_capacity(BLOCK_ROWS);
        self.for_each_block(stop, &mut |block, stored| {
            payloads.clear();
            read_points(self.view.snapshot(), stored, &mut |at, record| {
                let record = record.ok_or_else(|| missing_row("point", stored[at]))?;
                payloads.push(record.payload.decode().map_err(|error| bad_row("point", stored[at], error))?);
                Ok(())
            })?;
            let mut stored = payloads.iter();
            for row in block {
                match &self.sources[row.source as usize] {
                    Source::Generation(generation) => {
                        let (chunk, at) = generation.locate(row.row);
                        visit(&chunk.payloads()[at]);
                    }
                    Source::Segment(_) => visit(stored.next().expect("invariant: one payload per stored row")),
                }
            }
            Ok(())
        })
    }

    /// The vectors of one name, from memory and from the database: the truth, so that damage is not passed on. Those that
    /// take more than `max_heap_bytes` go through the file `spool`.
    pub(super) fn values(
        &self,
        ordinal: usize,
        dim: usize,
        (spool, max_heap_bytes): (&Path, usize),
        stop: &dyn Stop,
    ) -> Result<Values, ShardError> {
        let bytes = self.rows.len() * dim * size_of::<f32>();
        if bytes <= max_heap_bytes {
            let mut values = Vec::with_capacity(self.rows.len() * dim);
            self.for_each_vector(ordinal, dim, stop, &mut |vector| {
                values.extend_from_slice(vector);
                Ok(())
            })?;
            return Ok(Values::Heap { dim, values });
        }
        let mut writer = SealedFileWriter::create(spool)?;
        let mut bytes = Vec::new();
        self.for_each_vector(ordinal, dim, stop, &mut |vector| {
            bytes.clear();
            write_vector(vector, &mut bytes);
            Ok(writer.append(&bytes)?)
        })?;
        let digest = writer.finish()?;
        let file = SealedFile::open(spool, Some(&digest))?;
        file.advise(Access::Soon);
        file.verify_all(&|| stop.should_stop())?;
        Ok(Values::File { dim, file })
    }

    fn for_each_vector(
        &self,
        ordinal: usize,
        dim: usize,
        stop: &dyn Stop,
        visit: &mut dyn FnMut(&[f32]) -> Result<(), ShardError>,
    ) -> Result<(), ShardError> {
        let mut values = Vec::new();
        self.for_each_block(stop, &mut |block, stored| {
            values.resize(stored.len() * dim, 0.0);
            read_vectors(self.view.snapshot(), stored, ordinal, dim, &mut values)?;
            let mut stored = values.chunks_exact(dim);
            for row in block {
                match &self.sources[row.source as usize] {
                    Source::Generation(generation) => {
                        let (chunk, at) = generation.locate(row.row);
                        visit(chunk.vectors(ordinal).row(at))?;
                    }
                    Source::Segment(_) => visit(stored.next().expect("invariant: one vector per stored row"))?,
                }
            }
            Ok(())
        })
    }

    /// Calls `visit` with consecutive rows and the ids of those among them that are in the database only.
    fn for_each_block(
        &self,
        stop: &dyn Stop,
        visit: &mut dyn FnMut(&[BuildRow], &[PointId]) -> Result<(), ShardError>,
    ) -> Result<(), ShardError> {
        for block in self.rows.chunks(BLOCK_ROWS) {
            if stop.should_stop() {
                return Err(ShardError::Stopped);
            }
            let is_stored = |row: &&BuildRow| matches!(self.sources[row.source as usize], Source::Segment(_));
            let stored: Vec<_> = block.iter().filter(is_stored).map(|row| row.id).collect();
            visit(block, &stored)?;
        }
        Ok(())
    }
}

impl Values {
    /// As rows for a build.
    pub(super) fn rows(&self) -> Result<Rows<'_>, ShardError> {
        let (dim, values) = match self {
            Self::Heap { dim, values } => (*dim, &values[..]),
            Self::File { dim, file } => (*dim, bytemuck::try_cast_slice(file.bytes()).map_err(not_floats)?),
        };
        Ok(Rows::new(dim, values)?)
    }
}

fn not_floats(error: bytemuck::PodCastError) -> ShardError {
    ShardError::Inconsistent { what: format!("a file of vectors cannot be read as such: {error}") }
}
