//! CPU time of processes and threads, from the scheduler's own books.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};

/// CPU time that each thread of a process has used so far.
pub struct Reading(BTreeMap<u32, Thread>);

struct Thread {
    group: String,
    nanos: u64,
}

/// CPU nanoseconds by group of threads: those whose names differ in a trailing number only.
#[derive(Clone, Debug, Default)]
pub struct Usage(BTreeMap<String, u64>);

impl Reading {
    /// Reads all threads of a process. A thread that runs at this moment may lack up to a tick of the scheduler; one that
    /// sleeps is exact.
    pub fn of(process: u32) -> Result<Self> {
        let tasks = format!("/proc/{process}/task");
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
            let task = task?.path();
            let id = task.file_name().and_then(|name| name.to_str()?.parse().ok()).context("not a thread's folder")?;
            // A thread may end between the listing and the reading.
            let (Ok(name), Ok(schedule)) =
                (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("schedstat")))
            else {
                continue;
            };
            let nanos = schedule.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
            let nanos = nanos.context("schedstat has no CPU time: the kernel was built without it")?;
            threads.insert(id, Thread { group: group(name.trim_end()), nanos });
        }
        Ok(Self(threads))
    }

    /// What was used since an earlier reading. Threads that ended in between are left out.
    pub fn since(&self, before: &Self) -> Usage {
        let mut usage = Usage::default();
        for (id, thread) in &self.0 {
            let start = before.0.get(id).map_or(0, |before| before.nanos);
            *usage.0.entry(thread.group.clone()).or_default() += thread.nanos - start;
        }
        usage
    }
}

impl Usage {
    /// Of all groups.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// One group of them.
    pub fn only(mut self, group: &str) -> Self {
        self.0.retain(|known, _| known == group);
        self
    }

    /// The groups, the busiest first.
    pub fn groups(&self) -> Vec<(&str, u64)> {
        let mut groups: Vec<_> = self.0.iter().map(|(group, nanos)| (group.as_str(), *nanos)).collect();
        groups.sort_by_key(|(_, nanos)| std::cmp::Reverse(*nanos));
        groups
    }

    /// Microseconds of each of so many units by group, the busiest first, those below a hundredth left out.
    pub fn split(&self, units: u64) -> String {
        let us = |nanos: u64| nanos as f64 / 1e3 / units as f64;
        let groups = self.groups().into_iter().filter(|(_, nanos)| nanos * 100 >= self.total());
        let groups: Vec<_> = groups.map(|(group, nanos)| format!("{group} {:.1}", us(nanos))).collect();
        groups.join(", ")
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        for (group, nanos) in &other.0 {
            *self.0.entry(group.clone()).or_default() += nanos;
        }
    }
}

fn group(thread: &str) -> String {
    thread.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == ':').to_owned()
}
