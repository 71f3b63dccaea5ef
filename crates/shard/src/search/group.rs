//! Searches that group their hits: the best hits of each value of a field, for the values with the best hits.
//!
//! A segment's best groups are found by searching it for rows, and again among the rows of groups not seen yet, until
//! there are enough. The groups that are best over all segments are then filled up in each of them. Rows in memory, and
//! those of a segment whose payload index is damaged, are looked at one by one.

use std::collections::HashMap;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::mapped::Damaged;
use sagitta_model::{FieldPath, FieldType, Hit, Value, Violation};

use super::Search;
use super::segment::Scope;
use crate::payload::{FieldIndex, Key};
use crate::{Part, ShardError};

/// Rows that are fetched first for each group that is wanted: most groups have several rows near the query.
const ROWS_PER_GROUP: usize = 4;

/// Rows fetched at least.
const MIN_ROWS: usize = 32;

/// What a grouped search wants.
struct Wanted<'q> {
    field: &'q FieldPath,
    field_type: FieldType,
    groups: usize,
    size: usize,
}

/// The best hits of groups, at most `size` of each.
struct GroupTable {
    size: usize,
    groups: HashMap<Key, Vec<Hit>>,
}

/// The best hits of some groups in a segment: all that the group has there, or at least as many as are wanted.
type Found = HashMap<Key, Vec<Hit>>;

impl<'v> Search<'v> {
    /// The groups with the best hits, and the best hits of each.
    pub(super) fn search_groups(&mut self) -> Result<Vec<(Value, Vec<Hit>)>, ShardError> {
        let Some(group_by) = &self.query.group_by else { return Ok(Vec::new()) };
        let field_type = self.view.schema().fields.get(&group_by.field).copied();
        let field_type = field_type.ok_or_else(|| undeclared(&group_by.field))?;
        let wanted = Wanted { field: &group_by.field, field_type, groups: self.query.k, size: group_by.size.max(1) };
        let mut attempts = self.view.segments().len();
        loop {
            // Damage takes a payload index out of use, and what was found so far may not fit what is found without it.
            match self.try_groups(&wanted) {
                Err(ShardError::Damaged(_)) if attempts > 0 => attempts -= 1,
                tried => return tried,
            }
        }
    }

    fn try_groups(&mut self, wanted: &Wanted<'_>) -> Result<Vec<(Value, Vec<Hit>)>, ShardError> {
        let mut table = self.groups_of_unsealed(wanted)?;
        let mut indexed = Vec::new();
        for segment in self.view.segments() {
            let scope = self.planning(|search| Scope::new(search, segment))?;
            match segment.segment.payload().and_then(|payload| payload.field(wanted.field)) {
                None => self.add_groups_of_rows(&scope, wanted, &mut table)?,
                Some(field) => {
                    let found = reported(self, &scope, |search| search.best_groups(&scope, &field, wanted))?;
                    indexed.push((scope, field, found));
                }
            }
        }
        let found = indexed.iter().map(|(_, _, found)| found);
        for key in best_keys(found.chain([&table.groups]), wanted.groups) {
            for (scope, field, found) in &indexed {
                let hits = match found.get(&key) {
                    Some(hits) if hits.len() >= wanted.size => hits.clone(),
                    _ => reported(self, scope, |search| search.group_hits(scope, field, &key, wanted.size))?,
                };
                hits.into_iter().for_each(|hit| table.add(key.clone(), hit));
            }
        }
        Ok(table.into_best(wanted))
    }

    fn groups_of_unsealed(&mut self, wanted: &Wanted<'_>) -> Result<GroupTable, ShardError> {
        let mut table = GroupTable { size: wanted.size, groups: HashMap::new() };
        self.for_each_unsealed(&mut |hit, payload, search| {
            if search.passes(&hit, payload) {
                let keys = Key::of_payload(wanted.field, wanted.field_type, payload);
                keys.into_iter().for_each(|key| table.add(key, hit));
            }
        })?;
        Ok(table)
    }

    /// Adds every group of a segment by looking at the payloads of all its rows.
    fn add_groups_of_rows(
        &mut self,
        scope: &Scope<'v>,
        wanted: &Wanted<'_>,
        table: &mut GroupTable,
    ) -> Result<(), ShardError> {
        let mut candidates = self.best_rows(scope, scope.rows.count())?;
        candidates.sort_unstable_by_key(|candidate| candidate.row);
        let mut rows = candidates.iter().map(|candidate| candidate.row);
        let mut similarities = candidates.iter().map(|candidate| candidate.similarity);
        self.view.payloads_from_database(scope.segment, &mut rows, self.context.stop, &mut |_, id, payload| {
            let keys = Key::of_payload(wanted.field, wanted.field_type, &payload.decode()?);
            if let Some(similarity) = similarities.next() {
                keys.into_iter().for_each(|key| table.add(key, Hit { id, similarity }));
            }
            Ok(())
        })
    }

    /// The groups of a segment with the best hits, as many as are wanted if there are so many, and the hits of each that were
    /// met. Those are its best hits, and all of its hits that are as good.
    fn best_groups(
        &mut self,
        scope: &Scope<'v>,
        field: &FieldIndex<'_>,
        wanted: &Wanted<'_>,
    ) -> Result<Found, ShardError> {
        let mut by_ordinal: HashMap<u32, Vec<Hit>> = HashMap::new();
        let mut fetch = (wanted.groups * ROWS_PER_GROUP).max(MIN_ROWS);
        loop {
            let left = scope.narrowed(rows_of_other_groups(scope, field, &by_ordinal)?);
            let candidates = self.best_rows(&left, fetch)?;
            let hits = self.view.hits(scope.segment, &candidates)?;
            let known = by_ordinal.len();
            let mut met: HashMap<u32, Vec<Hit>> = HashMap::new();
            for (candidate, hit) in candidates.iter().zip(&hits) {
                field.visit_ordinals(candidate.row, &mut |ordinal| {
                    if !by_ordinal.contains_key(&ordinal) {
                        let hits = met.entry(ordinal).or_default();
                        if hits.len() < wanted.size {
                            hits.push(*hit);
                        }
                    }
                })?;
            }
            by_ordinal.extend(met);
            let exhausted = candidates.len() < fetch || by_ordinal.len() == known;
            if by_ordinal.len() >= wanted.groups || exhausted {
                break;
            }
            fetch = fetch.saturating_mul(2);
        }
        let mut found = Found::new();
        for (ordinal, hits) in by_ordinal {
            found.insert(field.key(ordinal)?, hits);
        }
        Ok(found)
    }

    /// The best hits of a group in a segment.
    fn group_hits(
        &mut self,
        scope: &Scope<'v>,
        field: &FieldIndex<'_>,
        key: &Key,
        size: usize,
    ) -> Result<Vec<Hit>, ShardError> {
        let Some(ordinal) = field.ordinal(key)? else { return Ok(Vec::new()) };
        let mut rows = Bitmap::new(scope.rows.len());
        field.add_rows(ordinal, &mut rows)?;
        rows.and(&scope.rows);
        let candidates = self.best_rows(&scope.narrowed(rows), size)?;
        self.view.hits(scope.segment, &candidates)
    }
}

impl GroupTable {
    fn add(&mut self, key: Key, hit: Hit) {
        let hits = self.groups.entry(key).or_default();
        let at = hits.partition_point(|other| other.rank(&hit).is_lt());
        if at < self.size {
            hits.truncate(self.size - 1);
            hits.insert(at, hit);
        }
    }

    fn into_best(mut self, wanted: &Wanted<'_>) -> Vec<(Value, Vec<Hit>)> {
        let keys = best_keys([&self.groups], wanted.groups);
        let group = |key: Key| (key.to_value(wanted.field_type), self.groups.remove(&key).unwrap_or_default());
        keys.into_iter().map(group).collect()
    }
}

/// The keys of the groups with the best hits, best first; ties by key.
fn best_keys<'g>(tables: impl IntoIterator<Item = &'g HashMap<Key, Vec<Hit>>>, count: usize) -> Vec<Key> {
    let mut best: HashMap<&Key, Hit> = HashMap::new();
    for (key, hits) in tables.into_iter().flatten() {
        let Some(&first) = hits.first() else { continue };
        let known = best.entry(key).or_insert(first);
        if first.rank(known).is_lt() {
            *known = first;
        }
    }
    let mut ranked: Vec<_> = best.into_iter().collect();
    ranked.sort_unstable_by(|(key, hit), (other_key, other)| hit.rank(other).then_with(|| key.cmp(other_key)));
    ranked.truncate(count);
    ranked.into_iter().map(|(key, _)| key.clone()).collect()
}

/// The rows of a scope that have a key which is not among those found.
fn rows_of_other_groups(
    scope: &Scope<'_>,
    field: &FieldIndex<'_>,
    found: &HashMap<u32, Vec<Hit>>,
) -> Result<Bitmap, Damaged> {
    let mut ordinals: Vec<_> = found.keys().map(|&ordinal| ordinal as usize).collect();
    ordinals.sort_unstable();
    let mut rows = Bitmap::new(scope.rows.len());
    let mut next = 0;
    for ordinal in ordinals.into_iter().chain([field.keys()]) {
        field.add_rows_of(next..ordinal, &mut rows)?;
        next = ordinal + 1;
    }
    rows.and(&scope.rows);
    Ok(rows)
}

/// Reports a payload index that turns out to be damaged.
fn reported<'v, T>(
    search: &mut Search<'v>,
    scope: &Scope<'v>,
    read: impl FnOnce(&mut Search<'v>) -> Result<T, ShardError>,
) -> Result<T, ShardError> {
    let read = read(search);
    if let Err(ShardError::Damaged(damage)) = &read {
        search.view.report_damage(scope.segment, Part::Payload, damage);
    }
    read
}

fn undeclared(field: &FieldPath) -> Violation {
    Violation::new("group_by.field", format!("`{field}` is not a declared field of this collection"))
}
