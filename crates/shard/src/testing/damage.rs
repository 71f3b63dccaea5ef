//! Damage to every file of a segment.

use std::fs;
use std::path::{Path, PathBuf};

use super::model::Driver;
use super::{Rig, run_jobs};
use crate::Severity;

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// One bit of the byte at this share of the file (in eighths) flips.
    Flip {
        eighths: u64,
    },
    /// The last byte is missing.
    Shorten,
    /// Nothing is left of its content.
    Empty,
    Delete,
}

const HARMS: [Harm; 7] = [
    Harm::Flip { eighths: 0 },
    Harm::Flip { eighths: 2 },
    Harm::Flip { eighths: 5 },
    Harm::Flip { eighths: 8 },
    Harm::Shorten,
    Harm::Empty,
    Harm::Delete,
];

/// Points of the damaged segment: enough for files of several blocks, which are verified one by one.
const POINTS: u64 = 1_400;

/// Damages each file of a segment in each way while the shard is closed, and removes it while the shard is open, too. The
/// shard must go on answering correctly, find the damage, and rebuild the segment. `dir` is empty. Returns the number of cases.
///
/// (A mapped file that is shortened ends the process, and a block that was verified is believed for as long as the file is
/// open: bad disks do neither.)
///
/// # Panics
/// When a wrong answer is given or damage goes unnoticed.
pub fn every_file(rig: &dyn Rig, dir: &Path, seed: u64) -> usize {
    println!("damage test: seed {seed}");
    let files = {
        let probe = dir.join("probe");
        let driver = sealed(rig, &probe, seed);
        files_of_first_segment(&driver)
    };
    assert!(files.len() >= 5, "a segment has more files than {files:?}");
    let mut cases = 0;
    for file in &files {
        for harm in HARMS {
            for while_open in [false, true] {
                if while_open && harm != Harm::Delete {
                    continue;
                }
                let case = dir.join(format!("case-{cases}"));
                let mut driver = sealed(rig, &case, seed);
                driver.at = format!("seed {seed}, {harm:?} of {}, open: {while_open}", file.display());
                harm_and_heal(&mut driver, file, harm, while_open);
                drop(driver);
                fs::remove_dir_all(&case).expect("the folder of the case goes");
                cases += 1;
            }
        }
    }
    cases
}

/// A shard with several segments, of which nothing was read since it was opened.
fn sealed<'a>(rig: &'a dyn Rig, dir: &Path, seed: u64) -> Driver<'a> {
    fs::create_dir_all(dir).expect("a folder for the case");
    let mut driver = Driver::new(rig, dir, seed);
    driver.fill(POINTS);
    run_jobs(driver.shard()).expect("jobs end well");
    driver.write();
    driver.close_flushed();
    driver.open_quietly();
    driver
}

fn harm_and_heal(driver: &mut Driver<'_>, file: &Path, harm: Harm, while_open: bool) {
    let path = driver.dir().join("segments").join(first_segment(driver)).join(file);
    if !while_open {
        driver.close_flushed();
    }
    inflict(&path, harm);
    if !while_open {
        let found = driver.inspect();
        assert!(found.is_sound() && found.segments[0].damaged, "{}: {found:?}", driver.at);
        let (name, folder) = (path.to_string_lossy(), path.parent().expect("within the segment").to_string_lossy());
        let named = found.findings.iter().filter(|finding| finding.severity == Severity::Derived);
        let named: Vec<_> =
            named.map(|finding| finding.what.contains(&*name) || finding.what.contains(&*folder)).collect();
        assert!(!named.is_empty() && named.iter().all(|named| *named), "{}: {:?}", driver.at, found.findings);
        driver.open_quietly();
    }
    for _ in 0..3 {
        driver.search();
        driver.count();
        driver.scroll();
        driver.check_everything();
        driver.write();
    }
    driver.check_everything();
    run_jobs(driver.shard()).expect("jobs end well in spite of the damage");
    let stats = driver.shard().stats();
    assert!(!stats.damages.is_empty(), "{}: not noticed", driver.at);
    assert!(!stats.segments.iter().any(|segment| segment.damaged), "{}: not rebuilt", driver.at);
    assert_eq!(stats.quarantined.len(), 1, "{}: the damaged segment is kept aside", driver.at);
    driver.check_everything();
    super::crash::check_folders(driver);
    // What was rebuilt is on disk, too.
    driver.close_flushed();
    driver.open();
    run_jobs(driver.shard()).expect("jobs end well");
    let stats = driver.shard().stats();
    assert!(stats.damages.is_empty(), "{}: {:?} after it was rebuilt", driver.at, stats.damages);
}

fn inflict(path: &Path, harm: Harm) {
    let bytes = fs::read(path).expect("the file is read");
    match harm {
        Harm::Delete => fs::remove_file(path).expect("the file goes"),
        Harm::Shorten => fs::write(path, &bytes[..bytes.len() - 1]).expect("the file is written"),
        Harm::Empty => fs::write(path, []).expect("the file is written"),
        Harm::Flip { eighths } => flip(path, ((bytes.len() as u64 - 1) * eighths / 8) as usize),
    }
}

/// Changes the file in place, as a bad disk does: it may be mapped.
fn flip(path: &Path, at: usize) {
    use std::io::{Read, Seek, SeekFrom, Write};
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).expect("the file opens");
    let mut byte = [0];
    file.seek(SeekFrom::Start(at as u64)).and_then(|_| file.read_exact(&mut byte)).expect("the byte is read");
    byte[0] ^= 0x10;
    file.seek(SeekFrom::Start(at as u64)).and_then(|_| file.write_all(&byte)).expect("the byte is written");
}

fn first_segment(driver: &Driver<'_>) -> String {
    driver.shard().view().segments()[0].segment.id().to_string()
}

/// Paths within the segment's folder.
fn files_of_first_segment(driver: &Driver<'_>) -> Vec<PathBuf> {
    let root = driver.dir().join("segments").join(first_segment(driver));
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is read") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path.strip_prefix(&root).expect("within the segment").to_path_buf()),
            }
        }
    }
    files.sort();
    files
}
