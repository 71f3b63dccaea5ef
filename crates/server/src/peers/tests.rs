//! Nodes that talk over real sockets on loopback.

mod delivery;
mod faults;
mod hosts;
mod refusals;
mod rig;
mod sockets;
mod states;
mod whole;
