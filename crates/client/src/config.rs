//! What a client is told.

use std::time::Duration;

use sagitta_model::limits;
use sagitta_tls::ClientTls;

/// Where the cluster is and how patient to be with it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientConfig {
    /// `host`, `host:port`, or a URL such as `https://10.0.0.7:6380`; without a port it is [`sagitta_wire::DEFAULT_PORT`].
    /// Several, separated by commas, are coordinators of one cluster: the next is asked when one cannot be reached.
    ///
    /// With `https://` the connection is encrypted, with `http://` it is not; without either it is if anything in `tls` is set.
    pub endpoint: String,
    /// Whom to trust and what to show on encrypted connections. The files are read when the client is made.
    pub tls: ClientTls,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long a call may take in all, its retries included. The server is told, and stops when it has passed.
    pub deadline: Duration,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// How long the connection may be silent before it is checked, and how long the check may take; a connection that
    /// fails it is replaced. With several endpoints never more than three seconds.
    pub keepalive: Duration,
    /// The largest message to send or to accept, in bytes.
    pub max_message_bytes: usize,
}

/// When and how often to try again after an error that may pass.
///
/// The wait before the n-th retry is drawn evenly from zero to `min(max_backoff, initial_backoff * 2^(n - 1))`
/// ("full jitter"), so that callers that failed together do not return together. If the server names a delay, the
/// wait is that long at least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts of a call, the first included; 1 never retries. In an upload: attempts without any progress.
    pub max_attempts: u32,
    /// The longest first wait.
    pub initial_backoff: Duration,
    /// The longest wait.
    pub max_backoff: Duration,
}

impl ClientConfig {
    /// A cluster at `endpoint`, with patience that suits a person or a service on the same network.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            tls: ClientTls::default(),
            connect_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            keepalive: Duration::from_secs(20),
            max_message_bytes: limits::MAX_MESSAGE_BYTES,
        }
    }
}

impl RetryPolicy {
    /// One attempt, whatever comes of it.
    pub const NEVER: Self = Self { max_attempts: 1, initial_backoff: Duration::ZERO, max_backoff: Duration::ZERO };
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 5, initial_backoff: Duration::from_millis(50), max_backoff: Duration::from_secs(5) }
    }
}
