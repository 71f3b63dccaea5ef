//! `sagitta operation`.

use std::io;
use std::time::Duration;

use clap::{Args, Subcommand};
use sagitta_client::ClientError;
use sagitta_model::{ErrorKind, OperationInfo, Work};
use serde_json::{Value as JsonValue, json};

use super::cluster::failed;
use crate::failure::Failure;
use crate::humane;
use crate::nodes::Nodes;
use crate::session::Session;
use crate::table::{Align, Table};

/// See what the cluster does about its replicas and shards, and cancel it.
#[derive(Debug, Subcommand)]
pub enum Operation {
    /// List the operations: those under way, and the latest that have ended
    List(List),
    /// Show one operation, why it was begun and what it waits for
    Show(Show),
    /// Have an operation not come about
    Cancel(Cancel),
}

/// List the operations.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta operation list
  sagitta operation list --all
  sagitta operation list --output json | jq '.operations[].waits_for'")]
pub struct List {
    /// Those that have ended, too
    #[arg(long)]
    all: bool,
}

/// Show one operation.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta operation show 7")]
pub struct Show {
    /// The operation's id, as sagitta operation list shows it
    id: u64,
}

/// Have an operation not come about.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagitta operation cancel 7 --dry-run
  sagitta operation cancel 7

All is as before then. The cluster begins it anew for as long as there is a reason: a node that is being drained
is left alone after sagitta node undrain, and a replica that was to be moved for balance, or by hand, for a day.
A split can be cancelled only until the shard is divided, which is soon if it is well, and a merge only while it copies.")]
pub struct Cancel {
    /// The operation's id, as sagitta operation list shows it
    id: u64,

    /// Only tell whether it could be cancelled
    #[arg(long)]
    dry_run: bool,
}

impl Operation {
    /// Does what the arguments say.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::List(list) => {
                let nodes = Nodes::of(session).await?;
                let mut operations = all(session).await?;
                operations.retain(|operation| list.all || !operation.work.has_ended());
                let document = json!({ "operations": operations.iter().map(document).collect::<Vec<_>>() });
                session.output.write(&document, |out, output| match operations.is_empty() {
                    true if list.all => writeln!(out, "no operations"),
                    true => writeln!(out, "no operations under way; --all shows those that have ended"),
                    false => output.table(out, &table(&operations, &nodes)),
                })
            }
            Self::Show(show) => {
                let nodes = Nodes::of(session).await?;
                let shown = session.client.get_operation(show.id).await;
                let operation = shown.map_err(|error| refused(session, error))?;
                session.output.write(&document(&operation), |out, _| people(&operation, &nodes, out))
            }
            Self::Cancel(cancel) => {
                let cancelled = session.client.cancel_operation(cancel.id, cancel.dry_run).await;
                let operation = cancelled.map_err(|error| refused(session, error))?;
                let json = json!({ "dry_run": cancel.dry_run, "operation": document(&operation) });
                let what = if cancel.dry_run { "could be cancelled" } else { "is being cancelled" };
                session.output.write(&json, |out, _| {
                    writeln!(out, "operation {} on shard {} {what}", operation.id, operation.shard)
                })
            }
        }
    }
}

fn refused(session: &Session, error: ClientError) -> Failure {
    let is_missing = error.kind == ErrorKind::NotFound && error.reason != "NO_CLUSTER";
    let failure = failed(session, error);
    if is_missing { failure.hint("sagitta operation list --all shows those that are known") } else { failure }
}

async fn all(session: &Session) -> Result<Vec<OperationInfo>, Failure> {
    let (mut operations, mut token) = (Vec::new(), String::new());
    loop {
        let page = session.client.list_operations(0, token).await.map_err(|error| failed(session, error))?;
        operations.extend(page.operations);
        token = page.next_page_token;
        if token.is_empty() {
            return Ok(operations);
        }
    }
}

fn took(operation: &OperationInfo) -> String {
    match operation.ended_unix_micros {
        Some(ended) => {
            let micros = ended.saturating_sub(operation.begun_unix_micros);
            humane::duration(Duration::from_micros(micros))
        }
        None => String::new(),
    }
}

fn table(operations: &[OperationInfo], nodes: &Nodes) -> Table {
    let mut table = Table::new(&[
        ("operation", Align::Right),
        ("kind", Align::Left),
        ("collection", Align::Left),
        ("shard", Align::Right),
        ("from", Align::Left),
        ("to", Align::Left),
        ("into", Align::Right),
        ("step", Align::Left),
        ("took", Align::Left),
        ("waits for", Align::Left),
    ]);
    for operation in operations {
        let (from, to, into) = match operation.work {
            Work::Replica { from, to, .. } => {
                (from.map(|from| nodes.short(from)).unwrap_or_default(), nodes.short(to), String::new())
            }
            Work::Split { right: into, .. } | Work::Merge { into, .. } => {
                (String::new(), String::new(), into.to_string())
            }
        };
        table.row(vec![
            operation.id.to_string(),
            operation.work.kind().to_owned(),
            operation.collection.as_ref().map(ToString::to_string).unwrap_or_default(),
            operation.shard.to_string(),
            from,
            to,
            into,
            operation.work.step().to_owned(),
            took(operation),
            operation.waits_for.clone(),
        ]);
    }
    table.without_empty_columns()
}

fn people(operation: &OperationInfo, nodes: &Nodes, out: &mut dyn io::Write) -> io::Result<()> {
    let asked = if operation.cancelled { ", cancelled" } else { "" };
    writeln!(out, "operation {}: {}, step {}{asked}", operation.id, operation.work.kind(), operation.work.step())?;
    let of = operation.collection.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
    let (from, to, into) = match operation.work {
        Work::Replica { from, to, .. } => {
            let node = |node| format!("node {}", nodes.told(node));
            (from.map(node).unwrap_or_default(), node(to), String::new())
        }
        Work::Split { right, at, .. } => {
            (String::new(), String::new(), format!("shard {right}, which has the hashes from {at:016x} on"))
        }
        Work::Merge { .. } => Default::default(),
    };
    let merged = match operation.work {
        Work::Merge { right, into, .. } => format!("shard {right}, into shard {into}"),
        _ => String::new(),
    };
    let lines = [
        ("shard", format!("{}{of}", operation.shard)),
        ("from", from),
        ("to", to),
        ("splits off", into),
        ("and", merged),
        ("why", operation.reason.clone()),
        ("waits for", operation.waits_for.clone()),
        ("took", took(operation)),
    ];
    lines
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .try_for_each(|(what, value)| writeln!(out, "{what:<10} {value}"))
}

/// Ids of nodes are text: they have more digits than JSON's readers keep of a number.
pub(super) fn document(operation: &OperationInfo) -> JsonValue {
    let (from, to, split, merge) = match operation.work {
        Work::Replica { from, to, .. } => (from, Some(to), None, None),
        Work::Split { right, at, .. } => (None, None, Some((right, at)), None),
        Work::Merge { right, into, .. } => (None, None, None, Some((right, into))),
    };
    json!({
        "id": operation.id,
        "kind": operation.work.kind(),
        "collection": operation.collection.as_ref().map(ToString::to_string),
        "shard": operation.shard,
        "from": from.map(|from| from.to_string()),
        "to": to.map(|to| to.to_string()),
        "split": split.map(|(shard, at)| json!({ "shard": shard, "first_hash": format!("{at:016x}") })),
        "merge": merge.map(|(right, into)| json!({ "right": right, "into": into })),
        "step": operation.work.step(),
        "reason": operation.reason,
        "waits_for": operation.waits_for,
        "cancelled": operation.cancelled,
        "begun_unix_micros": operation.begun_unix_micros,
        "ended_unix_micros": operation.ended_unix_micros,
    })
}
