//! What searches and writes feel of a replica that moves from node to node.
//!
//! Knows the client side, from outside; nothing may know it. See `benches/README.md` for what is measured and how to run it.

mod load;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use sagitta_benches::cluster::{Cluster, connect};
use sagitta_benches::data::Data;
use sagitta_client::{Client, ListShards};
use sagitta_env::Env;
use sagitta_model::{OperationStep, Work};

use crate::load::{Felt, Kind, Load};

/// The first one routes and holds nothing; of the others three hold a replica each.
const ROLES: [&str; 5] = ["coordinator", "shard", "shard", "shard", "shard"];
const REPLICAS: u32 = 3;
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);

/// Measures what searches and writes feel of a replica that moves from node to node
#[derive(Parser)]
struct Arguments {
    /// The folder of the real data; without it the repository's sample is used
    #[arg(long, env = "SAGITTA_DATA", default_value = "../shared/data")]
    data: PathBuf,
    /// Where the nodes' folders are made; it should be a real disk
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Rounds, each of which measures everything once
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Searches, or writes, under way at once
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // One thread: the client's share of the machine should be small and the same for everyone.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let Arguments { rounds, concurrency, .. } = *arguments;
    ensure!(rounds > 0 && concurrency > 0, "nothing to measure: see --help");
    let env = Env::real();
    let data = Data::find(&arguments.data)?;
    let folder = tempfile::tempdir_in(&arguments.folder).context("cannot make a folder")?;
    println!("{}: {} points of {} dimensions, {REPLICAS} replicas", data.name(), data.rows(), data.dim());
    let cluster = Cluster::start(&env, folder.path(), &ROLES).await?;
    let client = connect(cluster.endpoint())?;
    let load = Load::new(&env, &client, &data, concurrency)?;
    load.fill(&data, REPLICAS).await?;
    cluster.wait_built(&env).await?;

    println!("{:<8}{:<10}{:>10}{:>12}{:>10}{:>10}", "", "", "seconds", "calls/s", "p50 us", "p99 us");
    for kind in [Kind::Search, Kind::Write] {
        let (mut p99, mut rate) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let moving = load.beside(kind, a_move(&env, &client)).await?;
            let quiet = load
                .beside(kind, async {
                    env.sleep(moving.wall).await;
                    Ok(())
                })
                .await?;
            for (name, felt) in [("quiet", &quiet), ("moving", &moving)] {
                println!("{kind:<8}{name:<10}{felt}");
            }
            p99.push(moving.percentile(0.99) / quiet.percentile(0.99));
            rate.push(moving.rate() / quiet.rate());
            if matches!(kind, Kind::Write) {
                // What was written is built, which is not what is measured.
                cluster.wait_built(&env).await?;
            }
        }
        println!("{kind}: p99 {} and rate {} times the quiet ones\n", Felt::spread(p99), Felt::spread(rate));
    }
    Ok(())
}

/// Moves one of the replicas to the node that has none, and waits until all of that is done.
async fn a_move(env: &Env, client: &Client) -> Result<()> {
    let shards = client.list_shards(ListShards::default(), 0, String::new()).await?.shards;
    let shard = shards.first().context("the collection has no shard")?;
    let nodes = client.list_nodes(ROLES.len(), String::new()).await?.nodes;
    let wanted = |node: u64| shard.replicas.iter().any(|replica| replica.node == node && replica.wanted);
    // Not the leader: the way of a write would be another one afterwards.
    let from = shard.replicas.iter().find(|replica| replica.wanted && Some(replica.node) != shard.leader);
    let from = from.context("the shard has no follower")?.node;
    let to = nodes.iter().find(|node| node.shard && !wanted(node.id)).context("every node has a replica")?.id;
    let moved = client.move_replica(shard.id, from, to, false).await?;
    let id = moved.operation.context("the move was not begun")?.id;
    loop {
        let Work::Replica { step, .. } = client.get_operation(id).await?.work else { bail!("the move became a split") };
        ensure!(step != OperationStep::Cancelled, "the move was cancelled");
        if step == OperationStep::Done {
            return Ok(());
        }
        env.sleep(LOOK).await;
    }
}
