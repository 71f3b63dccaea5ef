//! Where a cluster is, as people write it and as a connection needs it.

use std::fmt;
use std::sync::Arc;

use sagitta_model::Violation;
use sagitta_tls::{ClientTls, Connector, Setting};
use sagitta_wire::DEFAULT_PORT;
use sagitta_wire::ended_early;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::{Endpoint, Uri};
use tower::util::MapRequest;

use crate::config::ClientConfig;
use crate::dial::{self, Dial, Line};
use crate::error::ClientError;

/// Bytes that the server may send ahead on a stream and on the connection: a page of points without a pause.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// A host and a port, and whether connections to it are encrypted. Shown as a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an IP address, one of version 6 in brackets.
    host: String,
    port: u16,
    pub(crate) encrypted: bool,
}

impl Address {
    /// Understands `host`, `host:port` and both with `http://` or `https://` before them. Without a port it is Sagitta's own: that of
    /// HTTP is nowhere a cluster listens. Without a scheme it is encrypted if anything in `tls` is set.
    pub(crate) fn parse(text: &str, tls: &ClientTls) -> Result<Self, Violation> {
        let refused = |reason: String| Violation::new("endpoint", reason);
        let malformed =
            || refused(format!("`{text}` is not an endpoint: expected host, host:port or https://host:port"));
        let (encrypted, rest) = match text.split_once("://") {
            None => (tls.first().is_some(), text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => match tls.first() {
                None => (false, rest),
                Some(setting) => return Err(without_encryption(setting, text, rest)),
            },
            Some((scheme, _)) => {
                return Err(refused(format!("`{text}` uses `{scheme}`; only `http` and `https` are supported")));
            }
        };
        let url: Uri = format!("http://{rest}").parse().map_err(|_| malformed())?;
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
        Ok(Self { host: host.to_owned(), port, encrypted })
    }
}

/// Whoever says whom to trust must not be given a connection on which nobody shows who they are.
fn without_encryption(setting: Setting, text: &str, rest: &str) -> Violation {
    violation(
        setting,
        format!("has no meaning for `{text}`, which is not encrypted: say https://{rest}, or leave it away"),
    )
}

/// A setting of TLS that cannot be used.
pub(crate) fn violation(setting: Setting, why: String) -> Violation {
    Violation::new(format!("tls.{}", setting.name()), why)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// A connection, or one to be made, that sends requests of one message at once.
pub(crate) type Calls = MapRequest<Line, fn(http::Request<Body>) -> http::Request<Body>>;

impl Address {
    /// A connection to it that is made when it is first used, by `tls` if it is an encrypted one. To be called within a tokio runtime.
    pub(crate) fn calls(
        &self,
        config: &ClientConfig,
        network: Option<Arc<dyn Dial>>,
        tls: Option<&Connector>,
    ) -> Result<Calls, ClientError> {
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
        let tls = tls.filter(|_| self.encrypted).cloned();
        Ok(Calls::new(dial::lazily(&endpoint, config, network, tls), ended_early))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<String, String> {
        let address = Address::parse(text, &ClientTls::default());
        address.map(|address| address.to_string()).map_err(|violation| violation.reason)
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
            ("https://localhost", "https://localhost:6380"),
            ("Https://[::1]:443/", "https://[::1]:443"),
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
            ("https://", "host:port"),
            ("ftp://db", "only `http` and `https`"),
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

    #[test]
    fn an_endpoint_is_encrypted_where_it_says_so_or_where_tls_is_set_up() {
        let tls = ClientTls { name: Some("db".to_owned()), ..ClientTls::default() };
        let url = |text| Address::parse(text, &tls).map(|address| address.to_string());
        assert_eq!(url("10.0.0.7"), Ok("https://10.0.0.7:6380".to_owned()));
        assert_eq!(url("https://10.0.0.7:1"), Ok("https://10.0.0.7:1".to_owned()));
        let violation = url("http://10.0.0.7:1").expect_err("not encrypted");
        assert_eq!(violation.field, "tls.name");
        assert!(violation.reason.contains("`http://10.0.0.7:1`"), "{violation}");
        assert!(violation.reason.contains("say https://10.0.0.7:1,"), "{violation}");
    }
}
