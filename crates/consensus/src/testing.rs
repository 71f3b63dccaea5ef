//! Nodes driven by hand: the driver and the applier without threads, a log and a state machine that lose power.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use sagitta_env::{Env, ManualClock};
use tokio::sync::{oneshot, watch};

use crate::admission::Admission;
use crate::apply::{Applier, Caller};
use crate::driver::{Driver, Input, OpenAnswer};
use crate::group::{GroupStatus, Incoming};
use crate::ids::{ClusterId, GroupId, NodeId, Position};
use crate::log::LogStore;
use crate::machine::{ApplyError, Committed, Fetching, Offer, Offering, StateMachine};
use crate::membership::Membership;
use crate::outcome::{Outcome, ReadOutcome};
use crate::reads::Reader;
use crate::settings::{GroupSpec, HostSettings};
use crate::transport::Transport;

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(crate) const GROUP: GroupId = GroupId(1);
pub(crate) const ME: NodeId = NodeId(1);
pub(crate) const TICK: Duration = Duration::from_millis(100);
pub(crate) const LATER: Duration = Duration::from_secs(1_000_000);

/// A host without threads.
pub(crate) struct Bench {
    pub(crate) env: Env,
    pub(crate) clock: ManualClock,
    pub(crate) driver: Driver,
    pub(crate) applier: Applier,
    pub(crate) admission: Arc<Admission>,
}

impl Bench {
    pub(crate) fn new(seed: u64, log: Arc<dyn LogStore>) -> Self {
        let (env, clock) = Env::seeded(seed);
        Self::with(env, clock, ME, log, Arc::new(crate::transport::SilentTransport))
    }

    pub(crate) fn with(
        env: Env,
        clock: ManualClock,
        node: NodeId,
        log: Arc<dyn LogStore>,
        transport: Arc<dyn Transport>,
    ) -> Self {
        let settings = HostSettings { tick: TICK, ..HostSettings::new(CLUSTER, node) };
        let driver = Driver::new(env.clone(), settings, log, transport, Arc::default());
        Self { env, clock, driver, applier: Applier::default(), admission: Arc::default() }
    }

    /// Opens a group of this one member, which leads it after the first round.
    pub(crate) fn open(&mut self, group: GroupId, machine: &TestMachine) -> OpenAnswer {
        self.open_among(group, &[ME], machine)
    }

    pub(crate) fn open_among(&mut self, group: GroupId, voters: &[NodeId], machine: &TestMachine) -> OpenAnswer {
        let spec = GroupSpec {
            group,
            found_with: Some(voters.to_vec()),
            found_at: None,
            floor: None,
            stands_first: false,
            alone_from: None,
        };
        self.open_as(spec, machine)
    }

    pub(crate) fn open_as(&mut self, spec: GroupSpec, machine: &TestMachine) -> OpenAnswer {
        let (answer, mut opened) = oneshot::channel();
        self.driver.handle(Input::Open { spec, machine: Box::new(machine.clone()), answer });
        opened.try_recv().unwrap()
    }

    pub(crate) fn propose(&mut self, group: GroupId, data: impl Into<Bytes>) -> oneshot::Receiver<Outcome> {
        self.propose_until(group, data, LATER)
    }

    pub(crate) fn propose_until(
        &mut self,
        group: GroupId,
        data: impl Into<Bytes>,
        deadline: Duration,
    ) -> oneshot::Receiver<Outcome> {
        let data = data.into();
        let permit = self.admission.admit(data.len()).unwrap();
        let (answer, outcome) = oneshot::channel();
        let incoming = Incoming { data, caller: Caller { answer, deadline }, permit };
        self.driver.handle(Input::Propose { group, incoming });
        outcome
    }

    pub(crate) fn read(&mut self, group: GroupId) -> oneshot::Receiver<ReadOutcome> {
        let (answer, read) = oneshot::channel();
        self.driver.handle(Input::Read { group, reader: Reader { answer, deadline: LATER } });
        read
    }

    /// Does all jobs and hands the reports back.
    pub(crate) fn apply(&mut self) {
        let now = self.env.now();
        for job in self.driver.take_jobs() {
            for done in self.applier.run(job, now) {
                self.driver.applied(done);
            }
        }
    }

    /// Rounds and jobs until nothing moves.
    pub(crate) fn run(&mut self) {
        for done in self.applier.retry(self.env.now()) {
            self.driver.applied(done);
        }
        loop {
            let moved = self.driver.round();
            self.apply();
            if !moved && !self.driver.has_work() {
                // A last one, for what the last jobs set free.
                self.driver.round();
                self.apply();
                break;
            }
        }
    }

    /// Time passes, tick by tick.
    pub(crate) fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.clock.advance(TICK);
            self.driver.tick();
            self.run();
        }
    }
}

pub(crate) fn status(watched: &watch::Receiver<GroupStatus>) -> GroupStatus {
    watched.borrow().clone()
}

/// Remembers every command in order. Clones are the same state machine.
#[derive(Clone, Default)]
pub(crate) struct TestMachine {
    state: Arc<Mutex<MachineState>>,
}

#[derive(Default)]
pub(crate) struct MachineState {
    pub(crate) live: Image,
    pub(crate) durable: Image,
    /// Entries per batch, as they came.
    pub(crate) batches: Vec<usize>,
    pub(crate) flushes: usize,
    /// The next so many batches find no room.
    pub(crate) full: usize,
    pub(crate) corrupt: bool,
    /// What is installed may be on disk or not.
    pub(crate) unsure: bool,
    pub(crate) panics: bool,
    /// Where states are offered and fetched; without one it does neither.
    pub(crate) depot: Option<Depot>,
    /// What was fetched last.
    pub(crate) staged: Option<Image>,
    /// Fetching waits for the test to end it.
    pub(crate) slow: bool,
    pub(crate) waiting: Vec<Fetching>,
    /// Offering waits for the test to end it.
    pub(crate) slow_to_offer: bool,
    pub(crate) offering: Vec<(Offering, (Position, Option<Membership>, Bytes))>,
    pub(crate) retracted: usize,
    /// Reports as durable what a power loss would take: no checker may let this pass.
    pub(crate) lies_about_durable: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Image {
    pub(crate) applied: Position,
    pub(crate) membership: Option<Membership>,
    pub(crate) commands: Vec<(u64, Bytes)>,
    pub(crate) installed: Option<Position>,
}

/// States that members offer to each other, by the number in the manifest.
#[derive(Clone, Default)]
pub(crate) struct Depot(Arc<Mutex<BTreeMap<u64, Image>>>);

impl Depot {
    /// Offers a state, and returns the manifest of it.
    pub(crate) fn put(&self, image: Image) -> Bytes {
        let mut images = self.lock();
        let number = images.len() as u64;
        images.insert(number, image);
        Bytes::copy_from_slice(&number.to_le_bytes())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Image>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl TestMachine {
    pub(crate) fn lock(&self) -> MutexGuard<'_, MachineState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn commands(&self) -> Vec<Bytes> {
        self.lock().live.commands.iter().map(|(_, data)| data.clone()).collect()
    }

    pub(crate) fn make_durable(&self) {
        let mut state = self.lock();
        state.durable = state.live.clone();
    }

    #[must_use]
    pub(crate) fn after_power_loss(&self) -> Self {
        let old = self.lock();
        let state = MachineState {
            live: old.durable.clone(),
            durable: old.durable.clone(),
            lies_about_durable: old.lies_about_durable,
            depot: old.depot.clone(),
            ..MachineState::default()
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

impl StateMachine for TestMachine {
    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Bytes>, ApplyError> {
        let mut state = self.lock();
        if state.full > 0 {
            state.full -= 1;
            return Err(ApplyError::Full("test".to_owned()));
        }
        if state.corrupt {
            return Err(ApplyError::Corrupt("test".to_owned()));
        }
        assert!(!state.panics, "asked to panic");
        state.batches.push(entries.len());
        let mut responses = Vec::new();
        for entry in entries {
            let next = state.live.applied.index.max(1) + 1;
            assert_eq!(entry.index, next, "entries come without gaps");
            state.live.applied = Position { index: entry.index, term: entry.term };
            if let Some(membership) = &entry.membership {
                state.live.membership = Some(membership.clone());
            }
            if !entry.data.is_empty() {
                state.live.commands.push((entry.index, entry.data.clone()));
            }
            responses.push(Bytes::from(state.live.commands.len().to_string()));
        }
        Ok(responses)
    }

    fn applied(&self) -> Position {
        self.lock().live.applied
    }

    fn durable(&self) -> u64 {
        let state = self.lock();
        let image = if state.lies_about_durable { &state.live } else { &state.durable };
        image.applied.index
    }

    fn membership(&self) -> Option<Membership> {
        self.lock().live.membership.clone()
    }

    fn flush(&mut self, _wait: bool) -> Result<(), ApplyError> {
        self.lock().flushes += 1;
        self.make_durable();
        Ok(())
    }

    fn offers(&self) -> bool {
        self.lock().depot.is_some()
    }

    fn offer(&mut self, done: Offering) {
        let mut state = self.lock();
        let depot = state.depot.as_ref().expect("it was not asked for otherwise");
        let Image { applied, membership, .. } = state.live.clone();
        let offered = (applied, membership, depot.put(state.live.clone()));
        if state.slow_to_offer { state.offering.push((done, offered)) } else { done.end(Ok(offered)) }
    }

    fn retract(&mut self) {
        self.lock().retracted += 1;
    }

    fn fetch(&mut self, _from: NodeId, offer: &Offer, done: Fetching) {
        let mut state = self.lock();
        if state.depot.is_none() {
            return done.end(Err("nowhere to fetch from".to_owned()));
        }
        let number = u64::from_le_bytes(offer.manifest[..].try_into().expect("eight bytes"));
        let image = state.depot.as_ref().and_then(|depot| depot.lock().get(&number).cloned());
        state.staged = image.map(|image| Image { installed: Some(image.applied), ..image });
        if state.slow { state.waiting.push(done) } else { done.end(Ok(())) }
    }

    fn install(&mut self, offer: &Offer) -> Result<(), ApplyError> {
        let mut state = self.lock();
        if state.full > 0 {
            state.full -= 1;
            return Err(ApplyError::Full("test".to_owned()));
        }
        if state.unsure {
            return Err(ApplyError::InDoubt("test".to_owned()));
        }
        let mut image = state.staged.take().expect("it was fetched");
        image.membership = Some(offer.membership.clone());
        assert_eq!(image.applied, offer.position);
        assert!(state.live.applied.index < image.applied.index, "it goes forward only");
        (state.live, state.durable) = (image.clone(), image);
        Ok(())
    }

    fn installed(&self) -> Option<Position> {
        self.lock().live.installed
    }
}
