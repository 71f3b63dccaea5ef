//! Nodes that talk over real sockets on loopback.

mod delivery;
mod encryption;
mod faults;
mod hosts;
mod refusals;
pub(crate) mod rig;
mod sockets;
mod states;
mod whole;
