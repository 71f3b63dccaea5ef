//! Clocks that disagree: nothing that is decided depends on them. Takes libfaketime.

use std::path::Path;

use sagitta_callers::seed;
use sagitta_history::{Points, require};

use crate::harness::{Cluster, run, skipped};
use crate::workload::{Workload, create, settled};

const IDS: u64 = 24;
const WRITES: u64 = 200;
/// Where Debian puts it.
const LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];
/// What the nodes' clocks are ahead or behind, in hours.
const HOURS: [&str; 6] = ["+1h", "-1h", "+0h", "-1h", "+1h", "+0h"];

#[test]
fn points_are_linearizable_on_nodes_whose_clocks_are_hours_apart() {
    let seed = seed();
    let Some(library) = LIBRARIES.into_iter().find(|path| Path::new(path).exists()) else {
        return skipped("clocks that are apart need libfaketime");
    };
    let mut cluster = Cluster::start_with(3, 3, |at, member| {
        let set = [("LD_PRELOAD", library), ("FAKETIME", HOURS[at]), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        member.env = set.map(|(name, value)| (name, value.to_owned())).to_vec();
    });
    run(async {
        create(&cluster, 2).await;
        let workload = Workload::new("points", IDS, true);
        let clients = workload.start(&cluster, 6, seed);
        workload.wait_for(WRITES).await;
        // Leaders on either side of the others, among them one that starts again on another day.
        for at in [0, 3, 1, 4] {
            cluster.kill(at);
            workload.wait_for(WRITES / 4).await;
            cluster.restart(at);
        }
        workload.wait_for(WRITES).await;
        let history = workload.stop(clients).await;
        let hours = |at: usize| cluster.members[at].log_hours();
        assert_ne!(hours(0), hours(1), "the clocks are not apart");
        settled(&cluster, &history, IDS).await;
        require(&Points, &history, &format!("points of seed {seed}"));
        let (writes, reads) = (workload.acknowledged(), workload.reads());
        println!("seed {seed}: {writes} writes and {reads} reads are linearizable by clocks hours apart, 4 kills");
    });
}
