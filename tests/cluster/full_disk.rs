//! Promise 11 in a cluster: a leader without room refuses what needs some or lets another lead, and nothing is lost.

use sagitta_callers::{Dice, number, seed};
use sagitta_history::{Points, require};

use crate::harness::{Cluster, eventually, run, skipped};
use crate::small_disk::SmallDisk;
use crate::workload::{Workload, create, settled};

const IDS: u64 = 24;
const WRITES: u64 = 60;
/// Reads that must be answered while there is no room.
const READS: u64 = 100;
const DISK_MEBIBYTES: u64 = 1_024;
/// What a fill leaves free at most.
const MOST_LEFT_BYTES: u64 = 4 << 20;

#[test]
fn a_leader_with_a_full_disk_keeps_what_it_has_and_goes_on_once_there_is_room() {
    let (seed, fills) = (seed(), number("SAGITTA_FILLS", 2));
    let temp = tempfile::tempdir().expect("temporary");
    let Some(disk) = SmallDisk::mount(temp.path(), DISK_MEBIBYTES) else {
        return skipped("a full disk needs root");
    };
    const SMALL: usize = 3;
    let cluster = Cluster::start_with(3, 3, |at, member| {
        if at == SMALL {
            member.data = disk.path.join("node");
        }
    });
    run(async {
        create(&cluster, 1).await;
        let workload = Workload::new("points", IDS, true);
        let clients = workload.start(&cluster, 6, seed);
        let mut dice = Dice::new(seed);
        for fill in 0..fills {
            workload.wait_for(WRITES).await;
            cluster.lead("points", SMALL).await;
            let (refused, reads) = (workload.refused(), workload.reads());
            disk.fill_leaving(dice.below(MOST_LEFT_BYTES));
            let noticed = async || match (workload.refused() > refused, cluster.leader("points").await) {
                (false, SMALL) => Err("nobody has noticed"),
                (true, _) => Ok("writes are refused"),
                (false, _) => Ok("another leads"),
            };
            let noticed = eventually("the disk is full", noticed).await;
            let answered = async || match workload.reads() - reads {
                enough if enough >= READS => Ok(()),
                few => Err(format!("{few} reads")),
            };
            eventually("reads are answered on a full disk", answered).await;
            disk.free();
            let gap = workload.wait_for(WRITES).await;
            println!("fill {fill}: {noticed}; with room it goes on, longest gap {gap:?}");
        }
        let history = workload.stop(clients).await;
        settled(&cluster, &history, IDS).await;
        require(&Points, &history, &format!("points of seed {seed}"));
        let (writes, reads) = (workload.acknowledged(), workload.reads());
        println!("seed {seed}: {writes} writes and {reads} reads are linearizable, {fills} full disks, none lost");
    });
}
