//! Clusters as their users meet them: real processes on this machine, killed, paused and started again.

mod catalog;
mod entrance;
mod harness;
mod history;
mod network;
mod partial;
mod partitions;
mod points;
mod returns;
mod workload;
