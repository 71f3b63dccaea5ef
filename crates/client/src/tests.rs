//! The client against a server that misbehaves on command.

mod calls;
mod fake;
mod proxy;
mod uploads;
