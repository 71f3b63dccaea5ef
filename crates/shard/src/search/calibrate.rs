//! Measures, right after an index was built, which breadth gives which recall.
//!
//! The queries are made of the segment's rows, a scan of all rows tells the truth. A row itself is too easy a query: it lies
//! where rows lie, and a graph links it to its own neighbours. Real queries lie beside: so a row is moved a third of the way to
//! another one (`TOWARDS_ANOTHER`). With a
//! filter the same breadth finds less, and how much less depends on whether the filter has to do with the vectors: so it is
//! measured with rows that pass at random and with rows that pass because they are near to each other, and the worse of the
//! two counts.

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::index::{
    Candidate, FilterWalk, IndexError, IndexKind, PreparedQuery, RowSet, Rows, ScanParams, SearchParams, Stop,
    VectorIndex,
};

use sagitta_model::Metric;

use super::calibration::{Calibration, Curve, CurvePoint};
use super::cost::{index_ns, scan_ns};
use crate::ShardError;

/// Below this a segment is scanned in less time than an index could save.
const MIN_ROWS: usize = 1_000;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thoroughness {
    /// Comparisons that the truth may take for one share of passing rows.
    pub(super) truth_comparisons: usize,
    pub(super) min_queries: usize,
    pub(super) max_queries: usize,
    /// A scan that is faster than this is faster than any walk: with so few passing rows nothing is measured.
    pub(super) short_scan_ns: f64,
}

impl Thoroughness {
    const DEFAULT: Self = Self {
        // A second or two of a build that takes ten times as long.
        truth_comparisons: 20_000_000,
        // The recall at 10 of one query varies by about 0.07, that of the mean of 40 by 0.01.
        min_queries: 40,
        // More would not change what is chosen.
        max_queries: 200,
        short_scan_ns: 30_000.0,
    };
}

/// Numbers of results that are measured.
const KS: [usize; 2] = [10, 100];

/// Shares of rows that pass. Between them it is interpolated.
const SELECTIVITIES: [f64; 3] = [0.5, 0.1, 0.01];

/// Different sets of passing rows that are tried for each share.
const MASKS: usize = 4;

/// How far a query lies on the way from one row to another. Measured with 100,000 rows and 1,000 real queries each, on FAISS's
/// graphs (M = 16), recall at 10 with 32, 64 and 128 candidates kept: titles of passages against passages (384 dimensions)
/// 0.935, 0.970, 0.988, made queries 0.94, 0.967, 0.981, the rows themselves 0.989, 0.995, 0.997; descriptors of other pictures (128
/// dimensions) 0.957, 0.985, 0.997, made queries 0.933, 0.976, 0.992, the rows themselves 0.981, 0.993, 0.997. At three tenths of the way
/// the first set's queries are harder than those made, at four tenths both sets' are far easier.
const TOWARDS_ANOTHER: f32 = 1.0 / 3.0;

/// More is not asked for.
const ENOUGH_RECALL: f64 = 0.9995;

/// Breadths that are tried, as far as the recall still grows and a scan is not cheaper.
const BREADTHS: [usize; 22] =
    [1, 2, 4, 8, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192];

/// Fewer candidates than this a graph walk never keeps.
const MIN_GRAPH_BREADTH: usize = 12;

/// Measures an index over `rows`.
///
/// # Errors
/// [`ShardError::Stopped`], or what the index reports.
pub fn calibrate(index: &dyn VectorIndex, rows: &Rows<'_>, stop: &dyn Stop) -> Result<Calibration, ShardError> {
    calibrate_as(&Thoroughness::DEFAULT, index, rows, stop)
}

pub(super) fn calibrate_as(
    how: &Thoroughness,
    index: &dyn VectorIndex,
    rows: &Rows<'_>,
    stop: &dyn Stop,
) -> Result<Calibration, ShardError> {
    let shape = index.shape();
    if shape.kind == IndexKind::Flat || shape.rows < MIN_ROWS {
        return Ok(Calibration::default());
    }
    let bench = Bench::new(how, index, rows, stop)?;
    let mut curves = bench.unfiltered()?;
    for selectivity in SELECTIVITIES {
        if scan_ns(shape.kind, shape.dim, (shape.rows as f64 * selectivity) as usize) > how.short_scan_ns {
            curves.extend(bench.filtered(selectivity)?);
        }
    }
    curves.sort_by_key(|curve| curve.k);
    Ok(Calibration { curves })
}

struct Bench<'a> {
    index: &'a dyn VectorIndex,
    stop: &'a dyn Stop,
    queries: Vec<PreparedQuery>,
    /// Rows in order of their similarity to some row, each list the first half of all: their first part is a set of rows
    /// that are near to each other.
    neighbourhoods: Vec<Vec<u32>>,
}

/// Rows that pass, and the true answers among them.
struct Task {
    allow: Option<Bitmap>,
    /// Which query, and its nearest rows.
    truths: Vec<(usize, Vec<Candidate>)>,
}

impl<'a> Bench<'a> {
    fn new(
        how: &Thoroughness,
        index: &'a dyn VectorIndex,
        rows: &Rows<'_>,
        stop: &'a dyn Stop,
    ) -> Result<Self, ShardError> {
        let shape = index.shape();
        let count = (how.truth_comparisons / shape.rows).clamp(how.min_queries, how.max_queries);
        let mut dice = Dice(0x5a61_7474_6101);
        let mut queries = Vec::with_capacity(count);
        for _ in 0..count {
            let (row, other) = (rows.row(dice.below(shape.rows)), rows.row(dice.below(shape.rows)));
            queries.push(query_between(shape.metric, row, other)?);
        }
        let mut neighbourhoods = Vec::with_capacity(MASKS);
        for _ in 0..MASKS {
            let centre = PreparedQuery::new(shape.metric, rows.row(dice.below(shape.rows)))?;
            neighbourhoods.push(by_similarity(index, &centre, stop)?);
        }
        Ok(Self { index, stop, queries, neighbourhoods })
    }

    fn unfiltered(&self) -> Result<Vec<Curve>, ShardError> {
        let task = self.task(None, 0, 1)?;
        let measure = |k| self.curve(k, 1.0, FilterWalk::Auto, std::slice::from_ref(&task));
        KS.into_iter().map(measure).collect()
    }

    fn filtered(&self, selectivity: f64) -> Result<Vec<Curve>, ShardError> {
        let rows = self.index.shape().rows;
        let passing = ((rows as f64 * selectivity) as usize).max(1);
        let mut dice = Dice(passing as u64);
        let mut kinds: [Vec<Task>; 2] = [Vec::new(), Vec::new()];
        for (at, near) in self.neighbourhoods.iter().enumerate() {
            let mut random = Bitmap::new(rows);
            (0..rows as u32).filter(|_| dice.unit() < selectivity).for_each(|row| random.set(row));
            let near = Bitmap::from_rows(rows, &near[..passing.min(near.len())]);
            for (tasks, mask) in kinds.iter_mut().zip([random, near]) {
                tasks.push(self.task(Some(mask), at, MASKS)?);
            }
        }
        let walks: &[FilterWalk] = match self.index.shape().kind {
            IndexKind::Graph => &[FilterWalk::Plain, FilterWalk::TwoHop],
            IndexKind::Flat | IndexKind::Compact => &[FilterWalk::Auto],
        };
        let mut curves = Vec::new();
        for k in KS {
            for &walk in walks {
                let mut measured = Vec::with_capacity(kinds.len());
                for tasks in &kinds {
                    measured.push(self.curve(k, selectivity, walk, tasks)?);
                }
                curves.extend(measured.into_iter().reduce(worse_of));
            }
        }
        Ok(curves)
    }

    /// The true answers of every `of`th query, from the `first` on.
    fn task(&self, allow: Option<Bitmap>, first: usize, of: usize) -> Result<Task, ShardError> {
        let mut truths = Vec::new();
        for (at, query) in self.queries.iter().enumerate().skip(first).step_by(of) {
            let rows = allow.as_ref().map_or(RowSet::All, RowSet::Bitmap);
            let most = KS.into_iter().max().unwrap_or(0);
            let params = ScanParams { stop: self.stop, ..ScanParams::new(most, rows) };
            let mut nearest = Vec::new();
            self.index.search_rows(query, &params, &mut nearest)?;
            truths.push((at, nearest));
        }
        Ok(Task { allow, truths })
    }

    /// Recall by breadth, made monotone.
    fn curve(&self, k: usize, selectivity: f64, walk: FilterWalk, tasks: &[Task]) -> Result<Curve, ShardError> {
        let shape = self.index.shape();
        let passing = (shape.rows as f64 * selectivity) as usize;
        let least = if shape.kind == IndexKind::Graph { MIN_GRAPH_BREADTH.max(k) } else { 1 };
        let mut points: Vec<CurvePoint> = Vec::new();
        for breadth in BREADTHS.into_iter().filter(|breadth| *breadth >= least) {
            let point = self.point(k, breadth, walk, tasks)?;
            points.push(point);
            let costs = index_ns(shape.kind, shape.dim, point.distances, point.expanded, walk);
            if point.recall >= ENOUGH_RECALL || costs > scan_ns(shape.kind, shape.dim, passing) {
                break;
            }
        }
        // A wider search that seems to find less tells how far chance goes: no breadth is credited with more than wider ones reach.
        let mut reached = f64::INFINITY;
        for point in points.iter_mut().rev() {
            reached = reached.min(point.recall);
            point.recall = reached;
        }
        Ok(Curve { k, selectivity, walk, points })
    }

    fn point(&self, k: usize, breadth: usize, walk: FilterWalk, tasks: &[Task]) -> Result<CurvePoint, ShardError> {
        let (mut found, mut wanted, mut searches) = (0, 0, 0u64);
        let (mut distances, mut expanded) = (0, 0);
        let mut out = Vec::new();
        for task in tasks {
            for (at, truth) in &task.truths {
                let query = &self.queries[*at];
                let params = SearchParams {
                    breadth,
                    allow: task.allow.as_ref(),
                    filter_walk: walk,
                    stop: self.stop,
                    ..SearchParams::new(k)
                };
                let stats = self.index.search(query, &params, &mut out)?;
                let truth = &truth[..k.min(truth.len())];
                let Some(last) = truth.last() else { continue };
                // A row that ties with the last true one is as good.
                found += out.iter().take(truth.len()).filter(|hit| hit.similarity >= last.similarity).count();
                wanted += truth.len();
                searches += 1;
                distances += stats.distances;
                expanded += stats.expanded;
            }
        }
        let per_search = |sum: u64| sum as f64 / searches.max(1) as f64;
        let recall = if wanted == 0 { 1.0 } else { found as f64 / wanted as f64 };
        Ok(CurvePoint { breadth, recall, distances: per_search(distances), expanded: per_search(expanded) })
    }
}

/// A query that lies where queries do: near a row, but not where rows lie.
fn query_between(metric: Metric, row: &[f32], other: &[f32]) -> Result<PreparedQuery, IndexError> {
    let between: Vec<f32> = row.iter().zip(other).map(|(a, b)| a + (b - a) * TOWARDS_ANOTHER).collect();
    // Between rows that are opposite to each other there may be nothing that has a direction.
    PreparedQuery::new(metric, &between).or_else(|_| PreparedQuery::new(metric, row))
}

/// The lower recall of two curves, at the higher cost, as far as both are known: one that ended because its recall was
/// enough goes on at that.
fn worse_of(a: Curve, b: Curve) -> Curve {
    let mut points = Vec::new();
    let known = |curve: &Curve, at: usize| {
        let enough = |last: &&CurvePoint| last.recall >= ENOUGH_RECALL;
        curve.points.get(at).or_else(|| curve.points.last().filter(enough)).copied()
    };
    for at in 0..a.points.len().max(b.points.len()) {
        let (Some(a), Some(b)) = (known(&a, at), known(&b, at)) else { break };
        points.push(CurvePoint {
            breadth: a.breadth.max(b.breadth),
            recall: a.recall.min(b.recall),
            distances: a.distances.max(b.distances),
            expanded: a.expanded.max(b.expanded),
        });
    }
    Curve { points, ..a }
}

/// The nearer half of the rows, nearest first.
fn by_similarity(index: &dyn VectorIndex, query: &PreparedQuery, stop: &dyn Stop) -> Result<Vec<u32>, ShardError> {
    const BLOCK: usize = 4_096;
    let count = index.shape().rows as u32;
    let mut all = Vec::with_capacity(count as usize);
    let mut similarities = Vec::new();
    for start in (0..count).step_by(BLOCK) {
        if stop.should_stop() {
            return Err(ShardError::Stopped);
        }
        let rows: Vec<u32> = (start..count.min(start + BLOCK as u32)).collect();
        index.similarities(query, &rows, &mut similarities)?;
        all.extend(rows.into_iter().zip(&similarities).map(|(row, &similarity)| Candidate { row, similarity }));
    }
    all.sort_unstable_by(Candidate::compare);
    all.truncate(all.len().div_ceil(2));
    Ok(all.into_iter().map(|candidate| candidate.row).collect())
}

/// A small generator with a fixed seed: the same segment is calibrated the same way (splitmix64, Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
