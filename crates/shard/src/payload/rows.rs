use std::ops::Range;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::mapped::{Damaged, SealedFile};

use super::column::{Column, inconsistent};
use crate::codec::{DecodeError, Encode, Reader, Writer};

/// Bits of a word of a stored bitmap.
const WORD_BITS: usize = u64::BITS as usize;

/// A stored set of rows, in the smaller of two forms that are used as they are mapped, without being decoded. (Roaring
/// bitmaps would save at most half of either, and have to be built in memory before they can be used.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredRows {
    /// All rows of the segment, of which there are so many.
    All(usize),
    /// Ascending row numbers.
    List(Column<4>),
    /// One bit per row, and how many are set.
    Bitmap { words: Column<8>, count: usize },
}

/// Words of a bitmap that are added in the time of one row of a list: the compiler takes several at once.
pub(super) const WORDS_PER_ROW_COST: usize = 4;

/// The words of a bitmap over `rows` rows.
pub(super) fn words_of(rows: usize) -> usize {
    rows.div_ceil(WORD_BITS)
}

impl StoredRows {
    pub(super) fn count(&self) -> usize {
        match self {
            Self::All(rows) => *rows,
            Self::List(column) => column.len(),
            Self::Bitmap { count, .. } => *count,
        }
    }

    /// What adding it to a set costs, in units of adding one row of a list.
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::All(rows) => words_of(*rows) / WORDS_PER_ROW_COST,
            Self::List(column) => column.len(),
            Self::Bitmap { words, .. } => words.len() / WORDS_PER_ROW_COST,
        }
    }

    pub(super) fn fits(&self, bytes: usize, rows: usize) -> bool {
        match self {
            Self::All(count) => *count == rows,
            Self::List(column) => column.fits(bytes) && column.len() <= rows,
            Self::Bitmap { words, count } => words.fits(bytes) && words.len() == words_of(rows) && *count <= rows,
        }
    }

    /// Adds the rows to a set.
    pub(super) fn add_to(&self, file: &SealedFile, set: &mut Bitmap) -> Result<(), Damaged> {
        match self {
            Self::All(rows) if *rows == set.len() => {
                set.or(&Bitmap::full(*rows));
                Ok(())
            }
            Self::All(_) => Err(inconsistent(file)),
            Self::List(column) => add_list(file, *column, 0..column.len(), set),
            Self::Bitmap { words, .. } => add_words(file, *words, 0..words.len(), set),
        }
    }

    pub(super) fn contains(&self, file: &SealedFile, row: u32) -> Result<bool, Damaged> {
        match self {
            Self::All(rows) => Ok((row as usize) < *rows),
            Self::List(column) => {
                let at = column.partition_point(file, |other| u32::from_le_bytes(other) < row)?;
                Ok(at < column.len() && u32::from_le_bytes(column.get(file, at)?) == row)
            }
            Self::Bitmap { words, .. } => {
                let word = u64::from_le_bytes(words.get(file, row as usize / WORD_BITS)?);
                Ok(word >> (row as usize % WORD_BITS) & 1 != 0)
            }
        }
    }
}

/// Adds the rows in a part of a column of row numbers to a set.
pub(super) fn add_list(
    file: &SealedFile,
    column: Column<4>,
    range: Range<usize>,
    set: &mut Bitmap,
) -> Result<(), Damaged> {
    for row in column.slice(file, range)? {
        let row = u32::from_le_bytes(*row);
        if row as usize >= set.len() {
            return Err(inconsistent(file));
        }
        set.set(row);
    }
    Ok(())
}

/// Adds the rows of a bitmap stored as a part of a column of words to a set over the same rows.
pub(super) fn add_words(
    file: &SealedFile,
    column: Column<8>,
    range: Range<usize>,
    set: &mut Bitmap,
) -> Result<(), Damaged> {
    let words = column.slice(file, range)?;
    let fits = words.len() == words_of(set.len());
    let last_used = set.len() % WORD_BITS;
    let padding_clear = last_used == 0 || words.last().is_none_or(|word| u64::from_le_bytes(*word) >> last_used == 0);
    if !fits || !padding_clear {
        return Err(inconsistent(file));
    }
    set.or_words(words.iter().map(|word| u64::from_le_bytes(*word)));
    Ok(())
}

const ALL: u8 = 0;
const LIST: u8 = 1;
const BITMAP: u8 = 2;

impl Encode for StoredRows {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::All(rows) => {
                writer.u8(ALL);
                writer.count(*rows);
            }
            Self::List(column) => {
                writer.u8(LIST);
                column.encode(writer);
            }
            Self::Bitmap { words, count } => {
                writer.u8(BITMAP);
                words.encode(writer);
                writer.count(*count);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = |reader: &mut Reader<'_>| {
            let n = reader.u64()?;
            usize::try_from(n).map_err(|_| reader.fail("a count is out of range"))
        };
        match reader.u8()? {
            ALL => Ok(Self::All(count(reader)?)),
            LIST => Column::decode(reader).map(Self::List),
            BITMAP => Ok(Self::Bitmap { words: Column::decode(reader)?, count: count(reader)? }),
            _ => Err(reader.fail("a set of rows is of an unknown type")),
        }
    }
}
