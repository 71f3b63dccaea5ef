//! `sagitta inspect`: where it is.

use clap::Args;

use crate::failure::Failure;

/// Look at the data folder of a stopped node: a command of sagittad
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sagittad inspect --data /var/lib/sagitta

It reads the files of a node that has stopped, so it belongs to the server's
program; those that run are asked by sagitta cluster status and others.")]
pub struct Inspect {
    /// What it was asked
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    args: Vec<String>,
}

impl Inspect {
    /// Says where it is.
    pub fn run(&self) -> Result<(), Failure> {
        let args = if self.args.is_empty() { "--data FOLDER".to_owned() } else { self.args.join(" ") };
        let failure = Failure::usage("inspect reads the files of a stopped node, which sagittad does");
        Err(failure.hint(format!("on the machine that has them: sagittad inspect {args}")))
    }
}
