//! `SearchService`.

use sagitta_coordinator::{NodeClient, Search};
use sagitta_env::Deadline;
use sagitta_wire::search::{ScoredResult, SearchAnswer, Searches};
use sagitta_wire::v1::search_service_server::SearchService;
use sagitta_wire::{Failure, v1};
use tonic::{Request, Response, Status};

use super::Services;
use crate::deadline::deadline;
use crate::failure::failure;

#[tonic::async_trait]
impl<C: NodeClient> SearchService for Services<C> {
    async fn search(&self, request: Request<v1::SearchRequest>) -> Result<Response<v1::SearchResponse>, Status> {
        let deadline = deadline(request.metadata(), &self.env);
        let answer = self.answer(Searches::from_single(request.into_inner())?, deadline).await?;
        Ok(sagitta_wire::answer(answer.into_single())?)
    }

    async fn search_batch(
        &self,
        request: Request<v1::SearchBatchRequest>,
    ) -> Result<Response<v1::SearchBatchResponse>, Status> {
        let deadline = deadline(request.metadata(), &self.env);
        let answer = self.answer(Searches::from_batch(request.into_inner())?, deadline).await?;
        Ok(sagitta_wire::answer(answer.into_batch())?)
    }
}

impl<C: NodeClient> Services<C> {
    async fn answer(&self, mut searches: Searches, deadline: Deadline) -> Result<SearchAnswer, Failure> {
        let collection = self.find(&searches.collection, deadline).await?;
        let metrics = searches.resolve(&collection.schema)?;
        let search = Search {
            explain: searches.searches.iter().any(|search| search.explain),
            queries: searches.searches.into_iter().map(|search| (search.query, search.selection)).collect(),
            consistency: searches.consistency,
            allow_partial: searches.allow_partial,
            deadline,
        };
        let found = self.coordinator.search(&collection, search).await;
        let (results, coverage) = found.map_err(|error| failure(error, Some(&collection.name)))?;
        let results = results.into_iter().zip(metrics).map(|(result, metric)| ScoredResult::new(result, metric));
        Ok(SearchAnswer { results: results.collect(), coverage })
    }
}
