//! The C allocator, which FAISS, RocksDB and Rust share in this process. Here because it can be reached by native code only.

/// Gives memory that was freed, but that the allocator kept for later, back to the system. The allocator keeps a lot: after
/// 100,000 vectors of 384 dimensions were stored and indexed, 305 of 437 MiB.
///
/// Goes through the whole heap: milliseconds for each gigabyte, during which other threads may wait for memory.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn release_free_memory() {
    // SAFETY: declared as in malloc_trim(3).
    unsafe extern "C" {
        fn malloc_trim(keep_bytes: usize) -> std::ffi::c_int;
    }
    // SAFETY: it may be called by any thread at any time and touches free memory only.
    unsafe {
        malloc_trim(0);
    }
}

/// Does nothing: this platform's allocator has no such function.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn release_free_memory() {}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Memory of this process that the system cannot take back.
    fn held_mib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
        kib.unwrap().parse::<u64>().unwrap() >> 10
    }

    #[test]
    fn memory_that_was_freed_below_memory_in_use_goes_back_to_the_system() {
        // Too small to be mapped one by one: the allocator cannot shrink its heap below the last of them.
        const PIECE_BYTES: usize = 32 << 10;
        const TOTAL_MIB: usize = 256;
        let mut pieces: Vec<Vec<u8>> = (0..(TOTAL_MIB << 20) / PIECE_BYTES).map(|_| vec![1; PIECE_BYTES]).collect();
        let last = pieces.pop();
        drop(pieces);
        let before = held_mib();
        release_free_memory();
        let after = held_mib();
        assert!(after + TOTAL_MIB as u64 / 2 < before, "{after} MiB of {before}");
        assert!(last.is_some_and(|piece| piece.iter().all(|byte| *byte == 1)), "what is in use stays");
    }
}
