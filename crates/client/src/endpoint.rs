//! Where a cluster is, as people write it and as a connection needs it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sagitta_model::Violation;
use sagitta_wire::DEFAULT_PORT;
use sagitta_wire::ended_early;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::util::MapRequest;

use crate::config::ClientConfig;
use crate::dial::{self, Dial};
use crate::error::ClientError;

/// Bytes that the server may send ahead on a stream and on the connection: a page of points without a pause.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// A host and a port. Shown as a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an IP address, one of version 6 in brackets.
    host: String,
    port: u16,
}

impl FromStr for Address {
    type Err = Violation;

    /// Understands `host`, `host:port` and both with `http://` before them. Without a port it is Sagitta's own: that of
    /// HTTP is nowhere a cluster listens.
    fn from_str(text: &str) -> Result<Self, Violation> {
        let refused = |reason: String| Violation::new("endpoint", reason);
        let malformed =
            || refused(format!("`{text}` is not an endpoint: expected host, host:port or http://host:port"));
        let url = match text.split_once("://") {
            None => format!("http://{text}"),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => format!("http://{rest}"),
            Some((scheme, _)) => return Err(refused(format!("`{text}` uses `{scheme}`; only `http` is supported"))),
        };
        let url: Uri = url.parse().map_err(|_| malformed())?;
        let host = url.host().filter(|host| !host.is_empty()).ok_or_else(malformed)?;
        // What follows the host is looked at here: the URL of a port that is none passes for one without a port.
        let port = match url.authority().and_then(|authority| authority.as_str().strip_prefix(host)) {
            Some("") => DEFAULT_PORT,
            Some(port) => {
                let port = port.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|port| *port != 0);
                port.ok_or_else(|| refused(format!("`{text}`: expected a port from 1 to 65535 behind the host")))?
            }
            None => return Err(refused(format!("`{text}`: a user name has no meaning in an endpoint"))),
        };
        if url.path() != "/" || url.query().is_some() {
            return Err(refused(format!("`{text}`: expected nothing behind host and port")));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// A connection, or one to be made, that sends requests of one message at once.
pub(crate) type Calls = MapRequest<Channel, fn(http::Request<Body>) -> http::Request<Body>>;

impl Address {
    /// A connection to it that is made when it is first used. To be called within a tokio runtime.
    pub(crate) fn calls(&self, config: &ClientConfig, network: Option<Arc<dyn Dial>>) -> Result<Calls, ClientError> {
        let refused = |reason: &str| ClientError::unsent(Violation::new("endpoint", reason));
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(refused("a client must be made within a tokio runtime"));
        }
        let endpoint = Endpoint::from_shared(self.to_string()).map_err(|error| refused(&error.to_string()))?;
        let endpoint = endpoint
            .connect_timeout(config.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(config.keepalive)
            .keep_alive_timeout(config.keepalive)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .user_agent(concat!("sagitta-client/", env!("CARGO_PKG_VERSION")))
            .expect("invariant: a package version is a valid header value");
        let channel = match network {
            Some(network) => dial::lazily(&endpoint, network),
            None => endpoint.connect_lazy(),
        };
        Ok(Calls::new(channel, ended_early))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<String, String> {
        text.parse().map(|address: Address| address.to_string()).map_err(|violation| violation.reason)
    }

    #[test]
    fn an_endpoint_without_a_port_means_the_port_of_sagitta() {
        for (text, expected) in [
            ("127.0.0.1", "http://127.0.0.1:6380"),
            ("localhost", "http://localhost:6380"),
            ("db-1.example.org", "http://db-1.example.org:6380"),
            ("[::1]", "http://[::1]:6380"),
            ("http://localhost", "http://localhost:6380"),
            ("http://[::1]/", "http://[::1]:6380"),
            ("HTTP://localhost", "http://localhost:6380"),
            ("localhost:80", "http://localhost:80"),
            ("[::1]:7000", "http://[::1]:7000"),
            ("http://127.0.0.1:65535/", "http://127.0.0.1:65535"),
        ] {
            assert_eq!(url(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_what_is_one() {
        for (text, says) in [
            ("", "host:port"),
            ("http://", "host:port"),
            ("a b", "host:port"),
            ("::1", "host:port"),
            (":6380", "host:port"),
            ("https://db", "only `http`"),
            ("db:", "1 to 65535"),
            ("db:0", "1 to 65535"),
            ("db:65536", "1 to 65535"),
            ("db:x", "1 to 65535"),
            ("me@db", "user name"),
            ("http://db/v1", "nothing behind"),
            ("db?x=1", "nothing behind"),
        ] {
            let reason = url(text).expect_err(text);
            assert!(reason.contains(says), "{text}: {reason}");
        }
    }
}
