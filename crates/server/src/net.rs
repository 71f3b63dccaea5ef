//! The network that a process listens on and connects by: the system's, or another that is handed in, such as a simulated one.

mod gathered;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::TcpConnectInfo;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use self::gathered::Gathered;

/// How a process reaches others and is reached. Clones are the same network.
#[derive(Clone, Default)]
pub struct Net(Option<Arc<dyn Network>>);

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

impl Net {
    /// The network of the system. Nothing on it is encrypted and nobody shows who they are, so it listens on loopback addresses only.
    pub fn system() -> Self {
        Self(None)
    }

    /// Another network, which looks after itself who may listen where.
    pub fn other(network: Arc<dyn Network>) -> Self {
        Self(Some(network))
    }

    /// Whether this process may listen at an address.
    pub(crate) fn may_listen(&self, address: SocketAddr) -> bool {
        self.0.is_some() || address.ip().is_loopback()
    }

    pub(crate) async fn listen(&self, address: SocketAddr) -> io::Result<Door> {
        Ok(match &self.0 {
            None => Door::System(TcpListener::bind(address).await?),
            Some(network) => Door::Other(network.listen(address).await?),
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

    async fn dial(&self, to: &Uri) -> io::Result<Box<dyn Stream>> {
        let host = to.host().ok_or(io::ErrorKind::InvalidInput)?;
        let port = to.port_u16().ok_or(io::ErrorKind::InvalidInput)?;
        let Some(network) = &self.0 else {
            let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
            stream.set_nodelay(true)?;
            return Ok(Box::new(stream));
        };
        network.connect(host, port).await
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Net::other" } else { "Net::system" })
    }
}

/// Where connections come in.
pub enum Door {
    /// At a socket of the system.
    System(TcpListener),
    /// On another network.
    Other(Box<dyn Listener>),
}

/// A connection that came in.
pub(crate) enum Socket {
    System(TcpStream),
    Other { stream: Box<dyn Stream>, local: Option<SocketAddr>, peer: SocketAddr },
}

impl Door {
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::System(listener) => listener.local_addr(),
            Self::Other(listener) => listener.local_addr(),
        }
    }

    pub(crate) async fn accept(&mut self) -> io::Result<Socket> {
        Ok(match self {
            Self::System(listener) => Socket::System(listener.accept().await?.0),
            Self::Other(listener) => {
                let (stream, peer) = listener.accept().await?;
                Socket::Other { stream, local: listener.local_addr().ok(), peer }
            }
        })
    }
}

impl From<TcpListener> for Door {
    fn from(listener: TcpListener) -> Self {
        Self::System(listener)
    }
}

impl Socket {
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::System(stream) => stream.set_nodelay(true),
            Self::Other { .. } => Ok(()),
        }
    }

    pub(crate) fn connect_info(&self) -> TcpConnectInfo {
        use tonic::transport::server::Connected as _;
        match self {
            Self::System(stream) => stream.connect_info(),
            Self::Other { local, peer, .. } => TcpConnectInfo { local_addr: *local, remote_addr: Some(*peer) },
        }
    }
}

/// The same call to the one or the other.
macro_rules! both {
    ($self:ident, $call:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Self::System(stream) => Pin::new(stream).$call($($argument),*),
            Self::Other { stream, .. } => Pin::new(stream).$call($($argument),*),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        both!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        both!(self, poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        both!(self, poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::System(stream) => stream.is_write_vectored(),
            Self::Other { stream, .. } => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        both!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        both!(self, poll_shutdown(cx))
    }
}
