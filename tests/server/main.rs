//! The server as its users meet it: a real process, a real socket, real RocksDB and FAISS.

mod abuse;
mod answered;
mod answers;
mod bad_input;
mod disk;
mod durability;
mod faults;
mod filters;
mod flips;
mod harness;
mod ledger;
mod read_only;
mod recall;
mod resources;
mod restart;
mod small_disk;
