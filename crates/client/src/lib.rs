//! A typed client of a Sagitta cluster: every RPC in terms of the model, over one connection, with a deadline and
//! retries.
//!
//! Start at [`Client::connect`]. A [`Client`] is cheap to clone and connects when it is first used. Whatever a call
//! does, it ends by its deadline; whatever can be repeated without doing it twice is repeated for as long as that
//! makes sense ([`RetryPolicy`]). Bulk loads go through [`Client::upload`], full reads through [`Client::scroll`].
//!
//! May not know: shards, placement, storage. Names no type of prost or tonic in its interface.

mod client;
mod cluster;
mod config;
mod dial;
mod endpoint;
mod endpoints;
mod error;
mod retry;
mod scroll;
mod upload;

pub use client::Client;
pub use config::{ClientConfig, RetryPolicy};
pub use dial::{Dial, Stream};
pub use error::{ClientError, Unreached};
pub use scroll::Scroller;
pub use upload::{Upload, UploadAck, UploadOptions, UploadRun};

pub use sagitta_tls::ClientTls;
pub use sagitta_wire::cluster::{ListShards, NodeChanged, NodePage, OperationPage, ShardPage};
pub use sagitta_wire::collections::{CollectionPage, CreateCollection, DeleteCollection, View};
pub use sagitta_wire::points::{Count, Get, PointPage, Scroll, Write};
pub use sagitta_wire::search::{ScoredGroup, ScoredPoint, ScoredResult, Search, SearchAnswer, Searches};
pub use sagitta_wire::{DEFAULT_PORT, RequestId};

#[cfg(test)]
mod tests;
