//! The client: one method per RPC.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use sagitta_env::Env;
use sagitta_model::{
    Change, CollectionInfo, CollectionName, Filter, PayloadChange, Point, PointId, Record, Schema, Target, Violation,
    Wait, WriteResult,
};
use sagitta_wire::collections::{
    CollectionPage, CreateCollection, DeleteCollection, GetCollection, ListCollections, View,
};
use sagitta_wire::points::{Count, Get, PointPage, Scroll, Write, WriteRequest, points_of};
use sagitta_wire::search::{SearchAnswer, Searches};
use sagitta_wire::v1::cluster_service_client::ClusterServiceClient;
use sagitta_wire::v1::point_service_client::PointServiceClient;
use sagitta_wire::{Convert as _, Failure, RequestId};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::config::{ClientConfig, RetryPolicy};
use crate::dial::{Dial, failure_of};
use crate::endpoint::Calls;
use crate::endpoints::{Endpoints, Tried};
use crate::error::ClientError;
use crate::retry::RetryBudget;
use crate::scroll::Scroller;
use crate::upload::{Upload, UploadOptions};

/// A client of a cluster. Cheap to clone; clones share a connection.
///
/// Of several endpoints one is asked until it cannot be reached, then the next.
///
/// Writes that name no request id get one, which stays the same over their retries, so that retries have no effect
/// twice.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) env: Env,
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) endpoints: Arc<Endpoints>,
    budget: Arc<RetryBudget>,
}

impl Client {
    /// A client of the cluster at the configured endpoints. Connects when it is first used; fails only when an endpoint
    /// cannot be one. To be called within a tokio runtime.
    pub fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        Self::connect_in(Env::real(), config)
    }

    /// Like [`Client::connect`], with time and chance of an environment.
    pub fn connect_in(env: Env, config: ClientConfig) -> Result<Self, ClientError> {
        Self::connect_over(env, config, None)
    }

    /// Like [`Client::connect_in`], over another network than the system's.
    pub fn connect_by(env: Env, config: ClientConfig, network: Arc<dyn Dial>) -> Result<Self, ClientError> {
        Self::connect_over(env, config, Some(network))
    }

    fn connect_over(env: Env, config: ClientConfig, network: Option<Arc<dyn Dial>>) -> Result<Self, ClientError> {
        let endpoints = Arc::new(Endpoints::new(&env, &config, network)?);
        Ok(Self { endpoints, budget: Arc::new(RetryBudget::full()), config: Arc::new(config), env })
    }

    /// The address that calls go to at present, as a URL with its port.
    pub fn endpoint(&self) -> &str {
        self.endpoints.address()
    }

    /// The same client and connection with another deadline for each call.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        let config = ClientConfig { deadline, ..(*self.config).clone() };
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// The same client and connection, whose calls are tried once.
    pub(crate) fn without_retries(&self) -> Self {
        let config = ClientConfig { retry: RetryPolicy::NEVER, ..(*self.config).clone() };
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// Creates a collection with as many shards and replicas as the server likes.
    pub async fn create_collection(&self, name: CollectionName, schema: Schema) -> Result<CollectionInfo, ClientError> {
        self.create(CreateCollection::new(name, schema)).await
    }

    /// Creates a collection, with a number of shards and replicas and a request id of the caller's.
    pub async fn create(&self, mut create: CreateCollection) -> Result<CollectionInfo, ClientError> {
        create.request_id.get_or_insert_with(|| self.new_request_id());
        let request = create.into_proto();
        let call = |request| {
            let mut service = self.endpoints.line().collections.clone();
            async move { service.create_collection(request).await }
        };
        let (answer, attempts) = self.call(&request, call).await?;
        CollectionInfo::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Shows a collection.
    pub async fn get_collection(&self, name: CollectionName, view: View) -> Result<CollectionInfo, ClientError> {
        let request = GetCollection { name, view }.into_proto();
        let call = |request| {
            let mut service = self.endpoints.line().collections.clone();
            async move { service.get_collection(request).await }
        };
        let (answer, attempts) = self.call(&request, call).await?;
        CollectionInfo::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Lists a page of collections by name. `page_size` 0 leaves it to the server, an empty `page_token` begins.
    pub async fn list_collections(
        &self,
        view: View,
        page_size: usize,
        page_token: String,
    ) -> Result<CollectionPage, ClientError> {
        let request = ListCollections { view }.into_proto(page_size, page_token);
        let call = |request| {
            let mut service = self.endpoints.line().collections.clone();
            async move { service.list_collections(request).await }
        };
        let (answer, attempts) = self.call(&request, call).await?;
        CollectionPage::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Deletes a collection. With `allow_missing` its absence is success.
    pub async fn delete_collection(&self, name: CollectionName, allow_missing: bool) -> Result<(), ClientError> {
        let request_id = Some(self.new_request_id());
        let request = DeleteCollection { name, allow_missing, request_id }.into_proto();
        let call = |request| {
            let mut service = self.endpoints.line().collections.clone();
            async move { service.delete_collection(request).await }
        };
        self.call(&request, call).await.map(|((), _)| ())
    }

    /// Inserts points, or replaces them where the id exists.
    pub async fn upsert(&self, collection: CollectionName, points: Vec<Point>) -> Result<WriteResult, ClientError> {
        self.change(collection, Change::Upsert(points)).await
    }

    /// Deletes points by id.
    pub async fn delete(&self, collection: CollectionName, ids: Vec<PointId>) -> Result<WriteResult, ClientError> {
        self.change(collection, Change::Delete(ids)).await
    }

    /// Deletes the points that a filter passes.
    pub async fn delete_by_filter(
        &self,
        collection: CollectionName,
        filter: Filter,
    ) -> Result<WriteResult, ClientError> {
        self.change(collection, Change::DeleteByFilter(filter)).await
    }

    /// Changes payloads.
    pub async fn update_payload(
        &self,
        collection: CollectionName,
        target: Target,
        change: PayloadChange,
    ) -> Result<WriteResult, ClientError> {
        self.change(collection, Change::UpdatePayload { target, change }).await
    }

    async fn change(&self, collection: CollectionName, change: Change) -> Result<WriteResult, ClientError> {
        self.write(Write { collection, change, wait: Wait::Committed, request_id: None }).await
    }

    /// Any of the writes, with what to wait for and a request id of the caller's.
    pub async fn write(&self, mut write: Write) -> Result<WriteResult, ClientError> {
        write.request_id.get_or_insert_with(|| self.new_request_id());
        let service = || self.endpoints.line().points.clone();
        let (answer, attempts) = match write.into_proto() {
            WriteRequest::Upsert(request) => {
                let call = |request| {
                    let mut service = service();
                    async move { service.upsert(request).await }
                };
                self.call(&request, call).await?
            }
            WriteRequest::Delete(request) => {
                let call = |request| {
                    let mut service = service();
                    async move { service.delete(request).await }
                };
                self.call(&request, call).await?
            }
            WriteRequest::DeleteByFilter(request) => {
                let call = |request| {
                    let mut service = service();
                    async move { service.delete_by_filter(request).await }
                };
                self.call(&request, call).await?
            }
            WriteRequest::UpdatePayload(request) => {
                let call = |request| {
                    let mut service = service();
                    async move { service.update_payload(request).await }
                };
                self.call(&request, call).await?
            }
        };
        WriteResult::from_proto(answer).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Inserts points in bulk over one stream, as fast as the server takes them; see [`Upload`].
    pub fn upload<S>(&self, collection: CollectionName, points: S, options: UploadOptions) -> Upload<S>
    where
        S: Stream<Item = Point> + Unpin,
    {
        Upload::new(self.clone(), collection, points, &options)
    }

    /// Reads points by id; those that do not exist are left out.
    pub async fn get(&self, get: Get) -> Result<Vec<Record>, ClientError> {
        let selection = get.selection.clone();
        let request = get.into_proto();
        let call = |request| {
            let mut service = self.endpoints.line().points.clone();
            async move { service.get(request).await }
        };
        let (answer, attempts) = self.call(&request, call).await?;
        points_of(answer, &selection).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Counts the points that a filter passes.
    pub async fn count(&self, count: Count) -> Result<u64, ClientError> {
        let request = count.into_proto();
        let call = |request| {
            let mut service = self.endpoints.line().points.clone();
            async move { service.count(request).await }
        };
        self.call(&request, call).await.map(|(answer, _)| answer.count)
    }

    /// Reads all points that a filter passes, ascending by id, in pages of `page_size` (0: the server chooses).
    pub fn scroll(&self, scroll: Scroll, page_size: usize) -> Scroller {
        Scroller::new(self.clone(), scroll, page_size)
    }

    /// Reads one page of points; [`Client::scroll`] walks all of them.
    pub async fn scroll_page(
        &self,
        scroll: Scroll,
        page_size: usize,
        page_token: String,
    ) -> Result<PointPage, ClientError> {
        let selection = scroll.selection.clone();
        let request = scroll.into_proto(page_size, page_token);
        let call = |request| {
            let mut service = self.endpoints.line().points.clone();
            async move { service.scroll(request).await }
        };
        let (answer, attempts) = self.call(&request, call).await?;
        PointPage::from_proto(answer, &selection).map_err(|error| ClientError::unreadable(error, attempts))
    }

    /// Searches, once or in a batch.
    pub async fn search(&self, searches: Searches) -> Result<SearchAnswer, ClientError> {
        let mut selections: Vec<_> = searches.searches.iter().map(|search| search.selection.clone()).collect();
        if searches.batch {
            let request = searches.into_batch();
            let call = |request| {
                let mut service = self.endpoints.line().searches.clone();
                async move { service.search_batch(request).await }
            };
            let (answer, attempts) = self.call(&request, call).await?;
            return SearchAnswer::from_batch(answer, &selections).map_err(|e| ClientError::unreadable(e, attempts));
        }
        let (Some(selection), true) = (selections.pop(), selections.is_empty()) else {
            return Err(ClientError::unsent(Violation::new("search", "is not one search; use a batch")));
        };
        let request = searches.into_single();
        let call = |request| {
            let mut service = self.endpoints.line().searches.clone();
            async move { service.search(request).await }
        };
        let (answer, attempts) = self.call(&request, call).await?;
        SearchAnswer::from_single(answer, &selection).map_err(|error| ClientError::unreadable(error, attempts))
    }

    pub(crate) fn new_request_id(&self) -> RequestId {
        RequestId(self.env.uuid())
    }

    pub(crate) fn cluster_service(&self) -> ClusterServiceClient<Calls> {
        self.endpoints.line().cluster.clone()
    }

    pub(crate) fn point_service(&self) -> PointServiceClient<Calls> {
        self.endpoints.line().points.clone()
    }

    /// Makes a call, and again as long as that makes sense. Every call may be repeated: reads change nothing, and writes
    /// carry a request id. Answers with the number of attempts.
    pub(crate) async fn call<M, A, C>(
        &self,
        message: &M,
        attempt: impl Fn(Request<M>) -> C,
    ) -> Result<(A, u32), ClientError>
    where
        M: Message + Clone,
        C: Future<Output = Result<Response<A>, Status>>,
    {
        self.check_size(message)?;
        let deadline = self.env.deadline(self.config.deadline);
        let (mut attempts, mut moves, mut tried) = (0, 0, Tried::default());
        loop {
            let at = self.endpoints.at();
            let left = deadline.remaining(&self.env).unwrap_or(self.config.deadline);
            let mut request = Request::new(message.clone());
            request.set_timeout(left);
            attempts += 1;
            let failure = match self.env.timeout(left, attempt(request)).await {
                Ok(Ok(response)) => {
                    self.budget.refill();
                    return Ok((response.into_inner(), attempts));
                }
                Ok(Err(status)) => failure_of(&status),
                Err(_) => Failure::deadline_exceeded(),
            };
            let left = deadline.remaining(&self.env).unwrap_or(self.config.deadline);
            let is_new = self.endpoints.failed(at, &failure, &mut tried);
            // The first time around the endpoints counts as one attempt.
            let wait = self.config.retry.wait(&failure, attempts - moves, &self.env);
            match wait.filter(|&wait| if is_new { !left.is_zero() } else { wait < left && self.budget.take() }) {
                // Another one need not be given time to come back.
                Some(_) if is_new => moves += 1,
                Some(wait) => self.env.sleep(wait).await,
                None => return Err(tried.into_error(failure, attempts)),
            }
        }
    }
}

impl Client {
    /// The transport would break off a message that is too large in the midst, which looks like a broken connection.
    fn check_size(&self, message: &impl Message) -> Result<(), ClientError> {
        let (bytes, most) = (message.encoded_len(), self.config.max_message_bytes);
        if bytes <= most {
            return Ok(());
        }
        let reason =
            format!("the request has {bytes} bytes when encoded, at most {most} are allowed; send less at once");
        Err(ClientError::unsent(Violation::new("", reason)))
    }
}
