//! Coordinators and nodes that talk over real sockets on loopback.

mod attendance;
mod calls;
mod faults;
mod refusals;
mod rig;
mod writes;
