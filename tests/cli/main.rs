//! The command line as its users meet it: the binary `sagitta` against a real `sagittad dev`.

#[allow(dead_code, reason = "shared with the tests of the server; not every helper has a use here")]
#[path = "../server/harness.rs"]
mod server;

mod bad_files;
mod collections;
mod encryption;
mod examples;
mod export;
mod files;
mod harness;
mod import;
mod inspect;
mod points;
#[allow(dead_code, reason = "shared with the tests of clusters; not every helper has a use here")]
mod ran;
mod recall;
mod resume;
mod search;
