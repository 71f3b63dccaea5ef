//! Connections without encryption.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::HandshakeError;

/// A connection without encryption, which tells when the other side answers in TLS.
pub struct Plaintext<S> {
    stream: S,
    has_answered: bool,
    told: Arc<AtomicBool>,
}

/// The first byte of what a server answers in TLS to what is not: an alert (RFC 8446, section 5.1). In HTTP/2 the first three bytes
/// are the length of a small frame.
const ALERT: u8 = 21;

impl<S> Plaintext<S> {
    /// A connection on which nothing was read yet.
    pub fn new(stream: S) -> Self {
        Self::telling(stream, Arc::default())
    }

    /// The same, which says in `told` whether the other side has answered in TLS, for those who do not get to see the error itself.
    pub fn telling(stream: S, told: Arc<AtomicBool>) -> Self {
        Self { stream, has_answered: false, told }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Plaintext<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let (false, Some(&first)) = (self.has_answered, buf.filled().get(before)) {
            self.has_answered = true;
            self.told.store(first == ALERT, Ordering::Release);
            if first == ALERT {
                return Poll::Ready(Err(io::Error::other(HandshakeError::SpeaksTls)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Plaintext<S> {
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
