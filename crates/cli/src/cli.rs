//! The arguments of the program.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, Resettable, TypedValueParser as _};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use sagitta_console::Format;

use crate::command::{
    cluster, collection, completion, count, delete, export, get, import, inspect, node, operation, recall, search,
    shard, status,
};
use crate::failure::EXIT_CODES;

/// Where a server listens unless it is told otherwise; encrypted or not, as the other options say.
pub const DEFAULT_ENDPOINT: &str = "127.0.0.1:6380";

/// Load, search and manage the collections of a Sagitta cluster
#[derive(Debug, Parser)]
#[command(name = "sagitta", version, max_term_width = 110, after_help = after_help())]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Address of a coordinator of the cluster: host, host:port or https://host:port. Without a port it is 6380. With http:// nothing is
    /// encrypted; without either, only if one of the options --tls-... is given. Of several, separated by commas, the next is asked when one
    /// cannot be reached
    #[arg(long, global = true, env = "SAGITTA_ENDPOINT", value_name = "ADDRESS,...", default_value = DEFAULT_ENDPOINT)]
    #[arg(help_heading = "Global options")]
    pub endpoint: String,

    /// How results are written: tables for people, one JSON document for programs
    #[arg(
        long,
        short = 'o',
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        help_heading = "Global options"
    )]
    #[arg(value_parser = PossibleValuesParser::new(Format::NAMES).try_map(|name| name.parse::<Format>()))]
    pub output: Format,

    /// How long a call to the cluster may take, its retries included, such as 500ms, 30s or 2m; seconds without a unit
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = sagitta_console::duration)]
    #[arg(help_heading = "Global options")]
    pub timeout: Duration,

    /// Whom to trust.
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// Encrypted connections.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsArgs {
    /// The authorities whose server certificates are trusted, in PEM; by default those of the system
    #[arg(long, global = true, env = "SAGITTA_TLS_CA", value_name = "FILE", help_heading = "Global options")]
    pub tls_ca: Option<PathBuf>,

    /// The client certificate to show to servers that demand one, in PEM; with --tls-key
    #[arg(long, global = true, env = "SAGITTA_TLS_CERT", value_name = "FILE", help_heading = "Global options")]
    pub tls_cert: Option<PathBuf>,

    /// The secret key of the client certificate, in PEM, not encrypted
    #[arg(long, global = true, env = "SAGITTA_TLS_KEY", value_name = "FILE", help_heading = "Global options")]
    pub tls_key: Option<PathBuf>,

    /// The name that the server's certificate must be for, if it is another than the host of the address
    #[arg(long, global = true, env = "SAGITTA_TLS_NAME", value_name = "NAME", help_heading = "Global options")]
    pub tls_name: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, list, describe and delete collections
    #[command(subcommand)]
    Collection(collection::Collection),
    /// Load points from a file
    Import(Box<import::Import>),
    /// Write the points of a collection to a file
    Export(export::Export),
    /// Find the points nearest to a vector
    Search(Box<search::SearchArgs>),
    /// Show points by id
    Get(get::GetArgs),
    /// Count points
    Count(count::CountArgs),
    /// Delete points by id or by filter
    Delete(delete::Delete),
    /// Measure recall, latency and throughput of searches
    Recall(Box<recall::Recall>),
    /// Show whether the cluster answers and how its collections are
    Status(status::StatusArgs),
    /// Found a cluster and see how it is
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// See the nodes of the cluster, and take them out of service
    #[command(subcommand)]
    Node(node::Node),
    /// See what the cluster does about its replicas by itself, and cancel it
    #[command(subcommand, alias = "operations")]
    Operation(operation::Operation),
    /// See the shards of collections and who leads them
    #[command(subcommand)]
    Shard(shard::Shard),
    /// Look at the data folder of a stopped node: a command of sagittad
    #[command(hide = true)]
    Inspect(inspect::Inspect),
    /// Print a script that completes commands in a shell
    Completion(completion::Completion),
}

/// Reads the arguments, the first of which is the program's own name.
pub fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = take_negative_numbers(Cli::command()).try_get_matches_from(args);
    Cli::from_arg_matches(&matches.map_err(|error| without_environment(args, error))?)
}

/// What may come from the environment.
const OF_ENVIRONMENT: [&str; 5] = ["endpoint", "tls_ca", "tls_cert", "tls_key", "tls_name"];

/// The same error with a usage that does not take an address from the environment for one that was typed, which reads as
/// if it were required.
fn without_environment(args: &[OsString], error: clap::Error) -> clap::Error {
    if !error.use_stderr() {
        return error;
    }
    let command = OF_ENVIRONMENT.into_iter().fold(Cli::command(), |command, of_environment| {
        command.mut_arg(of_environment, |arg| arg.env(Resettable::Reset))
    });
    take_negative_numbers(command).try_get_matches_from(args).err().unwrap_or(error)
}

/// Has `-k -5` refused by what is expected of `-k`, not as an unknown argument `-5`.
fn take_negative_numbers(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let takes_values = arg.get_action().takes_values();
        arg.allow_negative_numbers(takes_values)
    });
    command.mut_subcommands(take_negative_numbers)
}

/// Whether arguments, which may be wrong otherwise, ask for JSON.
pub fn asks_for_json(args: &[OsString]) -> bool {
    let one = |arg: &OsString| ["-ojson", "-o=json", "--output=json"].iter().any(|json| arg == json);
    let two = |pair: &[OsString]| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json";
    args.iter().any(one) || args.windows(2).any(two)
}

fn after_help() -> String {
    format!(
        "\
Examples:
  sagitta import docs base.npy --payload payload.jsonl.gz --create
  sagitta search docs --query queries.npy --row 3 \\
    --filter 'source = \"rust-docs\" and words >= 50'
  sagitta recall docs --queries queries.npy --ground-truth gt.ids.npy

Every command has examples: sagitta help COMMAND.
A server for trying things out is started with `sagittad dev`.
{EXIT_CODES}"
    )
}
