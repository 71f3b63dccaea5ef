//! The rows of the `meta` family.

use sagitta_engine::mapped::FileDigest;
use sagitta_model::{HashRange, Schema};

use crate::codec::{DecodeError, Encode, Reader, Record, Writer};
use crate::{Filling, Frozen, SegmentId, WriteOutcome};

/// Whose database this is. Written once, and when the shard is split.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Identity {
    /// UUID of the collection.
    pub(crate) collection: u128,
    /// Number of the shard.
    pub(crate) shard: u64,
    /// What the collection holds.
    pub(crate) schema: Schema,
    /// Which points it is responsible for.
    pub(crate) span: Span,
}

/// Which of the collection's points a shard is responsible for, and what it was split from and into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The hashes of its points. A shard that was never split takes what it is given.
    pub(crate) range: HashRange,
    /// The shards that it was split from and into, by when. None of their numbers is used again.
    pub(crate) relatives: Vec<Relative>,
    /// Where it began, if it was split off from another.
    pub(crate) born: Option<SplitPoint>,
    /// Segments with smaller numbers may have live rows by their tombstones, and the other families rows, of points outside of
    /// the range; `None` once these are gone.
    pub(crate) foreign: Option<SegmentId>,
    pub(crate) merges: Merges,
}

/// What merges have to do with a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merges {
    /// The one that fills it.
    pub(crate) filling: Option<Filling>,
    /// The one that has filled it.
    pub(crate) filled: Option<u64>,
    /// The one that froze it.
    pub(crate) frozen: Option<Frozen>,
    /// Those up to this one came to nothing.
    pub(crate) thawed: u64,
}

/// What came of a request in the shards that this one was filled from: by hashes, which do not overlap, ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Imported(pub(crate) Vec<(HashRange, WriteOutcome)>);

/// A shard that another one was split from or into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relative {
    /// Its number.
    pub(crate) shard: u64,
    /// Where it was.
    pub(crate) split: SplitPoint,
}

/// The log entry that split a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SplitPoint {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

/// A shard that is about to be split off: what makes a checkpoint of this database the new shard's. Written before the checkpoint, and
/// removed by the split on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Half {
    /// Number of the new shard.
    pub(crate) shard: u64,
    /// Its hashes.
    pub(crate) range: HashRange,
    /// The new shard's log goes on after it.
    pub(crate) split: SplitPoint,
    /// Points in the range.
    pub(crate) points: u64,
    /// As [`Span::relatives`] of the new shard.
    pub(crate) relatives: Vec<Relative>,
}

impl Span {
    /// Log index of the last split; 0 if there was none.
    pub(crate) fn since(&self) -> u64 {
        self.relatives.last().map_or(0, |relative| relative.split.index)
    }

    /// What the entry that splits it makes of it, or of the shard that is split off.
    pub(crate) fn divided(&self, range: HashRange, relative: Relative, foreign: SegmentId) -> Self {
        let relatives = self.relatives.iter().copied().chain([relative]).collect();
        Self { range, relatives, born: self.born, foreign: Some(foreign), merges: self.merges }
    }

    /// Where this shard and that one were split.
    pub(crate) fn split_from(&self, shard: u64) -> Option<SplitPoint> {
        self.relatives.iter().find(|relative| relative.shard == shard).map(|relative| relative.split)
    }
}

impl Default for Span {
    fn default() -> Self {
        Self { range: HashRange::FULL, relatives: Vec::new(), born: None, foreign: None, merges: Merges::default() }
    }
}

/// How far the log was applied, and what must not be counted again. Written with every batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Log index up to which everything is in the database.
    pub(crate) applied_index: u64,
    /// Term of the entry there.
    pub(crate) applied_term: u64,
    /// Points that exist.
    pub(crate) points: u64,
    /// Index of the oldest request that is remembered: where to look for requests from.
    pub(crate) first_request: u64,
    /// The growing generation.
    pub(crate) generation: u32,
}

/// Who belongs to the group of the shard's replicas, in the words of whoever applies entries. Written with the batch that
/// changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Members(pub(crate) Vec<u8>);

/// Where the shard stood when it was fetched whole from another replica. Written once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    /// As [`Head::applied_index`] was.
    pub(crate) index: u64,
    /// As [`Head::applied_term`] was.
    pub(crate) term: u64,
}

/// The segments of the shard. Written when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The number of the next segment; those of segments that are gone are not used again.
    pub(crate) next_segment: SegmentId,
    /// By number.
    pub(crate) segments: Vec<ManifestEntry>,
}

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ManifestEntry {
    /// Number and name of the folder.
    pub(crate) id: SegmentId,
    /// Number of rows, dead ones included.
    pub(crate) rows: u32,
    /// Digest of the segment's own manifest, which has those of its other files.
    pub(crate) digest: FileDigest,
}

/// The request id of a command that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Chosen by the requester.
    pub(crate) id: u128,
    /// XXH3-64 of the sealed command: whether a request with the same id is the same request.
    pub(crate) hash: u64,
}

impl Record for Identity {
    const NAME: &'static str = "shard identity";
    /// Also the version of the whole folder's layout.
    const FORMAT: u8 = 3;

    /// An older program would show what a shard that was split has no more, or take commands that are not for one that is merged:
    /// it is to refuse the folder.
    fn format(&self) -> u8 {
        if self.span == Span::default() {
            1
        } else if self.span.merges == Merges::default() {
            2
        } else {
            3
        }
    }
}

impl Encode for Identity {
    fn encode(&self, writer: &mut Writer) {
        writer.u128(self.collection);
        writer.u64(self.shard);
        self.schema.encode(writer);
        if self.format() > 1 {
            self.span.encode(writer);
        }
        if self.format() > 2 {
            self.span.merges.encode(writer);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (collection, shard, schema) = (reader.u128()?, reader.u64()?, Schema::decode(reader)?);
        let mut span = if reader.format() > 1 { Span::decode(reader)? } else { Span::default() };
        if reader.format() > 2 {
            span.merges = Merges::decode(reader)?;
        }
        Ok(Self { collection, shard, schema, span })
    }
}

/// Without [`Span::merges`], which came later.
impl Encode for Span {
    fn encode(&self, writer: &mut Writer) {
        self.range.encode(writer);
        writer.list(&self.relatives);
        writer.option(self.born.as_ref());
        writer.option(self.foreign.as_ref());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            range: HashRange::decode(reader)?,
            relatives: reader.list()?,
            born: reader.option()?,
            foreign: reader.option()?,
            merges: Merges::default(),
        })
    }
}

impl Encode for Merges {
    fn encode(&self, writer: &mut Writer) {
        writer.option(self.filling.as_ref());
        writer.option(self.filled.as_ref());
        writer.option(self.frozen.as_ref());
        writer.u64(self.thawed);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            filling: reader.option()?,
            filled: reader.option()?,
            frozen: reader.option()?,
            thawed: reader.u64()?,
        })
    }
}

impl Encode for Filling {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.merge);
        writer.u64(self.step);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { merge: reader.u64()?, step: reader.u64()? })
    }
}

impl Encode for Frozen {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.merge);
        writer.u64(self.index);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { merge: reader.u64()?, index: reader.u64()? })
    }
}

impl Record for Imported {
    const NAME: &'static str = "request of a merged shard";
    const FORMAT: u8 = 1;
}

impl Encode for Imported {
    fn encode(&self, writer: &mut Writer) {
        writer.count(self.0.len());
        for (range, outcome) in &self.0 {
            range.encode(writer);
            outcome.encode(writer);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        // A part is at least its range and the fields of an outcome.
        let parts = (0..reader.count(22)?).map(|_| Ok((HashRange::decode(reader)?, WriteOutcome::decode(reader)?)));
        parts.collect::<Result<_, DecodeError>>().map(Self)
    }
}

impl Encode for Relative {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.shard);
        self.split.encode(writer);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { shard: reader.u64()?, split: SplitPoint::decode(reader)? })
    }
}

impl Encode for SplitPoint {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.index);
        writer.u64(self.term);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { index: reader.u64()?, term: reader.u64()? })
    }
}

impl Encode for HashRange {
    fn encode(&self, writer: &mut Writer) {
        writer.raw(&self.first.to_le_bytes());
        writer.raw(&self.last.to_le_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = Self { first: u64::from_le_bytes(reader.array()?), last: u64::from_le_bytes(reader.array()?) };
        if range.first <= range.last { Ok(range) } else { Err(reader.fail("a range of hashes is empty")) }
    }
}

impl Record for Half {
    const NAME: &'static str = "half of a shard";
    const FORMAT: u8 = 1;
}

impl Encode for Half {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.shard);
        self.range.encode(writer);
        self.split.encode(writer);
        writer.u64(self.points);
        writer.list(&self.relatives);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            shard: reader.u64()?,
            range: HashRange::decode(reader)?,
            split: SplitPoint::decode(reader)?,
            points: reader.u64()?,
            relatives: reader.list()?,
        })
    }
}

impl Record for Head {
    const NAME: &'static str = "shard head";
    const FORMAT: u8 = 1;
}

impl Encode for Head {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.applied_index);
        writer.u64(self.applied_term);
        writer.u64(self.points);
        writer.u64(self.first_request);
        writer.u64(self.generation.into());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            applied_index: reader.u64()?,
            applied_term: reader.u64()?,
            points: reader.u64()?,
            first_request: reader.u64()?,
            generation: decode_u32(reader)?,
        })
    }
}

impl Record for Members {
    const NAME: &'static str = "members of the group";
    const FORMAT: u8 = 1;
}

impl Encode for Members {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(reader.bytes()?.to_vec()))
    }
}

impl Record for Installed {
    const NAME: &'static str = "installation";
    const FORMAT: u8 = 1;
}

impl Encode for Installed {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.index);
        writer.u64(self.term);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { index: reader.u64()?, term: reader.u64()? })
    }
}

impl Record for Manifest {
    const NAME: &'static str = "manifest of segments";
    const FORMAT: u8 = 1;
}

impl Encode for Manifest {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.next_segment);
        writer.list(&self.segments);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let manifest = Self { next_segment: reader.u64()?, segments: reader.list()? };
        let ids: Vec<_> = manifest.segments.iter().map(|entry| entry.id).collect();
        if !ids.is_sorted_by(|a, b| a < b) || ids.last().is_some_and(|last| *last >= manifest.next_segment) {
            return Err(reader.fail("segment numbers are out of order"));
        }
        Ok(manifest)
    }
}

impl Encode for ManifestEntry {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.id);
        writer.u64(self.rows.into());
        self.digest.encode(writer);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { id: reader.u64()?, rows: decode_u32(reader)?, digest: FileDigest::decode(reader)? })
    }
}

impl Record for Request {
    const NAME: &'static str = "request id";
    const FORMAT: u8 = 1;
}

impl Encode for Request {
    fn encode(&self, writer: &mut Writer) {
        writer.u128(self.id);
        writer.raw(&self.hash.to_le_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { id: reader.u128()?, hash: u64::from_le_bytes(reader.array()?) })
    }
}

impl Encode for FileDigest {
    fn encode(&self, writer: &mut Writer) {
        writer.raw(&self.to_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::from_bytes(&reader.array()?))
    }
}

/// A number that fits 32 bits.
pub(crate) fn decode_u32(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    u32::try_from(reader.u64()?).map_err(|_| reader.fail("a number has more than 32 bits"))
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn check<R: Record + Debug + PartialEq>(record: &R, golden: &str) {
        let bytes = record.to_sealed();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden, "{}", R::NAME);
        assert_eq!(R::from_sealed(&bytes).as_ref(), Ok(record));
    }

    #[test]
    fn rows_keep_their_bytes() {
        let digest = FileDigest { bytes: 300, hash: 0x0102 };
        let head = Head { applied_index: 300, applied_term: 3, points: 2, first_request: 1, generation: 5 };
        check(&head, "01ac0203020105a354ac9a3261307f");
        check(&Members(vec![1, 2, 3]), "010301020369c99db0b93fa145");
        check(&Installed { index: 300, term: 3 }, "01ac02031d9a32379a6be162");
        let segments = vec![ManifestEntry { id: 4, rows: 300, digest }, ManifestEntry { id: 6, rows: 1, digest }];
        let golden = "01090204ac022c0100000000000002010000000000000000000000000000\
                      06012c01000000000000020100000000000000000000000000000e32ad85a38af437";
        check(&Manifest { next_segment: 9, segments }, golden);
        check(
            &Request { id: 0x0102, hash: 0x0304 },
            "01020100000000000000000000000000000403000000000000fb2ef69c0cb5d3de",
        );
        let identity = Identity { collection: 7, shard: 8, schema: Schema::default(), span: Span::default() };
        check(&identity, "0107000000000000000000000000000000080000411ca53d89f44028");
        let range = HashRange { first: 0x0102, last: u64::MAX };
        let split = SplitPoint { index: 300, term: 3 };
        let relatives = vec![Relative { shard: 4, split }];
        let merges = Merges::default();
        let span = Span { range, relatives: relatives.clone(), born: Some(split), foreign: Some(5), merges };
        check(
            &Identity { span: span.clone(), ..identity.clone() },
            "02070000000000000000000000000000000800000201000000000000ffffffffffffffff0104ac020301ac020301050de9210c3bd8b83f",
        );
        let (filling, frozen) = (Filling { merge: 300, step: 2 }, Frozen { merge: 301, index: 9 });
        let merges = Merges { filling: Some(filling), filled: Some(299), frozen: Some(frozen), thawed: 298 };
        let outcome = WriteOutcome { index: 300, applied: 2, ..WriteOutcome::default() };
        check(
            &Identity { span: Span { merges, ..span }, ..identity },
            "03070000000000000000000000000000000800000201000000000000ffffffffffffffff0104ac020301ac0203010501ac020201ab0201ad0209aa02b51339e0e6d1651e",
        );
        check(&Imported(vec![(range, outcome)]), "01010201000000000000ffffffffffffffffac0202000000004aea3d881c0f31cd");
        let half = Half { shard: 9, range, split, points: 2, relatives };
        check(&half, "01090201000000000000ffffffffffffffffac0203020104ac0203f7529c149437a147");
    }

    #[test]
    fn a_manifest_that_would_use_a_number_again_is_refused() {
        let entry = |id| ManifestEntry { id, rows: 1, digest: FileDigest { bytes: 0, hash: 0 } };
        for segments in [vec![entry(2), entry(1)], vec![entry(1), entry(1)], vec![entry(3)]] {
            let bytes = Manifest { next_segment: 3, segments }.to_sealed();
            assert!(Manifest::from_sealed(&bytes).is_err());
        }
    }
}
