//! The vector index port on FAISS and our own kernels.
//!
//! FAISS builds: HNSW graphs and inverted files of 4-bit codes. Graphs are searched by our own walk over byte codes in
//! vector instructions; compact indexes by FAISS. Every kind keeps the vectors without loss and re-scores its candidates on
//! them. The only crate with `unsafe`, each block of which states why it is sound.
//!
//! May not know: shards, segments' payloads, ids, the network.
#![allow(clippy::needless_range_loop, reason = "vector lanes are numbered, in code as in the manuals")]
#![allow(dead_code, reason = "the compact index's half of the shim is declared and not called yet")]
#![allow(unsafe_code, reason = "C++ and vector instructions are called here so that they are called nowhere else")]

mod allocator;
mod codes;
mod compact;
mod engine;
mod ffi;
mod flat;
mod graph;
mod head;
mod kernels;
mod rows;
mod vectors;

pub use allocator::release_free_memory;
pub use engine::FaissEngine;
