//! Applies committed entries and answers their callers, beside the thread that writes the log.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::admission::Permit;
use crate::group::Condition;
use crate::ids::{GroupId, NodeId, Position};
use crate::machine::{ApplyError, Committed, Fetching, Offer, Offering, StateMachine};
use crate::outcome::{Applied, Doubt, Outcome};
use crate::settings::{MAX_BACKOFF, MIN_BACKOFF};

/// Work for the applier, in order per group.
pub(crate) enum Job {
    /// Takes over a group's state machine.
    Open { group: GroupId, machine: Box<dyn StateMachine> },
    /// Applies entries.
    Apply(Batch),
    /// Reports what is durable; with `flush` asks for more of it.
    Poll { group: GroupId, flush: bool },
    /// Offers the state to others.
    Offer { group: GroupId, done: Offering },
    /// Lets go of what was offered.
    Retract { group: GroupId },
    /// Begins to fetch a state.
    Fetch { group: GroupId, from: NodeId, offer: Offer, done: Fetching },
    /// Installs what was fetched.
    Install { group: GroupId, offer: Offer },
    /// Flushes and drops the state machine.
    Close { group: GroupId },
}

/// Entries of one group and who waits for them.
pub(crate) struct Batch {
    pub(crate) group: GroupId,
    pub(crate) entries: Vec<Committed>,
    /// Beside each entry its caller, if it was proposed here.
    pub(crate) tickets: Vec<Option<Ticket>>,
}

/// A caller, and the place that its proposal takes up until it is applied.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) caller: Option<Caller>,
    pub(crate) _permit: Permit,
}

/// Where the answer goes and until when it is wanted.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) answer: oneshot::Sender<Outcome>,
    pub(crate) deadline: Duration,
}

/// What the applier reports.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) group: GroupId,
    pub(crate) applied: Position,
    pub(crate) durable: u64,
    pub(crate) condition: Condition,
    /// Whether it stopped because the state machine is damaged.
    pub(crate) damaged: bool,
    /// Whether this ends a [`Job::Apply`].
    pub(crate) batch: bool,
    /// Whether this answers a [`Job::Poll`].
    pub(crate) poll: bool,
    /// The answer to a [`Job::Install`].
    pub(crate) installed: Option<Result<(), String>>,
    /// Whether the state machine is gone, and the error of its last flush.
    pub(crate) closed: Option<Result<(), String>>,
}

/// Owns the state machines of all groups.
#[derive(Default)]
pub(crate) struct Applier {
    units: BTreeMap<GroupId, Unit>,
}

struct Unit {
    machine: Box<dyn StateMachine>,
    condition: Condition,
    damaged: bool,
    /// Held while the disk is full.
    held: VecDeque<Batch>,
    retry_at: Duration,
    backoff: Duration,
}

impl Applier {
    /// Does one job, which may be put off while the disk is full.
    pub(crate) fn run(&mut self, job: Job, now: Duration) -> Vec<Done> {
        match job {
            Job::Open { group, machine } => {
                let unit = Unit {
                    machine,
                    condition: Condition::Running,
                    damaged: false,
                    held: VecDeque::new(),
                    retry_at: now,
                    backoff: MIN_BACKOFF,
                };
                self.units.insert(group, unit);
                Vec::new()
            }
            Job::Apply(batch) => match self.units.get_mut(&batch.group) {
                Some(unit) => unit.apply(batch, now),
                None => Vec::new(),
            },
            Job::Poll { group, flush } => match self.units.get_mut(&group) {
                Some(unit) => vec![unit.poll(group, flush)],
                None => Vec::new(),
            },
            Job::Offer { group, done } => {
                if let Some(unit) = self.units.get_mut(&group) {
                    unit.offer(done);
                }
                Vec::new()
            }
            Job::Retract { group } => {
                if let Some(unit) = self.units.get_mut(&group) {
                    // What it would say is nobody's concern any more.
                    let _ = unit.guarded("retracting", |machine| {
                        machine.retract();
                        Ok(())
                    });
                }
                Vec::new()
            }
            Job::Fetch { group, from, offer, done } => {
                if let Some(unit) = self.units.get_mut(&group) {
                    // A panic drops the one to tell, which tells of it.
                    let _ = unit.guarded("fetching", |machine| {
                        machine.fetch(from, &offer, done);
                        Ok(())
                    });
                }
                Vec::new()
            }
            Job::Install { group, offer } => match self.units.get_mut(&group) {
                Some(unit) => vec![unit.install(group, &offer)],
                None => Vec::new(),
            },
            Job::Close { group } => match self.units.remove(&group) {
                Some(unit) => vec![unit.close(group)],
                None => Vec::new(),
            },
        }
    }

    /// Tries again what a full disk has held up.
    pub(crate) fn retry(&mut self, now: Duration) -> Vec<Done> {
        let due = |unit: &&mut Unit| !unit.held.is_empty();
        self.units.values_mut().filter(due).flat_map(|unit| unit.retry(now)).collect()
    }

    /// When to call [`Applier::retry`] next: for another try, or because somebody has waited long enough.
    pub(crate) fn next_retry(&self) -> Option<Duration> {
        let held = self.units.values().filter(|unit| !unit.held.is_empty());
        held.map(|unit| unit.deadlines().fold(unit.retry_at, Duration::min)).min()
    }
}

impl Unit {
    fn apply(&mut self, batch: Batch, now: Duration) -> Vec<Done> {
        if let Condition::Stopped(why) = &self.condition {
            doubt(batch.tickets, why);
            return Vec::new();
        }
        self.held.push_back(batch);
        if self.held.len() > 1 && now < self.retry_at { Vec::new() } else { self.drain(now) }
    }

    fn retry(&mut self, now: Duration) -> Vec<Done> {
        for ticket in self.held.iter_mut().flat_map(|batch| &mut batch.tickets).flatten() {
            if let Some(late) = ticket.caller.take_if(|caller| caller.deadline <= now) {
                late.answer(Outcome::Unknown(Doubt::Deadline));
            }
        }
        if now < self.retry_at { Vec::new() } else { self.drain(now) }
    }

    fn deadlines(&self) -> impl Iterator<Item = Duration> {
        let tickets = self.held.iter().flat_map(|batch| &batch.tickets).flatten();
        tickets.filter_map(|ticket| ticket.caller.as_ref()).map(|caller| caller.deadline)
    }

    fn drain(&mut self, now: Duration) -> Vec<Done> {
        let mut done = Vec::new();
        while let Some(batch) = self.held.pop_front() {
            let group = batch.group;
            match self.apply_now(&batch.entries) {
                Ok(responses) => {
                    answer(batch, responses);
                    (self.condition, self.backoff) = (Condition::Running, MIN_BACKOFF);
                    done.push(self.done(group, true));
                }
                Err(ApplyError::Full(what)) => {
                    if self.condition == Condition::Running {
                        tracing::warn!(%group, what, "no room to apply: holding committed entries");
                    }
                    self.condition = Condition::Full(what);
                    self.retry_at = now + self.backoff;
                    self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
                    self.held.push_front(batch);
                    done.push(self.done(group, false));
                    break;
                }
                Err(error) => {
                    self.damaged = matches!(error, ApplyError::Corrupt(_));
                    let why = format!("applying failed: {error}");
                    tracing::error!(%group, why, "the group stops");
                    doubt(batch.tickets, &why);
                    for batch in self.held.drain(..) {
                        doubt(batch.tickets, &why);
                    }
                    self.condition = Condition::Stopped(why);
                    done.push(self.done(group, true));
                }
            }
        }
        done
    }

    fn apply_now(&mut self, entries: &[Committed]) -> Result<Vec<Bytes>, ApplyError> {
        let machine = &mut self.machine;
        let responses = catch_unwind(AssertUnwindSafe(|| machine.apply(entries)))
            .unwrap_or_else(|panic| Err(ApplyError::Failed(format!("panic: {}", sagitta_env::panic_text(&*panic)))))?;
        if responses.len() == entries.len() {
            return Ok(responses);
        }
        let (got, wanted) = (responses.len(), entries.len());
        Err(ApplyError::Failed(format!("{got} responses to {wanted} entries")))
    }

    fn poll(&mut self, group: GroupId, flush: bool) -> Done {
        if flush && self.condition == Condition::Running {
            // Only a hint; an error shows again when it matters.
            if let Err(error) = self.flush(false) {
                tracing::warn!(%group, error, "cannot flush");
            }
        }
        Done { poll: true, ..self.done(group, false) }
    }

    fn offer(&mut self, done: Offering) {
        if let Condition::Stopped(why) = &self.condition {
            return done.end(Err(why.clone()));
        }
        // A panic drops the one to tell, which tells of it.
        let _ = self.guarded("offering the state", |machine| {
            machine.offer(done);
            Ok(())
        });
    }

    /// The caller has seen to it that nothing is left to apply.
    fn install(&mut self, group: GroupId, offer: &Offer) -> Done {
        let mut in_doubt = false;
        let installed = match &self.condition {
            Condition::Stopped(why) => Err(why.clone()),
            _ => self.guarded("installing a state", |machine| {
                machine.install(offer).inspect_err(|error| in_doubt = matches!(error, ApplyError::InDoubt(_)))
            }),
        };
        if let (true, Err(why)) = (in_doubt, &installed) {
            // What is on disk may be the other state: nothing may be applied to this one.
            self.condition = Condition::Stopped(why.clone());
        }
        Done { installed: Some(installed), ..self.done(group, false) }
    }

    fn guarded<T>(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut dyn StateMachine) -> Result<T, ApplyError>,
    ) -> Result<T, String> {
        let machine = &mut *self.machine;
        match catch_unwind(AssertUnwindSafe(|| work(machine))) {
            Ok(result) => result.map_err(|error| format!("{what}: {error}")),
            Err(panic) => Err(format!("{what}: panic: {}", sagitta_env::panic_text(&*panic))),
        }
    }

    fn close(mut self, group: GroupId) -> Done {
        for batch in std::mem::take(&mut self.held) {
            doubt(batch.tickets, "the group was closed");
        }
        let flushed = match &self.condition {
            Condition::Stopped(why) => Err(why.clone()),
            _ => self.flush(true),
        };
        Done { closed: Some(flushed), ..self.done(group, false) }
    }

    fn flush(&mut self, wait: bool) -> Result<(), String> {
        let machine = &mut self.machine;
        match catch_unwind(AssertUnwindSafe(|| machine.flush(wait))) {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(panic) => Err(format!("panic: {}", sagitta_env::panic_text(&*panic))),
        }
    }

    fn done(&self, group: GroupId, batch: bool) -> Done {
        Done {
            group,
            applied: self.machine.applied(),
            durable: self.machine.durable(),
            condition: self.condition.clone(),
            damaged: self.damaged,
            batch,
            poll: false,
            installed: None,
            closed: None,
        }
    }
}

impl Caller {
    /// Whether somebody still listens does not matter.
    pub(crate) fn answer(self, outcome: Outcome) {
        let _ = self.answer.send(outcome);
    }
}

impl Ticket {
    /// Whether nobody waits any more.
    pub(crate) fn is_late(&self, now: Duration) -> bool {
        self.caller.as_ref().is_none_or(|caller| caller.deadline <= now)
    }

    pub(crate) fn answer(self, outcome: Outcome) {
        if let Some(caller) = self.caller {
            caller.answer(outcome);
        }
    }
}

fn answer(batch: Batch, responses: Vec<Bytes>) {
    for ((entry, ticket), response) in batch.entries.iter().zip(batch.tickets).zip(responses) {
        if let Some(ticket) = ticket {
            ticket.answer(Outcome::Applied(Applied { index: entry.index, term: entry.term, response }));
        }
    }
}

fn doubt(tickets: Vec<Option<Ticket>>, why: &str) {
    for ticket in tickets.into_iter().flatten() {
        ticket.answer(Outcome::Unknown(Doubt::Stopped { why: why.to_owned() }));
    }
}
