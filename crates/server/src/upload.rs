//! Bulk uploads: one stream of chunks, each a write of its own, with back-pressure by credit.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sagitta_cluster::Collection;
use sagitta_coordinator::{Coordinator, NodeClient, Write};
use sagitta_env::Env;
use sagitta_model::{Change, ErrorKind, Problem, Wait, WriteResult};
use sagitta_wire::upload::{Ack, Chunk, Credit, UploadAnswer, UploadRequest};
use sagitta_wire::{Convert as _, Failure, reason, v1};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::failure::failure;

/// What a caller may send ahead: enough to keep the server busy while an acknowledgement travels, and what one stream can
/// make the server hold.
const WINDOW: Credit = Credit { points: 20_000, bytes: 32 << 20 };
/// Answers that wait for the caller to read them.
const ANSWERS: usize = 8;
/// How long one chunk may take, waiting for indexes to catch up included.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a stream may be silent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Serves an upload: the stream of answers to a stream of requests.
pub(crate) fn run<C: NodeClient>(
    coordinator: Arc<Coordinator<C>>,
    env: Env,
    requests: Streaming<v1::UpsertStreamRequest>,
) -> impl Stream<Item = Result<v1::UpsertStreamResponse, Status>> + Send + 'static {
    let (answers, stream) = mpsc::channel(ANSWERS);
    let upload = Upload { coordinator, env: env.clone(), answers, left: WINDOW };
    // The task ends when the caller closes its side, when it goes away (its answers can no longer be sent), or on an error.
    env.spawn(upload.serve(requests));
    ReceiverStream::new(stream)
}

struct Upload<C> {
    coordinator: Arc<Coordinator<C>>,
    env: Env,
    answers: mpsc::Sender<Result<v1::UpsertStreamResponse, Status>>,
    left: Credit,
}

/// The caller no longer reads.
struct Gone;

impl<C: NodeClient> Upload<C> {
    async fn serve(mut self, mut requests: Streaming<v1::UpsertStreamRequest>) {
        if let Err(status) = self.converse(&mut requests).await {
            let _ = self.answers.send(Err(status)).await;
        }
    }

    async fn converse(&mut self, requests: &mut Streaming<v1::UpsertStreamRequest>) -> Result<(), Status> {
        let Some(UploadRequest::Open(open)) = self.next(requests).await? else {
            return Err(broken("the first message must be `open`"));
        };
        let found = self.coordinator.find(&open.collection, self.env.deadline(CHUNK_TIMEOUT)).await;
        let collection = found.map_err(|error| failure(error, Some(&open.collection)))?;
        if self.answer(WINDOW, None).await.is_err() {
            return Ok(());
        }
        let mut expected = None;
        while let Some(request) = self.next(requests).await? {
            let UploadRequest::Chunk(chunk) = request else {
                return Err(broken("`open` is only for the first message"));
            };
            if let Some(expected) = expected
                && chunk.sequence != expected
            {
                return Err(broken(&format!("the chunk has number {}, expected {expected}", chunk.sequence)));
            }
            expected = Some(chunk.sequence.wrapping_add(1));
            let cost = chunk.cost();
            self.left = self.left.less(cost).ok_or_else(|| exceeded(cost, self.left))?;
            let sequence = chunk.sequence;
            let outcome = self.write(&collection, chunk, open.wait).await;
            self.left = self.left.plus(cost);
            if self.answer(cost, Some(Ack { sequence, outcome })).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn next(&self, requests: &mut Streaming<v1::UpsertStreamRequest>) -> Result<Option<UploadRequest>, Status> {
        let message = self.env.timeout(IDLE_TIMEOUT, requests.message()).await;
        let silent = || Failure::new(ErrorKind::Unavailable, format!("the stream was silent for {IDLE_TIMEOUT:?}"));
        match message.map_err(|_| Status::from(silent()))?? {
            Some(message) => Ok(Some(UploadRequest::from_proto(message)?)),
            None => Ok(None),
        }
    }

    /// Writes a chunk. While the shard asks for patience the chunk waits here, and with it the caller, whose credit stays used up.
    async fn write(&self, collection: &Collection, chunk: Chunk, wait: Wait) -> Result<WriteResult, Problem> {
        let mut write = chunk.write.map_err(Failure::from)?;
        write.resolve(&collection.schema).map_err(Failure::from)?;
        let request_id = write.request_id.map_or_else(|| self.env.uuid(), |id| id.0);
        let deadline = self.env.deadline(CHUNK_TIMEOUT);
        let change = Change::Upsert(write.points);
        loop {
            let write = Write { request_id, change: change.clone(), wait, deadline };
            match self.coordinator.write(collection, write).await {
                Err(error) if error.kind() == ErrorKind::Overloaded && !deadline.has_passed(&self.env) => {
                    self.pause(error.retry_after()).await;
                }
                written => return written.map_err(|error| failure(error, Some(&collection.name)).into()),
            }
        }
    }

    fn pause(&self, asked: Option<Duration>) -> impl Future<Output = ()> + '_ {
        self.env.sleep(asked.unwrap_or(sagitta_wire::DEFAULT_RETRY_AFTER))
    }

    async fn answer(&self, credit: Credit, ack: Option<Ack>) -> Result<(), Gone> {
        self.answers.send(Ok(UploadAnswer { credit, ack }.into_proto())).await.map_err(|_| Gone)
    }
}

fn broken(what: &str) -> Status {
    Failure::new(ErrorKind::Invalid, what).with_reason(reason::SEQUENCE_BROKEN).into()
}

fn exceeded(cost: Credit, left: Credit) -> Status {
    let message = format!(
        "the chunk of {} points and {} bytes exceeds the credit of {} points and {} bytes: wait for acknowledgements, send smaller chunks",
        cost.points, cost.bytes, left.points, left.bytes
    );
    Failure::new(ErrorKind::Invalid, message).with_reason(reason::CREDIT_EXCEEDED).into()
}
