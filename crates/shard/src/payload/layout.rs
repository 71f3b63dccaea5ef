use sagitta_engine::mapped::{Damaged, SealedFile};
use sagitta_model::{FieldPath, FieldType};

use super::column::{Column, inconsistent};
use super::rows::{StoredRows, words_of};
use crate::codec::{DecodeError, Encode, Reader, Writer};

/// The file's data, all integers little endian, each part at a multiple of 8:
///
/// ```text
/// parts      of one field after the other, see FieldLayout
/// directory  version u8 | rows | for each field: path, type, where its parts are   (as the codec writes)
/// tail       position of the directory u64 | "SGTPAYLD"
/// ```
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Directory {
    /// Rows of the segment.
    pub(super) rows: usize,
    pub(super) fields: Vec<(FieldPath, FieldType, FieldLayout)>,
}

/// Where the parts of one field's index are. The distinct keys of a field are numbered in ascending order, integers before
/// floats; the number of a key is its *ordinal*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldLayout {
    /// The keys that are integers (i64).
    pub(super) ints: Column<8>,
    /// The keys that are other floats (as [`super::key::SortedFloat`] has them).
    pub(super) floats: Column<8>,
    /// For each key that is a text, where it ends in the bytes (u64).
    pub(super) text_ends: Column<8>,
    /// The texts, one after another.
    pub(super) text_bytes: Column<1>,
    /// For each ordinal, where its rows end in the postings (u64).
    pub(super) posting_ends: Column<8>,
    /// The rows of each ordinal (u32), ascending.
    pub(super) postings: Column<4>,
    /// Ranges of ordinals (first u32, end u32), ascending, that together have enough rows for a bitmap of their own.
    pub(super) zones: Column<8>,
    /// Their bitmaps, one after another.
    pub(super) zone_words: Column<8>,
    /// Rows with a value that is not null.
    pub(super) present: StoredRows,
    /// Rows with an explicit null.
    pub(super) nulls: StoredRows,
    /// For each row, where its ordinals end (u64). Empty if no row has more than one: then `forward` has one per row.
    pub(super) forward_ends: Column<8>,
    /// The ordinals of each row (u32), or [`NO_ORDINAL`]. Empty if the field has no keys at all.
    pub(super) forward: Column<4>,
    /// The most keys that any row has.
    pub(super) most_keys: usize,
    /// The rows by how many values they have ([`FieldPath::count`]), ascending; each row is under one count. The keys of a
    /// row do not tell: they are distinct, and nulls have none. Absent in files of the first version. All of them are read
    /// when the file is opened: n different counts take n * n / 2 values, so there are few.
    pub(super) counts: Option<Vec<(u64, StoredRows)>>,
}

/// In place of the ordinal of a row that has none.
pub(super) const NO_ORDINAL: u32 = u32::MAX;

/// Without counts.
const FIRST_VERSION: u8 = 1;
const VERSION: u8 = 2;
const MAGIC: [u8; 8] = *b"SGTPAYLD";
const TAIL_BYTES: usize = 16;

impl Directory {
    pub(super) fn to_bytes(&self, position: u64) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION);
        writer.count(self.rows);
        writer.count(self.fields.len());
        for (path, field_type, layout) in &self.fields {
            path.encode(&mut writer);
            field_type.encode(&mut writer);
            layout.encode(&mut writer);
            let counts = layout.counts.as_deref().unwrap_or_default();
            writer.count(counts.len());
            for (count, rows) in counts {
                writer.u64(*count);
                rows.encode(&mut writer);
            }
        }
        writer.raw(&position.to_le_bytes());
        writer.raw(&MAGIC);
        writer.into_bytes()
    }

    /// Reads the directory, and only that, and checks that every part lies within the file.
    pub(super) fn read(file: &SealedFile) -> Result<Self, Damaged> {
        let bytes = file.bytes();
        let wrong = |reason| Damaged { file: file.path().to_path_buf(), block: None, reason };
        let tail_at = bytes.len().checked_sub(TAIL_BYTES).ok_or_else(|| wrong("it is too short for an index"))?;
        file.check(tail_at..bytes.len())?;
        let mut tail = Reader::new(&bytes[tail_at..], "tail");
        let position = tail.array().map(u64::from_le_bytes).map_err(|_| inconsistent(file))?;
        if tail.rest() != MAGIC {
            return Err(wrong("it is not an index of payloads"));
        }
        let start =
            usize::try_from(position).ok().filter(|&start| start <= tail_at).ok_or_else(|| inconsistent(file))?;
        file.check(start..tail_at)?;
        let mut reader = Reader::new(&bytes[start..tail_at], "directory");
        let directory = Self::decode(&mut reader).map_err(|error| wrong(error.reason))?;
        let fits = directory.fields.iter().all(|(_, _, layout)| layout.fits(start, directory.rows));
        if fits { Ok(directory) } else { Err(inconsistent(file)) }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let counted = match reader.u8()? {
            VERSION => true,
            FIRST_VERSION => false,
            _ => return Err(reader.fail("it is of another version")),
        };
        let rows = reader.u64()?;
        let rows = u32::try_from(rows).map_err(|_| reader.fail("it has too many rows"))? as usize;
        let mut fields = Vec::new();
        for _ in 0..reader.count(1)? {
            let (path, field_type) = (FieldPath::decode(reader)?, FieldType::decode(reader)?);
            let mut layout = FieldLayout::decode(reader)?;
            if counted {
                // A count and a set of rows take at least three bytes.
                let counts = 0..reader.count(3)?;
                let counts = counts.map(|_| Ok((reader.u64()?, StoredRows::decode(reader)?)));
                layout.counts = Some(counts.collect::<Result<_, DecodeError>>()?);
            }
            fields.push((path, field_type, layout));
        }
        reader.end()?;
        Ok(Self { rows, fields })
    }
}

impl FieldLayout {
    /// The number of distinct keys.
    pub(super) fn keys(&self) -> usize {
        self.posting_ends.len()
    }

    /// Whether every part lies within `bytes` and their lengths agree, so that reading them needs no further thought.
    fn fits(&self, bytes: usize, rows: usize) -> bool {
        let keys =
            [self.ints.len(), self.floats.len(), self.text_ends.len()].into_iter().try_fold(0usize, usize::checked_add);
        let forward_fits = match (self.forward_ends.len(), self.forward.len()) {
            (0, 0) => self.keys() == 0,
            (0, forward) => forward == rows,
            (ends, forward) => ends == rows && forward == self.postings.len(),
        };
        let columns =
            [self.ints, self.floats, self.text_ends, self.posting_ends, self.zones, self.zone_words, self.forward_ends];
        columns.iter().all(|column| column.fits(bytes))
            && self.text_bytes.fits(bytes)
            && self.postings.fits(bytes)
            && self.forward.fits(bytes)
            && self.present.fits(bytes, rows)
            && self.nulls.fits(bytes, rows)
            && keys == Some(self.keys())
            && self.keys() < NO_ORDINAL as usize
            && self.zones.len().checked_mul(words_of(rows)) == Some(self.zone_words.len())
            && forward_fits
            && self.counts.as_ref().is_none_or(|counts| counts_fit(counts, bytes, rows))
    }
}

fn counts_fit(counts: &[(u64, StoredRows)], bytes: usize, rows: usize) -> bool {
    let counted = counts.iter().try_fold(0usize, |sum, (_, members)| sum.checked_add(members.count()));
    counts.is_sorted_by(|(one, _), (next, _)| one < next)
        && counts.iter().all(|(_, members)| members.fits(bytes, rows))
        && counted == Some(rows)
}

/// All but the counts, which not every version has.
impl Encode for FieldLayout {
    fn encode(&self, writer: &mut Writer) {
        self.ints.encode(writer);
        self.floats.encode(writer);
        self.text_ends.encode(writer);
        self.text_bytes.encode(writer);
        self.posting_ends.encode(writer);
        self.postings.encode(writer);
        self.zones.encode(writer);
        self.zone_words.encode(writer);
        self.present.encode(writer);
        self.nulls.encode(writer);
        self.forward_ends.encode(writer);
        self.forward.encode(writer);
        writer.count(self.most_keys);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            ints: Column::decode(reader)?,
            floats: Column::decode(reader)?,
            text_ends: Column::decode(reader)?,
            text_bytes: Column::decode(reader)?,
            posting_ends: Column::decode(reader)?,
            postings: Column::decode(reader)?,
            zones: Column::decode(reader)?,
            zone_words: Column::decode(reader)?,
            present: StoredRows::decode(reader)?,
            nulls: StoredRows::decode(reader)?,
            forward_ends: Column::decode(reader)?,
            forward: Column::decode(reader)?,
            most_keys: usize::try_from(reader.u64()?).map_err(|_| reader.fail("a count is out of range"))?,
            counts: None,
        })
    }
}
