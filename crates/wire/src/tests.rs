//! What must hold for all messages.

mod any;
mod cluster;
mod control;
mod golden;
mod hostile;
mod limits;
mod round_trip;
mod shard;
