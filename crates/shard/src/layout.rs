//! Where things are in the database: families and keys. The order of keys is part of the format.

use sagitta_engine::kv::{Family, FamilySpec};
use sagitta_model::PointId;

use crate::SegmentId;

/// Id -> version and payload ([`crate::codec::PointRecord`]): which points exist.
pub(crate) const POINTS: Family = Family::new(0);
/// Id and position of the vector's name in the schema -> values.
pub(crate) const VECTORS: Family = Family::new(1);
/// Generation and id -> version: the live rows that are in no segment yet.
pub(crate) const PENDING: Family = Family::new(2);
/// Segment and row -> nothing: the dead rows of segments.
pub(crate) const TOMBSTONES: Family = Family::new(3);
/// Segment and position -> a piece of the segment's table of ids, so that damage to the file costs no pass over all points.
pub(crate) const SEGMENT_IDS: Family = Family::new(4);
/// Identity, head, members, manifest, requests.
pub(crate) const META: Family = Family::new(5);

/// In the order of the constants above.
pub(crate) const FAMILIES: [FamilySpec; 6] = [
    FamilySpec::new("points"),
    FamilySpec::large("vectors"),
    FamilySpec::new("pending"),
    FamilySpec::new("tombstones"),
    FamilySpec::large("segment_ids"),
    FamilySpec::new("meta"),
];

/// In [`META`]: whose database this is.
pub(crate) const IDENTITY_KEY: &[u8] = b"identity";
/// In [`META`]: how far the log was applied.
pub(crate) const HEAD_KEY: &[u8] = b"head";
/// In [`META`]: the segments.
pub(crate) const MANIFEST_KEY: &[u8] = b"manifest";

/// In [`META`]: who belongs to the group of the shard's replicas, once an entry has changed that.
pub(crate) const MEMBERS_KEY: &[u8] = b"members";
/// In [`META`]: the shard that is about to be split off, from before its checkpoint until both sides have applied the split.
pub(crate) const HALF_KEY: &[u8] = b"half";
/// In [`META`]: where the shard stood when it came here whole, if it did.
pub(crate) const INSTALLED_KEY: &[u8] = b"installed";

const REQUEST_PREFIX: &[u8] = b"request/";
const OUTCOME_PREFIX: &[u8] = b"outcome/";
const IMPORTED_PREFIX: &[u8] = b"import/";
const AFTER_IMPORTED: &[u8] = b"import0";

/// A key on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    bytes: [u8; Self::MAX_BYTES],
    len: usize,
}

impl Key {
    const MAX_BYTES: usize = 24;

    fn of(parts: &[&[u8]]) -> Self {
        let mut key = Self { bytes: [0; Self::MAX_BYTES], len: 0 };
        for part in parts {
            key.bytes[key.len..key.len + part.len()].copy_from_slice(part);
            key.len += part.len();
        }
        key
    }

    /// In [`VECTORS`].
    pub(crate) fn vector(id: PointId, ordinal: usize) -> Self {
        let ordinal = u8::try_from(ordinal).expect("invariant: a schema has at most 16 vectors");
        Self::of(&[&id.to_key(), &[ordinal]])
    }

    /// In [`PENDING`].
    pub(crate) fn pending(generation: u32, id: PointId) -> Self {
        Self::of(&[&generation.to_be_bytes(), &id.to_key()])
    }

    /// Before every key of a generation in [`PENDING`].
    pub(crate) fn generation(generation: u32) -> Self {
        Self::of(&[&generation.to_be_bytes()])
    }

    /// In [`TOMBSTONES`].
    pub(crate) fn tombstone(segment: SegmentId, row: u32) -> Self {
        Self::of(&[&segment.to_be_bytes(), &row.to_be_bytes()])
    }

    /// In [`SEGMENT_IDS`].
    pub(crate) fn segment_ids(segment: SegmentId, piece: u32) -> Self {
        Self::of(&[&segment.to_be_bytes(), &piece.to_be_bytes()])
    }

    /// Before every key of a segment in [`TOMBSTONES`] and [`SEGMENT_IDS`].
    pub(crate) fn segment(segment: SegmentId) -> Self {
        Self::of(&[&segment.to_be_bytes()])
    }

    /// In [`META`]: the request id of the command that was applied at this index.
    pub(crate) fn request(index: u64) -> Self {
        Self::of(&[REQUEST_PREFIX, &index.to_be_bytes()])
    }

    /// In [`META`]: its outcome.
    pub(crate) fn outcome(index: u64) -> Self {
        Self::of(&[OUTCOME_PREFIX, &index.to_be_bytes()])
    }

    /// In [`META`]: what came of a request in the shards that this one was filled from.
    pub(crate) fn imported(request_id: u128) -> Self {
        Self::of(&[IMPORTED_PREFIX, &request_id.to_be_bytes()])
    }

    /// After every key of [`Key::imported`], and not far.
    pub(crate) fn after_imported() -> Self {
        Self::of(&[AFTER_IMPORTED])
    }

    /// The request id in a key of [`Key::imported`].
    pub(crate) fn read_imported(key: &[u8]) -> Option<u128> {
        Some(u128::from_be_bytes(key.strip_prefix(IMPORTED_PREFIX)?.try_into().ok()?))
    }

    /// The index in a key of [`Key::request`].
    pub(crate) fn read_request(key: &[u8]) -> Option<u64> {
        Some(u64::from_be_bytes(key.strip_prefix(REQUEST_PREFIX)?.try_into().ok()?))
    }

    /// The parts of a key of [`Key::pending`].
    pub(crate) fn read_pending(key: &[u8]) -> Option<(u32, PointId)> {
        let (generation, id) = key.split_first_chunk()?;
        Some((u32::from_be_bytes(*generation), PointId::from_key(id)?))
    }

    /// The parts of a key of [`Key::tombstone`] or [`Key::segment_ids`].
    pub(crate) fn read_segment_row(key: &[u8]) -> Option<(SegmentId, u32)> {
        let (segment, row) = key.split_first_chunk()?;
        Some((u64::from_be_bytes(*segment), u32::from_be_bytes(row.try_into().ok()?)))
    }
}

impl std::ops::Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_keep_their_bytes() {
        let id = PointId::Num(0x0102);
        assert_eq!(&Key::vector(id, 3)[..], [1, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
        assert_eq!(&Key::pending(7, id)[..], [0, 0, 0, 7, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(Key::read_pending(&Key::pending(7, PointId::Uuid(9))), Some((7, PointId::Uuid(9))));
        assert_eq!(&Key::tombstone(1, 2)[..], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(Key::read_segment_row(&Key::segment_ids(5, 6)), Some((5, 6)));
        assert_eq!(&Key::request(1)[..], b"request/\0\0\0\0\0\0\0\x01");
        assert_eq!(Key::read_request(&Key::request(77)), Some(77));
        assert_eq!(Key::read_request(&Key::outcome(77)), None);
        assert_eq!(&Key::imported(0x0102)[..], b"import/\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02");
        assert_eq!(Key::read_imported(&Key::imported(u128::MAX)), Some(u128::MAX));
        assert!(Key::imported(u128::MAX)[..] < Key::after_imported()[..]);
        assert!(Key::generation(7)[..] < Key::pending(7, PointId::Num(0))[..]);
        assert!(Key::pending(7, PointId::Uuid(u128::MAX))[..] < Key::generation(8)[..]);
    }
}
