//! Clusters as their users meet them: real processes on this machine, killed, paused and started again.

mod catalog;
mod commands;
mod entrance;
mod harness;
mod history;
mod network;
mod partial;
mod partitions;
mod points;
#[allow(dead_code, reason = "shared with the tests of the command line; not every helper has a use here")]
#[path = "../cli/ran.rs"]
mod ran;
mod returns;
mod workload;
