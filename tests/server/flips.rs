//! One flipped bit in any file of a server that was stopped or killed: repaired or refused, never served.
//!
//! `SAGITTA_FLIPS` says how many bits are flipped in derived files, and how many in the others.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sagitta_client::{Client, Write};
use sagitta_env::Env;
use sagitta_model::{Change, IndexPolicy, Metric, PointId, Wait};

use crate::answered::Answers;
use crate::harness::{Log, Rng, Server, copy_folder, files_below, memory_folder, name, number, pause, point, schema};

/// Flips in derived files of an ordinary run, and in others: each kind of file once or twice.
const DERIVED_FLIPS: u64 = 9;
const TRUTH_FLIPS: u64 = 24;
/// Told: which jobs the build thread does, and what is damaged.
const LOG: &str = "error,sagitta_node=debug";
/// For conditions that come about by themselves: far longer than they take.
const PATIENCE: Duration = Duration::from_secs(120);
/// So many points have a graph, and a wide vector is a value of its own file.
const GRAPH: (&str, usize, u64) = ("graph", 16, 10_500);
const WIDE: (&str, usize, u64) = ("wide", 300, 400);

/// The folders of a server that was stopped and of one that was killed, and what both answered.
struct Specimen {
    temp: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    stopped: Answers,
    killed: Answers,
}

/// Which of the folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stopped,
    Killed,
}

/// What became of a flipped bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Found, served around, and mended.
    Repaired,
    /// The server did not start, and said which file is damaged.
    RefusedToStart,
    /// It started, and a read said that data is damaged, and where.
    RefusedToRead,
    /// Nothing depends on it.
    Harmless,
}

type Counts = BTreeMap<(String, Outcome), u64>;

#[test]
fn a_flipped_bit_in_a_derived_file_is_served_around_and_repaired() {
    let (seed, flips) = (number("SAGITTA_SEED", 1), number("SAGITTA_FLIPS", DERIVED_FLIPS));
    let specimen = Specimen::new();
    let mut kinds = BTreeMap::<_, Vec<_>>::new();
    for file in files_below(&specimen.folder(End::Stopped)).into_iter().filter(|file| is_derived(file)) {
        // As in `shards/2/segments/0/vectors-0/rows`: the collection and the name.
        let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
        kinds.entry(format!("shard {} {}", parts[1], parts[parts.len() - 1])).or_default().push(file.clone());
    }
    assert!(kinds.len() >= 11, "two kinds of segments have more files than {:?}", kinds.keys());
    let counts = flip_all(&specimen, seed, flips, &kinds, |specimen, end, at| specimen.derived_outcome(end, at));
    let repaired: u64 = counts.iter().filter(|((_, outcome), _)| *outcome == Outcome::Repaired).map(|(_, n)| n).sum();
    assert_eq!(repaired, flips, "every byte of a derived file is checked");
}

#[test]
fn a_flipped_bit_in_what_cannot_be_derived_is_refused_and_the_file_named() {
    let (seed, flips) = (number("SAGITTA_SEED", 1), number("SAGITTA_FLIPS", TRUTH_FLIPS));
    let specimen = Specimen::new();
    let mut kinds = BTreeMap::<_, Vec<_>>::new();
    for file in files_below(&specimen.folder(End::Stopped)).into_iter().filter(|file| !is_derived(file)) {
        // Such as the log that RocksDB keeps and we do not use.
        if fs::metadata(specimen.folder(End::Stopped).join(&file)).expect("a file").len() == 0 {
            continue;
        }
        kinds.entry(kind_of(&file)).or_default().push(file);
    }
    // What RocksDB tells about itself.
    kinds.remove("LOG");
    for wanted in ["sst", "blob", "MANIFEST", "CURRENT", "ENGINE", "raftlog", "synced.mark", "state.json"] {
        assert!(kinds.contains_key(wanted), "no {wanted} among {:?}", kinds.keys());
    }
    let counts = flip_all(&specimen, seed, flips, &kinds, |specimen, end, at| specimen.truth_outcome(end, at));
    let refused: u64 = counts.iter().filter(|((_, outcome), _)| *outcome != Outcome::Harmless).map(|(_, n)| n).sum();
    assert!(refused * 2 > flips, "most flips hit what is in use: {counts:?}");
    // Where every byte matters. (A blob may be that of a point that is gone.)
    for vital in ["MANIFEST", "CURRENT", "ENGINE", "state.json"] {
        assert_eq!(counts.get(&(vital.to_owned(), Outcome::Harmless)), None, "{vital}: a flip was not noticed");
    }
}

/// Flips bits, kind by kind; says and returns what became of them.
fn flip_all(
    specimen: &Specimen,
    seed: u64,
    flips: u64,
    kinds: &BTreeMap<String, Vec<PathBuf>>,
    outcome: impl Fn(&Specimen, End, &Flip) -> Outcome,
) -> Counts {
    println!("seed {seed}, {flips} flips in: {:?}", kinds.keys());
    let mut rng = Rng::new(seed);
    let mut counts = Counts::new();
    for (number, (kind, files)) in (0..flips).zip(kinds.iter().cycle()) {
        let end = if rng.below(2) == 0 { End::Stopped } else { End::Killed };
        let path = files[rng.below(files.len() as u64) as usize].clone();
        // What one end left may not be there after the other.
        let bytes = fs::read(specimen.folder(end).join(&path)).ok().filter(|bytes| !bytes.is_empty());
        let (end, bytes) = match bytes {
            Some(bytes) => (end, bytes),
            None => (End::Stopped, fs::read(specimen.folder(End::Stopped).join(&path)).expect("a file")),
        };
        assert!(!bytes.is_empty(), "{} is empty", path.display());
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1) as u64;
        // Now and then what is only there to be written to.
        let bound = if rng.below(8) == 0 { bytes.len() as u64 } else { used };
        // What only the killed server's log has is still to be applied.
        let before = fs::read(specimen.folder(End::Stopped).join(&path)).map_or(0, |bytes| bytes.len() as u64);
        let first = if kind == "raftlog" && end == End::Killed && before < bound { before } else { 0 };
        let flip = Flip { path, byte: (first + rng.below(bound - first)) as usize, bit: rng.below(8) as u8 };
        let became = outcome(specimen, end, &flip);
        println!("flip {number}: {end:?} {}: {became:?}", flip.at());
        *counts.entry((kind.clone(), became)).or_default() += 1;
    }
    for ((kind, outcome), count) in &counts {
        println!("{kind}: {count} {outcome:?}");
    }
    counts
}

struct Flip {
    path: PathBuf,
    byte: usize,
    bit: u8,
}

impl Flip {
    fn at(&self) -> String {
        format!("{} byte {} bit {}", self.path.display(), self.byte, self.bit)
    }

    fn inflict(&self, root: &Path) {
        let path = root.join(&self.path);
        let mut bytes = fs::read(&path).expect("a file");
        bytes[self.byte] ^= 1 << self.bit;
        fs::write(&path, bytes).expect("written");
    }
}

impl Specimen {
    fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let within = runtime.enter();
        let temp = memory_folder();
        let live = temp.path().join("live");
        let server = Server::start(&live);
        runtime.block_on(fill(&server.client()));
        assert!(server.terminate(), "a clean end");
        copy_folder(&live, &temp.path().join("Stopped"));
        let server = Server::start(&live);
        let stopped = runtime.block_on(answers(&server.client()));
        // Only in the log.
        runtime.block_on(change(&server.client(), 2));
        let killed = runtime.block_on(answers(&server.client()));
        server.kill();
        copy_folder(&live, &temp.path().join("Killed"));
        drop(within);
        Self { temp, runtime, stopped, killed }
    }

    fn folder(&self, end: End) -> PathBuf {
        self.temp.path().join(format!("{end:?}"))
    }

    fn answers(&self, end: End) -> &Answers {
        match end {
            End::Stopped => &self.stopped,
            End::Killed => &self.killed,
        }
    }

    fn damaged_copy(&self, end: End, flip: &Flip) -> PathBuf {
        let copy = self.temp.path().join("copy");
        let _ = fs::remove_dir_all(&copy);
        copy_folder(&self.folder(end), &copy);
        flip.inflict(&copy);
        copy
    }

    fn check(&self, end: End, server: &Server, at: &str) -> Result<(), sagitta_client::ClientError> {
        self.runtime.block_on(async { self.answers(end).check(&server.client(), at).await })
    }

    fn derived_outcome(&self, end: End, flip: &Flip) -> Outcome {
        let copy = self.damaged_copy(end, flip);
        let at = flip.at();
        let (server, log) = Server::try_start_logging(&copy, LOG).unwrap_or_else(|said| panic!("{at}: {said}"));
        self.check(end, &server, &at).unwrap_or_else(|error| panic!("{at}: {error}"));
        let segments = segments(&self.folder(end)).len();
        let repaired = await_condition(&at, &log, || match (damages(&log), quarantined(&copy)) {
            (0, _) if jobs_done(&log, "Verify") >= segments => Some(false),
            (1.., 1..) => Some(true),
            _ => None,
        });
        self.check(end, &server, &at).unwrap_or_else(|error| panic!("{at}: {error}"));
        if !repaired {
            return Outcome::Harmless;
        }
        // What was made anew is whole, and on disk.
        assert!(server.terminate(), "{at}: a clean end");
        let (server, log) = Server::try_start_logging(&copy, LOG).unwrap_or_else(|said| panic!("{at}: {said}"));
        await_condition(&at, &log, || (jobs_done(&log, "Verify") >= segments).then_some(()));
        assert_eq!(damages(&log), 0, "{at}: {:?}", log.lines());
        self.check(end, &server, &at).unwrap_or_else(|error| panic!("{at}: {error}"));
        Outcome::Repaired
    }

    fn truth_outcome(&self, end: End, flip: &Flip) -> Outcome {
        let copy = self.damaged_copy(end, flip);
        let at = flip.at();
        let (said, outcome) = match Server::try_start_logging(&copy, "error") {
            Err(said) => (said, Outcome::RefusedToStart),
            Ok((server, _log)) => match self.check(end, &server, &at) {
                Ok(()) => return Outcome::Harmless,
                Err(error) => (error.message, Outcome::RefusedToRead),
            },
        };
        assert!(!said.contains("panicked"), "{at}: {said}");
        // Of some damage RocksDB does not say in which file it is, or names the manifest: then the folder is what counts.
        let name = flip.path.file_name().expect("a name").to_string_lossy();
        let in_database = name.ends_with(".blob") || name.ends_with(".sst");
        let folder = flip.path.parent().expect("a folder").to_string_lossy();
        let place = if in_database { folder } else { name.clone() };
        // An identity that is another one but well formed is compared with that of the log and of the control state.
        let disagree =
            name == "sagitta.json" && (said.contains("belongs to cluster") || said.contains("was written by"));
        assert!(disagree || said.contains(&*place), "{at}: {place} is not named: {said}");
        outcome
    }
}

async fn answers(client: &Client) -> Answers {
    Answers::of(client, &[(GRAPH.0, GRAPH.1), (WIDE.0, WIDE.1)]).await
}

/// Makes both collections, with points in segments, dead rows in them, and points in memory.
async fn fill(client: &Client) {
    for ((collection, dim, points), policy) in [(GRAPH, IndexPolicy::Graph), (WIDE, IndexPolicy::Flat)] {
        let mut schema = schema(dim, Metric::L2);
        schema.vectors.get_mut("v").expect("a vector").index = policy;
        client.create_collection(name(collection), schema).await.expect("created");
        let mut rng = Rng::new(points);
        let all: Vec<_> = (0..points).map(|id| point(id, rng.vector(dim), 1)).collect();
        let mut parts = all.chunks(5_250).peekable();
        while let Some(part) = parts.next() {
            let wait = if parts.peek().is_some() { Wait::Committed } else { Wait::Indexed };
            let change = Change::Upsert(part.to_vec());
            let write = Write { collection: name(collection), change, wait, request_id: None };
            client.with_deadline(PATIENCE).write(write).await.expect("written");
        }
    }
    change(client, 1).await;
}

/// Overwrites some points, deletes some, adds some.
async fn change(client: &Client, turn: u64) {
    for (collection, dim, points) in [GRAPH, WIDE] {
        let mut rng = Rng::new(points + turn);
        let written = (0..30).map(|at| point(at * turn * 3 + points - 50, rng.vector(dim), turn as i64 + 1));
        client.upsert(name(collection), written.collect()).await.expect("written");
        let deleted = (0..10).map(|at| PointId::Num(turn * 100 + at)).collect();
        client.delete(name(collection), deleted).await.expect("deleted");
    }
}

fn is_derived(file: &Path) -> bool {
    file.iter().any(|part| part == "segments")
}

/// The suffix or the name, without the number.
fn kind_of(file: &Path) -> String {
    let name = file.file_name().expect("a name").to_string_lossy();
    match name.split_once(['.', '-']) {
        Some((number, suffix)) if number.bytes().all(|byte| byte.is_ascii_digit()) => suffix.to_owned(),
        Some((kind, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => kind.to_owned(),
        _ => name.into_owned(),
    }
}

fn segments(data: &Path) -> Vec<PathBuf> {
    files_below(data).into_iter().filter(|file| file.ends_with("segment.manifest") && is_derived(file)).collect()
}

/// Segments that were set aside.
fn quarantined(data: &Path) -> usize {
    let shards = fs::read_dir(data.join("shards")).expect("a folder");
    let folders = shards.map(|shard| shard.expect("an entry").path().join("quarantine"));
    folders.map(|folder| fs::read_dir(folder).expect("a folder").count()).sum()
}

fn damages(log: &Log) -> usize {
    log.lines().iter().filter(|line| line.contains("is damaged; ")).count()
}

fn jobs_done(log: &Log, kind: &str) -> usize {
    log.lines().iter().filter(|line| line.contains(": done ") && line.contains(kind)).count()
}

/// Waits until there is an answer.
fn await_condition<T>(at: &str, log: &Log, answer: impl Fn() -> Option<T>) -> T {
    let env = Env::real();
    let until = env.deadline(PATIENCE);
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(!until.has_passed(&env), "{at}: it does not come about: {:#?}", log.lines());
        pause();
    }
}
