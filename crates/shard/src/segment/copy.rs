//! The copy of a segment's table of ids in the database. It is read when the file is damaged: only then.

use std::ops::ControlFlow;

use sagitta_engine::kv::{Kv, KvRead, ScanRange, WriteBatch};
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::IdTable;
use crate::layout::{Key, SEGMENT_IDS};
use crate::{SegmentId, ShardError};

/// Bytes of one piece: large enough to be kept apart from the keys.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces of one batch.
const BATCH_PIECES: usize = 8;
const SUM_BYTES: usize = 8;

/// Writes a table in pieces. It takes several batches: a segment's copy counts once the manifest names the segment.
pub(crate) fn write_ids_copy(kv: &dyn Kv, segment: SegmentId, table: &[u8]) -> Result<(), ShardError> {
    let mut value = Vec::with_capacity(PIECE_BYTES.min(table.len()) + SUM_BYTES);
    let mut batch = WriteBatch::new();
    for (number, piece) in table.chunks(PIECE_BYTES).enumerate() {
        value.clear();
        value.extend_from_slice(piece);
        value.extend_from_slice(&xxh3_64(piece).to_le_bytes());
        let number = u32::try_from(number).expect("invariant: a table is far below 2^52 bytes");
        batch.put(SEGMENT_IDS, &Key::segment_ids(segment, number), &value);
        if batch.len() == BATCH_PIECES {
            kv.write(&batch)?;
            batch.clear();
        }
    }
    kv.write(&batch)?;
    Ok(())
}

/// The table.
pub(super) fn read_ids_copy(kv: &dyn KvRead, segment: SegmentId) -> Result<IdTable, ShardError> {
    let bytes = read_ids_bytes(kv, segment)?;
    IdTable::from_copy(bytes).map_err(|reason| bad_copy(segment, reason))
}

/// The table's bytes.
pub(super) fn read_ids_bytes(kv: &dyn KvRead, segment: SegmentId) -> Result<Vec<u8>, ShardError> {
    let mut table = Vec::new();
    let mut pieces = 0;
    let mut wrong = None;
    kv.scan(SEGMENT_IDS, &ScanRange::prefix(&Key::segment(segment)).bulk(), &mut |key, value| {
        let number = Key::read_segment_row(key).map(|(_, number)| number);
        match value.split_last_chunk::<SUM_BYTES>() {
            _ if number != Some(pieces) => wrong = Some("a piece is missing"),
            Some((piece, sum)) if xxh3_64(piece) == u64::from_le_bytes(*sum) => table.extend_from_slice(piece),
            _ => wrong = Some("the checksum of a piece does not match"),
        }
        pieces += 1;
        if wrong.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    wrong.map_or(Ok(table), |reason| Err(bad_copy(segment, reason)))
}

fn bad_copy(segment: SegmentId, reason: &str) -> ShardError {
    ShardError::Inconsistent { what: format!("the copy of the ids of segment {segment}: {reason}") }
}
