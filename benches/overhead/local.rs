//! The same index without a server: the shard opened in this process, searched by threads of its own.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use sagitta_engine::index::{BuildControl, Never};
use sagitta_engine_faiss::FaissEngine;
use sagitta_engine_rocksdb::{RocksBudget, RocksEngine};
use sagitta_env::Env;
use sagitta_model::{Hit, SearchQuery};
use sagitta_shard::{Engines, SearchContext, Shard, ShardOptions, ShardSpec};

use crate::cpu::{Reading, Usage};

/// The group of the threads that search.
const THREADS: &str = "in-process";

/// A shard and threads that search it.
pub(crate) struct Local {
    shard: Arc<Shard>,
    threads: Vec<Worker>,
}

struct Worker {
    tasks: Sender<Arc<[SearchQuery]>>,
    done: Receiver<Result<(), String>>,
}

impl Local {
    /// Opens a shard's folder and verifies its files, as a server does in the background.
    pub(crate) fn open(env: &Env, folder: &Path, spec: &ShardSpec) -> Result<Self> {
        let engines = Engines { kv: Arc::new(RocksEngine::new(RocksBudget::default())), index: Arc::new(FaissEngine) };
        let shard = Shard::open(folder, spec.clone(), engines, env.clone(), ShardOptions::default())?;
        while let Some(job) = shard.next_job() {
            job.run(&BuildControl { threads: 1, stop: &Never, progress: &|_| () })?;
        }
        let cores = std::thread::available_parallelism()?.get();
        let threads = (0..cores).map(|n| Worker::start(env, n, shard.clone())).collect::<Result<_>>()?;
        Ok(Self { shard, threads })
    }

    /// The hits of one search.
    pub(crate) fn search(&self, query: &SearchQuery) -> Result<Vec<Hit>> {
        Ok(search(&self.shard, query)?)
    }

    /// Runs the searches on up to `concurrency` threads, each a share of them; what it took.
    pub(crate) async fn run(&self, env: &Env, queries: &[SearchQuery], concurrency: usize) -> Result<Usage> {
        let threads = &self.threads[..concurrency.min(self.threads.len())];
        let before = reading(env).await?;
        for (worker, share) in threads.iter().zip(queries.chunks(queries.len().div_ceil(threads.len()))) {
            worker.tasks.send(share.into()).context("the thread has ended")?;
        }
        for worker in threads {
            if let Err(error) = worker.done.recv().context("the thread has ended")? {
                bail!("a search failed: {error}");
            }
        }
        Ok(reading(env).await?.since(&before).only(THREADS))
    }
}

async fn reading(env: &Env) -> Result<Reading> {
    env.sleep(crate::rounds::REST).await;
    Reading::of(std::process::id())
}

impl Worker {
    fn start(env: &Env, n: usize, shard: Arc<Shard>) -> Result<Self> {
        let (tasks, inbox) = bounded::<Arc<[SearchQuery]>>(1);
        let (outbox, done) = bounded(1);
        env.thread(&format!("{THREADS}-{n}"), move || {
            for queries in inbox {
                let result = queries.iter().try_for_each(|query| search(&shard, query).map(drop));
                if outbox.send(result.map_err(|error| error.to_string())).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { tasks, done })
    }
}

fn search(shard: &Shard, query: &SearchQuery) -> Result<Vec<Hit>, sagitta_shard::ShardError> {
    Ok(shard.view().search(query, &SearchContext { stop: &Never, explain: false })?.hits)
}
