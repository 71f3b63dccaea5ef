//! House checks that no off-the-shelf tool makes: `cargo xtask layers` and `cargo xtask tidy`.
//!
//! Both read the files that git tracks (and new ones it does not ignore), print what is wrong as `file:line: what` with how to
//! mend it, and fail when there was anything to print. May not know: any other crate of the workspace.

mod files;
mod finding;
mod layers;
mod source;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::finding::Finding;

const USAGE: &str = "\
usage: cargo xtask <command>

  layers           every dependency points to a lower row; native and wire crates stay where they belong
  tidy             lengths, unsafe, comments, docs, links, proto comments, stray paths
  tidy --shrink    the same, and lowers the entries of crates/xtask/ratchet.txt to what the code now needs";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in &findings {
                eprintln!("{finding}");
            }
            eprintln!("\n{} to mend", finding::count(findings.len()));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<Vec<Finding>> {
    match args {
        ["layers"] => layers::check(&workspace_root()?),
        ["tidy"] => tidy::check(&workspace_root()?),
        ["tidy", "--shrink"] => tidy::shrink(&workspace_root()?),
        [] | ["help" | "-h" | "--help"] => {
            println!("{USAGE}");
            Ok(Vec::new())
        }
        other => bail!("no such command: {}\n\n{USAGE}", other.join(" ")),
    }
}

/// Cargo tells a running program where its crate lies. Asked at run time, since a target folder may be shared by several checkouts.
fn workspace_root() -> Result<PathBuf> {
    let crate_dir = std::env::var("CARGO_MANIFEST_DIR").context("start it as `cargo xtask`")?;
    let root = Path::new(&crate_dir).ancestors().nth(2).context("crates/xtask lies two folders below the root")?;
    Ok(root.to_path_buf())
}
