//! What the server adds to its index: CPU per search through gRPC, next to the same index in process and to a bare echo.
//!
//! Knows every crate, from outside; nothing may know it. See `benches/README.md` for what is measured and how to run it.

mod load;
mod local;
mod report;
mod rounds;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use sagitta_env::Env;

use crate::local::Local;
use crate::rounds::{Bench, Calls, Kind};
use sagitta_benches::data::Data;
use sagitta_benches::echo;
use sagitta_benches::process::Process;
use sagitta_benches::traffic::Traffic;

/// Hits that each search asks for.
const K: usize = 10;
/// Searches of a batch.
const BATCH: usize = 16;

/// Measures what the server adds to its index, in CPU time
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// The folder of the real data; without it the repository's sample is used, which is too small to mean much
    #[arg(long, env = "SAGITTA_DATA", default_value = "../shared/data")]
    data: PathBuf,
    /// Keeps the loaded server folder here and uses it again the next time; by default a temporary one
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Rounds, each of which measures everything once
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Searches per measurement and round
    #[arg(long, default_value_t = 2_000)]
    searches: usize,
    /// Calls under way at once, one table for each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8])]
    concurrency: Vec<usize>,
    /// Connections that the calls share
    #[arg(long, default_value_t = 1)]
    connections: usize,
}

#[derive(Subcommand)]
enum Role {
    /// Serves the bare echo that the server is compared with
    #[command(hide = true)]
    Echo,
    /// Only sends traffic, for a profiler that watches the server
    Traffic {
        /// Of the server or the echo, such as `http://127.0.0.1:6380`
        endpoint: String,
        /// What to send
        #[arg(value_enum)]
        kind: Kind,
        /// Calls
        #[arg(long, default_value_t = 100_000)]
        calls: usize,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Role::Echo) = arguments.role {
        // What `#[tokio::main]` gives anyone.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("network").build()?;
        return runtime.block_on(echo::serve());
    }
    // One thread: the client's share of the machine should be small and the same for everyone.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &arguments.role {
        Some(Role::Traffic { endpoint, kind, calls }) => {
            runtime.block_on(rounds::traffic(&arguments.data, endpoint, *kind, *calls, arguments.concurrency[0]))
        }
        _ => runtime.block_on(measure(&arguments)),
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.rounds > 0 && arguments.searches >= BATCH, "nothing to measure: see --help");
    let env = Env::real();
    let data = Data::find(&arguments.data)?;
    println!("{}: {} points of {} dimensions, {} queries", data.name(), data.rows(), data.dim(), data.queries().len());

    let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
    let folder = arguments.folder.clone().unwrap_or_else(|| temporary.path().join("server"));
    if !folder.exists() {
        load::load(&env, &data, &folder).await?;
    }
    // The server is stopped by now: its folder is whole on disk.
    let copy = temporary.path().join("copy");
    copy_folder(&load::shard_folder(&folder)?, &copy)?;
    let local = Local::open(&env, &copy, &load::spec(&data, &folder)?)?;

    let server = Process::server(&folder)?;
    let echo = Process::echo()?;
    // Merged before it was stopped; what is left is to verify its files in the background.
    load::settle(&env, &server, load::QUIET).await?;
    let to_server = Traffic::connect(&env, server.endpoint(), arguments.connections).await?;
    let to_echo = Traffic::connect(&env, echo.endpoint(), arguments.connections).await?;
    let (calls, recall) = Calls::prepare(&data, &local, &to_server, arguments.searches).await?;
    println!("recall@{K} {recall:.4}, the same hits in process and through gRPC\n");

    let bench = Bench { env: &env, local: &local, server: (&server, to_server), echo: (&echo, to_echo), calls };
    for &concurrency in &arguments.concurrency {
        report::print(&bench.run(concurrency, arguments.rounds).await?);
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
