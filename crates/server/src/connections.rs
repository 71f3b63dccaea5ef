//! Connections: how many there may be, and what one must do to stay.
//!
//! What tonic does by itself when it is given a listener is not enough: it accepts without end, it leaves Nagle's algorithm
//! on, it waits for ever for the first bytes of a connection, and when the process is out of descriptors it tries again
//! at once, without end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sagitta_env::{Env, JoinHandle};
use sagitta_tls::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::net::{Door, Socket};

/// What bounds connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at once.
    connections: usize,
    /// How long the TLS handshake of a connection may take, and then its first bytes. From then on HTTP/2 pings tell whether anybody is
    /// there.
    greeting: Duration,
}

/// Connections at once. One carries hundreds of calls, so these are as many programs; each costs a descriptor and some
/// tens of kilobytes while it is idle. Whoever speaks HTTP/2 may keep its place.
const MAX_CONNECTIONS: usize = 1_024;
/// Of the process's descriptors, connections take at most this share; the rest is for files.
const DESCRIPTOR_SHARE: u64 = 4;
/// Much longer than the way around the world takes.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// The preface that begins every HTTP/2 connection (RFC 9113, section 3.4).
const GREETING_BYTES: usize = 24;
/// After an error of the system's, such as no descriptor left: time for connections to end.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// A connection. Its place is free again when it is dropped.
pub(crate) struct Connection {
    stream: Socket,
    /// `None` once the caller has shown that it speaks HTTP/2.
    greeting: Option<Greeting>,
    _place: OwnedSemaphorePermit,
}

struct Greeting {
    missing_bytes: usize,
    timeout: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// The largest frame: a batch of searches is one, not several that are read and joined one by one.
const FRAME_BYTES: u32 = 256 << 10;
/// Header bytes of a call; ours are a few hundred.
const HEADER_BYTES: u32 = 16 << 10;
/// Calls that were reset before they were looked at; more, and the connection is closed. Resetting calls as fast as
/// they are made costs a caller nothing and a server much (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Calls that we reset because they broke the protocol; more, and the connection is closed (CVE-2025-8671).
const PROTOCOL_ERRORS: usize = 64;

/// A server whose connections cannot do more than any connection needs to.
pub(crate) fn bounded_server() -> Server {
    Server::builder()
        .max_frame_size(FRAME_BYTES)
        .http2_max_header_list_size(HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(PROTOCOL_ERRORS))
}

/// Accepts connections until the returned stream is dropped. The task ends a moment later, and with it the listener.
pub(crate) fn accept(
    env: &Env,
    listener: Door,
    limits: Limits,
) -> (impl Stream<Item = io::Result<Connection>> + use<>, JoinHandle<()>) {
    let (connections, stream) = mpsc::channel(1);
    let accepting = env.spawn(accept_all(env.clone(), listener, connections, limits));
    (ReceiverStream::new(stream), accepting)
}

impl Limits {
    /// Lets the process have as many descriptors as it may, and goes by how many those are.
    pub(crate) fn of_process() -> Self {
        Self::at_most(max_connections())
    }

    /// For a listener beside the one that goes by the process's descriptors.
    pub(crate) fn at_most(connections: usize) -> Self {
        Self { connections, greeting: GREETING_TIMEOUT }
    }
}

fn max_connections() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // The lower limit is there for programs that use `select`. Failing is no harm: the limit is read again.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let descriptors = getrlimit(Resource::Nofile).current.or(current).unwrap_or(u64::MAX);
    usize::try_from(descriptors / DESCRIPTOR_SHARE).unwrap_or(usize::MAX).clamp(1, MAX_CONNECTIONS)
}

async fn accept_all(env: Env, mut listener: Door, connections: mpsc::Sender<io::Result<Connection>>, limits: Limits) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let (mut full, mut failing) = (false, false);
    loop {
        let accepted = tokio::select! {
            () = connections.closed() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(socket) => {
                failing = false;
                socket
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                }
                env.sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        // Closed at once rather than left waiting: the caller learns that it should go elsewhere.
        let Ok(place) = places.clone().try_acquire_owned() else {
            if !std::mem::replace(&mut full, true) {
                tracing::warn!("as many connections as there may be: closing new ones");
            }
            continue;
        };
        full &= places.available_permits() == 0;
        // Without it, the end of an answer waits up to 40 ms for the acknowledgement of its beginning.
        if let Err(error) = stream.set_nodelay() {
            tracing::debug!(%error, "a connection ended before it began");
            continue;
        }
        let arrival = Arrival { env: env.clone(), stream, place, greeting: limits.greeting };
        let Some(tls) = listener.tls().cloned() else {
            if connections.send(Ok(arrival.begin())).await.is_err() {
                return;
            }
            continue;
        };
        // Beside this loop, which must not wait for anybody's handshake. As many of them as there are places.
        let connections = connections.clone();
        env.spawn(async move {
            let encrypted = tokio::select! {
                () = connections.closed() => return,
                encrypted = Box::pin(arrival.encrypt(&tls)) => encrypted,
            };
            if let Some(arrival) = encrypted {
                // Nobody takes it any more when the server stops.
                let _ = connections.send(Ok(arrival.begin())).await;
            }
        });
    }
}

/// A connection that has its place, and has not said anything yet.
struct Arrival {
    env: Env,
    stream: Socket,
    place: OwnedSemaphorePermit,
    greeting: Duration,
}

impl Arrival {
    /// The same one, encrypted; `None` if its handshake fails or takes too long.
    async fn encrypt(self, tls: &Acceptor) -> Option<Self> {
        let Self { env, stream, place, greeting } = self;
        let from = stream.connect_info().remote_addr();
        let why = match env.timeout(greeting, tls.accept(stream)).await {
            Ok(Ok(stream)) => return Some(Self { stream: Socket::Encrypted(Box::new(stream)), env, place, greeting }),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it did not come to an end in time".to_owned(),
        };
        // Anybody can cause it, so it is not worth a line of a usual log.
        tracing::debug!(?from, why, "a TLS handshake failed");
        None
    }

    /// From now on the caller has to speak HTTP/2.
    fn begin(self) -> Connection {
        let Self { env, stream, place, greeting } = self;
        let timeout = Box::pin(async move { env.sleep(greeting).await });
        Connection { stream, greeting: Some(Greeting { missing_bytes: GREETING_BYTES, timeout }), _place: place }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(greeting) = &mut self.greeting {
            if read.is_pending() && greeting.timeout.as_mut().poll(cx).is_ready() {
                // Not to be asked again, should somebody read on.
                self.greeting = None;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            greeting.missing_bytes = greeting.missing_bytes.saturating_sub(buf.filled().len() - before);
            if greeting.missing_bytes == 0 {
                self.greeting = None;
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use sagitta_tls::testing::{Authority, Identity};
    use sagitta_tls::{ClientTls, Connector, ServerTls};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_stream::StreamExt as _;

    use super::*;

    async fn listen(limits: Limits) -> (SocketAddr, impl Stream<Item = io::Result<Connection>> + Unpin) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        (address, accept(&Env::real(), listener.into(), limits).0)
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_at_once_and_a_place_comes_back() {
        let (address, mut incoming) = listen(Limits { connections: 2, greeting: GREETING_TIMEOUT }).await;
        let connect = || TcpStream::connect(address);
        let (_a, _b) = (connect().await.unwrap(), connect().await.unwrap());
        let first = incoming.next().await.unwrap().unwrap();
        let _second = incoming.next().await.unwrap().unwrap();
        assert!(matches!(&first.stream, Socket::System(stream) if stream.nodelay().unwrap()));
        let mut third = connect().await.unwrap();
        assert_eq!(third.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed");
        drop(first);
        let mut fourth = connect().await.unwrap();
        let mut served = incoming.next().await.unwrap().unwrap();
        served.write_all(b"x").await.unwrap();
        assert_eq!(fourth.read(&mut [0; 1]).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn whoever_does_not_begin_to_speak_http2_is_cut_off_and_whoever_did_may_be_silent() {
        let greeting = Duration::from_millis(20);
        let (address, mut incoming) = listen(Limits { connections: 9, greeting }).await;
        let mut loris = TcpStream::connect(address).await.unwrap();
        let mut served = incoming.next().await.unwrap().unwrap();
        loris.write_all(&[b'P'; GREETING_BYTES - 1]).await.unwrap();
        let error = served.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let mut honest = TcpStream::connect(address).await.unwrap();
        let mut served = incoming.next().await.unwrap().unwrap();
        honest.write_all(&[b'P'; GREETING_BYTES]).await.unwrap();
        served.read_exact(&mut [0; GREETING_BYTES]).await.unwrap();
        let silence = Env::real().timeout(3 * greeting, served.read(&mut [0; 1])).await;
        assert!(silence.is_err(), "{silence:?}");
    }

    /// A listener for TLS, and who may connect to it as `localhost`.
    async fn listen_encrypted(limits: Limits) -> (SocketAddr, impl Stream<Item = io::Result<Connection>>, Connector) {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "authority");
        let Identity { cert, key } = authority.sign("server", &["localhost"]);
        let env = Env::real();
        let acceptor = Acceptor::new(ServerTls { cert, key, client_ca: None }, &env).unwrap();
        let trusting = ClientTls { ca: Some(authority.path()), ..ClientTls::default() };
        let connector = Connector::new(trusting, &env).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (address, accept(&env, Door::from(listener).with_tls(Some(acceptor)), limits).0, connector)
    }

    #[tokio::test]
    async fn a_handshake_that_never_ends_holds_up_nobody() {
        let limits = Limits { connections: 2, greeting: GREETING_TIMEOUT };
        let (address, mut incoming, connector) = listen_encrypted(limits).await;
        let loris = TcpStream::connect(address).await.unwrap();
        let honest = TcpStream::connect(address).await.unwrap();
        let (honest, served) = tokio::join!(connector.connect("localhost", honest), incoming.next());
        let (mut honest, mut served) = (honest.unwrap(), served.unwrap().unwrap());
        assert!(matches!(&served.stream, Socket::Encrypted(_)) && served.connect_info().remote_addr().is_some());
        honest.write_all(b"x").await.unwrap();
        honest.flush().await.unwrap();
        served.read_exact(&mut [0; 1]).await.unwrap();
        let still_there = loris.try_read(&mut [0; 1]).unwrap_err();
        assert_eq!(still_there.kind(), io::ErrorKind::WouldBlock);
        let mut third = TcpStream::connect(address).await.unwrap();
        assert_eq!(third.read(&mut [0; 1]).await.unwrap_or(0), 0, "a handshake takes a place");
    }

    #[tokio::test]
    async fn a_handshake_that_takes_too_long_loses_its_place() {
        let limits = Limits { connections: 1, greeting: Duration::from_millis(200) };
        let (address, mut incoming, connector) = listen_encrypted(limits).await;
        let mut loris = TcpStream::connect(address).await.unwrap();
        let cut = Env::real().timeout(Duration::from_secs(60), loris.read(&mut [0; 1])).await;
        assert_eq!(cut.expect("cut off").unwrap_or(0), 0);
        let honest = TcpStream::connect(address).await.unwrap();
        let (honest, served) = tokio::join!(connector.connect("localhost", honest), incoming.next());
        assert!(honest.is_ok() && served.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_stream_that_is_dropped_stops_listening() {
        let (address, incoming) = listen(Limits::of_process()).await;
        drop(incoming);
        // The task that listens ends a moment later.
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
