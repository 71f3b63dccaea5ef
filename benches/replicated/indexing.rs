//! What building indexes costs: with one replica, and with three that share what one of them has built.

use std::path::Path;

use anyhow::Result;
use sagitta_benches::cluster::{BUILDERS, Cluster, connect};
use sagitta_benches::cpu::Usage;
use sagitta_benches::data::Data;
use sagitta_env::Env;

use crate::writes::{Points, writes};

/// Points of a write, and writes at once: enough to keep the builders busy.
const BATCH: usize = 100;
const CONCURRENCY: usize = 4;

/// CPU time in a cluster of three nodes from the first point until nothing was left to build.
pub(crate) struct Cost {
    replication: u32,
    points: u64,
    nodes: Vec<Usage>,
}

/// Writes so many points into a new cluster.
pub(crate) async fn measure(env: &Env, folder: &Path, data: &Data, count: usize, replication: u32) -> Result<Cost> {
    std::fs::create_dir(folder)?;
    let cluster = Cluster::start(env, folder, &["coordinator,shard"; 3]).await?;
    let client = connect(cluster.endpoint())?;
    let points = Points::new(data.points()?, BATCH)?;
    client.create(points.collection(data, replication)?).await?;
    let before = cluster.cpu()?;
    writes(env, &client, &points, CONCURRENCY, count.div_ceil(BATCH)).await?;
    cluster.wait_built(env).await?;
    Ok(Cost { replication, points: (count.div_ceil(BATCH) * BATCH) as u64, nodes: cluster.since(&before)? })
}

fn built(nodes: &[Usage]) -> u64 {
    nodes.iter().map(|usage| usage.clone().only(BUILDERS).total()).sum()
}

impl Cost {
    /// Microseconds of building for each point, on all nodes together.
    pub(crate) fn a_point(&self) -> f64 {
        built(&self.nodes) as f64 / 1e3 / self.points as f64
    }

    /// A line for each node.
    pub(crate) fn print(&self) {
        println!("\n{} replicas: {:.1} us of building a point on all nodes together", self.replication, self.a_point());
        for (node, usage) in (1..).zip(&self.nodes) {
            let total = usage.total() as f64 / 1e3 / self.points as f64;
            println!("  CPU us a point, node {node}: {total:.1} ({})", usage.split(self.points));
        }
    }
}
