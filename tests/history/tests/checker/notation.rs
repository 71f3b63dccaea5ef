//! Short histories as text, and a model that only these tests need.

use std::collections::BTreeMap;

use sagitta_history::{
    Catalog, CatalogInput, CatalogOutput, Freshness, History, Model, Operation, Outcome, PointInput, PointOutput,
    Points,
};
use serde::{Deserialize, Serialize};

/// What can be written down as `VERB ARGUMENTS`.
pub(crate) trait Notation: Model + Sized {
    /// Input and output. The answer of an unknown operation is ignored.
    fn parse(words: &[&str]) -> (Self::Input, Self::Output);
}

/// One operation a line: `CLIENT FROM..TO VERB ARGUMENTS`. `FROM..?` is an unknown outcome, `FROM..!` a failure; `@N`
/// after the time makes it a session read after the operation of line N (from 0), `~` an eventual one.
pub(crate) fn history<M: Notation>(text: &str) -> History<M::Input, M::Output> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    History { operations: lines.map(operation::<M>).collect() }
}

fn operation<M: Notation>(line: &str) -> Operation<M::Input, M::Output> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let client = words.remove(0).parse().expect("a client");
    let (called, returned) = words.remove(0).split_once("..").expect("a span of time");
    let freshness = match words[0].split_at(1) {
        ("~", _) => Freshness::Eventual,
        ("@", write) => Freshness::Session(write.parse().expect("a line")),
        _ => Freshness::Strong,
    };
    if freshness != Freshness::Strong {
        words.remove(0);
    }
    let (input, output) = M::parse(&words);
    let outcome = match returned {
        "?" => Outcome::Unknown,
        "!" => Outcome::Failed,
        returned => Outcome::Ok { returned: returned.parse().expect("a time"), output },
    };
    Operation { client, called: called.parse().expect("a time"), input, freshness, outcome }
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

impl Notation for Points {
    fn parse(words: &[&str]) -> (PointInput, PointOutput) {
        match words {
            ["put", value] => (PointInput::Upsert { id: 7, value: number(value) }, PointOutput::Done),
            ["put", value, "at", id] => {
                (PointInput::Upsert { id: number(id), value: number(value) }, PointOutput::Done)
            }
            ["delete"] => (PointInput::Delete { id: 7 }, PointOutput::Done),
            ["get", "-"] => (PointInput::Get { id: 7 }, PointOutput::Found(None)),
            ["get", value] => (PointInput::Get { id: 7 }, PointOutput::Found(Some(number(value)))),
            other => panic!("{other:?}"),
        }
    }
}

impl Notation for Catalog {
    fn parse(words: &[&str]) -> (CatalogInput, CatalogOutput) {
        use {CatalogInput as In, CatalogOutput as Out};
        match words {
            ["create", name, "taken"] => (In::Create((*name).into()), Out::Taken),
            ["create", name, id] => (In::Create((*name).into()), Out::Created(number(id))),
            ["delete", name, "missing"] => (In::Delete((*name).into()), Out::Missing),
            ["delete", name] => (In::Delete((*name).into()), Out::Deleted),
            ["get", name, "missing"] => (In::Get((*name).into()), Out::Missing),
            ["get", name, id] => (In::Get((*name).into()), Out::Found(number(id))),
            ["list", listed @ ..] => {
                let pair = |entry: &&str| {
                    let (name, id) = entry.split_once('=').expect("NAME=ID");
                    (name.to_owned(), number(id))
                };
                (In::List, Out::Listed(listed.iter().map(pair).collect::<BTreeMap<_, _>>()))
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Counts; every call answers the new number. What is not idempotent shows a repeated effect at once.
pub(crate) struct Counter;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum CounterInput {
    Add(u64),
    Read,
}

impl Model for Counter {
    type Key = ();
    type State = u64;
    type Input = CounterInput;
    type Output = u64;

    fn key(&self, _: &CounterInput) {}

    fn initial(&self, (): &()) -> u64 {
        0
    }

    fn step(&self, state: &u64, input: &CounterInput, output: Option<&u64>) -> Option<u64> {
        let next = match input {
            CounterInput::Add(more) => state + more,
            CounterInput::Read => *state,
        };
        output.is_none_or(|output| *output == next).then_some(next)
    }

    fn is_read(&self, input: &CounterInput) -> bool {
        *input == CounterInput::Read
    }
}

impl Notation for Counter {
    fn parse(words: &[&str]) -> (CounterInput, u64) {
        match words {
            ["add", more, total] => (CounterInput::Add(number(more)), number(total)),
            ["read", total] => (CounterInput::Read, number(total)),
            other => panic!("{other:?}"),
        }
    }
}
