//! A cluster that runs itself under `kill -9`: replicas are moved, nodes are drained and lost, shards are split and merged, while any process is
//! killed at any moment. Nothing that was acknowledged is lost, no read is wrong, and all of it ends.

use std::collections::{BTreeMap, BTreeSet};

use sagitta_callers::{Dice, Look, name, number, seed};
use sagitta_client::{Client, ListShards};
use sagitta_history::{Points, require};
use sagitta_model::{Consistency, NodeChange, NodeInfo, NodeStatus, OperationInfo, OperationKind, ShardInfo, Work};

use crate::harness::{Cluster, Member, Role, breathe, eventually, run};
use crate::split::{IDS, Readers, each_has_its_own, settle, settled, write_steady};
use crate::workload::{CALL, Workload, create};

/// How often each of them has to come about; `SAGITTA_ROUNDS` runs more.
const ROUNDS: u64 = 1;
/// So many that a node has several replicas, each of which is an operation when the node is drained or lost.
const SHARDS: u32 = 6;
/// Processes that are killed while one of them is under way, at most: it has to end, and under endless fire it need not.
const STRIKES: usize = 4;
/// Replicas that are moved at once.
const MOVES: usize = 2;

/// What the cluster does, in this order: once it has been split there is more of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Move,
    Drain,
    Repair,
    Split,
    Merge,
}

impl Doing {
    const ALL: [Self; 5] = [Self::Move, Self::Drain, Self::Repair, Self::Split, Self::Merge];

    /// As operations name it.
    fn kind(self) -> &'static str {
        match self {
            Self::Move => OperationKind::Move.name(),
            Self::Drain => OperationKind::Drain.name(),
            Self::Repair => OperationKind::Repair.name(),
            Self::Split => "split",
            Self::Merge => "merge",
        }
    }

    /// How often it is tried for each that has to come about.
    fn tries(self) -> u64 {
        match self {
            // One that was begun has come about unless it was cancelled, which only the loss of a node can do.
            Self::Move | Self::Drain | Self::Repair | Self::Split => 2,
            // It is given up whenever it takes longer than shards may be frozen.
            Self::Merge => 20,
        }
    }
}

/// A cluster whose processes are killed.
struct Fire {
    cluster: Cluster,
    dice: Dice,
    kills: usize,
    /// The operations that have come about, by kind.
    done: BTreeMap<&'static str, BTreeSet<u64>>,
}

impl Fire {
    /// Kills one of these processes at some moment, and starts it again.
    async fn strike(&mut self, among: &[usize]) {
        breathe(self.dice.below(1_200)).await;
        let at = self.dice.pick(among);
        self.cluster.kill(at);
        breathe(100 + self.dice.below(1_500)).await;
        self.cluster.restart(at);
        self.kills += 1;
    }

    /// Kills processes, if there are any to be killed, while something is not yet so, and then waits until it is.
    async fn under_fire(&mut self, among: &[usize], what: &str, be: impl Fn(&Told) -> Result<(), String>) {
        let strikes = if among.is_empty() { 0 } else { STRIKES };
        for _ in 0..strikes {
            self.strike(among).await;
            if be(&self.told().await).is_ok() {
                return;
            }
        }
        let clients = self.cluster.clients(CALL);
        let told = eventually(what, async || {
            let told = Told::by_any(&clients).await?;
            be(&told).map(|()| told)
        });
        let told = told.await;
        self.note(&told);
    }

    /// What the cluster says, once it says anything.
    async fn told(&mut self) -> Told {
        let clients = self.cluster.clients(CALL);
        let told = eventually("an answer", async || Told::by_any(&clients).await).await;
        self.note(&told);
        told
    }

    fn note(&mut self, told: &Told) {
        for one in told.operations.iter().filter(|one| one.work.step() == "done") {
            self.done.entry(one.work.kind()).or_default().insert(one.id);
        }
    }

    fn done(&self, doing: Doing) -> u64 {
        self.done.get(doing.kind()).map_or(0, |done| done.len() as u64)
    }

    /// The member that a node is.
    fn member(&self, node: &NodeInfo) -> usize {
        let is = |member: &Member| node.peer_address.ends_with(&format!("//{}", member.peers.address()));
        self.cluster.members.iter().position(is).expect("every node is a member")
    }

    fn all(&self) -> Vec<usize> {
        (0..self.cluster.members.len()).collect()
    }

    async fn round(&mut self, doing: Doing) {
        let client = self.cluster.client(0, CALL * 6);
        match doing {
            Doing::Move => self.moves(&client).await,
            Doing::Drain => self.drain(&client).await,
            Doing::Repair => self.repair().await,
            Doing::Split => self.split(&client).await,
            Doing::Merge => self.merge(&client).await,
        }
    }

    /// Moves replicas of some shards to nodes that have none.
    async fn moves(&mut self, client: &Client) {
        for _ in 0..MOVES {
            let dice = &mut self.dice;
            // What the cluster moves meanwhile by itself is another replica to begin with.
            let begun = eventually("a move", async || {
                let told = Told::by(client).await?;
                let shard = &told.shards[dice.below(told.shards.len() as u64) as usize];
                let has = |node: &u64| shard.replicas.iter().any(|replica| replica.node == *node);
                let ids: Vec<u64> = told.shard_nodes().map(|node| node.id).collect();
                let (with, without): (Vec<u64>, Vec<u64>) = ids.into_iter().partition(has);
                if with.is_empty() || without.is_empty() {
                    return Err(format!("no node for {shard:?}"));
                }
                let (from, to) = (dice.pick(&with), dice.pick(&without));
                client.move_replica(shard.id, from, to, false).await.map_err(|error| error.to_string())
            });
            begun.await;
        }
        self.under_fire(&self.all(), "the end of a move", Told::nothing_is_under_way).await;
    }

    /// Drains the node that has most, and takes it back.
    async fn drain(&mut self, client: &Client) {
        let node = self.told().await.fullest();
        let change = async |change: NodeChange| {
            let changed = async || client.change_node(node.id, change, false).await;
            eventually("a change of a node", changed).await
        };
        change(NodeChange::Drain).await;
        let is_drained = |told: &Told| {
            told.nothing_is_under_way()?;
            told.is(node.id, |now| now.status == NodeStatus::Drained && now.hosted_replicas == 0)
        };
        self.under_fire(&self.all(), "a drained node", is_drained).await;
        change(NodeChange::Undrain).await;
    }

    /// Kills the node that has most until all that it held is elsewhere.
    async fn repair(&mut self) {
        let node = self.told().await.fullest();
        let gone = self.member(&node);
        self.cluster.kill(gone);
        let others = |role: Option<Role>| -> Vec<usize> {
            let members = self.cluster.members.iter().enumerate();
            let others = members.filter(|(at, member)| *at != gone && role.is_none_or(|role| member.role == role));
            others.map(|(at, _)| at).collect()
        };
        let (nodes, all) = (others(Some(Role::Shard)), others(None));
        // Another leader of the control group would count the silence anew.
        let is_lost = |told: &Told| told.is(node.id, |now| now.status == NodeStatus::Lost);
        self.under_fire(&nodes, "a lost node", is_lost).await;
        let is_whole = |told: &Told| {
            told.nothing_is_under_way()?;
            told.is(node.id, |now| now.wanted_replicas == 0)
        };
        self.under_fire(&all, "what was lost, made anew", is_whole).await;
        self.cluster.restart(gone);
        let is_back = |told: &Told| told.is(node.id, |now| now.status == NodeStatus::Up);
        self.under_fire(&[], "the node again", is_back).await;
    }

    async fn split(&mut self, client: &Client) {
        let dice = &mut self.dice;
        let begun = eventually("a split", async || {
            let told = Told::by(client).await?;
            let shard = &told.shards[dice.below(told.shards.len() as u64) as usize];
            client.split_shard(shard.id, shard.epoch, false).await.map_err(|error| error.to_string())
        });
        begun.await;
        self.under_fire(&self.all(), "the end of a split", Told::nothing_is_under_way).await;
    }

    async fn merge(&mut self, client: &Client) {
        let dice = &mut self.dice;
        let begun = eventually("a merge", async || {
            let mut shards = Told::by(client).await?.shards;
            shards.sort_by_key(|shard| shard.first_hash);
            let at = dice.below(shards.len() as u64 - 1) as usize;
            let [left, right] = [&shards[at], &shards[at + 1]].map(|shard| (shard.id, shard.epoch));
            client.merge_shards(left, right, false).await.map_err(|error| error.to_string())
        });
        begun.await;
        self.under_fire(&self.all(), "the end of a merge", Told::nothing_is_under_way).await;
    }
}

/// What a coordinator says.
struct Told {
    operations: Vec<OperationInfo>,
    shards: Vec<ShardInfo>,
    nodes: Vec<NodeInfo>,
}

impl Told {
    async fn by(client: &Client) -> Result<Self, String> {
        let text = |error: sagitta_client::ClientError| error.to_string();
        let list = ListShards { collection: Some(name("points")), node: None };
        let operations = client.list_operations(1_000, String::new()).await.map_err(text)?.operations;
        let shards = client.list_shards(list, 1_000, String::new()).await.map_err(text)?.shards;
        let nodes = client.list_nodes(100, String::new()).await.map_err(text)?.nodes;
        Ok(Self { operations, shards, nodes })
    }

    /// By the first that answers.
    async fn by_any(clients: &[Client]) -> Result<Self, String> {
        let mut last = String::new();
        for client in clients {
            match Self::by(client).await {
                Ok(told) => return Ok(told),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn shard_nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.iter().filter(|node| node.shard)
    }

    /// The node that has most replicas.
    fn fullest(&self) -> NodeInfo {
        self.shard_nodes().max_by_key(|node| node.wanted_replicas).expect("there are nodes").clone()
    }

    fn is(&self, id: u64, be: impl Fn(&NodeInfo) -> bool) -> Result<(), String> {
        let node = self.nodes.iter().find(|node| node.id == id).expect("it is listed");
        if be(node) { Ok(()) } else { Err(format!("{node:?}")) }
    }

    /// But for what has nodes hold alike, which goes on by itself.
    fn nothing_is_under_way(&self) -> Result<(), String> {
        let is_asked_for = |one: &&OperationInfo| {
            let is_rebalance = matches!(one.work, Work::Replica { kind: OperationKind::Rebalance, .. });
            !one.work.has_ended() && !is_rebalance
        };
        self.operations.iter().find(is_asked_for).map_or(Ok(()), |one| Err(format!("{one:?}")))
    }

    /// All of it has ended, and every node has what it should.
    fn is_at_rest(&self) -> Result<(), String> {
        if let Some(one) = self.operations.iter().find(|one| !one.work.has_ended()) {
            return Err(format!("{one:?}"));
        }
        let has_its_own =
            |node: &NodeInfo| node.status == NodeStatus::Up && node.hosted_replicas == node.wanted_replicas;
        self.nodes.iter().try_for_each(|node| self.is(node.id, has_its_own))
    }
}

#[test]
#[ignore = "takes minutes: `make chaos` runs it"]
fn what_a_cluster_does_by_itself_and_by_hand_ends_well_under_kill_9() {
    let (seed, rounds) = (seed(), number("SAGITTA_ROUNDS", ROUNDS));
    // A node is lost after half a minute, and then waited for no longer.
    let repair = |_, member: &mut Member| member.env.push(("SAGITTA_REPAIR_AFTER", "2s".to_owned()));
    let cluster = Cluster::start_with(3, 4, repair);
    let mut fire = Fire { cluster, dice: Dice::new(seed), kills: 0, done: BTreeMap::new() };
    run(async {
        create(&fire.cluster, SHARDS).await;
        let client = fire.cluster.client(0, CALL * 6);
        let steady = write_steady(&fire.cluster, &client).await;
        let workload = Workload::new("points", IDS, true);
        let clients = workload.start(&fire.cluster, 4, seed);
        let readers = Readers::start_in_trouble(&fire.cluster, &steady);
        for doing in Doing::ALL {
            let (kills, mut tries) = (fire.kills, 0);
            while fire.done(doing) < rounds {
                assert!(tries < doing.tries() * rounds, "{doing:?}: {} of {rounds} in {tries} tries", fire.done(doing));
                fire.round(doing).await;
                workload.wait_for(10).await;
                tries += 1;
            }
            println!("{doing:?}: {} in {tries} rounds, {} kills", fire.done(doing), fire.kills - kills);
            assert!(fire.kills > kills, "{doing:?}: nobody was killed");
        }
        fire.under_fire(&[], "a cluster at rest", Told::is_at_rest).await;
        let looks = readers.looks();
        readers.stop().await;
        let history = workload.stop(clients).await;
        require(&Points, &history, &format!("points of seed {seed}"));
        settle(&fire.cluster).await;
        settled(&fire.cluster, &history).await;
        each_has_its_own(&fire.cluster, &client).await;
        for look in Look::ALL {
            steady.look(&client, look, Consistency::Strong).await.expect("read");
        }
        let done: Vec<_> = fire.done.iter().map(|(kind, done)| format!("{} {kind}", done.len())).collect();
        let (done, kills, writes, reads) = (done.join(", "), fire.kills, workload.acknowledged(), workload.reads());
        println!(
            "seed {seed}: {done} operations, {kills} kills, {writes} writes and {reads} reads are linearizable, {looks} reads of all points"
        );
        assert!(looks > 20, "hardly anything was read");
    });
}
