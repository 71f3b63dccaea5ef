//! Ports between the database and the engines it runs on: [`kv`] keeps what is true, [`index`] makes it fast to search, [`mapped`] files carry
//! what is derived. Each port has an in-memory or pure-Rust twin for simulation, and a conformance suite that every implementation
//! passes.
//!
//! May not know: RocksDB, FAISS, points, payloads, shards.

pub mod bitmap;
pub mod index;
pub mod kv;
pub mod mapped;
