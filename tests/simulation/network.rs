//! Turmoil's TCP as the network of servers and clients, and the trace of all that passes over it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use sagitta_client::Dial;
use sagitta_server::{Listener, Network, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// The hash of every byte that was sent, of who sent it to whom and when. Clones are the same trace.
#[derive(Clone, Default)]
pub(crate) struct Trace(Arc<Mutex<Sums>>);

#[derive(Default)]
struct Sums {
    hasher: blake3::Hasher,
    messages: u64,
    bytes: u64,
}

/// What a trace comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) hash: String,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Trace {
    fn sent(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.note(&format!("{from} {to}"), bytes);
    }

    /// Notes anything that must be the same in every run of a seed.
    pub(crate) fn note(&self, what: &str, bytes: &[u8]) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = turmoil::sim_elapsed().unwrap_or_default().as_micros();
        sums.hasher.update(format!("{at} {what} {}\n", bytes.len()).as_bytes());
        sums.hasher.update(bytes);
        sums.messages += 1;
        sums.bytes += bytes.len() as u64;
    }

    pub(crate) fn digest(&self) -> Digest {
        let sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = sums.hasher.finalize().to_hex().as_str()[..16].to_owned();
        Digest { hash, messages: sums.messages, bytes: sums.bytes }
    }
}

/// The network of one host.
#[derive(Clone)]
pub(crate) struct HostNetwork {
    pub(crate) host: IpAddr,
    pub(crate) trace: Trace,
}

struct HostListener {
    listener: TcpListener,
    address: SocketAddr,
    trace: Trace,
}

struct Traced {
    stream: TcpStream,
    pair: (SocketAddr, SocketAddr),
    trace: Trace,
}

impl Traced {
    fn new(stream: TcpStream, trace: &Trace) -> io::Result<Self> {
        let pair = (stream.local_addr()?, stream.peer_addr()?);
        Ok(Self { stream, pair, trace: trace.clone() })
    }
}

impl HostNetwork {
    async fn to(&self, host: &str, port: u16) -> io::Result<Traced> {
        let host: IpAddr = host.parse().map_err(|_| io::Error::other("hosts are named by their addresses"))?;
        Traced::new(TcpStream::connect((host, port)).await?, &self.trace)
    }
}

#[tonic::async_trait]
impl Network for HostNetwork {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        assert_eq!(address.ip(), self.host, "a host listens at its own address");
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await?;
        Ok(Box::new(HostListener { listener, address, trace: self.trace.clone() }))
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.to(host, port).await?))
    }
}

#[tonic::async_trait]
impl Dial for HostNetwork {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn sagitta_client::Stream>> {
        Ok(Box::new(self.to(host, port).await?))
    }
}

#[tonic::async_trait]
impl Listener for HostListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((Box::new(Traced::new(stream, &self.trace)?), peer))
    }
}

impl AsyncRead for Traced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Traced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = written {
            let (from, to) = self.pair;
            self.trace.sent(from, to, &buf[..bytes]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
