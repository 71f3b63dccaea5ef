use std::cmp::Ordering;
use std::ops::Range;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::mapped::{Damaged, SealedFile};
use sagitta_model::FieldType;
use sagitta_model::filter::{Bounds, Number};

use super::column::{inconsistent, partition_point};
use super::key::{Key, SortedFloat};
use super::layout::{FieldLayout, NO_ORDINAL};
use super::rows::{StoredRows, WORDS_PER_ROW_COST, add_list, add_words, words_of};

/// The index of one declared field, for reading.
#[derive(Clone, Copy, Debug)]
pub struct FieldIndex<'f> {
    pub(super) file: &'f SealedFile,
    pub(super) field_type: FieldType,
    pub(super) layout: &'f FieldLayout,
}

impl FieldIndex<'_> {
    /// The declared type.
    pub fn field_type(&self) -> FieldType {
        self.field_type
    }

    /// Number of distinct keys; their ordinals are the numbers below it.
    pub fn keys(&self) -> usize {
        self.layout.keys()
    }

    /// The number of a key among the field's distinct keys in this segment.
    pub fn ordinal(&self, key: &Key) -> Result<Option<u32>, Damaged> {
        let FieldLayout { ints, floats, text_ends, .. } = self.layout;
        let (from, found) = match key {
            Key::Int(n) => {
                let at = ints.partition_point(self.file, |other| i64::from_le_bytes(other) < *n)?;
                (at, at < ints.len() && i64::from_le_bytes(ints.get(self.file, at)?) == *n)
            }
            Key::Float(x) => {
                let at = floats.partition_point(self.file, |other| sorted_float(other) < *x)?;
                (ints.len() + at, at < floats.len() && sorted_float(floats.get(self.file, at)?) == *x)
            }
            Key::Text(text) => {
                let at = partition_point(text_ends.len(), |at| Ok(self.text(at)?.cmp(text.as_bytes()).is_lt()))?;
                (at, at < text_ends.len() && self.text(at)? == text.as_bytes())
            }
        };
        Ok(found.then_some(from as u32))
    }

    /// The key of an ordinal.
    pub fn key(&self, ordinal: u32) -> Result<Key, Damaged> {
        let at = ordinal as usize;
        let FieldLayout { ints, floats, .. } = self.layout;
        if at < ints.len() {
            return Ok(Key::Int(i64::from_le_bytes(ints.get(self.file, at)?)));
        }
        if at < ints.len() + floats.len() {
            return Ok(Key::Float(sorted_float(floats.get(self.file, at - ints.len())?)));
        }
        let text = std::str::from_utf8(self.text(at)?).map_err(|_| inconsistent(self.file))?;
        Ok(Key::Text(text.into()))
    }

    /// Adds the rows of an ordinal to a set.
    pub fn add_rows(&self, ordinal: u32, set: &mut Bitmap) -> Result<(), Damaged> {
        self.add_rows_of(ordinal as usize..ordinal as usize + 1, set)
    }

    /// Calls `visit` with each ordinal of a row.
    pub fn visit_ordinals(&self, row: u32, visit: &mut dyn FnMut(u32)) -> Result<(), Damaged> {
        let FieldLayout { forward_ends, forward, .. } = self.layout;
        if forward.len() == 0 {
            return Ok(());
        }
        let row = row as usize;
        let range = if forward_ends.len() == 0 {
            row..row + 1
        } else {
            let start = if row == 0 { 0 } else { self.forward_end(row - 1)? };
            start..self.forward_end(row)?
        };
        for ordinal in forward.slice(self.file, range)? {
            let ordinal = u32::from_le_bytes(*ordinal);
            if ordinal != NO_ORDINAL {
                visit(ordinal);
            }
        }
        Ok(())
    }

    /// The ordinals whose keys lie within bounds: one range among the integers, one among the floats.
    pub(super) fn numbers_within(&self, bounds: &Bounds<Number>) -> Result<[Range<usize>; 2], Damaged> {
        let FieldLayout { ints, floats, .. } = self.layout;
        let int = |at: usize| ints.get(self.file, at).map(|bytes| Number::Int(i64::from_le_bytes(bytes)));
        let float = |at: usize| floats.get(self.file, at).map(|bytes| Number::Float(sorted_float(bytes).get()));
        let of_ints = within(ints.len(), bounds, int)?;
        let of_floats = within(floats.len(), bounds, float)?;
        Ok([of_ints, of_floats.start + ints.len()..of_floats.end + ints.len()])
    }

    /// The ordinals whose keys, all integers, lie within bounds.
    pub(super) fn moments_within(&self, bounds: &Bounds<i64>) -> Result<Range<usize>, Damaged> {
        let ints = self.layout.ints;
        within(ints.len(), bounds, |at| ints.get(self.file, at).map(i64::from_le_bytes))
    }

    /// The ordinals whose keys, all texts, begin with a text: texts ascend by their bytes, so they are adjacent.
    pub(super) fn texts_beginning_with(&self, prefix: &str) -> Result<Range<usize>, Damaged> {
        let (prefix, texts) = (prefix.as_bytes(), self.layout.text_ends.len());
        let start = partition_point(texts, |at| Ok(self.text(at)? < prefix))?;
        let end = partition_point(texts, |at| {
            let text = self.text(at)?;
            Ok(text < prefix || text.starts_with(prefix))
        })?;
        Ok(start..end.max(start))
    }

    /// The sets of rows whose numbers of values lie within bounds, no row in two of them. An error in a file that was
    /// written before values were counted: the filter is then answered from the database, as if the file were damaged,
    /// and the file is built again.
    pub(super) fn rows_counting(&self, bounds: &Bounds<u64>) -> Result<Vec<StoredRows>, Damaged> {
        let reason = "it was written by a version that did not count values";
        let unknown = || Damaged { file: self.file.path().to_path_buf(), block: None, reason };
        let counts = self.layout.counts.as_ref().ok_or_else(unknown)?;
        Ok(counts.iter().filter(|(count, _)| bounds.contain(count)).map(|(_, rows)| *rows).collect())
    }

    /// How many rows the ordinals have, a row counting once for each of them that it has.
    pub(super) fn entries_of(&self, ordinals: &Range<usize>) -> Result<usize, Damaged> {
        let range = self.postings_of(ordinals)?;
        Ok(range.len())
    }

    /// What [`FieldIndex::add_rows_of`] costs, in units of adding one row of a list.
    pub(super) fn cost_of(&self, ordinals: &Range<usize>, rows: usize) -> Result<usize, Damaged> {
        let zones = self.zones_within(ordinals)?;
        let Some(last) = zones.clone().last() else { return self.entries_of(ordinals) };
        let before = ordinals.start..self.zone(zones.start)?.start;
        let after = self.zone(last)?.end..ordinals.end;
        let covered = zones.len() * words_of(rows) / WORDS_PER_ROW_COST;
        Ok(covered + self.entries_of(&before)? + self.entries_of(&after)?)
    }

    /// Adds the rows of a range of ordinals to a set: where the range covers a zone by its bitmap, else one by one.
    pub(crate) fn add_rows_of(&self, ordinals: Range<usize>, set: &mut Bitmap) -> Result<(), Damaged> {
        let FieldLayout { postings, zone_words, .. } = self.layout;
        let words = words_of(set.len());
        let mut next = ordinals.start;
        for zone in self.zones_within(&ordinals)? {
            let covered = self.zone(zone)?;
            add_list(self.file, *postings, self.postings_of(&(next..covered.start))?, set)?;
            add_words(self.file, *zone_words, zone * words..(zone + 1) * words, set)?;
            next = covered.end;
        }
        add_list(self.file, *postings, self.postings_of(&(next..ordinals.end))?, set)
    }

    /// The zones that lie wholly within a range of ordinals.
    fn zones_within(&self, ordinals: &Range<usize>) -> Result<Range<usize>, Damaged> {
        let zones = self.layout.zones;
        let start = zones.partition_point(self.file, |zone| unpack(zone).start < ordinals.start)?;
        let end = zones.partition_point(self.file, |zone| unpack(zone).end <= ordinals.end)?;
        Ok(start..end.max(start))
    }

    fn zone(&self, at: usize) -> Result<Range<usize>, Damaged> {
        self.layout.zones.get(self.file, at).map(unpack)
    }

    fn postings_of(&self, ordinals: &Range<usize>) -> Result<Range<usize>, Damaged> {
        let start = self.posting_end(ordinals.start)?;
        let end = self.posting_end(ordinals.end)?;
        if start <= end { Ok(start..end) } else { Err(inconsistent(self.file)) }
    }

    /// Where the postings of all ordinals before `ordinal` end.
    fn posting_end(&self, ordinal: usize) -> Result<usize, Damaged> {
        let Some(before) = ordinal.checked_sub(1) else { return Ok(0) };
        let end = u64::from_le_bytes(self.layout.posting_ends.get(self.file, before)?);
        usize::try_from(end).map_err(|_| inconsistent(self.file))
    }

    fn forward_end(&self, row: usize) -> Result<usize, Damaged> {
        let end = u64::from_le_bytes(self.layout.forward_ends.get(self.file, row)?);
        usize::try_from(end).map_err(|_| inconsistent(self.file))
    }

    fn text(&self, at: usize) -> Result<&[u8], Damaged> {
        let FieldLayout { text_ends, text_bytes, .. } = self.layout;
        let end_of = |at| -> Result<usize, Damaged> {
            let end = u64::from_le_bytes(text_ends.get(self.file, at)?);
            usize::try_from(end).map_err(|_| inconsistent(self.file))
        };
        let start = if at == 0 { 0 } else { end_of(at - 1)? };
        Ok(text_bytes.slice(self.file, start..end_of(at)?)?.as_flattened())
    }
}

/// Which of `len` ascending values lie within bounds.
fn within<T: PartialOrd + Copy>(
    len: usize,
    bounds: &Bounds<T>,
    value: impl Fn(usize) -> Result<T, Damaged>,
) -> Result<Range<usize>, Damaged> {
    let incomparable = |bound: &Option<(T, bool)>| bound.is_some_and(|(bound, _)| bound.partial_cmp(&bound).is_none());
    if incomparable(&bounds.lower) || incomparable(&bounds.upper) {
        return Ok(0..0);
    }
    let before = |bound: T, including: bool| {
        partition_point(len, |at| {
            let order = value(at)?.partial_cmp(&bound);
            Ok(order == Some(Ordering::Less) || including && order == Some(Ordering::Equal))
        })
    };
    let start = bounds.lower.map_or(Ok(0), |(bound, inclusive)| before(bound, !inclusive))?;
    let end = bounds.upper.map_or(Ok(len), |(bound, inclusive)| before(bound, inclusive))?;
    Ok(start..end.max(start))
}

fn sorted_float(bytes: [u8; 8]) -> SortedFloat {
    SortedFloat::from_bits(u64::from_le_bytes(bytes))
}

fn unpack(zone: [u8; 8]) -> Range<usize> {
    let packed = u64::from_le_bytes(zone);
    (packed & u64::from(u32::MAX)) as usize..(packed >> 32) as usize
}
