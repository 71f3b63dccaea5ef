//! The table.

use std::collections::BTreeMap;

/// What the coordinator may need for a query.
const QUERY_TARGET_US: f64 = 100.0;
/// What it may need for each of its shards.
const SHARD_TARGET_US: f64 = 15.0;

/// Microseconds of CPU for a query.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) coordinator_us: f64,
    /// Of the coordinator's, what it would have needed without queries.
    pub(crate) at_rest_us: f64,
    pub(crate) nodes_us: f64,
    /// What a bare echo of the same sizes needs.
    pub(crate) echo_us: f64,
}

/// What was measured, by shards and calls at once.
#[derive(Default)]
pub(crate) struct Table(BTreeMap<(u32, usize), Vec<Cost>>);

impl Table {
    pub(crate) fn add(&mut self, of: (u32, usize), cost: Cost) {
        self.0.entry(of).or_default().push(cost);
    }

    /// Medians over the rounds.
    pub(crate) fn print(&self) {
        println!("\nmicroseconds of CPU a query, medians over rounds");
        println!(
            "{:>7}{:>7}{:>13}{:>9}{:>11}{:>8}{:>10}  the coordinator's target",
            "shards", "calls", "coordinator", "at rest", "all nodes", "echo", "in echoes"
        );
        for ((shards, calls), costs) in &self.0 {
            let of = |part: fn(&Cost) -> f64| median(costs.iter().map(part).collect());
            let coordinator_us = of(|cost| cost.coordinator_us);
            let target_us = QUERY_TARGET_US + SHARD_TARGET_US * f64::from(*shards);
            let verdict = if coordinator_us <= target_us { "met" } else { "MISSED" };
            println!(
                "{shards:>7}{calls:>7}{coordinator_us:>13.1}{:>9.1}{:>11.1}{:>8.1}{:>10.2}  at most {target_us}: {verdict}",
                of(|cost| cost.at_rest_us),
                of(|cost| cost.nodes_us),
                of(|cost| cost.echo_us),
                // Round by round: what slows the machine for a while slows both.
                of(|cost| cost.coordinator_us / cost.echo_us),
            );
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
