use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sagitta_model::ErrorKind;
use tokio::sync::oneshot;

use super::*;
use crate::group::Role;
use crate::ids::ClusterId;
use crate::log::memory::{Fault, MemoryLog};
use crate::membership::Membership;
use crate::outcome::Applied;
use crate::testing::{Bench, CLUSTER, GROUP, LATER, ME, TICK, TestMachine, status};

mod alone;
mod changes;
mod crashes;
mod crew;
mod founded;
mod members;
mod snapshots;

fn text(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

fn single() -> (Bench, MemoryLog, TestMachine) {
    let (log, machine) = (MemoryLog::new(), TestMachine::default());
    let mut bench = Bench::new(1, Arc::new(log.clone()));
    bench.open(GROUP, &machine).unwrap();
    bench.run();
    (bench, log, machine)
}

fn index_of(outcome: &mut oneshot::Receiver<Outcome>) -> u64 {
    match outcome.try_recv() {
        Ok(Outcome::Applied(Applied { index, .. })) => index,
        other => panic!("not applied: {other:?}"),
    }
}

fn all_applied(outcomes: &mut [oneshot::Receiver<Outcome>]) {
    for outcome in outcomes {
        index_of(outcome);
    }
}

fn refusal_of(outcome: &mut oneshot::Receiver<Outcome>) -> Refusal {
    match outcome.try_recv() {
        Ok(Outcome::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_lone_member_leads_and_serves_without_a_tick() {
    let (log, machine) = (MemoryLog::new(), TestMachine::default());
    let mut bench = Bench::new(1, Arc::new(log.clone()));
    let watched = bench.open(GROUP, &machine).unwrap();
    let mut outcome = bench.propose(GROUP, "first");
    let mut read = bench.read(GROUP);
    bench.run();
    assert_eq!(index_of(&mut outcome), 3, "after the founding entry and the new leader's own");
    assert!(matches!(read.try_recv(), Ok(ReadOutcome::At(index)) if index >= 2));
    assert_eq!(log.appends(), 2, "one to found the log, one for everything else");
    let now = status(&watched);
    assert_eq!((now.role, now.leader, now.applied, now.last), (Role::Leader, Some(ME), 3, 3));
    assert_eq!(now.membership, Membership::of_voters(&[ME]));
}

#[test]
fn a_restarted_member_serves_at_once_and_applies_what_the_state_machine_lost() {
    let (mut bench, log, machine) = single();
    for number in 0..10 {
        bench.propose(GROUP, text(number));
        bench.run();
    }
    let (log, machine) = (log.after_power_loss(0), machine.after_power_loss());
    assert_eq!(machine.commands().len(), 0, "nothing was durable");
    let mut bench = Bench::new(2, Arc::new(log));
    bench.open(GROUP, &machine).unwrap();
    let mut outcome = bench.propose(GROUP, text(10));
    bench.run();
    index_of(&mut outcome);
    assert_eq!(machine.commands(), (0..=10).map(text).collect::<Vec<_>>());
}

#[test]
fn a_read_after_a_restart_waits_for_what_was_acknowledged_before() {
    let (mut bench, log, machine) = single();
    index_of(&mut {
        let outcome = bench.propose(GROUP, "acknowledged");
        bench.run();
        outcome
    });
    let (log, machine) = (log.after_power_loss(0), machine.after_power_loss());
    assert_eq!(machine.commands().len(), 0, "the state machine has lost it, the log has not");
    machine.lock().full = 3;
    let mut bench = Bench::new(2, Arc::new(log));
    bench.open(GROUP, &machine).unwrap();
    let mut read = bench.read(GROUP);
    bench.run();
    assert!(read.try_recv().is_err() && bench.read(GROUP).try_recv().is_err(), "it has yet to be applied");
    bench.ticks(30);
    assert!(matches!(read.try_recv(), Ok(ReadOutcome::At(_))));
    assert_eq!(machine.commands(), ["acknowledged"]);
}

#[test]
fn proposals_that_arrive_together_share_one_fsync_across_groups() {
    let log = MemoryLog::new();
    let mut bench = Bench::new(1, Arc::new(log.clone()));
    let machines: Vec<_> = (1..=5).map(|group| (GroupId(group), TestMachine::default())).collect();
    for (group, machine) in &machines {
        bench.open(*group, machine).unwrap();
    }
    bench.run();
    let before = log.appends();
    let mut outcomes: Vec<_> = (0..500).map(|number| bench.propose(GroupId(1 + number % 5), text(number))).collect();
    bench.run();
    assert_eq!(log.appends() - before, 1);
    for outcome in &mut outcomes {
        index_of(outcome);
    }
    for (group, machine) in &machines {
        let wanted: Vec<_> = (0..500).filter(|number| GroupId(1 + number % 5) == *group).map(text).collect();
        assert_eq!(machine.commands(), wanted, "{group} in the order of the calls");
        assert_eq!(machine.lock().batches.last(), Some(&100), "applied together too");
    }
}

#[test]
fn a_proposal_that_is_retried_reaches_the_state_machine_twice_and_in_order() {
    let (mut bench, _, machine) = single();
    let mut first = bench.propose(GROUP, "request 7");
    let mut other = bench.propose(GROUP, "request 8");
    bench.run();
    let mut again = bench.propose(GROUP, "request 7");
    bench.run();
    assert!(index_of(&mut first) < index_of(&mut other));
    index_of(&mut again);
    assert_eq!(machine.commands(), ["request 7", "request 8", "request 7"]);
}

#[test]
fn the_log_is_truncated_only_below_what_the_state_machine_made_durable() {
    let (mut bench, log, machine) = single();
    let propose = |bench: &mut Bench, count: u64| {
        for number in 0..count {
            bench.propose(GROUP, text(number));
        }
        bench.run();
        bench.ticks(POLL_TICKS as usize + 1);
    };
    let first = || log.load(GROUP).unwrap().unwrap().truncated.index + 1;
    propose(&mut bench, 1_000);
    assert_eq!(first(), 2, "nothing is durable, nothing may go");
    machine.make_durable();
    let durable = machine.lock().durable.applied.index;
    propose(&mut bench, 1_000);
    assert_eq!(first(), durable - KEEP_ENTRIES + 1);
    machine.make_durable();
    propose(&mut bench, 0);
    let durable = machine.lock().durable.applied.index;
    assert_eq!((durable, first()), (2_002, 2_002 - KEEP_ENTRIES + 1));
    drop(bench);
    let (log, machine) = (log.after_power_loss(0), machine.after_power_loss());
    let mut bench = Bench::new(2, Arc::new(log));
    bench.open(GROUP, &machine).unwrap();
    bench.run();
    assert_eq!(machine.commands().len(), 2_000);
}

#[test]
fn of_large_entries_fewer_are_kept_in_the_log() {
    let (mut bench, log, machine) = single();
    const ENTRY: u64 = 1 << 20;
    let mut propose = |count: u64| {
        for _ in 0..count {
            bench.propose(GROUP, Bytes::from(vec![b'7'; ENTRY as usize]));
            bench.run();
        }
        machine.make_durable();
        bench.ticks(POLL_TICKS as usize + 1);
        let truncated = log.load(GROUP).unwrap().unwrap().truncated.index;
        (truncated, machine.lock().durable.applied.index - truncated)
    };
    let few = (KEEP_BYTES + TRUNCATE_STEP_BYTES) / ENTRY - 2;
    assert_eq!(propose(few).0, 1, "too little would be free");
    let (cut, kept) = propose(4);
    assert!(cut > 1 && kept <= KEEP_BYTES / ENTRY && kept + 2 > KEEP_BYTES / ENTRY, "cut at {cut}, and {kept} kept");
    assert_eq!(propose(4).0, cut, "too little would be free");
}

#[test]
fn a_log_that_is_too_large_gives_up_all_that_is_durable_however_few_entries_it_has() {
    let (mut bench, log, machine) = single();
    let propose = |bench: &mut Bench, count: u64| {
        (0..count).for_each(|number| drop(bench.propose(GROUP, text(number))));
        bench.run();
        bench.ticks(PURGE_TICKS as usize + POLL_TICKS as usize + 1);
    };
    let truncated = || log.load(GROUP).unwrap().unwrap().truncated.index;
    propose(&mut bench, 5);
    machine.make_durable();
    propose(&mut bench, 5);
    assert_eq!(truncated(), 1, "five small entries are not worth it");
    let durable = machine.lock().durable.applied.index;
    log.crowd(GROUP);
    propose(&mut bench, 0);
    assert_eq!(truncated(), durable, "no further than what is durable");
    machine.make_durable();
    log.crowd(GROUP);
    propose(&mut bench, 0);
    assert_eq!(truncated(), machine.lock().durable.applied.index);
    // Nothing is left of the log, and life goes on: here and after a restart.
    propose(&mut bench, 3);
    drop(bench);
    let (log, machine) = (log.after_power_loss(0), machine.after_power_loss());
    let mut bench = Bench::new(2, Arc::new(log));
    bench.open(GROUP, &machine).unwrap();
    bench.run();
    let mut last = bench.propose(GROUP, "last");
    bench.run();
    index_of(&mut last);
    assert_eq!(machine.commands().len(), 14);
}

#[test]
fn a_failed_fsync_ends_all_acknowledgements() {
    let (mut bench, log, machine) = single();
    let other = TestMachine::default();
    bench.open(GroupId(2), &other).unwrap();
    bench.run();
    log.inject(log.appends(), Fault::SyncFails);
    let mut lost = bench.propose(GROUP, "lost");
    bench.run();
    assert!(matches!(lost.try_recv(), Ok(Outcome::Unknown(Doubt::Stopped { .. }))));
    for group in [GROUP, GroupId(2)] {
        let mut late = bench.propose(group, "late");
        bench.run();
        bench.ticks(20);
        assert!(matches!(refusal_of(&mut late), Refusal::Stopped { .. }));
        assert!(matches!(bench.read(group).try_recv(), Ok(ReadOutcome::Refused(_))));
    }
    assert_eq!(machine.commands().len(), 0);
    let (answer, mut opened) = oneshot::channel();
    let spec = GroupSpec {
        group: GroupId(3),
        found_with: Some(vec![ME]),
        found_at: None,
        floor: None,
        stands_first: false,
        alone_from: None,
    };
    bench.driver.handle(Input::Open { spec, machine: Box::new(other), answer });
    assert!(matches!(opened.try_recv(), Ok(Err(ConsensusError::Stopped { .. }))));
}

#[test]
fn a_full_log_refuses_writes_keeps_reads_up_and_goes_on_by_itself() {
    let (mut bench, log, machine) = single();
    for append in log.appends()..log.appends() + 4 {
        log.inject(append, Fault::Full);
    }
    let mut held = bench.propose(GROUP, "held");
    bench.run();
    assert!(held.try_recv().is_err(), "neither applied nor refused: it waits");
    assert!(matches!(refusal_of(&mut bench.propose(GROUP, "refused")), Refusal::Full { .. }));
    assert!(matches!(bench.read(GROUP).try_recv(), Ok(ReadOutcome::At(_))));
    bench.ticks(40);
    index_of(&mut held);
    let mut after = bench.propose(GROUP, "after");
    bench.run();
    index_of(&mut after);
    assert_eq!(machine.commands(), ["held", "after"]);
}

#[test]
fn a_group_that_is_closed_and_removed_while_the_log_is_full_leaves_nothing_in_it() {
    let (mut bench, log, _) = single();
    let (other, healthy) = (GroupId(2), TestMachine::default());
    bench.open(other, &healthy).unwrap();
    bench.run();
    for append in log.appends()..log.appends() + 3 {
        log.inject(append, Fault::Full);
    }
    let (mut lost, mut held) = (bench.propose(GROUP, "lost"), bench.propose(other, "held"));
    bench.run();
    let (answer, mut closed) = oneshot::channel();
    bench.driver.handle(Input::Close { group: GROUP, deadline: bench.env.now(), answer });
    bench.driver.tick();
    bench.apply();
    assert!(closed.try_recv().is_ok(), "it is out of time");
    let (answer, mut removed) = oneshot::channel();
    bench.driver.handle(Input::Remove { group: GROUP, answer });
    assert!(matches!(removed.try_recv(), Ok(Ok(()))));
    bench.ticks(60);
    index_of(&mut held);
    assert!(matches!(lost.try_recv(), Ok(Outcome::Unknown(_))));
    assert_eq!(log.groups().unwrap(), [other]);
}

#[test]
fn a_log_without_room_to_give_space_back_goes_on_by_itself() {
    let (mut bench, log, machine) = single();
    // The first tries come soon one after the other, the last every two seconds.
    for append in log.appends()..log.appends() + 9 {
        log.inject(append, Fault::Full);
    }
    let mut held = bench.propose(GROUP, "held");
    bench.run();
    bench.ticks(PURGE_TICKS as usize + 1);
    assert!(log.purge().is_err() && held.try_recv().is_err(), "it was full when space was to be given back");
    assert!(matches!(bench.read(GROUP).try_recv(), Ok(ReadOutcome::At(_))));
    bench.ticks(100);
    index_of(&mut held);
    assert_eq!(machine.commands(), ["held"]);
}

#[test]
fn a_full_disk_under_the_state_machine_holds_the_entries_and_goes_on_by_itself() {
    let (mut bench, _, machine) = single();
    let (other, healthy) = (GroupId(2), TestMachine::default());
    bench.open(other, &healthy).unwrap();
    bench.run();
    machine.lock().full = 5;
    let mut held = bench.propose(GROUP, "held");
    bench.run();
    assert!(matches!(refusal_of(&mut bench.propose(GROUP, "refused")), Refusal::Full { .. }));
    let mut beside = bench.propose(other, "beside");
    bench.run();
    index_of(&mut beside);
    assert!(held.try_recv().is_err());
    assert!(matches!(bench.read(GROUP).try_recv(), Ok(ReadOutcome::At(_))), "reads stay up");
    bench.ticks(60);
    index_of(&mut held);
    let mut after = bench.propose(GROUP, "after");
    bench.run();
    index_of(&mut after);
    assert_eq!(machine.commands(), ["held", "after"]);
}

#[test]
fn entries_held_by_a_full_disk_survive_a_crash() {
    let (mut bench, log, machine) = single();
    machine.lock().full = usize::MAX;
    let mut held = bench.propose_until(GROUP, "held", TICK * 3);
    bench.run();
    bench.ticks(5);
    assert_eq!(held.try_recv(), Ok(Outcome::Unknown(Doubt::Deadline)));
    let (log, machine) = (log.after_power_loss(0), machine.after_power_loss());
    let mut bench = Bench::new(2, Arc::new(log));
    bench.open(GROUP, &machine).unwrap();
    bench.run();
    assert_eq!(machine.commands(), ["held"]);
}

#[test]
fn a_state_machine_that_fails_or_panics_stops_its_group_and_no_other() {
    for panics in [false, true] {
        let (mut bench, log, machine) = single();
        let (other, healthy) = (GroupId(2), TestMachine::default());
        bench.open(other, &healthy).unwrap();
        bench.run();
        if panics {
            machine.lock().panics = true;
        } else {
            machine.lock().corrupt = true;
        }
        let mut doubtful = bench.propose(GROUP, "doubtful");
        bench.run();
        assert!(matches!(doubtful.try_recv(), Ok(Outcome::Unknown(Doubt::Stopped { .. }))));
        let late = refusal_of(&mut bench.propose(GROUP, "late"));
        let expected = if panics { ErrorKind::Unavailable } else { ErrorKind::Corrupt };
        assert_eq!(late.kind(), expected, "what is damaged stays so: {late:?}");
        let mut beside = bench.propose(other, "beside");
        bench.run();
        index_of(&mut beside);
        // Closed and opened over a mended state machine, it goes on where it was.
        let (answer, mut closed) = oneshot::channel();
        bench.driver.handle(Input::Close { group: GROUP, deadline: LATER, answer });
        bench.run();
        assert!(matches!(closed.try_recv(), Ok(Err(_))), "the failure is told again");
        let mended = machine.after_power_loss();
        bench.open(GROUP, &mended).unwrap();
        bench.run();
        assert_eq!(mended.commands(), ["doubtful"]);
        drop(log);
    }
}

#[test]
fn opening_refuses_what_does_not_continue() {
    let (mut bench, log, machine) = single();
    for number in 0..600 {
        bench.propose(GROUP, text(number));
    }
    bench.run();
    machine.make_durable();
    bench.ticks(POLL_TICKS as usize + 1);
    assert!(log.load(GROUP).unwrap().unwrap().truncated.index > 400);
    assert!(matches!(bench.open(GROUP, &machine), Err(ConsensusError::Open { .. })));
    drop(bench);

    let reopen = |log: MemoryLog, machine: &TestMachine| {
        let mut bench = Bench::new(3, Arc::new(log));
        let opened = bench.open(GROUP, machine).map(drop);
        bench.run();
        opened.map_err(|error| error.to_string())
    };
    let refused = |machine: &TestMachine, wanted: &str| {
        let error = reopen(log.after_power_loss(0), machine).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    };
    let changed = |change: &dyn Fn(&mut Position)| {
        let other = machine.after_power_loss();
        change(&mut other.lock().live.applied);
        other
    };
    refused(&TestMachine::default(), "the log begins at index");
    refused(&changed(&|applied| applied.index = 100), "the log begins at index");
    refused(&changed(&|applied| applied.index += 1), "the log ends at");
    refused(&changed(&|applied| applied.term += 1), "has term 2 there");
    let error = reopen(MemoryLog::new(), &machine).unwrap_err();
    assert!(error.contains("there is no log"), "{error}");
    assert_eq!(reopen(log.after_power_loss(0), &machine), Ok(()));
}

#[test]
fn opening_refuses_a_log_of_another_cluster_or_node_and_founds_only_when_asked() {
    let (bench, log, machine) = single();
    drop(bench);
    let open_as = |cluster, node, spec: GroupSpec| {
        let bench = Bench::new(3, Arc::new(log.after_power_loss(0)));
        let settings = HostSettings::new(cluster, node);
        let mut driver = Driver::new(
            bench.env,
            settings,
            Arc::new(log.after_power_loss(0)),
            Arc::new(crate::SilentTransport),
            Arc::default(),
        );
        driver.open_group(&spec, Box::new(machine.clone())).map(drop)
    };
    let spec = GroupSpec {
        group: GROUP,
        found_with: None,
        found_at: None,
        floor: None,
        stands_first: false,
        alone_from: None,
    };
    assert!(matches!(open_as(ClusterId(9), ME, spec.clone()), Err(ConsensusError::OtherCluster { .. })));
    assert!(matches!(open_as(CLUSTER, NodeId(9), spec.clone()), Err(ConsensusError::OtherNode { .. })));
    let other = GroupSpec {
        group: GroupId(8),
        found_with: None,
        found_at: None,
        floor: None,
        stands_first: false,
        alone_from: None,
    };
    assert!(matches!(open_as(CLUSTER, ME, other), Err(ConsensusError::Absent { .. })));
    assert!(open_as(CLUSTER, ME, spec).is_ok());
}

#[test]
fn deadlines_are_kept() {
    let (mut bench, _, machine) = single();
    bench.clock.advance(TICK * 5);
    let mut expired = bench.propose_until(GROUP, "expired", TICK * 4);
    bench.run();
    assert_eq!(refusal_of(&mut expired), Refusal::Expired);
    assert_eq!(machine.commands().len(), 0);
    // Nobody else answers in a group of three: the proposal of a leader cut off stays open until its deadline.
    assert_eq!(bench.admission.waiting(), 0, "places come back");
}

#[test]
fn closing_finishes_what_is_under_way_and_flushes() {
    let (mut bench, _, machine) = single();
    let mut outcome = bench.propose(GROUP, "under way");
    let (answer, mut closed) = oneshot::channel();
    bench.driver.handle(Input::Close { group: GROUP, deadline: LATER, answer });
    let mut late = bench.propose(GROUP, "late");
    assert_eq!(refusal_of(&mut late), Refusal::Closing);
    bench.run();
    index_of(&mut outcome);
    assert_eq!(closed.try_recv(), Ok(Ok(())));
    assert_eq!(machine.lock().durable.commands.len(), 1);
    assert_eq!(refusal_of(&mut bench.propose(GROUP, "gone")), Refusal::Absent);
    let (answer, mut removed) = oneshot::channel();
    bench.driver.handle(Input::Remove { group: GROUP, answer });
    assert!(matches!(removed.try_recv(), Ok(Ok(()))));
    bench.open(GROUP, &TestMachine::default()).unwrap();
}

#[test]
fn a_shutdown_waits_for_all_groups_but_not_beyond_its_deadline() {
    let (mut bench, _, machine) = single();
    let stuck = TestMachine::default();
    bench.open(GroupId(2), &stuck).unwrap();
    bench.run();
    stuck.lock().full = usize::MAX;
    let mut outcome = bench.propose(GROUP, "done");
    let mut doubtful = bench.propose(GroupId(2), "stuck");
    let (answer, mut ended) = oneshot::channel();
    let deadline = bench.env.now() + TICK * 5;
    bench.driver.handle(Input::Shutdown { deadline, answer });
    bench.run();
    index_of(&mut outcome);
    assert!(ended.try_recv().is_err() && !bench.driver.is_finished());
    bench.ticks(6);
    assert_eq!(ended.try_recv(), Ok(Ok(())));
    assert!(bench.driver.is_finished());
    assert!(matches!(doubtful.try_recv(), Ok(Outcome::Unknown(Doubt::Stopped { .. }))));
    assert_eq!(machine.lock().durable.commands.len(), 1);
}

#[test]
fn a_lagging_state_machine_costs_no_more_than_its_two_batches() {
    let (mut bench, _, machine) = single();
    let batches = machine.lock().batches.len();
    let mut outcomes = Vec::new();
    for number in 0..20 {
        outcomes.push(bench.propose(GROUP, text(number)));
        bench.driver.round();
    }
    let jobs = bench.driver.take_jobs();
    assert_eq!(jobs.len(), crate::settings::MAX_APPLY_JOBS);
    for job in jobs {
        for done in bench.applier.run(job, Duration::ZERO) {
            bench.driver.applied(done);
        }
    }
    bench.run();
    all_applied(&mut outcomes);
    assert_eq!(machine.commands(), (0..20).map(text).collect::<Vec<_>>());
    assert_eq!(machine.lock().batches.len() - batches, 3, "one, one, and the eighteen that had gathered");
}
