//! What people read of a data folder.

use std::io::{self, Write};

use sagitta_console::table::{Align, Table};
use sagitta_console::{Output, humane};
use sagitta_server::inspect::{
    GroupReport, InspectReport, MemberReport, NodeReport, Seriousness, ShardReport, StateReport,
};

/// The control group; others are numbered as their shards.
const CONTROL_GROUP: u64 = 1;
/// Digits of a node's id that tables show.
const SHORT_DIGITS: usize = 8;

/// Writes everything.
pub(super) fn write(report: &InspectReport, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "folder       {}", report.folder)?;
    if let Some(node) = &report.node {
        identity(node, out)?;
    }
    let [applied, followed] = [&report.control.applied, &report.control.followed];
    for (state, what) in [(applied, "applied"), (followed, "followed")] {
        if let Some(state) = state {
            control(state, what, out)?;
        }
    }
    if let Some(newest) = applied.iter().chain(followed).max_by_key(|state| state.index) {
        titled("Nodes", &nodes(newest), output, out)?;
        titled("Collections", &collections(newest), output, out)?;
    }
    titled("Replicas", &replicas(&report.shards), output, out)?;
    let to_apply = report.log.iter().flat_map(|log| &log.groups).filter(|group| group.group != CONTROL_GROUP);
    let to_apply: u64 = to_apply.filter_map(|group| group.to_apply).sum();
    if to_apply > 0 {
        let entries = humane::counted(to_apply, "entry", "entries");
        writeln!(out, "Points are as of the last flush; {entries} of the log are applied when the node starts.")?;
    }
    titled("Segments", &segments(&report.shards), output, out)?;
    if let Some(log) = &report.log {
        let title = format!("Raft log, {}", humane::bytes(log.bytes));
        titled(&title, &groups(&log.groups), output, out)?;
    }
    problems(report, output, out)
}

fn identity(node: &NodeReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "node         {}, incarnation {}", node.id, node.incarnation)?;
    match &node.cluster {
        Some(cluster) if node.founder => writeln!(out, "cluster      {cluster}, which it founded")?,
        Some(cluster) => writeln!(out, "cluster      {cluster}")?,
        None => writeln!(out, "cluster      none yet")?,
    }
    let Some(known) = &node.known_as else { return Ok(()) };
    let zone = if known.zone.is_empty() { String::new() } else { format!(", zone {}", known.zone) };
    writeln!(out, "known as     {} ({}{zone}), API {}", known.status, roles(known), known.api_address)?;
    match known.peer_address.as_str() {
        "" => Ok(()),
        peers => writeln!(out, "peers        {peers}"),
    }
}

fn control(state: &StateReport, what: &str, out: &mut dyn Write) -> io::Result<()> {
    let collections = humane::count(state.collections.len() as u64, "collection");
    let shards = state.collections.iter().map(|collection| collection.shards.len() as u64).sum();
    let shards = humane::count(shards, "shard");
    let nodes = humane::count(state.nodes.len() as u64, "node");
    writeln!(
        out,
        "{what:<12} control state of entry {}: {nodes}, {collections} in {shards}",
        humane::grouped(state.index)
    )
}

fn titled(title: &str, table: &Table, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    if table.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    output.table(out, table)
}

fn roles(node: &MemberReport) -> String {
    let roles = [(node.coordinator, "coordinator"), (node.shard, "shard")];
    roles.iter().filter(|(has, _)| *has).map(|(_, role)| *role).collect::<Vec<_>>().join(", ")
}

fn nodes(state: &StateReport) -> Table {
    let mut table = Table::new(&[
        ("node", Align::Right),
        ("status", Align::Left),
        ("roles", Align::Left),
        ("votes", Align::Left),
        ("zone", Align::Left),
        ("API", Align::Left),
        ("peers", Align::Left),
    ]);
    for node in &state.nodes {
        let votes = if state.voters.contains(&node.id) { "yes" } else { "" };
        table.row(vec![
            node.id.clone(),
            node.status.clone(),
            roles(node),
            votes.to_owned(),
            node.zone.clone(),
            node.api_address.clone(),
            node.peer_address.clone(),
        ]);
    }
    table.without_empty_columns()
}

fn collections(state: &StateReport) -> Table {
    let mut table = Table::new(&[("collection", Align::Left), ("replicas", Align::Right), ("shards", Align::Left)]);
    for collection in &state.collections {
        let shards: Vec<_> = collection.shards.iter().map(u64::to_string).collect();
        table.row(vec![collection.name.clone(), collection.replication.to_string(), shards.join(", ")]);
    }
    table
}

fn replicas(shards: &[ShardReport]) -> Table {
    let mut table = Table::new(&[
        ("shard", Align::Right),
        ("collection", Align::Left),
        ("hashes", Align::Left),
        ("applied", Align::Right),
        ("points", Align::Right),
        ("unsealed", Align::Right),
        ("segments", Align::Right),
        ("disk", Align::Right),
        ("condition", Align::Left),
    ]);
    let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), humane::grouped);
    for shard in shards {
        let hashes = shard.first_hash.as_ref().zip(shard.last_hash.as_ref());
        let wanted = if shard.wanted == Some(false) { ", not wanted here" } else { "" };
        table.row(vec![
            shard.shard.to_string(),
            shard.collection.clone().or_else(|| shard.collection_id.clone()).unwrap_or_else(|| "?".to_owned()),
            hashes.map_or_else(String::new, |(first, last)| format!("{first}-{last}")),
            number(shard.applied_index),
            number(shard.points),
            humane::grouped(shard.unsealed),
            shard.segments.len().to_string(),
            humane::bytes(shard.bytes),
            format!("{}{wanted}", shard.condition),
        ]);
    }
    table.without_empty_columns()
}

fn segments(shards: &[ShardReport]) -> Table {
    let mut table = Table::new(&[
        ("shard", Align::Right),
        ("segment", Align::Right),
        ("rows", Align::Right),
        ("points", Align::Right),
        ("disk", Align::Right),
        ("index", Align::Left),
    ]);
    for (shard, segment) in shards.iter().flat_map(|shard| shard.segments.iter().map(move |segment| (shard, segment))) {
        let several = segment.indexes.len() > 1;
        let index =
            |(name, kind): (&String, &&str)| if several { format!("{name}: {kind}") } else { (*kind).to_owned() };
        table.row(vec![
            shard.shard.to_string(),
            segment.segment.to_string(),
            humane::grouped(segment.rows),
            segment.points.map_or_else(|| "?".to_owned(), humane::grouped),
            humane::bytes(segment.bytes),
            segment.indexes.iter().map(index).collect::<Vec<_>>().join(", "),
        ]);
    }
    table
}

fn groups(groups: &[GroupReport]) -> Table {
    let mut table = Table::new(&[
        ("group", Align::Left),
        ("first", Align::Right),
        ("last", Align::Right),
        ("commit", Align::Right),
        ("applied", Align::Right),
        ("to apply", Align::Right),
        ("term", Align::Right),
        ("vote", Align::Left),
        ("voters", Align::Left),
        ("learners", Align::Left),
        ("goes on", Align::Left),
    ]);
    for group in groups {
        let name = if group.group == CONTROL_GROUP { "control".to_owned() } else { format!("shard {}", group.group) };
        table.row(vec![
            name,
            group.first_index.map_or_else(|| "-".to_owned(), humane::grouped),
            humane::grouped(group.last_index),
            humane::grouped(group.commit),
            group.applied_index.map_or_else(|| "?".to_owned(), humane::grouped),
            group.to_apply.map_or_else(|| "?".to_owned(), humane::grouped),
            humane::grouped(group.term),
            group.vote.as_deref().map_or_else(|| "-".to_owned(), short),
            group.voters.iter().map(|node| short(node)).collect::<Vec<_>>().join(", "),
            group.learners.iter().map(|node| short(node)).collect::<Vec<_>>().join(", "),
            match group.continues {
                Some(true) => "yes",
                Some(false) => "no",
                None => "?",
            }
            .to_owned(),
        ]);
    }
    table.without_empty_columns()
}

fn problems(report: &InspectReport, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    let [red, yellow, plain] = if output.colour { ["\x1b[31;1m", "\x1b[33m", "\x1b[0m"] } else { [""; 3] };
    for problem in &report.problems {
        let (colour, word) = match problem.seriousness {
            Seriousness::Damage => (red, "damage"),
            Seriousness::Mends => (yellow, "mends"),
            Seriousness::Note => ("", "note"),
        };
        writeln!(out, "\n{colour}{word}:{plain} {}\n  {}", problem.what, problem.help)?;
    }
    let read = if report.verified { "every byte was read" } else { "only what a start reads was read" };
    match report.worst() {
        None | Some(Seriousness::Note) => writeln!(out, "\nAll is well: {read}."),
        Some(Seriousness::Mends) => writeln!(out, "\nWhat is damaged is built again when the node starts; {read}."),
        Some(Seriousness::Damage) => {
            writeln!(
                out,
                "\nSomething is damaged that the node does not mend by itself. It may not be all: a database is read up to the first damage."
            )
        }
    }
}

/// The beginning of a node's id.
fn short(id: &str) -> String {
    id.chars().take(SHORT_DIGITS).collect()
}
