//! What a group replicates.

use bytes::Bytes;
use crossbeam_channel::Sender;

use crate::ids::{GroupId, NodeId, Position};
use crate::membership::Membership;
use crate::settings::MAX_MANIFEST_BYTES;

/// A deterministic state that advances entry by entry: a shard's points, or the control plane.
///
/// It must store, atomically with the effects of a batch, the position and the membership that the batch leads to.
/// It need not be durable at once: the log is kept until [`StateMachine::durable`] has passed it, and after a crash
/// the entries after [`StateMachine::applied`] are handed over again.
///
/// The methods from [`StateMachine::offers`] on are for members that lack more than the logs of the others hold: they fetch
/// a whole state, beside the messages of the group. A state machine that does not offer its state keeps every log whole.
pub trait StateMachine: Send {
    /// Applies a batch in order: all of it, or on an error nothing. Returns one response per entry.
    ///
    /// The same command may come twice, under two indexes, when a client retried: recognise it by the request id
    /// within and answer as the first time.
    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Bytes>, ApplyError>;

    /// The last entry applied, as its own storage has it; [`Position::default`] when fresh.
    fn applied(&self) -> Position;

    /// The index up to which a crash loses nothing. The log is truncated only below it.
    fn durable(&self) -> u64;

    /// The membership as of [`StateMachine::applied`], if an applied entry changed it since the founding.
    fn membership(&self) -> Option<Membership>;

    /// Makes what is applied durable. With `wait` returns when that is done; without, it is a hint that the log
    /// grows long, and starting is enough.
    fn flush(&mut self, wait: bool) -> Result<(), ApplyError>;

    /// Whether [`StateMachine::offer`] works.
    fn offers(&self) -> bool {
        false
    }

    /// Keeps the state as of [`StateMachine::applied`], or of a moment later, for others to fetch until it is retracted.
    /// What takes long, such as hashing it, belongs beside this thread: the one to tell is told when that has ended, even
    /// if it is just dropped. Replaces what was offered before.
    fn offer(&mut self, done: Offering) {
        done.end(Err("this state machine does not offer its state".to_owned()));
    }

    /// Nobody needs what was offered any more.
    fn retract(&mut self) {}

    /// Begins to fetch what another member offers, and returns at once. The one to tell when that has ended is told even
    /// if it is just dropped; it must end at some time, whatever becomes of the other member. What is being fetched, or was,
    /// is of no more use.
    fn fetch(&mut self, from: NodeId, offer: &Offer, done: Fetching) {
        let _ = (from, offer);
        done.end(Err("this state machine cannot fetch a state".to_owned()));
    }

    /// Puts what was fetched in the place of what there is, durably, all of it or on an error nothing, unless that is
    /// [`ApplyError::InDoubt`]. Like everything here
    /// it runs on the thread that applies for all groups: what takes long belongs into fetching. From then on
    /// [`StateMachine::applied`], [`StateMachine::durable`], [`StateMachine::membership`] and [`StateMachine::installed`] are
    /// those of the offer.
    fn install(&mut self, offer: &Offer) -> Result<(), ApplyError> {
        let _ = offer;
        Err(ApplyError::Failed("this state machine cannot install a state".to_owned()))
    }

    /// Where it stood when it was last installed: a log that does not reach there yet then begins there.
    fn installed(&self) -> Option<Position> {
        None
    }
}

/// A whole state that a member offers to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What it contains.
    pub position: Position,
    /// The members as of it.
    pub membership: Membership,
    /// What to fetch, and how to tell that it is whole; in the state machine's own words, at most 1 MiB.
    pub manifest: Bytes,
}

/// Somebody waits for a state to be offered.
#[derive(Debug)]
pub struct Offering {
    pub(crate) group: GroupId,
    pub(crate) founders: Membership,
    pub(crate) ended: Option<Sender<OfferEnded>>,
}

/// How offering a state ended.
#[derive(Debug)]
pub(crate) struct OfferEnded {
    pub(crate) group: GroupId,
    pub(crate) result: Result<Offer, String>,
}

impl Offering {
    /// What is offered, or why nothing is: where the state stands, the membership as of it, as in
    /// [`StateMachine::membership`], and the manifest.
    pub fn end(mut self, result: Result<(Position, Option<Membership>, Bytes), String>) {
        let offer = result.and_then(|(position, membership, manifest)| {
            if manifest.len() > MAX_MANIFEST_BYTES {
                let bytes = manifest.len();
                return Err(format!("the manifest takes {bytes} bytes, at most {MAX_MANIFEST_BYTES} are allowed"));
            }
            let membership = membership.unwrap_or_else(|| std::mem::take(&mut self.founders));
            Ok(Offer { position, membership, manifest })
        });
        self.tell(offer);
    }

    fn tell(&mut self, result: Result<Offer, String>) {
        if let Some(ended) = self.ended.take() {
            // The host may have ended meanwhile.
            let _ = ended.send(OfferEnded { group: self.group, result });
        }
    }
}

impl Drop for Offering {
    fn drop(&mut self) {
        self.tell(Err("offering was given up".to_owned()));
    }
}

/// Somebody waits for a state to be fetched.
#[derive(Debug)]
pub struct Fetching {
    pub(crate) group: GroupId,
    pub(crate) number: u64,
    pub(crate) ended: Option<Sender<FetchEnded>>,
}

/// How fetching a state ended.
#[derive(Debug)]
pub(crate) struct FetchEnded {
    pub(crate) group: GroupId,
    pub(crate) number: u64,
    pub(crate) result: Result<(), String>,
}

impl Fetching {
    /// Whether the state is here, whole, and can be installed; else why not.
    pub fn end(mut self, result: Result<(), String>) {
        self.tell(result);
    }

    fn tell(&mut self, result: Result<(), String>) {
        if let Some(ended) = self.ended.take() {
            // The host may have ended meanwhile.
            let _ = ended.send(FetchEnded { group: self.group, number: self.number, result });
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.tell(Err("fetching was given up".to_owned()));
    }
}

/// One committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Without gaps, from one batch to the next.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
    /// The proposal; empty for entries of the protocol's own, which only move the position.
    pub data: Bytes,
    /// The group's membership from this entry on, if it changes it.
    pub membership: Option<Membership>,
}

/// Why a batch was not applied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApplyError {
    /// No room on disk. The batch is held and tried again until there is.
    #[error("no room on disk: {0}")]
    Full(String),
    /// Stored data failed its checks. The group stops.
    #[error("damaged data: {0}")]
    Corrupt(String),
    /// Of [`StateMachine::install`]: whether it was done, as far as the disk goes, is not known. The group stops, and is as it is on
    /// disk when it is opened anew.
    #[error("{0}")]
    InDoubt(String),
    /// Anything else. The group stops.
    #[error("{0}")]
    Failed(String),
}
