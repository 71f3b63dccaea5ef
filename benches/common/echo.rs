//! A gRPC server that does nothing: the measure of what any tonic server costs.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::Bytes;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// The path of its only method.
pub const PATH: &str = "/sagitta.bench.Echo/Echo";

/// The largest answer it gives.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// Where a request says how long its answer is to be.
const LENGTH_BYTES: usize = 4;

/// Opaque bytes. A request's first four are the length of the answer's bytes, little-endian.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Opaque {
    /// What is sent.
    #[prost(bytes = "bytes", tag = "1")]
    pub bytes: Bytes,
}

impl Opaque {
    /// An encoded request of `request` bytes in all that asks for an encoded answer of `answer` bytes in all.
    pub fn request(request: usize, answer: usize) -> Bytes {
        let mut bytes = vec![0; payload_of(request)];
        bytes[..LENGTH_BYTES].copy_from_slice(&(payload_of(answer) as u32).to_le_bytes());
        prost::Message::encode_to_vec(&Self { bytes: bytes.into() }).into()
    }
}

/// Bytes in a message that has so many when it is encoded.
fn payload_of(encoded: usize) -> usize {
    let longest = encoded.saturating_sub(2);
    let payload = (0..=longest).rev().find(|payload| 1 + prost::length_delimiter_len(*payload) + payload <= encoded);
    payload.unwrap_or_default()
}

/// Serves on a free port, and says which on standard output.
pub async fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("echo is ready: http://{}", listener.local_addr()?);
    let echo = Echo { zeros: Bytes::from(vec![0; MAX_ANSWER_BYTES]) };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(tonic::transport::Server::builder().add_service(echo).serve_with_incoming(incoming).await?)
}

#[derive(Clone)]
struct Echo {
    zeros: Bytes,
}

impl UnaryService<Opaque> for Echo {
    type Response = Opaque;
    type Future = std::future::Ready<Result<Response<Opaque>, Status>>;

    fn call(&mut self, request: Request<Opaque>) -> Self::Future {
        let length = request.get_ref().bytes.first_chunk::<LENGTH_BYTES>().copied().map(u32::from_le_bytes);
        std::future::ready(match length {
            Some(length) if length as usize <= MAX_ANSWER_BYTES => {
                Ok(Response::new(Opaque { bytes: self.zeros.slice(..length as usize) }))
            }
            _ => Err(Status::invalid_argument("says no length that there can be")),
        })
    }
}

// By hand what `tonic-build` generates for a service of one method.
impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(echo, request).await) })
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "sagitta.bench.Echo";
}
