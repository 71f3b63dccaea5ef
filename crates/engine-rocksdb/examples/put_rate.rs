//! How fast points are written, read and overwritten, with vectors in blob files and without.
//!
//! `cargo run --release -p sagitta-engine-rocksdb --example put_rate [rows] [folder]`. Random vectors, unless
//! `SAGITTA_DATA` names a folder with `text384-100k.base.f16.npy`, whose rows are then used (and written as `f32`).

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sagitta_engine::kv::{Family, FamilySpec, Kv, KvEngine, KvError, KvHealth, KvOptions, ScanRange, WriteBatch};
use sagitta_engine_rocksdb::{RocksBudget, RocksEngine};
use sagitta_env::Env;

const DIMENSION: usize = 384;
const PAYLOAD_BYTES: usize = 200;
const BATCH_ROWS: usize = 100;
const READS: u64 = 20_000;
const FLUSHES: u64 = 50;
const POINTS: Family = Family::new(0);
const VECTORS: Family = Family::new(1);

fn main() -> Result<(), KvError> {
    let mut arguments = std::env::args().skip(1);
    let rows = arguments.next().map_or(100_000, |rows| rows.parse().expect("the number of rows"));
    let root = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let vectors = vectors();
    for (name, families) in [
        ("vectors in blob files", [FamilySpec::new("points"), FamilySpec::large("vectors")]),
        ("vectors in tables (LZ4)", [FamilySpec::new("points"), FamilySpec::new("vectors")]),
    ] {
        println!("\n== {name}: {rows} rows of {} + {PAYLOAD_BYTES} bytes, {}", DIMENSION * 4, vectors.name);
        measure(&root.join(format!("put_rate-{}", std::process::id())), &families, rows, &vectors)?;
    }
    Ok(())
}

fn measure(dir: &Path, families: &[FamilySpec], rows: u64, vectors: &Vectors) -> Result<(), KvError> {
    let env = Env::real();
    let engine = RocksEngine::new(RocksBudget::default());
    let kv = engine.open(dir, families, &KvOptions::default())?;
    let mut random = Random(1);
    let raw_bytes = rows * (DIMENSION as u64 * 4 + PAYLOAD_BYTES as u64 + 32);

    let before = Usage::now();
    let took = put(&*kv, &env, (0..rows).map(|row| (row, 0)), vectors)?;
    settle(&*kv, &env);
    before.report("put", raw_bytes);
    report(&kv.health(), raw_bytes);
    println!(
        "put, flush {:>9.0} rows/s, {:.0} MB/s",
        rows as f64 / took.as_secs_f64(),
        raw_bytes as f64 / took.as_secs_f64() / 1e6
    );

    let latencies = |name: &str, random: &mut Random, read: &mut dyn FnMut(&[u64]) -> Result<(), KvError>, keys| {
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..READS / keys {
            let ids: Vec<u64> = (0..keys).map(|_| random.below(rows)).collect();
            let begun = env.now();
            read(&ids)?;
            times.push(env.now() - begun);
        }
        times.sort_unstable();
        let at = |share: usize| times[times.len() * share / 1000].as_secs_f64() * 1e6;
        println!("{name:10} p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us", at(500), at(990), at(999));
        Ok::<_, KvError>(())
    };
    for name in ["get, cold", "get"] {
        latencies(name, &mut random, &mut |ids| kv.get(VECTORS, &key(ids[0])).map(drop), 1)?;
    }
    latencies("get payload", &mut random, &mut |ids| kv.get(POINTS, &key(ids[0])).map(drop), 1)?;
    latencies("multi_get 10", &mut random, &mut |ids| multi_get(&*kv, ids), 10)?;
    latencies(
        "snapshot",
        &mut random,
        &mut |_| {
            drop(kv.snapshot());
            Ok(())
        },
        1,
    )?;

    scan(&*kv, &env, rows)?;
    for round in 1..=3 {
        let ids: Vec<u64> = (0..rows).map(|_| random.below(rows)).collect();
        let before = Usage::now();
        let took = put(&*kv, &env, ids.into_iter().map(|row| (row, round)), vectors)?;
        let settled = settle(&*kv, &env);
        before.report(&format!("overwrite {round}"), raw_bytes);
        print!("overwrite {round} {:.0} rows/s, settled after {settled:.1?}: ", rows as f64 / took.as_secs_f64());
        report(&kv.health(), raw_bytes);
    }
    let mut flushes = Duration::ZERO;
    for row in 0..FLUSHES {
        flushes += put(&*kv, &env, [(row, 4)].into_iter(), vectors)?;
    }
    println!("a row and a flush {:.1?}", flushes / FLUSHES as u32);
    let begun = env.now();
    kv.purge(VECTORS)?;
    print!("purge in {:.1?}: ", env.now() - begun);
    report(&kv.health(), raw_bytes);

    drop(kv);
    reopen(&engine, &env, dir, families, rows)?;
    engine.destroy(dir)
}

fn reopen(engine: &RocksEngine, env: &Env, dir: &Path, families: &[FamilySpec], rows: u64) -> Result<(), KvError> {
    let begun = env.now();
    let kv = engine.open(dir, families, &KvOptions::default())?;
    kv.get(VECTORS, &key(rows / 2))?;
    println!("open and first read in {:.1?}", env.now() - begun);
    Ok(())
}

fn scan(kv: &dyn Kv, env: &Env, rows: u64) -> Result<(), KvError> {
    let begun = env.now();
    let mut bytes = 0;
    kv.scan(VECTORS, &ScanRange::all().bulk(), &mut |_, value| {
        bytes += value.len();
        ControlFlow::Continue(())
    })?;
    println!("scan       {:>9.0} rows/s", rows as f64 / (env.now() - begun).as_secs_f64());
    assert_eq!(bytes as u64, rows * DIMENSION as u64 * 4);
    Ok(())
}

/// Writes the rows and says how long that took, without the time for making them up.
fn put(kv: &dyn Kv, env: &Env, rows: impl Iterator<Item = (u64, u64)>, vectors: &Vectors) -> Result<Duration, KvError> {
    let (mut batch, mut took) = (WriteBatch::new(), Duration::ZERO);
    let mut write = |batch: &mut WriteBatch| {
        let begun = env.now();
        kv.write(batch)?;
        took += env.now() - begun;
        batch.clear();
        Ok(())
    };
    for (row, version) in rows {
        batch.put(POINTS, &key(row), &payload(row, version));
        batch.put(VECTORS, &key(row), &vectors.row(row.wrapping_add(version)));
        if batch.len() == 2 * BATCH_ROWS {
            write(&mut batch)?;
        }
    }
    write(&mut batch)?;
    let begun = env.now();
    kv.flush()?;
    Ok(took + (env.now() - begun))
}

fn multi_get(kv: &dyn Kv, ids: &[u64]) -> Result<(), KvError> {
    let keys: Vec<_> = ids.iter().map(|&id| key(id)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_slice()).collect();
    kv.multi_get(VECTORS, &keys, &mut |_, value| assert!(value.is_some()))
}

/// What the process has used so far, which other work on the machine does not change.
struct Usage {
    cpu: Duration,
    written_bytes: u64,
}

impl Usage {
    fn now() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        // User and system time in hundredths of a second: fields 14 and 15, after a name in parentheses.
        let stat = read("/proc/self/stat");
        let fields = stat.rsplit(')').next().unwrap_or_default().split(' ');
        let ticks = fields.skip(12).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        let io = read("/proc/self/io");
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        let written_bytes = written.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        Self { cpu: Duration::from_millis(ticks * 10), written_bytes }
    }

    /// With the time for making the rows up, which is the same for every engine.
    fn report(&self, what: &str, raw_bytes: u64) {
        let now = Self::now();
        println!(
            "{what}: {:.2} s of CPU, {:.2} bytes written to disk per byte put",
            (now.cpu - self.cpu).as_secs_f64(),
            (now.written_bytes - self.written_bytes) as f64 / raw_bytes as f64
        );
    }
}

/// Waits until compactions have nothing to do.
fn settle(kv: &dyn Kv, env: &Env) -> Duration {
    let begun = env.now();
    let (mut last, mut same) = (KvHealth::default(), 0);
    while same < 5 {
        std::thread::park_timeout(Duration::from_millis(100));
        let health = kv.health();
        same = if health == last { same + 1 } else { 0 };
        last = health;
    }
    env.now() - begun
}

fn report(health: &KvHealth, raw_bytes: u64) {
    let vectors = health.families[VECTORS.index()];
    println!(
        "{:.0} MB on disk ({:.2} of the raw rows); vectors: {:.0} MB tables, {:.0} MB blobs, {:.0} MB of them dead",
        health.disk_bytes() as f64 / 1e6,
        health.disk_bytes() as f64 / raw_bytes as f64,
        vectors.table_bytes as f64 / 1e6,
        vectors.blob_bytes as f64 / 1e6,
        vectors.blob_garbage_bytes as f64 / 1e6
    );
}

/// Ids come in no order.
fn key(row: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&Random(row).next().to_be_bytes());
    key[8..].copy_from_slice(&row.to_be_bytes());
    key
}

/// Half of it compressible, like JSON.
fn payload(row: u64, version: u64) -> Vec<u8> {
    let mut random = Random(row ^ version << 32);
    (0..PAYLOAD_BYTES).map(|i| if i % 2 == 0 { b'a' } else { random.next() as u8 }).collect()
}

struct Vectors {
    name: &'static str,
    /// Half-precision rows of a file, if there is one.
    halves: Option<Vec<u8>>,
}

impl Vectors {
    fn row(&self, row: u64) -> Vec<u8> {
        match &self.halves {
            Some(halves) => {
                let row_bytes = DIMENSION * 2;
                let start = (row as usize * row_bytes) % (halves.len() - row_bytes + 1) / row_bytes * row_bytes;
                let half = halves[start..start + row_bytes].chunks_exact(2);
                half.flat_map(|half| widened(u16::from_le_bytes([half[0], half[1]])).to_le_bytes()).collect()
            }
            None => {
                let mut random = Random(row);
                let mut uniform = || random.next() as f32 / u64::MAX as f32 - 0.5;
                (0..DIMENSION).flat_map(|_| ((uniform() + uniform() + uniform()) * 0.1).to_le_bytes()).collect()
            }
        }
    }
}

fn vectors() -> Vectors {
    let random = Vectors { name: "random vectors (set SAGITTA_DATA for real ones)", halves: None };
    let Some(folder) = std::env::var_os("SAGITTA_DATA") else {
        return random;
    };
    let file = Path::new(&folder).join("text384-100k.base.f16.npy");
    let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    // The header of an .npy file of version 1: magic, two bytes of version, two of length.
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    Vectors { name: "sentence embeddings", halves: Some(bytes[header..].to_vec()) }
}

/// IEEE 754 half to single precision, exactly (normal and subnormal values).
fn widened(half: u16) -> f32 {
    let sign = if half >> 15 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(half >> 10 & 31), f32::from(half & 1023));
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        _ => sign * (1024.0 + fraction) * 2f32.powi(exponent - 25),
    }
}

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
}
