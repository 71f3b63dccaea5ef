//! The commands, one per file. Each has its arguments, with help that teaches by example, and what it does.

pub mod cluster;
pub mod collection;
pub mod completion;
pub mod count;
pub mod delete;
pub mod export;
pub mod get;
pub mod import;
pub mod inspect;
pub mod node;
pub mod operation;
pub mod recall;
pub mod search;
pub mod shard;
pub mod status;

mod confirm;
mod show;

pub(crate) use cluster::failed as cluster_failed;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::session::Session;

/// Does what the arguments say.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    // These need no cluster.
    match &cli.command {
        Command::Completion(command) => return command.run(),
        Command::Inspect(command) => return command.run(),
        _ => {}
    }
    let session = Session::new(&cli.global)?;
    match cli.command {
        Command::Cluster(command) => command.run(&session).await,
        Command::Node(command) => command.run(&session).await,
        Command::Operation(command) => command.run(&session).await,
        Command::Shard(command) => command.run(&session).await,
        Command::Collection(command) => command.run(&session).await,
        Command::Import(command) => command.run(&session).await,
        Command::Export(command) => command.run(&session).await,
        Command::Search(command) => command.run(&session).await,
        Command::Get(command) => command.run(&session).await,
        Command::Count(command) => command.run(&session).await,
        Command::Delete(command) => command.run(&session).await,
        Command::Recall(command) => command.run(&session).await,
        Command::Status(command) => command.run(&session).await,
        Command::Completion(command) => command.run(),
        Command::Inspect(command) => command.run(),
    }
}
