//! Requests of one message, sent at once.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, http};

/// Lets the first message of a request say whether it is the last one.
///
/// As gRPC bodies come from tonic, only asking for what comes after a message tells that nothing does: an empty frame of its own ends
/// the request then. It costs a way through the kernel here, and where it arrives late a wake-up there. A stream of
/// messages is sent as it would be.
pub fn ended_early(request: http::Request<Body>) -> http::Request<Body> {
    request.map(|body| Body::new(EndedEarly { body, second: Second::Unasked }))
}

struct EndedEarly {
    body: Body,
    second: Second,
}

/// What comes after the first frame.
enum Second {
    Unasked,
    /// Not there yet, or passed on.
    Asked,
    Never,
    Frame(Result<Frame<Bytes>, Status>),
}

impl http_body::Body for EndedEarly {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match std::mem::replace(&mut this.second, Second::Asked) {
            Second::Frame(frame) => Poll::Ready(Some(frame)),
            Second::Never => {
                this.second = Second::Never;
                Poll::Ready(None)
            }
            Second::Asked => Pin::new(&mut this.body).poll_frame(cx),
            Second::Unasked => {
                let Poll::Ready(first) = Pin::new(&mut this.body).poll_frame(cx) else {
                    this.second = Second::Unasked;
                    return Poll::Pending;
                };
                let second = first.as_ref().map(|_| Pin::new(&mut this.body).poll_frame(cx));
                match second {
                    Some(Poll::Ready(Some(frame))) => this.second = Second::Frame(frame),
                    Some(Poll::Ready(None)) | None => this.second = Second::Never,
                    Some(Poll::Pending) => {}
                }
                Poll::Ready(first)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.second {
            Second::Never => true,
            Second::Frame(_) => false,
            Second::Unasked | Second::Asked => self.body.is_end_stream(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body::Body as _;

    use super::*;

    /// Tells that it is over only to whoever asks for more, as tonic's does.
    struct Frames(VecDeque<Poll<&'static str>>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.0.pop_front() {
                Some(Poll::Ready(text)) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))),
                Some(Poll::Pending) => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }

    /// What is sent, poll by poll, and after which of them it is known that nothing comes.
    fn sent(left: impl IntoIterator<Item = Poll<&'static str>>) -> Vec<(Option<String>, bool)> {
        let frames = Frames(left.into_iter().collect());
        let (_, mut body) = ended_early(http::Request::new(Body::new(frames))).into_parts();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut sent = Vec::new();
        loop {
            let text = match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(None) => return sent,
                Poll::Ready(Some(frame)) => {
                    let data = frame.expect("no error").into_data().expect("data");
                    Some(String::from_utf8(data.to_vec()).expect("text"))
                }
                Poll::Pending => None,
            };
            sent.push((text, body.is_end_stream()));
        }
    }

    #[test]
    fn one_message_says_that_it_is_the_last_and_a_stream_stays_as_it_is() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(sent([Poll::Ready("a")]), [(text("a"), true)]);
        assert_eq!(sent([Poll::Pending, Poll::Ready("a")]), [(None, false), (text("a"), true)]);
        assert_eq!(sent([]), []);
        let both = [(text("a"), false), (text("b"), false)];
        assert_eq!(sent([Poll::Ready("a"), Poll::Ready("b")]), both);
        assert_eq!(sent([Poll::Ready("a"), Poll::Pending, Poll::Ready("b")]), both, "nothing is asked for twice");
    }
}
