//! Simulation: whole clusters in one thread, from one seed, over a simulated network and the twins of log and database.
//!
//! Each file holds one promise. A test prints its seed, what it did and how often; the same seed gives the same run.

mod catalog;
mod dice;
mod disk;
mod network;
mod partial;
mod points;
mod power;
mod retries;
mod thin;
mod trace;
mod trouble;
mod workload;
mod world;
