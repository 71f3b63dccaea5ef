//! What the system's clock says within a simulation: virtual time.
//!
//! Our own code asks `sagitta-env`. Below it, `h2` forgets calls that it has reset after a second of the system's time, and answers
//! frames that come later in another way than before; `hyper` dates answers, and headers are as long as the date makes them. On a busy
//! machine one seed would give several runs.
#![allow(unsafe_code, reason = "the C library's clock can only be replaced by a C function of its name")]

use std::cell::Cell;
use std::ffi::{c_int, c_long};
use std::time::Duration;

/// `struct timespec` of 64-bit Linux.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

const REALTIME: c_int = 0;
const MONOTONIC: c_int = 1;
/// What the clocks say when a simulation begins: some day in 2025, and long enough after the start of the machine for times before.
const START_UNIX_SECONDS: u64 = 1_750_000_000;
const START_SECONDS: u64 = 1_000_000;
#[cfg(target_arch = "x86_64")]
const SYS_CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const SYS_CLOCK_GETTIME: c_long = 113;

thread_local! {
    /// Virtual time, in threads that simulate.
    static NOW: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// As long as it lives, its thread lives in virtual time.
pub(crate) struct VirtualClock(());

impl VirtualClock {
    pub(crate) fn start() -> Self {
        NOW.set(Some(Duration::ZERO));
        Self(())
    }

    pub(crate) fn set(&self, since_start: Duration) {
        NOW.set(Some(since_start));
    }
}

impl Drop for VirtualClock {
    fn drop(&mut self) {
        NOW.set(None);
    }
}

// SAFETY: this is how the C library declares it.
unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// Takes the place of the C library's function, by which the standard library tells the time.
///
/// # Safety
///
/// As that one, for which callers take it: `time` points to where a `timespec` may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    let start = match clock {
        REALTIME => START_UNIX_SECONDS,
        MONOTONIC => START_SECONDS,
        _ => 0,
    };
    match NOW.get() {
        Some(since) if start > 0 => {
            let now = Duration::from_secs(start) + since;
            let now = Timespec { seconds: now.as_secs() as i64, nanoseconds: c_long::from(now.subsec_nanos() as i32) };
            // SAFETY: the caller vouches for the pointer.
            unsafe { time.write(now) };
            0
        }
        // SAFETY: the arguments are those of this system call, and the caller vouches for the pointer.
        _ => unsafe { syscall(SYS_CLOCK_GETTIME, clock, time) as c_int },
    }
}

#[test]
fn within_a_simulation_the_systems_clock_is_virtual_and_elsewhere_it_is_not() {
    #![allow(clippy::disallowed_methods, reason = "this is about the system's clock")]
    use std::time::{Instant, SystemTime, UNIX_EPOCH};
    let (before, date) = (Instant::now(), SystemTime::now());
    {
        let clock = VirtualClock::start();
        let (start, first) = (Instant::now(), SystemTime::now());
        assert_eq!(first.duration_since(UNIX_EPOCH).expect("later"), Duration::from_secs(START_UNIX_SECONDS));
        assert_eq!(Instant::now(), start, "time stands still");
        clock.set(Duration::from_millis(1_500));
        assert_eq!(start.elapsed(), Duration::from_millis(1_500));
        assert_eq!(first.elapsed().expect("later"), Duration::from_millis(1_500));
        let elsewhere = std::thread::spawn(SystemTime::now).join().expect("told");
        assert!(elsewhere >= date);
    }
    assert!(Instant::now() >= before && SystemTime::now() >= date);
}
