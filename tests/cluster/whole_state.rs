//! A follower that lacks more than the logs hold: it fetches the whole state, though it or the sender dies in the middle.

use std::fs;
use std::path::Path;

use sagitta_callers::{Dice, get, name, point, schema, seed, told};
use sagitta_client::{Client, Count, CreateCollection};
use sagitta_model::{Consistency, Object, Point};

use crate::harness::{Cluster, eventually, only_shard, run, skipped};
use crate::network::Network;
use crate::small_disk::SmallDisk;
use crate::workload::CALL;

/// On a disk of this size the log is cut once it has taken a sixteenth of it.
const DISK_MEBIBYTES: u64 = 1_024;
/// Points of one write, and what each of them carries: no state of them is small.
const BATCH: u64 = 16;
const BLOB_BYTES: usize = 256 << 10;
/// Writes while a node is away: what it lacks at least.
const WRITES_MEANWHILE: u64 = 30;
/// Times that it comes back before.
const ATTEMPTS: u64 = 5;
/// What may come of the state before it is stopped in its tracks.
const STALL_BYTES: u64 = 4 << 20;

const FETCHING: &str = "fetching the group's state";
const HERE: &str = "the group's state is here";

#[test]
#[ignore = "takes two minutes: `make chaos` runs it"]
fn a_follower_far_behind_fetches_the_whole_state_though_it_and_then_the_sender_are_killed_in_the_middle() {
    let seed = seed();
    let Some(network) = Network::new() else { return };
    let temps = [(); 3].map(|()| tempfile::tempdir().expect("temporary"));
    let disks = temps.each_ref().map(|temp| SmallDisk::mount(temp.path(), DISK_MEBIBYTES));
    let [Some(first), Some(second), Some(third)] = &disks else {
        return skipped("small disks need root");
    };
    let folders = [first, second, third].map(|disk| disk.path.join("node"));
    let mut cluster = Cluster::start_with(1, 3, |at, member| {
        network.attach(at, member);
        if at > 0 {
            member.data.clone_from(&folders[at - 1]);
        }
    });
    run(async {
        let client = cluster.client(0, CALL * 6);
        let mut create = CreateCollection::new(name("points"), schema());
        (create.shards, create.replication) = (Some(1), Some(3));
        client.create(create).await.expect("created");
        let mut written = Written { seed, points: 0, index: 0 };
        written.write(&client).await;
        let leader = cluster.leader("points").await;
        let behind = cluster.shard_nodes().into_iter().find(|at| *at != leader).expect("there are three");
        cluster.kill(behind);
        let logs = [leader, 1 + 2 + 3 - leader - behind].map(|at| cluster.members[at].data.join("log"));
        // What a log still holds is not to be seen: a node that finds all there goes away once more.
        for attempt in 1.. {
            assert!(attempt <= ATTEMPTS, "the logs are never cut");
            let begun = logs.each_ref().map(|log| first_file(log));
            let mut writes = 0;
            while writes < WRITES_MEANWHILE || (0..2).any(|at| first_file(&logs[at]) == begun[at]) {
                written.write(&client).await;
                writes += 1;
            }
            println!("{writes} writes of {BATCH} points while node {behind} was away");
            let leader = cluster.leader("points").await;
            network.stall(&cluster.members[behind], &cluster.members[leader], STALL_BYTES);
            cluster.spawn(behind);
            let fetches = fetches(&mut cluster, &client, behind).await;
            cluster.kill(behind);
            network.heal();
            if fetches {
                break;
            }
        }

        let stop_in_the_middle = async |cluster: &mut Cluster| {
            let leader = cluster.leader("points").await;
            network.stall(&cluster.members[behind], &cluster.members[leader], STALL_BYTES);
            cluster.spawn(behind);
            cluster.members[behind].wait_to_say(FETCHING);
            let shards = cluster.members[behind].data.join("shards");
            let some = async || match (bytes_of_states(&shards), network.has_dropped()) {
                (some @ 1.., true) => Ok(some),
                (some, held_up) => Err(format!("{some} bytes of the state, held up: {held_up}")),
            };
            let some = eventually("a part of the state", some).await;
            assert!(!cluster.members[behind].has_said(HERE), "a whole state came through");
            println!("{some} bytes of the state have come from node {leader}");
            leader
        };
        stop_in_the_middle(&mut cluster).await;
        cluster.kill(behind);
        network.heal();
        let sender = stop_in_the_middle(&mut cluster).await;
        cluster.kill(sender);
        network.heal();
        cluster.members[behind].wait_to_say(HERE);
        written.write(&client).await;
        cluster.restart(sender);
        alike(&cluster, &client, written.index).await;

        // Each by itself: nobody else can answer then.
        for at in cluster.shard_nodes() {
            let others: Vec<_> = cluster.shard_nodes().into_iter().filter(|other| *other != at).collect();
            others.iter().for_each(|other| cluster.kill(*other));
            written.check(&client).await;
            others.iter().for_each(|other| cluster.restart(*other));
            // What has been told of them so far may be older than their restart.
            written.write(&client).await;
            alike(&cluster, &client, written.index).await;
        }
        println!(
            "seed {seed}: {} points of {BLOB_BYTES} bytes on each of three nodes, a receiver and a sender killed",
            written.points
        );
    });
}

/// Points that were written: each is known by its id.
struct Written {
    seed: u64,
    points: u64,
    /// Where the last write stands in the shard's log.
    index: u64,
}

impl Written {
    fn point(&self, id: u64) -> Point {
        let mut dice = Dice::new(self.seed * 1_000_003 + id);
        let blob: String = (0..BLOB_BYTES).map(|_| char::from(b' ' + dice.below(90) as u8)).collect();
        let mut point = point(id, id);
        point.payload.insert("blob".to_owned(), blob.as_str().into());
        point
    }

    async fn write(&mut self, client: &Client) {
        let points: Vec<_> = (self.points..self.points + BATCH).map(|id| self.point(id)).collect();
        let write = async || client.upsert(name("points"), points.clone()).await;
        self.index = eventually("a write", write).await.tokens[0].index;
        self.points += BATCH;
    }

    /// Reads everything from whoever is there, leader or not.
    async fn check(&self, client: &Client) {
        let count = || Count { collection: name("points"), filter: None, consistency: Consistency::Eventual };
        let counted = eventually("a count", async || client.count(count()).await).await;
        assert_eq!(counted, self.points);
        for first in (0..self.points).step_by(BATCH as usize) {
            let some = get("points", (first..first + BATCH).collect(), Consistency::Eventual);
            let records = eventually("a read", async || client.get(some.clone()).await).await;
            assert_eq!(records.len() as u64, BATCH, "points from {first} on");
            for record in records {
                let (id, value) = told(&record);
                let expected = self.point(id);
                let blob = |payload: &Object| payload.get("blob").cloned();
                assert_eq!(id, value);
                assert!(record.payload.as_ref().and_then(blob) == blob(&expected.payload), "point {id} is another one");
            }
        }
    }
}

/// Waits until every replica has told that it has applied all up to an index.
async fn alike(cluster: &Cluster, client: &Client, index: u64) {
    let same = async || {
        let shard = only_shard(client, "points").await?;
        let applied: Vec<_> =
            shard.replicas.iter().filter_map(|replica| Some(replica.told.as_ref()?.applied)).collect();
        match applied.len() == cluster.shard_nodes().len() && applied.iter().all(|applied| *applied >= index) {
            true => Ok(()),
            false => Err(format!("the replicas stand at {applied:?}, the last write at {index}")),
        }
    };
    eventually("replicas that are alike", same).await;
}

/// Whether a node that has just come back fetches a state, or finds in the logs what it lacks.
async fn fetches(cluster: &mut Cluster, client: &Client, behind: usize) -> bool {
    cluster.members[behind].wait_to_say("sagittad is ready");
    let node = cluster.node_id(client, behind).await;
    let decided = async || {
        let shard = only_shard(client, "points").await?;
        let told = shard.replicas.iter().find(|replica| replica.node == node).and_then(|replica| replica.told.as_ref());
        match (cluster.members[behind].has_said(FETCHING), told.map(|told| told.applied)) {
            (true, _) => Ok(true),
            (false, Some(applied)) if applied == shard.applied => Ok(false),
            (false, applied) => Err(format!("it stands at {applied:?}, the leader at {}", shard.applied)),
        }
    };
    eventually("a node that catches up", decided).await
}

/// The oldest file of a log.
fn first_file(log: &Path) -> String {
    let names = fs::read_dir(log).expect("a log").map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("a text")).filter(|name| name.ends_with(".raftlog"));
    names.min().expect("a file")
}

/// What lies in folders of states that were fetched, or are being.
fn bytes_of_states(shards: &Path) -> u64 {
    fn all(folder: &Path, within: bool) -> u64 {
        // Files come and go meanwhile.
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let size = |entry: fs::DirEntry| match entry.metadata() {
            Ok(data) if data.is_dir() => {
                all(&entry.path(), within || entry.file_name().to_string_lossy().starts_with("state-"))
            }
            Ok(data) if within => data.len(),
            _ => 0,
        };
        entries.map(size).sum()
    }
    all(shards, false)
}
