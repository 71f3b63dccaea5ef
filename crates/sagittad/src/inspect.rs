//! `sagittad inspect`.

mod people;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use sagitta_console::{Format, Output, failure_document};
use sagitta_engine_faiss::FaissEngine;
use sagitta_engine_rocksdb::{RocksBudget, RocksEngine};
use sagitta_env::Env;
use sagitta_server::inspect::{InspectReport, Seriousness, inspect};
use sagitta_server::{DataDirError, Engines};

/// For help texts.
pub(crate) const HELP: &str = "\
Examples:
  sagittad inspect --data /var/lib/sagitta
  sagittad inspect --data /var/lib/sagitta --quick
  sagittad inspect --data /backup/node-3 --output json | jq '.problems'

It changes nothing, and refuses a folder whose process runs: that one is asked with `sagitta cluster status` and `sagitta node list`. \
Copies of a few log files go to the folder for temporary files (TMPDIR) meanwhile.

Exit codes: 0 all is well, 1 it cannot be read, 2 wrong arguments, 3 no data folder, 4 in use by a running process, 7 damaged: the node \
or a replica does not start, 8 damaged, and mended when the node starts.";

/// What `sagittad inspect` is told.
#[derive(clap::Args)]
pub(crate) struct Inspect {
    /// The data folder of a process that has stopped, or a copy of one
    #[arg(long, value_name = "FOLDER", env = "SAGITTA_DATA_DIR", default_value = "./sagitta-data")]
    data: PathBuf,
    /// Read only what a start would read, not every byte
    #[arg(long)]
    quick: bool,
    /// How it is written: tables for people, one JSON document for programs
    #[arg(long, short = 'o', value_name = "FORMAT", default_value = "table")]
    #[arg(value_parser = PossibleValuesParser::new(Format::NAMES).try_map(|name| name.parse::<Format>()))]
    output: Format,
}

/// The exit codes, beside 0 and those of clap.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Exit {
    Failed = 1,
    NoData = 3,
    Running = 4,
    Damaged = 7,
    Mends = 8,
}

impl Inspect {
    /// Does it.
    pub(crate) fn run(&self) -> ExitCode {
        // Nothing is written, so databases need little; what they read goes through their cache once.
        let engines = Engines { kv: Arc::new(RocksEngine::new(RocksBudget::default())), index: Arc::new(FaissEngine) };
        let report = match inspect(&self.data, &engines, &Env::real(), !self.quick) {
            Ok(report) => report,
            Err(error) => return self.refuse(&error),
        };
        let output = Output::detect(self.output);
        match output.write(&report, |out| people::write(&report, &output, out)) {
            Ok(()) => exit_of(&report),
            // A reader that has had enough, such as `head`, is no failure worth a word.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(Exit::Failed as u8),
            Err(error) => {
                eprintln!("sagittad: cannot write the result: {error}");
                ExitCode::from(Exit::Failed as u8)
            }
        }
    }

    fn refuse(&self, error: &DataDirError) -> ExitCode {
        let (exit, kind) = match error {
            DataDirError::NotData { .. } => (Exit::NoData, "not_found"),
            DataDirError::Running { .. } => (Exit::Running, "unavailable"),
            _ => (Exit::Failed, "failed"),
        };
        match self.output {
            Format::Table => eprintln!("sagittad: {error}"),
            // As `sagitta` tells a failure to programs.
            Format::Json => {
                eprintln!("{}", failure_document(kind, &error.to_string(), &[], None));
            }
        }
        ExitCode::from(exit as u8)
    }
}

fn exit_of(report: &InspectReport) -> ExitCode {
    match report.worst() {
        None | Some(Seriousness::Note) => ExitCode::SUCCESS,
        Some(Seriousness::Mends) => ExitCode::from(Exit::Mends as u8),
        Some(Seriousness::Damage) => ExitCode::from(Exit::Damaged as u8),
    }
}
