//! Promise 3: what collections there are is linearizable, whichever coordinators are asked and whichever are away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sagitta_callers::{Dice, catalog, number, seed};
use sagitta_env::Env;
use sagitta_history::{Catalog, Recorder, require};

use crate::harness::{Cluster, breathe, eventually, run};
use crate::network::Network;

const CLIENTS: u64 = 3;
/// How long one call may take: a third of them go to a coordinator that says nothing.
const CALL: Duration = Duration::from_secs(2);
/// Coordinators that are killed, paused or cut off, one after the other; `SAGITTA_FAULTS` runs more.
const FAULTS: u64 = 9;
/// Answered operations; `SAGITTA_OPERATIONS` runs more.
const OPERATIONS: u64 = 300;

#[test]
fn collections_are_linearizable_over_coordinators_that_are_killed_paused_and_cut_off() {
    let (seed, faults) = (seed(), number("SAGITTA_FAULTS", FAULTS));
    let operations = number("SAGITTA_OPERATIONS", OPERATIONS);
    // Before each fault, during it, and after the last.
    let each = operations.div_ceil(2 * faults + 1);
    let network = Network::new();
    let mut cluster = Cluster::start_with(3, 1, |at, member| {
        if let Some(network) = &network {
            network.attach(at, member);
        }
    });
    run(async {
        let (recorder, stop, answers) =
            (Recorder::new(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = |client: u64| {
            let (recorder, stop, answers) = (recorder.clone(), stop.clone(), answers.clone());
            let (endpoints, mut dice) = (cluster.clients(CALL), Dice::new(seed * 1_000 + client));
            Env::real().spawn(async move {
                while !stop.load(Ordering::Acquire) {
                    let endpoint = &endpoints[dice.below(3) as usize];
                    let input = catalog::draw(&mut dice);
                    let call = recorder.call(client, input.clone());
                    let answered = catalog::settle(call, catalog::perform(endpoint, input).await);
                    answers.fetch_add(u64::from(answered), Ordering::AcqRel);
                    breathe(dice.below(20)).await;
                }
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(start).collect();
        let more = async || {
            let target = answers.load(Ordering::Acquire) + each;
            let reached = async || match answers.load(Ordering::Acquire) {
                now if now >= target => Ok(()),
                now => Err(format!("{now} answers instead of {target}")),
            };
            eventually("answers go on", reached).await;
        };
        let (mut seen, ways) = ([0; 3], if network.is_some() { 3 } else { 2 });
        for fault in 0..faults as usize {
            // Every coordinator, and with it certainly the leader, in each way.
            let (at, how) = (fault % 3, fault / 3 % ways);
            more().await;
            match (how, &network) {
                (0, _) => cluster.kill(at),
                (2, Some(network)) => network.split(&cluster.members, &[at]),
                _ => cluster.pause_node(at),
            }
            more().await;
            match (how, &network) {
                (0, _) => cluster.restart(at),
                (2, Some(network)) => {
                    assert!(network.has_dropped(), "nothing was lost");
                    network.heal();
                }
                _ => cluster.resume_node(at),
            }
            seen[how] += 1;
        }
        more().await;
        stop.store(true, Ordering::Release);
        for client in clients {
            client.await.expect("a client ended well");
        }
        let history = recorder.history();
        require(&Catalog, &history, &format!("collections of seed {seed}"));
        let (answered, [killed, paused, cut]) = (answers.load(Ordering::Acquire), seen);
        println!(
            "seed {seed}: {answered} operations on collections are linearizable, {killed} kills, {paused} pauses, {cut} cuts"
        );
        assert!(answered >= operations, "fewer than {operations} operations");
    });
}
