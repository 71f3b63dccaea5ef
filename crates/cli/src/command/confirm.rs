//! Asking before something is deleted.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::failure::{Exit, Failure};

/// Asks on the terminal whether to go on. Where there is nobody to ask, `--yes` must have been given.
pub(super) fn confirm(question: &str) -> Result<(), Failure> {
    confirm_with(question, "--yes")
}

/// The same where another option stands for the answer.
pub(super) fn confirm_with(question: &str, option: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        let failure = Failure::usage(format!("{question} There is no terminal to ask on"));
        return Err(failure.hint(format!("confirm with {option}")));
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question} [y/N] ").and_then(|()| io::stdin().lock().read_line(&mut answer));
    match asked {
        Ok(_) if is_yes(&answer) => Ok(()),
        Ok(_) => Err(Failure::new(Exit::Failed, "nothing was deleted")),
        Err(error) => Err(Failure::new(Exit::Failed, format!("cannot ask: {error}"))),
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        assert!(is_yes("y\n") && is_yes(" YES \r\n"));
        assert!(!is_yes("\n") && !is_yes("n") && !is_yes("yesterday") && !is_yes(""));
    }
}
