/// What all databases of a process may use together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RocksBudget {
    /// Limit of the block cache; index and filter blocks and write buffers count against it.
    pub memory_bytes: usize,
    /// Of it, for write buffers: near this much, the database that is being written flushes.
    pub write_buffer_bytes: usize,
    /// Threads for flushes and compactions.
    pub background_threads: u32,
    /// Upper limit of what flushes and compactions write, so that searches find the disk free.
    pub background_bytes_per_second: u64,
}

impl Default for RocksBudget {
    /// For a process that shares a small machine: half a gigabyte, half of it for write buffers; two threads;
    /// 256 MiB/s, which a slow NVMe disk can bear.
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            write_buffer_bytes: 256 << 20,
            background_threads: 2,
            background_bytes_per_second: 256 << 20,
        }
    }
}
