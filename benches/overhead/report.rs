//! The tables.

use crate::BATCH;
use crate::rounds::{Measured, Spread};

/// At most so many times a single echo, for one search per call.
const SINGLE_TARGET: f64 = 1.5;
/// The same per search of a batch.
const BATCH_TARGET: f64 = 0.2;

/// Prints what was measured.
pub(crate) fn print(measured: &Measured) {
    let Measured { concurrency, sizes, local_us, single_us, batch_us, single_echo_us, batch_echo_us, .. } = measured;
    let rested_us = measured.rested_us;
    let batch_echo_share = batch_echo_us / BATCH as f64;
    println!("{concurrency} calls at once; CPU in microseconds, medians over rounds");
    println!("  {:<34}{:>10}{:>10}{:>10}", "", "a search", "added", "of an echo");
    println!("  {:<34}{local_us:>10.1}", "index, in process");
    println!("  {:<34}{rested_us:>10.1}{:>10.1}", "  by a thread woken for each", rested_us - local_us);
    let line = |what: &str, us: f64, ratio: Spread, target: f64| {
        let verdict = if ratio.median <= target { "met" } else { "MISSED" };
        let Spread { low, median, high } = ratio;
        let added = us - local_us;
        println!(
            "  {what:<34}{us:>10.1}{added:>10.1}{median:>10.2} ({low:.2} to {high:.2}; at most {target}: {verdict})"
        );
    };
    line("server, Search", *single_us, measured.single_ratio, SINGLE_TARGET);
    line(&format!("server, SearchBatch of {BATCH}"), *batch_us, measured.batch_ratio, BATCH_TARGET);
    let echo = |name: &str, (request, answer): (usize, usize)| format!("echo, {name} ({request} B, {answer} B)");
    println!("  {:<34}{single_echo_us:>10.1}", echo("single", sizes.single));
    println!("  {:<34}{batch_echo_share:>10.1}    {batch_echo_us:.1} a call", echo("batch", sizes.batch));
    println!("  threads, Search:      {}", measured.single_usage.split(measured.searches));
    println!("  threads, SearchBatch: {}\n", measured.batch_usage.split(measured.searches));
}
