//! The client: one and the same for the server and for the echo, so that they meet the same calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::{Buf, BufMut, Bytes};
use prost::Message as _;
use sagitta_client::{Search, Searches};
use sagitta_env::Env;
use sagitta_model::CollectionName;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::echo::{self, Opaque};

const SEARCH: &str = "/sagitta.v1.SearchService/Search";
const SEARCH_BATCH: &str = "/sagitta.v1.SearchService/SearchBatch";
/// Callers of the client crate send a deadline along, too.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One call, encoded: of which method, and the request.
#[derive(Clone)]
pub struct Call {
    path: &'static str,
    request: Bytes,
}

/// Connections to a process.
#[derive(Clone)]
pub struct Traffic {
    env: Env,
    channels: Vec<Channel>,
}

impl Call {
    /// One search in a collection.
    pub fn search(collection: CollectionName, search: Search) -> Result<Self> {
        let request = Searches::one(collection, search).into_single();
        Ok(Self { path: SEARCH, request: request.encode_to_vec().into() })
    }

    /// A batch of searches in a collection.
    pub fn batch(collection: CollectionName, searches: Vec<Search>) -> Result<Self> {
        let request = Searches::batch(collection, searches).into_batch();
        Ok(Self { path: SEARCH_BATCH, request: request.encode_to_vec().into() })
    }

    /// The call of the echo whose request is as large as this one's and whose answer has so many bytes.
    pub fn echo(&self, answer_bytes: usize) -> Self {
        Self { path: echo::PATH, request: Opaque::request(self.request.len(), answer_bytes) }
    }

    /// How long the request is.
    pub fn request_bytes(&self) -> usize {
        self.request.len()
    }
}

impl Traffic {
    /// Connects.
    pub async fn connect(env: &Env, endpoint: &str, connections: usize) -> Result<Self> {
        let mut channels = Vec::new();
        for _ in 0..connections.max(1) {
            let endpoint = Endpoint::from_shared(endpoint.to_owned())?.tcp_nodelay(true);
            channels.push(endpoint.connect().await?);
        }
        Ok(Self { env: env.clone(), channels })
    }

    /// Makes the calls one after the other and returns the encoded answers.
    pub async fn answers(&self, calls: &[Call]) -> Result<Vec<Bytes>> {
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            answers.push(make(self.channels[0].clone(), call).await?);
        }
        Ok(answers)
    }

    /// Makes all calls, so many at once.
    pub async fn run(&self, calls: &Arc<[Call]>, concurrency: usize) -> Result<()> {
        let next = Arc::new(AtomicUsize::new(0));
        let lane = |lane: usize| {
            let (calls, next) = (calls.clone(), next.clone());
            let channel = self.channels[lane % self.channels.len()].clone();
            self.env.spawn(async move {
                while let Some(call) = calls.get(next.fetch_add(1, Ordering::Relaxed)) {
                    make(channel.clone(), call).await?;
                }
                anyhow::Ok(())
            })
        };
        let lanes: Vec<_> = (0..concurrency).map(lane).collect();
        for lane in lanes {
            lane.await??;
        }
        Ok(())
    }
}

async fn make(channel: Channel, call: &Call) -> Result<Bytes> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await?;
    let mut request = Request::new(call.request.clone());
    request.set_timeout(TIMEOUT);
    let answer = grpc.unary(request, PathAndQuery::from_static(call.path), Encoded).await;
    Ok(answer.with_context(|| format!("calling {}", call.path))?.into_inner())
}

/// Messages that are encoded already.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
