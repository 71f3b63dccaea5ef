//! `ShardService`: what coordinators on other nodes ask of this one.

use std::sync::Arc;

use sagitta_coordinator::{NodeClient, Read};
use sagitta_env::Env;
use sagitta_wire::internal as p;
use sagitta_wire::internal::shard_service_server::{ShardService, ShardServiceServer};
use sagitta_wire::shard::{
    Count, Get, HandOver, MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, Pull, Scroll, Search, Write, count_answer, get_answer,
    hand_over_answer, pull_answer, scroll_answer, search_answer, shard_from, statistics_answer, write_answer,
};
use sagitta_wire::{Convert as _, Failure};
use tonic::{Request, Response, Status};

use super::admit;
use crate::peers::Guests;

/// Answers for the node of this process, which is asked by its own id.
pub struct Shards<N> {
    env: Env,
    guests: Arc<Guests>,
    node: Arc<N>,
}

/// The service that answers for a node, to `guests`.
pub fn shard_service<N: NodeClient>(env: Env, guests: Arc<Guests>, node: Arc<N>) -> ShardServiceServer<Shards<N>> {
    ShardServiceServer::new(Shards { env, guests, node })
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_ANSWER_BYTES)
}

// A caller that goes away ends its call: its future is dropped, and with it that of the node.
#[tonic::async_trait]
impl<N: NodeClient> ShardService for Shards<N> {
    async fn write(&self, request: Request<p::ShardWriteRequest>) -> Result<Response<p::ShardWriteResponse>, Status> {
        let (message, deadline) = admit(request, &self.guests, &self.env)?;
        let Write { shard, request_id, change, wait } = Write::from_proto(message).map_err(Failure::from)?;
        let written =
            self.node.write(self.guests.me().node.0, shard, request_id, Arc::new(change), wait, deadline).await;
        Ok(Response::new(write_answer(written)))
    }

    async fn search(
        &self,
        request: Request<p::ShardSearchRequest>,
    ) -> Result<Response<p::ShardSearchResponse>, Status> {
        let (message, deadline) = admit(request, &self.guests, &self.env)?;
        let Search { shards, queries, explain, tokens } = Search::from_proto(message).map_err(Failure::from)?;
        let read = Read { tokens, deadline };
        let found = self.node.search(self.guests.me().node.0, &shards, queries, explain, read).await;
        Ok(Response::new(search_answer(found)))
    }

    async fn get(&self, request: Request<p::ShardGetRequest>) -> Result<Response<p::ShardGetResponse>, Status> {
        let (message, deadline) = admit(request, &self.guests, &self.env)?;
        let Get { shard, ids, selection, tokens } = Get::from_proto(message).map_err(Failure::from)?;
        let found = self.node.get(self.guests.me().node.0, shard, ids, selection, Read { tokens, deadline }).await;
        Ok(Response::new(get_answer(found)))
    }

    async fn count(&self, request: Request<p::ShardCountRequest>) -> Result<Response<p::ShardCountResponse>, Status> {
        let (message, deadline) = admit(request, &self.guests, &self.env)?;
        let Count { shard, filter, tokens } = Count::from_proto(message).map_err(Failure::from)?;
        let counted = self.node.count(self.guests.me().node.0, shard, filter, Read { tokens, deadline }).await;
        Ok(Response::new(count_answer(counted)))
    }

    async fn scroll(
        &self,
        request: Request<p::ShardScrollRequest>,
    ) -> Result<Response<p::ShardScrollResponse>, Status> {
        let (message, deadline) = admit(request, &self.guests, &self.env)?;
        let Scroll { shard, page, tokens } = Scroll::from_proto(message).map_err(Failure::from)?;
        let found = self.node.scroll(self.guests.me().node.0, shard, page, Read { tokens, deadline }).await;
        Ok(Response::new(scroll_answer(found)))
    }

    async fn statistics(
        &self,
        request: Request<p::ShardStatisticsRequest>,
    ) -> Result<Response<p::ShardStatisticsResponse>, Status> {
        let (message, _) = admit(request, &self.guests, &self.env)?;
        let shard = shard_from(message.shard).map_err(Failure::from)?;
        Ok(Response::new(statistics_answer(self.node.statistics(self.guests.me().node.0, shard).await)))
    }

    async fn hand_over(&self, request: Request<p::HandOverRequest>) -> Result<Response<p::HandOverResponse>, Status> {
        let (message, deadline) = admit(request, &self.guests, &self.env)?;
        let HandOver { shard, to } = HandOver::from_proto(message).map_err(Failure::from)?;
        Ok(Response::new(hand_over_answer(self.node.hand_over(self.guests.me().node.0, shard, to, deadline).await)))
    }

    async fn pull(&self, request: Request<p::PullRequest>) -> Result<Response<p::PullResponse>, Status> {
        let (message, deadline) = admit(request, &self.guests, &self.env)?;
        let Pull { shard, question } = Pull::from_proto(message).map_err(Failure::from)?;
        Ok(Response::new(pull_answer(self.node.pull(self.guests.me().node.0, shard, question, deadline).await)))
    }
}
