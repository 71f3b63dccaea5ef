//! A server that notes what it is asked and does as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use sagitta_env::Env;
use sagitta_model::{
    Consistency, FoundPoint, Metric, Point, PointId, Problem, Record, SearchResult, VersionToken, WriteResult,
};
use sagitta_wire::collections::{CollectionPage, CreateCollection, DeleteCollection, GetCollection, ListCollections};
use sagitta_wire::points::{Count, Get, PointPage, Scroll, Write, get_response};
use sagitta_wire::search::{ScoredResult, SearchAnswer, Searches};
use sagitta_wire::upload::{Ack, Chunk, Credit, UploadAnswer, UploadRequest};
use sagitta_wire::v1::cluster_service_server::ClusterServiceServer;
use sagitta_wire::v1::collection_service_server::{CollectionService, CollectionServiceServer};
use sagitta_wire::v1::point_service_server::{PointService, PointServiceServer};
use sagitta_wire::v1::search_service_server::{SearchService, SearchServiceServer};
use sagitta_wire::{Convert as _, Failure, RequestId, v1};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// What to do with the next call.
pub(super) enum Turn {
    Fail(Failure),
    /// Do what was asked, and then fail.
    ApplyAndFail(Failure),
    /// Never answer.
    Hang,
}

/// What to do with the next chunk of an upload; without an order it is applied and acknowledged.
#[derive(Clone)]
pub(super) enum ChunkTurn {
    Acknowledge,
    /// Apply it and keep quiet until a chunk is acknowledged.
    ApplyQuietly,
    /// Refuse it.
    Refuse(Problem),
    /// Break the stream.
    Break(Failure),
}

/// A call that came in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) request_id: Option<RequestId>,
    pub(super) timeout: Option<String>,
}

/// A chunk that came in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SeenChunk {
    /// The how manieth stream it came on.
    pub(super) stream: usize,
    pub(super) sequence: u64,
    pub(super) request_id: RequestId,
    pub(super) ids: Vec<PointId>,
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) turns: VecDeque<Turn>,
    pub(super) chunk_turns: VecDeque<ChunkTurn>,
    pub(super) calls: Vec<Call>,
    pub(super) chunks: Vec<SeenChunk>,
    pub(super) streams: usize,
    /// Chunks that were larger than the credit that was left.
    pub(super) credit_exceeded: usize,
    /// How often each write was applied.
    pub(super) applied: BTreeMap<u128, usize>,
    /// The points as they are after all uploads.
    pub(super) points: BTreeMap<PointId, Point>,
}

#[derive(Clone)]
pub(super) struct Fake {
    pub(super) env: Env,
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Mutex<Seen>>,
    pub(super) window: Credit,
    /// A call has come in.
    pub(super) called: Arc<Notify>,
}

impl Fake {
    pub(super) async fn start() -> Self {
        Self::with_window(Credit { points: 10_000, bytes: 4 << 20 }).await
    }

    pub(super) async fn with_window(window: Credit) -> Self {
        let env = Env::real();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Self { env, address, seen: Arc::default(), window, called: Arc::default() };
        let server = Server::builder()
            .add_service(ClusterServiceServer::new(fake.clone()))
            .add_service(CollectionServiceServer::new(fake.clone()))
            .add_service(PointServiceServer::new(fake.clone()))
            .add_service(SearchServiceServer::new(fake.clone()));
        fake.env.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        fake
    }

    pub(super) fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub(super) fn order(&self, turns: impl IntoIterator<Item = Turn>) {
        self.seen().turns.extend(turns);
    }

    pub(super) fn order_chunks(&self, turns: impl IntoIterator<Item = ChunkTurn>) {
        self.seen().chunk_turns.extend(turns);
    }

    /// Notes a call, applies it once for its request id, and does what is ordered.
    pub(super) async fn turn<T>(&self, request: &Request<T>, request_id: Option<RequestId>) -> Result<(), Status> {
        let timeout = request.metadata().get("grpc-timeout").map(|value| value.to_str().unwrap().to_owned());
        let turn = {
            let mut seen = self.seen();
            seen.calls.push(Call { request_id, timeout });
            let turn = seen.turns.pop_front();
            if let Some(id) = request_id
                && !matches!(turn, Some(Turn::Fail(_)))
            {
                *seen.applied.entry(id.0).or_default() += 1;
            }
            turn
        };
        self.called.notify_one();
        match turn {
            None => Ok(()),
            Some(Turn::Fail(failure) | Turn::ApplyAndFail(failure)) => Err(failure.into()),
            Some(Turn::Hang) => std::future::pending().await,
        }
    }

    async fn written<T>(&self, request: &Request<T>, write: Write) -> Result<Response<v1::WriteResponse>, Status> {
        self.turn(request, write.request_id).await?;
        let tokens = vec![VersionToken { shard: 1, index: 2 }];
        Ok(Response::new(WriteResult { applied: 1, failures: Vec::new(), tokens }.into_proto()))
    }
}

pub(super) fn record(id: PointId) -> Record {
    Record { id, version: 3, payload: None, vectors: Default::default() }
}

fn read<T: Clone>(request: &Request<T>) -> T {
    request.get_ref().clone()
}

#[tonic::async_trait]
impl CollectionService for Fake {
    async fn create_collection(
        &self,
        request: Request<v1::CreateCollectionRequest>,
    ) -> Result<Response<v1::Collection>, Status> {
        let create = CreateCollection::from_proto(read(&request)).map_err(Failure::from)?;
        self.turn(&request, create.request_id).await?;
        let info = sagitta_model::CollectionInfo {
            name: create.name,
            id: 7,
            schema: create.schema,
            shards: create.shards.unwrap_or(1),
            replication: create.replication.unwrap_or(3),
            created_unix_micros: 1,
            statistics: None,
        };
        Ok(Response::new(info.into_proto()))
    }

    async fn get_collection(
        &self,
        request: Request<v1::GetCollectionRequest>,
    ) -> Result<Response<v1::Collection>, Status> {
        let get = GetCollection::from_proto(read(&request)).map_err(Failure::from)?;
        self.turn(&request, None).await?;
        Err(Failure::no_collection(get.name.as_str()).into())
    }

    async fn list_collections(
        &self,
        request: Request<v1::ListCollectionsRequest>,
    ) -> Result<Response<v1::ListCollectionsResponse>, Status> {
        let (_, page) = ListCollections::from_proto(request.get_ref())?;
        self.turn(&request, None).await?;
        let next_page_token = match page.after {
            None => page.next_token(&"docs".parse().unwrap()),
            Some(_) => String::new(),
        };
        Ok(Response::new(CollectionPage { collections: Vec::new(), next_page_token }.into_proto()))
    }

    async fn delete_collection(&self, request: Request<v1::DeleteCollectionRequest>) -> Result<Response<()>, Status> {
        let delete = DeleteCollection::from_proto(read(&request)).map_err(Failure::from)?;
        self.turn(&request, delete.request_id).await?;
        Ok(Response::new(()))
    }
}

#[tonic::async_trait]
impl PointService for Fake {
    type UpsertStreamStream = UnboundedReceiverStream<Result<v1::UpsertStreamResponse, Status>>;

    async fn upsert(&self, request: Request<v1::UpsertRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let write = Write::from_upsert(read(&request)).map_err(Failure::from)?;
        self.written(&request, write).await
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let write = Write::from_delete(read(&request)).map_err(Failure::from)?;
        self.written(&request, write).await
    }

    async fn delete_by_filter(
        &self,
        request: Request<v1::DeleteByFilterRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let write = Write::from_delete_by_filter(read(&request)).map_err(Failure::from)?;
        self.written(&request, write).await
    }

    async fn update_payload(
        &self,
        request: Request<v1::UpdatePayloadRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let write = Write::from_update_payload(read(&request)).map_err(Failure::from)?;
        self.written(&request, write).await
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let get = Get::from_proto(read(&request))?;
        self.turn(&request, None).await?;
        Ok(Response::new(get_response(get.ids.into_iter().map(record).collect())))
    }

    async fn count(&self, request: Request<v1::CountRequest>) -> Result<Response<v1::CountResponse>, Status> {
        let count = Count::from_proto(read(&request))?;
        self.turn(&request, None).await?;
        Ok(Response::new(v1::CountResponse { count: u64::from(count.consistency == Consistency::Strong) }))
    }

    /// Seven points, numbered from one.
    async fn scroll(&self, request: Request<v1::ScrollRequest>) -> Result<Response<v1::ScrollResponse>, Status> {
        let (_, page) = Scroll::from_proto(read(&request))?;
        self.turn(&request, None).await?;
        let all = (1..=7).map(PointId::Num).filter(|&id| page.after.is_none_or(|after| id > after));
        let points: Vec<_> = all.take(page.size).map(record).collect();
        let last = points.last().filter(|last| last.id < PointId::Num(7));
        let next_page_token = last.map(|last| page.next_token(&last.id)).unwrap_or_default();
        Ok(Response::new(PointPage { points, next_page_token }.into_proto()))
    }

    async fn upsert_stream(
        &self,
        request: Request<Streaming<v1::UpsertStreamRequest>>,
    ) -> Result<Response<Self::UpsertStreamStream>, Status> {
        self.turn(&request, None).await?;
        let (answers, stream) = mpsc::unbounded_channel();
        self.env.spawn(self.clone().serve_upload(request.into_inner(), answers));
        Ok(Response::new(UnboundedReceiverStream::new(stream)))
    }
}

type Answers = mpsc::UnboundedSender<Result<v1::UpsertStreamResponse, Status>>;

impl Fake {
    async fn serve_upload(self, mut requests: Streaming<v1::UpsertStreamRequest>, answers: Answers) {
        let stream = {
            let mut seen = self.seen();
            seen.streams += 1;
            seen.streams
        };
        let answer = |credit, ack| {
            let _ = answers.send(Ok(UploadAnswer { credit, ack }.into_proto()));
        };
        let mut left = self.window;
        let mut quiet = Vec::new();
        while let Ok(Some(message)) = requests.message().await {
            let chunk = match UploadRequest::from_proto(message) {
                Ok(UploadRequest::Open(_)) => {
                    answer(self.window, None);
                    continue;
                }
                Ok(UploadRequest::Chunk(chunk)) => chunk,
                Err(error) => panic!("the client sent {error}"),
            };
            let cost = chunk.cost();
            match left.less(cost) {
                Some(less) => left = less,
                None => self.seen().credit_exceeded += 1,
            }
            let turn = self.seen().chunk_turns.pop_front().unwrap_or(ChunkTurn::Acknowledge);
            let sequence = chunk.sequence;
            let outcome = self.note(stream, chunk, &turn);
            match turn {
                ChunkTurn::Break(failure) => {
                    let _ = answers.send(Err(failure.into()));
                    return;
                }
                ChunkTurn::ApplyQuietly => quiet.push((cost, Ack { sequence, outcome })),
                ChunkTurn::Acknowledge | ChunkTurn::Refuse(_) => {
                    quiet.push((cost, Ack { sequence, outcome }));
                    for (cost, ack) in quiet.drain(..) {
                        left = left.plus(cost);
                        answer(cost, Some(ack));
                    }
                }
            }
        }
        for (cost, ack) in quiet {
            answer(cost, Some(ack));
        }
    }

    /// Notes a chunk and, unless it is refused, applies it: once for its request id.
    fn note(&self, stream: usize, chunk: Chunk, turn: &ChunkTurn) -> Result<WriteResult, Problem> {
        let write = chunk.write.unwrap();
        let (request_id, points) = (write.request_id.unwrap(), write.points);
        let ids = points.iter().map(|point| point.id).collect();
        let mut seen = self.seen();
        seen.chunks.push(SeenChunk { stream, sequence: chunk.sequence, request_id, ids });
        match turn {
            ChunkTurn::Refuse(problem) => return Err(problem.clone()),
            ChunkTurn::Break(_) => {}
            ChunkTurn::Acknowledge | ChunkTurn::ApplyQuietly => {
                if seen.applied.insert(request_id.0, 1).is_none() {
                    seen.points.extend(points.into_iter().map(|point| (point.id, point)));
                }
            }
        }
        Ok(WriteResult { applied: chunk.points, ..WriteResult::default() })
    }
}

#[tonic::async_trait]
impl SearchService for Fake {
    async fn search(&self, request: Request<v1::SearchRequest>) -> Result<Response<v1::SearchResponse>, Status> {
        let searches = Searches::from_single(read(&request))?;
        self.turn(&request, None).await?;
        Ok(Response::new(found(&searches).into_single()))
    }

    async fn search_batch(
        &self,
        request: Request<v1::SearchBatchRequest>,
    ) -> Result<Response<v1::SearchBatchResponse>, Status> {
        let searches = Searches::from_batch(read(&request))?;
        self.turn(&request, None).await?;
        let mut answer = found(&searches).into_batch();
        if searches.allow_partial {
            answer.results[0].hits[0].id = None;
        }
        Ok(Response::new(answer))
    }
}

/// For each search one hit, whose id is the first component.
fn found(searches: &Searches) -> SearchAnswer {
    let results = searches.searches.iter().map(|search| {
        let id = PointId::Num(search.query.vector[0] as u64);
        let hits = vec![FoundPoint { id, similarity: -4.0, record: None }];
        ScoredResult::new(SearchResult { hits, ..SearchResult::default() }, Metric::L2)
    });
    SearchAnswer { results: results.collect(), coverage: Default::default() }
}
