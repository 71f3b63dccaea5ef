//! The network that a process listens on and connects by: the system's, or another that is handed in, such as a simulated one.

mod gathered;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use sagitta_tls::{Acceptor, Connector, Plaintext, ServerStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::TcpConnectInfo;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use self::gathered::Gathered;

/// How a process reaches others and is reached. Clones are the same network.
#[derive(Clone, Default)]
pub struct Net {
    /// `None`: that of the system.
    other: Option<Arc<dyn Network>>,
    /// What encrypts the connections that this process makes, if anything does.
    tls: Option<Connector>,
}

/// A network other than the system's.
#[tonic::async_trait]
pub trait Network: Send + Sync + 'static {
    /// Listens at an address of this process's host.
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>>;

    /// Connects to a port of a host.
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>>;
}

/// An address that connections come in at.
#[tonic::async_trait]
pub trait Listener: Send + Sync + 'static {
    /// Where others find it.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The next connection, and who made it.
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)>;
}

/// A connection: what is written on one side is read on the other.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Net {
    /// The network of the system. Nobody on it has to be encrypted or to show who they are, so it listens on loopback addresses only.
    pub fn system() -> Self {
        Self::default()
    }

    /// Another network, which looks after itself who may listen where.
    pub fn other(network: Arc<dyn Network>) -> Self {
        Self { other: Some(network), tls: None }
    }

    /// The same one, on which this process makes encrypted connections.
    pub(crate) fn with_tls(self, tls: Option<Connector>) -> Self {
        Self { tls, ..self }
    }

    /// Whether connections that this process makes are encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether this process may listen at an address.
    pub(crate) fn may_listen(&self, address: SocketAddr) -> bool {
        self.other.is_some() || address.ip().is_loopback()
    }

    pub(crate) async fn listen(&self, address: SocketAddr) -> io::Result<Door> {
        Ok(match &self.other {
            None => TcpListener::bind(address).await?.into(),
            Some(network) => Door { place: Place::Other(network.listen(address).await?), tls: None },
        })
    }

    /// Connects to what an endpoint names, within the time that it allows.
    pub(crate) async fn connect(&self, endpoint: Endpoint) -> Result<Channel, tonic::transport::Error> {
        let net = self.clone();
        let connect = move |uri: Uri| {
            let net = net.clone();
            async move { net.dial(&uri).await.map(|stream| TokioIo::new(Gathered::new(stream))) }
        };
        endpoint.connect_with_connector(service_fn(connect)).await
    }

    async fn dial(&self, to: &Uri) -> Result<Box<dyn Stream>, BoxError> {
        let host = to.host().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let stream = self.dial_plain(host, to).await?;
        Ok(match &self.tls {
            Some(tls) => Box::new(tls.connect(host, stream).await?),
            None => Box::new(Plaintext::new(stream)),
        })
    }

    async fn dial_plain(&self, host: &str, to: &Uri) -> io::Result<Box<dyn Stream>> {
        let port = to.port_u16().ok_or(io::ErrorKind::InvalidInput)?;
        let Some(network) = &self.other else {
            let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
            stream.set_nodelay(true)?;
            return Ok(Box::new(stream));
        };
        network.connect(host, port).await
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.other.is_some() { "Net::other" } else { "Net::system" })
    }
}

/// Where connections come in.
pub struct Door {
    place: Place,
    tls: Option<Acceptor>,
}

enum Place {
    /// A socket of the system.
    System(TcpListener),
    /// On another network.
    Other(Box<dyn Listener>),
}

/// A connection that came in.
pub(crate) enum Socket {
    System(TcpStream),
    Other {
        stream: Box<dyn Stream>,
        local: Option<SocketAddr>,
        peer: SocketAddr,
    },
    /// One of these, encrypted.
    Encrypted(Box<ServerStream<Socket>>),
}

impl Door {
    /// The same, where connections are to be encrypted.
    pub(crate) fn with_tls(self, tls: Option<Acceptor>) -> Self {
        Self { tls, ..self }
    }

    /// What encrypts its connections, if anything does.
    pub(crate) fn tls(&self) -> Option<&Acceptor> {
        self.tls.as_ref()
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.place {
            Place::System(listener) => listener.local_addr(),
            Place::Other(listener) => listener.local_addr(),
        }
    }

    /// The next connection, not encrypted yet.
    pub(crate) async fn accept(&mut self) -> io::Result<Socket> {
        Ok(match &mut self.place {
            Place::System(listener) => Socket::System(listener.accept().await?.0),
            Place::Other(listener) => {
                let (stream, peer) = listener.accept().await?;
                Socket::Other { stream, local: listener.local_addr().ok(), peer }
            }
        })
    }
}

impl From<TcpListener> for Door {
    fn from(listener: TcpListener) -> Self {
        Self { place: Place::System(listener), tls: None }
    }
}

impl Socket {
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::System(stream) => stream.set_nodelay(true),
            Self::Other { .. } => Ok(()),
            Self::Encrypted(stream) => stream.get_ref().0.set_nodelay(),
        }
    }

    pub(crate) fn connect_info(&self) -> TcpConnectInfo {
        use tonic::transport::server::Connected as _;
        match self {
            Self::System(stream) => stream.connect_info(),
            Self::Other { local, peer, .. } => TcpConnectInfo { local_addr: *local, remote_addr: Some(*peer) },
            Self::Encrypted(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

/// The same call to any of them.
macro_rules! each {
    ($self:ident, $call:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Self::System(stream) => Pin::new(stream).$call($($argument),*),
            Self::Other { stream, .. } => Pin::new(stream).$call($($argument),*),
            Self::Encrypted(stream) => Pin::new(stream).$call($($argument),*),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::System(stream) => stream.is_write_vectored(),
            Self::Other { stream, .. } => stream.is_write_vectored(),
            Self::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, poll_shutdown(cx))
    }
}
