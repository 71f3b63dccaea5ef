//! Turmoil's TCP as the network of servers and clients, and the trace of all that passes over it.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use sagitta_client::Dial;
use sagitta_server::{Listener, Network, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// The hash of every frame of HTTP/2 that was sent, of who sent it to whom and when, but for the contents of headers, among which is
/// the date of the machine. Clones are the same trace.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Mutex<Sums>>);

#[derive(Default)]
struct Sums {
    hasher: blake3::Hasher,
    messages: u64,
    bytes: u64,
    /// Every message, for people who look for where two runs part.
    written: Option<File>,
}

/// What a trace comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) hash: String,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Trace {
    /// One that is written to a new file of the folder that `SAGITTA_TRACES` names, if it does.
    pub(crate) fn new(seed: u64) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let written = std::env::var_os("SAGITTA_TRACES").map(|folder| {
            let path = Path::new(&folder).join(format!("{run}-of-seed-{seed}"));
            File::create(path).expect("a file for the trace")
        });
        Self(Arc::new(Mutex::new(Sums { written, ..Sums::default() })))
    }

    fn sent(&self, (from, to): (SocketAddr, SocketAddr), bytes: &[u8]) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = turmoil::sim_elapsed().unwrap_or_default().as_micros();
        if let Some(file) = &mut sums.written {
            writeln!(file, "{at} {from} {to} {} {}", bytes.len(), bytes.escape_ascii()).expect("the trace is written");
        }
        sums.hasher.update(format!("{at} {from} {to} {}\n", bytes.len()).as_bytes());
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

/// The network of one process on a host.
#[derive(Clone)]
pub(crate) struct HostNetwork {
    pub(crate) host: IpAddr,
    pub(crate) trace: Trace,
    pub(crate) sockets: Sockets,
}

/// The sockets of one process, so that those of a killed one are closed in the order in which they were made. Of itself tokio drops
/// the tasks that hold them in an order that depends on how many tasks this program has ever had, thus on earlier simulations.
#[derive(Clone, Default)]
pub(crate) struct Sockets(Arc<Mutex<Made>>);

#[derive(Default)]
struct Made {
    count: u64,
    killed: bool,
    /// What the tasks of the killed process held.
    left: BTreeMap<u64, Box<dyn Any + Send>>,
}

/// Closes what a killed process left when it is dropped, which has to be after all that holds a socket.
pub(crate) struct LastOut(Sockets);

/// A socket, or what is left of it once it is dropped.
struct Socket<S: Send + 'static> {
    /// There until it is dropped.
    socket: Option<S>,
    number: u64,
    sockets: Sockets,
}

struct HostListener {
    listener: Socket<TcpListener>,
    address: SocketAddr,
    network: HostNetwork,
}

struct Traced {
    stream: Socket<TcpStream>,
    pair: (SocketAddr, SocketAddr),
    trace: Trace,
    /// The beginning of a frame whose end has not been written.
    begun: Vec<u8>,
    /// What a client writes before the first frame.
    preface: usize,
}

/// Length (3 bytes), type, flags, stream (4): RFC 9113, section 4.1.
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// RFC 9113, section 3.4.
const PREFACE: usize = 24;

impl Sockets {
    /// The process is about to be killed.
    pub(crate) fn killed(&self) {
        self.made().killed = true;
    }

    /// To be held by what is dropped last.
    pub(crate) fn last_out(&self) -> LastOut {
        LastOut(self.clone())
    }

    fn add<S: Send + 'static>(&self, socket: S) -> Socket<S> {
        let mut made = self.made();
        made.count += 1;
        Socket { socket: Some(socket), number: made.count, sockets: self.clone() }
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LastOut {
    fn drop(&mut self) {
        let left = std::mem::take(&mut self.0.made().left);
        left.into_values().for_each(drop);
    }
}

impl<S: Send + 'static> Socket<S> {
    fn get(&mut self) -> &mut S {
        self.socket.as_mut().expect("it is there until it is dropped")
    }
}

impl<S: Send + 'static> Drop for Socket<S> {
    fn drop(&mut self) {
        let mut made = self.sockets.made();
        if made.killed
            && let Some(socket) = self.socket.take()
        {
            made.left.insert(self.number, Box::new(socket));
        }
    }
}

impl Traced {
    fn new(stream: TcpStream, network: &HostNetwork, preface: usize) -> io::Result<Self> {
        let pair = (stream.local_addr()?, stream.peer_addr()?);
        let stream = network.sockets.add(stream);
        Ok(Self { stream, pair, trace: network.trace.clone(), begun: Vec::new(), preface })
    }

    fn wrote(&mut self, bytes: &[u8]) {
        self.begun.extend(bytes);
        let preface = std::mem::take(&mut self.preface);
        if self.begun.len() < preface {
            self.preface = preface;
            return;
        }
        self.begun.drain(..preface);
        while let [a, b, c, kind, ..] = self.begun[..] {
            let end = FRAME_HEADER + u32::from_be_bytes([0, a, b, c]) as usize;
            if self.begun.len() < end {
                return;
            }
            let frame: Vec<u8> = self.begun.drain(..end).collect();
            match kind {
                HEADERS | CONTINUATION => self.trace.sent(self.pair, &frame[3..FRAME_HEADER]),
                _ => self.trace.sent(self.pair, &frame),
            }
        }
    }
}

impl HostNetwork {
    async fn to(&self, host: &str, port: u16) -> io::Result<Traced> {
        let host: IpAddr = host.parse().map_err(|_| io::Error::other("hosts are named by their addresses"))?;
        Traced::new(TcpStream::connect((host, port)).await?, self, PREFACE)
    }
}

#[tonic::async_trait]
impl Network for HostNetwork {
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        assert_eq!(address.ip(), self.host, "a host listens at its own address");
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await?;
        Ok(Box::new(HostListener { listener: self.sockets.add(listener), address, network: self.clone() }))
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
        let (stream, peer) = self.listener.get().accept().await?;
        Ok((Box::new(Traced::new(stream, &self.network, 0)?), peer))
    }
}

impl AsyncRead for Traced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Traced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.stream.get()).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = written {
            self.wrote(&buf[..bytes]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get()).poll_shutdown(cx)
    }
}
