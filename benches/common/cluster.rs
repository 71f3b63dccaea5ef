//! A cluster of real processes on this machine.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sagitta_client::{Client, ClientConfig, ListShards};
use sagitta_env::Env;

use crate::cpu::{Reading, Usage};
use crate::process::{Process, Starting, sagittad};

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);

/// The threads that build; those that FAISS starts are called after the one that started them.
pub const BUILDERS: &str = "build";
/// When no builder has worked for so long, small segments have been merged and nobody waits for a segment of another any more.
const QUIET: Duration = Duration::from_secs(75);
/// Builders look for work twice a second, which is no work.
const IDLE_SHARE: f64 = 0.002;

/// A running cluster.
pub struct Cluster {
    nodes: Vec<Process>,
}

/// A client of one process.
pub fn connect(endpoint: &str) -> Result<Client> {
    Ok(Client::connect(ClientConfig::new(endpoint))?)
}

impl Cluster {
    /// Founds a cluster in folders of its own, with a node for each of the roles (as `--roles` takes them), and waits until all are in.
    /// The first one is a coordinator; requests go to it.
    pub async fn start(env: &Env, folder: &Path, roles: &[&str]) -> Result<Self> {
        let addresses = addresses(roles.len())?;
        let founder = Starting::new(serve(folder, 1, roles[0], &addresses)?)?;
        let client = connect(&addresses[0].0)?;
        let token = loop {
            match client.init_cluster().await {
                Ok(founded) => break founded.join_token,
                // It does not listen yet.
                Err(_) => env.sleep(LOOK).await,
            }
        };
        let mut nodes = vec![founder.ready()?];
        for (node, roles) in (2..).zip(&roles[1..]) {
            let mut command = serve(folder, node, roles, &addresses)?;
            let founder = format!("http://{}", addresses[0].1);
            command.args(["--join", &founder]).env("SAGITTA_JOIN_TOKEN", &token);
            nodes.push(Starting::new(command)?.ready()?);
        }
        let coordinators = roles.iter().filter(|roles| roles.contains("coordinator")).count();
        while client.get_cluster().await?.voters.len() < coordinators {
            env.sleep(LOOK).await;
        }
        Ok(Self { nodes })
    }

    /// The node that requests are sent to.
    pub fn endpoint(&self) -> &str {
        self.nodes[0].endpoint()
    }

    /// Has the node that requests are sent to lead the only shard, so that what is measured is replication and no detour.
    pub async fn lead_here(&self, env: &Env, client: &Client) -> Result<()> {
        let nodes = client.list_nodes(self.nodes.len(), String::new()).await?.nodes;
        let here = nodes.iter().find(|node| self.endpoint().ends_with(&node.api_address));
        let here = here.context("the node is not in its cluster")?.id;
        loop {
            let shards = client.list_shards(ListShards::default(), 0, String::new()).await?.shards;
            let shard = shards.first().context("the collection has no shard")?;
            match shard.leader {
                Some(leader) if leader == here => return Ok(()),
                // Refused while the replicas are not up to date; asked again.
                Some(_) => drop(client.transfer_leader(shard.id, here).await),
                None => {}
            }
            env.sleep(LOOK).await;
        }
    }

    /// Waits until nothing is left to build.
    pub async fn wait_built(&self, env: &Env) -> Result<()> {
        loop {
            let before = self.cpu()?;
            env.sleep(QUIET).await;
            let built: u64 = self.since(&before)?.into_iter().map(|usage| usage.only(BUILDERS).total()).sum();
            if (built as f64) < IDLE_SHARE * QUIET.as_nanos() as f64 {
                return Ok(());
            }
        }
    }

    /// CPU time of each node so far.
    pub fn cpu(&self) -> Result<Vec<Reading>> {
        self.nodes.iter().map(Process::cpu).collect()
    }

    /// What each node has used since.
    pub fn since(&self, before: &[Reading]) -> Result<Vec<Usage>> {
        Ok(self.cpu()?.iter().zip(before).map(|(now, before)| now.since(before)).collect())
    }
}

fn serve(folder: &Path, node: usize, roles: &str, addresses: &[(String, String)]) -> Result<Command> {
    let (api, peers) = &addresses[node - 1];
    let mut command = sagittad()?;
    command.arg("serve").arg("--data").arg(folder.join(format!("node-{node}")));
    command.args(["--listen", api, "--peer-listen", peers, "--roles", roles, "--log", "error"]);
    Ok(command)
}

/// Free addresses of the nodes' interfaces: API, peers.
fn addresses(nodes: usize) -> Result<Vec<(String, String)>> {
    // All are held until all are found, so that none is found twice.
    let held: Vec<_> = (0..2 * nodes).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let address = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string());
    held.chunks(2).map(|pair| Ok((address(&pair[0])?, address(&pair[1])?))).collect()
}
