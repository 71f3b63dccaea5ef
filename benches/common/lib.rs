//! What the benchmarks share: the data, the processes that are measured, and the books of the time that they use.
//!
//! Knows the client side and nothing of a server's inside.

pub mod cluster;
pub mod cpu;
pub mod data;
pub mod echo;
pub mod process;
pub mod traffic;
