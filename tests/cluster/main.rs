//! Clusters as their users meet them: real processes on this machine, killed, paused and started again.

mod catalog;
mod clocks;
mod commands;
mod entrance;
mod failover;
mod full_disk;
mod gone;
mod harness;
mod heal;
mod history;
mod merge;
mod merges;
mod network;
mod operations;
mod partial;
mod partitions;
mod points;
#[allow(dead_code, reason = "shared with the tests of the command line; not every helper has a use here")]
#[path = "../cli/ran.rs"]
mod ran;
mod recover;
mod recover_control;
mod retries;
mod returns;
#[path = "../server/small_disk.rs"]
#[allow(dead_code, reason = "the tests of one server fill a disk in other ways, too")]
mod small_disk;
mod split;
mod strangers;
mod whole_state;
mod workload;
