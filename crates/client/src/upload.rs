//! Bulk uploads that heed the server's credit and survive broken connections.

mod batch;
mod lane;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use sagitta_model::{CollectionName, ErrorKind, Point, Wait, WriteResult};
use sagitta_wire::Failure;
use sagitta_wire::upload::{Ack, Open, UploadAnswer};
use tokio_stream::{Stream, StreamExt as _};

use self::batch::{Batch, Batcher};
use self::lane::Lane;
use crate::client::Client;
use crate::endpoints::Tried;
use crate::error::ClientError;

/// How to upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadOptions {
    /// What each acknowledgement waits for.
    pub wait: Wait,
    /// The size at which a chunk is sent, in bytes; at most 4 MiB. A chunk is sent earlier when the source has no more
    /// points ready and the server has nothing left to do.
    pub chunk_bytes: u64,
    /// The number of points at which a chunk is sent; at most 10,000.
    pub chunk_points: usize,
    /// How long the server may take to acknowledge anything at all before the connection is taken for broken.
    pub patience: Duration,
    /// Lets request ids follow from the positions of points, so that an upload that is begun again after a crash repeats
    /// those of the chunks that it repeats. Absent: each chunk gets an id by chance.
    pub run: Option<UploadRun>,
}

/// An upload and all its continuations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadRun {
    /// Its identity: a UUID made by chance when it is begun for the first time, kept by its continuations and never
    /// used for anything else.
    pub id: u128,
    /// The position of the stream's first point in the whole source.
    pub first: u64,
}

/// The fate of one chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct UploadAck {
    /// The position of its first point in the source, counted from zero.
    pub first: u64,
    /// Its number of points.
    pub points: usize,
    /// What was written, or why nothing was. Positions and paths in it are relative to the chunk.
    pub outcome: Result<WriteResult, ClientError>,
}

/// An upload of the points of a stream. It makes progress while [`Upload::next`] is awaited.
///
/// Points are sent in chunks, each a write with a request id of its own. Chunks that were not acknowledged when the
/// connection broke are sent again with the same ids, so that nothing is written twice and nothing is left out. Of two
/// points with the same id the later one stays, unless the server refused a chunk for the time being: that chunk is
/// sent again after the others.
#[derive(Debug)]
pub struct Upload<S> {
    client: Client,
    open: Open,
    patience: Duration,
    /// `None` once it has ended.
    source: Option<S>,
    batcher: Batcher,
    /// Complete and not sent, or to be sent again.
    queue: VecDeque<Batch>,
    lane: Option<Lane>,
    /// The endpoint that the lane was opened at, and what came of others since the last acknowledgement.
    at: usize,
    tried: Tried,
    /// Attempts since the last acknowledgement.
    attempts: u32,
    over: bool,
}

impl Default for UploadOptions {
    fn default() -> Self {
        Self {
            wait: Wait::Committed,
            chunk_bytes: 2 << 20,
            chunk_points: 2_000,
            patience: Duration::from_secs(180),
            run: None,
        }
    }
}

impl<S: Stream<Item = Point> + Unpin> Upload<S> {
    pub(crate) fn new(client: Client, collection: CollectionName, points: S, options: &UploadOptions) -> Self {
        Self {
            batcher: Batcher::new(client.env.clone(), options),
            open: Open { collection, wait: options.wait },
            patience: options.patience,
            source: Some(points),
            queue: VecDeque::new(),
            lane: None,
            at: 0,
            tried: Tried::default(),
            attempts: 0,
            over: false,
            client,
        }
    }

    /// The fate of the next chunk, or `None` when all points are acknowledged. An error ends the upload; what was not
    /// acknowledged until then may have been written or not.
    pub async fn next(&mut self) -> Option<Result<UploadAck, ClientError>> {
        while !self.over {
            if self.is_done() {
                self.over = true;
                if let Some(lane) = self.lane.take() {
                    lane.close(&self.client.env, self.client.config.deadline).await;
                }
                return None;
            }
            match self.step().await {
                Ok(None) => {}
                Ok(Some(ack)) => return Some(Ok(ack)),
                Err(error) => {
                    self.over = true;
                    self.lane = None;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// Everything that was opened, read, sent and awaited is through.
    fn is_done(&self) -> bool {
        let idle = self.lane.as_ref().is_some_and(Lane::is_idle);
        idle && self.source.is_none() && self.batcher.is_empty() && self.queue.is_empty()
    }

    /// Sends what may be sent and waits for one thing to happen.
    async fn step(&mut self) -> Result<Option<UploadAck>, ClientError> {
        let lane = match self.lane.take() {
            Some(lane) => lane,
            None => match self.open_lane().await {
                Ok(lane) => lane,
                Err(failure) => return self.pause(failure).await.map(|()| None),
            },
        };
        let lane = self.lane.insert(lane);
        lane.send(&mut self.queue);

        let wants_points = self.queue.is_empty() && self.source.is_some();
        let idle = lane.is_idle();
        let patience = if idle { Duration::MAX } else { self.patience };
        tokio::select! {
            biased;
            answer = self.client.env.timeout(patience, lane.receive()) => {
                let silent = |_| Failure::new(ErrorKind::Unavailable, format!("nothing was acknowledged for {patience:?}"));
                return match answer.map_err(silent).flatten() {
                    Ok(answer) => self.note(answer).await,
                    Err(failure) => {
                        self.break_off();
                        self.pause(failure).await.map(|()| None)
                    }
                };
            }
            () = fill(&mut self.source, &mut self.batcher, &mut self.queue, idle), if wants_points => {}
        }
        Ok(None)
    }

    async fn open_lane(&mut self) -> Result<Lane, Failure> {
        self.at = self.client.endpoints.at();
        let open = Lane::open(self.client.point_service(), self.open.clone());
        let opened = self.client.env.timeout(self.client.config.deadline, open).await;
        opened
            .unwrap_or_else(|_| Err(Failure::new(ErrorKind::Unavailable, "the server did not open the upload in time")))
    }

    /// Takes note of an answer.
    async fn note(&mut self, answer: UploadAnswer) -> Result<Option<UploadAck>, ClientError> {
        let Some(lane) = &mut self.lane else { return Ok(None) };
        lane.grant(answer.credit);
        let Some(Ack { sequence, outcome }) = answer.ack else { return Ok(None) };
        let Some(mut batch) = lane.acknowledge(sequence) else {
            let message = format!("the server acknowledged chunk {sequence} out of order");
            return Err(ClientError::new(Failure::new(ErrorKind::Internal, message), 1));
        };
        self.attempts = 0;
        self.tried = Tried::default();
        batch.attempts += 1;
        let outcome = match outcome.map_err(Failure::from) {
            Ok(result) => Ok(result),
            Err(failure) => match self.client.config.retry.wait(&failure, batch.attempts, &self.client.env) {
                Some(wait) => {
                    self.client.env.sleep(wait).await;
                    self.queue.push_front(batch);
                    return Ok(None);
                }
                None => Err(ClientError::new(failure, batch.attempts)),
            },
        };
        Ok(Some(UploadAck { first: batch.first, points: batch.points.len(), outcome }))
    }

    /// Takes back from a broken stream what has to be sent again.
    fn break_off(&mut self) {
        let unacknowledged = self.lane.take().map(Lane::into_batches).unwrap_or_default();
        let later = std::mem::take(&mut self.queue);
        self.queue = unacknowledged;
        self.queue.extend(later);
    }

    /// Waits before the next attempt, or gives up.
    async fn pause(&mut self, failure: Failure) -> Result<(), ClientError> {
        self.attempts += 1;
        self.client.endpoints.failed(self.at, &failure, &mut self.tried);
        match self.client.config.retry.wait(&failure, self.attempts, &self.client.env) {
            Some(wait) => {
                self.client.env.sleep(wait).await;
                Ok(())
            }
            None => Err(std::mem::take(&mut self.tried).into_error(failure, self.attempts)),
        }
    }
}

/// Reads points until there is a batch to send or no more points. When the server has nothing to do, a batch is what
/// is ready. May be dropped between any two points.
async fn fill<S: Stream<Item = Point> + Unpin>(
    source: &mut Option<S>,
    batcher: &mut Batcher,
    queue: &mut VecDeque<Batch>,
    idle: bool,
) {
    while let Some(points) = source {
        let next = if idle && !batcher.is_empty() { ready(points).await } else { Poll::Ready(points.next().await) };
        match next {
            Poll::Ready(Some(point)) => {
                if let Some(batch) = batcher.push(point) {
                    queue.push_back(batch);
                    return;
                }
            }
            Poll::Ready(None) => {
                *source = None;
                queue.extend(batcher.take());
            }
            Poll::Pending => {
                queue.extend(batcher.take());
                return;
            }
        }
    }
}

/// The next point, if it is there already.
async fn ready<S: Stream + Unpin>(points: &mut S) -> Poll<Option<S::Item>> {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *points).poll_next(context))).await
}
