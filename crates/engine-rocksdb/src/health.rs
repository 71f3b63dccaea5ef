use std::ffi::CStr;

use rocksdb::{ColumnFamily, WriteBatch, WriteOptions};
use sagitta_engine::kv::{Family, FamilyHealth, FamilySpec, KvError, KvHealth};

use crate::database::Core;

pub(crate) fn of(core: &Core, families: &[FamilySpec]) -> KvHealth {
    let total = |name| core.db().property_int_value(name).ok().flatten().unwrap_or(0);
    let handles = (0..families.len()).map(|i| core.handle(Family::new(i)));
    let pending = |handle| number(core, handle, c"rocksdb.estimate-pending-compaction-bytes");
    KvHealth {
        write_error: write_error(core),
        background_errors: total(c"rocksdb.background-errors"),
        write_stopped: total(c"rocksdb.is-write-stopped") != 0,
        pending_compaction_bytes: handles.clone().map(pending).sum(),
        snapshots: total(c"rocksdb.num-snapshots"),
        families: families.iter().zip(handles).map(|(spec, handle)| family(core, spec, handle)).collect(),
    }
}

fn family(core: &Core, spec: &FamilySpec, handle: &ColumnFamily) -> FamilyHealth {
    FamilyHealth {
        name: spec.name,
        keys: number(core, handle, c"rocksdb.estimate-num-keys"),
        unflushed_bytes: number(core, handle, c"rocksdb.cur-size-all-mem-tables"),
        table_bytes: number(core, handle, c"rocksdb.live-sst-files-size"),
        blob_bytes: blob_bytes(core, handle),
        blob_garbage_bytes: blob_garbage_bytes(core, handle),
    }
}

/// Bytes of the blob files that the present state refers to.
pub(crate) fn blob_bytes(core: &Core, handle: &ColumnFamily) -> u64 {
    number(core, handle, c"rocksdb.live-blob-file-size")
}

/// Bytes of all blob files, those included that only a running scan still needs.
pub(crate) fn all_blob_bytes(core: &Core, handle: &ColumnFamily) -> u64 {
    number(core, handle, c"rocksdb.total-blob-file-size")
}

/// Bytes of dead values in the blob files.
pub(crate) fn blob_garbage_bytes(core: &Core, handle: &ColumnFamily) -> u64 {
    number(core, handle, c"rocksdb.live-blob-file-garbage-size")
}

/// A property that RocksDB does not know (any more) counts as zero: figures for people, not for decisions.
pub(crate) fn number(core: &Core, handle: &ColumnFamily, name: &CStr) -> u64 {
    core.db().property_int_value_cf(handle, name).ok().flatten().unwrap_or(0)
}

/// RocksDB counts background errors but does not say whether one is in force; an empty write does.
fn write_error(core: &Core) -> Option<KvError> {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    // A stall is not an error, and not a reason to wait here.
    options.set_no_slowdown(true);
    match core.db().write_opt(WriteBatch::default(), &options) {
        Err(error) if error.kind() != rocksdb::ErrorKind::Incomplete => Some(core.error(&error)),
        _ => None,
    }
}
