use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::kv::{FamilySpec, Op, ScanRange, WriteBatch};

/// Reads as of this batch see the newest state.
pub(super) const NEWEST: u64 = u64::MAX;

/// The content of one database with as much of its past as anybody may still ask for.
///
/// Every batch has a number; a row keeps its versions by batch number. A snapshot is a pinned number, and so is what
/// is durable: a crash goes back to it. That makes every crash state a prefix of the batches, the same for all tables.
#[derive(Clone, Default)]
pub(super) struct Store {
    tables: Vec<Table>,
    last: u64,
    durable: u64,
    /// Numbers that snapshots read at, with how many do.
    pins: BTreeMap<u64, usize>,
    /// Rows with something to forget: more than one version.
    aging: BTreeSet<(usize, Arc<[u8]>)>,
}

pub(super) type Row = (Arc<[u8]>, Arc<[u8]>);

#[derive(Clone)]
struct Table {
    name: String,
    rows: BTreeMap<Arc<[u8]>, Vec<Version>>,
    /// What [`Table::recount`] would say, kept up to date: it is asked for often.
    sizes: Sizes,
}

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Sizes {
    /// Rows as of now.
    rows: u64,
    /// Bytes of versions that are not durable.
    unflushed: u64,
}

#[derive(Clone)]
struct Version {
    batch: u64,
    /// `None`: deleted.
    value: Option<Arc<[u8]>>,
}

impl Store {
    /// The store flushes by itself when this many batches are not durable, as every engine does at some point: the
    /// past that has to be kept for a crash is bounded.
    const FLUSH_AFTER_BATCHES: u64 = 10_000;

    /// Number of the table with this name, which is created when there is none.
    pub(super) fn table(&mut self, name: &str) -> usize {
        if let Some(found) = self.tables.iter().position(|table| table.name == name) {
            return found;
        }
        self.tables.push(Table { name: name.to_owned(), rows: BTreeMap::new(), sizes: Sizes::default() });
        self.tables.len() - 1
    }

    /// A table that the list does not know.
    pub(super) fn table_not_in(&self, families: &[FamilySpec]) -> Option<&str> {
        let known = |name: &str| families.iter().any(|family| family.name == name);
        self.tables.iter().map(|table| table.name.as_str()).find(|name| !known(name))
    }

    /// Applies a batch; `tables[family]` is the table that a family of the batch means.
    pub(super) fn apply(&mut self, batch: &WriteBatch, tables: &[usize]) {
        self.last += 1;
        for op in batch.ops() {
            match op {
                Op::Put { family, key, value } => {
                    self.set(tables[family.index()], Arc::from(key), Some(Arc::from(value)));
                }
                Op::Delete { family, key } => self.set(tables[family.index()], Arc::from(key), None),
                Op::DeleteRange { family, start, end } => {
                    let table = tables[family.index()];
                    let range = (Bound::Included(start), Bound::Excluded(end));
                    let keys: Vec<_> =
                        self.tables[table].rows.range::<[u8], _>(range).map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        self.set(table, key, None);
                    }
                }
            }
        }
        if self.last - self.durable >= Self::FLUSH_AFTER_BATCHES {
            self.flush();
        }
    }

    pub(super) fn get(&self, table: usize, key: &[u8], at: u64) -> Option<Arc<[u8]>> {
        visible(self.tables[table].rows.get(key)?, at)
    }

    /// Up to `limit` rows of the range.
    pub(super) fn page(&self, table: usize, range: &ScanRange, at: u64, limit: usize) -> Vec<Row> {
        if range.is_empty() {
            return Vec::new();
        }
        let bounds = (Bound::Included(range.start()), range.end().map_or(Bound::Unbounded, Bound::Excluded));
        self.tables[table]
            .rows
            .range::<[u8], _>(bounds)
            .filter_map(|(key, versions)| Some((key.clone(), visible(versions, at)?)))
            .take(limit)
            .collect()
    }

    /// The newest rows of all tables.
    pub(super) fn present(&self) -> Vec<(&str, Vec<Row>)> {
        let row = |(key, versions): (&Arc<[u8]>, &Vec<Version>)| Some((key.clone(), visible(versions, NEWEST)?));
        self.tables.iter().map(|table| (table.name.as_str(), table.rows.iter().filter_map(row).collect())).collect()
    }

    /// Puts a row into a store that is being filled: it was always there.
    pub(super) fn load(&mut self, table: usize, key: &[u8], value: &[u8]) {
        let version = Version { batch: 0, value: Some(Arc::from(value)) };
        let table = &mut self.tables[table];
        table.rows.insert(Arc::from(key), vec![version]);
        table.sizes.rows = table.rows.len() as u64;
    }

    pub(super) fn pin(&mut self) -> u64 {
        *self.pins.entry(self.last).or_default() += 1;
        self.last
    }

    pub(super) fn unpin(&mut self, batch: u64) {
        if let Some(count) = self.pins.get_mut(&batch) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&batch);
            }
        }
    }

    pub(super) fn snapshots(&self) -> u64 {
        self.pins.values().map(|&count| count as u64).sum()
    }

    /// Everything is durable now; what nobody can ask for any more is forgotten.
    pub(super) fn flush(&mut self) {
        self.durable = self.last;
        self.tables.iter_mut().for_each(|table| table.sizes.unflushed = 0);
        for (table, key) in std::mem::take(&mut self.aging) {
            self.forget_past(table, key);
        }
    }

    /// Goes back to what is durable, plus the first `survivors` batches after it. Snapshots are gone.
    pub(super) fn lose_unflushed(&mut self, survivors: u64) {
        let keep = self.last.min(self.durable.saturating_add(survivors));
        for table in &mut self.tables {
            table.rows.retain(|_, versions| {
                versions.retain(|version| version.batch <= keep);
                !versions.is_empty()
            });
        }
        self.last = keep;
        self.pins.clear();
        self.flush();
        self.tables.iter_mut().for_each(|table| table.sizes = table.recount(keep));
    }

    /// Rows of a table as of now, and bytes of its versions that are not durable.
    pub(super) fn sizes(&self, table: usize) -> (u64, u64) {
        let Sizes { rows, unflushed } = self.tables[table].sizes;
        (rows, unflushed)
    }

    fn set(&mut self, table: usize, key: Arc<[u8]>, value: Option<Arc<[u8]>>) {
        let Table { rows, sizes, .. } = &mut self.tables[table];
        let versions = rows.entry(key.clone()).or_default();
        let was_there = versions.last().is_some_and(|newest| newest.value.is_some());
        sizes.rows = sizes.rows + u64::from(value.is_some()) - u64::from(was_there);
        let version = Version { batch: self.last, value };
        sizes.unflushed += version.bytes(&key);
        match versions.last_mut() {
            Some(last) if last.batch == version.batch => {
                sizes.unflushed -= last.bytes(&key);
                *last = version;
            }
            _ => versions.push(version),
        }
        // The version before is seen after a crash. What others, older ones, are seen by changes at the next flush.
        match &versions[..] {
            [only] if only.value.is_none() => {
                sizes.unflushed -= only.bytes(&key);
                rows.remove(&key);
            }
            [_, _] => {
                self.aging.insert((table, key));
            }
            _ => {}
        }
    }

    /// Drops the versions of a row that no reader, present or after a crash, can see.
    fn forget_past(&mut self, table: usize, key: Arc<[u8]>) {
        let Some(versions) = self.tables[table].rows.get_mut(&key) else {
            return;
        };
        let mut kept = Vec::with_capacity(versions.len());
        for (i, version) in versions.iter().enumerate() {
            // Seen by those who read at a number from its own up to the one before the next version.
            let until = versions.get(i + 1).map_or(u64::MAX, |next| next.batch);
            let seen = until > self.durable || self.pins.range(version.batch..until).next().is_some();
            // A deletion with nothing before it says what the missing row says.
            if seen && (version.value.is_some() || !kept.is_empty()) {
                kept.push(version.clone());
            }
        }
        match kept.len() {
            0 => {
                self.tables[table].rows.remove(&key);
            }
            1 => *versions = kept,
            _ => {
                *versions = kept;
                self.aging.insert((table, key));
            }
        }
    }
}

impl Version {
    fn bytes(&self, key: &[u8]) -> u64 {
        (key.len() + self.value.as_ref().map_or(0, |value| value.len())) as u64
    }
}

impl Table {
    /// The sizes by going through all rows.
    fn recount(&self, durable: u64) -> Sizes {
        let newest = self.rows.values().filter_map(|versions| versions.last());
        let fresh = |version: &&Version| version.batch > durable;
        let unflushed = |(key, versions): (&Arc<[u8]>, &Vec<Version>)| {
            versions.iter().filter(fresh).map(|version| version.bytes(key)).sum::<u64>()
        };
        Sizes {
            rows: newest.filter(|version| version.value.is_some()).count() as u64,
            unflushed: self.rows.iter().map(unflushed).sum(),
        }
    }
}

/// The newest value that is not younger than `at`.
fn visible(versions: &[Version], at: u64) -> Option<Arc<[u8]>> {
    versions.iter().rev().find(|version| version.batch <= at)?.value.clone()
}

#[cfg(test)]
impl Store {
    pub(super) fn versions(&self) -> usize {
        self.tables.iter().flat_map(|table| table.rows.values()).map(Vec::len).sum()
    }

    /// Whether the sizes that are kept are those that rows add up to.
    pub(super) fn sizes_are_right(&self) -> bool {
        self.tables.iter().all(|table| table.sizes == table.recount(self.durable))
    }
}
