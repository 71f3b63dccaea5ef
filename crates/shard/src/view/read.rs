//! Get, count and scroll.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use sagitta_engine::index::Stop;
use sagitta_model::{Filter, Hit, NamedVectors, PayloadSelection, PointId, Record, Selection, VectorSelection, limits};

use super::database::{BLOCK_ROWS, bad_row, read_points, read_vectors, scan_points};
use super::{ROWS_PER_CHECK, ReadView};
use crate::codec::{PointRecord, Projection};
use crate::{Generation, ShardError};

/// How much what one answer holds may still weigh; shared by all that is gathered for it, on whichever threads.
#[derive(Debug)]
pub struct AnswerRoom(AtomicUsize);

impl Default for AnswerRoom {
    fn default() -> Self {
        Self::new(limits::MAX_ANSWER_WEIGHT)
    }
}

impl AnswerRoom {
    /// Room for so much.
    pub fn new(weight: usize) -> Self {
        Self(AtomicUsize::new(weight))
    }

    /// Takes of the room.
    ///
    /// # Errors
    /// [`ShardError::Invalid`] when there is not as much left.
    pub fn take(&self, weight: usize) -> Result<(), ShardError> {
        let left = |room: usize| room.checked_sub(weight);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        taken.map(drop).map_err(|_| Record::too_heavy().into())
    }
}

impl ReadView {
    /// The selected parts of those of the points that exist, in the order asked for.
    ///
    /// # Errors
    /// [`ShardError::Invalid`] when they would weigh more than an answer may, or what the database reports.
    pub fn get(&self, ids: &[PointId], selection: &Selection) -> Result<Vec<Record>, ShardError> {
        self.gather(ids, selection, &AnswerRoom::default())
    }

    /// The selected parts of the points that were hit.
    ///
    /// # Errors
    /// [`ShardError::Invalid`] when the answer has no room left for them, or what the database reports.
    pub fn hydrate(&self, hits: &[Hit], selection: &Selection, room: &AnswerRoom) -> Result<Vec<Record>, ShardError> {
        let ids: Vec<_> = hits.iter().map(|hit| hit.id).collect();
        self.gather(&ids, selection, room)
    }

    fn gather(&self, ids: &[PointId], selection: &Selection, room: &AnswerRoom) -> Result<Vec<Record>, ShardError> {
        let reader = RecordReader::new(self, selection);
        let mut records = Vec::with_capacity(ids.len());
        for block in ids.chunks(BLOCK_ROWS) {
            let found = reader.append(block, &mut records)?;
            room.take(weight_of_last(&records, found))?;
        }
        Ok(records)
    }

    /// How many points there are, or pass a filter.
    ///
    /// # Errors
    /// [`ShardError::Invalid`] for a filter that does not suit the schema, [`ShardError::Stopped`], or what the database
    /// reports.
    pub fn count(&self, filter: Option<&Filter>, stop: &dyn Stop) -> Result<u64, ShardError> {
        let Some(filter) = filter.filter(|filter| !filter.is_empty()) else {
            return Ok(self.points);
        };
        filter.validate(self.schema())?;
        let mut count = 0;
        for segment in &self.segments {
            count += self.matching(segment, filter, stop)?.count() as u64;
        }
        for generation in &self.generations {
            generation.for_each_matching(filter, stop, &mut |_| count += 1)?;
        }
        Ok(count)
    }

    /// The selected parts of the first `limit` points, by id, whose ids are greater than `after` and that pass the filter;
    /// of fewer when these fill a page by their weight.
    ///
    /// # Errors
    /// As [`ReadView::count`].
    pub fn scroll(
        &self,
        after: Option<PointId>,
        filter: Option<&Filter>,
        limit: usize,
        selection: &Selection,
        stop: &dyn Stop,
    ) -> Result<Vec<Record>, ShardError> {
        let reader = RecordReader::new(self, selection);
        let (mut records, mut weight) = (Vec::new(), 0);
        if let Some(filter) = filter.filter(|filter| !filter.is_empty()) {
            filter.validate(self.schema())?;
            let ids = self.first_matching(after, filter, limit, stop)?;
            for block in ids.chunks(BLOCK_ROWS) {
                let found = reader.append(block, &mut records)?;
                if page_is_full(&mut records, found, &mut weight) {
                    break;
                }
            }
            return Ok(records);
        }
        while records.len() < limit {
            if stop.should_stop() {
                return Err(ShardError::Stopped);
            }
            let wanted = BLOCK_ROWS.min(limit - records.len());
            let last = records.last().map(|record| record.id).or(after);
            let found = reader.append_after(last, wanted, &mut records)?;
            if page_is_full(&mut records, found, &mut weight) || found < wanted {
                break;
            }
        }
        Ok(records)
    }

    /// The first `limit` ids greater than `after` whose points pass the filter, ascending.
    pub(crate) fn first_matching(
        &self,
        after: Option<PointId>,
        filter: &Filter,
        limit: usize,
        stop: &dyn Stop,
    ) -> Result<Vec<PointId>, ShardError> {
        let mut found = Vec::new();
        let mut ids = Vec::new();
        for segment in &self.segments {
            let rows = self.matching(segment, filter, stop)?;
            let start = match after {
                Some(after) => segment.segment.read_ids(self.snapshot(), |ids| ids.first_after(after))?,
                None => 0,
            };
            let rows: Vec<u32> = rows.iter().skip_while(|row| *row < start).take(limit).collect();
            self.point_ids(segment, &rows, &mut ids)?;
            found.append(&mut ids);
        }
        for generation in &self.generations {
            generation.for_each_matching(filter, stop, &mut |id| {
                if after.is_none_or(|after| id > after) {
                    found.push(id);
                }
            })?;
        }
        found.sort_unstable();
        found.truncate(limit);
        Ok(found)
    }
}

impl Generation {
    /// Calls `visit` with the ids of the live rows that pass a filter.
    fn for_each_matching(
        &self,
        filter: &Filter,
        stop: &dyn Stop,
        visit: &mut dyn FnMut(PointId),
    ) -> Result<(), ShardError> {
        for chunk in self.chunks() {
            for (at, row) in chunk.live().iter().enumerate() {
                if at.is_multiple_of(ROWS_PER_CHECK) && stop.should_stop() {
                    return Err(ShardError::Stopped);
                }
                let id = chunk.ids()[row as usize];
                if filter.matches(id, &chunk.payloads()[row as usize]) {
                    visit(id);
                }
            }
        }
        Ok(())
    }
}

fn weight_of_last(records: &[Record], count: usize) -> usize {
    records[records.len() - count..].iter().map(Record::weight).sum()
}

/// Adds the weight of the last `count` records to that of those before, and cuts the page where it is full.
fn page_is_full(records: &mut Vec<Record>, count: usize, weight: &mut usize) -> bool {
    *weight += weight_of_last(records, count);
    *weight >= limits::MAX_PAGE_WEIGHT && Record::cut_to_a_page(records)
}

/// Makes records of what is stored.
struct RecordReader<'a> {
    view: &'a ReadView,
    payload: Option<Projection>,
    /// Position in the schema, name and dimension.
    vectors: Vec<(usize, &'a str, usize)>,
}

impl<'a> RecordReader<'a> {
    fn new(view: &'a ReadView, selection: &Selection) -> Self {
        let wanted = |name: &str| match &selection.vectors {
            VectorSelection::None => false,
            VectorSelection::All => true,
            VectorSelection::Names(names) => names.iter().any(|wanted| wanted == name),
        };
        let vectors = view.schema().vectors.iter().enumerate();
        let vectors = vectors.filter(|(_, (name, _))| wanted(name));
        Self {
            view,
            payload: (selection.payload != PayloadSelection::None).then(|| Projection::from(&selection.payload)),
            vectors: vectors.map(|(ordinal, (name, spec))| (ordinal, name.as_str(), spec.dim)).collect(),
        }
    }

    /// Adds those of the points that exist, and says how many these are.
    fn append(&self, ids: &[PointId], records: &mut Vec<Record>) -> Result<usize, ShardError> {
        let known = records.len();
        read_points(self.view.snapshot(), ids, &mut |at, record| {
            // The database may still hold what another shard has by now.
            if let Some(record) = record.filter(|_| self.view.range().holds(ids[at])) {
                records.push(self.record(ids[at], record)?);
            }
            Ok(())
        })?;
        self.add_vectors(&mut records[known..])?;
        Ok(records.len() - known)
    }

    /// Adds up to `wanted` points behind an id, ascending, and says how many there were.
    fn append_after(
        &self,
        after: Option<PointId>,
        wanted: usize,
        records: &mut Vec<Record>,
    ) -> Result<usize, ShardError> {
        let known = records.len();
        scan_points(self.view.snapshot(), after, &mut |id, record| {
            if self.view.range().holds(id) {
                records.push(self.record(id, record)?);
            }
            Ok(if records.len() < known + wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        self.add_vectors(&mut records[known..])?;
        Ok(records.len() - known)
    }

    fn record(&self, id: PointId, stored: PointRecord<'_>) -> Result<Record, ShardError> {
        let payload = self.payload.as_ref().map(|projection| stored.payload.select(projection));
        let payload = payload.transpose().map_err(|error| bad_row("point", id, error))?;
        Ok(Record { id, version: stored.version, payload, vectors: NamedVectors::new() })
    }

    fn add_vectors(&self, records: &mut [Record]) -> Result<(), ShardError> {
        let ids: Vec<_> = records.iter().map(|record| record.id).collect();
        for &(ordinal, name, dim) in &self.vectors {
            let mut values = vec![0.0; ids.len() * dim];
            read_vectors(self.view.snapshot(), &ids, ordinal, dim, &mut values)?;
            for (record, values) in records.iter_mut().zip(values.chunks_exact(dim)) {
                record.vectors.insert(name.to_owned(), values.to_vec());
            }
        }
        Ok(())
    }
}
