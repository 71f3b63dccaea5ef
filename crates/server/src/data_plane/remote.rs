//! The other nodes, for a coordinator.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagitta_consensus::NodeId;
use sagitta_coordinator::{Elsewhere, NodeClient, Page, Read, ShardError, ShardRef, ShardStatistics};
use sagitta_env::{Deadline, Env};
use sagitta_model::{
    Change, ErrorKind, Filter, PointId, Record, SearchQuery, SearchResult, Selection, Wait, WriteResult,
};
use sagitta_wire::internal as p;
use sagitta_wire::internal::control_service_client::ControlServiceClient;
use sagitta_wire::internal::shard_service_client::ShardServiceClient;
use sagitta_wire::peer::{HELLO_METADATA, refusal};
use sagitta_wire::shard::{
    Answered, Count, Get, HandOver, MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, Pull, Scroll, Write, search_request,
};
use sagitta_wire::{Convert as _, Failure};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};

use super::line::{Calls, Connection, Line, Lines};
use crate::peers::{AddressBook, PeerIdentity, Timing};

/// To connect: several times the way around the world. Who waits has other nodes to ask.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A node that falls silent is given up within the sum of these, so that what it led can be asked of its successor: about as long as
/// an election takes. Raft's own streams have more patience, for a break costs them more.
const PING_EVERY: Duration = Duration::from_millis(500);
const PING_TIMEOUT: Duration = Duration::from_millis(1_500);
/// For a call that names no deadline and costs the node nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// A deadline further away than this is none.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// The other nodes, each at the other end of one connection, which is made when it is first wanted and follows the address book.
///
/// A node that cannot be reached gives [`Elsewhere::Unreachable`]: nothing was sent. The first call waits for the connection, at
/// most a second; after a failure calls are told at once, and what they wanted is tried beside them. A call that breaks
/// after it was sent gives `Unavailable` and nothing else: what came of it is not known. Deadlines are sent along, and a
/// future that is dropped ends its call on the other node, too.
pub struct RemoteNodes {
    env: Env,
    lines: Arc<Lines>,
    /// The tasks of the lines end when it is dropped.
    stop: watch::Sender<bool>,
}

impl RemoteNodes {
    /// The nodes of an address book. To be used within a tokio runtime.
    pub fn new(env: Env, me: PeerIdentity, book: AddressBook) -> Self {
        let timing = Timing {
            handshake: CONNECT_TIMEOUT,
            ping_every: PING_EVERY,
            ping_timeout: PING_TIMEOUT,
            ..Timing::default()
        };
        Self::new_in(env, me, book, timing)
    }

    pub(super) fn new_in(env: Env, me: PeerIdentity, book: AddressBook, timing: Timing) -> Self {
        let lines = Lines::new(env.clone(), me, book, timing);
        Self { env, lines, stop: watch::Sender::new(false) }
    }

    /// Sends a request to a node and reads what it answers.
    async fn call<M, R, F>(
        &self,
        node: u64,
        deadline: Deadline,
        message: impl FnOnce() -> M,
        asked: &R::Asked,
        send: impl FnOnce(Calls, Request<M>) -> F,
    ) -> Result<R::Value, ShardError>
    where
        R: Answered,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let node = NodeId(node);
        let line = self.lines.get(node, &self.stop.subscribe());
        let line = line.ok_or_else(|| unreachable(node, "the address book does not have it"))?;
        let connection = line.connection(&self.env, deadline).await.map_err(|why| unreachable(node, &why))?;
        let mut request = Request::new(message());
        request.metadata_mut().insert_bin(HELLO_METADATA, line.hello());
        if let Some(left) = deadline.remaining(&self.env) {
            if left.is_zero() {
                return Err(ShardError::new(ErrorKind::Unavailable, "the deadline passed"));
            }
            request.set_timeout(left.min(MAX_TIMEOUT));
        }
        let response = send(connection.calls.clone(), request).await;
        let response = response.map_err(|status| failed(node, &line, &connection, &status))?;
        response.into_inner().answered(asked).map_err(|violation| {
            let message = format!("the answer of {node} is malformed: {violation}");
            ShardError::new(ErrorKind::Internal, message)
        })
    }
}

fn shards(calls: Calls) -> ShardServiceClient<Calls> {
    ShardServiceClient::new(calls)
        .max_encoding_message_size(MAX_REQUEST_BYTES)
        .max_decoding_message_size(MAX_ANSWER_BYTES)
}

fn unreachable(node: NodeId, why: &str) -> ShardError {
    let message = format!("{node} cannot be reached: {why}");
    ShardError { elsewhere: Some(Elsewhere::Unreachable), ..ShardError::new(ErrorKind::Unavailable, message) }
}

/// What a call that ended without an answer means.
fn failed(node: NodeId, line: &Line, connection: &Connection, status: &Status) -> ShardError {
    let failure = Failure::from_status(status);
    let causes = std::iter::successors(std::error::Error::source(status), |error| error.source());
    if causes.into_iter().any(|cause| cause.is::<tonic::ConnectError>()) {
        line.broke(connection, &failure.message);
        return unreachable(node, &failure.message);
    }
    let elsewhere = [
        refusal::OTHER_CLUSTER,
        refusal::OTHER_NODE,
        refusal::OWN_MESSAGE,
        refusal::OTHER_PROTOCOL,
        refusal::OTHER_INCARNATION,
        refusal::OTHER_RUN,
        refusal::REMOVED,
    ];
    // Whoever listens there is not the node, or no node at all.
    if elsewhere.contains(&&*failure.reason) || status.code() == Code::Unimplemented {
        return unreachable(node, &failure.message);
    }
    let message = format!("{node}: {}", failure.message);
    ShardError { retry_after: failure.retry_after, ..ShardError::new(failure.kind, message) }
}

/// The same of a call that changes something: nobody knows whether it did, unless the node saw nothing of it or could not read it.
fn of_a_change(error: ShardError) -> ShardError {
    let in_doubt = error.elsewhere.is_none() && !error.is_of_the_request();
    ShardError { in_doubt, ..error }
}

impl NodeClient for RemoteNodes {
    async fn write(
        &self,
        node: u64,
        shard: ShardRef,
        request_id: u128,
        change: Arc<Change>,
        wait: Wait,
        deadline: Deadline,
    ) -> Result<WriteResult, ShardError> {
        let write = || Write { shard, request_id, change: Arc::unwrap_or_clone(change), wait }.into_proto();
        self.call(node, deadline, write, &(), |calls, request| async move { shards(calls).write(request).await })
            .await
            .map_err(of_a_change)?
    }

    async fn search(
        &self,
        node: u64,
        refs: &[ShardRef],
        queries: Arc<[(SearchQuery, Selection)]>,
        explain: bool,
        read: Read,
    ) -> Vec<(u64, Result<Vec<SearchResult>, ShardError>)> {
        let asked = (refs.to_vec(), queries.clone());
        let search = || search_request(refs, &queries, explain, &read.tokens);
        let answers = self.call(node, read.deadline, search, &asked, |calls, request| async move {
            shards(calls).search(request).await
        });
        match answers.await {
            Ok(answers) => answers,
            Err(error) => refs.iter().map(|shard| (shard.shard, Err(error.clone()))).collect(),
        }
    }

    async fn get(
        &self,
        node: u64,
        shard: ShardRef,
        ids: Vec<PointId>,
        selection: Selection,
        read: Read,
    ) -> Result<Vec<Record>, ShardError> {
        let asked = (ids.len(), selection.clone());
        let get = || Get { shard, ids, selection, tokens: read.tokens }.into_proto();
        self.call(node, read.deadline, get, &asked, |calls, request| async move { shards(calls).get(request).await })
            .await?
    }

    async fn count(
        &self,
        node: u64,
        shard: ShardRef,
        filter: Option<Arc<Filter>>,
        read: Read,
    ) -> Result<u64, ShardError> {
        let count = || Count { shard, filter, tokens: read.tokens }.into_proto();
        self.call(node, read.deadline, count, &(), |calls, request| async move { shards(calls).count(request).await })
            .await?
    }

    async fn scroll(&self, node: u64, shard: ShardRef, page: Page, read: Read) -> Result<Vec<Record>, ShardError> {
        let asked = (page.limit, page.selection.clone());
        let scroll = || Scroll { shard, page, tokens: read.tokens }.into_proto();
        self.call(
            node,
            read.deadline,
            scroll,
            &asked,
            |calls, request| async move { shards(calls).scroll(request).await },
        )
        .await?
    }

    async fn statistics(&self, node: u64, shard: ShardRef) -> Result<ShardStatistics, ShardError> {
        let statistics = || p::ShardStatisticsRequest { shard: Some(shard.into_proto()) };
        let deadline = self.env.deadline(DEFAULT_TIMEOUT);
        self.call(
            node,
            deadline,
            statistics,
            &(),
            |calls, request| async move { shards(calls).statistics(request).await },
        )
        .await?
    }

    async fn propose(&self, node: u64, command: Bytes, deadline: Deadline) -> Result<Bytes, ShardError> {
        let propose = || p::ProposeRequest { command };
        self.call(node, deadline, propose, &(), |calls, request| async move {
            ControlServiceClient::new(calls).propose(request).await
        })
        .await
        .map_err(of_a_change)?
    }

    async fn read_index(&self, node: u64, deadline: Deadline) -> Result<u64, ShardError> {
        self.call(
            node,
            deadline,
            || p::ReadIndexRequest {},
            &(),
            |calls, request| async move { ControlServiceClient::new(calls).read_index(request).await },
        )
        .await?
    }

    async fn hand_over(&self, node: u64, shard: ShardRef, to: u64, deadline: Deadline) -> Result<(), ShardError> {
        let hand_over = || HandOver { shard, to }.into_proto();
        self.call(
            node,
            deadline,
            hand_over,
            &(),
            |calls, request| async move { shards(calls).hand_over(request).await },
        )
        .await?
    }

    async fn pull(&self, node: u64, shard: ShardRef, question: Bytes, deadline: Deadline) -> Result<Bytes, ShardError> {
        let pull = || Pull { shard, question }.into_proto();
        self.call(node, deadline, pull, &(), |calls, request| async move { shards(calls).pull(request).await }).await?
    }
}
