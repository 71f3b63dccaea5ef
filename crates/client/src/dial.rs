//! How connections are made: by the system's network, or by another that is handed in, such as a simulated one; encrypted or not.

use std::io;
use std::sync::Arc;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use sagitta_tls::{Connector, HandshakeError, Plaintext};
use sagitta_wire::Failure;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::{ServiceExt as _, service_fn};

use crate::config::ClientConfig;

/// A network other than the system's.
#[tonic::async_trait]
pub trait Dial: Send + Sync + 'static {
    /// Connects to a port of a host.
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>>;
}

/// A connection: what is written on one side is read on the other.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Makes the connections of one channel.
#[derive(Clone)]
struct Dialer {
    network: Network,
    /// Makes them encrypted.
    tls: Option<Connector>,
}

#[derive(Clone)]
enum Network {
    System(HttpConnector),
    Other(Arc<dyn Dial>),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A channel that connects when it is first used.
pub(crate) fn lazily(
    endpoint: &Endpoint,
    config: &ClientConfig,
    network: Option<Arc<dyn Dial>>,
    tls: Option<Connector>,
) -> Channel {
    let network = match network {
        Some(network) => Network::Other(network),
        None => Network::System(system(config)),
    };
    let dialer = Dialer { network, tls };
    endpoint.connect_with_connector_lazy(service_fn(move |uri| dialer.clone().connect(uri)))
}

/// Tries all addresses of a name, within the time that one attempt may take.
fn system(config: &ClientConfig) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(config.connect_timeout));
    connector
}

impl Dialer {
    async fn connect(self, uri: Uri) -> Result<TokioIo<Box<dyn Stream>>, BoxError> {
        let malformed = || io::Error::from(io::ErrorKind::InvalidInput);
        let host = uri.host().ok_or_else(malformed)?.to_owned();
        let stream: Box<dyn Stream> = match self.network {
            Network::System(connector) => Box::new(connector.oneshot(uri).await?.into_inner()),
            Network::Other(network) => network.dial(&host, uri.port_u16().ok_or_else(malformed)?).await?,
        };
        Ok(TokioIo::new(match self.tls {
            Some(tls) => Box::new(tls.connect(&host, stream).await?),
            None => Box::new(Plaintext::new(stream)),
        }))
    }
}

/// A status as a failure, which says whether and why an encrypted connection could not be had.
pub(crate) fn failure_of(status: &Status) -> Failure {
    let failure = Failure::from_status(status);
    // Of what goes wrong on a connection that is there already, HTTP/2 keeps the text alone.
    let late = HandshakeError::SpeaksTls;
    let handshake =
        HandshakeError::find(status).or_else(|| failure.message.ends_with(&late.to_string()).then_some(&late));
    match handshake {
        Some(error) => Failure { message: error.to_string(), reason: error.reason().into(), ..failure },
        None => failure,
    }
}
