//! `PointService`.

use std::pin::Pin;

use sagitta_coordinator::{NodeClient, Page};
use sagitta_env::Deadline;
use sagitta_model::{Record, WriteResult};
use sagitta_wire::points::{Count, Get, PointPage, Scroll, Write, get_response};
use sagitta_wire::v1::point_service_server::PointService;
use sagitta_wire::{Convert as _, Failure, v1};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use crate::deadline::deadline;
use crate::failure::failure;
use crate::upload;

#[tonic::async_trait]
impl<C: NodeClient> PointService for Services<C> {
    type UpsertStreamStream = Pin<Box<dyn Stream<Item = Result<v1::UpsertStreamResponse, Status>> + Send>>;

    async fn upsert(&self, request: Request<v1::UpsertRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let deadline = deadline(request.metadata(), &self.env);
        self.write_response(Write::from_upsert(request.into_inner()), deadline).await
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let deadline = deadline(request.metadata(), &self.env);
        self.write_response(Write::from_delete(request.into_inner()), deadline).await
    }

    async fn delete_by_filter(
        &self,
        request: Request<v1::DeleteByFilterRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let deadline = deadline(request.metadata(), &self.env);
        self.write_response(Write::from_delete_by_filter(request.into_inner()), deadline).await
    }

    async fn update_payload(
        &self,
        request: Request<v1::UpdatePayloadRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let deadline = deadline(request.metadata(), &self.env);
        self.write_response(Write::from_update_payload(request.into_inner()), deadline).await
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let deadline = deadline(request.metadata(), &self.env);
        let get = Get::from_proto(request.into_inner())?;
        let collection = self.find(&get.collection, deadline).await?;
        get.resolve(&collection.schema).map_err(Failure::from)?;
        let found = self.coordinator.get(&collection, get.ids, get.selection, &get.consistency, deadline).await;
        let records = found.map_err(|error| failure(error, Some(&collection.name)))?;
        Ok(sagitta_wire::answer(get_response(records))?)
    }

    async fn count(&self, request: Request<v1::CountRequest>) -> Result<Response<v1::CountResponse>, Status> {
        let deadline = deadline(request.metadata(), &self.env);
        let count = Count::from_proto(request.into_inner())?;
        let collection = self.find(&count.collection, deadline).await?;
        count.resolve(&collection.schema).map_err(Failure::from)?;
        let counted = self.coordinator.count(&collection, count.filter, &count.consistency, deadline).await;
        let count = counted.map_err(|error| failure(error, Some(&collection.name)))?;
        Ok(Response::new(v1::CountResponse { count }))
    }

    async fn scroll(&self, request: Request<v1::ScrollRequest>) -> Result<Response<v1::ScrollResponse>, Status> {
        let deadline = deadline(request.metadata(), &self.env);
        let (scroll, asked) = Scroll::from_proto(request.into_inner())?;
        let collection = self.find(&scroll.collection, deadline).await?;
        scroll.resolve(&collection.schema).map_err(Failure::from)?;
        let page = Page { after: asked.after, limit: asked.size, filter: scroll.filter, selection: scroll.selection };
        let read = self.coordinator.scroll(&collection, page, &scroll.consistency, deadline).await;
        let points = read.map_err(|error| failure(error, Some(&collection.name)))?;
        // A full page may be the last one; the next is then empty, which costs less than looking ahead.
        let may_go_on = points.len() == asked.size || Record::fill_a_page(&points);
        let last = points.last().filter(|_| may_go_on);
        let next_page_token = last.map(|last| asked.next_token(&last.id)).unwrap_or_default();
        Ok(sagitta_wire::answer(PointPage { points, next_page_token }.into_proto())?)
    }

    async fn upsert_stream(
        &self,
        request: Request<Streaming<v1::UpsertStreamRequest>>,
    ) -> Result<Response<Self::UpsertStreamStream>, Status> {
        let (coordinator, env) = (self.coordinator.clone(), self.env.clone());
        Ok(Response::new(Box::pin(upload::run(coordinator, env, request.into_inner()))))
    }
}

impl<C: NodeClient> Services<C> {
    async fn write_response<E: Into<Failure>>(
        &self,
        write: Result<Write, E>,
        deadline: Deadline,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let written = self.write(write.map_err(Into::into)?, deadline).await?;
        Ok(Response::new(written.into_proto()))
    }

    async fn write(&self, mut write: Write, deadline: Deadline) -> Result<WriteResult, Failure> {
        let collection = self.find(&write.collection, deadline).await?;
        write.resolve(&collection.schema)?;
        let request_id = self.request_id(write.request_id);
        let write = sagitta_coordinator::Write { request_id, change: write.change, wait: write.wait, deadline };
        self.coordinator.write(&collection, write).await.map_err(|error| failure(error, Some(&collection.name)))
    }
}
