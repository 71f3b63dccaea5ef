//! kill -9 of a process that writes: what is found afterwards is a prefix of its batches, in all families the same, and
//! at least what it had flushed. `SAGITTA_KILLS` sets how often.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use crate::common::{ALL, LARGE, META, Random, SMALL, count, engine, files, folder, open, this_test_as_child, value};
use sagitta_engine::kv::{KvRead, ScanRange, WriteBatch};

/// Folder in which the child writes.
const CHILD_DIR: &str = "SAGITTA_TEST_KILL_DIR";
/// Set in a child that makes a mistake on purpose.
const CHILD_BUG: &str = "SAGITTA_TEST_KILL_BUG";
/// The last this many rows exist at a time, so that deletes and compactions happen.
const LIVE_ROWS: u64 = 300;
/// Lines that the child may print before it is killed: one per batch, and two per flush, of which there is one every
/// hundred batches or so; in between RocksDB flushes by itself.
const MAX_LINES: u64 = 400;
const LAST: &[u8] = b"\xfflast";

#[test]
fn a_killed_writer_leaves_a_prefix_of_its_batches() {
    let kills = count("SAGITTA_KILLS", 25);
    let seed = count("SAGITTA_SEED", 1);
    println!("seed {seed}, {kills} kills");
    let mut random = Random(seed);
    let (_root, dir) = folder();
    let (mut written_total, mut lost_total, mut flush_interrupted) = (0, 0, 0);
    let mut before = 0;
    for kill in 0..kills {
        let ledger = run_and_kill(&dir, 1 + random.below(MAX_LINES), None, |_| false);
        flush_interrupted += u64::from(ledger.flushing);
        let found = check(&dir).unwrap_or_else(|what| panic!("seed {seed} kill {kill}: {what}"));
        let (low, high) = (ledger.flushed.max(before), ledger.written.max(before) + 1);
        assert!((low..=high).contains(&found), "seed {seed} kill {kill}: {found} is not in {low}..={high}");
        written_total += ledger.written.saturating_sub(before);
        lost_total += ledger.written.saturating_sub(found);
        before = found;
    }
    println!(
        "{kills} kills, {flush_interrupted} of them within a flush: {written_total} batches written, \
         {lost_total} unflushed ones lost, {} files left",
        files(&dir).len()
    );
    assert!(before > 0, "nothing was ever written: the test tests nothing");
}

#[test]
fn the_check_notices_families_that_are_written_apart() {
    for _ in 0..20 {
        let (_root, dir) = folder();
        run_and_kill(&dir, MAX_LINES, Some("apart"), |line| line.starts_with("half 1"));
        if let Err(what) = check(&dir) {
            println!("noticed: {what}");
            return;
        }
    }
    panic!("20 kills between two halves of a batch, and nothing was noticed");
}

/// What the child said before it died.
#[derive(Default)]
struct Ledger {
    written: u64,
    flushed: u64,
    flushing: bool,
}

/// Runs the child until it has said `lines` lines, or one that `stop` likes, and kills it.
fn run_and_kill(dir: &Path, lines: u64, bug: Option<&str>, stop: impl Fn(&str) -> bool) -> Ledger {
    let mut command = this_test_as_child("kill::child_that_writes_until_it_is_killed", CHILD_DIR, dir);
    if let Some(bug) = bug {
        command.env(CHILD_BUG, bug);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut heard: Vec<String> = Vec::new();
    for line in said.by_ref() {
        heard.push(line);
        if heard.len() as u64 >= lines || stop(&heard[heard.len() - 1]) {
            break;
        }
    }
    child.kill().unwrap();
    // What it had said by then.
    heard.extend(said);
    assert!(!child.wait().unwrap().success(), "the child ended by itself: {heard:?}");

    let mut ledger = Ledger::default();
    for line in &heard {
        match line.split_once(' ').and_then(|(what, number)| Some((what, number.parse::<u64>().ok()?))) {
            Some(("written", number)) => ledger.written = number,
            Some(("flushing", _)) => ledger.flushing = true,
            Some(("flushed", number)) => (ledger.flushed, ledger.flushing) = (number, false),
            _ => {}
        }
    }
    ledger
}

/// Opens the database and says which batch is the last, if it holds exactly the batches up to there.
fn check(dir: &Path) -> Result<u64, String> {
    let engine = engine();
    let kv = open(&engine, dir).map_err(|error| error.to_string())?;
    let last = ALL.map(|family| last(&*kv, family));
    let n = last[0];
    if last != [n; 3] {
        return Err(format!("the families end at {last:?}"));
    }
    for family in ALL {
        let mut next = n.saturating_sub(LIVE_ROWS) + 1;
        let mut wrong = None;
        kv.scan(family, &ScanRange::all(), &mut |key, found| {
            if key != LAST {
                if (key, found) != (&next.to_be_bytes()[..], &row(family, next)[..]) {
                    wrong = Some(next);
                }
                next += 1;
            }
            std::ops::ControlFlow::Continue(())
        })
        .map_err(|error| error.to_string())?;
        if wrong.is_some() || next != n + 1 {
            return Err(format!("{family:?} up to {n}: row {wrong:?} is wrong, {next} follows"));
        }
    }
    Ok(n)
}

fn last(kv: &dyn KvRead, family: sagitta_engine::kv::Family) -> u64 {
    let number = kv.get(family, LAST).unwrap();
    number.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
}

fn row(family: sagitta_engine::kv::Family, number: u64) -> Vec<u8> {
    let len = if family == LARGE { 1100 + number % 900 } else { number % 200 };
    value(number, len as usize)
}

/// Not a test of its own: the process that is killed.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let bug = std::env::var_os(CHILD_BUG).is_some();
    fs::create_dir_all(&dir).unwrap();
    let engine = engine();
    let kv = open(&engine, Path::new(&dir)).unwrap();
    let mut random = Random(u64::from(std::process::id()));
    let mut out = std::io::stdout().lock();
    let mut say = |what: &str, number: u64| {
        // The parent is gone: so are we.
        if writeln!(out, "{what} {number}").and_then(|()| out.flush()).is_err() {
            std::process::exit(1);
        }
    };
    say("", 0);
    let first = last(&*kv, META) + 1;
    for number in first.. {
        let half = |families: &[sagitta_engine::kv::Family]| {
            let mut batch = WriteBatch::new();
            for &family in families {
                batch.put(family, &number.to_be_bytes(), &row(family, number));
                let oldest = number.saturating_sub(LIVE_ROWS);
                match number % 2 {
                    0 => batch.delete(family, &oldest.to_be_bytes()),
                    _ => batch.delete_range(family, &[0; 8], &(oldest + 1).to_be_bytes()),
                }
                batch.put(family, LAST, &number.to_be_bytes());
            }
            kv.write(&batch).unwrap();
        };
        if bug {
            half(&[SMALL]);
            kv.flush().unwrap();
            say("half", number);
            half(&[LARGE, META]);
        } else {
            half(&ALL);
        }
        say("written", number);
        if random.below(100) == 0 {
            say("flushing", number);
            kv.flush().unwrap();
            say("flushed", number);
        }
    }
}
