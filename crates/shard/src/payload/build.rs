use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::Path;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::mapped::{FileDigest, FileError, SealedFileWriter};
use sagitta_model::{FieldPath, FieldType, Object, Schema, Value};

use super::column::Column;
use super::key::{KeyRef, SortedFloat};
use super::layout::{Directory, FieldLayout, NO_ORDINAL};
use super::rows::StoredRows;

/// Parts begin at multiples of this, so that no value straddles two cache lines.
const ALIGNMENT: usize = 8;

/// A run of ordinals gets a bitmap of its own when it has this share of the segment's rows: a condition then touches
/// at most this share of the rows one by one, at each end, and the bitmaps cost half as much as the postings
/// (rows / 8 bytes for every rows / 16 entries of 4).
const ZONE_SHARE: usize = 16;

/// Gathers the payloads of a segment's rows, in the order of the rows, and writes their index. Memory: 8 to 16 bytes per
/// indexed value, 4 per row and field, and each distinct keyword once.
#[derive(Debug)]
pub struct PayloadWriter {
    fields: Vec<FieldBuilder>,
    rows: u32,
}

impl PayloadWriter {
    /// For the declared fields of a schema.
    pub fn new(schema: &Schema) -> Self {
        let fields = schema.fields.iter().map(|(path, field_type)| FieldBuilder::new(path.clone(), *field_type));
        Self { fields: fields.collect(), rows: 0 }
    }

    /// Adds the payload of the next row.
    pub fn add(&mut self, payload: &Object) {
        let row = self.rows;
        self.fields.iter_mut().for_each(|field| field.push(row, payload));
        self.rows += 1;
    }

    /// Writes the index of all rows to a new file and syncs it.
    ///
    /// # Errors
    /// If the file exists or cannot be written, or a field has 2^32 distinct values.
    pub fn finish(self, path: &Path) -> Result<FileDigest, FileError> {
        let rows = self.rows as usize;
        let mut parts = Parts { file: SealedFileWriter::create(path)?, path };
        let mut fields = Vec::new();
        for field in self.fields {
            let (path, field_type) = (field.path.clone(), field.field_type);
            let layout = field.write(rows, &mut parts)?;
            fields.push((path, field_type, layout));
        }
        parts.file.align(ALIGNMENT)?;
        let directory = Directory { rows, fields }.to_bytes(parts.file.position());
        parts.file.append(&directory)?;
        parts.file.finish()
    }
}

#[derive(Debug)]
struct FieldBuilder {
    path: FieldPath,
    field_type: FieldType,
    ints: Vec<(i64, u32)>,
    floats: Vec<(SortedFloat, u32)>,
    /// Texts in the order in which they were first seen.
    texts: HashMap<Box<str>, u32>,
    text_entries: Vec<(u32, u32)>,
    present: Vec<u32>,
    nulls: Vec<u32>,
    /// The rows that have so many values.
    counts: BTreeMap<u64, Vec<u32>>,
}

impl FieldBuilder {
    fn new(path: FieldPath, field_type: FieldType) -> Self {
        Self {
            path,
            field_type,
            ints: Vec::new(),
            floats: Vec::new(),
            texts: HashMap::new(),
            text_entries: Vec::new(),
            present: Vec::new(),
            nulls: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    fn push(&mut self, row: u32, payload: &Object) {
        let path = self.path.clone();
        let (mut present, mut null) = (false, false);
        let _ = path.visit(payload, &mut |value| {
            match value {
                Value::Null => null = true,
                _ => present = true,
            }
            if let Some(key) = KeyRef::of(self.field_type, value) {
                self.push_key(row, key);
            }
            ControlFlow::Continue(())
        });
        if present {
            self.present.push(row);
        }
        if null {
            self.nulls.push(row);
        }
        self.counts.entry(path.count(payload)).or_default().push(row);
    }

    fn push_key(&mut self, row: u32, key: KeyRef<'_>) {
        match key {
            KeyRef::Int(n) => self.ints.push((n, row)),
            KeyRef::Float(x) => self.floats.push((x, row)),
            KeyRef::Text(text) => {
                let next = self.texts.len() as u32;
                let number = match self.texts.get(text) {
                    Some(&number) => number,
                    None => *self.texts.entry(text.into()).or_insert(next),
                };
                self.text_entries.push((number, row));
            }
        }
    }

    fn write(self, rows: usize, parts: &mut Parts<'_>) -> Result<FieldLayout, FileError> {
        let mut entries = Entries::default();
        let ints = entries.add_keys(self.ints);
        let floats = entries.add_keys(self.floats);
        let texts = entries.add_texts(self.texts, self.text_entries);
        if entries.ends.len() >= NO_ORDINAL as usize {
            return Err(parts.too_many_values(&self.path));
        }
        let text_ends = texts.iter().scan(0u64, |end, text| {
            *end += text.len() as u64;
            Some(*end)
        });
        let zones = entries.zones(rows);
        let forward = Forward::new(&entries, rows);
        let counts = self.counts;
        Ok(FieldLayout {
            ints: parts.column(ints.iter().map(|n| n.to_le_bytes()))?,
            floats: parts.column(floats.iter().map(|x| x.to_bits().to_le_bytes()))?,
            text_ends: parts.column(text_ends.map(u64::to_le_bytes))?,
            text_bytes: parts.bytes(texts.iter().map(|text| text.as_bytes()))?,
            posting_ends: parts.column(entries.ends.iter().map(|end| end.to_le_bytes()))?,
            postings: parts.column(entries.rows.iter().map(|row| row.to_le_bytes()))?,
            zones: parts.column(zones.iter().map(|zone| pack(zone.clone())))?,
            zone_words: parts.column(zones.iter().flat_map(|zone| {
                let members = Bitmap::from_rows(rows, entries.rows_of(zone.clone()));
                members.words().iter().map(|word| word.to_le_bytes()).collect::<Vec<_>>()
            }))?,
            present: parts.rows(&self.present, rows)?,
            nulls: parts.rows(&self.nulls, rows)?,
            forward_ends: parts.column(forward.ends.iter().map(|end| end.to_le_bytes()))?,
            forward: parts.column(forward.ordinals.iter().map(|ordinal| ordinal.to_le_bytes()))?,
            most_keys: forward.most,
            counts: Some(parts.counts(&counts, rows)?),
        })
    }
}

fn pack(zone: Range<usize>) -> [u8; 8] {
    (zone.start as u64 | (zone.end as u64) << 32).to_le_bytes()
}

/// The rows of each key, as they are going to be stored.
#[derive(Default)]
struct Entries {
    /// For each ordinal, where its rows end.
    ends: Vec<u64>,
    rows: Vec<u32>,
}

impl Entries {
    /// Numbers the distinct keys in ascending order, adds their rows, and returns them.
    fn add_keys<K: Ord + Copy>(&mut self, mut entries: Vec<(K, u32)>) -> Vec<K> {
        entries.sort_unstable();
        entries.dedup();
        let mut keys: Vec<K> = Vec::new();
        for (key, row) in entries {
            if keys.last() != Some(&key) {
                keys.push(key);
                self.ends.push(self.rows.len() as u64);
            }
            self.rows.push(row);
            if let Some(end) = self.ends.last_mut() {
                *end += 1;
            }
        }
        keys
    }

    fn add_texts(&mut self, texts: HashMap<Box<str>, u32>, mut entries: Vec<(u32, u32)>) -> Vec<Box<str>> {
        let mut sorted: Vec<_> = texts.into_iter().collect();
        sorted.sort_unstable();
        let mut ranks = vec![0; sorted.len()];
        for (rank, (_, number)) in sorted.iter().enumerate() {
            ranks[*number as usize] = rank as u32;
        }
        entries.iter_mut().for_each(|(number, _)| *number = ranks[*number as usize]);
        self.add_keys(entries);
        sorted.into_iter().map(|(text, _)| text).collect()
    }

    fn rows_of(&self, ordinals: Range<usize>) -> &[u32] {
        let end_before = |ordinal: usize| ordinal.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.rows[end_before(ordinals.start)..end_before(ordinals.end)]
    }

    /// Cuts the ordinals into runs of enough rows. A single ordinal with enough rows is a run by itself, so that a
    /// condition on just this value can use its bitmap.
    fn zones(&self, rows: usize) -> Vec<Range<usize>> {
        let enough = rows.div_ceil(ZONE_SHARE).max(u64::BITS as usize);
        let mut zones = Vec::new();
        let (mut start, mut gathered) = (0, 0);
        for ordinal in 0..self.ends.len() {
            let count = self.rows_of(ordinal..ordinal + 1).len();
            if count >= enough {
                (start, gathered) = (ordinal, 0);
            }
            gathered += count;
            if gathered >= enough {
                zones.push(start..ordinal + 1);
                (start, gathered) = (ordinal + 1, 0);
            }
        }
        zones
    }
}

/// The ordinals of each row, as they are going to be stored.
struct Forward {
    ends: Vec<u64>,
    ordinals: Vec<u32>,
    most: usize,
}

impl Forward {
    fn new(entries: &Entries, rows: usize) -> Self {
        if entries.rows.is_empty() {
            return Self { ends: Vec::new(), ordinals: Vec::new(), most: 0 };
        }
        let mut counts = vec![0u32; rows];
        entries.rows.iter().for_each(|&row| counts[row as usize] += 1);
        let most = counts.iter().copied().max().unwrap_or(0) as usize;
        if most <= 1 {
            let mut ordinals = vec![NO_ORDINAL; rows];
            entries.each(|ordinal, row| ordinals[row as usize] = ordinal);
            return Self { ends: Vec::new(), ordinals, most };
        }
        // Each row's end starts out as its beginning, and moves as its ordinals are put in place.
        let mut next = 0;
        let starts = counts.iter().map(|&count| {
            let start = next;
            next += u64::from(count);
            start
        });
        let mut ends: Vec<u64> = starts.collect();
        let mut ordinals = vec![0; entries.rows.len()];
        entries.each(|ordinal, row| {
            let end = &mut ends[row as usize];
            ordinals[*end as usize] = ordinal;
            *end += 1;
        });
        Self { ends, ordinals, most }
    }
}

impl Entries {
    /// Calls `visit` with each ordinal and each of its rows.
    fn each(&self, mut visit: impl FnMut(u32, u32)) {
        for ordinal in 0..self.ends.len() {
            self.rows_of(ordinal..ordinal + 1).iter().for_each(|&row| visit(ordinal as u32, row));
        }
    }
}

struct Parts<'p> {
    file: SealedFileWriter,
    path: &'p Path,
}

impl Parts<'_> {
    fn column<const N: usize>(&mut self, values: impl Iterator<Item = [u8; N]>) -> Result<Column<N>, FileError> {
        self.file.align(ALIGNMENT)?;
        let start = self.file.position() as usize;
        let mut len = 0;
        for value in values {
            self.file.append(&value)?;
            len += 1;
        }
        Ok(Column::new(start, len))
    }

    fn bytes<'b>(&mut self, pieces: impl Iterator<Item = &'b [u8]>) -> Result<Column<1>, FileError> {
        self.file.align(ALIGNMENT)?;
        let start = self.file.position() as usize;
        for piece in pieces {
            self.file.append(piece)?;
        }
        Ok(Column::new(start, self.file.position() as usize - start))
    }

    fn rows(&mut self, members: &[u32], rows: usize) -> Result<StoredRows, FileError> {
        if members.len() == rows {
            return Ok(StoredRows::All(rows));
        }
        if size_of_val(members) <= rows / u8::BITS as usize {
            return self.column(members.iter().map(|row| row.to_le_bytes())).map(StoredRows::List);
        }
        let bitmap = Bitmap::from_rows(rows, members);
        let words = self.column(bitmap.words().iter().map(|word| word.to_le_bytes()))?;
        Ok(StoredRows::Bitmap { words, count: members.len() })
    }

    fn counts(&mut self, counts: &BTreeMap<u64, Vec<u32>>, rows: usize) -> Result<Vec<(u64, StoredRows)>, FileError> {
        counts.iter().map(|(&count, members)| Ok((count, self.rows(members, rows)?))).collect()
    }

    fn too_many_values(&self, field: &FieldPath) -> FileError {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, format!("field `{field}` has 2^32 distinct values"));
        FileError::Io { path: self.path.to_path_buf(), source }
    }
}
