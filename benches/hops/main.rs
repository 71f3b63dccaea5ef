//! What a query costs on its way through a cluster, in CPU time of whole processes: the coordinator that routes it, the nodes that search.
//!
//! Knows the client side, from outside; nothing may know it. See `benches/README.md` for what is measured and how to run it.

mod report;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use clap::Parser;
use sagitta_benches::cluster::{Cluster, connect};
use sagitta_benches::data::Data;
use sagitta_benches::process::Process;
use sagitta_benches::traffic::{Call, Traffic};
use sagitta_client::{Client, CreateCollection, Search, UploadOptions, View};
use sagitta_env::Env;
use sagitta_model::CollectionName;

use crate::report::{Cost, Table};

/// Three coordinators, of which the first one is asked, and three shard nodes.
const ROLES: [&str; 6] = ["coordinator", "coordinator", "coordinator", "shard", "shard", "shard"];
const COORDINATORS: usize = 3;
/// Each node holds every shard.
const REPLICAS: u32 = 3;
/// Hits that each search asks for.
const K: usize = 10;
/// Before the books are read: threads go to sleep, and the scheduler books what they used.
const REST: Duration = Duration::from_millis(20);
/// For so long the processes are watched while nobody asks them anything.
const IDLE: Duration = Duration::from_secs(1);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(100);

/// Measures what a query costs a coordinator and the shard nodes of a cluster, in CPU time
#[derive(Parser)]
struct Arguments {
    /// Rounds, each of which measures everything once
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Searches per measurement and round
    #[arg(long, default_value_t = 2_000)]
    searches: usize,
    /// Shards of a collection, one for each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 6])]
    shards: Vec<u32>,
    /// Calls under way at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8])]
    concurrency: Vec<usize>,
}

/// The searches of one collection, and echoes of the same sizes.
struct Calls {
    shards: u32,
    searches: Arc<[Call]>,
    echoes: Arc<[Call]>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // One thread: the client's share of the machine should be small and the same for everyone.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let Arguments { rounds, searches, .. } = *arguments;
    ensure!(rounds > 0 && searches > 0, "nothing to measure: see --help");
    let env = Env::real();
    let data = Data::sample()?;
    println!("{}: {} points of {} dimensions, k = {K}", data.name(), data.rows(), data.dim());

    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(&env, folder.path(), &ROLES).await?;
    let echo = Process::echo()?;
    let client = connect(cluster.endpoint())?;
    let to_cluster = Traffic::connect(&env, cluster.endpoint(), 1).await?;
    let to_echo = Traffic::connect(&env, echo.endpoint(), 1).await?;
    let mut all = Vec::new();
    for &shards in &arguments.shards {
        let collection = load(&env, &client, &data, shards).await?;
        all.push(Calls::prepare(&data, &collection, shards, searches, &to_cluster).await?);
    }

    let mut table = Table::default();
    for round in 0..=rounds {
        let before = cluster.cpu()?;
        env.sleep(IDLE).await;
        let idle = cost(&cluster.since(&before)?, IDLE.as_micros() as f64);
        for calls in &all {
            for &concurrency in &arguments.concurrency {
                let (before, began) = (cluster.cpu()?, env.now());
                to_cluster.run(&calls.searches, concurrency).await?;
                let took = env.now() - began;
                env.sleep(REST).await;
                let query = cost(&cluster.since(&before)?, searches as f64);
                let before = echo.cpu()?;
                to_echo.run(&calls.echoes, concurrency).await?;
                env.sleep(REST).await;
                let echo_us = echo.cpu()?.since(&before).total() as f64 / 1e3 / searches as f64;
                // What the processes do anyway while a query is under way.
                let wall_us = took.as_micros() as f64 / searches as f64;
                let at_rest_us = idle.coordinator_us * wall_us;
                // The first round only warms everything up.
                if round > 0 {
                    table.add((calls.shards, concurrency), Cost { echo_us, at_rest_us, ..query });
                }
            }
        }
    }
    table.print();
    Ok(())
}

/// Microseconds of CPU for each of so many units.
fn cost(used: &[sagitta_benches::cpu::Usage], units: f64) -> Cost {
    let us = |usage: &sagitta_benches::cpu::Usage| usage.total() as f64 / 1e3 / units;
    Cost { coordinator_us: us(&used[0]), nodes_us: used[COORDINATORS..].iter().map(us).sum(), ..Cost::default() }
}

/// Makes a collection and loads all points into it.
async fn load(env: &Env, client: &Client, data: &Data, shards: u32) -> Result<CollectionName> {
    let name: CollectionName = format!("bench-{shards}").parse()?;
    let schema = data.schema()?;
    let (shards, replication) = (Some(shards), Some(REPLICAS));
    client.create(CreateCollection { name: name.clone(), schema, shards, replication, request_id: None }).await?;
    let points = tokio_stream::iter(data.points()?);
    let mut upload = client.upload(name.clone(), points, UploadOptions::default());
    while let Some(ack) = upload.next().await {
        ack?.outcome?;
    }
    // Any replica is asked: each has to have all points.
    loop {
        let found = client.get_collection(name.clone(), View::Full).await?;
        if found.statistics.is_some_and(|statistics| statistics.points == data.rows()) {
            return Ok(name);
        }
        env.sleep(LOOK).await;
    }
}

impl Calls {
    /// So many searches and what their answers look like.
    async fn prepare(
        data: &Data,
        collection: &CollectionName,
        shards: u32,
        searches: usize,
        to: &Traffic,
    ) -> Result<Self> {
        let queries = data.queries().iter().cycle().take(searches);
        let calls = queries.map(|query| Call::search(collection.clone(), Search::nearest(query.clone(), K)));
        let calls: Vec<Call> = calls.collect::<Result<_>>()?;
        let answers = to.answers(&calls).await?;
        let echo = |(call, answer): (&Call, &Bytes)| call.echo(answer.len());
        let echoes = calls.iter().zip(&answers).map(echo).collect();
        Ok(Self { shards, searches: calls.into(), echoes })
    }
}
