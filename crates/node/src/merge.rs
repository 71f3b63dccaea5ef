//! Shards that are merged: how the new one begins, what it is told of the others, and who fills it.
//!
//! What merges do to a shard is in its log ([`sagitta_shard::MergeEntry`]). The leader of the new shard's group fills it ([`Pump`]) with
//! what it is told by the leaders of the others ([`Replica::pull`]), wherever these are. A shard that is filled or frozen answers nobody else.

mod message;
mod pump;

use std::sync::atomic::Ordering;

use sagitta_consensus::{NodeId, Position};
use sagitta_env::Deadline;
use sagitta_model::{PayloadSelection, PointId, Record, Selection, VectorSelection};
use sagitta_shard::codec::Record as _;
use sagitta_shard::{
    Beginning, Filling, Frozen, Import, MergeEntry, ReadView, RememberedRequest, Shard, ShardError, ShardSpec,
};

pub use self::pump::{Progress, Pump, Source};
use crate::{Freshness, Node, NodeError, Replica};

/// Ids with their versions that one answer has at most: a few hundred kilobytes.
const PAGE_IDS: usize = 10_000;
/// Weight from which on an answer has no more points, so that an entry of a log holds it and delays no other for long.
const PAGE_WEIGHT: usize = 1 << 20;
/// Points that are read between two looks at their weight.
const BLOCK_POINTS: usize = 32;
/// Remembered requests that one answer has at most of either kind: each may list hundreds of failures, and all of them have to fit into an entry.
const PAGE_REQUESTS: usize = 250;

/// What whoever fills a shard wants to know of one that is merged into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Ids and versions of the points that follow an id. From now on the shard remembers which points are touched.
    Versions {
        /// The id; none for the first ones.
        after: Option<PointId>,
    },
    /// Points whole: of the first so many of these ids as fit an answer.
    Points {
        /// The ids.
        ids: Vec<PointId>,
    },
    /// What was touched, and which requests were applied.
    Changes {
        /// The points that were touched after this log index.
        since: u64,
        /// The requests that were applied after this log index.
        requests: u64,
        /// The requests that the shard was itself filled with, from this id on; none if they are known.
        imported: Option<u128>,
    },
}

/// What a shard that is merged answers, as of a log index.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    /// The log index: everything acknowledged before it was asked is in the answer.
    pub as_of: u64,
    /// Where a merge froze the shard, if one had by then: nothing changes any more.
    pub frozen: Option<Frozen>,
    /// What was asked for.
    pub part: PulledPart,
}

/// What a shard that is merged answers.
#[derive(Clone, Debug, PartialEq)]
pub enum PulledPart {
    /// Ids with their versions, ascending.
    Versions {
        /// The points.
        page: Vec<(PointId, u64)>,
        /// Whether no points follow.
        is_last: bool,
    },
    /// Those of the points that exist.
    Points {
        /// The points, in the order of their ids in the request.
        records: Vec<Record>,
        /// Of so many of the ids: the others are to be asked for again.
        of: usize,
    },
    /// What was touched.
    Changes {
        /// Ids of points, which may be gone; `None` when that is not known, and all are to be compared.
        touched: Option<Vec<PointId>>,
        /// Requests.
        requests: Vec<RememberedRequest>,
        /// As [`Pull::Changes`] has them, for the next time.
        next: (u64, Option<u128>),
        /// Whether there are more requests.
        has_more: bool,
    },
}

impl Node {
    /// As [`Node::ensure`], for a shard that a merge fills: one that is not here yet begins so, on all nodes alike.
    pub async fn ensure_filling(
        &self,
        spec: ShardSpec,
        founders: Vec<NodeId>,
        floor: Option<Position>,
        beginning: Beginning,
    ) -> Result<(), NodeError> {
        self.host_replica(spec, founders, (floor, None), None, Some(beginning)).await
    }
}

impl Replica {
    /// How far the merge is that fills the shard, while one does.
    pub fn filling(&self) -> Option<Filling> {
        self.shard().view().filling()
    }

    /// The merge that has filled the shard, if one has.
    pub fn filled_by(&self) -> Option<u64> {
        self.shard().view().filled_by()
    }

    /// Where a merge froze the shard, unless it was thawed.
    pub fn frozen_by(&self) -> Option<Frozen> {
        self.shard().view().frozen_by()
    }

    /// Merges up to this one freeze the shard no more.
    pub fn thawed(&self) -> u64 {
        self.shard().view().thawed()
    }

    /// The merge for which the shard lacks next to nothing, as whoever fills it here has found last.
    pub fn ready_for(&self) -> Option<u64> {
        Some(self.ready_for.load(Ordering::Acquire)).filter(|merge| *merge > 0)
    }

    fn note_ready(&self, merge: Option<u64>) {
        self.ready_for.store(merge.unwrap_or(0), Ordering::Release);
    }

    /// Freezes the shard for a merge; one that is frozen by it stays so.
    ///
    /// # Errors
    /// [`NodeError::Command`] when it cannot be, or must not be any more; as [`Replica::write`] else.
    pub async fn freeze(&self, merge: u64, deadline: Deadline) -> Result<(), NodeError> {
        self.agree(&MergeEntry::Freeze { merge }, deadline).await
    }

    /// Has the shard work on, which a merge does not freeze any more.
    ///
    /// # Errors
    /// As [`Replica::write`].
    pub async fn thaw(&self, merge: u64, deadline: Deadline) -> Result<(), NodeError> {
        self.agree(&MergeEntry::Thaw { merge }, deadline).await
    }

    /// Nobody copies its points any more.
    pub fn unwatch(&self) {
        self.shard().unwatch();
    }

    async fn import(&self, import: Import, deadline: Deadline) -> Result<(), NodeError> {
        self.admit(true)?;
        self.agree(&MergeEntry::Import(import), deadline).await
    }

    async fn agree(&self, entry: &MergeEntry, deadline: Deadline) -> Result<(), NodeError> {
        let adds_data = matches!(entry, MergeEntry::Import(_));
        let outcome = self.propose(entry.to_sealed(), adds_data, deadline).await?;
        outcome.refused.map_or(Ok(()), |problem| Err(NodeError::Command(problem)))
    }

    /// Answers whoever fills a shard that this one is merged into, as the leader: it has everything that was acknowledged.
    ///
    /// # Errors
    /// As those of reads, frozen or not.
    pub async fn pull(&self, pull: Pull, deadline: Deadline) -> Result<Pulled, NodeError> {
        // Which shard that is is known once it is read: a whole state may take its place meanwhile.
        let present = self.shard.clone();
        self.read_on_pool(Freshness::Latest, deadline, move |_| pulled(&present.get(), &pull)).await
    }
}

fn pulled(shard: &Shard, pull: &Pull) -> Result<Pulled, ShardError> {
    if matches!(pull, Pull::Versions { .. }) {
        shard.watch()?;
    }
    let touched = match pull {
        Pull::Changes { since, .. } => shard.touched(*since)?,
        _ => None,
    };
    // Not before: what is read is at least as late as what was told to be touched.
    let view = shard.view();
    let as_of = touched.as_ref().map_or(view.applied_index(), |touched| touched.until);
    let part = match pull {
        Pull::Versions { after } => {
            let page = view.versions(*after, PAGE_IDS)?;
            PulledPart::Versions { is_last: page.len() < PAGE_IDS, page }
        }
        Pull::Points { ids } => {
            let (records, of) = points(&view, ids)?;
            PulledPart::Points { records, of }
        }
        Pull::Changes { requests, imported, .. } => {
            let (mut found, next) = match imported {
                Some(from) => view.imported_from(*from, PAGE_REQUESTS)?,
                None => (Vec::new(), None),
            };
            let own = view.requests_after(*requests, PAGE_REQUESTS)?;
            let has_more = own.len() == PAGE_REQUESTS || next.is_some();
            let last = own.last().map_or(*requests, |(index, _)| *index);
            found.extend(own.into_iter().map(|(_, request)| request));
            let touched = touched.map(|touched| touched.ids);
            PulledPart::Changes { touched, requests: found, next: (last, next), has_more }
        }
    };
    // What was touched between the two is not known.
    let frozen = view.frozen_by().filter(|frozen| frozen.index <= as_of);
    Ok(Pulled { as_of, frozen, part })
}

/// Those of the points that exist, and of how many of the ids: an answer is full from a weight on.
fn points(view: &ReadView, ids: &[PointId]) -> Result<(Vec<Record>, usize), ShardError> {
    let selection = Selection { payload: PayloadSelection::All, vectors: VectorSelection::All };
    let (mut records, mut of, mut weight, mut size) = (Vec::new(), 0, 0, BLOCK_POINTS);
    while of < ids.len() {
        let block = &ids[of..ids.len().min(of + size)];
        let found = view.get(block, &selection)?;
        weight += found.iter().map(Record::weight).sum::<usize>();
        records.extend(found);
        of += block.len();
        // What is heavy is looked at one by one.
        size = if weight >= PAGE_WEIGHT / 8 { 1 } else { BLOCK_POINTS };
        if weight >= PAGE_WEIGHT {
            break;
        }
    }
    Ok((records, of))
}
