//! Loading the data through the API, and where the server's time goes meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sagitta_benches::cpu::Usage;
use sagitta_benches::data::Data;
use sagitta_benches::process::Process;
use sagitta_client::{Client, ClientConfig, UploadOptions, View, Write};
use sagitta_env::Env;
use sagitta_model::{Change, CollectionInfo, CollectionName, CollectionStatistics, Point, Wait};
use sagitta_shard::{ShardOptions, ShardSpec};

/// How long the statistics must stay the same, after what the server itself waits for.
pub(crate) const QUIET: Duration = Duration::from_secs(5);
/// Between two looks at them.
const LOOK: Duration = Duration::from_secs(1);
/// A load and its index take minutes at most.
const DEADLINE: Duration = Duration::from_secs(1_800);

/// The collection that is searched.
pub(crate) fn collection() -> Result<CollectionName> {
    Ok("bench".parse()?)
}

/// Where the identity of the collection is noted, beside the server's folder.
fn identity_file(folder: &Path) -> PathBuf {
    folder.with_extension("collection")
}

/// Starts a server over a new folder, loads the data, waits until all of it is indexed and merged, reports, stops.
pub(crate) async fn load(env: &Env, data: &Data, folder: &Path) -> Result<()> {
    let points = data.points()?;
    let server = Process::server(folder)?;
    let client = connect(&server)?;
    let collection = collection()?;
    let info = client.create_collection(collection.clone(), data.schema()?).await?;

    let (before, began) = (server.cpu()?, env.now());
    let last = points.last().cloned().context("there are no points")?;
    upload(&client, &collection, points).await?;
    let (written, committed) = (server.cpu()?, env.now());
    let write = Write { collection, change: Change::Upsert(vec![last]), wait: Wait::Indexed, request_id: None };
    client.with_deadline(DEADLINE).write(write).await?;
    let (sealed, indexed) = (server.cpu()?, env.now());
    let statistics = settle(env, &server, ShardOptions::default().idle_after + QUIET).await?;
    let merged = server.cpu()?;

    let rows = data.rows();
    report("ingest", rows, committed - began, &written.since(&before));
    report("ingest and seal", rows, indexed - began, &sealed.since(&before));
    println!("until merged\n  CPU {}", of_point(&merged.since(&before), rows));
    println!("settled with {} segments, {} MB on disk\n", statistics.sealed_segments, statistics.disk_bytes >> 20);
    server.terminate(env).await?;
    Ok(fs::write(identity_file(folder), format!("{:032x}", info.id))?)
}

async fn upload(client: &Client, collection: &CollectionName, points: Vec<Point>) -> Result<()> {
    let mut upload = client.upload(collection.clone(), tokio_stream::iter(points), UploadOptions::default());
    while let Some(ack) = upload.next().await {
        ack?.outcome?;
    }
    Ok(())
}

/// Waits until nothing is left to seal or to merge, and nothing has been for a time: a shard that rests merges what few
/// segments are left.
pub(crate) async fn settle(env: &Env, server: &Process, quiet: Duration) -> Result<CollectionStatistics> {
    let client = connect(server)?;
    let (mut known, mut since) = (statistics(&client).await?, env.now());
    loop {
        env.sleep(LOOK).await;
        let now = statistics(&client).await?;
        if now.sealed_segments != known.sealed_segments || now.growing_segments != known.growing_segments {
            (known, since) = (now, env.now());
        } else if now.growing_segments == 0 && env.now() - since >= quiet {
            return Ok(now);
        }
    }
}

async fn statistics(client: &Client) -> Result<CollectionStatistics> {
    let CollectionInfo { statistics, .. } = client.get_collection(collection()?, View::Full).await?;
    statistics.context("a full view has statistics")
}

fn connect(server: &Process) -> Result<Client> {
    Ok(Client::connect(ClientConfig::new(server.endpoint()))?)
}

fn report(what: &str, rows: u64, wall: Duration, usage: &Usage) {
    let seconds = wall.as_secs_f64();
    println!("{what}: {rows} points in {seconds:.1} s, {:.0} a second", rows as f64 / seconds);
    println!("  CPU {}", of_point(usage, rows));
}

fn of_point(usage: &Usage, rows: u64) -> String {
    let total = usage.total() as f64 / 1e3 / rows as f64;
    format!("{total:.1} us a point by thread: {}", usage.split(rows))
}

/// The folder of the only shard of a stopped server.
pub(crate) fn shard_folder(folder: &Path) -> Result<PathBuf> {
    let mut shards = fs::read_dir(folder.join("shards"))?;
    Ok(shards.next().context("the server has no shard")??.path())
}

/// What that shard was made from.
pub(crate) fn spec(data: &Data, folder: &Path) -> Result<ShardSpec> {
    let shard = shard_folder(folder)?;
    let shard = shard.file_name().and_then(|name| name.to_str()?.parse().ok()).context("not a shard's folder")?;
    let noted = identity_file(folder);
    let collection = fs::read_to_string(&noted).with_context(|| format!("cannot read {}", noted.display()))?;
    Ok(ShardSpec { collection: u128::from_str_radix(&collection, 16)?, shard, schema: data.schema()? })
}
