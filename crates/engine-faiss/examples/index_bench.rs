//! Measures every kind of index on real vectors: recall against time, unfiltered and filtered, plan by plan.
//!
//! ```text
//! SAGITTA_DATA=<folder> taskset -c 0 cargo run --release --example index_bench -- <set> <kind> [<folder to keep it in>]
//! ```
//! The set is `text384-100k` or `sift128-100k`, the kind `flat`, `graph` or `compact`. `BENCH_LINKS` and `BENCH_BREADTH`
//! change how a graph is built; `BENCH_PLAN=search BENCH_KNOBS=48,64` measures only that. Queries per second are of the
//! processor time of one thread, which a busy machine hardly spoils.
#![allow(clippy::disallowed_methods, reason = "a measurement reads the real clock")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::{
    BuildControl, Candidate, FilterWalk, IndexEngine, IndexError, IndexFile, IndexKind, IndexSpec, Never,
    PreparedQuery, RowSet, Rows, ScanParams, SearchParams, SearchStats, VectorIndex,
};
use sagitta_engine::mapped::SealedFile;
use sagitta_engine_faiss::FaissEngine;
use sagitta_model::Metric;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const K: usize = 10;
const BUILD_THREADS: usize = 2;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [set, kind, kept @ ..] = &arguments[..] else {
        return Err("usage: index_bench <set> <kind> [<folder>]".into());
    };
    let data =
        std::env::var("SAGITTA_DATA").map_err(|_| "SAGITTA_DATA names the folder of the vectors: it is not set")?;
    let set = Dataset::load(Path::new(&data), set)?;
    let kind = match kind.as_str() {
        "flat" => IndexKind::Flat,
        "graph" => IndexKind::Graph,
        "compact" => IndexKind::Compact,
        other => return Err(format!("{other} is not a kind of index").into()),
    };
    let folder = kept
        .first()
        .map_or_else(|| std::env::temp_dir().join(format!("index_bench-{}", std::process::id())), PathBuf::from);
    let index = open_or_build(&set, kind, &folder)?;
    let started = Instant::now();
    index.verify(&Never)?;
    println!("verified in {:.0} ms", started.elapsed().as_secs_f64() * 1e3);

    measure(&*index, &set, kind)?;
    if kept.is_empty() {
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

fn measure(index: &dyn VectorIndex, set: &Dataset, kind: IndexKind) -> Result<()> {
    let bench = Bench { index, queries: set.prepare()? };
    let knobs = match (std::env::var("BENCH_KNOBS"), kind) {
        (Ok(knobs), _) => knobs.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?,
        (Err(_), IndexKind::Flat) => vec![0],
        (Err(_), IndexKind::Graph) => vec![20, 24, 28, 32, 40, 48, 64, 96, 128, 192],
        (Err(_), IndexKind::Compact) => vec![4, 8, 16, 24, 32, 48, 64, 96],
    };
    println!("\nplan                     knob rerank  recall    q/s cpu  p99 us  compared expanded reranked");
    let truth = bench.thresholds(&set.truth)?;
    for &breadth in &knobs {
        for rerank in reranks(kind) {
            let params = SearchParams { breadth, rerank, ..SearchParams::new(K) };
            bench.row("search", breadth, rerank, &truth, |query, out| index.search(query, &params, out))?;
        }
    }
    for rerank in [10, 20, 40, 64, 100] {
        let params = ScanParams { rerank, ..ScanParams::new(K, RowSet::All) };
        bench.row("scan all", 0, rerank, &truth, |query, out| index.search_rows(query, &params, out))?;
    }
    bench.row("scan all, exact", 0, 0, &truth, |query, out| {
        index.search_rows(query, &ScanParams::exact(K, RowSet::All), out)
    })?;
    for filter in &set.filters {
        let allow = Bitmap::from_rows(index.shape().rows, &filter.rows);
        println!(
            "\n{}: {} rows pass, {:.2} %",
            filter.name,
            allow.count(),
            100.0 * allow.count() as f64 / allow.len() as f64
        );
        let truth = bench.thresholds(&filter.truth)?;
        for (name, rows) in [("scan list", RowSet::List(&filter.rows)), ("scan bitmap", RowSet::Bitmap(&allow))] {
            let params = ScanParams::new(K, rows);
            bench.row(name, 0, 0, &truth, |query, out| index.search_rows(query, &params, out))?;
        }
        bench.row("scan list, exact", 0, 0, &truth, |query, out| {
            index.search_rows(query, &ScanParams::exact(K, RowSet::List(&filter.rows)), out)
        })?;
        for (name, filter_walk) in
            [("plain", FilterWalk::Plain), ("two hops", FilterWalk::TwoHop), ("auto", FilterWalk::Auto)]
        {
            for &breadth in &knobs {
                let params = SearchParams { breadth, allow: Some(&allow), filter_walk, ..SearchParams::new(K) };
                bench.row(name, breadth, 0, &truth, |query, out| index.search(query, &params, out))?;
            }
        }
    }
    Ok(())
}

fn reranks(kind: IndexKind) -> impl Iterator<Item = usize> {
    let all: &[usize] = match kind {
        IndexKind::Flat => &[0],
        IndexKind::Graph => &[16, 20],
        IndexKind::Compact => &[30, 50, 100],
    };
    all.iter().copied()
}

fn open_or_build(set: &Dataset, kind: IndexKind, folder: &Path) -> Result<std::sync::Arc<dyn VectorIndex>> {
    if !folder.join("head").exists() {
        std::fs::create_dir_all(folder)?;
        let mut spec = IndexSpec::new(set.dim, set.metric, kind);
        let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
        spec.graph.links = number("BENCH_LINKS").unwrap_or(spec.graph.links);
        spec.graph.breadth = number("BENCH_BREADTH").unwrap_or(spec.graph.breadth);
        let control = BuildControl { threads: BUILD_THREADS, stop: &Never, progress: &|_| () };
        let started = Instant::now();
        FaissEngine.build(&spec, Rows::new(set.dim, &set.base)?, folder, &control)?;
        println!(
            "{kind:?} of {} x {} built in {:.1} s, {:.1} s of processor time, {:?}",
            set.base.len() / set.dim,
            set.dim,
            started.elapsed().as_secs_f64(),
            process_cpu_seconds(),
            spec.graph
        );
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let digest = SealedFile::open(&entry.path(), None)?.digest();
        println!(
            "  {:8} {:6.1} bytes per row",
            entry.file_name().display(),
            digest.bytes as f64 * set.dim as f64 / set.base.len() as f64
        );
        files.push(IndexFile { name: entry.file_name().to_string_lossy().into_owned(), digest });
    }
    Ok(FaissEngine.open(folder, &files)?)
}

struct Bench<'a> {
    index: &'a dyn VectorIndex,
    queries: Vec<PreparedQuery>,
}

impl Bench<'_> {
    /// The similarity of the K-th true neighbour of each query, and how many there are: what counts as a hit.
    fn thresholds(&self, truth: &[Vec<u32>]) -> Result<Vec<(f32, usize)>> {
        let mut scores = Vec::new();
        let mut thresholds = Vec::new();
        for (query, truth) in self.queries.iter().zip(truth) {
            self.index.similarities(query, truth, &mut scores)?;
            thresholds.push((scores.iter().copied().fold(f32::INFINITY, f32::min), truth.len()));
        }
        Ok(thresholds)
    }

    /// Runs every query, several times, and prints a row of the table: the fastest pass.
    fn row(
        &self,
        plan: &str,
        knob: usize,
        rerank: usize,
        truth: &[(f32, usize)],
        search: impl Fn(&PreparedQuery, &mut Vec<Candidate>) -> std::result::Result<SearchStats, IndexError>,
    ) -> Result<()> {
        const PASSES: usize = 5;
        if std::env::var("BENCH_PLAN").is_ok_and(|only| only != plan) {
            return Ok(());
        }
        let (mut hits, mut expected) = (0, 0);
        let mut total = SearchStats::default();
        let mut best = f64::INFINITY;
        let mut p99 = f64::INFINITY;
        let mut found = Vec::new();
        for pass in 0..PASSES {
            let mut times = Vec::new();
            let cpu = cpu_seconds();
            for (query, &(threshold, count)) in self.queries.iter().zip(truth) {
                let started = Instant::now();
                let stats = search(query, &mut found)?;
                times.push(started.elapsed().as_secs_f64());
                if pass == 0 {
                    hits += found.iter().filter(|candidate| candidate.similarity >= threshold).count().min(count);
                    expected += count;
                    total.distances += stats.distances;
                    total.expanded += stats.expanded;
                    total.reranked += stats.reranked;
                }
            }
            best = best.min(cpu_seconds() - cpu);
            times.sort_by(f64::total_cmp);
            p99 = p99.min(times[times.len() * 99 / 100]);
        }
        let queries = self.queries.len() as f64;
        println!(
            "{plan:24} {knob:4} {rerank:6}  {:.4} {:10.0} {:7.0} {:9.0} {:8.0} {:8.0}",
            f64::from(hits as u32) / f64::from(expected as u32),
            queries / best,
            p99 * 1e6,
            total.distances as f64 / queries,
            total.expanded as f64 / queries,
            total.reranked as f64 / queries,
        );
        Ok(())
    }
}

/// Processor time of the process so far, reading the vectors included (Linux keeps it in hundredths of a second).
fn process_cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    text.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Processor time of this thread so far (Linux keeps it in nanoseconds).
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).map_or(f64::NAN, |nanos| nanos / 1e9)
}

struct Dataset {
    dim: usize,
    metric: Metric,
    base: Vec<f32>,
    queries: Vec<f32>,
    truth: Vec<Vec<u32>>,
    filters: Vec<Filter>,
}

struct Filter {
    name: &'static str,
    rows: Vec<u32>,
    truth: Vec<Vec<u32>>,
}

impl Dataset {
    fn load(data: &Path, name: &str) -> Result<Dataset> {
        let npy = |suffix: &str| Npy::read(&data.join(format!("{name}.{suffix}.npy")));
        let truth = |suffix: &str| -> Result<Vec<Vec<u32>>> { Ok(npy(suffix)?.first_columns(K)) };
        let (metric, base, queries) = match name {
            "sift128-100k" => (Metric::L2, npy("base.u8")?, npy("query.u8")?),
            "text384-100k" => (Metric::InnerProduct, npy("base.f16")?, npy("query.f32")?),
            other => return Err(format!("{other} is not a known set").into()),
        };
        let mut filters = Vec::new();
        if name == "text384-100k" {
            let payloads = data.join(format!("{name}.payload.jsonl.gz"));
            let text = String::from_utf8(Command::new("gzip").arg("-dc").arg(payloads).output()?.stdout)?;
            let filter = |name, passes: &dyn Fn(&str) -> bool| -> Result<Filter> {
                let rows = text.lines().zip(0..).filter(|(line, _)| passes(line)).map(|(_, row)| row).collect();
                Ok(Filter { name, rows, truth: truth(&format!("gt.{name}.ids"))? })
            };
            filters.push(filter("filter1", &|line| line.contains(r#""source": "gnuplot-doc""#))?);
            filters.push(filter("filter10", &|line| line.contains(r#""source": "rust-docs""#))?);
            filters.push(filter("filter50", &|line| (43..=75).contains(&words(line)))?);
        }
        let truth = truth("gt.ids")?;
        Ok(Dataset { dim: base.columns, metric, base: base.values, queries: queries.values, truth, filters })
    }

    fn prepare(&self) -> Result<Vec<PreparedQuery>> {
        Ok(self
            .queries
            .chunks(self.dim)
            .map(|query| PreparedQuery::new(self.metric, query))
            .collect::<std::result::Result<_, _>>()?)
    }
}

/// The field `words` of a payload.
fn words(line: &str) -> u32 {
    let digits = line.split(r#""words": "#).nth(1).unwrap_or_default();
    digits.chars().map_while(|digit| digit.to_digit(10)).fold(0, |number, digit| number * 10 + digit)
}

/// A matrix in NumPy's format: a magic, a header in Python's syntax, the values row by row.
struct Npy {
    columns: usize,
    values: Vec<f32>,
}

impl Npy {
    fn read(path: &Path) -> Result<Npy> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let header_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let (header, data) = bytes[10..].split_at(header_len);
        let header = std::str::from_utf8(header)?;
        let shape = header.split('(').nth(1).and_then(|rest| rest.split(')').next()).ok_or("no shape")?;
        let columns = shape.split(',').nth(1).ok_or("not a matrix")?.trim().parse()?;
        let values = if header.contains("|u1") {
            data.iter().map(|&byte| f32::from(byte)).collect()
        } else if header.contains("<f2") {
            let table: Vec<f32> = (0..=u16::MAX).map(half_to_f32).collect();
            data.as_chunks().0.iter().map(|&half| table[usize::from(u16::from_le_bytes(half))]).collect()
        } else if header.contains("<f4") {
            data.as_chunks().0.iter().map(|&float| f32::from_le_bytes(float)).collect()
        } else if header.contains("<i4") {
            data.as_chunks().0.iter().map(|&number| i32::from_le_bytes(number) as f32).collect()
        } else {
            return Err(format!("{}: values of another type: {header}", path.display()).into());
        };
        Ok(Npy { columns, values })
    }

    fn first_columns(&self, count: usize) -> Vec<Vec<u32>> {
        // Ids are below 2^24, so that they came through f32 unchanged; -1 stands for none.
        let ids = |row: &[f32]| row[..count].iter().filter(|&&id| id >= 0.0).map(|&id| id as u32).collect();
        self.values.chunks(self.columns).map(ids).collect()
    }
}

fn half_to_f32(half: u16) -> f32 {
    let sign = if half >> 15 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(half >> 10 & 0x1f), f32::from(half & 0x3ff));
    let magnitude =
        if exponent == 0 { mantissa * 2f32.powi(-24) } else { (1024.0 + mantissa) * 2f32.powi(exponent - 25) };
    sign * magnitude
}
