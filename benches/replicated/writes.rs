//! The same writes to whoever is measured, so many at once.

use std::cell::Cell;

use anyhow::{Result, bail};
use futures_util::future::try_join_all;
use prost::Message as _;
use sagitta_benches::data::Data;
use sagitta_benches::echo::{self, Opaque};
use sagitta_benches::process::Process;
use sagitta_client::{Client, CreateCollection, Write};
use sagitta_env::Env;
use sagitta_model::{Change, CollectionName, Point, PointId, Wait};
use sagitta_wire::points::WriteRequest;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::report::Run;

/// About what the answer of a write takes.
const ANSWER_BYTES: usize = 60;

/// Real points, which are written again and again under new ids.
pub(crate) struct Points {
    collection: CollectionName,
    points: Vec<Point>,
    batch: usize,
    next: Cell<u64>,
}

impl Points {
    pub(crate) fn new(points: Vec<Point>, batch: usize) -> Result<Self> {
        Ok(Self { collection: "bench".parse()?, points, batch, next: Cell::new(0) })
    }

    /// What creates their collection, in one shard.
    pub(crate) fn collection(&self, data: &Data, replication: u32) -> Result<CreateCollection> {
        let (name, schema) = (self.collection.clone(), data.schema()?);
        Ok(CreateCollection { name, schema, shards: Some(1), replication: Some(replication), request_id: None })
    }

    /// The next write.
    fn write(&self) -> Write {
        let first = self.next.replace(self.next.get() + self.batch as u64);
        let point = |number: u64| {
            let mut point = self.points[number as usize % self.points.len()].clone();
            point.id = PointId::Num(number);
            point
        };
        let points = (first..first + self.batch as u64).map(point).collect();
        Write {
            collection: self.collection.clone(),
            change: Change::Upsert(points),
            wait: Wait::Committed,
            request_id: None,
        }
    }

    /// Mean bytes of a write as it is sent, which is about what an entry of the log takes.
    pub(crate) fn bytes(&self) -> Result<usize> {
        const SAMPLE: usize = 100;
        let sizes = (0..SAMPLE).map(|_| match self.write().into_proto() {
            WriteRequest::Upsert(request) => Ok(request.encoded_len()),
            _ => bail!("an upsert is sent as something else"),
        });
        Ok(sizes.sum::<Result<usize>>()? / SAMPLE)
    }
}

/// Sends writes with the client that everybody uses.
pub(crate) async fn writes(
    env: &Env,
    client: &Client,
    points: &Points,
    concurrency: usize,
    count: usize,
) -> Result<Run> {
    let call = || {
        let (client, write) = (client.clone(), points.write());
        async move {
            client.write(write).await?;
            Ok(())
        }
    };
    run(env, concurrency, count, call).await
}

/// The same bytes to a server that does nothing.
pub(crate) async fn echoes(env: &Env, echo: &Process, concurrency: usize, count: usize, bytes: usize) -> Result<Run> {
    let channel = Endpoint::from_shared(echo.endpoint().to_owned())?.tcp_nodelay(true).connect().await?;
    let request = Opaque::decode(Opaque::request(bytes, ANSWER_BYTES))?;
    let call = || {
        let (mut grpc, request) = (Grpc::new(channel.clone()), request.clone());
        async move {
            grpc.ready().await?;
            let codec = ProstCodec::<Opaque, Opaque>::default();
            grpc.unary(Request::new(request), PathAndQuery::from_static(echo::PATH), codec).await?;
            Ok(())
        }
    };
    run(env, concurrency, count, call).await
}

/// Makes `count` calls, so many at once, and takes the time of each.
async fn run<C: Future<Output = Result<()>>>(
    env: &Env,
    concurrency: usize,
    count: usize,
    call: impl Fn() -> C,
) -> Result<Run> {
    let left = Cell::new(count);
    let lane = async || {
        let mut took = Vec::with_capacity(count / concurrency);
        while let Some(after) = left.get().checked_sub(1) {
            left.set(after);
            // Making the write is part of it for neither side: it is made before the call is polled.
            let call = call();
            let from = env.now();
            call.await?;
            took.push(env.now() - from);
        }
        anyhow::Ok(took)
    };
    let began = env.now();
    let lanes = try_join_all((0..concurrency).map(|_| lane())).await?;
    Ok(Run { wall: env.now() - began, took: lanes.concat() })
}
