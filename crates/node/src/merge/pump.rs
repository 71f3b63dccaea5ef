//! Filling a shard with what two others have.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sagitta_env::Deadline;
use sagitta_model::{ErrorKind, HashRange, Point, PointId, Record};
use sagitta_shard::{Frozen, Import, MergeEntry, RememberedRequest};

use super::{PAGE_IDS, Pull, Pulled, PulledPart};
use crate::{NodeError, Replica};

/// Points and requests that a round brings over at most for the new shard to lack next to nothing: a moment's work.
const FEW: usize = 256;
/// What is not known, and so not few.
const MANY: usize = FEW + 1;

/// Points that are asked for at once: far more than an answer has, where they are of a usual size.
const ASKED: usize = 1_000;
/// How long a node that is short of something is given when it does not say.
const PAUSE: Duration = Duration::from_millis(100);

/// A shard that is merged, wherever its leader is.
pub trait Source: Send + Sync {
    /// Asks the leader of its group.
    fn pull(&self, pull: Pull) -> impl Future<Output = Result<Pulled, NodeError>> + Send;
}

/// How far a shard is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There was a lot to be brought over, and more may have come since.
    Copying,
    /// There is next to nothing left: the shards may be frozen.
    Ready,
    /// It has all that both have, which are frozen: it can be complete.
    Settled,
}

/// Fills a shard that this node leads. What it knows is lost with it: whoever comes after compares all points.
///
/// First a pass over both: ids with their versions are compared, and what is other is brought over. Then rounds over what was touched since.
/// A shard that cannot tell that is passed over once more. Every import names how many came before it; so when somebody else has filled
/// the shard meanwhile, this one is refused, and begins anew by what there is now.
pub struct Pump<S> {
    into: Arc<Replica>,
    merge: u64,
    sources: [(S, HashRange, Known); 2],
    /// Imports that the shard has.
    step: Option<u64>,
}

/// What is known of a shard that is merged.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// All points were compared as of this log index or later.
    since: Option<u64>,
    requests: u64,
    imported: Option<u128>,
    /// All of it is here as of the entry that froze it.
    settled: Option<Frozen>,
}

impl Default for Known {
    fn default() -> Self {
        Self { since: None, requests: 0, imported: Some(0), settled: None }
    }
}

impl<S: Source> Pump<S> {
    /// Fills a shard for a merge of two others, each with the hashes that are its own: one that was never split takes all for its own.
    pub fn new(into: Arc<Replica>, merge: u64, sources: [(S, HashRange); 2]) -> Self {
        into.note_ready(None);
        let sources = sources.map(|(source, range)| (source, range, Known::default()));
        Self { into, merge, sources, step: None }
    }

    /// Brings over what both have that the shard has not. It may be called again after any error.
    ///
    /// # Errors
    /// What the shards that are merged say, or the one that is filled: [`NodeError::Command`] when somebody else fills it, or nobody.
    pub async fn round(&mut self, deadline: Deadline) -> Result<Progress, NodeError> {
        // A shard that is passed over for the first time takes a while, in which a lot may be written to the other one.
        let passes = self.sources.iter().any(|(.., known)| known.since.is_none());
        let brought = match self.bring_both(deadline).await {
            Ok(brought) => brought,
            Err(error) => {
                // What is known stays true when a question was not answered.
                if matches!(error, NodeError::Source { .. }) {
                    self.into.note_ready(None);
                } else {
                    self.begin_anew();
                }
                return Err(error);
            }
        };
        let progress = match brought {
            _ if self.sources.iter().all(|(.., known)| known.settled.is_some()) => Progress::Settled,
            0..=FEW if !passes => Progress::Ready,
            _ => Progress::Copying,
        };
        self.into.note_ready((progress != Progress::Copying).then_some(self.merge));
        Ok(progress)
    }

    /// What has come of the last import is not known, or somebody else has made others.
    fn begin_anew(&mut self) {
        self.step = None;
        self.sources.iter_mut().for_each(|(.., known)| *known = Known::default());
        self.into.note_ready(None);
    }

    /// Has the shard take writes, once [`Pump::round`] says that it is settled.
    ///
    /// # Errors
    /// [`NodeError::Command`] when somebody else fills it, or its log has begun too low; then the merge cannot come about.
    pub async fn complete(&mut self, deadline: Deadline) -> Result<(), NodeError> {
        let settled = self.sources.iter().map(|(.., known)| known.settled);
        let indexes: Option<Vec<u64>> = settled.map(|settled| settled.map(|frozen| frozen.index)).collect();
        let (Some(indexes), Some(step)) = (indexes, self.step) else {
            return Err(NodeError::Failed { what: "completing a shard that is not filled" });
        };
        let above = indexes.into_iter().max().unwrap_or_default();
        let entry = MergeEntry::Complete { merge: self.merge, step, above };
        self.into.agree(&entry, deadline).await.inspect_err(|_| self.begin_anew())
    }

    async fn bring_both(&mut self, deadline: Deadline) -> Result<usize, NodeError> {
        if self.step.is_none() {
            let filling = self.into.filling().filter(|filling| filling.merge == self.merge);
            let filling = filling.ok_or(NodeError::Failed { what: "filling a shard that no merge fills" })?;
            self.step = Some(filling.step);
        }
        let mut brought = 0;
        for which in 0..self.sources.len() {
            if self.sources[which].2.since.is_none() {
                brought += self.pass(which, deadline).await?;
            }
            brought += self.follow(which, deadline).await?;
        }
        Ok(brought)
    }

    /// Compares all points of a shard with what is here.
    async fn pass(&mut self, which: usize, deadline: Deadline) -> Result<usize, NodeError> {
        let (mut after, mut since, mut brought) = (None, None, 0);
        loop {
            let (source, range, _) = &self.sources[which];
            let range = *range;
            let Pulled { as_of, part, .. } = source.pull(Pull::Versions { after }).await?;
            let PulledPart::Versions { page, is_last } = part else { return Err(unexpected()) };
            // What is touched from the first page on is told by what follows.
            since.get_or_insert(as_of);
            let last = page.last().map(|(id, _)| *id);
            let shard = self.into.shard();
            let comparing = move || shard.view().compare(range, after, &page, is_last);
            let compared = self.into.env().spawn_blocking(comparing).await;
            let compared = compared.map_err(|_| NodeError::Failed { what: "comparing points" })?;
            let compared = compared.map_err(|error| NodeError::Shard { shard: self.into.id(), error })?;
            brought += compared.other.len() + compared.gone.len();
            self.bring(which, compared.other, compared.gone, deadline).await?;
            if is_last {
                self.sources[which].2.since = since;
                return Ok(brought);
            }
            after = last;
        }
    }

    /// Brings over what was touched since, and requests.
    async fn follow(&mut self, which: usize, deadline: Deadline) -> Result<usize, NodeError> {
        let mut brought = 0;
        loop {
            let (source, of, known) = &self.sources[which];
            let of = *of;
            let Some(since) = known.since else { return Ok(MANY) };
            let pull = Pull::Changes { since, requests: known.requests, imported: known.imported };
            let Pulled { as_of, frozen, part, .. } = source.pull(pull).await?;
            let PulledPart::Changes { touched, mut requests, next, has_more } = part else { return Err(unexpected()) };
            // What was applied there is done for its own points, and for no other.
            requests.iter_mut().for_each(|request| {
                let RememberedRequest { range, .. } = request;
                *range = HashRange { first: range.first.max(of.first), last: range.last.min(of.last) };
            });
            requests.retain(|RememberedRequest { range, .. }| range.first <= range.last);
            let Some(touched) = touched else {
                self.sources[which].2.since = None;
                return Ok(MANY);
            };
            brought += touched.len() + requests.len();
            self.bring(which, touched, Vec::new(), deadline).await?;
            if !requests.is_empty() {
                self.import(Import { requests, ..Import::default() }, deadline).await?;
            }
            let known = &mut self.sources[which].2;
            (known.since, (known.requests, known.imported)) = (Some(as_of), next);
            // The points were read after the entry that froze it, if it was frozen when it told which ones these are.
            known.settled = frozen.filter(|frozen| frozen.merge == self.merge && !has_more);
            if !has_more {
                return Ok(brought);
            }
        }
    }

    /// Brings over points, of which some may be gone by now, and takes out others.
    async fn bring(
        &mut self,
        which: usize,
        mut ids: Vec<PointId>,
        gone: Vec<PointId>,
        deadline: Deadline,
    ) -> Result<(), NodeError> {
        for gone in gone.chunks(PAGE_IDS) {
            self.import(Import { deleted: gone.to_vec(), ..Import::default() }, deadline).await?;
        }
        while !ids.is_empty() {
            let asked = ids[..ids.len().min(ASKED)].to_vec();
            let Pulled { part, .. } = self.sources[which].0.pull(Pull::Points { ids: asked }).await?;
            let PulledPart::Points { records, of } = part else { return Err(unexpected()) };
            if of == 0 || of > ids.len() {
                return Err(unexpected());
            }
            let mut import = Import::default();
            {
                let mut found = records.iter().map(|record| record.id).peekable();
                import.deleted.extend(ids.drain(..of).filter(|id| found.next_if_eq(id).is_none()));
            }
            for Record { id, version, payload, vectors } in records {
                let payload = payload.ok_or_else(unexpected)?;
                import.points.push(Point { id, vectors, payload });
                import.versions.push(version);
            }
            self.import(import, deadline).await?;
        }
        Ok(())
    }

    async fn import(&mut self, import: Import, deadline: Deadline) -> Result<(), NodeError> {
        let step = self.step.ok_or(NodeError::Failed { what: "filling a shard" })?;
        let import = Import { merge: self.merge, step, ..import };
        loop {
            match self.into.import(import.clone(), deadline).await {
                Ok(()) => break,
                // It was not let in: the shard is to seal what it has, or the node to find room.
                Err(error) if is_busy(&error) && !deadline.has_passed(self.into.env()) => {
                    self.into.env().sleep(error.retry_after().unwrap_or(PAUSE)).await;
                }
                Err(error) => return Err(error),
            }
        }
        self.step = Some(step + 1);
        Ok(())
    }
}

/// Whether a node is short of something for now, and nothing was begun.
fn is_busy(error: &NodeError) -> bool {
    error.kind() == ErrorKind::Overloaded && !matches!(error, NodeError::Command(_)) && !error.is_in_doubt()
}

fn unexpected() -> NodeError {
    NodeError::Answer("a shard that is merged answered something else than it was asked".into())
}
