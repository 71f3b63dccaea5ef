//! Promise 9: how long writes wait for another leader. Measured and told; that no read is wrong is what is judged.

use std::time::Duration;

use sagitta_callers::{number, seed};
use sagitta_history::{Points, require};

use crate::harness::{Cluster, run};
use crate::network::Network;
use crate::workload::{Workload, create};

const IDS: u64 = 24;
const WRITES: u64 = 30;
const ROUNDS: u64 = 1;

#[test]
fn no_read_is_wrong_while_another_takes_over_from_a_leader_that_was_killed_paused_or_cut_off() {
    let (seed, rounds) = (seed(), number("SAGITTA_FAILOVERS", ROUNDS));
    let network = Network::new();
    let mut cluster = Cluster::start_with(3, 3, |at, member| {
        if let Some(network) = &network {
            network.attach(at, member);
        }
    });
    run(async {
        create(&cluster, 1).await;
        let workload = Workload::new("points", IDS, true);
        let clients = workload.start(&cluster, 6, seed);
        for how in ["killed", "paused", "not heard", "deaf"] {
            let mut gaps = Vec::new();
            for _ in 0..rounds {
                workload.wait_for(WRITES).await;
                let leader = cluster.leader("points").await;
                match (how, &network) {
                    ("killed", _) => cluster.kill(leader),
                    ("paused", _) => cluster.pause_node(leader),
                    (_, None) => continue,
                    ("deaf", Some(network)) => network.cut_in(&cluster.members, &[leader]),
                    (_, Some(network)) => network.cut_out(&cluster.members, &[leader]),
                }
                gaps.push(workload.wait_for(WRITES).await);
                match (how, &network) {
                    ("killed", _) => cluster.restart(leader),
                    ("paused", _) => cluster.resume_node(leader),
                    (_, network) => network.iter().for_each(Network::heal),
                }
            }
            report(seed, how, &mut gaps);
        }
        let history = workload.stop(clients).await;
        require(&Points, &history, &format!("points of seed {seed}"));
    });
}

fn report(seed: u64, how: &str, gaps: &mut [Duration]) {
    gaps.sort_unstable();
    let Some(longest) = gaps.last() else { return };
    println!(
        "seed {seed}: leader {how}, {} times: writes went on after {:?} in the middle, {longest:?} at most",
        gaps.len(),
        gaps[gaps.len() / 2]
    );
}
