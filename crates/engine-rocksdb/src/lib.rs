//! RocksDB behind the key-value port: the only crate that links it.
//!
//! There is no write-ahead log (the Raft log is one): every write skips RocksDB's, and `atomic_flush` makes every
//! flush, RocksDB's own ones included, cover all families up to the same batch. Large values live in blob files. All
//! databases of an engine share one cache, which write buffers count against, and one pool of background threads.
//!
//! May not know: what is stored. No `unsafe`: snapshots own their database through `self_cell`.

mod budget;
mod database;
mod engine;
mod error;
mod health;
mod ledger;
mod options;
mod purge;
mod snapshot;
mod write_buffers;

pub use budget::RocksBudget;
pub use engine::RocksEngine;
