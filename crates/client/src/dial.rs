//! How connections are made: by the system's network, or by another that is handed in, such as a simulated one; encrypted or not.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use sagitta_tls::{Connector, HandshakeError, Plaintext};
use sagitta_wire::Failure;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::{Service, ServiceExt as _, service_fn};

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
    /// Those that are not were answered in TLS.
    answered_in_tls: Arc<AtomicBool>,
}

/// A channel to one endpoint, whose errors say when it was spoken to without the TLS that it speaks: what goes wrong on a connection that is
/// there already, calls do not get to see.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    channel: Channel,
    answered_in_tls: Arc<AtomicBool>,
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
) -> Line {
    let network = match network {
        Some(network) => Network::Other(network),
        None => Network::System(system(config)),
    };
    let answered_in_tls = Arc::<AtomicBool>::default();
    let dialer = Dialer { network, tls, answered_in_tls: answered_in_tls.clone() };
    let channel = endpoint.connect_with_connector_lazy(service_fn(move |uri| dialer.clone().connect(uri)));
    Line { channel, answered_in_tls }
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.channel.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (calling, answered_in_tls) = (self.channel.call(request), self.answered_in_tls.clone());
        Box::pin(async move {
            calling.await.map_err(|error| match answered_in_tls.load(Ordering::Acquire) {
                true => HandshakeError::SpeaksTls.into(),
                false => error.into(),
            })
        })
    }
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
            None => Box::new(Plaintext::telling(stream, self.answered_in_tls)),
        }))
    }
}

/// A status as a failure, which says whether and why an encrypted connection could not be had.
pub(crate) fn failure_of(status: &Status) -> Failure {
    let failure = Failure::from_status(status);
    match HandshakeError::find(status) {
        Some(error) => Failure { message: error.to_string(), reason: error.reason().into(), ..failure },
        None => failure,
    }
}
