//! One stream of an upload, from its opening until it ends or breaks.

use std::collections::VecDeque;
use std::time::Duration;

use sagitta_env::Env;
use sagitta_model::ErrorKind;
use sagitta_wire::upload::{Credit, Open, UploadAnswer, chunk_message, cost};
use sagitta_wire::v1::point_service_client::PointServiceClient;
use sagitta_wire::{Convert as _, Failure, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use super::batch::Batch;
use crate::dial::failure_of;
use crate::endpoint::Calls;

/// A stream that is open.
#[derive(Debug)]
pub(super) struct Lane {
    /// Unbounded as a queue, because the server's credit bounds what is put into it.
    requests: mpsc::UnboundedSender<v1::UpsertStreamRequest>,
    answers: Streaming<v1::UpsertStreamResponse>,
    credit: Credit,
    next_sequence: u64,
    /// Sent and not acknowledged, in the order of sending.
    in_flight: VecDeque<(u64, Batch)>,
}

impl Lane {
    /// Opens a stream and waits for its first credit.
    pub(super) async fn open(mut service: PointServiceClient<Calls>, open: Open) -> Result<Self, Failure> {
        let (requests, stream) = mpsc::unbounded_channel();
        let gone = |_| Failure::new(ErrorKind::Unavailable, "the upload ended before it began");
        requests.send(open.into_proto()).map_err(gone)?;
        let opened = service.upsert_stream(UnboundedReceiverStream::new(stream)).await;
        let answers = opened.map_err(|status| failure_of(&status))?.into_inner();
        let credit = Credit::default();
        let mut lane = Self { requests, answers, credit, next_sequence: 1, in_flight: VecDeque::new() };
        let first = lane.receive().await?;
        lane.grant(first.credit);
        Ok(lane)
    }

    /// Nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Sends batches as far as the credit reaches.
    pub(super) fn send(&mut self, queue: &mut VecDeque<Batch>) {
        while queue.front().is_some_and(|batch| self.credit.less(batch.most_cost()).is_some()) {
            let Some(batch) = queue.pop_front() else { return };
            let chunk = batch.chunk(self.next_sequence);
            // The estimate was no less.
            let Some(left) = self.credit.less(cost(&chunk)) else { return queue.push_front(batch) };
            // A stream that broke says so when it is read.
            let _ = self.requests.send(chunk_message(chunk));
            self.credit = left;
            self.in_flight.push_back((self.next_sequence, batch));
            self.next_sequence += 1;
        }
    }

    /// Waits for the next answer. May be dropped and called again without losing one.
    pub(super) async fn receive(&mut self) -> Result<UploadAnswer, Failure> {
        let answer = self.answers.message().await.map_err(|status| failure_of(&status))?;
        let answer = answer.ok_or_else(|| Failure::new(ErrorKind::Unavailable, "the server ended the upload"))?;
        UploadAnswer::from_proto(answer).map_err(|error| Failure::new(ErrorKind::Internal, error.to_string()))
    }

    /// Takes note of credit.
    pub(super) fn grant(&mut self, credit: Credit) {
        self.credit = self.credit.plus(credit);
    }

    /// The batch that is acknowledged; `None` when it was not its turn.
    pub(super) fn acknowledge(&mut self, sequence: u64) -> Option<Batch> {
        let expected = self.in_flight.front().is_some_and(|(sent, _)| *sent == sequence);
        self.in_flight.pop_front().filter(|_| expected).map(|(_, batch)| batch)
    }

    /// What was sent and not acknowledged.
    pub(super) fn into_batches(self) -> VecDeque<Batch> {
        self.in_flight.into_iter().map(|(_, batch)| batch).collect()
    }

    /// Tells the server that there is no more, and waits until it has understood; it does not matter if it does not.
    pub(super) async fn close(self, env: &Env, patience: Duration) {
        let Self { requests, mut answers, .. } = self;
        drop(requests);
        let end = async { while let Ok(Some(_)) = answers.message().await {} };
        let _ = env.timeout(patience, end).await;
    }
}
