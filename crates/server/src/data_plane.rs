//! The calls between coordinators and nodes, over gRPC on the listener for members.
//!
//! [`RemoteNodes`] asks other nodes, [`shard_service`] answers them for this one: what is a [`NodeClient`] on one side is one on the
//! other. An [`Attendant`] keeps this node in touch with the coordinators, [`control_service`] is their end of it, and
//! [`join`] is how a node that belongs to no cluster yet comes to have any.
//!
//! [`NodeClient`]: sagitta_coordinator::NodeClient

mod attendant;
mod control;
mod join;
mod line;
mod remote;
mod shards;

use sagitta_env::{Deadline, Env};
use sagitta_wire::peer::Hello;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

pub use attendant::Attendant;
pub use control::{Membership, control_service};
pub use join::join;
pub use remote::RemoteNodes;
pub use shards::shard_service;

use crate::deadline::forwarded;
use crate::peers::{Guests, PeerIdentity, let_in};

/// HTTP/2 windows for what other nodes answer: room for the answers of many calls at once, of which one may be large.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// What a node asks of this one, and until when it waits; refused if it means another one, was removed, or is a run that has been overtaken.
fn admit<T>(request: Request<T>, guests: &Guests, env: &Env) -> Result<(T, Deadline), Status> {
    let hello = sender(request.metadata(), guests.me())?;
    guests.hears(&hello).inspect_err(|failure| tracing::debug!(why = failure.message, "refused a call"))?;
    let deadline = forwarded(request.metadata(), env);
    Ok((request.into_inner(), deadline))
}

/// Who calls, if it means this node.
fn sender(metadata: &MetadataMap, me: &PeerIdentity) -> Result<Hello, Status> {
    match let_in(metadata, me) {
        Ok(hello) => Ok(hello),
        Err(failure) => {
            tracing::debug!(why = failure.message, "refused a call");
            Err(failure.into())
        }
    }
}

#[cfg(test)]
mod tests;
