//! The same index without a server: the shard opened in this process, searched by threads of its own.

use std::path::Path;
use std::sync::Arc;
use std::thread::{JoinHandle, available_parallelism, park};

use anyhow::{Context as _, Result, anyhow};
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use sagitta_engine::index::{BuildControl, Never};
use sagitta_engine_faiss::FaissEngine;
use sagitta_engine_rocksdb::{RocksBudget, RocksEngine};
use sagitta_env::Env;
use sagitta_model::{Hit, SearchQuery};
use sagitta_shard::{Engines, SearchContext, Shard, ShardOptions, ShardSpec};

use sagitta_benches::cpu::{Reading, Usage};

/// The group of the threads that search.
const THREADS: &str = "in-process";

/// When a thread begins its next search.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// As soon as it has ended one.
    Steady,
    /// When it is woken, as a server's thread is that waits for the next call.
    Rested,
}

/// A shard and threads that search it.
pub(crate) struct Local {
    shard: Arc<Shard>,
    threads: Vec<Worker>,
}

struct Worker {
    /// `None` once it is told to end.
    tasks: Option<Sender<Arc<[SearchQuery]>>>,
    done: Receiver<Result<(), String>>,
    /// `None` once it has ended.
    thread: Option<JoinHandle<()>>,
}

impl Local {
    /// Opens a shard's folder and verifies its files, as a server does in the background.
    pub(crate) fn open(env: &Env, folder: &Path, spec: &ShardSpec) -> Result<Self> {
        let engines = Engines { kv: Arc::new(RocksEngine::new(RocksBudget::default())), index: Arc::new(FaissEngine) };
        let shard = Shard::open(folder, spec.clone(), engines, env.clone(), ShardOptions::default())?;
        while let Some(job) = shard.next_job() {
            job.run(&BuildControl { threads: 1, stop: &Never, progress: &|_| () })?;
        }
        let cores = available_parallelism()?.get();
        let threads = (0..cores).map(|n| Worker::start(env, n, shard.clone())).collect::<Result<_>>()?;
        Ok(Self { shard, threads })
    }

    /// The hits of one search.
    pub(crate) fn search(&self, query: &SearchQuery) -> Result<Vec<Hit>> {
        Ok(search(&self.shard, query)?)
    }

    /// Runs the searches on up to `concurrency` threads; what it took. Each has its share at once, or sleeps before every search.
    pub(crate) async fn run(
        &self,
        env: &Env,
        queries: &[SearchQuery],
        concurrency: usize,
        pace: Pace,
    ) -> Result<Usage> {
        let threads = &self.threads[..concurrency.min(self.threads.len())];
        let share = match pace {
            Pace::Steady => queries.len().div_ceil(threads.len()),
            Pace::Rested => 1,
        };
        let before = reading(env).await?;
        for shares in queries.chunks(share * threads.len()) {
            let busy = || threads.iter().zip(shares.chunks(share));
            busy().try_for_each(|(worker, share)| worker.begin(share))?;
            busy().try_for_each(|(worker, _)| worker.end())?;
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
        let thread = env.thread(&format!("{THREADS}-{n}"), move || {
            loop {
                match inbox.try_recv() {
                    Ok(queries) => {
                        let result = queries.iter().try_for_each(|query| search(&shard, query).map(drop));
                        // Whoever no longer waits for it has dropped the tasks, too.
                        let _ = outbox.send(result.map_err(|error| error.to_string()));
                    }
                    // To wait for the channel would be to look at it for a while before sleeping, and that would count.
                    Err(TryRecvError::Empty) => park(),
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self { tasks: Some(tasks), done, thread: Some(thread) })
    }

    fn begin(&self, queries: &[SearchQuery]) -> Result<()> {
        self.tasks.as_ref().context("told to end")?.send(queries.into()).context("the thread has ended")?;
        self.wake();
        Ok(())
    }

    fn end(&self) -> Result<()> {
        let result = self.done.recv().context("the thread has ended")?;
        result.map_err(|error| anyhow!("a search failed: {error}"))
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Worker {
    /// Waits for the thread: the shard must be closed before the process takes its engines down.
    fn drop(&mut self) {
        self.tasks = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn search(shard: &Shard, query: &SearchQuery) -> Result<Vec<Hit>, sagitta_shard::ShardError> {
    Ok(shard.view().search(query, &SearchContext { stop: &Never, explain: false })?.hits)
}
