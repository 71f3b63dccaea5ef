//! `sagitta cluster`.

use std::io;

use clap::{Args, Subcommand};
use sagitta_client::ClientError;
use sagitta_model::{ClusterInfo, ErrorKind, Health, PointId};
use serde_json::{Value as JsonValue, json};

use crate::failure::{Exit, Failure};
use crate::humane;
use crate::nodes::Nodes;
use crate::session::Session;

/// Found a cluster and see how it is.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Make the node at the endpoint found a cluster
    Init(Init),
    /// Show the cluster: its nodes, its leader, what is wrong
    Status(Status),
    /// Say by the exit code whether the cluster is well
    Health(HealthArgs),
    /// Make a new join token; the one before is worth nothing from then on
    RotateToken(RotateToken),
}

impl Cluster {
    /// Does what the arguments say.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Init(_) => init(session).await,
            Self::Status(_) => status(session).await,
            Self::Health(_) => health(session).await,
            Self::RotateToken(_) => rotate(session).await,
        }
    }
}

/// Make the node at the endpoint found a cluster.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta cluster init --endpoint http://10.0.0.7:6380

It prints the join token, this once: other nodes are started with it and --join.")]
pub struct Init {}

/// Show the cluster: its nodes, its leader, what is wrong.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta cluster status
  sagitta cluster status --output json | jq .problems")]
pub struct Status {}

/// Say by the exit code whether the cluster is well.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta cluster health || sagitta cluster status

The exit code is 0 if the cluster is healthy, 8 if it is degraded, and 4 if a part
of it does not answer or the endpoint cannot be reached.")]
pub struct HealthArgs {}

/// Make a new join token; the one before is worth nothing from then on.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta cluster rotate-token

Nodes that have joined stay.")]
pub struct RotateToken {}

async fn init(session: &Session) -> Result<(), Failure> {
    if session.endpoints().count() > 1 {
        let message = "--endpoint names several nodes, and one of them founds the cluster";
        return Err(Failure::usage(message).hint("name that one alone; the others join it with --join and the token"));
    }
    let new = session.client.init_cluster().await.map_err(|error| failed(session, error))?;
    let id = PointId::Uuid(new.id).to_string();
    let document = json!({ "cluster": id, "join_token": new.join_token });
    session.output.write(&document, |out, _| {
        writeln!(out, "founded cluster {id}")?;
        writeln!(out, "join token (shown this once): {}", new.join_token)
    })
}

async fn rotate(session: &Session) -> Result<(), Failure> {
    let token = session.client.rotate_join_token().await.map_err(|error| failed(session, error))?;
    session.output.write(&json!({ "join_token": token }), |out, _| writeln!(out, "{token}"))
}

async fn status(session: &Session) -> Result<(), Failure> {
    let info = session.client.get_cluster().await.map_err(|error| failed(session, error))?;
    let nodes = Nodes::of(session).await?;
    session.output.write(&document(&info), |out, _| people(&info, &nodes, out))
}

async fn health(session: &Session) -> Result<(), Failure> {
    let info = session.client.get_cluster().await.map_err(|error| failed(session, error))?;
    let document = json!({ "health": info.health.name(), "problems": info.problems });
    session.output.write(&document, |out, _| writeln!(out, "{}", info.health.name()))?;
    let first = info.problems.first().cloned().unwrap_or_default();
    let exit = match info.health {
        Health::Healthy => return Ok(()),
        Health::Degraded => Exit::Degraded,
        Health::Unavailable => Exit::Unavailable,
    };
    Err(Failure::new(exit, first).hint("sagitta cluster status shows everything that is wrong"))
}

/// An error, with what to do where there is no cluster, or one already.
pub(crate) fn failed(session: &Session, error: ClientError) -> Failure {
    match (error.kind, error.reason.as_str()) {
        (ErrorKind::NotFound, "NO_CLUSTER") => {
            let message = format!("the node at {} belongs to no cluster yet", session.endpoint());
            Failure::new(Exit::NotFound, message)
                .hint("sagitta cluster init makes it found one; to join one it is started with --join and --join-token")
        }
        (ErrorKind::Conflict, "CLUSTER_EXISTS") => session.failed(error).hint(
            "other nodes are started with --join and the join token; sagitta cluster rotate-token makes a new one",
        ),
        _ => session.failed(error),
    }
}

fn document(info: &ClusterInfo) -> JsonValue {
    let nodes = info.nodes.iter().map(|(status, count)| (status.to_string(), json!(count)));
    json!({
        "id": PointId::Uuid(info.id).to_string(),
        "health": info.health.name(),
        "coordinator": info.coordinator.to_string(),
        "leader": info.leader.map(|leader| leader.to_string()),
        "term": info.term,
        "applied_index": info.applied,
        "voters": info.voters.iter().map(u64::to_string).collect::<Vec<_>>(),
        "nodes": nodes.collect::<serde_json::Map<_, _>>(),
        "collections": info.collections,
        "shards": info.shards,
        "problems": info.problems,
    })
}

fn people(info: &ClusterInfo, names: &Nodes, out: &mut dyn io::Write) -> io::Result<()> {
    let nodes: Vec<_> = info.nodes.iter().map(|(status, count)| format!("{count} {status}")).collect();
    let voters: Vec<_> = info.voters.iter().map(|voter| names.told(*voter)).collect();
    let leader = info.leader.map_or_else(|| "none".to_owned(), |leader| names.told(leader));
    writeln!(out, "cluster {}: {}", PointId::Uuid(info.id), info.health.name())?;
    writeln!(out, "nodes        {}", nodes.join(", "))?;
    writeln!(out, "leader       {leader}, term {}", info.term)?;
    writeln!(out, "voters       {}", voters.join(", "))?;
    writeln!(out, "answered by  {}, which has applied entry {}", names.told(info.coordinator), info.applied)?;
    let collections = humane::count(u64::from(info.collections), "collection");
    writeln!(out, "holds        {collections} in {}", humane::count(u64::from(info.shards), "shard"))?;
    info.problems.iter().try_for_each(|problem| writeln!(out, "problem      {problem}"))
}
