//! `sagitta completion`.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  source <(sagitta completion bash)                   # in ~/.bashrc
  sagitta completion zsh > ~/.zfunc/_sagitta          # with ~/.zfunc in fpath
  sagitta completion fish > ~/.config/fish/completions/sagitta.fish";

/// Print a script that completes commands in a shell.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    /// Prints the script.
    pub fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "sagitta", &mut script);
        let written = std::io::stdout().write_all(&script);
        written.map_err(|error| Failure::new(Exit::Failed, format!("cannot write the script: {error}")))
    }
}
