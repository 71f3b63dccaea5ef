//! One hosted replica: a shard, its Raft group and the threads that search it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sagitta_consensus::{
    Condition, GroupHandle, GroupStatus, HandoverOutcome, Members, NodeId, Outcome, ReadOutcome, Role,
};
use sagitta_engine::index::Stop;
use sagitta_env::{Deadline, Env};
use sagitta_model::{
    Change, CollectionStatistics, Filter, PointId, Record, ReplicaLoad, SearchQuery, SearchResult, Selection,
    VersionToken, Wait, WriteResult,
};
use sagitta_shard::codec::Record as _;
use sagitta_shard::{AnswerRoom, Command, ReadView, SearchContext, Shard, ShardError, WriteOutcome};
use tokio::sync::watch;

use crate::NodeError;
use crate::answer::answer;
use crate::builder::Bell;
use crate::load::Meter;
use crate::pool::{Cancelled, Pool, Refused};
use crate::resources::Resources;
use crate::shipping::{Pressure, SegmentOrigins, Shipping, Tended};
use crate::split::is_as_of;
use crate::whole::{Doomed, Present};

/// What a read must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Anything.
    Any,
    /// Everything up to this index of the shard's log.
    AtLeast(u64),
    /// Everything acknowledged before the read began.
    Latest,
}

/// What a read must see, and which points its caller means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What it must see.
    pub freshness: Freshness,
    /// Those of the shard as of its split at this index of its log ([`Replica::split`]); 0 before any.
    pub split: u64,
}

impl From<Freshness> for Sight {
    /// Of a shard that was never split.
    fn from(freshness: Freshness) -> Self {
        Self { freshness, split: 0 }
    }
}

/// One hosted replica.
pub struct Replica {
    id: u64,
    env: Env,
    pub(crate) shard: Present,
    doomed: Doomed,
    group: GroupHandle,
    applied: watch::Receiver<u64>,
    meter: Arc<Meter>,
    indexed: watch::Sender<u64>,
    shipping: Arc<Shipping>,
    /// Set when it is closed: jobs on its shard end, so that its database can be opened anew or removed.
    closed: AtomicBool,
    /// The merge that the shard is ready for, as whoever fills it has found last; 0 for none.
    pub(crate) ready_for: AtomicU64,
    shared: Shared,
}

/// What all replicas of a node use together.
pub(crate) struct Shared {
    pub(crate) pool: Arc<Pool>,
    pub(crate) resources: Arc<Resources>,
    pub(crate) builder: Bell,
}

impl Replica {
    pub(crate) fn new(
        id: u64,
        env: Env,
        (shard, doomed): (Present, Doomed),
        group: GroupHandle,
        (applied, meter): (watch::Receiver<u64>, Arc<Meter>),
        shipping: Arc<Shipping>,
        shared: Shared,
    ) -> Self {
        let indexed = watch::Sender::new(shard.get().indexed_index());
        let (closed, ready_for) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { id, env, shard, doomed, group, applied, meter, indexed, shipping, closed, ready_for, shared }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// The shard as it is now: another one once a whole state has taken its place.
    pub(crate) fn shard(&self) -> Arc<Shard> {
        self.shard.get()
    }

    #[cfg(test)]
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    #[cfg(test)]
    pub(crate) fn group(&self) -> &GroupHandle {
        &self.group
    }

    /// Whether a shard is still the present one of an open replica.
    pub(crate) fn is_present(&self, shard: &Arc<Shard>) -> bool {
        !self.closed.load(Ordering::Acquire) && self.shard.is(shard)
    }

    /// Removes the files of states that nobody reads any more.
    pub(crate) fn sweep(&self) {
        self.doomed.sweep();
    }

    /// Looks after the segments that come from other replicas: see [`Shipping::tend`].
    pub(crate) fn tend(&self, shard: &Arc<Shard>, disk_short: bool, stop: &dyn Stop) -> Tended {
        let is_urgent = || self.indexed.receiver_count() > 0 || self.shared.builder.is_memory_short();
        let tended = self.shipping.tend(shard, Pressure { urgent: is_urgent(), disk_short }, stop);
        // Asked again: whoever has come to wait meanwhile has frozen what an adoption may have let grow again.
        if tended.adopted
            && is_urgent()
            && let Err(error) = shard.freeze()
        {
            tracing::warn!(shard = self.id, %error, "not frozen");
        }
        tended
    }

    pub(crate) fn shipping(&self) -> &Shipping {
        &self.shipping
    }

    /// Where its segments came from since it was opened.
    pub fn segment_origins(&self) -> SegmentOrigins {
        self.shipping.origins()
    }

    /// A build has ended: whoever waits for points to be indexed may look again.
    pub(crate) fn built(&self) {
        self.indexed.send_replace(self.shard().indexed_index());
    }

    /// Applies a change durably, at most once per request id.
    ///
    /// A change by filter that is larger than one command may be goes on in further commands, each whole for every reader.
    pub async fn write(
        &self,
        request_id: u128,
        change: Arc<Change>,
        wait: Wait,
        deadline: Deadline,
    ) -> Result<WriteResult, NodeError> {
        self.write_as_of(0, request_id, change, wait, deadline).await
    }

    /// As [`Replica::write`], for a caller that means the shard's points as of its split at the index `asked` of its log.
    ///
    /// # Errors
    /// [`NodeError::is_of_other_points`] when the replica has them as of another one.
    pub async fn write_as_of(
        &self,
        asked: u64,
        request_id: u128,
        change: Arc<Change>,
        wait: Wait,
        deadline: Deadline,
    ) -> Result<WriteResult, NodeError> {
        self.admit(change.adds_data())?;
        let other_points = |error| NodeError::Shard { shard: self.id, error };
        let view = self.shard().view();
        // The leader may be yet to apply a split that others have; what is written comes after it.
        if view.since() > asked {
            is_as_of(&view, asked).map_err(other_points)?;
        }
        view.is_open().map_err(other_points)?;
        drop(view);
        let mut result = WriteResult::default();
        let by_filter = change.is_by_filter();
        let mut command = Command { request_id, after: None, change };
        let begun = |error| NodeError::Begun(Box::new(error));
        let mut steps = 0;
        let last = loop {
            let outcome = self.propose(command.to_sealed(), command.change.adds_data(), deadline).await;
            let outcome = outcome.map_err(|error| if steps > 0 { begun(error) } else { error })?;
            steps += 1;
            let misrouted = outcome.is_misrouted();
            if let Some(problem) = outcome.refused {
                return Err(match misrouted {
                    // A merge froze the shard between two steps.
                    true if steps > 1 => begun(NodeError::Misrouted(problem)),
                    true => NodeError::Misrouted(problem),
                    false => NodeError::Command(problem),
                });
            }
            // What goes by a filter has reached one half of the points, if the split came first.
            let view = self.shard().view();
            is_as_of(&view, asked).map_err(|error| begun(other_points(error)))?;
            // What it did before the split the other half tells, which is asked as well.
            let is_told = by_filter && view.split_off().is_some_and(|(split, _)| outcome.index < split);
            if !is_told {
                result.applied += outcome.applied;
                result.failures.extend(outcome.failures);
            }
            command.after = outcome.resume_after;
            if command.after.is_none() {
                break outcome.index;
            }
            // The same ids for the same steps of the same request, so that a retry repeats nothing.
            command.request_id = command.request_id.wrapping_mul(STEP).wrapping_add(1);
        };
        result.tokens.push(VersionToken { shard: self.id, index: last });
        if wait == Wait::Indexed {
            self.wait_indexed(last, deadline).await.map_err(begun)?;
        }
        Ok(result)
    }

    /// Refuses what the node has no room for. What takes data away passes, for it is the way out, unless it could not be
    /// applied either: it would hold up all shards, which one thread applies to.
    pub(crate) fn admit(&self, adds_data: bool) -> Result<(), NodeError> {
        if adds_data {
            self.shared.resources.check()?;
        }
        let pressure = self.shard().write_pressure();
        if !pressure.is_over() {
            return Ok(());
        }
        self.shared.builder.ring();
        match (pressure.database_failing, pressure.database_stopped) {
            (Some(error), _) => Err(NodeError::DatabaseFailing(error)),
            (None, true) => Err(NodeError::DatabaseBehind),
            (None, false) if adds_data => Err(NodeError::TooManyUnsealed),
            (None, false) => Ok(()),
        }
    }

    pub(crate) async fn propose(
        &self,
        command: Vec<u8>,
        adds_data: bool,
        deadline: Deadline,
    ) -> Result<WriteOutcome, NodeError> {
        let data = Bytes::from(command);
        let resources = &self.shared.resources;
        let _place = resources.place_for(data.len()).ok_or(NodeError::TooManyWrites)?;
        if adds_data {
            let admitted = resources.admit(data.len() as u64);
            self.env.until(deadline, admitted).await.map_err(|_| NodeError::NotAdmitted)??;
        }
        match self.group.propose(data, deadline.at()).await {
            Outcome::Applied(applied) => WriteOutcome::from_sealed(&applied.response)
                .map_err(|error| NodeError::Answer(error.to_string().into())),
            Outcome::NotLeader { hint } => Err(NodeError::NotLeader { hint }),
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Unknown(doubt) => Err(NodeError::Unknown(doubt)),
        }
    }

    async fn wait_indexed(&self, index: u64, deadline: Deadline) -> Result<(), NodeError> {
        // First, so that it shows that somebody waits before anything is frozen: see `tend`.
        let mut indexed = self.indexed.subscribe();
        self.shard().freeze().map_err(|error| NodeError::Shard { shard: self.id, error })?;
        self.shared.builder.ring();
        let reached = indexed.wait_for(|indexed| *indexed >= index);
        let waited = self.env.until(deadline, reached).await;
        waited
            .map_err(|_| NodeError::DeadlinePassed)?
            .map(drop)
            .map_err(|_| NodeError::Failed { what: "waiting for the index" })
    }

    async fn catch_up(&self, freshness: Freshness, deadline: Deadline) -> Result<(), NodeError> {
        let index = match freshness {
            Freshness::Any => return Ok(()),
            Freshness::AtLeast(index) => index,
            Freshness::Latest => match self.group.read_index(deadline.at()).await {
                ReadOutcome::At(index) => index,
                ReadOutcome::NotLeader { hint } => return Err(NodeError::NotLeader { hint }),
                ReadOutcome::Refused(refusal) => return Err(refusal.into()),
                ReadOutcome::Unknown(doubt) => return Err(NodeError::Unanswered(doubt)),
            },
        };
        let mut applied = self.applied.clone();
        if *applied.borrow() >= index {
            return Ok(());
        }
        let waited = self.env.until(deadline, applied.wait_for(|applied| *applied >= index)).await;
        waited.map_err(|_| NodeError::DeadlinePassed)?.map(drop).map_err(|_| NodeError::NotHosted { shard: self.id })
    }

    /// Runs each query: one result for each, all as of one moment, and together no heavier than one answer may be.
    pub async fn search(
        &self,
        queries: Arc<[(SearchQuery, Selection)]>,
        explain: bool,
        sight: impl Into<Sight>,
        deadline: Deadline,
    ) -> Result<Vec<SearchResult>, NodeError> {
        let queued = self.env.now();
        let (shard, id, meter) = (self.shard.clone(), self.id, self.meter.clone());
        let Sight { freshness, split: asked } = sight.into();
        // Taken by the thread that begins: all searches see the same moment, and it is not the moment of queueing.
        let view = OnceLock::new();
        let room = AnswerRoom::default();
        let count = queries.len();
        self.read(freshness, deadline, |pool, stop| {
            pool.run_each(count, move |at| {
                let view: &Arc<ReadView> = view.get_or_init(|| shard.get().view());
                is_as_of(view, asked)?;
                view.is_open()?;
                let (query, selection) = &queries[at];
                let waited = explain.then(|| view.env().now() - queued);
                let context = SearchContext { explain, stop: &stop };
                let mut result = meter.measure(|| answer(view, query, selection, &context, &room))?;
                if let (Some(explanation), Some(waited)) = (&mut result.explanation, waited) {
                    explanation.queue_us = waited.as_micros() as u64;
                    explanation.segments.iter_mut().for_each(|segment| segment.shard = id);
                }
                Ok(result)
            })
        })
        .await
    }

    /// The points of these ids that exist, in the order of the ids.
    pub async fn get(
        &self,
        ids: Vec<PointId>,
        selection: Selection,
        sight: impl Into<Sight>,
        deadline: Deadline,
    ) -> Result<Vec<Record>, NodeError> {
        self.view(sight.into(), deadline, move |view, _| view.get(&ids, &selection)).await
    }

    /// How many points pass the filter.
    pub async fn count(
        &self,
        filter: Option<Arc<Filter>>,
        sight: impl Into<Sight>,
        deadline: Deadline,
    ) -> Result<u64, NodeError> {
        self.view(sight.into(), deadline, move |view, stop| view.count(filter.as_deref(), stop)).await
    }

    /// The first `limit` points after an id that pass the filter, ascending by id.
    pub async fn scroll(
        &self,
        after: Option<PointId>,
        filter: Option<Arc<Filter>>,
        limit: usize,
        selection: Selection,
        sight: impl Into<Sight>,
        deadline: Deadline,
    ) -> Result<Vec<Record>, NodeError> {
        self.view(sight.into(), deadline, move |view, stop| {
            view.scroll(after, filter.as_deref(), limit, &selection, stop)
        })
        .await
    }

    /// Figures of the moment.
    pub fn statistics(&self) -> CollectionStatistics {
        let stats = self.shard().stats();
        let segment_rows: u64 = stats.segments.iter().map(|segment| segment.rows).sum();
        let dead_rows: u64 = stats.segments.iter().map(|segment| segment.dead_rows).sum();
        let growing = stats.generations.iter().filter(|generation| generation.rows > 0);
        let vector_bytes: u64 = stats.generations.iter().map(|generation| generation.vector_bytes).sum();
        let memory = stats.segments.iter().map(|segment| segment.memory);
        CollectionStatistics {
            ready: self.group.status().condition == Condition::Running,
            points: stats.points,
            indexed_points: segment_rows - dead_rows,
            dead_rows,
            growing_segments: growing.count() as u32,
            sealed_segments: stats.segments.len() as u32,
            disk_bytes: stats.database.disk_bytes() + memory.clone().map(|m| m.mapped_hot + m.mapped_cold).sum::<u64>(),
            memory_bytes: vector_bytes + memory.map(|m| m.mapped_hot + m.heap).sum::<u64>(),
            shards: 1,
            refuses_data: self.shared.resources.check().is_err(),
        }
    }

    /// Bytes that its points take, whatever else is on the disk.
    pub fn data_bytes(&self) -> u64 {
        self.shard().data_bytes()
    }

    /// What it does.
    pub fn load(&self) -> ReplicaLoad {
        self.meter.load()
    }

    /// Reads the current view on a search thread.
    async fn view<T: Send + 'static>(
        &self,
        sight: Sight,
        deadline: Deadline,
        work: impl FnOnce(&ReadView, &dyn Stop) -> Result<T, ShardError> + Send + 'static,
    ) -> Result<T, NodeError> {
        let (shard, meter, Sight { freshness, split: asked }) = (self.shard.clone(), self.meter.clone(), sight);
        let work = move |stop: &dyn Stop| {
            let view = shard.get().view();
            is_as_of(&view, asked)?;
            view.is_open()?;
            meter.measure(|| work(&view, stop))
        };
        self.read_on_pool(freshness, deadline, work).await
    }

    /// Does something on a search thread once the replica is fresh enough.
    pub(crate) async fn read_on_pool<T: Send + 'static>(
        &self,
        freshness: Freshness,
        deadline: Deadline,
        work: impl FnOnce(&dyn Stop) -> Result<T, ShardError> + Send + 'static,
    ) -> Result<T, NodeError> {
        self.read(freshness, deadline, |pool, stop| pool.run(move || work(&stop))).await
    }

    /// Reads on the search threads once the replica is fresh enough. A caller that goes away, or whose deadline passes, stops
    /// the work.
    async fn read<'a, T, F>(
        &'a self,
        freshness: Freshness,
        deadline: Deadline,
        start: impl FnOnce(&'a Pool, Patience) -> F,
    ) -> Result<T, NodeError>
    where
        F: Future<Output = Result<Result<T, ShardError>, Refused>>,
    {
        self.catch_up(freshness, deadline).await?;
        let cancelled = Cancelled::default();
        let _guard = cancelled.on_drop();
        let stop = Patience { cancelled, deadline, env: self.env.clone() };
        match start(&self.shared.pool, stop).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(ShardError::Stopped)) => Err(NodeError::DeadlinePassed),
            Ok(Err(error)) => Err(NodeError::Shard { shard: self.id, error }),
            Err(Refused::QueueFull) => Err(NodeError::SearchQueueFull),
            Err(Refused::Failed) => Err(NodeError::Failed { what: "the search" }),
        }
    }

    /// How the replica stands in its group.
    pub fn status(&self) -> GroupStatus {
        self.group.status()
    }

    /// Has another voter lead the group. The leader itself says that it leads once a majority has confirmed that.
    pub async fn hand_over(&self, to: NodeId, deadline: Deadline) -> Result<(), NodeError> {
        match self.group.hand_over(to, deadline.at()).await {
            HandoverOutcome::Done if self.status().role == Role::Leader => {
                match self.group.read_index(deadline.at()).await {
                    ReadOutcome::At(_) => Ok(()),
                    ReadOutcome::NotLeader { hint } => Err(NodeError::NotLeader { hint }),
                    ReadOutcome::Refused(refusal) => Err(refusal.into()),
                    ReadOutcome::Unknown(doubt) => Err(NodeError::Unanswered(doubt)),
                }
            }
            HandoverOutcome::Done => Ok(()),
            HandoverOutcome::NotLeader { hint } => Err(NodeError::NotLeader { hint }),
            HandoverOutcome::Refused(refusal) => Err(refusal.into()),
            HandoverOutcome::Unknown(doubt) => Err(NodeError::Unknown(doubt)),
        }
    }

    /// Makes these the members of the group: see [`GroupHandle::change_members`].
    pub async fn change_members(&self, members: Members, deadline: Deadline) -> Result<(), NodeError> {
        match self.group.change_members(members, deadline.at()).await {
            Outcome::Applied(_) => Ok(()),
            Outcome::NotLeader { hint } => Err(NodeError::NotLeader { hint }),
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Unknown(doubt) => Err(NodeError::Unknown(doubt)),
        }
    }

    /// Takes no more writes and makes everything durable.
    pub(crate) async fn close(&self, deadline: Deadline) -> Result<(), NodeError> {
        self.closed.store(true, Ordering::Release);
        self.group.close(deadline.at()).await.map_err(|error| NodeError::Consensus { shard: self.id, error })
    }
}

/// An odd multiplier, so that different requests keep different ids at every step.
const STEP: u128 = 0x2545_f491_4f6c_dd1d_9e37_79b9_7f4a_7c15;

/// How long a read may go on.
struct Patience {
    cancelled: Cancelled,
    deadline: Deadline,
    env: Env,
}

impl Stop for Patience {
    fn should_stop(&self) -> bool {
        self.cancelled.get() || self.deadline.has_passed(&self.env)
    }
}
