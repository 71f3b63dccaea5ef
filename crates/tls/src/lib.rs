//! Encryption in transit: certificates and keys from files, handshakes on both sides, and what they fail for, in words.
//!
//! TLS 1.3 and HTTP/2 only, without resumption: connections last for hours, and each handshake checks certificates as the files
//! are then. May not know: gRPC, what is sent, flags; an error names the [`Setting`], and a program the flag for it.

mod acceptor;
mod connector;
mod files;
mod handshake;
mod plaintext;
mod rehearsal;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use sagitta_env::Env;

pub use acceptor::{Acceptor, ServerTls};
pub use connector::{ClientTls, Connector};
pub use files::{Setting, SettingError};
pub use handshake::HandshakeError;
pub use plaintext::Plaintext;
pub use rehearsal::rehearse;

/// A connection that this side has begun.
pub type ClientStream<S> = tokio_rustls::client::TlsStream<S>;
/// A connection that the other side has begun.
pub type ServerStream<S> = tokio_rustls::server::TlsStream<S>;

/// What is spoken inside, as both sides agree on in the handshake (RFC 7301).
const HTTP2: &[u8] = b"h2";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Says which certificates are in force.
#[derive(Debug)]
struct Clock(Env);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_micros(self.0.unix_micros())))
    }
}

#[cfg(test)]
mod tests;
