//! `sagitta node`.

use std::time::Duration;

use clap::{Args, Subcommand};
use sagitta_model::{NodeInfo, PointId};
use serde_json::{Value as JsonValue, json};

use super::cluster::failed;
use crate::failure::Failure;
use crate::humane;
use crate::session::Session;
use crate::table::{Align, Table};

/// See the nodes of the cluster.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// List the nodes
    List(List),
    /// Show one node
    Show(Show),
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
  sagitta node show 7231043388021175403")]
pub struct Show {
    /// The node's id, as sagitta node list shows it
    id: u64,
}

impl Node {
    /// Does what the arguments say.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        let nodes = match self {
            Self::List(_) => all(session).await?,
            Self::Show(show) => {
                let node = session.client.get_node(show.id).await.map_err(|error| failed(session, error))?;
                vec![node]
            }
        };
        let documents: Vec<_> = nodes.iter().map(document).collect();
        let single = matches!(self, Self::Show(_));
        let document = if single { documents[0].clone() } else { json!({ "nodes": documents }) };
        session.output.write(&document, |out, output| {
            output.table(out, &table(&nodes))?;
            let problems = nodes.iter().flat_map(|node| node.problems.iter().map(move |problem| (node.id, problem)));
            problems.into_iter().try_for_each(|(node, problem)| writeln!(out, "node {node}: {problem}"))
        })
    }
}

async fn all(session: &Session) -> Result<Vec<NodeInfo>, Failure> {
    let (mut nodes, mut token) = (Vec::new(), String::new());
    loop {
        let page = session.client.list_nodes(0, token).await.map_err(|error| failed(session, error))?;
        nodes.extend(page.nodes);
        token = page.next_page_token;
        if token.is_empty() {
            return Ok(nodes);
        }
    }
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

fn table(nodes: &[NodeInfo]) -> Table {
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
    for node in nodes {
        table.row(vec![
            node.id.to_string(),
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
