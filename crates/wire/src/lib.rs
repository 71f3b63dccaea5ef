//! The rim of the system: the public API `sagitta.v1` as generated from `proto/`, and its one conversion to and
//! from the model.
//!
//! [`v1`] holds the generated messages, services and clients. Every message has a plain counterpart in terms of
//! the model, in [`collections`], [`points`], [`upload`] and [`search`], or in the model itself ([`Convert`]).
//! Decoding checks everything that can be checked without knowing the collection, and names an offending field by
//! its path; `resolve` checks the rest against the collection's schema. [`Failure`] becomes a status with details,
//! and a status is read back into it. [`internal`] and [`peer`] are the same for what nodes say to each other, which is
//! no part of the public API.
//!
//! May not know: storage, the cluster, time, sockets. Nothing below this crate may know prost or tonic.

mod codec;
pub mod collections;
mod common;
mod error;
mod failure;
mod filter;
pub mod internal;
mod page;
pub mod peer;
pub mod points;
mod read;
mod seal;
pub mod search;
pub mod upload;
pub mod v1;
mod value;
mod vector;
mod version;

pub use codec::{Codec, Decoder, answer};
pub use common::{Convert, RequestId};
pub use error::{TokenFault, WireError};
pub use failure::{DEFAULT_RETRY_AFTER, Failure, Resource, reason};
pub use page::{DEFAULT_PAGE, Page};

/// The port that the API is served on, and expected on, unless told otherwise.
pub const DEFAULT_PORT: u16 = 6380;

#[cfg(test)]
mod tests;
