//! What a call costs on the wire.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use sagitta_consensus::NodeId;
use sagitta_coordinator::{NodeClient as _, Tokens};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::super::RemoteNodes;
use super::rig::*;
use crate::peers::AddressBook;
use crate::{Listener, Net, Network, Stream};

/// The first frame of each write: its kind (RFC 9113, section 6).
type Writes = Arc<Mutex<Vec<u8>>>;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
/// Where a frame says its kind.
const KIND: usize = 3;

/// The system's network, with somebody who watches.
struct Watched(Writes);

struct WatchedStream {
    stream: TcpStream,
    writes: Writes,
}

#[tonic::async_trait]
impl Network for Watched {
    async fn listen(&self, _: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((host, port)).await?;
        Ok(Box::new(WatchedStream { stream, writes: self.0.clone() }))
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if let (Poll::Ready(Ok(_)), Some(kind)) = (&written, bufs.first().and_then(|buf| buf.get(KIND))) {
            self.writes.lock().unwrap().push(*kind);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_request_is_one_write() {
    const CALLS: usize = 20;
    let served = Served::start(identity(2)).await;
    let writes = Writes::default();
    let book = AddressBook::on(Net::other(Arc::new(Watched(writes.clone()))));
    book.set(NodeId(2), served.uri());
    let remote = RemoteNodes::new_in(served.env.clone(), identity(1), book, brisk());
    for _ in 0..CALLS {
        let found = remote.search(2, &[SHARD], vec![query(3)].into(), true, read(Tokens::Latest)).await;
        assert!(found[0].1.is_ok(), "{found:?}");
    }
    // Pings and what concerns the whole connection go by themselves.
    let calls: Vec<_> = writes.lock().unwrap().iter().copied().filter(|kind| [DATA, HEADERS].contains(kind)).collect();
    assert_eq!(calls, [HEADERS; CALLS], "the message and its end go with the headers");
}
