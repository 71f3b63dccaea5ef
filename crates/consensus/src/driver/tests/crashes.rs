//! Power loss at any moment: whatever was acknowledged is there afterwards, once and in order.

use super::*;

/// What a run found: how many proposals were acknowledged, and whether any of them was gone.
struct Verdict {
    acknowledged: usize,
    lost: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Planted {
    Nothing,
    LyingFsync,
    LyingDurable,
}

/// Several lives of one node: in each it is opened, works, and loses power at a random append.
fn run(seed: u64, planted: Planted) -> Verdict {
    let (env, _) = Env::seeded(seed);
    let (mut log, mut machine) = (MemoryLog::new(), TestMachine::default());
    machine.lock().lies_about_durable = planted == Planted::LyingDurable;
    let (mut acknowledged, mut number) = (Vec::new(), 0);
    for life in 0..4 {
        let die_at = log.appends() + 1 + env.random_below(40);
        let fault = match env.random_below(4) {
            0 => Fault::PowerBeforeWrite,
            1 => Fault::PowerBeforeSync,
            2 => Fault::PowerAfterSync,
            _ => Fault::SyncFails,
        };
        if planted == Planted::LyingFsync {
            (log.appends() + 1..die_at).for_each(|append| log.inject(append, Fault::LyingSync));
        }
        log.inject(die_at, fault);
        let mut bench = Bench::new(env.random_u64(), Arc::new(log.clone()));
        if let Err(error) = bench.open(GROUP, &machine) {
            let lost = Some(format!("life {life}: {error}"));
            return Verdict { acknowledged: acknowledged.len(), lost };
        }
        let mut waiting = Vec::new();
        while log.appends() <= die_at {
            for _ in 0..env.random_below(60) {
                waiting.push((number, bench.propose(GROUP, text(number))));
                number += 1;
            }
            match env.random_below(12) {
                0 => machine.make_durable(),
                1 => bench.ticks(POLL_TICKS as usize),
                2 => machine.lock().full = env.random_below(3) as usize,
                3 => bench.ticks(30),
                _ => {}
            }
            bench.driver.round();
            if env.random_below(3) > 0 {
                bench.run();
            }
        }
        for (number, mut outcome) in waiting {
            if let Ok(Outcome::Applied(applied)) = outcome.try_recv() {
                acknowledged.push((applied.index, text(number)));
            }
        }
        log = log.after_power_loss(env.random_below(2) as usize);
        machine = machine.after_power_loss();
    }
    let mut bench = Bench::new(1, Arc::new(log));
    let opened = bench.open(GROUP, &machine).map(drop);
    bench.run();
    let found = machine.lock().live.commands.clone();
    let lost = match opened {
        Err(error) => Some(error.to_string()),
        Ok(()) => acknowledged.iter().find(|wanted| !found.contains(wanted)).map(|lost| format!("{lost:?}")),
    };
    let in_order = found.windows(2).all(|pair| pair[0].0 < pair[1].0);
    assert!(in_order, "seed {seed}: {found:?}");
    Verdict { acknowledged: acknowledged.len(), lost }
}

#[test]
fn every_acknowledged_proposal_survives_power_loss_at_any_moment() {
    let mut acknowledged = 0;
    for seed in 0..300 {
        let verdict = run(seed, Planted::Nothing);
        assert_eq!(verdict.lost, None, "seed {seed}");
        acknowledged += verdict.acknowledged;
    }
    println!("300 seeds, 1,200 power losses, {acknowledged} acknowledged proposals, none lost");
    assert!(acknowledged > 100_000, "{acknowledged}");
}

#[test]
fn the_check_catches_an_acknowledgement_before_the_fsync() {
    let caught = (0..40).filter(|seed| run(*seed, Planted::LyingFsync).lost.is_some()).count();
    println!("caught in {caught} of 40 seeds");
    assert!(caught >= 30, "{caught}");
}

#[test]
fn the_check_catches_a_state_machine_that_calls_durable_what_is_not() {
    let caught = (0..40).filter(|seed| run(*seed, Planted::LyingDurable).lost.is_some()).count();
    println!("caught in {caught} of 40 seeds");
    assert!(caught >= 10, "{caught}");
}
