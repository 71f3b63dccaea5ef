//! The cases, from the kinds of operations and their steps: what is new there and is not handled here does not compile.

use std::fmt;

use sagitta_cluster::{Command, Merge, Operation, Split, State};
use sagitta_model::{MergeStep, OperationKind, OperationStep, SplitStep};

/// What the cluster does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// One of three replicas goes to another node.
    Replica(OperationKind),
    /// The only replica of a shard is moved by hand: there is no other copy of what it holds.
    OnlyReplica,
    Split,
    Merge,
}

impl Doing {
    /// How many replicas a shard has.
    pub(super) fn replication(self) -> u32 {
        match self {
            Self::Replica(_) | Self::Split | Self::Merge => 3,
            Self::OnlyReplica => 1,
        }
    }

    /// The kind of its operations, if it is made of these.
    pub(super) fn kind(self) -> Option<OperationKind> {
        match self {
            Self::Replica(kind) => Some(kind),
            Self::OnlyReplica => Some(OperationKind::Move),
            Self::Split | Self::Merge => None,
        }
    }

    /// The kind that its operations are shown as.
    pub(super) fn kind_name(self) -> &'static str {
        match self {
            Self::Replica(kind) => kind.name(),
            Self::OnlyReplica => OperationKind::Move.name(),
            Self::Split => "split",
            Self::Merge => "merge",
        }
    }
}

/// Something that is agreed on in the course of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// An operation is at a step.
    Step(OperationStep),
    /// Somebody wants an operation not to come about.
    Cancel,
    /// A split is at a step.
    Split(SplitStep),
    /// A merge is at a step.
    Merge(MergeStep),
}

/// When somebody is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// It stands in the log of whoever leads the control group, and nobody has agreed to it.
    Before,
    /// It is agreed on, and whoever is killed has just learned of it.
    After,
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    /// Leads the control group.
    ControlLeader,
    /// Gives its replica up, and leads the shard's group until then.
    LeadingSource,
    /// Gives its replica up, and need not lead. One that is gone already comes back instead.
    Source,
    /// Gets the replica.
    Destination,
    /// Leads the shard's group.
    Leader,
    /// Keeps its replica, and does not lead.
    Follower,
}

/// Somebody is killed at a moment of something that the cluster does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) doing: Doing,
    /// Where it is cancelled, so that it comes to the event.
    pub(super) cancelled_at: Option<Event>,
    pub(super) event: Event,
    pub(super) moment: Moment,
    pub(super) victim: Victim,
}

impl Case {
    /// Whether it may come about though somebody wanted it cancelled: who has that agreed on is killed before, and is asked again later.
    pub(super) fn may_be_cancelled_too_late(&self) -> bool {
        let is_end = match self.event {
            Event::Cancel | Event::Split(SplitStep::Cancelled) => true,
            Event::Merge(step) => matches!(step, MergeStep::Cancelled | MergeStep::Thaw),
            Event::Step(_) | Event::Split(_) => false,
        };
        is_end && self.moment == Moment::Before
    }
}

impl Victim {
    /// Whether the source may lead the shard's group as well.
    pub(super) fn allows_the_source_to_lead(self) -> bool {
        match self {
            Self::ControlLeader | Self::LeadingSource | Self::Destination | Self::Follower => true,
            Self::Source | Self::Leader => false,
        }
    }
}

/// Everything that can be killed into, with how it is come to: at each moment `each` of the victims, whom the seed draws. Seeds that follow
/// each other draw all.
pub(super) fn cases(doing: Doing, each: usize, seed: u64) -> Vec<Case> {
    let all = victims(doing);
    let both = |(event, cancelled_at)| [Moment::Before, Moment::After].map(|moment| (event, cancelled_at, moment));
    let moments = events(doing).into_iter().flat_map(both).enumerate();
    let cases = moments.flat_map(|(number, (event, cancelled_at, moment))| {
        let first = number + (seed % all.len() as u64) as usize;
        (first..first + each.min(all.len())).map(move |turn| {
            let victim = all[turn % all.len()];
            Case { doing, cancelled_at, event, moment, victim }
        })
    });
    cases.collect()
}

fn victims(doing: Doing) -> &'static [Victim] {
    use Victim::{ControlLeader, Destination, Follower, Leader, LeadingSource, Source};
    match doing {
        Doing::Replica(OperationKind::Move | OperationKind::Drain) => {
            &[ControlLeader, LeadingSource, Source, Destination, Leader, Follower]
        }
        // Whether the source leads is not for the test to choose.
        Doing::Replica(OperationKind::Repair | OperationKind::Rebalance) => {
            &[ControlLeader, Source, Destination, Leader, Follower]
        }
        Doing::OnlyReplica => &[ControlLeader, LeadingSource, Destination],
        // Of a merge those of the lower shard; the follower may lead any of the others.
        Doing::Split | Doing::Merge => &[ControlLeader, Leader, Follower],
    }
}

fn events(doing: Doing) -> Vec<(Event, Option<Event>)> {
    match doing {
        Doing::Replica(_) | Doing::OnlyReplica => {
            let steps = OperationStep::NAMES.iter().map(|(step, _)| *step);
            let can = steps.clone().filter(|step| step.can_be_cancelled()).map(Event::Step);
            let cancels = can.map(|at| (Event::Cancel, Some(at)));
            steps
                .flat_map(|step| ways(step).into_iter().map(move |at| (Event::Step(step), at)))
                .chain(cancels)
                .collect()
        }
        Doing::Split => {
            let steps = SplitStep::NAMES.iter().map(|(step, _)| *step);
            steps.map(|step| (Event::Split(step), way_of_split(step))).collect()
        }
        Doing::Merge => {
            let steps = MergeStep::NAMES.iter().map(|(step, _)| *step);
            steps.flat_map(|step| ways_of_merge(step).into_iter().map(move |at| (Event::Merge(step), at))).collect()
        }
    }
}

/// Where an operation is cancelled so that it comes to a step.
fn ways(step: OperationStep) -> Vec<Option<Event>> {
    use OperationStep::{Cancelled, CatchUp, Done, Drop, Join, Switch, Undo};
    match step {
        Join | CatchUp | Switch | Drop | Done => vec![None],
        Undo | Cancelled => {
            let steps = OperationStep::NAMES.iter().map(|(step, _)| *step);
            steps.filter(|step| step.can_be_cancelled()).map(|step| Some(Event::Step(step))).collect()
        }
    }
}

fn way_of_split(step: SplitStep) -> Option<Event> {
    match step {
        SplitStep::Prepare | SplitStep::Divide | SplitStep::Found | SplitStep::Done => None,
        SplitStep::Cancelled => Some(Event::Split(SplitStep::Prepare)),
    }
}

fn ways_of_merge(step: MergeStep) -> Vec<Option<Event>> {
    use MergeStep::{Cancelled, Copy, Done, Freeze, Prepare, Thaw};
    let at = |steps: &[MergeStep]| steps.iter().map(|step| Some(Event::Merge(*step))).collect();
    match step {
        Prepare | Copy | Freeze | Done => vec![None],
        // What is frozen is not cancelled but takes too long.
        Thaw => at(&[Freeze]),
        Cancelled => at(&[Prepare, Copy, Freeze]),
    }
}

/// Whether an operation that is at a step has come to another one on its way.
fn has_come(now: OperationStep, to: OperationStep) -> bool {
    use OperationStep::{Cancelled, CatchUp, Done, Drop, Join, Switch, Undo};
    match to {
        Join | CatchUp | Switch | Drop => now >= to && !matches!(now, Undo | Cancelled),
        Undo => matches!(now, Undo | Cancelled),
        Done | Cancelled => now == to,
    }
}

/// The same of a split.
fn has_split_come(now: SplitStep, to: SplitStep) -> bool {
    match to {
        SplitStep::Prepare | SplitStep::Divide | SplitStep::Found => now >= to && now != SplitStep::Cancelled,
        SplitStep::Done | SplitStep::Cancelled => now == to,
    }
}

/// The same of a merge.
fn has_merge_come(now: MergeStep, to: MergeStep) -> bool {
    use MergeStep::{Cancelled, Copy, Done, Freeze, Prepare, Thaw};
    match to {
        Prepare | Copy | Freeze => now >= to && now != Cancelled,
        Thaw => matches!(now, Thaw | Cancelled),
        Done | Cancelled => now == to,
    }
}

/// Whether an operation, a split or a merge has come about.
pub(super) fn is_done(state: &State, id: u64) -> bool {
    let operation = state.operation(id).is_ok_and(|one| one.step == OperationStep::Done);
    let split = || state.split(id).is_ok_and(|one| one.step == SplitStep::Done);
    operation || split() || state.merge(id).is_ok_and(|one| one.step == MergeStep::Done)
}

/// An operation, a split or a merge that was seen at an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its number; 0 before it has one.
    pub(super) id: u64,
    pub(super) shard: u64,
    /// The node that gives its replica up, and the one that gets it.
    pub(super) from: Option<u64>,
    pub(super) to: Option<u64>,
    /// Whether it is at the event now, and not beyond it.
    pub(super) exact: bool,
}

impl Event {
    /// What a command brings to it, where that has this state before.
    pub(super) fn proposed(self, command: &Command, before: &State) -> Option<Seen> {
        match (self, command) {
            (Self::Step(OperationStep::Join), Command::BeginOperation { shard, from, to, .. }) => {
                Some(Seen { id: 0, shard: *shard, from: *from, to: Some(*to), exact: true })
            }
            (Self::Split(SplitStep::Prepare), Command::BeginSplit { shard, .. }) => {
                Some(Seen { id: 0, shard: *shard, from: None, to: None, exact: true })
            }
            (Self::Step(step), Command::AdvanceOperation { id, to, .. }) if step == *to => {
                before.operation(*id).ok().map(|one| Seen::replica(one, true))
            }
            (Self::Cancel, Command::CancelOperation { id }) => {
                before.operation(*id).ok().map(|one| Seen::replica(one, true))
            }
            (Self::Split(step), Command::AdvanceSplit { id, to, .. }) if step == *to => {
                before.split(*id).ok().map(|one| Seen::split(one, true))
            }
            (Self::Merge(MergeStep::Prepare), Command::BeginMerge { left, .. }) => {
                Some(Seen { id: 0, shard: *left, from: None, to: None, exact: true })
            }
            (Self::Merge(step), Command::AdvanceMerge { id, to, .. }) if step == *to => {
                before.merge(*id).ok().map(|one| Seen::merge(one, true))
            }
            _ => None,
        }
    }

    /// The first operation, split or merge of a state that has come to it.
    pub(super) fn agreed(self, state: &State, doing: Doing) -> Option<Seen> {
        let mut operations = state.operations().filter(|one| Some(one.kind) == doing.kind());
        match self {
            Self::Step(step) => {
                operations.find(|one| has_come(one.step, step)).map(|one| Seen::replica(one, one.step == step))
            }
            Self::Cancel => operations.find(|one| one.cancelled).map(|one| Seen::replica(one, true)),
            Self::Split(step) => {
                let one = state.splits().find(|one| has_split_come(one.step, step))?;
                Some(Seen::split(one, one.step == step))
            }
            Self::Merge(step) => {
                let one = state.merges().find(|one| has_merge_come(one.step, step))?;
                Some(Seen::merge(one, one.step == step))
            }
        }
    }
}

impl Seen {
    fn replica(one: &Operation, exact: bool) -> Self {
        Self { id: one.id, shard: one.shard, from: one.from, to: Some(one.to), exact }
    }

    fn split(one: &Split, exact: bool) -> Self {
        Self { id: one.id, shard: one.shard, from: None, to: None, exact }
    }

    fn merge(one: &Merge, exact: bool) -> Self {
        Self { id: one.id, shard: one.left, from: None, to: None, exact }
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(kind) => kind.fmt(f),
            Self::OnlyReplica => f.write_str("move of the only replica"),
            Self::Split => f.write_str("split"),
            Self::Merge => f.write_str("merge"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => step.fmt(f),
            Self::Cancel => f.write_str("its cancelling"),
            Self::Split(step) => step.fmt(f),
            Self::Merge(step) => step.fmt(f),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.moment {
            Moment::Before => "before",
            Moment::After => "after",
        };
        write!(f, "{}, {:?} {when} {}", self.doing, self.victim, self.event)?;
        match self.cancelled_at {
            Some(at) => write!(f, ", cancelled at {at}"),
            None => Ok(()),
        }
    }
}
