//! Brings a call to a replica: to the leader of a shard's group, or to whichever replica answers first.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use sagitta_cluster::{Collection, Refusal, ShardDescriptor};
use sagitta_env::Deadline;
use sagitta_model::ErrorKind;

use crate::client::{Elsewhere, NodeClient, Read, ShardError, ShardRef, Tokens};
use crate::control::Control;
use crate::reports::Reports;
use crate::{Coordinator, Error};

/// The first wait before a shard is asked again; doubles up to [`MAX_PAUSE`]. An election takes one to two seconds.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(320);

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
        loop {
            let node = route.leader(&self.reports);
            let answer = self.env.until(deadline, call(node, route.reference())).await;
            let error = match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => return Err(Error::DeadlineExceeded),
            };
            if !route.may_be_elsewhere(&error) {
                return Err(Error::Shard { shard: shard.id, error });
            }
            route.learn(&self.reports, node, &error);
            let pause = route.pause_after(node);
            if self.env.until(deadline, self.wait(pause, &error, deadline)).await.is_err() {
                return Err(Error::Shard { shard: shard.id, error });
            }
            route.follow(&self.control, collection)?;
        }
    }

    /// Reads from a replica: from the leader if the latest is wanted, else from one that is well and not busy, and
    /// from another one if that fails.
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
            return self.at_leader(collection, shard, read.deadline, call).await;
        }
        let mut route = Route::new(shard);
        let mut rounds = 0..ROUNDS;
        loop {
            let mut last = None;
            for node in route.ranked(&self.reports, &read.tokens) {
                let load = self.reports.load(node);
                let timed = load.begin(&self.env);
                match self.env.until(read.deadline, call(node, route.reference())).await {
                    Ok(Ok(answer)) => {
                        timed.answered();
                        return Ok(answer);
                    }
                    Ok(Err(error)) if route.may_be_elsewhere(&error) => last = Some((node, error)),
                    Ok(Err(error)) => return Err(Error::Shard { shard: shard.id, error }),
                    Err(_) => return Err(Error::DeadlineExceeded),
                }
            }
            let (node, error) = last.expect("invariant: a shard has a replica");
            if rounds.next().is_none() {
                return Err(Error::Shard { shard: shard.id, error });
            }
            let pause = route.pause_after(node);
            if self.env.until(read.deadline, self.wait(pause, &error, read.deadline)).await.is_err() {
                return Err(Error::Shard { shard: shard.id, error });
            }
            route.follow(&self.control, collection)?;
        }
    }

    /// Waits before a shard is asked again, for which this was the answer.
    pub(crate) async fn wait(&self, pause: Pause, error: &ShardError, deadline: Deadline) {
        // Whoever leads by then is asked at once; else the pause was long enough.
        let other = self.reports.find(|reports| reports.leader(pause.shard).filter(|leader| *leader != pause.node));
        // Replicas may go on naming a leader that is gone, so nobody is asked without any pause.
        self.env.sleep(MIN_PAUSE).await;
        let _ = self.env.timeout(pause.wait.saturating_sub(MIN_PAUSE), other).await;
        if let Some(Elsewhere::Stale { .. } | Elsewhere::NotHosted) = error.elsewhere {
            // The node may know of a later placement. If that cannot be had now, the one that we have must do.
            let _ = self.catch_up(deadline).await;
        }
    }
}

/// How long to wait before a shard is asked again, unless somebody other than the node leads before.
pub(crate) struct Pause {
    shard: u64,
    node: u64,
    wait: Duration,
}

/// After every replica of a shard has failed, all are asked so often again: the route may have been stale, and a replica that
/// was just placed may not have opened yet.
pub(crate) const ROUNDS: usize = 4;

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
        ShardRef { shard: self.placed.id, epoch: self.placed.epoch }
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

    /// Whether another replica, or the same one a moment later, may answer instead.
    pub(crate) fn may_be_elsewhere(&self, error: &ShardError) -> bool {
        let others = self.placed.replicas.len() > 1;
        match error.elsewhere {
            // A lone replica that could not be opened stays closed.
            Some(_) => others || error.kind == ErrorKind::Unavailable,
            None => others && error.kind == ErrorKind::Unavailable,
        }
    }

    /// Keeps what an error tells of who leads.
    pub(crate) fn learn(&self, reports: &Reports, node: u64, error: &ShardError) {
        match error.elsewhere {
            Some(Elsewhere::NotLeader { hint: Some(leader) }) if leader != node => {
                reports.note_leader(self.placed.id, leader);
            }
            Some(Elsewhere::Stale { .. }) => {}
            _ => reports.suspect(self.placed.id, node),
        }
    }

    /// How long to wait after a node failed; longer every time.
    pub(crate) fn pause_after(&mut self, node: u64) -> Pause {
        let wait = self.pause;
        self.pause = (2 * wait).min(MAX_PAUSE);
        Pause { shard: self.placed.id, node, wait }
    }

    /// Goes by the present placement. The error is that the collection is gone.
    pub(crate) fn follow(&mut self, control: &Control, collection: &Collection) -> Result<(), Error> {
        let state = control.state();
        let present = state.collection(&collection.name)?;
        let placed = present.shards.iter().find(|shard| shard.id == self.placed.id && present.id == collection.id);
        let gone = || Error::Refused(Refusal::NotFound(collection.name.to_string()));
        self.placed = Cow::Owned(placed.ok_or_else(gone)?.clone());
        Ok(())
    }
}
