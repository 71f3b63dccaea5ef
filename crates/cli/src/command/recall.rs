//! `sagitta recall`.

mod load;
mod statistics;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use sagitta_client::{ScoredPoint, Search, View};
use sagitta_model::{CollectionName, Effort, Filter, Metric, PointId, Schema, limits};
use serde_json::json;

use self::load::{Load, Outcome};
use self::statistics::{LatencyFigures, RecallFigures};
use crate::args::{self, EffortArgs, FilterArg};
use crate::data::{self, Format, GroundTruth, ReadOptions};
use crate::failure::{Exit, Failure};
use crate::filter::SYNTAX;
use crate::humane;
use crate::session::Session;

/// Queries read at most: a million 384-dimensional ones take 1.5 GB.
const MAX_QUERIES: usize = 1_000_000;

/// Measure recall, latency and throughput of searches.
#[derive(Args, Debug)]
#[command(after_help = after_help())]
pub struct Recall {
    /// The collection
    collection: CollectionName,

    /// File of query vectors (npy, fvecs, fbin, hdf5, jsonl, parquet …)
    #[arg(long, short, value_name = "FILE")]
    queries: PathBuf,

    /// Dataset of an HDF5 file of queries
    #[arg(long, value_name = "NAME", default_value = "test")]
    dataset: String,

    /// Key or column of the file of queries that holds the vectors
    #[arg(long, value_name = "COLUMN")]
    vector_column: Option<String>,

    /// File of the true neighbours' ids (ivecs, ibin, an npy of integers, hdf5). Without one, the truth is what exact
    /// searches on the server find; an hdf5 file of queries brings its own
    #[arg(long, short, value_name = "FILE")]
    ground_truth: Option<PathBuf>,

    /// File of the true neighbours' distances or scores: neighbours tied with the k-th then count as right, too
    #[arg(long, value_name = "FILE", requires = "ground_truth")]
    distances: Option<PathBuf>,

    /// Hits per query, at most 10,000
    #[arg(long, short = 'k', value_name = "N", default_value = "10", value_parser = args::positive)]
    k: usize,

    /// Use only the first N queries [default: all, up to a million]
    #[arg(long, value_name = "N", value_parser = args::positive)]
    limit: Option<usize>,

    #[command(flatten)]
    filter: FilterArg,

    #[command(flatten)]
    effort: EffortArgs,

    /// The vector to compare, where the collection has several
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    vector_name: String,

    /// Calls under way at any time, at most 4,096
    #[arg(long, short, value_name = "N", default_value = "1", value_parser = args::positive)]
    callers: usize,

    /// Connections that the callers are spread over, at most 1,024
    #[arg(long, value_name = "N", default_value = "1", value_parser = args::positive)]
    connections: usize,

    /// Searches per call, at most 1,024
    #[arg(long, value_name = "N", default_value = "1", value_parser = args::positive)]
    batch: usize,

    /// Run the queries this often; recall is of the last time, latency of all
    #[arg(long, value_name = "N", default_value = "1", value_parser = args::positive)]
    repeat: usize,

    /// Fail with exit code 1 if the mean recall is lower than this, such as 0.95
    #[arg(long, value_name = "SHARE", value_parser = args::share)]
    at_least: Option<f32>,
}

fn after_help() -> String {
    format!(
        "\
Examples:
  sagitta recall docs --queries queries.npy      # against exact searches
  sagitta recall docs --queries queries.npy --ground-truth gt.ids.npy
  sagitta recall photos --queries sift_query.bvecs \\
    --ground-truth sift_groundtruth.ivecs --distances sift_distances.fvecs
  sagitta recall glove --queries glove-100-angular.hdf5 --ef-search 128
  sagitta recall docs --queries queries.npy --filter 'source = \"rust-docs\"' \\
    --callers 8 --connections 2
  sagitta recall docs --queries queries.npy --at-least 0.95 --output json

Recall@k of a query is the share of its k true nearest neighbours that the search found; the ids of a ground truth \
must be those of the collection, and with --filter it must be of the points that pass. The worst decile is the mean \
over the tenth of the queries that did worst. Latency is that of a call as this program sees it, the network included.

{SYNTAX}"
    )
}

/// Which ids are right for each query.
struct Truth {
    right: Vec<Right>,
    source: String,
}

/// The right answers of one query.
struct Right {
    ids: HashSet<PointId>,
    /// With exact searches as the truth: the score of the last one, with which others may tie.
    last_score: Option<f32>,
    /// The number of hits that there are to find.
    count: usize,
}

impl Recall {
    /// Measures and reports.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        let filter = self.filter.parse()?;
        self.check_arguments()?;
        let info = session.collection(&self.collection, View::Full).await?;
        let metric = self.metric(&info.schema)?;
        let queries = self.read_queries(&info.schema)?;
        let load = self.load(session)?;
        let failed = |error| session.failed(error);
        let truth = match self.truth_file()? {
            Some(path) => self.truth_of_file(&path, queries.len())?,
            None => {
                let exact = self.searches(&queries, filter.as_ref(), Effort::Exact);
                let found = Load { callers: self.callers.max(2), batch: 1, ..load.clone() }.run(exact).await;
                truth_of_exact(found.map_err(failed)?)
            }
        };
        let mut outcome: Option<Outcome> = None;
        for _ in 0..self.repeat {
            let searches = self.searches(&queries, filter.as_ref(), self.effort.effort());
            let mut again = load.run(searches).await.map_err(failed)?;
            if let Some(before) = outcome {
                again.latencies.extend(before.latencies);
                again.took += before.took;
            }
            outcome = Some(again);
        }
        let outcome = outcome.expect("invariant: --repeat is at least 1");
        let recalls = outcome.hits.iter().zip(&truth.right).map(|(hits, right)| recall(hits, right, metric)).collect();
        let figures = Figures {
            recall: RecallFigures::of(recalls),
            queries: queries.len(),
            searches_per_second: (queries.len() * self.repeat) as f64 / outcome.took.as_secs_f64().max(1e-9),
            latency: LatencyFigures::of(outcome.latencies),
        };
        self.report(session, &figures, &truth)
    }

    fn check_arguments(&self) -> Result<(), Failure> {
        for (name, value, most) in [
            ("-k", self.k, limits::MAX_K),
            ("--batch", self.batch, limits::MAX_BATCH_SEARCHES),
            ("--callers", self.callers, 4096),
            ("--connections", self.connections, 1024),
        ] {
            if value > most {
                return Err(Failure::usage(format!(
                    "{name} {value}: expected at most {}",
                    humane::grouped(most as u64)
                )));
            }
        }
        Ok(())
    }

    fn metric(&self, schema: &Schema) -> Result<Metric, Failure> {
        let found = schema.vector(&self.vector_name);
        found.map(|(_, spec)| spec.metric).map_err(|v| Failure::usage(format!("--vector-name: {}", v.reason)))
    }

    fn read_queries(&self, schema: &Schema) -> Result<Vec<Vec<f32>>, Failure> {
        let columns = self.vector_column.iter().map(|column| (self.vector_name.clone(), column.clone()));
        let options = ReadOptions {
            dataset: self.dataset.clone(),
            vector_name: self.vector_name.clone(),
            vector_columns: columns.collect(),
            id_column: None,
            ..ReadOptions::default()
        };
        let mut reader = data::open(&self.queries, &options)?;
        let rows = reader.read(self.limit.unwrap_or(MAX_QUERIES).min(MAX_QUERIES))?;
        let only = |mut row: data::Row| {
            row.vectors.remove(&self.vector_name).or_else(|| row.vectors.pop_first().map(|(_, v)| v))
        };
        let queries: Vec<_> = rows.into_iter().filter_map(only).collect();
        let Ok((_, spec)) = schema.vector(&self.vector_name) else { return Ok(queries) };
        match queries.first() {
            None => Err(Failure::new(Exit::Data, format!("{}: there are no queries", self.queries.display()))),
            Some(query) if query.len() != spec.dim => {
                let (path, found) = (self.queries.display(), query.len());
                let message =
                    format!("{path}: queries have {found} dimensions, `{}` expects {}", self.collection, spec.dim);
                Err(Failure::new(Exit::Data, message).hint("is it the right file?"))
            }
            Some(_) => Ok(queries),
        }
    }

    fn load(&self, session: &Session) -> Result<Load, Failure> {
        let clients = (0..self.connections).map(|_| session.another_client()).collect::<Result<_, _>>()?;
        Ok(Load {
            env: session.env.clone(),
            collection: self.collection.clone(),
            clients,
            callers: self.callers,
            batch: self.batch,
        })
    }

    fn searches(&self, queries: &[Vec<f32>], filter: Option<&Arc<Filter>>, effort: Effort) -> Vec<Search> {
        let search = |vector: &Vec<f32>| {
            let mut search = Search::nearest(vector.clone(), self.k);
            search.query.vector_name.clone_from(&self.vector_name);
            search.query.filter = filter.cloned();
            search.query.effort = effort;
            search
        };
        queries.iter().map(search).collect()
    }

    /// The file of ground truth; an ann-benchmarks file of queries is its own, unless a filter makes another truth.
    fn truth_file(&self) -> Result<Option<PathBuf>, Failure> {
        if self.ground_truth.is_some() || self.filter.filter.is_some() {
            return Ok(self.ground_truth.clone());
        }
        let own = Format::detect(&self.queries)? == Format::Hdf5 && self.dataset == "test";
        Ok(own.then(|| self.queries.clone()))
    }

    fn truth_of_file(&self, path: &Path, queries: usize) -> Result<Truth, Failure> {
        let truth = GroundTruth::read(path, self.distances.as_deref())?;
        let refuse = |message: String, hint: &str| {
            Err(Failure::new(Exit::Data, format!("{}: {message}", path.display())).hint(hint))
        };
        if truth.queries() < queries {
            let found = humane::grouped(truth.queries() as u64);
            let expected = humane::grouped(queries as u64);
            return refuse(
                format!("neighbours of {found} queries, expected {expected}"),
                "use only the first queries with --limit",
            );
        }
        if truth.depth() < self.k {
            return refuse(
                format!("{} neighbours per query, expected {}", truth.depth(), self.k),
                "ask for fewer with -k",
            );
        }
        let right = |query| Right { ids: truth.right_answers(query, self.k), last_score: None, count: self.k };
        let right = (0..queries).map(right).collect();
        Ok(Truth { right, source: path.display().to_string() })
    }

    fn report(&self, session: &Session, figures: &Figures, truth: &Truth) -> Result<(), Failure> {
        let Figures { recall, latency, .. } = figures;
        let millis = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
        let document = json!({
            "collection": self.collection.to_string(),
            "k": self.k,
            "queries": figures.queries,
            "effort": self.effort.describe(),
            "truth": truth.source,
            "recall": {
                "mean": recall.mean,
                "worst_decile": recall.worst_decile,
                "minimum": recall.minimum,
                "perfect": recall.perfect,
            },
            "latency_ms": {
                "mean": millis(latency.mean),
                "p50": millis(latency.p50),
                "p90": millis(latency.p90),
                "p99": millis(latency.p99),
                "max": millis(latency.maximum),
            },
            "searches_per_second": figures.searches_per_second,
            "callers": self.callers,
            "connections": self.connections,
            "batch": self.batch,
        });
        session.output.write(&document, |out, _| self.people(figures, truth, out))?;
        match self.at_least {
            Some(wanted) if recall.mean < f64::from(wanted) => {
                Err(Failure::new(Exit::Failed, format!("recall@{} is {:.4}, below {wanted}", self.k, recall.mean)))
            }
            _ => Ok(()),
        }
    }

    fn people(&self, figures: &Figures, truth: &Truth, out: &mut dyn io::Write) -> io::Result<()> {
        let Figures { recall, latency, .. } = figures;
        let time = humane::duration;
        let (k, effort) = (self.k, self.effort.describe());
        writeln!(
            out,
            "{} of {}, {effort}",
            humane::count(figures.queries as u64, "query").replace("querys", "queries"),
            self.collection
        )?;
        writeln!(out, "truth: {}", truth.source)?;
        writeln!(
            out,
            "recall@{k:<5}  mean {:.4}   worst decile {:.4}   minimum {:.2}   perfect {:.1} %",
            recall.mean,
            recall.worst_decile,
            recall.minimum,
            100.0 * recall.perfect
        )?;
        writeln!(
            out,
            "latency       p50 {}   p90 {}   p99 {}   max {}   mean {}",
            time(latency.p50),
            time(latency.p90),
            time(latency.p99),
            time(latency.maximum),
            time(latency.mean)
        )?;
        let callers = humane::count(self.callers as u64, "caller");
        let connections = humane::count(self.connections as u64, "connection");
        let rate = humane::number(figures.searches_per_second);
        let batch = if self.batch > 1 { format!(", {} searches per call", self.batch) } else { String::new() };
        writeln!(out, "throughput    {rate} searches/s ({callers}, {connections}{batch})")
    }
}

/// What was measured.
struct Figures {
    recall: RecallFigures,
    latency: LatencyFigures,
    queries: usize,
    searches_per_second: f64,
}

/// The truth that exact searches found.
fn truth_of_exact(outcome: Outcome) -> Truth {
    let right = |hits: Vec<ScoredPoint>| Right {
        count: hits.len(),
        last_score: hits.last().map(|hit| hit.score),
        ids: hits.into_iter().map(|hit| hit.id).collect(),
    };
    Truth { right: outcome.hits.into_iter().map(right).collect(), source: "exact searches on the server".to_owned() }
}

/// The share of what there is to find that was found. A query without true neighbours is answered right by nothing.
fn recall(hits: &[ScoredPoint], right: &Right, metric: Metric) -> f64 {
    if right.count == 0 {
        return 1.0;
    }
    let ties = |hit: &ScoredPoint| {
        right.last_score.is_some_and(|last| metric.similarity(hit.score) >= metric.similarity(last))
    };
    let found = hits.iter().filter(|hit| right.ids.contains(&hit.id) || ties(hit)).count();
    found.min(right.count) as f64 / right.count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(id: u64, score: f32) -> ScoredPoint {
        ScoredPoint { id: PointId::Num(id), score, record: None }
    }

    fn right(ids: &[u64], last_score: Option<f32>, count: usize) -> Right {
        Right { ids: ids.iter().copied().map(PointId::Num).collect(), last_score, count }
    }

    #[test]
    fn recall_is_the_share_of_the_true_neighbours_found() {
        let hits = [hit(1, 0.9), hit(2, 0.8), hit(3, 0.7)];
        assert_eq!(recall(&hits, &right(&[1, 2, 4], None, 3), Metric::Cosine), 2.0 / 3.0);
        assert_eq!(recall(&hits, &right(&[1, 2, 4], Some(0.7), 3), Metric::Cosine), 1.0);
        assert_eq!(recall(&hits, &right(&[1, 2, 4], Some(0.75), 3), Metric::Cosine), 2.0 / 3.0);
        // Under L2 a smaller score is nearer.
        assert_eq!(recall(&hits, &right(&[1, 2, 4], Some(0.7), 3), Metric::L2), 1.0);
        assert_eq!(recall(&hits, &right(&[9], Some(0.65), 3), Metric::L2), 0.0);
        // More true neighbours than asked for (ties) do not make recall exceed one.
        assert_eq!(recall(&hits, &right(&[1, 2, 3, 4], None, 2), Metric::Cosine), 1.0);
    }

    #[test]
    fn nothing_to_find_is_found() {
        assert_eq!(recall(&[], &right(&[], None, 0), Metric::L2), 1.0);
        assert_eq!(recall(&[], &right(&[1], None, 10), Metric::L2), 0.0);
    }

    #[test]
    fn exact_hits_become_the_truth() {
        let outcome = Outcome {
            hits: vec![vec![hit(3, 0.5), hit(4, 0.25)], vec![]],
            latencies: Vec::new(),
            took: std::time::Duration::ZERO,
        };
        let truth = truth_of_exact(outcome);
        assert_eq!((truth.right[0].count, truth.right[0].last_score, truth.right[1].count), (2, Some(0.25), 0));
    }
}
