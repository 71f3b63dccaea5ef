//! The command line of Sagitta: everything behind the binary `sagitta`.
//!
//! [`cli`] says what arguments there are, [`command`] has a file per subcommand, [`data`] reads and writes data files,
//! [`filter`] parses filters. Results go through [`output`], errors through [`failure`].
//!
//! May not know: wire types, storage, the insides of a server. It speaks to a cluster through the client crate only.

pub mod args;
pub mod cli;
pub mod command;
pub mod data;
pub mod failure;
pub mod filter;
pub mod nodes;
pub mod output;
pub mod progress;
pub mod session;

pub use sagitta_console::{humane, table};

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::cli::Cli;
use crate::failure::{Exit, Failure};
use sagitta_console::{Format, colour_errors};

/// Runs the program with these arguments, the first of which is its own name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    std::panic::set_hook(Box::new(report_panic));
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match cli::parse(&args) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, cli::asks_for_json(&args)),
    };
    let as_json = cli.global.output == Format::Json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // There is nobody left to tell if this fails.
            let _ = failure.report(&mut std::io::stderr(), as_json, colour_errors());
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Prints help, or what is wrong with the arguments: to people as clap does, to programs as any other failure.
fn refuse(error: &clap::Error, as_json: bool) -> ExitCode {
    let _ = if as_json && error.use_stderr() {
        Failure::arguments(error).report(&mut std::io::stderr(), as_json, false)
    } else {
        error.print()
    };
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8))
}

fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, format!("cannot start threads: {error}")))?;
    let outcome = runtime.block_on(command::run(cli));
    // A thread that waits for the terminal or a slow disk must not keep the program from ending.
    runtime.shutdown_background();
    outcome
}

/// One line instead of a dump; nothing where a decoder's panic becomes an error of its file.
fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    if data::is_guarded() {
        return;
    }
    let payload = panic.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref().copied());
    let place = panic.location().map(|location| format!(" at {}:{}", location.file(), location.line()));
    let (text, place) = (text.unwrap_or("no message"), place.unwrap_or_default());
    let _ = writeln!(std::io::stderr(), "error: this is a defect of sagitta: {text}{place}\nhint: please report it");
}

#[cfg(test)]
mod tests;
