use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sagitta_engine::index::Never;
use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::kv::MemoryEngine;
use sagitta_env::Env;
use sagitta_model::{Change, ErrorKind, IndexPolicy, Point, PointId, Schema};

use super::in_folder;
use crate::codec::Record as _;
use crate::testing::dice::Dice;
use crate::testing::twin::copy;
use crate::testing::{run_jobs, schema, small_options, spec, unhurried};
use crate::{Adopted, Command, Engines, Entry, JobKind, Shard, ShardError, ShardOptions};

/// Two replicas of a shard, which seal nothing by themselves.
struct Pair<'a> {
    dir: &'a Path,
    schema: Schema,
    here: Arc<Shard>,
    there: Arc<Shard>,
}

impl<'a> Pair<'a> {
    fn new(dir: &'a Path) -> Self {
        let schema = schema(1, &IndexPolicy::ALL);
        let [here, there] = ["here", "there"].map(|name| open(&dir.join(name), &schema));
        Self { dir, schema, here, there }
    }

    /// Has both apply an entry that writes points.
    fn write(&self, index: u64, ids: std::ops::Range<u64>) {
        self.write_to(&[&self.here, &self.there], index, ids);
    }

    fn write_to(&self, shards: &[&Shard], index: u64, ids: std::ops::Range<u64>) {
        let dice = Dice::new(index);
        let points = ids.map(|id| Point { id: PointId::Num(id), ..dice.point(&self.schema) }).collect();
        let change = Change::Upsert(points).into();
        let data = Command { request_id: index.into(), after: None, change }.to_sealed();
        for shard in shards {
            shard.apply(&[Entry { index, term: 1, data: &data, members: None }]).expect("the entry applies");
        }
    }

    /// A copy of the newest segment there.
    fn fetch(&self) -> PathBuf {
        let arrival = self.dir.join("arrival");
        let view = self.there.view();
        copy(view.segments().last().expect("a segment").segment.dir(), &arrival);
        arrival
    }
}

fn open(dir: &Path, schema: &Schema) -> Arc<Shard> {
    let engines = Engines { kv: Arc::new(MemoryEngine::new()), index: Arc::new(ExactEngine) };
    let options = ShardOptions { seal_rows: 10_000, ..small_options() };
    Shard::open(dir, spec(schema), engines, Env::seeded(1).0, options).expect("the shard opens")
}

fn seal(shard: &Arc<Shard>) {
    shard.freeze().expect("it freezes");
    while let Some(job) = shard.next_job_of(|kind| matches!(kind, JobKind::Seal { .. })) {
        job.run(&unhurried()).expect("it is sealed");
    }
}

fn live_rows(shard: &Shard) -> Vec<usize> {
    shard.view().segments().iter().map(|own| own.live.count()).collect()
}

fn unsealed_rows(shard: &Shard) -> Vec<usize> {
    shard.view().generations().iter().map(|generation| generation.live()).collect()
}

#[test]
fn rows_leave_where_they_were_and_only_those_of_the_same_version() {
    in_folder(|dir| {
        let pair = Pair::new(dir);
        pair.write(1, 0..10);
        seal(&pair.here);
        pair.write(2, 10..20);
        pair.here.freeze().expect("it freezes");
        pair.write(3, 20..30);
        seal(&pair.there);
        pair.write_to(&[&pair.here], 4, 5..8);
        pair.write_to(&[&pair.here], 5, 30..32);

        let arrival = pair.fetch();
        let adopted = pair.here.adopt(&arrival, &Never).expect("it is adopted");
        assert_eq!(adopted, Adopted { segment: 1, rows: 30, live: 27 });
        assert!(!arrival.exists());
        // The segment of 10 and the frozen generation are gone; of the growing one what is newer is left.
        assert_eq!((live_rows(&pair.here), unsealed_rows(&pair.here)), (vec![27], vec![5]));
        assert_eq!(pair.here.indexed_index(), 3);
        assert_eq!(pair.here.view().points(), 32);
        assert!(!dir.join("here/segments/0").exists(), "the folder of the segment that went is there");

        pair.write_to(&[&pair.there], 4, 5..8);
        pair.write_to(&[&pair.there], 5, 30..32);
        seal(&pair.there);
        pair.here.adopt(&pair.fetch(), &Never).expect("it is adopted");
        assert_eq!((live_rows(&pair.here), unsealed_rows(&pair.here)), (vec![27, 5], vec![]));
        assert_eq!(pair.here.indexed_index(), 5);
    });
}

/// Else the two would seal other rows for ever, and a part of each generation would be built twice.
#[test]
fn rows_that_the_other_replica_has_not_frozen_grow_again_and_are_sealed_alike() {
    in_folder(|dir| {
        let pair = Pair::new(dir);
        pair.write(1, 0..10);
        seal(&pair.there);
        pair.write(2, 10..20);
        pair.here.freeze().expect("it freezes");
        pair.write(3, 20..30);
        pair.here.adopt(&pair.fetch(), &Never).expect("it is adopted");
        assert_eq!((live_rows(&pair.here), unsealed_rows(&pair.here)), (vec![10], vec![20]));
        assert!(pair.here.view().frozen().next().is_none(), "nothing is left to be sealed");
        assert_eq!(pair.here.indexed_index(), 1);
        seal(&pair.there);
        pair.here.adopt(&pair.fetch(), &Never).expect("it is adopted");
        assert_eq!((live_rows(&pair.here), unsealed_rows(&pair.here)), (vec![10, 20], vec![]));
    });
}

#[test]
fn a_merged_segment_takes_the_place_of_those_it_was_made_of() {
    in_folder(|dir| {
        let pair = Pair::new(dir);
        for index in 1..=4 {
            pair.write(index, 10 * index..10 * index + 10);
            seal(&pair.there);
            pair.here.adopt(&pair.fetch(), &Never).expect("it is adopted");
        }
        assert_eq!(live_rows(&pair.here), [10, 10, 10, 10]);
        run_jobs(&pair.there).expect("jobs end well");
        assert_eq!(live_rows(&pair.there), [40]);
        pair.here.adopt(&pair.fetch(), &Never).expect("it is adopted");
        assert_eq!(live_rows(&pair.here), [40]);
        let names = [&pair.here, &pair.there].map(|shard| shard.view().segments()[0].segment.name());
        assert_eq!(names[0], names[1], "a segment has one name everywhere");
    });
}

#[test]
fn a_segment_that_is_not_what_was_sealed_is_refused_and_nothing_changes() {
    in_folder(|dir| {
        let pair = Pair::new(dir);
        // Enough for files of several blocks.
        pair.write(1, 0..1_500);
        seal(&pair.there);
        let view = pair.there.view();
        let files = files_below(view.segments()[0].segment.dir(), Path::new(""));
        assert!(files.len() >= 5, "{files:?}");
        let mut refused = 0;
        for file in &files {
            for harm in 0..6 {
                let arrival = pair.fetch();
                let path = arrival.join(file);
                let mut bytes = fs::read(&path).expect("read");
                match harm {
                    0 => fs::remove_file(&path).expect("removed"),
                    1 => fs::write(&path, &bytes[..bytes.len() - 1]).expect("written"),
                    _ => {
                        let at = (bytes.len() - 1) * (harm - 2) / 3;
                        bytes[at] ^= 0x10;
                        fs::write(&path, bytes).expect("written");
                    }
                }
                refuse(&pair, &arrival, &format!("{} harmed by {harm}", file.display()));
                refused += 1;
            }
        }
        assert_eq!(refused, files.len() * 6);
        let arrival = pair.fetch();
        fs::write(arrival.join("vectors-0/more"), "x").expect("written");
        refuse(&pair, &arrival, "one file more");
        // Whole, it is taken; and once is enough.
        pair.here.adopt(&pair.fetch(), &Never).expect("it is adopted");
        let arrival = pair.fetch();
        let again = pair.here.adopt(&arrival, &Never).expect_err("it is here");
        assert!(again.to_string().contains("here already"), "{again}");
        assert_eq!(live_rows(&pair.here), [1_500]);
    });
}

fn refuse(pair: &Pair<'_>, arrival: &Path, what: &str) {
    let error = pair.here.adopt(arrival, &Never).expect_err(what);
    assert!(matches!(error, ShardError::Unfit { .. }), "{what}: {error}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!((live_rows(&pair.here), unsealed_rows(&pair.here)), (vec![], vec![1_500]), "{what}");
    assert_eq!(pair.here.stats().damages, [], "{what}: it is no damage of this shard");
    assert_eq!(fs::read_dir(pair.dir.join("here/segments")).expect("read").count(), 0, "{what}");
    fs::remove_dir_all(arrival).expect("a refused folder is still there");
}

#[test]
fn a_segment_of_other_points_or_of_another_schema_is_refused() {
    in_folder(|dir| {
        let mut pair = Pair::new(dir);
        pair.write(1, 0..10);
        pair.write_to(&[&pair.there], 2, 0..10);
        seal(&pair.there);
        let arrival = pair.fetch();
        let error = pair.here.adopt(&arrival, &Never).expect_err("of a later version");
        assert!(error.to_string().contains("none of its rows"), "{error}");
        fs::remove_dir_all(&arrival).expect("removed");
        assert_eq!((live_rows(&pair.here), unsealed_rows(&pair.here)), (vec![], vec![10]));

        pair.schema = schema(2, &IndexPolicy::ALL);
        pair.there = open(&dir.join("other"), &pair.schema);
        pair.write_to(&[&pair.there], 1, 0..10);
        seal(&pair.there);
        let error = pair.here.adopt(&pair.fetch(), &Never).expect_err("of another metric");
        assert!(matches!(error, ShardError::Unfit { .. }), "{error}");
    });
}

#[test]
fn a_job_and_a_segment_from_elsewhere_do_not_work_on_the_same_rows() {
    in_folder(|dir| {
        let pair = Pair::new(dir);
        pair.write(1, 0..10);
        pair.here.freeze().expect("it freezes");
        seal(&pair.there);
        let job = pair.here.next_job().expect("a generation is to be sealed");
        let arrival = pair.fetch();
        let error = pair.here.adopt(&arrival, &Never).expect_err("the job is at work");
        assert!(matches!(error, ShardError::Occupied), "{error}");
        drop(job);
        pair.here.adopt(&arrival, &Never).expect("it is adopted");
        assert_eq!((live_rows(&pair.here), unsealed_rows(&pair.here)), (vec![10], vec![]));
        assert!(
            pair.here.next_job_of(|kind| !matches!(kind, JobKind::Verify { .. })).is_none(),
            "nothing is left to do"
        );
    });
}

#[test]
fn an_adoption_that_is_stopped_changes_nothing() {
    in_folder(|dir| {
        let pair = Pair::new(dir);
        pair.write(1, 0..10);
        seal(&pair.there);
        let arrival = pair.fetch();
        let error = pair.here.adopt(&arrival, &std::sync::atomic::AtomicBool::new(true)).expect_err("stopped");
        assert!(matches!(error, ShardError::Stopped), "{error}");
        assert_eq!(unsealed_rows(&pair.here), [10]);
        pair.here.adopt(&arrival, &Never).expect("it is adopted");
    });
}

/// Paths within a folder.
fn files_below(dir: &Path, below: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir.join(below)).expect("read") {
        let entry = entry.expect("an entry");
        let path = below.join(entry.file_name());
        if entry.path().is_dir() { files.append(&mut files_below(dir, &path)) } else { files.push(path) }
    }
    files
}
