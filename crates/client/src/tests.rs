//! The client against a server that misbehaves on command.

mod calls;
mod cluster;
mod encryption;
mod endpoints;
mod fake;
mod proxy;
mod uploads;
