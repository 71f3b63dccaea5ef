//! The real thing, on real files: one program, because each links all of RocksDB.
#![allow(clippy::unwrap_used, reason = "tests: the panic is the message")]

mod common;
mod conformance;
mod damage;
mod engine;
mod faults;
mod kill;
