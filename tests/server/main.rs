//! The server as its users meet it: a real process, a real socket, real RocksDB and FAISS.

mod answers;
mod bad_input;
mod durability;
mod faults;
mod harness;
mod read_only;
mod recall;
