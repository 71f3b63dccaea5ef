//! How much memory a node may use, and how it is split.

use std::str::FromStr;

use sagitta_shard::ShardOptions;

use super::probe;
use super::size::{ByteSize, SizeError};

/// What a node may use of memory that cannot be taken back from it at any time.
///
/// Index files are mapped and not part of it: their pages are the system's cache, which shrinks when somebody needs the
/// memory. A budget therefore leaves them room rather than counting them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    bytes: u64,
}

/// A budget that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// Not a size.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// Less than a server needs to start.
    #[error("{0} is too little: a server needs {min} at least", min = ByteSize(MemoryBudget::MIN_BYTES))]
    TooSmall(ByteSize),
}

/// Who may use how much of a [`MemoryBudget`], in bytes. Together they are less than the mark at which data is refused,
/// so that a node that keeps to its shares takes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// Cache and write buffers of the databases, together.
    pub database_bytes: u64,
    /// Of it, the write buffers.
    pub write_buffer_bytes: u64,
    /// Vectors that are in no segment yet, of all shards together.
    pub unsealed_bytes: u64,
    /// Index builds: the vectors that one holds on the heap, its graph, its payload index.
    pub build_bytes: u64,
    /// Searches and writes that are on their way. Writes take their part of it from when they are decoded until they are
    /// committed; searches are bounded by the number of threads and the queue before them.
    pub request_bytes: u64,
}

/// What is in write buffers when the process dies is read back from the log when it starts: about a second for so much.
const MAX_WRITE_BUFFER_BYTES: u64 = 256 << 20;
/// Generations that fit into the share of unsealed rows: one grows while others wait for their segments.
const GENERATIONS: u64 = 4;
/// A build holds its vectors, a second form of them (codes, or normalised), and the graph: about three times the vectors.
const BUILD_FACTOR: u64 = 3;
/// Write buffers of one family that fit: one is filled while another is flushed, of several families and shards.
const WRITE_BUFFERS: u64 = 4;

impl MemoryBudget {
    /// The least: what a server takes to start and to answer, and a little to work with.
    pub const MIN_BYTES: u64 = 64 << 20;

    /// A budget of so many bytes.
    ///
    /// # Errors
    /// [`BudgetError::TooSmall`] below [`MemoryBudget::MIN_BYTES`].
    pub fn new(bytes: u64) -> Result<Self, BudgetError> {
        if bytes < Self::MIN_BYTES {
            return Err(BudgetError::TooSmall(ByteSize(bytes)));
        }
        Ok(Self { bytes })
    }

    /// Half of what the machine has, or of what the container may use: the other half is for mapped index files, which
    /// searches want to find in memory, and for whatever else runs there.
    pub fn of_machine() -> Self {
        /// For a machine that does not say what it has: what any has.
        const UNKNOWN: u64 = 2 << 30;
        let available = probe::available_memory_bytes().unwrap_or(UNKNOWN);
        Self { bytes: (available / 2).max(Self::MIN_BYTES) }
    }

    /// The whole.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// The split, in eighths. It follows from what each needs to keep up with the others:
    ///
    /// - The databases, two: point reads that hydrate hits live in their cache, flushes in their write buffers.
    /// - Unsealed rows, two: a burst is taken while the build before it runs.
    /// - The build, two: it works on about as many rows as came in meanwhile, several times over in memory.
    /// - Requests, one.
    /// - The last is nobody's: Raft's newest entries, threads, and what the allocator holds without using it.
    pub fn shares(self) -> MemoryShares {
        let eighth = self.bytes / 8;
        let database_bytes = 2 * eighth;
        MemoryShares {
            database_bytes,
            write_buffer_bytes: (database_bytes / 2).min(MAX_WRITE_BUFFER_BYTES),
            unsealed_bytes: 2 * eighth,
            build_bytes: 2 * eighth,
            request_bytes: eighth,
        }
    }
}

impl FromStr for MemoryBudget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        Self::new(text.parse::<ByteSize>()?.0)
    }
}

impl MemoryShares {
    /// A shard's settings, made smaller where one shard alone would go beyond a share. What they say is never raised.
    pub(crate) fn fit(&self, mut options: ShardOptions) -> ShardOptions {
        let fit = |setting: usize, bytes: u64| setting.min(usize::try_from(bytes).unwrap_or(usize::MAX));
        options.seal_bytes = fit(options.seal_bytes, self.unsealed_bytes / GENERATIONS);
        options.max_heap_build_bytes = fit(options.max_heap_build_bytes, self.build_bytes / BUILD_FACTOR);
        options.kv.write_buffer_bytes = fit(options.kv.write_buffer_bytes, self.write_buffer_bytes / WRITE_BUFFERS);
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::gate::memory_level;

    #[test]
    fn shares_keep_below_the_mark_at_which_data_is_refused_at_every_size() {
        for shift in 26..46 {
            for bytes in [1 << shift, (1 << shift) + 12_345_678] {
                let budget = MemoryBudget::new(bytes).unwrap();
                let shares = budget.shares();
                let together =
                    shares.database_bytes + shares.unsealed_bytes + shares.build_bytes + shares.request_bytes;
                assert!(together < memory_level(0, budget).close_at, "{bytes}: {together}");
                assert!(shares.write_buffer_bytes <= shares.database_bytes / 2, "{bytes}");
            }
        }
    }

    #[test]
    fn a_large_budget_leaves_a_shards_settings_alone_and_a_small_one_shrinks_them_to_fit() {
        let usual = ShardOptions::default();
        let fitted = |bytes| MemoryBudget::new(bytes).unwrap().shares().fit(usual.clone());
        let large = fitted(16 << 30);
        assert_eq!(
            (large.seal_bytes, large.max_heap_build_bytes, large.kv),
            (usual.seal_bytes, usual.max_heap_build_bytes, usual.kv)
        );
        let budget = MemoryBudget::new(MemoryBudget::MIN_BYTES).unwrap();
        let (shares, small) = (budget.shares(), fitted(budget.bytes()));
        assert_eq!(small.seal_bytes as u64, shares.unsealed_bytes / 4);
        assert_eq!(small.max_heap_build_bytes as u64, shares.build_bytes / 3);
        assert_eq!(small.kv.write_buffer_bytes as u64, shares.write_buffer_bytes / 4);
    }

    #[test]
    fn a_budget_is_written_as_a_size_and_has_a_least() {
        assert_eq!("4GiB".parse(), MemoryBudget::new(4 << 30));
        let said = "63MiB".parse::<MemoryBudget>().unwrap_err().to_string();
        assert!(said.contains("63 MiB") && said.contains("64 MiB"), "{said}");
        assert!("lots".parse::<MemoryBudget>().unwrap_err().to_string().contains("4GiB"));
        assert!(MemoryBudget::of_machine().bytes() >= MemoryBudget::MIN_BYTES);
    }
}
