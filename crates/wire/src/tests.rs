//! What must hold for all messages.

mod any;
mod cluster;
mod golden;
mod hostile;
mod limits;
mod round_trip;
