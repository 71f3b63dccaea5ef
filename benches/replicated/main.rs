//! What a write costs that three nodes keep: next to the disks' own limit, to a bare echo, and to a node that is alone.
//!
//! Knows the client side, from outside; nothing may know it. See `benches/README.md` for what is measured and how to run it.

mod disks;
mod indexing;
mod report;
mod writes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use sagitta_benches::cluster::{Cluster, connect};
use sagitta_benches::data::Data;
use sagitta_benches::process::Process;
use sagitta_env::Env;

use crate::disks::Disks;
use crate::report::{Column, Table};
use crate::writes::{Points, echoes, writes};

/// Measures writes that three nodes keep, against the disks' own limit
#[derive(Parser)]
struct Arguments {
    /// The folder of the real data; without it the repository's sample is used
    #[arg(long, env = "SAGITTA_DATA", default_value = "../shared/data")]
    data: PathBuf,
    /// Where the nodes' folders are made; it should be a real disk
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Rounds, each of which measures everything once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Writes per measurement and round
    #[arg(long, default_value_t = 2_000)]
    writes: usize,
    /// Writes under way at once, one table for each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    concurrency: Vec<usize>,
    /// Points of a write
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Measures instead what it costs to index so many points with one replica and with three
    #[arg(long)]
    index: Option<usize>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // One thread: the client's share of the machine should be small and the same for everyone.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let Arguments { rounds, writes: count, batch, .. } = *arguments;
    ensure!(rounds > 0 && count > 0 && batch > 0, "nothing to measure: see --help");
    let env = Env::real();
    let data = Data::find(&arguments.data)?;
    if let Some(count) = arguments.index {
        return index(&env, arguments, &data, count).await;
    }
    let points = Points::new(data.points()?, batch)?;
    let folder = tempfile::tempdir_in(&arguments.folder).context("cannot make a folder")?;
    let bytes = points.bytes()?;
    println!("{}: writes of {batch} points of {} dimensions, {bytes} bytes each", data.name(), data.dim());

    let alone = Process::server(&folder.path().join("alone"))?;
    let cluster = Cluster::start(&env, folder.path(), &["coordinator,shard"; 3]).await?;
    let echo = Process::echo()?;
    let (to_alone, to_cluster) = (connect(alone.endpoint())?, connect(cluster.endpoint())?);
    to_alone.create(points.collection(&data, 1)?).await?;
    to_cluster.create(points.collection(&data, 3)?).await?;
    cluster.lead_here(&env, &to_cluster).await?;

    for &concurrency in &arguments.concurrency {
        let mut table = Table::new(concurrency, rounds);
        for _ in 0..rounds {
            let disks = Disks::open(&disk_files(folder.path()))?;
            table.add(Column::Disks, disks.run(&env, concurrency, count, bytes)?);
            let calls = echoes(&env, &echo, concurrency, count, bytes).await?;
            table.add(Column::Echo, calls);
            let before = alone.cpu()?;
            table.add(Column::Alone, writes(&env, &to_alone, &points, concurrency, count).await?);
            table.book(Column::Alone, &[("the node", alone.cpu()?.since(&before))]);
            let before = cluster.cpu()?;
            table.add(Column::Cluster, writes(&env, &to_cluster, &points, concurrency, count).await?);
            let used = cluster.since(&before)?;
            let roles = ["the leader", "a follower", "a follower"];
            table.book(Column::Cluster, &roles.into_iter().zip(used).collect::<Vec<_>>());
        }
        table.print();
    }
    Ok(())
}

async fn index(env: &Env, arguments: &Arguments, data: &Data, count: usize) -> Result<()> {
    let folder = tempfile::tempdir_in(&arguments.folder).context("cannot make a folder")?;
    println!("{}: {count} points of {} dimensions are indexed", data.name(), data.dim());
    let mut costs = Vec::new();
    for replication in [1, 3] {
        let folder = folder.path().join(format!("replicas-{replication}"));
        let cost = indexing::measure(env, &folder, data, count, replication).await?;
        cost.print();
        costs.push(cost.a_point());
    }
    println!("\nthree replicas, of one: {:.2}", costs[1] / costs[0]);
    Ok(())
}

/// A file in the folder of each node: that is where its log is.
fn disk_files(folder: &Path) -> Arc<[PathBuf]> {
    (1..=3).map(|node| folder.join(format!("node-{node}")).join("limit")).collect()
}
