use std::ops::Range;

use sagitta_engine::mapped::{Damaged, SealedFile};

use crate::codec::{DecodeError, Encode, Reader, Writer};

/// A column of a sealed file: values of `N` bytes each, one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Column<const N: usize> {
    /// Position in the file's data.
    start: usize,
    /// Number of values.
    len: usize,
}

impl<const N: usize> Column<N> {
    /// Of the `len` values at `start`.
    pub(super) fn new(start: usize, len: usize) -> Self {
        Self { start, len }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the column lies within so many bytes.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.len.checked_mul(N).and_then(|len| self.start.checked_add(len)).is_some_and(|end| end <= bytes)
    }

    /// One value; the block that holds it is verified.
    #[inline]
    pub(super) fn get(&self, file: &SealedFile, at: usize) -> Result<[u8; N], Damaged> {
        let value = self.slice(file, at..at + 1)?.first();
        value.copied().ok_or_else(|| inconsistent(file))
    }

    /// Some of the values; the blocks that hold them are verified.
    #[inline]
    pub(super) fn slice<'f>(&self, file: &'f SealedFile, range: Range<usize>) -> Result<&'f [[u8; N]], Damaged> {
        if range.start > range.end || range.end > self.len {
            return Err(inconsistent(file));
        }
        let bytes = self.start + range.start * N..self.start + range.end * N;
        file.check(bytes.clone())?;
        Ok(file.bytes()[bytes].as_chunks().0)
    }

    /// How many values at the front of a sorted column are `before` something.
    pub(super) fn partition_point(
        &self,
        file: &SealedFile,
        before: impl Fn([u8; N]) -> bool,
    ) -> Result<usize, Damaged> {
        partition_point(self.len, |at| Ok(before(self.get(file, at)?)))
    }
}

/// As `slice::partition_point`, of `len` values that may turn out to be damaged.
pub(super) fn partition_point(len: usize, before: impl Fn(usize) -> Result<bool, Damaged>) -> Result<usize, Damaged> {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// What its checksums vouch for contradicts itself: a bug wrote it, or another program.
#[cold]
pub(super) fn inconsistent(file: &SealedFile) -> Damaged {
    Damaged { file: file.path().to_path_buf(), block: None, reason: "its parts do not fit together" }
}

impl<const N: usize> Encode for Column<N> {
    fn encode(&self, writer: &mut Writer) {
        writer.count(self.start);
        writer.count(self.len);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut number = || {
            let n = reader.u64()?;
            usize::try_from(n).map_err(|_| reader.fail("a position is out of range"))
        };
        Ok(Self { start: number()?, len: number()? })
    }
}
