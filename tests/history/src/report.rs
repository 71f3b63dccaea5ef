//! Says what is wrong with a history, for a person.

use std::fmt::{Debug, Write as _};
use std::path::PathBuf;

use serde::Serialize;

use crate::{BUDGET_STEPS, Freshness, History, Model, Operation, Outcome, Verdict, Violation, check};

/// States and operations shown of each kind; more tell nobody more.
const SHOWN_STATES: usize = 8;
const SHOWN_BEFORE: usize = 12;
const SHOWN_WINDOW: usize = 40;

/// Panics unless the history is linearizable, which also means: unless that could be found out. What is wrong is in the
/// message, the history in a file that it names. `label` says which test and seed it was.
#[track_caller]
pub fn require<M: Model>(model: &M, history: &History<M::Input, M::Output>, label: &str)
where
    M::Input: Serialize,
    M::Output: Serialize,
{
    let problem = match check(model, history, BUDGET_STEPS) {
        Verdict::Linearizable { .. } => return,
        Verdict::Violation(violation) => violation.explain(history),
        Verdict::Undecided { key } => {
            format!(
                "UNDECIDED: {BUDGET_STEPS} steps do not suffice for key {key}; fewer clients or operations a key do"
            )
        }
    };
    let path = file_for(label);
    let kept = match history.write(&path) {
        Ok(()) => format!("the history is in {}", path.display()),
        Err(error) => format!("the history could not be written to {}: {error}", path.display()),
    };
    panic!("{label}: {problem}\n{kept}");
}

/// A file of this process: tests that run at the same time keep theirs apart by their labels.
fn file_for(label: &str) -> PathBuf {
    let plain: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    std::env::temp_dir().join(format!("history-{}-{plain}.jsonl", std::process::id()))
}

impl<S: Debug> Violation<S> {
    /// The operation that nothing explains, the states that it can have met, and what its key's operations did around
    /// it, as a line in time for each.
    pub fn explain<I: Debug, O: Debug>(&self, history: &History<I, O>) -> String {
        let operation = &history.operations[self.unexplained];
        let states: Vec<String> = self.states.iter().take(SHOWN_STATES).map(|state| format!("{state:?}")).collect();
        let more = if self.states.len() > SHOWN_STATES { ", ..." } else { "" };
        let hidden = self.before.len().saturating_sub(SHOWN_BEFORE);
        let mut text = format!(
            "not linearizable: key {}, operation {}\n  client {} {}\nfits no state that it can have met: {}{more}\n",
            self.key,
            self.unexplained,
            operation.client,
            told(operation),
            states.join(", "),
        );
        let mut shown: Vec<usize> = self.before[hidden..].to_vec();
        let around = self.window.iter().filter(|&&position| position != self.unexplained);
        shown.extend(around.take(SHOWN_WINDOW).chain([&self.unexplained]));
        shown.sort_by_key(|&position| (history.operations[position].client, position));
        let hidden = hidden + self.window.len().saturating_sub(SHOWN_WINDOW + 1);
        text += &timeline(history, &shown, self.unexplained);
        if hidden > 0 {
            text += &format!("({hidden} more of this key)\n");
        }
        text
    }
}

/// What was asked and what came of it.
fn told<I: Debug, O: Debug>(operation: &Operation<I, O>) -> String {
    let freshness = match operation.freshness {
        Freshness::Strong => String::new(),
        weaker => format!(" {weaker:?}"),
    };
    let outcome = match &operation.outcome {
        Outcome::Ok { output, .. } => format!("{output:?}"),
        Outcome::Failed => "failed".to_owned(),
        Outcome::Unknown => "?".to_owned(),
    };
    format!("{:?}{freshness} -> {outcome}", operation.input)
}

/// A row for each operation, ordered by client. The columns are the moments at which something happened, in their
/// order, not to scale; a row without an end is an outcome that nobody knows.
fn timeline<I: Debug, O: Debug>(history: &History<I, O>, shown: &[usize], marked: usize) -> String {
    let operations = || shown.iter().map(|&position| (position, &history.operations[position]));
    let mut moments: Vec<u64> = operations().flat_map(|(_, op)| [Some(op.called), op.returned()]).flatten().collect();
    moments.sort_unstable();
    moments.dedup();
    let rows: Vec<(usize, String, &Operation<I, O>)> =
        operations().map(|(at, op)| (at, format!("client {} #{at} {}", op.client, told(op)), op)).collect();
    let width = rows.iter().map(|(_, label, _)| label.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (position, label, operation) in rows {
        let column = |moment: u64| moments.partition_point(|&other| other < moment);
        let (start, end) = (column(operation.called), operation.returned().map_or(moments.len(), column));
        let bar: String = (0..=end)
            .map(|at| match at {
                _ if at < start => ' ',
                _ if at == start && at == end => '|',
                _ if at == start => '├',
                _ if at < end => '─',
                _ if operation.returned().is_some() => '┤',
                _ => '▶',
            })
            .collect();
        let mark = if position == marked { '>' } else { ' ' };
        let times = operation
            .returned()
            .map_or(format!("{}..", operation.called), |end| format!("{}..{end}", operation.called));
        let pad = moments.len() + 2;
        // Writing into a string does not fail.
        let _ = writeln!(text, "{mark} {label:width$}  {bar:pad$}{times}");
    }
    text
}
