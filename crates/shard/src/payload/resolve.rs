use std::ops::Range;

use sagitta_engine::mapped::Damaged;
use sagitta_model::{Condition, FieldPath, Filter, Range as ValueRange, Scalar, Test, Violation};

use super::key::Key;
use super::rows::StoredRows;
use super::{FieldIndex, FindRow, PayloadIndex};
use crate::ShardError;

/// How many rows pass, at least and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountBounds {
    /// At least.
    pub at_least: usize,
    /// At most.
    pub at_most: usize,
}

/// A filter in the terms of one segment: values have become ordinals, ids have become rows. Costs a few bisections per
/// condition, after which the bounds on the number of rows are known.
#[derive(Debug)]
pub(super) struct Resolved<'f> {
    pub(super) must: Vec<Term<'f>>,
    pub(super) should: Option<Vec<Term<'f>>>,
    pub(super) must_not: Vec<Term<'f>>,
    rows: usize,
}

/// One resolved condition.
#[derive(Debug)]
pub(super) struct Term<'f> {
    pub(super) test: TermTest<'f>,
    pub(super) bounds: CountBounds,
    /// What finding all rows that pass costs, in units of adding one row of a list to a bitmap.
    pub(super) cost: usize,
}

#[derive(Debug)]
pub(super) enum TermTest<'f> {
    /// Rows with an ordinal in one of these ranges, which are ascending and apart.
    Ordinals(FieldIndex<'f>, Vec<Range<usize>>),
    /// Rows with a value that is not null.
    Present(FieldIndex<'f>),
    /// Rows with an explicit null.
    Null(FieldIndex<'f>),
    /// Rows in any of these sets, which are apart.
    Sets(FieldIndex<'f>, Vec<StoredRows>),
    /// These rows, ascending.
    Rows(Vec<u32>),
    Filter(Resolved<'f>),
}

impl<'f> Resolved<'f> {
    pub(super) fn new(index: &'f PayloadIndex, filter: &Filter, find: FindRow<'_>) -> Result<Self, ShardError> {
        let terms = |conditions: &[Condition]| -> Result<Vec<Term<'f>>, ShardError> {
            let mut terms = Vec::with_capacity(conditions.len());
            for condition in conditions {
                terms.push(Term::new(index, condition, find)?);
            }
            Ok(terms)
        };
        let mut resolved = Self {
            must: terms(&filter.must)?,
            should: if filter.should.is_empty() { None } else { Some(terms(&filter.should)?) },
            must_not: terms(&filter.must_not)?,
            rows: index.rows(),
        };
        // The fewest rows first: what follows then has less to look at.
        resolved.must.sort_by_key(|term| (term.bounds.at_most, term.cost));
        Ok(resolved)
    }

    pub(super) fn bounds(&self) -> CountBounds {
        let rows = self.rows;
        let must = self.must.iter().map(|term| term.bounds);
        let any_of = |terms: &[Term<'_>]| {
            let at_least = terms.iter().map(|term| term.bounds.at_least).max().unwrap_or(0);
            let at_most = terms.iter().fold(0usize, |sum, term| sum.saturating_add(term.bounds.at_most)).min(rows);
            CountBounds { at_least, at_most }
        };
        let should = self.should.iter().map(|terms| any_of(terms));
        let excluded = any_of(&self.must_not);
        let allowed = CountBounds { at_least: rows - excluded.at_most, at_most: rows - excluded.at_least };
        // Every part takes out at most the rows that it does not pass.
        let all = must.chain(should).chain([allowed]);
        all.fold(CountBounds { at_least: rows, at_most: rows }, |both, part| CountBounds {
            at_least: both.at_least.saturating_sub(rows - part.at_least),
            at_most: both.at_most.min(part.at_most),
        })
    }

    fn cost(&self) -> usize {
        let terms = self.must.iter().chain(self.should.iter().flatten()).chain(&self.must_not);
        terms.fold(0, |sum, term| sum.saturating_add(term.cost))
    }
}

impl<'f> Term<'f> {
    fn new(index: &'f PayloadIndex, condition: &Condition, find: FindRow<'_>) -> Result<Self, ShardError> {
        match condition {
            Condition::Field { path, test } => Ok(Self::of_field(index.declared(path)?, test, index.rows())?),
            Condition::HasId(ids) => {
                let mut rows = Vec::new();
                for id in ids {
                    rows.extend(find(*id)?);
                }
                rows.sort_unstable();
                rows.dedup();
                let count = rows.len();
                Ok(Self::exact(TermTest::Rows(rows), count, count))
            }
            Condition::Filter(filter) => {
                let resolved = Resolved::new(index, filter, find)?;
                let (bounds, cost) = (resolved.bounds(), resolved.cost());
                Ok(Self { test: TermTest::Filter(resolved), bounds, cost })
            }
        }
    }

    fn of_field(field: FieldIndex<'f>, test: &Test, rows: usize) -> Result<Self, Damaged> {
        let mut ordinals = match test {
            Test::Exists => {
                let present = field.layout.present;
                return Ok(Self::exact(TermTest::Present(field), present.count(), present.cost()));
            }
            Test::IsNull => {
                let nulls = field.layout.nulls;
                return Ok(Self::exact(TermTest::Null(field), nulls.count(), nulls.cost()));
            }
            Test::ValuesCount(bounds) => return Self::of_sets(field, field.rows_counting(bounds)?),
            Test::Match(scalar) => one_of(&field, std::slice::from_ref(scalar))?,
            Test::Any(scalars) => one_of(&field, scalars)?,
            Test::Range(ValueRange::Number(bounds)) => field.numbers_within(bounds)?.to_vec(),
            Test::Range(ValueRange::Datetime(bounds)) => vec![field.moments_within(bounds)?],
            Test::Prefix(prefix) => vec![field.texts_beginning_with(prefix)?],
        };
        ordinals.retain(|range| !range.is_empty());
        Self::of_ordinals(field, ordinals, rows)
    }

    fn of_ordinals(field: FieldIndex<'f>, ordinals: Vec<Range<usize>>, rows: usize) -> Result<Self, Damaged> {
        let (mut entries, mut most, mut cost) = (0usize, 0, 0);
        for range in &ordinals {
            let count = field.entries_of(range)?;
            entries += count;
            cost += field.cost_of(range, rows)?;
            // A row is listed once under each ordinal.
            most = most.max(if range.len() == 1 { count } else { 0 });
        }
        let most_keys = field.layout.most_keys.max(1);
        let bounds = CountBounds { at_least: entries.div_ceil(most_keys).max(most), at_most: entries.min(rows) };
        Ok(Self { test: TermTest::Ordinals(field, ordinals), bounds, cost })
    }

    fn of_sets(field: FieldIndex<'f>, sets: Vec<StoredRows>) -> Result<Self, Damaged> {
        let sum = |of: fn(&StoredRows) -> usize| sets.iter().map(of).sum();
        let (count, cost) = (sum(StoredRows::count), sum(StoredRows::cost));
        Ok(Self::exact(TermTest::Sets(field, sets), count, cost))
    }

    fn exact(test: TermTest<'f>, count: usize, cost: usize) -> Self {
        Self { test, bounds: CountBounds { at_least: count, at_most: count }, cost }
    }
}

impl PayloadIndex {
    fn declared(&self, path: &FieldPath) -> Result<FieldIndex<'_>, ShardError> {
        let unknown = || Violation::new("filter", format!("`{path}` is not a declared field of this collection"));
        self.field(path).ok_or_else(|| unknown().into())
    }
}

/// The ordinals of the scalars that occur in the segment, adjacent ones joined.
fn one_of(field: &FieldIndex<'_>, scalars: &[Scalar]) -> Result<Vec<Range<usize>>, Damaged> {
    let mut ordinals = Vec::new();
    for scalar in scalars {
        if let Some(key) = key_of(field, scalar) {
            ordinals.extend(field.ordinal(&key)?.map(|ordinal| ordinal as usize));
        }
    }
    ordinals.sort_unstable();
    ordinals.dedup();
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for ordinal in ordinals {
        match ranges.last_mut() {
            Some(last) if last.end == ordinal => last.end += 1,
            _ => ranges.push(ordinal..ordinal + 1),
        }
    }
    Ok(ranges)
}

/// The key that a field's values equal if they equal the scalar; none if no value of the field's type can.
fn key_of(field: &FieldIndex<'_>, scalar: &Scalar) -> Option<Key> {
    use sagitta_model::FieldType::{Bool, Float, Integer, Keyword};
    match (field.field_type(), scalar) {
        (Bool, Scalar::Bool(b)) => Some(Key::Int(i64::from(*b))),
        (Integer | Float, Scalar::Int(n)) => Some(Key::Int(*n)),
        (Keyword, Scalar::String(text)) => Some(Key::Text(text.as_str().into())),
        _ => None,
    }
}
