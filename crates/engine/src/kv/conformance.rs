//! What every [`KvEngine`] must do, as tests: [`run`] panics at the first promise that does not hold.
//!
//! Random cases print their seed; the environment variable `SAGITTA_SEED` runs one seed instead of the listed ones.

#![allow(clippy::unwrap_used, reason = "a suite of tests: the panic is the message")]

mod durability;
mod folder;
mod model;
mod reading;
mod snapshots;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Family, FamilySpec, Kv, KvEngine, KvOptions, KvRead, ScanRange, WriteBatch};

/// What the suite needs to know about an engine.
pub trait Harness {
    /// The engine that is tested.
    fn engine(&self) -> &dyn KvEngine;

    /// Settings to open with. Small write buffers make the suite exercise an engine's own flushes.
    fn options(&self) -> KvOptions {
        KvOptions::default()
    }

    /// A folder that does not exist yet, different each time.
    fn fresh_dir(&self) -> PathBuf;

    /// Leaves of the database what a power cut at this moment would leave, and says in which folder to open it.
    fn crash(&self, dir: &Path, kv: Arc<dyn Kv>) -> PathBuf;
}

/// One promise, as a test.
pub type Case = fn(&dyn Harness);

/// Every promise by name.
pub const CASES: &[(&str, Case)] = &[
    ("reads give back what was written", reading::reads_give_back_what_was_written),
    ("batches apply in order", reading::batches_apply_in_order),
    ("multi_get visits every key in the order asked", reading::multi_get_visits_every_key_in_order),
    ("scans visit their range in byte order", reading::scans_visit_their_range_in_byte_order),
    ("scans stop when told and may be written under", reading::scans_stop_and_may_be_written_under),
    ("delete_range removes its keys and no others", reading::delete_range_removes_its_keys_only),
    ("snapshots see their moment", snapshots::snapshots_see_their_moment),
    ("snapshots outlive their database handle", snapshots::snapshots_outlive_the_handle),
    ("batches are atomic for concurrent readers", snapshots::batches_are_atomic_for_readers),
    ("flushed data is there after reopening", durability::flushed_data_survives_reopening),
    ("flushed data is there after a crash", durability::flushed_data_survives_a_crash),
    ("a crash leaves a prefix, the same in all families", durability::a_crash_leaves_a_prefix),
    ("checkpoints are databases of their own", durability::checkpoints_stand_alone),
    ("purge keeps live rows and collects dead ones", durability::purge_keeps_live_rows),
    ("families are known by name", folder::families_are_known_by_name),
    ("an unknown family is a newer version", folder::an_unknown_family_is_a_newer_version),
    ("a database is open once", folder::a_database_is_open_once),
    ("reading alone changes nothing", folder::reading_alone_changes_nothing),
    ("destroy removes a closed database", folder::destroy_removes_a_closed_database),
    ("health names the families", folder::health_names_the_families),
    ("any sequence of operations agrees with a map", model::any_sequence_agrees_with_a_map),
];

/// Runs every case, naming each as it begins.
///
/// # Panics
/// At the first promise that does not hold.
pub fn run(harness: &dyn Harness) {
    for (name, case) in CASES {
        println!("conformance: {name}");
        case(harness);
    }
}

const SMALL: Family = Family::new(0);
const LARGE: Family = Family::new(1);
const META: Family = Family::new(2);
const FAMILIES: [FamilySpec; 3] = [FamilySpec::new("small"), FamilySpec::large("large"), FamilySpec::new("meta")];
const ALL: [Family; 3] = [SMALL, LARGE, META];

/// A database under test with what is needed to open it again.
struct Db<'a> {
    harness: &'a dyn Harness,
    dir: PathBuf,
    kv: Arc<dyn Kv>,
}

impl<'a> Db<'a> {
    fn create(harness: &'a dyn Harness) -> Self {
        Self::open(harness, harness.fresh_dir())
    }

    fn open(harness: &'a dyn Harness, dir: PathBuf) -> Self {
        let kv = harness.engine().open(&dir, &FAMILIES, &harness.options()).unwrap();
        Self { harness, dir, kv }
    }

    /// Closes and opens again.
    fn reopen(self) -> Self {
        let Self { harness, dir, kv } = self;
        drop(kv);
        Self::open(harness, dir)
    }

    fn crash(self) -> Self {
        let Self { harness, dir, kv } = self;
        let dir = harness.crash(&dir, kv);
        Self::open(harness, dir)
    }

    fn write(&self, build: impl FnOnce(&mut WriteBatch)) {
        let mut batch = WriteBatch::new();
        build(&mut batch);
        self.kv.write(&batch).unwrap();
    }
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// The rows of a range, which must be ascending and within it.
fn rows_in(kv: &dyn KvRead, family: Family, range: &ScanRange) -> Rows {
    let mut rows: Rows = Vec::new();
    kv.scan(family, range, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(rows.is_sorted_by(|a, b| a.0 < b.0), "scan of {range:?} is not strictly ascending");
    rows
}

fn rows(kv: &dyn KvRead, family: Family) -> Rows {
    rows_in(kv, family, &ScanRange::all())
}

fn keys_in(kv: &dyn KvRead, family: Family, range: &ScanRange) -> Vec<Vec<u8>> {
    rows_in(kv, family, range).into_iter().map(|(key, _)| key).collect()
}

/// A value that is different for every number and long enough to be stored apart from its key.
fn large_value(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    (0..1024 + random.below(512)).map(|_| random.next() as u8).collect()
}

/// The seeds of a random case: the listed number of them, or the one of `SAGITTA_SEED`.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SAGITTA_SEED") {
        Ok(seed) => vec![seed.parse().expect("SAGITTA_SEED is a number")],
        Err(_) => (1..=count).collect(),
    }
}

/// Splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}
