//! Merging two neighbouring shards into a new one.
//!
//! Each of the three has a log of its own, and all that a merge does to a shard is an entry in it. The new shard is *filled* by
//! [`Import`] entries: points in the versions that they have where they come from, so that a version stays the same content
//! wherever it is; ids that are gone there; and what is remembered of requests there. Meanwhile it takes no command. The shards that the points come from work
//! on until they are *frozen*. From that entry on their points never change, unless they are thawed, and nobody may do so once it is agreed that the new shard
//! takes their place. What was in them then is brought over, and the new shard is *complete*: it takes commands, under log indexes
//! above all that any point has as its version.
//!
//! Imports are counted. One that was made before another was applied is refused, so whoever fills the shard knows that nothing
//! came between what it has read of it and what it adds, however late an entry of somebody else turns up in the log.

use std::ops::ControlFlow;

use sagitta_engine::kv::ScanRange;
use sagitta_model::{HashRange, Point, PointId};

use crate::apply::stored_outcome;
use crate::codec::Record as _;
use crate::layout::{Key, META};
use crate::open::{inconsistent, row_error};
use crate::records::{Imported, Request};
use crate::view::scan_points;
use crate::{ReadView, ShardError, WriteOutcome};

/// Requests that a shard remembers which it was filled with, at most: those of four shards that have remembered all that they can.
pub const MAX_IMPORTED_REQUESTS: usize = 4 * crate::requests::MAX_REQUESTS;

/// What a merge has a shard's log say. Each may be repeated: it has no effect then.
#[derive(Clone, Debug, PartialEq)]
pub enum MergeEntry {
    /// From here on the shard takes no command and answers nobody but whoever merges it.
    Freeze {
        /// The merge. Identities of merges ascend.
        merge: u64,
    },
    /// The merge comes to nothing: the shard works on, and no entry of this merge freezes it any more.
    Thaw {
        /// The merge.
        merge: u64,
    },
    /// Something of the shards that are merged, for the shard that is filled.
    Import(Import),
    /// The shard has all that the merged ones had: it takes commands from here on.
    Complete {
        /// The merge.
        merge: u64,
        /// As [`Import::step`].
        step: u64,
        /// Log index above which the entry has to be: the greatest version that a point of the merged shards may have.
        above: u64,
    },
}

/// Something of a shard that is merged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Import {
    /// The merge.
    pub merge: u64,
    /// Imports that were applied before it: it has an effect after exactly so many.
    pub step: u64,
    /// Points with all of their vectors.
    pub points: Vec<Point>,
    /// Their versions, one for each.
    pub versions: Vec<u64>,
    /// Points that are not there any more.
    pub deleted: Vec<PointId>,
    /// Requests that were applied there.
    pub requests: Vec<RememberedRequest>,
}

/// A request that was applied to some of the points that it may be about.
#[derive(Clone, Debug, PartialEq)]
pub struct RememberedRequest {
    /// Chosen by the requester.
    pub id: u128,
    /// It was applied to the points of these hashes.
    pub range: HashRange,
    /// What came of it there.
    pub outcome: WriteOutcome,
}

/// How far the merge is that fills a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filling {
    /// The merge.
    pub merge: u64,
    /// Imports that were applied.
    pub step: u64,
}

/// Where a merge froze a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// The merge.
    pub merge: u64,
    /// Log index of the entry: no point has a greater version.
    pub index: u64,
}

/// What points of a merged shard are other than in the one that it fills.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Points that are missing here, or here in another version; ascending.
    pub other: Vec<PointId>,
    /// Points that are here alone; ascending.
    pub gone: Vec<PointId>,
}

/// How a shard begins that a merge fills. The same on every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The merge.
    pub merge: u64,
    /// The hashes of the shards that are merged.
    pub range: HashRange,
    /// Its log begins after this index; above those of the shards that are merged.
    pub index: u64,
    /// Term of the entry there.
    pub term: u64,
}

impl ReadView {
    /// How far the merge is that fills the shard, while one does. It answers nobody else then.
    pub fn filling(&self) -> Option<Filling> {
        self.merges().filling
    }

    /// The merge that has filled the shard, if one has and it is complete.
    pub fn filled_by(&self) -> Option<u64> {
        self.merges().filled
    }

    /// Where a merge froze the shard, unless it was thawed. It answers nobody else then.
    pub fn frozen_by(&self) -> Option<Frozen> {
        self.merges().frozen
    }

    /// Merges up to this one came to nothing as far as the shard is concerned: they freeze it no more. 0 if none did.
    pub fn thawed(&self) -> u64 {
        self.merges().thawed
    }

    /// Checks that the shard answers clients.
    ///
    /// # Errors
    /// [`ShardError::Merging`] if it is filled or frozen.
    pub fn is_open(&self) -> Result<(), ShardError> {
        let merge = self.filling().map(|filling| filling.merge).or(self.frozen_by().map(|frozen| frozen.merge));
        merge.map_or(Ok(()), |merge| Err(ShardError::Merging { shard: self.shard(), merge }))
    }

    /// Ids and versions of the first `limit` points, by id, whose ids are greater than `after`.
    ///
    /// # Errors
    /// What the database reports.
    pub fn versions(&self, after: Option<PointId>, limit: usize) -> Result<Vec<(PointId, u64)>, ShardError> {
        let mut versions = Vec::new();
        if limit == 0 {
            return Ok(versions);
        }
        scan_points(self.snapshot(), after, &mut |id, record| {
            // The database may still hold what another shard has by now.
            if self.range().holds(id) {
                versions.push((id, record.version));
            }
            Ok(if versions.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(versions)
    }

    /// What a page of the points of a merged shard, as [`ReadView::versions`] told it `after` an id, has other than this shard, in the
    /// range of that one; `is_last` says that no points follow it there.
    ///
    /// # Errors
    /// What the database reports.
    pub fn compare(
        &self,
        range: HashRange,
        after: Option<PointId>,
        page: &[(PointId, u64)],
        is_last: bool,
    ) -> Result<Comparison, ShardError> {
        let up_to = page.last().map(|(id, _)| *id).filter(|_| !is_last);
        let mut comparison = Comparison::default();
        let mut theirs = page.iter().copied().peekable();
        scan_points(self.snapshot(), after, &mut |id, record| {
            if up_to.is_some_and(|last| id > last) {
                return Ok(ControlFlow::Break(()));
            }
            if range.holds(id) {
                let before = std::iter::from_fn(|| theirs.next_if(|(their, _)| *their < id));
                comparison.other.extend(before.map(|(their, _)| their));
                match theirs.next_if(|(their, _)| *their == id) {
                    Some((_, version)) if version == record.version => {}
                    Some(_) => comparison.other.push(id),
                    None => comparison.gone.push(id),
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        comparison.other.extend(theirs.map(|(id, _)| id));
        Ok(comparison)
    }

    /// The first `limit` remembered requests that were applied here after a log index, with the indexes under which they were, ascending.
    ///
    /// # Errors
    /// What the database reports.
    pub fn requests_after(&self, index: u64, limit: usize) -> Result<Vec<(u64, RememberedRequest)>, ShardError> {
        let mut found = Vec::new();
        let mut failure = None;
        let range = ScanRange::between(&Key::request(index.saturating_add(1)), &Key::request(u64::MAX));
        self.snapshot().scan(META, &range, &mut |key, value| {
            if found.len() == limit {
                return ControlFlow::Break(());
            }
            match (Key::read_request(key), Request::from_sealed(value)) {
                (Some(index), Ok(request)) => found.push((index, request.id)),
                (_, Err(source)) => failure = Some(row_error(key, source)),
                (None, Ok(_)) => {}
            }
            ControlFlow::Continue(())
        })?;
        failure.map_or(Ok(()), Err)?;
        let remembered = |(index, id)| {
            let outcome = stored_outcome(self.snapshot(), index)?;
            let Some(outcome) = outcome else {
                return inconsistent(format!("the outcome of log entry {index} is gone, but its request is not"));
            };
            Ok((index, RememberedRequest { id, range: self.range(), outcome }))
        };
        found.into_iter().map(remembered).collect()
    }

    /// What the shard was itself filled with of up to `limit` requests, by id, from an id on, as far as it is about the shard's
    /// points; and the id to go on from, if there are more.
    ///
    /// # Errors
    /// What the database reports.
    pub fn imported_from(&self, id: u128, limit: usize) -> Result<(Vec<RememberedRequest>, Option<u128>), ShardError> {
        let (mut parts, mut requests, mut next, mut failure) = (Vec::new(), 0, None, None);
        let range = ScanRange::between(&Key::imported(id), &Key::after_imported());
        self.snapshot().scan(META, &range, &mut |key, value| {
            match (Key::read_imported(key), Imported::from_sealed(value)) {
                (Some(id), Ok(_)) if requests == limit => {
                    next = Some(id);
                    return ControlFlow::Break(());
                }
                (Some(id), Ok(Imported(found))) => {
                    requests += 1;
                    parts.extend(found.into_iter().filter_map(|(range, outcome)| {
                        let range = overlap(range, self.range())?;
                        Some(RememberedRequest { id, range, outcome })
                    }));
                }
                (_, Err(source)) => failure = Some(row_error(key, source)),
                (None, Ok(_)) => {}
            }
            ControlFlow::Continue(())
        })?;
        failure.map_or(Ok((parts, next)), Err)
    }
}

/// The hashes that are in both.
fn overlap(one: HashRange, other: HashRange) -> Option<HashRange> {
    let both = HashRange { first: one.first.max(other.first), last: one.last.min(other.last) };
    (both.first <= both.last).then_some(both)
}
