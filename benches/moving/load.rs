//! Searches and writes, one after the other in a few lanes, for as long as something else takes.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::{join, try_join_all};
use sagitta_benches::data::Data;
use sagitta_client::{Client, CreateCollection, Search, Searches};
use sagitta_env::Env;
use sagitta_model::{CollectionName, Point, PointId};

/// Hits that each search asks for.
const K: usize = 10;
/// Points of a write.
const BATCH: usize = 50;

/// What is called.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Search,
    Write,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Search => "search",
            Self::Write => "write",
        })
    }
}

/// The calls of a collection.
pub(crate) struct Load {
    env: Env,
    client: Client,
    collection: CollectionName,
    concurrency: usize,
    queries: Vec<Vec<f32>>,
    points: Vec<Point>,
    next: Cell<usize>,
}

/// How long each call took, and all of them together.
pub(crate) struct Felt {
    took: Vec<Duration>,
    pub(crate) wall: Duration,
}

impl Load {
    pub(crate) fn new(env: &Env, client: &Client, data: &Data, concurrency: usize) -> Result<Self> {
        Ok(Self {
            env: env.clone(),
            client: client.clone(),
            collection: "bench".parse()?,
            concurrency,
            queries: data.queries().to_vec(),
            points: data.points()?,
            next: Cell::new(0),
        })
    }

    /// Makes the collection, of one shard, with all points.
    pub(crate) async fn fill(&self, data: &Data, replicas: u32) -> Result<()> {
        let (name, schema) = (self.collection.clone(), data.schema()?);
        let create = CreateCollection { name, schema, shards: Some(1), replication: Some(replicas), request_id: None };
        self.client.create(create).await?;
        for points in self.points.chunks(500) {
            self.client.upsert(self.collection.clone(), points.to_vec()).await?;
        }
        Ok(())
    }

    /// Calls for as long as `work` takes.
    pub(crate) async fn beside(&self, kind: Kind, work: impl Future<Output = Result<()>>) -> Result<Felt> {
        let (ended, took) = (Cell::new(false), RefCell::new(Vec::new()));
        let lane = async || {
            while !ended.get() {
                let next = self.next.replace(self.next.get() + 1);
                let from = self.env.now();
                match kind {
                    Kind::Search => self.search(next).await?,
                    Kind::Write => self.write(next).await?,
                }
                took.borrow_mut().push(self.env.now() - from);
            }
            anyhow::Ok(())
        };
        let began = self.env.now();
        let work = async {
            let worked = work.await;
            ended.set(true);
            worked
        };
        let (worked, called) = join(work, try_join_all((0..self.concurrency).map(|_| lane()))).await;
        worked?;
        called?;
        Ok(Felt { wall: self.env.now() - began, took: took.into_inner() })
    }

    async fn search(&self, number: usize) -> Result<()> {
        let search = Search::nearest(self.queries[number % self.queries.len()].clone(), K);
        self.client.search(Searches::one(self.collection.clone(), search)).await?;
        Ok(())
    }

    /// Writes points anew that are there already.
    async fn write(&self, number: usize) -> Result<()> {
        let first = number * BATCH;
        let point = |at: usize| {
            let id = PointId::Num((at % self.points.len()) as u64);
            Point { id, ..self.points[at * 7 % self.points.len()].clone() }
        };
        self.client.upsert(self.collection.clone(), (first..first + BATCH).map(point).collect()).await?;
        Ok(())
    }
}

impl Felt {
    /// Microseconds.
    pub(crate) fn percentile(&self, p: f64) -> f64 {
        let mut took = self.took.clone();
        took.sort_unstable();
        let at = ((took.len() as f64 * p) as usize).min(took.len().saturating_sub(1));
        took.get(at).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
    }

    /// Calls a second.
    pub(crate) fn rate(&self) -> f64 {
        self.took.len() as f64 / self.wall.as_secs_f64()
    }

    /// The median of some values, with the least and the greatest.
    pub(crate) fn spread(mut values: Vec<f64>) -> String {
        values.sort_unstable_by(f64::total_cmp);
        let at = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
        format!("{:.2} ({:.2} to {:.2})", at(values.len() / 2), at(0), at(values.len().saturating_sub(1)))
    }
}

impl fmt::Display for Felt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wall, rate, p50, p99) =
            (self.wall.as_secs_f64(), self.rate(), self.percentile(0.5), self.percentile(0.99));
        write!(f, "{wall:>10.1}{rate:>12.0}{p50:>10.0}{p99:>10.0}")
    }
}
