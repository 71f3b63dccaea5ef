//! `sagitta node`.

mod change;

use std::io;
use std::time::Duration;

use clap::{Args, Subcommand};
use sagitta_model::{NodeInfo, PointId};
use serde_json::{Value as JsonValue, json};

use crate::failure::Failure;
use crate::humane;
use crate::nodes::{NodeName, Nodes};
use crate::session::Session;
use crate::table::{Align, Table};

/// See the nodes of the cluster, and take them out of service.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// List the nodes
    List(List),
    /// Show one node
    Show(Show),
    /// Have the replicas of a node moved to others
    Drain(change::Drain),
    /// Let a node take replicas again
    Undrain(change::Undrain),
    /// Remove a node from the cluster for ever
    Remove(change::Remove),
}

/// List the nodes.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta node list
  sagitta node list --output json | jq '.nodes[].status'")]
pub struct List {}

/// Show one node.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta node show 72310433
  sagitta node show 10.0.0.7:6380 --output json

A node is named by its id, the beginning of its id, host:port of one of its addresses,
or a host on which it is alone. JSON has ids in full.")]
pub struct Show {
    /// The node: its id, the beginning of its id, or an address of it
    #[arg(value_name = "NODE")]
    node: NodeName,
}

impl Node {
    /// Does what the arguments say.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        let nodes = Nodes::of(session).await?;
        match self {
            Self::List(_) => {
                let documents: Vec<_> = nodes.all().iter().map(document).collect();
                session.output.write(&json!({ "nodes": documents }), |out, output| {
                    output.table(out, &table(&nodes))?;
                    let problems =
                        nodes.all().iter().flat_map(|node| node.problems.iter().map(move |what| (node.id, what)));
                    problems
                        .into_iter()
                        .try_for_each(|(node, what)| writeln!(out, "node {}: {what}", nodes.short(node)))
                })
            }
            Self::Show(show) => {
                let node = nodes.find("NODE", &show.node)?;
                session.output.write(&document(node), |out, _| people(node, out))
            }
            Self::Drain(drain) => drain.run(session, &nodes).await,
            Self::Undrain(undrain) => undrain.run(session, &nodes).await,
            Self::Remove(remove) => remove.run(session, &nodes).await,
        }
    }
}

fn people(node: &NodeInfo, out: &mut dyn io::Write) -> io::Result<()> {
    writeln!(out, "node {}: {}", node.id, node.status)?;
    writeln!(out, "incarnation  {}", PointId::Uuid(node.incarnation))?;
    let lines = [
        ("roles", roles(node)),
        ("zone", node.zone.clone()),
        ("API", node.api_address.clone()),
        ("peers", node.peer_address.clone()),
        ("heard of", heard(node)),
    ];
    for (what, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{what:<12} {value}")?;
    }
    let (hosted, wanted) = (node.hosted_replicas, node.wanted_replicas);
    writeln!(
        out,
        "replicas     {hosted} of {wanted} that should be here; leads {}",
        humane::count(node.led_shards.into(), "shard")
    )?;
    writeln!(out, "waiting      {}", humane::counted(node.waiting_searches.into(), "search", "searches"))?;
    node.problems.iter().try_for_each(|problem| writeln!(out, "problem      {problem}"))
}

fn roles(node: &NodeInfo) -> String {
    let roles =
        [(node.coordinator, if node.voter { "coordinator (votes)" } else { "coordinator" }), (node.shard, "shard")];
    roles.iter().filter(|(has, _)| *has).map(|(_, role)| *role).collect::<Vec<_>>().join(", ")
}

fn heard(node: &NodeInfo) -> String {
    node.silent_ms
        .map_or_else(|| "never".to_owned(), |ms| format!("{} ago", humane::duration(Duration::from_millis(ms))))
}

fn table(nodes: &Nodes) -> Table {
    let mut table = Table::new(&[
        ("node", Align::Right),
        ("status", Align::Left),
        ("roles", Align::Left),
        ("zone", Align::Left),
        ("heard of", Align::Left),
        ("replicas", Align::Right),
        ("leads", Align::Right),
        ("waiting", Align::Right),
        ("API", Align::Left),
        ("peers", Align::Left),
    ]);
    for node in nodes.all() {
        table.row(vec![
            nodes.short(node.id),
            node.status.to_string(),
            roles(node),
            node.zone.clone(),
            heard(node),
            format!("{} of {}", node.hosted_replicas, node.wanted_replicas),
            node.led_shards.to_string(),
            node.waiting_searches.to_string(),
            node.api_address.clone(),
            node.peer_address.clone(),
        ]);
    }
    table.without_empty_columns()
}

/// Ids are text: they have more digits than JSON's readers keep of a number.
fn document(node: &NodeInfo) -> JsonValue {
    json!({
        "id": node.id.to_string(),
        "incarnation": PointId::Uuid(node.incarnation).to_string(),
        "peer_address": node.peer_address,
        "api_address": node.api_address,
        "zone": node.zone,
        "coordinator": node.coordinator,
        "shard": node.shard,
        "voter": node.voter,
        "status": node.status.to_string(),
        "silent_ms": node.silent_ms,
        "wanted_replicas": node.wanted_replicas,
        "hosted_replicas": node.hosted_replicas,
        "led_shards": node.led_shards,
        "waiting_searches": node.waiting_searches,
        "problems": node.problems,
    })
}
