//! What must hold for all messages.

mod any;
mod golden;
mod hostile;
mod limits;
mod round_trip;
