//! The rows of the `meta` family.

use sagitta_engine::mapped::FileDigest;
use sagitta_model::Schema;

use crate::SegmentId;
use crate::codec::{DecodeError, Encode, Reader, Record, Writer};

/// Whose database this is. Written once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Identity {
    /// UUID of the collection.
    pub(crate) collection: u128,
    /// Number of the shard.
    pub(crate) shard: u64,
    /// What the collection holds.
    pub(crate) schema: Schema,
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
    const FORMAT: u8 = 1;
}

impl Encode for Identity {
    fn encode(&self, writer: &mut Writer) {
        writer.u128(self.collection);
        writer.u64(self.shard);
        self.schema.encode(writer);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { collection: reader.u128()?, shard: reader.u64()?, schema: Schema::decode(reader)? })
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
        let identity = Identity { collection: 7, shard: 8, schema: Schema::default() };
        check(&identity, "0107000000000000000000000000000000080000411ca53d89f44028");
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
