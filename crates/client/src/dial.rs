//! How connections are made: by the system's network, or by another that is handed in, such as a simulated one.

use std::io;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// A network other than the system's.
#[tonic::async_trait]
pub trait Dial: Send + Sync + 'static {
    /// Connects to a port of a host.
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>>;
}

/// A connection: what is written on one side is read on the other.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// A channel that connects by a network when it is first used.
pub(crate) fn lazily(endpoint: &Endpoint, network: Arc<dyn Dial>) -> Channel {
    let connect = move |uri: Uri| {
        let network = network.clone();
        async move {
            let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
            let port = uri.port_u16().ok_or(io::ErrorKind::InvalidInput)?;
            Ok::<_, io::Error>(TokioIo::new(network.dial(host, port).await?))
        }
    };
    endpoint.connect_with_connector_lazy(service_fn(connect))
}
