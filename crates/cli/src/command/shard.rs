//! `sagitta shard`.

mod merge;
mod moving;
mod recover;
mod split;

use clap::{Args, Subcommand};
use sagitta_client::ListShards;
use sagitta_model::{CollectionName, ErrorKind, ReplicaInfo, ReplicaLoad, ShardInfo};
use serde_json::{Value as JsonValue, json};

use super::cluster::failed;
use crate::failure::Failure;
use crate::humane;
use crate::nodes::{NodeName, Nodes};
use crate::session::Session;
use crate::table::{Align, Table};

/// See the shards of collections, who leads them and where their replicas are, and change that.
#[derive(Debug, Subcommand)]
pub enum Shard {
    /// List the shards
    List(List),
    /// Show one shard with its replicas
    Show(Show),
    /// Have another replica lead a shard
    TransferLeader(TransferLeader),
    /// Move a replica of a shard to another node
    Move(moving::Move),
    /// Split a shard in two
    Split(split::Split),
    /// Go on with what is left of a shard that has lost its majority for ever
    UnsafeRecover(recover::UnsafeRecover),
    /// Merge two neighbouring shards into a new one
    Merge(merge::Merge),
}

/// List the shards.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta shard list
  sagitta shard list --collection docs
  sagitta shard list --node 72310433 --output json
  sagitta shard list --node 10.0.0.7:6380

A node is named by its id, the beginning of its id, or an address of it. The load is how many threads the leader's replica keeps
busy with searches, reads and writes, over about half a minute.")]
pub struct List {
    /// Only the shards of this collection
    #[arg(long, value_name = "NAME")]
    collection: Option<CollectionName>,

    /// Only the shards that have a replica on this node
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
}

/// Show one shard with its replicas.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta shard show 16

Data is what the points take, and what counts when shards grow too large; on the disk there is garbage beside it, and after a split
what the other half has by now. The load is how many threads a replica keeps busy, over about half a minute.")]
pub struct Show {
    /// The shard's id, as sagitta shard list shows it
    id: u64,
}

/// Have another replica lead a shard.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta shard show 16                          # which nodes have replicas
  sagitta shard transfer-leader 16 --to 72310433
  sagitta shard transfer-leader 16 --to 10.0.0.7:6380

A node is named by its id, the beginning of its id, or an address of it. Writes of the shard pause for the moment that it takes.
The cluster has shards handed over by itself when nodes lead unlike many, but none within a minute.")]
pub struct TransferLeader {
    /// The shard's id, as sagitta shard list shows it
    id: u64,

    /// The node that is to lead it; it must have a replica
    #[arg(long, value_name = "NODE")]
    to: NodeName,
}

impl Shard {
    /// Does what the arguments say.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List(list) => {
                let nodes = Nodes::of(session).await?;
                let shards = list.all(session, &nodes).await?;
                let document = json!({ "shards": shards.iter().map(document).collect::<Vec<_>>() });
                session.output.write(&document, |out, output| match shards.is_empty() {
                    true => writeln!(out, "no shards; a collection has some: sagitta collection create NAME --dim N"),
                    false => output.table(out, &table(&shards, &nodes)),
                })
            }
            Self::Show(show) => {
                let shard = one(session, show.id).await?;
                session.output.write(&document(&shard), |out, output| {
                    let (first, last) = (shard.first_hash, shard.last_hash);
                    writeln!(out, "shard {} of {}, {}", shard.id, shard.collection, shard.health.name())?;
                    writeln!(out, "hashes {first:016x} to {last:016x}, epoch {}", shard.epoch)?;
                    let leader =
                        shard.leader.map_or_else(|| "no leader".to_owned(), |leader| format!("led by {leader}"));
                    writeln!(out, "{leader}\n")?;
                    output.table(out, &replicas(&shard))?;
                    shard.problems.iter().try_for_each(|problem| writeln!(out, "problem: {problem}"))
                })
            }
            Self::TransferLeader(transfer) => transfer.run(session).await,
            Self::Move(moving) => moving.run(session).await,
            Self::Split(split) => split.run(session).await,
            Self::UnsafeRecover(recover) => recover.run(session).await,
            Self::Merge(merge) => merge.run(session).await,
        }
    }
}

impl TransferLeader {
    async fn run(&self, session: &Session) -> Result<(), Failure> {
        let nodes = Nodes::of(session).await?;
        let (shard, to) = (one(session, self.id).await?, nodes.find("--to", &self.to)?.id);
        let with: Vec<_> = shard.replicas.iter().filter(|replica| replica.wanted).map(|replica| replica.node).collect();
        if !with.contains(&to) {
            let message = format!("--to: node {} has no replica of shard {}", nodes.told(to), self.id);
            let with: Vec<_> = with.iter().map(|node| nodes.told(*node)).collect();
            return Err(Failure::usage(message).hint(format!("its replicas are on {}", with.join(", "))));
        }
        session.client.transfer_leader(self.id, to).await.map_err(|error| failed(session, error))?;
        let document = json!({ "shard": self.id, "leader": to.to_string() });
        session.output.write(&document, |out, _| writeln!(out, "node {} leads shard {}", nodes.told(to), self.id))
    }
}

/// A shard, or that there is none.
async fn one(session: &Session, id: u64) -> Result<ShardInfo, Failure> {
    session.client.get_shard(id).await.map_err(|error| {
        let is_missing = error.kind == ErrorKind::NotFound && error.reason != "NO_CLUSTER";
        let failure = failed(session, error);
        if is_missing { failure.hint("sagitta shard list shows those that there are") } else { failure }
    })
}

/// A shard of a collection, or that it has no such.
async fn of_collection(session: &Session, collection: &CollectionName, id: u64) -> Result<ShardInfo, Failure> {
    let shard = one(session, id).await?;
    if shard.collection == *collection {
        return Ok(shard);
    }
    let message = format!("shard {id} is of {}, not of {collection}", shard.collection);
    Err(Failure::usage(message).hint("sagitta shard list shows which shard is of which collection"))
}

impl List {
    async fn all(&self, session: &Session, nodes: &Nodes) -> Result<Vec<ShardInfo>, Failure> {
        let node = self.node.as_ref().map(|node| nodes.find("--node", node)).transpose()?.map(|node| node.id);
        let (mut shards, mut token) = (Vec::new(), String::new());
        loop {
            let list = ListShards { collection: self.collection.clone(), node };
            let page = session.client.list_shards(list, 0, token).await;
            let page = match &self.collection {
                Some(name) => session.told(name, page).await?,
                None => page.map_err(|error| failed(session, error))?,
            };
            shards.extend(page.shards);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(shards);
            }
        }
    }
}

fn table(shards: &[ShardInfo], nodes: &Nodes) -> Table {
    let mut table = Table::new(&[
        ("shard", Align::Right),
        ("collection", Align::Left),
        ("health", Align::Left),
        ("hashes", Align::Right),
        ("points", Align::Right),
        ("disk", Align::Right),
        ("load", Align::Right),
        ("leader", Align::Right),
        ("replicas", Align::Left),
    ]);
    for shard in shards {
        let wanted = shard.replicas.iter().filter(|replica| replica.wanted);
        table.row(vec![
            shard.id.to_string(),
            shard.collection.to_string(),
            shard.health.name().to_owned(),
            share(shard),
            humane::grouped(shard.points),
            humane::bytes(shard.disk_bytes),
            load(shard.load),
            shard.leader.map_or_else(|| "-".to_owned(), |leader| nodes.short(leader)),
            wanted.map(|replica| nodes.short(replica.node)).collect::<Vec<_>>().join(", "),
        ]);
    }
    table
}

/// How much of its collection's hashes a shard has: halves of what others have show as such.
fn share(shard: &ShardInfo) -> String {
    let percent = 100.0 * (shard.last_hash.saturating_sub(shard.first_hash) as f64 + 1.0) / 2f64.powi(64);
    let text = format!("{percent:.2}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// What a replica does, in threads that are never idle.
fn load(load: ReplicaLoad) -> String {
    format!("{:.2}", load.recent_us as f64 / 1e6)
}

fn replicas(shard: &ShardInfo) -> Table {
    let mut table = Table::new(&[
        ("node", Align::Right),
        ("role", Align::Left),
        ("applied", Align::Right),
        ("lag", Align::Right),
        ("points", Align::Right),
        ("data", Align::Right),
        ("disk", Align::Right),
        ("load", Align::Right),
        ("note", Align::Left),
    ]);
    for ReplicaInfo { node, wanted, told } in &shard.replicas {
        let mut row = vec![node.to_string()];
        match told {
            None => row.extend(["not heard of", "", "", "", "", "", ""].map(str::to_owned)),
            Some(told) => row.extend([
                told.role.name().to_owned(),
                told.applied.to_string(),
                told.lag_entries.map_or_else(|| "?".to_owned(), humane::grouped),
                humane::grouped(told.points),
                humane::bytes(told.data_bytes),
                humane::bytes(told.disk_bytes),
                load(told.load),
            ]),
        }
        let problem = told.as_ref().and_then(|told| told.problem.clone());
        row.push(problem.unwrap_or_else(|| if *wanted { String::new() } else { "to be removed".to_owned() }));
        table.row(row);
    }
    table.without_empty_columns()
}

fn document(shard: &ShardInfo) -> JsonValue {
    let replicas = shard.replicas.iter().map(|replica| {
        let told = replica.told.as_ref();
        json!({
            "node": replica.node.to_string(),
            "wanted": replica.wanted,
            "role": told.map(|told| told.role.name()),
            "epoch": told.map(|told| told.epoch),
            "term": told.map(|told| told.term),
            "applied_index": told.map(|told| told.applied),
            "lag_entries": told.and_then(|told| told.lag_entries),
            "points": told.map(|told| told.points),
            "disk_bytes": told.map(|told| told.disk_bytes),
            "data_bytes": told.map(|told| told.data_bytes),
            "load_us": told.map(|told| told.load.recent_us),
            "lasting_load_us": told.map(|told| told.load.lasting_us),
            "problem": told.and_then(|told| told.problem.clone()),
        })
    });
    json!({
        "id": shard.id,
        "collection": shard.collection.to_string(),
        "first_hash": format!("{:016x}", shard.first_hash),
        "last_hash": format!("{:016x}", shard.last_hash),
        "epoch": shard.epoch,
        "health": shard.health.name(),
        "leader": shard.leader.map(|leader| leader.to_string()),
        "applied_index": shard.applied,
        "points": shard.points,
        "disk_bytes": shard.disk_bytes,
        "data_bytes": shard.data_bytes,
        "load_us": shard.load.recent_us,
        "lasting_load_us": shard.load.lasting_us,
        "replicas": replicas.collect::<Vec<_>>(),
        "problems": shard.problems,
    })
}
