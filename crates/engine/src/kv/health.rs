use super::KvError;

/// How a database is doing. All sizes are approximate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvHealth {
    /// Why writing does not work at the moment, if it does not.
    pub write_error: Option<KvError>,
    /// Failures of background work since the database was opened; it may have recovered from them.
    pub background_errors: u64,
    /// Writing waits for compactions to catch up.
    pub write_stopped: bool,
    /// Bytes that compactions have yet to rewrite.
    pub pending_compaction_bytes: u64,
    /// Snapshots that are held.
    pub snapshots: u64,
    /// In the order of the list given at opening.
    pub families: Vec<FamilyHealth>,
}

impl KvHealth {
    /// Bytes on disk of all families.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.families.iter().map(|f| f.table_bytes + f.blob_bytes).sum()
    }
}

/// Sizes of one family, approximate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyHealth {
    /// Name on disk.
    pub name: &'static str,
    /// Keys, counting some that are deleted already.
    pub keys: u64,
    /// Bytes in memory that are not flushed yet.
    pub unflushed_bytes: u64,
    /// Bytes of keys and small values on disk.
    pub table_bytes: u64,
    /// Bytes of large values on disk, dead ones included.
    pub blob_bytes: u64,
    /// Of these, bytes of dead values that wait to be collected.
    pub blob_garbage_bytes: u64,
}

/// What the databases of an engine use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineMemory {
    /// Limit of the cache, which the write buffers count against.
    pub budget_bytes: u64,
    /// Bytes in the cache, write buffers included.
    pub cache_bytes: u64,
    /// Bytes of the write buffers.
    pub write_buffer_bytes: u64,
}
