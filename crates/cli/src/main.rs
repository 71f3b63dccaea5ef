//! The binary `sagitta`.
//!
//! May not know: anything; it hands its arguments to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sagitta_cli::main(std::env::args_os())
}
