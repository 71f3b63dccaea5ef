//! `CollectionService`.

use sagitta_coordinator::{NewCollection, NodeClient};
use sagitta_wire::collections::{
    CollectionPage, CreateCollection, DeleteCollection, GetCollection, ListCollections, View,
};
use sagitta_wire::v1::collection_service_server::CollectionService;
use sagitta_wire::{Convert as _, v1};
use tonic::{Request, Response, Status};

use super::Services;
use crate::deadline::deadline;
use crate::failure::failure;

#[tonic::async_trait]
impl<C: NodeClient> CollectionService for Services<C> {
    async fn create_collection(
        &self,
        request: Request<v1::CreateCollectionRequest>,
    ) -> Result<Response<v1::Collection>, Status> {
        let deadline = deadline(request.metadata(), &self.env);
        let create = CreateCollection::from_proto(request.into_inner()).map_err(sagitta_wire::Failure::from)?;
        let request_id = self.request_id(create.request_id);
        let name = create.name.clone();
        let CreateCollection { schema, shards, replication, .. } = create;
        let new = NewCollection { name: create.name, schema, shards, replication };
        let created = self.coordinator.create_collection(request_id, new, deadline).await;
        Ok(Response::new(created.map_err(|error| failure(error, Some(&name)))?.into_proto()))
    }

    async fn get_collection(
        &self,
        request: Request<v1::GetCollectionRequest>,
    ) -> Result<Response<v1::Collection>, Status> {
        let deadline = deadline(request.metadata(), &self.env);
        let get = GetCollection::from_proto(request.into_inner()).map_err(sagitta_wire::Failure::from)?;
        let found = self.coordinator.collection(&get.name, get.view == View::Full, deadline).await;
        Ok(Response::new(found.map_err(|error| failure(error, Some(&get.name)))?.into_proto()))
    }

    async fn list_collections(
        &self,
        request: Request<v1::ListCollectionsRequest>,
    ) -> Result<Response<v1::ListCollectionsResponse>, Status> {
        let deadline = deadline(request.metadata(), &self.env);
        let (list, page) = ListCollections::from_proto(request.get_ref())?;
        let listed =
            self.coordinator.collections(page.after.as_ref(), page.size, list.view == View::Full, deadline).await;
        let (collections, more) = listed.map_err(|error| failure(error, None))?;
        let last = collections.last().filter(|_| more);
        let next_page_token = last.map(|last| page.next_token(&last.name)).unwrap_or_default();
        Ok(Response::new(CollectionPage { collections, next_page_token }.into_proto()))
    }

    async fn delete_collection(&self, request: Request<v1::DeleteCollectionRequest>) -> Result<Response<()>, Status> {
        let deadline = deadline(request.metadata(), &self.env);
        let delete = DeleteCollection::from_proto(request.into_inner()).map_err(sagitta_wire::Failure::from)?;
        let request_id = self.request_id(delete.request_id);
        let name = delete.name.clone();
        let deleted = self.coordinator.delete_collection(request_id, delete.name, delete.allow_missing, deadline).await;
        Ok(Response::new(deleted.map_err(|error| failure(error, Some(&name)))?))
    }
}
