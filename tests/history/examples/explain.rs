//! Explains a history that a failed test left: `cargo run -p sagitta-history --example explain -- points FILE`.

use std::path::Path;
use std::process::ExitCode;
use std::{env, io};

use sagitta_history::{BUDGET_STEPS, Catalog, History, Model, Points, Verdict, check};
use serde::de::DeserializeOwned;

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [model, file] = arguments.as_slice() else {
        return Err(io::Error::other("give `points` or `catalog`, and the file"));
    };
    match model.as_str() {
        "points" => explain(&Points, Path::new(file)),
        "catalog" => explain(&Catalog, Path::new(file)),
        _ => Err(io::Error::other(format!("`{model}` is neither `points` nor `catalog`"))),
    }
}

fn explain<M: Model>(model: &M, file: &Path) -> io::Result<ExitCode>
where
    M::Input: DeserializeOwned,
    M::Output: DeserializeOwned,
{
    let history = History::read(file)?;
    let (text, code) = match check(model, &history, BUDGET_STEPS) {
        Verdict::Linearizable { steps } => (format!("linearizable ({steps} steps)\n"), ExitCode::SUCCESS),
        Verdict::Violation(violation) => (violation.explain(&history), ExitCode::FAILURE),
        Verdict::Undecided { key } => {
            (format!("undecided within {BUDGET_STEPS} steps: key {key}\n"), ExitCode::FAILURE)
        }
    };
    print!("{text}");
    Ok(code)
}
