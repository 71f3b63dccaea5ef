//! Brings a call to a replica: to the leader of a shard's group, or to whichever replica answers first.

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use sagitta_cluster::{Collection, ShardDescriptor};
use sagitta_env::Deadline;
use sagitta_model::ErrorKind;

use crate::client::{Elsewhere, NodeClient, Read, ShardError, ShardRef, Tokens};
use crate::control::{Control, ControlError};
use crate::reports::Reports;
use crate::{Coordinator, Error};

/// The first wait before a shard is asked again; doubles up to [`MAX_PAUSE`]. An election takes one to two seconds.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(320);
/// A coordinator that is cut off from the others learns of no later placement, and must say what the nodes that it reaches say.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(1);

impl<C: NodeClient> Coordinator<C> {
    /// Calls the leader of a shard's group, wherever it is by now. Repeated calls are harmless: reads are, and writes carry
    /// their request id.
    pub(crate) async fn at_leader<T, F>(
        &self,
        collection: &Collection,
        shard: &ShardDescriptor,
        deadline: Deadline,
        call: impl Fn(u64, ShardRef) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, ShardError>>,
    {
        let mut route = Route::new(shard);
        // Whatever refuses a later try says nothing of an earlier one.
        let mut in_doubt = false;
        loop {
            let node = route.leader(&self.reports);
            // A node that stands still would be given up only once it has been silent for long; its successor is known before.
            let led = unless(self.reports.superseded(shard.id, node), call(node, route.reference()));
            let mut error = match self.env.until(deadline, led).await {
                Ok(Some(Ok(answer))) => return Ok(answer),
                Ok(Some(Err(error))) => error,
                Ok(None) => superseded(node),
                Err(_) => return Err(Error::DeadlineExceeded),
            };
            in_doubt |= error.in_doubt;
            error.in_doubt = in_doubt && !error.is_of_the_request();
            if !route.may_pass(&error) {
                return Err(Error::Shard { shard: shard.id, error });
            }
            route.learn(&self.reports, node, &error);
            let pause = route.pause_after(node);
            if self.env.until(deadline, self.wait(pause, &error, deadline)).await.is_err() {
                return Err(Error::Shard { shard: shard.id, error });
            }
            route.follow(&self.control, collection).map_err(|gone| gone.in_doubt_if(in_doubt, shard.id))?;
        }
    }

    /// Reads from a replica: from the leader if the latest is wanted, else from one that is well and not busy, from another
    /// one if that fails, and from another one beside it if that is slow.
    pub(crate) async fn at_replica<T, F>(
        &self,
        collection: &Collection,
        shard: &ShardDescriptor,
        read: &Read,
        call: impl Fn(u64, ShardRef) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, ShardError>>,
    {
        if let Tokens::Latest = read.tokens {
            return self.at_leader(collection, shard, read.deadline, call).await.map_err(Error::of_a_read);
        }
        let mut route = Route::new(shard);
        let mut rounds = 0..ROUNDS;
        loop {
            let round = self.env.until(read.deadline, self.one_round(&route, &read.tokens, &call)).await;
            let (node, error) = match round {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failed)) => failed,
                Err(_) => return Err(Error::DeadlineExceeded),
            };
            if !route.may_pass(&error) || !is_divided(&error) && rounds.next().is_none() {
                return Err(Error::Shard { shard: shard.id, error });
            }
            let pause = route.pause_after(node);
            if self.env.until(read.deadline, self.wait(pause, &error, read.deadline)).await.is_err() {
                return Err(Error::Shard { shard: shard.id, error });
            }
            route.follow(&self.control, collection)?;
        }
    }

    /// Asks the replicas of a shard, each once at most, for the first answer. The error is what is worth most of what they said,
    /// with who said it.
    async fn one_round<T, F>(
        &self,
        route: &Route<'_>,
        tokens: &Tokens,
        call: &impl Fn(u64, ShardRef) -> F,
    ) -> Result<T, (u64, ShardError)>
    where
        F: Future<Output = Result<T, ShardError>>,
    {
        let ask = |node| {
            let (load, answer) = (self.reports.load(node), call(node, route.reference()));
            async move {
                let timed = load.begin(&self.env);
                let answer = answer.await;
                if answer.is_ok() {
                    timed.answered();
                }
                (node, answer)
            }
        };
        let mut left = route.ranked(&self.reports, tokens).into_iter();
        let mut asked = left.next().expect("invariant: a shard has a replica");
        let mut calls = FuturesUnordered::from_iter([ask(asked)]);
        let (mut hedges, mut failed) = (hedges(tokens), None);
        loop {
            let answered = match hedges > 0 && left.len() > 0 {
                true => self.alarm.timeout(self.reports.load(asked).usual(), calls.next()).await,
                false => Ok(calls.next().await),
            };
            match answered {
                Ok(Some((_, Ok(answer)))) => return Ok(answer),
                Ok(Some((node, Err(error)))) if error.is_of_the_request() => return Err((node, error)),
                Ok(Some((node, Err(error)))) => keep_hopeful(&mut failed, node, error, route),
                Ok(None) => return Err(failed.expect("invariant: every call has failed")),
                Err(_) => hedges -= 1,
            }
            if let Some(node) = left.next() {
                asked = node;
                calls.push(ask(node));
            }
        }
    }

    /// Waits before a shard is asked again, for which this was the answer.
    pub(crate) async fn wait(&self, pause: Pause, error: &ShardError, deadline: Deadline) {
        if is_divided(error) {
            if self.env.timeout(pause.wait, self.is_split(&pause)).await.is_err() {
                let _ = self.env.timeout(CATCH_UP_WITHIN, self.catch_up(deadline)).await;
            }
            return;
        }
        // Whoever leads by then is asked at once; else the pause was long enough.
        let other = self.reports.find(|reports| reports.leader(pause.shard).filter(|leader| *leader != pause.node));
        // Replicas may go on naming a leader that is gone, so nobody is asked without any pause.
        self.env.sleep(MIN_PAUSE).await;
        let _ = self.env.timeout(pause.wait.saturating_sub(MIN_PAUSE), other).await;
        if let Some(Elsewhere::Stale { .. } | Elsewhere::NotHosted) = error.elsewhere {
            // The node may know of a later placement. If that cannot be had now, the one that we have must do.
            let _ = self.env.timeout(CATCH_UP_WITHIN, self.catch_up(deadline)).await;
        }
    }
}

impl<C> Coordinator<C> {
    /// Waits until the shard is routed to as of another split.
    async fn is_split(&self, pause: &Pause) {
        let mut applied = self.control.applied();
        loop {
            // Marked as seen before looking: what comes meanwhile is looked at again.
            applied.mark_unchanged();
            let state = self.control.state();
            if state.shard(pause.shard).map_or(true, |(_, shard)| split_index(shard) != pause.split) {
                return;
            }
            if applied.changed().await.is_err() {
                return;
            }
        }
    }
}

/// What `call` comes to, or `None` if `until` ends before.
async fn unless<T>(until: impl Future<Output = ()>, call: impl Future<Output = T>) -> Option<T> {
    match select(pin!(call), pin!(until)).await {
        Either::Left((answer, _)) => Some(answer),
        Either::Right(_) => None,
    }
}

/// What a node is taken to have said when another one turns out to lead before it answers.
fn superseded(node: u64) -> ShardError {
    let what = format!("node {node} did not answer before another one took over its lead");
    ShardError { in_doubt: true, ..ShardError::new(ErrorKind::Unavailable, what) }
}

/// How long to wait before a shard is asked again, unless somebody other than the node leads before.
pub(crate) struct Pause {
    shard: u64,
    /// The split that it was asked by.
    split: u64,
    node: u64,
    wait: Duration,
}

/// After every replica of a shard has failed, all are asked so often again: the route may have been stale, and a replica that
/// was just placed may not have opened yet.
pub(crate) const ROUNDS: usize = 4;

/// How many more replicas are asked beside one that is slow. A slow one is busy, and more calls would make all others so; one that
/// has not applied yet what is wanted waits, which costs nothing, and then another one may have.
pub(crate) fn hedges(tokens: &Tokens) -> usize {
    match tokens {
        Tokens::Any => 1,
        Tokens::AtLeast(_) => usize::MAX,
        // Only the leader can tell; when another one leads than was asked, one of the others is that.
        Tokens::Latest => 1,
    }
}

/// Keeps the failure that leaves most hope.
pub(crate) fn keep_hopeful(failed: &mut Option<(u64, ShardError)>, node: u64, error: ShardError, route: &Route<'_>) {
    let is_better = |known: &ShardError| !route.may_pass(known) || route.may_pass(&error) && !is_divided(known);
    if failed.as_ref().is_none_or(|(_, known)| is_better(known)) {
        *failed = Some((node, error));
    }
}

/// Whether a shard is being split: that takes as long as an election, and then there is an answer.
pub(crate) fn is_divided(error: &ShardError) -> bool {
    error.elsewhere == Some(Elsewhere::Divided)
}

/// Where a shard's replicas are, and how often they were asked in vain.
pub(crate) struct Route<'a> {
    placed: Cow<'a, ShardDescriptor>,
    turn: usize,
    pause: Duration,
}

impl<'a> Route<'a> {
    pub(crate) fn new(shard: &'a ShardDescriptor) -> Self {
        Self { placed: Cow::Borrowed(shard), turn: 0, pause: MIN_PAUSE }
    }

    pub(crate) fn reference(&self) -> ShardRef {
        ShardRef { shard: self.placed.id, epoch: self.placed.epoch, split: split_index(&self.placed) }
    }

    /// Who is said to lead, or the next one to try.
    fn leader(&mut self, reports: &Reports) -> u64 {
        let replicas = &self.placed.replicas;
        let known = reports.leader(self.placed.id).filter(|node| replicas.contains(node));
        known.unwrap_or_else(|| {
            self.turn += 1;
            replicas[self.turn % replicas.len()]
        })
    }

    /// The replicas in the order in which they are worth asking.
    pub(crate) fn ranked(&self, reports: &Reports, tokens: &Tokens) -> Vec<u64> {
        let shard = self.placed.id;
        let mut ranked = reports.rank(shard, &self.placed.replicas, tokens.index_of(shard).unwrap_or(0));
        if let (Tokens::Latest, Some(leader)) = (tokens, reports.leader(shard)) {
            // Only the leader can tell; the others can at least say who that is.
            ranked.sort_by_key(|node| *node != leader);
        }
        ranked
    }

    /// Whether it is worth asking again a moment later: a leader may be elected, a replica open, a placement be learned of.
    pub(crate) fn may_pass(&self, error: &ShardError) -> bool {
        let others = self.placed.replicas.len() > 1;
        match (error.elsewhere, error.kind) {
            // A lone replica that could not be opened stays closed.
            (Some(_), kind) => others || kind == ErrorKind::Unavailable,
            // A replica that is damaged leads no longer.
            (None, ErrorKind::Unavailable | ErrorKind::Corrupt) => others,
            (None, _) => false,
        }
    }

    /// Keeps what an error tells of who leads.
    pub(crate) fn learn(&self, reports: &Reports, node: u64, error: &ShardError) {
        match error.elsewhere {
            Some(Elsewhere::NotLeader { hint: Some(leader) }) if leader != node => {
                reports.note_leader(self.placed.id, leader);
            }
            Some(Elsewhere::Stale { .. } | Elsewhere::Divided) => {}
            _ => reports.suspect(self.placed.id, node),
        }
    }

    /// How long to wait after a node failed; longer every time.
    pub(crate) fn pause_after(&mut self, node: u64) -> Pause {
        let wait = self.pause;
        self.pause = (2 * wait).min(MAX_PAUSE);
        Pause { shard: self.placed.id, split: split_index(&self.placed), node, wait }
    }

    /// Goes by the present placement. The error is that the collection is gone, or the shard was split or has become part of another.
    pub(crate) fn follow(&mut self, control: &Control, collection: &Collection) -> Result<(), Error> {
        let present = present(control, collection)?;
        let placed = present.shards.iter().find(|shard| shard.id == self.placed.id);
        // Of a collection that is there no shard goes but by a merge.
        let placed = placed.ok_or(Error::Split { shard: self.placed.id, in_doubt: false })?;
        // It would answer for the half of its points as if that were all.
        if placed.range != self.placed.range {
            return Err(Error::Split { shard: placed.id, in_doubt: false });
        }
        self.placed = Cow::Owned(placed.clone());
        Ok(())
    }
}

/// The entry that split a shard last; 0 if none has.
fn split_index(shard: &ShardDescriptor) -> u64 {
    shard.split.map_or(0, |split| split.index)
}

/// A collection as it is by now. The error is that it is gone.
pub(crate) fn present(control: &Control, collection: &Collection) -> Result<Arc<Collection>, Error> {
    let state = control.state();
    let present = state.collection(&collection.name)?;
    if present.id != collection.id {
        // There is one of this name, but what was asked was resolved against another schema and other shards.
        let what = format!("collection `{}` was deleted and created anew meanwhile: try again", collection.name);
        return Err(ControlError::new(ErrorKind::Unavailable, what).into());
    }
    Ok(Arc::clone(present))
}
