use std::ops::Range;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::mapped::Damaged;

use super::resolve::{Resolved, Term, TermTest};
use super::{FieldIndex, PayloadIndex};

/// What it costs to test one row against one condition by the values of the row, or against one set of rows, in units of
/// adding one row of a condition to a bitmap: a dependent read from a cold place, against a step through a list.
const ROW_TEST_COST: usize = 16;

impl Resolved<'_> {
    /// The rows that pass.
    pub(super) fn evaluate(&self, index: &PayloadIndex) -> Result<Bitmap, Damaged> {
        let rows = index.rows();
        let mut passing = match self.must.split_first() {
            None => Bitmap::full(rows),
            Some((first, others)) => {
                let mut passing = first.evaluate(index)?;
                for term in others {
                    narrow(&mut passing, term, index)?;
                }
                passing
            }
        };
        if let Some(should) = &self.should {
            let mut any = Bitmap::new(rows);
            for term in should {
                term.add_to(index, &mut any)?;
            }
            passing.and(&any);
        }
        for term in &self.must_not {
            if passing.count() == 0 {
                break;
            }
            if is_cheaper_by_row(&passing, term) {
                retain(&mut passing, |row| Ok(!term.holds(index, row)?))?;
            } else {
                passing.and_not(&term.evaluate(index)?);
            }
        }
        Ok(passing)
    }

    pub(super) fn holds(&self, index: &PayloadIndex, row: u32) -> Result<bool, Damaged> {
        let any = |terms: &[Term<'_>]| -> Result<bool, Damaged> {
            for term in terms {
                if term.holds(index, row)? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        for term in &self.must {
            if !term.holds(index, row)? {
                return Ok(false);
            }
        }
        if let Some(should) = &self.should
            && !any(should)?
        {
            return Ok(false);
        }
        Ok(!any(&self.must_not)?)
    }
}

/// Takes the rows out that do not pass the term.
fn narrow(passing: &mut Bitmap, term: &Term<'_>, index: &PayloadIndex) -> Result<(), Damaged> {
    if passing.count() == 0 {
        return Ok(());
    }
    if is_cheaper_by_row(passing, term) {
        return retain(passing, |row| term.holds(index, row));
    }
    passing.and(&term.evaluate(index)?);
    Ok(())
}

fn is_cheaper_by_row(passing: &Bitmap, term: &Term<'_>) -> bool {
    let tests = if let TermTest::Sets(_, sets) = &term.test { sets.len() } else { 1 };
    passing.count().saturating_mul(ROW_TEST_COST).saturating_mul(tests) < term.cost
}

fn retain(rows: &mut Bitmap, mut keep: impl FnMut(u32) -> Result<bool, Damaged>) -> Result<(), Damaged> {
    for row in rows.iter().collect::<Vec<_>>() {
        if !keep(row)? {
            rows.clear(row);
        }
    }
    Ok(())
}

impl Term<'_> {
    fn evaluate(&self, index: &PayloadIndex) -> Result<Bitmap, Damaged> {
        if let TermTest::Filter(filter) = &self.test {
            return filter.evaluate(index);
        }
        let mut passing = Bitmap::new(index.rows());
        self.add_to(index, &mut passing)?;
        Ok(passing)
    }

    fn add_to(&self, index: &PayloadIndex, set: &mut Bitmap) -> Result<(), Damaged> {
        match &self.test {
            TermTest::Ordinals(field, ranges) => {
                for range in ranges {
                    field.add_rows_of(range.clone(), set)?;
                }
            }
            TermTest::Present(field) => field.layout.present.add_to(field.file, set)?,
            TermTest::Null(field) => field.layout.nulls.add_to(field.file, set)?,
            TermTest::Sets(field, sets) => {
                for rows in sets {
                    rows.add_to(field.file, set)?;
                }
            }
            TermTest::Rows(rows) => rows.iter().for_each(|&row| set.set(row)),
            TermTest::Filter(filter) => set.or(&filter.evaluate(index)?),
        }
        Ok(())
    }

    fn holds(&self, index: &PayloadIndex, row: u32) -> Result<bool, Damaged> {
        match &self.test {
            TermTest::Ordinals(field, ranges) => has_ordinal(field, ranges, row),
            TermTest::Present(field) => field.layout.present.contains(field.file, row),
            TermTest::Null(field) => field.layout.nulls.contains(field.file, row),
            TermTest::Sets(field, sets) => {
                for rows in sets {
                    if rows.contains(field.file, row)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            TermTest::Rows(rows) => Ok(rows.binary_search(&row).is_ok()),
            TermTest::Filter(filter) => filter.holds(index, row),
        }
    }
}

fn has_ordinal(field: &FieldIndex<'_>, ranges: &[Range<usize>], row: u32) -> Result<bool, Damaged> {
    let mut found = false;
    field.visit_ordinals(row, &mut |ordinal| {
        let at = ranges.partition_point(|range| range.end <= ordinal as usize);
        found |= ranges.get(at).is_some_and(|range| range.contains(&(ordinal as usize)));
    })?;
    Ok(found)
}
