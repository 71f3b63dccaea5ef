//! Simulation: whole clusters in one thread, from one seed, over a simulated network and the twins of log and database.
//!
//! Each file holds one promise. A test prints its seed, what it did and how often; the same seed gives the same run.

mod dice;
mod disk;
mod network;
mod thin;
mod workload;
mod world;
