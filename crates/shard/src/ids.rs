//! The ids and versions of a segment's rows, sorted by id: the file `ids`, of which the database keeps a copy.
//!
//! ```text
//! magic "SGTIDTAB" | version u32 | zero u32 | rows u64 | numbers u64
//! numbers            u64 each, ascending: the ids that are numbers
//! rows - numbers     u128 each, ascending: the ids that are UUIDs
//! rows               u64 each: the version of each row
//! ```
//!
//! All integers are little endian. Numbers sort before UUIDs, so a row's number is the rank of its id.

use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use sagitta_engine::mapped::{Access, Damaged, FileDigest, FileError, SealedFile};
use sagitta_model::PointId;

const MAGIC: [u8; 8] = *b"SGTIDTAB";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 32;
const NUM_BYTES: usize = size_of::<u64>();
const UUID_BYTES: usize = size_of::<u128>();
const VERSION_BYTES: usize = size_of::<u64>();

/// The ids of a segment's rows.
pub(crate) struct IdTable {
    shape: Shape,
    file: Option<SealedFile>,
    /// The copy from the database, once the file turned out to be damaged.
    restored: OnceLock<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    rows: usize,
    nums: usize,
}

impl IdTable {
    /// The bytes of a table of these rows.
    ///
    /// # Panics
    /// If ids do not ascend.
    pub(crate) fn encode(rows: impl ExactSizeIterator<Item = (PointId, u64)> + Clone) -> Vec<u8> {
        let nums = rows.clone().take_while(|(id, _)| matches!(id, PointId::Num(_))).count();
        let shape = Shape { rows: rows.len(), nums };
        let mut bytes = Vec::with_capacity(shape.bytes());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(shape.rows as u64).to_le_bytes());
        bytes.extend_from_slice(&(shape.nums as u64).to_le_bytes());
        let mut last = None;
        for (id, _) in rows.clone() {
            assert!(last < Some(id), "ids do not ascend");
            last = Some(id);
            match id {
                PointId::Num(num) => bytes.extend_from_slice(&num.to_le_bytes()),
                PointId::Uuid(uuid) => bytes.extend_from_slice(&uuid.to_le_bytes()),
            }
        }
        for (_, version) in rows {
            bytes.extend_from_slice(&version.to_le_bytes());
        }
        bytes
    }

    /// Opens the file; reads its head and nothing else.
    pub(crate) fn open(path: &Path, digest: &FileDigest) -> Result<Self, FileError> {
        let file = SealedFile::open(path, Some(digest))?;
        file.advise(Access::Random);
        file.check(0..file.bytes().len().min(HEAD_BYTES))?;
        let shape = Shape::read(file.bytes()).map_err(|reason| damaged(path, reason))?;
        Ok(Self { shape, file: Some(file), restored: OnceLock::new() })
    }

    /// A table whose file cannot be used, from the copy.
    pub(crate) fn from_copy(copy: Vec<u8>) -> Result<Self, &'static str> {
        let shape = Shape::read(&copy)?;
        Ok(Self { shape, file: None, restored: OnceLock::from(copy.into_boxed_slice()) })
    }

    /// From now on the copy is used. Nothing happens if there is one already.
    pub(crate) fn restore(&self, copy: Vec<u8>) -> Result<(), &'static str> {
        if Shape::read(&copy)? != self.shape {
            return Err("the copy of its ids is of another size");
        }
        self.restored.get_or_init(|| copy.into_boxed_slice());
        Ok(())
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.shape.rows
    }

    /// The id of a row.
    pub(crate) fn id(&self, row: u32) -> Result<PointId, Damaged> {
        let row = row as usize;
        assert!(row < self.shape.rows, "row {row} of a segment of {}", self.shape.rows);
        if row < self.shape.nums { self.num(row).map(PointId::Num) } else { self.uuid(row).map(PointId::Uuid) }
    }

    /// The version of a row.
    pub(crate) fn version(&self, row: u32) -> Result<u64, Damaged> {
        let start = self.shape.version_at(row as usize);
        self.array(start..start + VERSION_BYTES).map(u64::from_le_bytes)
    }

    /// The row of an id.
    pub(crate) fn find(&self, id: PointId) -> Result<Option<u32>, Damaged> {
        let row = self.first_row(0..self.shape.rows as u32, |other| other < id)?;
        let found = (row as usize) < self.shape.rows && self.id(row)? == id;
        Ok(found.then_some(row))
    }

    /// The first row with a greater id; the number of rows if there is none.
    pub(crate) fn first_after(&self, id: PointId) -> Result<u32, Damaged> {
        self.first_row(0..self.shape.rows as u32, |other| other <= id)
    }

    /// The first row from `from` on whose id is not smaller, by steps that double: near ones are found at once, and a walk through
    /// a table by ascending ids looks at few rows.
    pub(crate) fn seek(&self, id: PointId, from: u32) -> Result<u32, Damaged> {
        let rows = self.shape.rows as u32;
        let (mut low, mut high, mut step) = (from, from, 1);
        while high < rows && self.id(high)? < id {
            low = high + 1;
            high = high.saturating_add(step).min(rows);
            step = step.saturating_mul(2);
        }
        self.first_row(low..high, |other| other < id)
    }

    /// The bytes of the table, unverified.
    pub(crate) fn bytes(&self) -> &[u8] {
        match (self.restored.get(), &self.file) {
            (Some(restored), _) => restored,
            (None, Some(file)) => file.bytes(),
            (None, None) => unreachable!("a table has a file or a copy"),
        }
    }

    /// Verifies every byte; false if stopped.
    pub(crate) fn verify(&self, stop: &dyn Fn() -> bool) -> Result<bool, Damaged> {
        match &self.file {
            Some(file) if self.restored.get().is_none() => file.verify_all(stop),
            _ => Ok(true),
        }
    }

    /// The first row of these whose id is not `before`, by bisection; the end if there is none.
    fn first_row(&self, among: Range<u32>, before: impl Fn(PointId) -> bool) -> Result<u32, Damaged> {
        let Range { start: mut low, end: mut high } = among;
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.id(middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn num(&self, row: usize) -> Result<u64, Damaged> {
        let start = HEAD_BYTES + row * NUM_BYTES;
        self.array(start..start + NUM_BYTES).map(u64::from_le_bytes)
    }

    fn uuid(&self, row: usize) -> Result<u128, Damaged> {
        let start = self.shape.uuid_at(row);
        self.array(start..start + UUID_BYTES).map(u128::from_le_bytes)
    }

    fn array<const N: usize>(&self, range: Range<usize>) -> Result<[u8; N], Damaged> {
        if let (None, Some(file)) = (self.restored.get(), &self.file) {
            file.check(range.clone())?;
        }
        Ok(*self.bytes()[range].first_chunk().expect("invariant: the range is as long as the array"))
    }
}

impl Shape {
    fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let number = |at: usize| {
            let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map(|bytes| u64::from_le_bytes(*bytes)).ok_or("it is too short for a table of ids")
        };
        if bytes.get(..8) != Some(&MAGIC) || bytes.get(8..12) != Some(&VERSION.to_le_bytes()) {
            return Err("it is not a table of ids of this version");
        }
        let (rows, nums) = (number(16)?, number(24)?);
        if u32::try_from(rows).is_err() || nums > rows {
            return Err("its numbers of rows contradict each other");
        }
        let shape = Self { rows: rows as usize, nums: nums as usize };
        if shape.bytes() == bytes.len() { Ok(shape) } else { Err("its length does not fit its number of rows") }
    }

    fn uuid_at(&self, row: usize) -> usize {
        HEAD_BYTES + self.nums * NUM_BYTES + (row - self.nums) * UUID_BYTES
    }

    fn version_at(&self, row: usize) -> usize {
        self.uuid_at(self.rows) + row * VERSION_BYTES
    }

    fn bytes(&self) -> usize {
        self.version_at(self.rows)
    }
}

fn damaged(path: &Path, reason: &'static str) -> Damaged {
    Damaged { file: path.to_path_buf(), block: None, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<(PointId, u64)> {
        let ids = [PointId::Num(3), PointId::Num(300), PointId::Uuid(1), PointId::Uuid(1 << 100)];
        ids.into_iter().zip([9, 8, 7, u64::MAX]).collect()
    }

    #[test]
    fn a_table_keeps_its_bytes() {
        let bytes = IdTable::encode(rows().into_iter().take(3));
        let mut golden = b"SGTIDTAB".to_vec();
        golden.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        for n in [3u64, 2, 3, 300] {
            golden.extend(n.to_le_bytes());
        }
        golden.extend(1u128.to_le_bytes());
        for n in [9u64, 8, 7] {
            golden.extend(n.to_le_bytes());
        }
        assert_eq!(bytes, golden);
    }

    #[test]
    fn rows_are_found_by_id_and_ids_by_row() {
        let table = IdTable::from_copy(IdTable::encode(rows().into_iter())).expect("table");
        for (row, (id, version)) in rows().into_iter().enumerate() {
            let row = row as u32;
            assert_eq!(table.id(row), Ok(id));
            assert_eq!(table.version(row), Ok(version));
            assert_eq!(table.find(id), Ok(Some(row)));
            assert_eq!(table.first_after(id), Ok(row + 1));
        }
        let (table, last) = (&table, table.rows() as u32);
        for (rank, (id, _)) in (0..).zip(rows()) {
            for from in 0..=last {
                assert_eq!(table.seek(id, from), Ok(from.max(rank)), "{id} from {from}");
            }
        }
        assert_eq!(table.seek(PointId::Num(4), 0), Ok(1));
        assert_eq!(table.seek(PointId::Uuid(u128::MAX), 0), Ok(last));
        for (absent, after) in
            [(PointId::Num(0), 0), (PointId::Num(4), 1), (PointId::Uuid(0), 2), (PointId::Uuid(2), 3)]
        {
            assert_eq!(table.find(absent), Ok(None));
            assert_eq!(table.first_after(absent), Ok(after));
        }
    }

    #[test]
    fn bytes_that_are_no_table_are_refused() {
        let good = IdTable::encode(rows().into_iter());
        assert!(IdTable::from_copy(good.clone()).is_ok());
        for at in [0, 8, 16, 24] {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(IdTable::from_copy(bad).is_err(), "byte {at}");
        }
        for len in 0..good.len() {
            assert!(IdTable::from_copy(good[..len].to_vec()).is_err(), "{len} bytes");
        }
    }
}
