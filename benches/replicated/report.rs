//! The tables.

use std::collections::BTreeMap;
use std::time::Duration;

use sagitta_benches::cpu::Usage;

/// One measurement: how long each write took, and all of them together.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) took: Vec<Duration>,
    pub(crate) wall: Duration,
}

/// Who is measured, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    Disks,
    Echo,
    Alone,
    Cluster,
}

/// What was measured with so many writes at once.
pub(crate) struct Table {
    concurrency: usize,
    rounds: usize,
    runs: BTreeMap<Column, Vec<Run>>,
    cpu: BTreeMap<(Column, &'static str), Usage>,
}

impl Column {
    const ALL: [Self; 4] = [Self::Disks, Self::Echo, Self::Alone, Self::Cluster];

    fn name(self) -> &'static str {
        match self {
            Self::Disks => "disks, 2 of 3 synced",
            Self::Echo => "echo",
            Self::Alone => "one node alone",
            Self::Cluster => "three replicas",
        }
    }
}

impl Table {
    pub(crate) fn new(concurrency: usize, rounds: usize) -> Self {
        Self { concurrency, rounds, runs: BTreeMap::new(), cpu: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, column: Column, run: Run) {
        self.runs.entry(column).or_default().push(run);
    }

    /// Books the CPU that processes have used in a run.
    pub(crate) fn book(&mut self, column: Column, processes: &[(&'static str, Usage)]) {
        for (process, usage) in processes {
            self.cpu.entry((column, process)).or_default().add(usage);
        }
    }

    /// Medians over the rounds.
    pub(crate) fn print(&self) {
        println!("\n{} writes at once; medians over {} rounds", self.concurrency, self.rounds);
        println!("  {:<22}{:>12}{:>12}{:>12}{:>22}", "", "writes/s", "p50 us", "p99 us", "of the disks' rate");
        let limit = self.rates(Column::Disks);
        for column in Column::ALL {
            let rates = self.rates(column);
            // Round by round: what slows the machine for a while slows both.
            let of_limit = median(rates.iter().zip(&limit).map(|(rate, limit)| rate / limit).collect());
            let percentile = |p: f64| median(self.runs[&column].iter().map(|run| run.percentile(p)).collect());
            let (p50, p99) = (percentile(0.5), percentile(0.99));
            println!("  {:<22}{:>12.0}{p50:>12.0}{p99:>12.0}{of_limit:>22.2}", column.name(), median(rates));
        }
        for ((column, process), usage) in &self.cpu {
            let writes = self.runs[column].iter().map(|run| run.took.len() as u64).sum();
            let total = usage.total() as f64 / 1e3 / writes as f64;
            println!("  CPU us a write, {}, {process}: {total:.1} ({})", column.name(), usage.split(writes));
        }
    }

    fn rates(&self, column: Column) -> Vec<f64> {
        self.runs[&column].iter().map(|run| run.took.len() as f64 / run.wall.as_secs_f64()).collect()
    }
}

impl Run {
    /// Microseconds.
    fn percentile(&self, p: f64) -> f64 {
        let mut took = self.took.clone();
        took.sort_unstable();
        let at = ((took.len() as f64 * p) as usize).min(took.len().saturating_sub(1));
        took.get(at).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
