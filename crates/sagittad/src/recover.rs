//! `sagittad recover-control-group`.

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use sagitta_console::{Format, Output, failure_document, humane};
use sagitta_engine_faiss::FaissEngine;
use sagitta_engine_rocksdb::{RocksBudget, RocksEngine};
use sagitta_env::Env;
use sagitta_server::{
    ControlRecovery, DataDirError, Engines, OpenLog, Platform, RecoverError, StartError, recover_control_group,
    telemetry,
};

/// For help texts.
pub(crate) const HELP: &str = "\
Examples:
  sagittad recover-control-group --data /var/lib/sagitta --dry-run
  sagittad recover-control-group --data /var/lib/sagitta \\
      --followed node-4/followed.json --followed node-5/followed.json

The coordinators that vote decide what the cluster is: its nodes, collections
and where shards are. Most of them have to agree. With most of them lost for
ever nothing can be decided any more; reads and writes go on where they can.
This makes one that is left the only voter. All others are given up, with what
they hold: nobody hears them from then on, even should they come back.

Never do this because coordinators are down: start them, and nothing is lost.

Before:
  1. Stop every coordinator that is left, and start none of the others.
  2. Compare --dry-run on each that is left: go on with the one whose log ends
     latest, first by term, then by entry. Another one that is left is given
     up, too; the dry run says what it holds of shards.
  3. Copy the file followed.json out of the data folder of each shard node,
     which may go on running, and name the copies with --followed. What only
     the lost ones had acknowledged is lost, but what a shard node knew of it
     by then is kept like this: above all, where replicas were moved to.
  4. Copy the data folder.

Afterwards:
  1. Start this one as ever, with sagittad serve.
  2. sagitta cluster rotate-token prints a token. Start two new coordinators,
     or four, with empty folders, --join and --join-token: they come to vote.
     Until then there is only one copy of what the cluster is.
  3. sagitta cluster health: a shard that had most of its replicas on the lost
     ones says what helps. A node that follows the control state no further
     knew of more than what is gone on with. It keeps what it holds, and
     serves it where it is still looked for. Do all of this once more with its
     followed.json and the copy of step 4, or give the node up with
     sagitta node remove --lost-for-ever.

Exit codes: 0 done, 1 it failed and can be tried again, 2 wrong arguments, or
nobody to ask, 3 no data folder of a coordinator, 4 in use by a running
process, or one that would be given up answers, 5 there is nothing to recover
or not from here, 7 damaged.";

/// What `sagittad recover-control-group` is told.
#[derive(clap::Args)]
pub(crate) struct RecoverControlGroup {
    /// The data folder of a coordinator that is left, whose process has stopped
    #[arg(long, value_name = "FOLDER", env = "SAGITTA_DATA_DIR", default_value = "./sagitta-data")]
    data: PathBuf,
    /// What another node knows of the cluster: followed.json of its folder
    #[arg(long, value_name = "FILE")]
    followed: Vec<PathBuf>,
    /// Only tell what would be done, and what the log ends with
    #[arg(long)]
    dry_run: bool,
    /// Do not ask: the other voters are lost, with what only they had
    #[arg(long, short = 'y')]
    yes: bool,
    /// How it is written: for people, or one JSON document for programs
    #[arg(long, short = 'o', value_name = "FORMAT", default_value = "table")]
    #[arg(value_parser = PossibleValuesParser::new(Format::NAMES).try_map(|name| name.parse::<Format>()))]
    output: Format,
}

/// The exit codes, beside 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
    Failed = 1,
    Usage = 2,
    NoData = 3,
    Running = 4,
    Conflict = 5,
    Damaged = 7,
}

/// Why it was not done.
struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, format!("{error:#}"))
    }
}

impl From<RecoverError> for Failure {
    fn from(error: RecoverError) -> Self {
        let exit = match &error {
            RecoverError::NoMember { .. } | RecoverError::Data(DataDirError::NotData { .. }) => Exit::NoData,
            RecoverError::Data(DataDirError::Running { .. } | DataDirError::InUse { .. })
            | RecoverError::Alive { .. } => Exit::Running,
            RecoverError::Gone { .. } | RecoverError::NothingLost { .. } | RecoverError::Followed { .. } => {
                Exit::Conflict
            }
            RecoverError::Data(DataDirError::Damaged { .. })
            | RecoverError::Log(_)
            | RecoverError::Control(_)
            | RecoverError::Start(StartError::LogGone { .. }) => Exit::Damaged,
            RecoverError::Data(_) | RecoverError::Start(_) | RecoverError::Refused(_) => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl RecoverControlGroup {
    /// Does it.
    pub(crate) fn run(&self) -> ExitCode {
        match self.ask_and_go_on() {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure { exit, message, hint }) => {
                match self.output {
                    Format::Table => {
                        eprintln!("sagittad: {message}");
                        hint.iter().for_each(|hint| eprintln!("hint: {hint}"));
                    }
                    // As `sagitta` tells a failure to programs.
                    Format::Json => {
                        eprintln!("{}", failure_document(kind(exit), &message, &[], hint.as_deref()));
                    }
                }
                ExitCode::from(exit as u8)
            }
        }
    }

    fn ask_and_go_on(&self) -> Result<(), Failure> {
        telemetry::start("warn", false).map_err(anyhow::Error::from)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("cannot start a thread")?;
        // No shard is opened.
        let engines = Engines { kv: Arc::new(RocksEngine::new(RocksBudget::default())), index: Arc::new(FaissEngine) };
        let open_log: OpenLog = Platform::system(engines).open_log;
        let go_on = |dry_run: bool| {
            let env = Env::real();
            runtime.block_on(Box::pin(recover_control_group(&self.data, &self.followed, &open_log, &env, dry_run)))
        };
        if !self.dry_run && !self.yes {
            let would = go_on(true)?;
            let mut text = Vec::new();
            people(&would, self.followed.is_empty(), &mut text).context("cannot write the result")?;
            confirm(&format!(
                "{}Go on with node {} alone, and give the others up for ever?",
                String::from_utf8_lossy(&text),
                would.node
            ))?;
        }
        let recovery = go_on(self.dry_run)?;
        let output = Output::detect(self.output);
        let written = output.write(&recovery, |out| people(&recovery, self.followed.is_empty(), out));
        match written {
            // It is done all the same.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new(Exit::Failed, format!("cannot write the result: {error}")))
            }
            _ => Ok(()),
        }
    }
}

/// Asks on the terminal whether to go on. Where there is nobody to ask, `--yes` must have been given.
fn confirm(question: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        let failure = Failure::new(Exit::Usage, format!("{question} There is no terminal to ask on"));
        return Err(Failure { hint: Some("confirm with --yes".to_owned()), ..failure });
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question} [y/N] ").and_then(|()| io::stdin().lock().read_line(&mut answer));
    asked.context("cannot ask")?;
    match matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        true => Ok(()),
        false => Err(Failure::new(Exit::Failed, "nothing was changed")),
    }
}

fn kind(exit: Exit) -> &'static str {
    match exit {
        Exit::Failed => "failed",
        Exit::Usage => "invalid",
        Exit::NoData => "not_found",
        Exit::Running => "unavailable",
        Exit::Conflict => "conflict",
        Exit::Damaged => "corrupt",
    }
}

fn people(recovery: &ControlRecovery, is_unasked: bool, out: &mut dyn Write) -> io::Result<()> {
    let ControlRecovery { node, last_index, last_term, committed, goes_on_from, collections, shards, .. } = recovery;
    let goes_on = if recovery.dry_run { "would go on" } else { "goes on" };
    writeln!(out, "the control group {goes_on} with node {node} alone")?;
    writeln!(out, "its log      ends at entry {last_index} of term {last_term}; known to be agreed up to {committed}")?;
    writeln!(out, "its voters   {}", listed(&recovery.voters))?;
    let holds = format!("{} in {}", counted(*collections, "collection"), counted(*shards, "shard"));
    match &recovery.followed {
        Some(file) => writeln!(out, "goes on from entry {goes_on_from}, by {}: {holds}", file.display())?,
        None => writeln!(out, "goes on from entry {goes_on_from}: {holds}")?,
    }
    for lost in &recovery.lost {
        let held = match lost.replicas {
            0 => "no replicas".to_owned(),
            some => format!("its replicas of {}", counted(some, "shard")),
        };
        writeln!(out, "given up     node {} at {}, with {held}", lost.node, lost.address)?;
    }
    writeln!(out, "lost         what only the others had decided after entry {goes_on_from}, acknowledged or not")?;
    if is_unasked {
        writeln!(out, "not known    what shard nodes know of that: name the followed.json of each with --followed")?;
    }
    if !recovery.dry_run {
        writeln!(out, "next         sagittad serve; sagitta cluster rotate-token; and two new coordinators or four:")?;
        writeln!(out, "             sagittad serve --data EMPTY-FOLDER --join URL --join-token TOKEN")?;
    }
    Ok(())
}

fn counted(number: usize, noun: &str) -> String {
    humane::count(number as u64, noun)
}

fn listed(nodes: &[u64]) -> String {
    nodes.iter().map(|node| format!("node {node}")).collect::<Vec<_>>().join(", ")
}
