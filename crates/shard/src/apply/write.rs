use std::collections::BTreeMap;
use std::sync::Arc;

use sagitta_engine::kv::WriteBatch;
use sagitta_model::{PointId, Schema};

use super::Stage;
use super::stage::{StagedPoint, StagedVectors};
use crate::ShardError;
use crate::codec::{PointRecord, Record, write_vector};
use crate::growing::ChunkRows;
use crate::layout::{HEAD_KEY, IDENTITY_KEY, Key, MEMBERS_KEY, META, PENDING, POINTS, TOMBSTONES, VECTORS};
use crate::records::{Head, Members, Span};
use crate::state::{Changes, Place};
use crate::view::{BLOCK_ROWS, read_vectors};

impl Stage<'_> {
    /// What is to be written, and what follows from it in memory once it is.
    pub(crate) fn finish(self, schema: &Schema) -> Result<(WriteBatch, Changes), ShardError> {
        let kept = self.kept_vectors(schema)?;
        let mut batch = WriteBatch::new();
        let mut rows = ChunkRows::with_capacity(schema, self.points.len());
        let mut dead = Vec::new();
        let mut points = self.state.head.points;
        let mut value = Vec::new();
        for (&id, staged) in &self.points {
            let place = self.places[&id];
            self.bury(&mut batch, id, place);
            if place != Place::Absent {
                dead.push((id, place));
                points -= 1;
            }
            match staged {
                StagedPoint::Deleted => delete_point(&mut batch, id, schema),
                StagedPoint::Present { version, payload, vectors } => {
                    points += 1;
                    rows.push(id, *version, Arc::clone(payload));
                    PointRecord::write(*version, &**payload, &mut value);
                    batch.put(POINTS, &id.to_key(), &value);
                    batch.put(PENDING, &Key::pending(self.state.growing.number(), id), &version.to_le_bytes());
                    self.add_vectors(&mut batch, &mut rows, (id, vectors), &kept);
                }
            }
        }
        let requests: Vec<_> = self.outcomes.iter().map(|(&index, (request, _))| (index, *request)).collect();
        let head = self.write_requests(&mut batch, points);
        batch.put(META, HEAD_KEY, &head.to_sealed());
        if let Some(members) = &self.members {
            batch.put(META, MEMBERS_KEY, &Members(members.to_vec()).to_sealed());
        }
        let (imported, forgets_imported) = self.write_imported(&mut batch);
        let span = (self.merges != self.state.span.merges)
            .then(|| Span { merges: self.merges, ..Span::clone(&self.state.span) });
        if let Some(span) = &span {
            batch.put(META, IDENTITY_KEY, &self.view.identity(span.clone()).to_sealed());
        }
        let (span, members) = (span.map(Arc::new), self.members);
        Ok((batch, Changes { head, dead, rows, requests, imported, forgets_imported, span, members }))
    }

    /// Takes the row that a point had out of where it is.
    fn bury(&self, batch: &mut WriteBatch, id: PointId, place: Place) {
        match place {
            Place::Absent => {}
            Place::Unsealed(location) => batch.delete(PENDING, &Key::pending(location.generation, id)),
            Place::Sealed { segment, row } => batch.put(TOMBSTONES, &Key::tombstone(segment, row), &[]),
        }
    }

    fn add_vectors(
        &self,
        batch: &mut WriteBatch,
        rows: &mut ChunkRows,
        (id, vectors): (PointId, &StagedVectors),
        kept: &BTreeMap<PointId, Vec<Vec<f32>>>,
    ) {
        let mut bytes = Vec::new();
        match (vectors, self.places[&id]) {
            (StagedVectors::New(vectors), _) => {
                for (ordinal, vector) in vectors.iter().enumerate() {
                    bytes.clear();
                    write_vector(vector, &mut bytes);
                    batch.put(VECTORS, &Key::vector(id, ordinal), &bytes);
                    rows.push_vector(ordinal, vector);
                }
            }
            (StagedVectors::Kept, Place::Unsealed(location)) => {
                let generation = self.state.generation(location.generation);
                let generation = generation.expect("invariant: locations are of the present generations");
                let (chunk, row) = generation.locate(location.row);
                for ordinal in 0..rows.vector_names() {
                    rows.push_vector(ordinal, chunk.vectors(ordinal).row(row));
                }
            }
            (StagedVectors::Kept, _) => {
                for (ordinal, vector) in kept[&id].iter().enumerate() {
                    rows.push_vector(ordinal, vector);
                }
            }
        }
    }

    /// The vectors of points in segments that keep them.
    fn kept_vectors(&self, schema: &Schema) -> Result<BTreeMap<PointId, Vec<Vec<f32>>>, ShardError> {
        let keeps = |staged: &StagedPoint| matches!(staged, StagedPoint::Present { vectors: StagedVectors::Kept, .. });
        let sealed = |id: &PointId| matches!(self.places[id], Place::Sealed { .. });
        let ids = self.points.iter().filter(|(id, staged)| keeps(staged) && sealed(id)).map(|(id, _)| *id);
        let ids: Vec<_> = ids.collect();
        let mut kept: BTreeMap<PointId, Vec<Vec<f32>>> = BTreeMap::new();
        let mut values = Vec::new();
        for (ordinal, spec) in schema.vectors.values().enumerate() {
            for block in ids.chunks(BLOCK_ROWS) {
                values.resize(block.len() * spec.dim, 0.0);
                read_vectors(self.kv, block, ordinal, spec.dim, &mut values)?;
                for (id, vector) in block.iter().zip(values.chunks_exact(spec.dim)) {
                    kept.entry(*id).or_default().push(vector.to_vec());
                }
            }
        }
        Ok(kept)
    }

    /// Writes what the shard is filled with of requests, or forgets all of that when it is overdue.
    fn write_imported(&self, batch: &mut WriteBatch) -> (Vec<u128>, bool) {
        let is_overdue = !self.remembers_imported();
        if is_overdue && !self.state.imported.is_empty() {
            batch.delete_range(META, &Key::imported(0), &Key::after_imported());
        }
        if is_overdue {
            return (Vec::new(), true);
        }
        for (id, imported) in &self.imported {
            batch.put(META, &Key::imported(*id), &imported.to_sealed());
        }
        (self.imported.keys().copied().collect(), false)
    }

    /// Writes what came of the commands and forgets what is overdue; returns the head that goes with it.
    fn write_requests(&self, batch: &mut WriteBatch, points: u64) -> Head {
        for (&index, (request, outcome)) in &self.outcomes {
            batch.put(META, &Key::request(index), &request.to_sealed());
            batch.put(META, &Key::outcome(index), &outcome.to_sealed());
        }
        let window = &self.state.requests;
        let mut pruned = 0;
        for index in window.overdue(self.outcomes.len()) {
            batch.delete(META, &Key::request(index));
            batch.delete(META, &Key::outcome(index));
            pruned += 1;
        }
        let first_request = window.nth(pruned).or(self.outcomes.keys().next().copied());
        Head {
            applied_index: self.applied_index,
            applied_term: self.applied_term,
            points,
            first_request: first_request.unwrap_or(self.state.head.first_request),
            generation: self.state.growing.number(),
        }
    }
}

fn delete_point(batch: &mut WriteBatch, id: PointId, schema: &Schema) {
    batch.delete(POINTS, &id.to_key());
    for ordinal in 0..schema.vectors.len() {
        batch.delete(VECTORS, &Key::vector(id, ordinal));
    }
}
