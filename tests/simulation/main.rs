//! Simulation: whole clusters in one thread, from one seed, over a simulated network and the twins of log and database.
//!
//! Each file holds one promise. A test prints its seed, what it did and how often; the same seed gives the same run,
//! to the frame, where tokio draws from it, too: built with `--cfg tokio_unstable`, as `make simulate` does.
#![allow(clippy::disallowed_methods, reason = "clients of a simulated host are tasks of its one thread")]

mod balance;
mod catalog;
mod clock;
mod disk;
mod grow;
mod heal;
mod lookout;
mod merge;
mod merges;
mod network;
mod partial;
mod points;
mod power;
mod readers;
mod recover;
mod retries;
mod split;
mod steps;
mod thin;
mod trace;
mod trouble;
mod workload;
mod world;
