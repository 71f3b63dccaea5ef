//! The measurement: rounds in which everything is measured once, each time in another order, and medians over them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use prost::Message as _;
use sagitta_client::{Search, SearchAnswer};
use sagitta_env::Env;
use sagitta_model::{PointId, SearchQuery, Selection};
use sagitta_wire::v1;

use crate::load::collection;
use crate::local::{Local, Pace};
use crate::{BATCH, K};
use sagitta_benches::cpu::Usage;
use sagitta_benches::data::Data;
use sagitta_benches::process::Process;
use sagitta_benches::traffic::{Call, Traffic};

/// Before the books are read: threads go to sleep, and the scheduler books what they used.
pub(crate) const REST: Duration = Duration::from_millis(20);

/// About what an answer takes.
const ANSWER_BYTES: usize = 135;

/// Everything that is measured.
pub(crate) struct Bench<'a> {
    pub(crate) env: &'a Env,
    pub(crate) local: &'a Local,
    pub(crate) server: (&'a Process, Traffic),
    pub(crate) echo: (&'a Process, Traffic),
    pub(crate) calls: Calls,
}

/// The same searches in all their forms.
pub(crate) struct Calls {
    queries: Vec<SearchQuery>,
    single: Arc<[Call]>,
    batch: Arc<[Call]>,
    single_echo: Arc<[Call]>,
    batch_echo: Arc<[Call]>,
    pub(crate) sizes: Sizes,
}

/// Mean bytes of encoded messages.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) single: (usize, usize),
    pub(crate) batch: (usize, usize),
}

/// What of it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The index in this process
    #[value(skip)]
    Local,
    /// The same, each search by a thread that slept before
    #[value(skip)]
    Rested,
    /// One search a call
    Single,
    /// A batch of searches a call
    Batch,
    /// The echo of single searches
    SingleEcho,
    /// The echo of batches
    BatchEcho,
}

/// Medians over the rounds. CPU times are microseconds.
pub(crate) struct Measured {
    pub(crate) concurrency: usize,
    pub(crate) sizes: Sizes,
    /// Per search.
    pub(crate) local_us: f64,
    pub(crate) rested_us: f64,
    pub(crate) single_us: f64,
    pub(crate) batch_us: f64,
    /// Per call.
    pub(crate) single_echo_us: f64,
    pub(crate) batch_echo_us: f64,
    /// What the server adds to a search, as a share of what a single echo costs: medians of the rounds' ratios.
    pub(crate) single_ratio: Spread,
    pub(crate) batch_ratio: Spread,
    /// Where the server's time went, over all rounds, per search.
    pub(crate) single_usage: Usage,
    pub(crate) batch_usage: Usage,
    pub(crate) searches: u64,
}

/// The middle and the quarters around it.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Calls {
    /// So many searches, checked: the server finds what the index finds in process. Also tells the recall.
    pub(crate) async fn prepare(data: &Data, local: &Local, server: &Traffic, searches: usize) -> Result<(Self, f64)> {
        let searches = searches / BATCH * BATCH;
        let searches: Vec<_> =
            data.queries().iter().cycle().take(searches).map(|q| Search::nearest(q.clone(), K)).collect();
        let collection = collection()?;
        let single: Vec<_> =
            searches.iter().cloned().map(|search| Call::search(collection.clone(), search)).collect::<Result<_>>()?;
        let batch: Vec<_> =
            searches.chunks(BATCH).map(|part| Call::batch(collection.clone(), part.to_vec())).collect::<Result<_>>()?;
        let queries: Vec<_> = searches.into_iter().map(|search| search.query).collect();

        let (singly, batched) = (server.answers(&single).await?, server.answers(&batch).await?);
        let recall = check(data, local, &queries, &singly, &batched)?;
        let echoes = |calls: &[Call], answers: &[Bytes]| -> Arc<[Call]> {
            calls.iter().zip(answers).map(|(call, answer)| call.echo(answer.len())).collect()
        };
        let calls = Self {
            sizes: Sizes { single: mean_sizes(&single, &singly), batch: mean_sizes(&batch, &batched) },
            single_echo: echoes(&single, &singly),
            batch_echo: echoes(&batch, &batched),
            single: single.into(),
            batch: batch.into(),
            queries,
        };
        Ok((calls, recall))
    }
}

/// Sends so many calls of a kind, and nothing else.
pub(crate) async fn traffic(folder: &Path, endpoint: &str, kind: Kind, calls: usize, concurrency: usize) -> Result<()> {
    let (data, collection) = (Data::find(folder)?, collection()?);
    let searches: Vec<_> = data.queries().iter().map(|query| Search::nearest(query.clone(), K)).collect();
    let single: Vec<_> =
        searches.iter().cloned().map(|search| Call::search(collection.clone(), search)).collect::<Result<_>>()?;
    let batch: Vec<_> = searches
        .chunks_exact(BATCH)
        .map(|part| Call::batch(collection.clone(), part.to_vec()))
        .collect::<Result<_>>()?;
    let some = match kind {
        Kind::Local | Kind::Rested | Kind::Single => single,
        Kind::Batch => batch,
        Kind::SingleEcho => single.iter().map(|call| call.echo(ANSWER_BYTES)).collect(),
        Kind::BatchEcho => batch.iter().map(|call| call.echo(BATCH * ANSWER_BYTES)).collect(),
    };
    let all: Arc<[Call]> = some.iter().cycle().take(calls).cloned().collect();
    Traffic::connect(&Env::real(), endpoint, 1).await?.run(&all, concurrency).await
}

fn mean_sizes(calls: &[Call], answers: &[Bytes]) -> (usize, usize) {
    let requests: usize = calls.iter().map(Call::request_bytes).sum();
    let answers: usize = answers.iter().map(Bytes::len).sum();
    (requests / calls.len(), answers / calls.len())
}

fn check(data: &Data, local: &Local, queries: &[SearchQuery], singly: &[Bytes], batched: &[Bytes]) -> Result<f64> {
    let none = vec![Selection::default(); BATCH];
    let mut results = Vec::new();
    for answer in batched {
        let answer = v1::SearchBatchResponse::decode(answer.clone())?;
        results.extend(SearchAnswer::from_batch(answer, &none).map_err(sagitta_wire::Failure::from)?.results);
    }
    let mut right = 0;
    for (at, (query, answer)) in queries.iter().zip(singly).enumerate() {
        let answer = v1::SearchResponse::decode(answer.clone())?;
        let answer = SearchAnswer::from_single(answer, &none[0]).map_err(sagitta_wire::Failure::from)?;
        let ids = |result: &sagitta_client::ScoredResult| result.hits.iter().map(|hit| hit.id).collect::<Vec<_>>();
        let found = ids(&answer.results[0]);
        let local: Vec<PointId> = local.search(query)?.iter().map(|hit| hit.id).collect();
        ensure!(found == local && ids(&results[at]) == local, "query {at}: the server finds other hits than its index");
        let truth: HashSet<_> = data.truth().right_answers(at % data.queries().len(), K);
        right += found.iter().filter(|id| truth.contains(id)).count();
    }
    Ok(right as f64 / (queries.len() * K) as f64)
}

impl Bench<'_> {
    /// Measures with so many calls under way at once.
    pub(crate) async fn run(&self, concurrency: usize, rounds: usize) -> Result<Measured> {
        let mut kinds = [Kind::Local, Kind::Rested, Kind::Single, Kind::SingleEcho, Kind::Batch, Kind::BatchEcho];
        for kind in kinds {
            self.measure(kind, concurrency).await?;
        }
        let mut times: [Vec<f64>; 6] = Default::default();
        let (mut single_usage, mut batch_usage) = (Usage::default(), Usage::default());
        for _ in 0..rounds {
            kinds.rotate_left(1);
            for kind in kinds {
                let usage = self.measure(kind, concurrency).await?;
                times[kind as usize].push(usage.total() as f64 / 1e3 / self.units(kind) as f64);
                match kind {
                    Kind::Single => single_usage.add(&usage),
                    Kind::Batch => batch_usage.add(&usage),
                    _ => {}
                }
            }
        }
        let of = |kind: Kind| &times[kind as usize];
        let ratio = |kind: Kind| {
            let added = of(kind).iter().zip(of(Kind::Local)).map(|(all, local)| all - local);
            Spread::of(added.zip(of(Kind::SingleEcho)).map(|(added, echo)| added / echo).collect())
        };
        let median = |kind: Kind| Spread::of(of(kind).clone()).median;
        Ok(Measured {
            concurrency,
            sizes: self.calls.sizes,
            local_us: median(Kind::Local),
            rested_us: median(Kind::Rested),
            single_us: median(Kind::Single),
            batch_us: median(Kind::Batch),
            single_echo_us: median(Kind::SingleEcho),
            batch_echo_us: median(Kind::BatchEcho),
            single_ratio: ratio(Kind::Single),
            batch_ratio: ratio(Kind::Batch),
            single_usage,
            batch_usage,
            searches: (rounds * self.calls.queries.len()) as u64,
        })
    }

    /// Searches of a measurement; for the echo, calls.
    fn units(&self, kind: Kind) -> usize {
        match kind {
            Kind::Local | Kind::Rested | Kind::Single | Kind::SingleEcho | Kind::Batch => self.calls.queries.len(),
            Kind::BatchEcho => self.calls.batch_echo.len(),
        }
    }

    async fn measure(&self, kind: Kind, concurrency: usize) -> Result<Usage> {
        let local = |pace| self.local.run(self.env, &self.calls.queries, concurrency, pace);
        let ((process, traffic), calls) = match kind {
            Kind::Local => return local(Pace::Steady).await,
            Kind::Rested => return local(Pace::Rested).await,
            Kind::Single => (&self.server, &self.calls.single),
            Kind::Batch => (&self.server, &self.calls.batch),
            Kind::SingleEcho => (&self.echo, &self.calls.single_echo),
            Kind::BatchEcho => (&self.echo, &self.calls.batch_echo),
        };
        self.env.sleep(REST).await;
        let before = process.cpu()?;
        traffic.run(calls, concurrency).await?;
        self.env.sleep(REST).await;
        Ok(process.cpu()?.since(&before))
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        Self { low: at(0.25), median: at(0.5), high: at(0.75) }
    }
}
