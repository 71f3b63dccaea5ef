//! Promise 1: what was acknowledged stays.

use crate::harness::{Cluster, run};
use crate::workload::{Workload, create, settled};
use sagitta_callers::{Dice, number, seed};

const IDS: u64 = 300;
/// Times that nodes are killed; `SAGITTA_KILLS` runs more.
const KILLS: u64 = 6;
/// Acknowledged writes; `SAGITTA_WRITES` runs more.
const WRITES: u64 = 780;

#[test]
fn acknowledged_writes_survive_kill_9_of_random_nodes() {
    let (seed, kills, writes) = (seed(), number("SAGITTA_KILLS", KILLS), number("SAGITTA_WRITES", WRITES));
    // Before each kill, while nodes are away, and after the last.
    let each = writes.div_ceil(2 * kills + 1);
    let mut cluster = Cluster::start(3, 3);
    run(async {
        create(&cluster, 2).await;
        let workload = Workload::new("points", IDS, false);
        let clients = workload.start(&cluster, 6, seed);
        let (mut dice, mut killed) = (Dice::new(seed), 0);
        for kill in 0..kills {
            // One of each kind at most, which leaves a majority of both.
            let away = [dice.pick(&cluster.coordinators()), dice.pick(&cluster.shard_nodes())];
            let away = &away[dice.below(2) as usize..];
            workload.wait_for(each).await;
            away.iter().for_each(|at| cluster.kill(*at));
            let gap = workload.wait_for(each).await;
            away.iter().for_each(|at| cluster.restart(*at));
            killed += away.len();
            println!("kill {kill}: {away:?}, longest gap {gap:?}");
        }
        workload.wait_for(each).await;
        let history = workload.stop(clients).await;
        settled(&cluster, &history, IDS).await;
        let acknowledged = workload.acknowledged();
        println!(
            "seed {seed}: {acknowledged} writes acknowledged, {kills} kills of {killed} nodes, none lost or resurrected"
        );
        assert!(acknowledged >= writes && killed as u64 >= kills, "fewer than {writes} writes or {kills} kills");
    });
}
