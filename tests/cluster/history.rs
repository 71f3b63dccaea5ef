//! Promise 4: points are linearizable, though nodes are killed and paused.

use sagitta_callers::{Dice, number, seed};
use sagitta_history::{Points, require};

use crate::harness::{Cluster, run};
use crate::workload::{Workload, create};

/// Nodes that are killed or paused, one after the other; `SAGITTA_FAULTS` runs more.
const FAULTS: u64 = 6;
/// Answered operations; `SAGITTA_OPERATIONS` runs more.
const OPERATIONS: u64 = 800;

#[test]
fn points_are_linearizable_while_nodes_are_killed_and_paused() {
    let (seed, faults) = (seed(), number("SAGITTA_FAULTS", FAULTS));
    let operations = number("SAGITTA_OPERATIONS", OPERATIONS);
    // Half of the operations are writes: before each fault, during it, and after the last.
    let each = (operations / 2).div_ceil(2 * faults + 1);
    let mut cluster = Cluster::start(3, 3);
    run(async {
        create(&cluster, 2).await;
        let workload = Workload::new("points", 12, true);
        let clients = workload.start(&cluster, 5, seed);
        let mut dice = Dice::new(seed);
        for fault in 0..faults {
            let at = dice.below(cluster.members.len() as u64) as usize;
            workload.wait_for(each).await;
            let kill = fault % 2 == 0;
            if kill {
                cluster.kill(at);
            } else {
                cluster.pause_node(at);
            }
            let gap = workload.wait_for(each).await;
            if kill {
                cluster.restart(at);
            } else {
                cluster.resume_node(at);
            }
            let what = if kill { "killed" } else { "paused" };
            println!("fault {fault}: {:?} {at} {what}, longest gap {gap:?}", cluster.members[at].role);
        }
        while workload.acknowledged() + workload.reads() < operations {
            workload.wait_for(each).await;
        }
        let history = workload.stop(clients).await;
        let (writes, reads) = (workload.acknowledged(), workload.reads());
        require(&Points, &history, &format!("points of seed {seed}"));
        println!("seed {seed}: {writes} writes and {reads} reads are linearizable, {faults} faults");
        assert!(writes + reads >= operations, "fewer than {operations} operations");
    });
}
