//! Where other nodes get the files of states from.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use sagitta_consensus::{FilesError, GroupId, Part, Parts, Shelf};
use sagitta_env::Env;
use sagitta_model::{ErrorKind, Violation};
use sagitta_wire::Failure;
use sagitta_wire::internal::state_service_server::StateService;
use sagitta_wire::internal::{FetchRequest, FetchResponse, PartsRequest, PartsResponse};
use sagitta_wire::peer::Hello;
use sagitta_wire::state::{AskParts, FetchState, ListedPart, ListedParts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::super::listener::judge;
use super::super::{Guests, PeerCounters, Timing, until_told};
use super::{CHUNK_BYTES, Lending};

/// Files that are streamed from here at once. A node fetches few states at a time, each of them file by file.
const MAX_STREAMS: usize = 16;
/// Chunks between the disk and the connection: one is being sent while the next one is read.
const CHUNKS_AHEAD: usize = 2;

/// Serves `StateService`.
#[derive(Clone)]
pub(crate) struct StateDesk {
    env: Env,
    guests: Arc<Guests>,
    lending: Lending,
    timing: Timing,
    counters: Arc<PeerCounters>,
    places: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

/// A file, and how much of it is still to be read.
struct Reading {
    file: File,
    left: u64,
}

impl StateDesk {
    pub(crate) fn new(
        env: &Env,
        guests: Arc<Guests>,
        lending: Lending,
        timing: Timing,
        counters: Arc<PeerCounters>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(MAX_STREAMS));
        Self { env: env.clone(), guests, lending, timing, counters, places, closing }
    }

    async fn open(&self, request: Request<FetchRequest>) -> Result<(Reading, OwnedSemaphorePermit), Failure> {
        let hello = Hello::read_from(request.metadata())?;
        judge(&hello, self.guests.me())?;
        self.guests.hears(&hello)?;
        let wanted = FetchState::from_proto(request.into_inner())?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            let message =
                format!("{MAX_STREAMS} files of states are being fetched from {} already", self.guests.me().node);
            Failure::new(ErrorKind::Overloaded, message)
        })?;
        let shelf = self.lending.shelf.clone();
        let opening = self.env.spawn_blocking(move || open(&shelf, &wanted));
        let opened = opening.await.map_err(|_| Failure::new(ErrorKind::Internal, "opening a file failed"))?;
        Ok((opened?, place))
    }

    async fn list(&self, request: Request<PartsRequest>) -> Result<ListedParts, Failure> {
        let hello = Hello::read_from(request.metadata())?;
        judge(&hello, self.guests.me())?;
        self.guests.hears(&hello)?;
        let group = GroupId(AskParts::from_proto(request.into_inner())?.group);
        let parts = self.lending.shelf.parts(group);
        let parts = parts.ok_or_else(|| {
            Failure::new(ErrorKind::NotFound, format!("{} has no member of {group}", self.guests.me().node))
        })?;
        listed(parts).map_err(failure)
    }

    /// Streams a file until it ends, or nobody takes it.
    async fn stream(
        self,
        mut reading: Reading,
        _place: OwnedSemaphorePermit,
        chunks: mpsc::Sender<Result<FetchResponse, Status>>,
    ) {
        while reading.left > 0 {
            // Disks take their time, and an async thread must not wait for one.
            let read = self.env.spawn_blocking(move || {
                let chunk = reading.next();
                (reading, chunk)
            });
            let Ok((back, chunk)) = read.await else { return };
            reading = back;
            let message = match chunk {
                Ok(data) => Ok(FetchResponse { data }),
                Err(error) => {
                    let message = format!("{} cannot read the file: {error}", self.guests.me().node);
                    Err(Failure::new(ErrorKind::Unavailable, message).into())
                }
            };
            let is_end = message.is_err();
            let bytes = message.as_ref().map_or(0, |message: &FetchResponse| message.data.len());
            let sending = async {
                self.lending.throttle.pass(bytes).await;
                self.env.timeout(self.timing.fetch_patience, chunks.send(message)).await
            };
            tokio::select! {
                biased;
                () = until_told(self.closing.clone()) => {
                    let end = Failure::new(ErrorKind::Unavailable, format!("{} is shutting down", self.guests.me().node));
                    // Whoever reads nothing learns it from the connection.
                    let _ = chunks.try_send(Err(end.into()));
                    return;
                }
                // Else the other node has gone, or takes nothing.
                sent = sending => if is_end || !matches!(sent, Ok(Ok(()))) { return },
            }
        }
    }
}

#[tonic::async_trait]
impl StateService for StateDesk {
    type FetchStream = ReceiverStream<Result<FetchResponse, Status>>;

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let from = request.remote_addr();
        let (reading, place) = self.open(request).await.inspect_err(|failure| {
            if failure.kind == ErrorKind::Denied {
                self.counters.refused.add(1);
            }
            tracing::debug!(?from, why = failure.message, "handed out no state");
        })?;
        let (chunks, stream) = mpsc::channel(CHUNKS_AHEAD);
        self.env.spawn(self.clone().stream(reading, place, chunks));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn parts(&self, request: Request<PartsRequest>) -> Result<Response<PartsResponse>, Status> {
        let from = request.remote_addr();
        let listed = self.list(request).await.inspect_err(|failure| {
            if failure.kind == ErrorKind::Denied {
                self.counters.refused.add(1);
            }
            tracing::debug!(?from, why = failure.message, "told nothing of parts");
        })?;
        Ok(Response::new(listed.into_proto()))
    }
}

fn listed(parts: Parts) -> Result<ListedParts, FilesError> {
    let Parts { leads, working, parts } = parts;
    let part = |Part { manifest, rows, last }: Part| Ok(ListedPart { manifest: manifest.encode()?, rows, last });
    Ok(ListedParts { leads, working, parts: parts.into_iter().map(part).collect::<Result<_, _>>()? })
}

impl Reading {
    fn next(&mut self) -> io::Result<Bytes> {
        let wanted = usize::try_from(self.left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let mut data = vec![0; wanted];
        self.file.read_exact(&mut data)?;
        self.left -= wanted as u64;
        Ok(data.into())
    }
}

fn open(shelf: &Shelf, wanted: &FetchState) -> Result<Reading, Failure> {
    let (mut file, entry) = shelf.open(GroupId(wanted.group), wanted.offer, &wanted.file).map_err(failure)?;
    let Some(left) = entry.bytes.checked_sub(wanted.offset) else {
        let what = format!("is {}, the file has {} bytes", wanted.offset, entry.bytes);
        return Err(Failure::invalid(Violation::new("offset", what)));
    };
    let sought = file.seek(SeekFrom::Start(wanted.offset));
    sought.map_err(|error| Failure::new(ErrorKind::Unavailable, format!("{}: {error}", entry.name)))?;
    Ok(Reading { file, left })
}

fn failure(error: FilesError) -> Failure {
    Failure::new(error.kind(), error.to_string())
}
