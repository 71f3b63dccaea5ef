//! Power cuts at every step of building and installing a segment.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use sagitta_engine::kv::ScanRange;

use super::model::Driver;
use super::twin::ADOPTION;
use super::{Rig, run_jobs};
use crate::layout::{Key, SEGMENT_IDS};
use crate::{JobKind, Step};

/// A job that installs a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installs {
    /// Of a frozen generation.
    Seal,
    /// Of several segments.
    Merge,
    /// Of a damaged segment.
    Rebuild,
    /// Of a segment that a twin has built.
    Adopt,
}

impl Installs {
    fn steps(self) -> &'static [Step] {
        match self {
            Self::Adopt => &ADOPTION,
            _ => &Step::ALL,
        }
    }
}

/// Cuts the power at every [`Step`] of every kind of job, keeping none, some or all of what was not flushed; then the shard must
/// hold what it held, be able to finish, and leave no folder behind. `dir` is empty. Returns the number of cuts.
///
/// # Panics
/// When anything is lost or left.
pub fn every_step(rig: &dyn Rig, dir: &Path, seed: u64) -> usize {
    println!("crash test: seed {seed}");
    let mut cuts = 0;
    for job in [Installs::Seal, Installs::Merge, Installs::Rebuild, Installs::Adopt] {
        for &step in job.steps() {
            for attempt in 0..3 {
                let case = dir.join(format!("{job:?}-{step:?}-{attempt}"));
                fs::create_dir(&case).expect("a folder for the case");
                cut(rig, &case, seed + cuts as u64, job, step);
                fs::remove_dir_all(&case).expect("the folder of the case goes");
                cuts += 1;
            }
        }
    }
    cuts
}

fn cut(rig: &dyn Rig, dir: &Path, seed: u64, job: Installs, step: Step) {
    let mut driver = Driver::new(rig, dir, seed);
    driver.at = format!("seed {seed}, {job:?} cut at {step:?}");
    if job == Installs::Adopt {
        prepare_adoption(&mut driver);
        assert!(driver.cut_adoption_at(step), "{}: the adoption did not come to the step", driver.at);
    } else {
        prepare(&mut driver, job);
        cut_job(&mut driver, job, step);
    }
    driver.crash();
    // A segment that the database still names was not touched: nothing has to be rebuilt.
    assert_eq!(driver.shard().stats().damages, [], "{}", driver.at);
    for _ in 0..3 {
        driver.write();
    }
    run_jobs(driver.shard()).expect("jobs end well after the crash");
    driver.check_everything();
    check_folders(&driver);
    // And once more: nothing of the interrupted job comes back.
    driver.crash();
    check_folders(&driver);
}

fn cut_job(driver: &mut Driver<'_>, job: Installs, step: Step) {
    let wanted = driver.shard().next_job().map(|job| job.kind().clone());
    let suits = matches!(
        (&wanted, job),
        (Some(JobKind::Seal { .. }), Installs::Seal)
            | (Some(JobKind::Merge { .. }), Installs::Merge)
            | (Some(JobKind::Rebuild { .. }), Installs::Rebuild)
    );
    assert!(suits, "{}: the next job is {wanted:?}", driver.at);
    assert!(driver.cut_job_at(step), "{}: the job did not come to the step", driver.at);
}

/// Rows in a segment, in a frozen generation and in the growing one, of which the twin's only segment has some in the same
/// version.
fn prepare_adoption(driver: &mut Driver<'_>) {
    for _ in 0..2 {
        driver.fill(10);
        driver.write();
        driver.shard().freeze().expect("the shard freezes");
        run_jobs(driver.shard()).expect("jobs end well");
    }
    driver.fill(10);
    driver.shard().freeze().expect("the shard freezes");
    driver.write();
    driver.seal_twin();
    driver.write();
}

/// Makes the job the next one.
fn prepare(driver: &mut Driver<'_>, job: Installs) {
    let segments = match job {
        Installs::Seal => 0,
        Installs::Rebuild => 1,
        Installs::Merge => 4,
        Installs::Adopt => unreachable!("it is prepared by itself"),
    };
    while driver.shard().view().segments().len() < segments || driver.naive.points.len() < 20 {
        driver.write();
        driver.shard().freeze().expect("the shard freezes");
        if segments > 0 {
            only_seal(driver);
        }
    }
    match job {
        Installs::Seal => {
            driver.write();
            driver.shard().freeze().expect("the shard freezes");
        }
        Installs::Merge => {
            while !merges_next(driver) {
                driver.write();
                driver.shard().freeze().expect("the shard freezes");
                only_seal(driver);
            }
        }
        Installs::Rebuild => {
            // One without live rows would be dropped rather than built again.
            let view = driver.shard().view();
            let alive = view.segments().iter().find(|view| view.live.count() > 0).expect("some point is sealed");
            alive.segment.report(crate::Part::Payload, "planted");
        }
        Installs::Adopt => unreachable!("it is prepared by itself"),
    }
}

/// Whether the next job merges segments of which rows are alive; another job is done.
fn merges_next(driver: &Driver<'_>) -> bool {
    let Some(job) = driver.shard().next_job() else { return false };
    let view = driver.shard().view();
    let live = |id| view.segments().iter().find(|view| view.segment.id() == id).map_or(0, |view| view.live.count());
    match job.kind() {
        JobKind::Merge { segments } if segments.iter().map(|id| live(*id)).sum::<usize>() > 0 => true,
        _ => {
            job.run(&super::unhurried()).expect("a job ends well");
            false
        }
    }
}

fn only_seal(driver: &Driver<'_>) {
    while let Some(job) = driver.shard().next_job() {
        match job.kind() {
            JobKind::Seal { .. } => job.run(&super::unhurried()).expect("a job ends well"),
            _ => return,
        }
    }
}

/// The folders in `segments/` are those of the present segments, and so are the copies of ids in the database.
pub(super) fn check_folders(driver: &Driver<'_>) {
    let names = fs::read_dir(driver.dir().join("segments")).expect("the folder is read");
    let names: BTreeSet<_> = names.map(|name| name.expect("an entry").file_name()).collect();
    let view = driver.shard().view();
    let expected: BTreeSet<_> = view.segments().iter().map(|view| view.segment.id().to_string().into()).collect();
    assert_eq!(names, expected, "{}", driver.at);
    let mut copies = BTreeSet::new();
    let copied = driver.shard().kv.scan(SEGMENT_IDS, &ScanRange::all(), &mut |key, _| {
        copies.extend(Key::read_segment_row(key).map(|(segment, _)| OsString::from(segment.to_string())));
        ControlFlow::Continue(())
    });
    copied.expect("the database is read");
    assert_eq!(copies, expected, "{}: copies of ids", driver.at);
}
