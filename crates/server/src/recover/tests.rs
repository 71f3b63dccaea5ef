//! Coordinators of a control group of three, each with a folder and a real Raft log of its own, of which two are lost for ever.

use std::collections::BTreeMap;
use std::fs;

use sagitta_cluster::{NodeStatus, Place, Roles};
use sagitta_consensus::{GroupStatus, MemoryNetwork, RaftEngineLog, Role, States};
use sagitta_coordinator::Kept;
use sagitta_model::{IndexPolicy, Metric, Schema, VectorSpec};

use super::*;
use crate::start::raft_id;

const CLUSTER: u128 = 0xc1;

/// What is left of three coordinators that have stopped.
struct Stopped {
    env: Env,
    temp: tempfile::TempDir,
    folders: Vec<PathBuf>,
    ids: Vec<u64>,
}

/// They run, and hear each other.
struct Running {
    stopped: Stopped,
    data: Vec<DataDir>,
    network: MemoryNetwork,
    hosts: Vec<Host>,
    controls: Vec<Control>,
}

fn create(name: &str, request_id: u128) -> Command {
    let mut schema = Schema::default();
    schema.vectors.insert("v".to_owned(), VectorSpec { dim: 1, metric: Metric::L2, index: IndexPolicy::Flat });
    let (id, name) = (request_id, name.parse().unwrap());
    Command::CreateCollection { request_id, id, name, schema, shards: 1, replication: 1, unix_micros: 1 }
}

impl Running {
    async fn start() -> Self {
        let (env, temp) = (Env::real(), tempfile::tempdir().unwrap());
        let folders: Vec<PathBuf> = ["a", "b", "c"].iter().map(|name| temp.path().join(name)).collect();
        let mut data: Vec<DataDir> = folders.iter().map(|folder| DataDir::open(folder, &env).unwrap()).collect();
        data[0].enter(CLUSTER, true).unwrap();
        data[1..].iter_mut().for_each(|data| data.enter(CLUSTER, false).unwrap());
        let ids: Vec<u64> = data.iter().map(|data| raft_id(data.node_id()).0).collect();
        let founders: Vec<NodeId> = ids.iter().copied().map(NodeId).collect();
        let (network, mut hosts, mut controls) = (MemoryNetwork::default(), Vec::new(), Vec::new());
        for (data, me) in data.iter().zip(&founders) {
            let log = Arc::new(RaftEngineLog::open(&data.layout().log(), log_settings(None)).unwrap());
            let settings = HostSettings::new(ClusterId(CLUSTER), *me);
            let host = Host::start(&env, settings, log, Arc::new(network.of(*me))).unwrap();
            let (dir, founders) = (data.layout().control(), founders.clone());
            let control = Control::open(&env, &dir, CLUSTER, founders, &host.handle(), States::default()).await;
            controls.push(control.unwrap());
            hosts.push(host);
        }
        let running = Self { stopped: Stopped { env, temp, folders, ids }, data, network, hosts, controls };
        for (at, id) in running.stopped.ids.iter().enumerate() {
            let roles = Roles { coordinator: true, shard: true };
            let [peer_address, api_address] = [1, 1_001].map(|port| format!("http://127.0.0.1:{}", port + at));
            let place = Place { peer_address, api_address, zone: String::new(), roles };
            let (id, incarnation) = (*id, running.data[at].node_id());
            running.decide(Command::Join { id, incarnation, run: 0, place, unix_micros: 1 }).await;
            running.decide(Command::SetNodeStatus { id, status: NodeStatus::Up }).await;
        }
        let mut voters = running.stopped.ids.clone();
        voters.sort_unstable();
        running.decide(Command::SetVoters { voters }).await;
        running.decide(create("early", 1)).await;
        running
    }

    fn deliver(&self) {
        for (host, id) in self.hosts.iter().zip(&self.stopped.ids) {
            let came = self.network.fetch(NodeId(*id));
            if !came.is_empty() {
                host.handle().receive(came);
            }
        }
    }

    /// Does something while messages are delivered.
    async fn meanwhile<T>(&self, what: impl Future<Output = T>) -> T {
        let deliver = async {
            loop {
                self.deliver();
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            done = what => done,
            () = deliver => unreachable!("it goes on for ever"),
        }
    }

    async fn decide(&self, command: Command) {
        let bytes = Bytes::from(command.encode());
        let decided = async {
            loop {
                for control in &self.controls {
                    let deadline = self.stopped.env.deadline(WITHIN);
                    if control.group().status().role != Role::Leader {
                        continue;
                    }
                    if let Ok(Decided::Done(answer)) = control.propose(bytes.clone(), deadline).await {
                        return decode_outcome(&answer).unwrap().unwrap();
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        self.meanwhile(decided).await;
    }

    /// Waits until these have applied all that any of them has.
    async fn level(&self, who: &[usize]) {
        let level = async {
            let applied = |at: &usize| *self.controls[*at].applied().borrow();
            loop {
                let most = who.iter().map(applied).max();
                if who.iter().all(|at| Some(applied(at)) == most) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        self.meanwhile(level).await;
    }

    /// Has a node hear nothing more, and makes it another one that leads.
    async fn leave_behind(&self, at: usize) {
        let id = self.stopped.ids[at];
        let others: Vec<NodeId> = self.stopped.ids.iter().copied().filter(|other| *other != id).map(NodeId).collect();
        self.network.isolate(NodeId(id), &others);
        let stepped_down = async {
            while self.controls[at].group().status().role == Role::Leader {
                tokio::task::yield_now().await;
            }
        };
        self.meanwhile(stepped_down).await;
    }

    async fn stop(self) -> Stopped {
        let Self { stopped, data, hosts, controls, .. } = self;
        drop(controls);
        for host in hosts {
            host.shutdown(stopped.env.deadline(WITHIN).at()).await.unwrap();
        }
        drop(data);
        stopped
    }
}

impl Stopped {
    async fn recover(&self, at: usize, followed: &[PathBuf], dry_run: bool) -> Result<ControlRecovery, RecoverError> {
        let open_log: OpenLog = Arc::new(|dir, settings| Ok(Arc::new(RaftEngineLog::open(dir, settings)?)));
        recover_control_group(&self.folders[at], followed, &open_log, &self.env, dry_run).await
    }

    async fn refuses(&self, at: usize, followed: &[PathBuf], says: &str) {
        for dry_run in [true, false] {
            let error = self.recover(at, followed, dry_run).await.expect_err(says).to_string();
            assert!(error.contains(says), "expected {says}: {error}");
        }
    }

    /// Starts the control group of a folder again, as its server would, where nobody else is heard.
    async fn start_again(&self, at: usize) -> (Arc<State>, GroupStatus) {
        let data = DataDir::open(&self.folders[at], &self.env).unwrap();
        let log = Arc::new(RaftEngineLog::open(&data.layout().log(), log_settings(None)).unwrap());
        let settings = HostSettings::new(ClusterId(CLUSTER), NodeId(self.ids[at]));
        let host = Host::start(&self.env, settings, log, Arc::new(SilentTransport)).unwrap();
        let dir = data.layout().control();
        let control = Control::open(&self.env, &dir, CLUSTER, Vec::new(), &host.handle(), States::default()).await;
        let (control, deadline) = (control.unwrap(), self.env.deadline(WITHIN));
        loop {
            let command = create("afterwards", 77);
            if let Ok(Decided::Done(answer)) = control.propose(Bytes::from(command.encode()), deadline).await {
                decode_outcome(&answer).unwrap().unwrap();
                break;
            }
            tokio::task::yield_now().await;
        }
        let found = (control.state(), control.group().status());
        host.shutdown(deadline.at()).await.unwrap();
        found
    }

    fn followed_by(&self, at: usize) -> PathBuf {
        self.folders[at].join("followed.json")
    }
}

/// Every file below a folder, and what is in it.
fn picture(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut picture, mut folders) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(picture.insert(path.clone(), fs::read(&path).unwrap())),
            }
        }
    }
    picture
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_tells_what_the_log_comes_to_and_changes_nothing() {
    let running = Running::start().await;
    running.level(&[0, 1, 2]).await;
    let stopped = running.stop().await;
    let before = picture(&stopped.folders[2]);
    let told = stopped.recover(2, &[], true).await.unwrap();
    assert!(picture(&stopped.folders[2]) == before, "something was changed");
    let mut voters = stopped.ids.clone();
    voters.sort_unstable();
    assert_eq!((told.dry_run, told.node, told.era, &told.voters), (true, stopped.ids[2], 1, &voters));
    assert_eq!((told.goes_on_from, told.collections, told.shards), (told.last_index, 1, 1));
    let mut lost: Vec<_> = told.lost.iter().map(|lost| (lost.node, lost.address.as_str())).collect();
    lost.sort_by_key(|(_, address)| *address);
    assert_eq!(lost, [(stopped.ids[0], "http://127.0.0.1:1"), (stopped.ids[1], "http://127.0.0.1:2")]);
    assert!(told.lost.iter().map(|lost| lost.replicas).sum::<usize>() <= 1, "{told:?}");
    // As after a crash: what was decided is in the log alone.
    fs::remove_file(stopped.folders[2].join("control/state.json")).unwrap();
    assert_eq!(stopped.recover(2, &[], true).await.unwrap(), told);
}

/// Three coordinators that have stopped, of which the last one lacks what the others agreed on; that state, and the file of a shard node that
/// has followed it.
async fn left_behind() -> (Stopped, Seen, PathBuf) {
    let running = Running::start().await;
    running.level(&[0, 1, 2]).await;
    running.leave_behind(2).await;
    running.decide(create("late", 2)).await;
    running.level(&[0, 1]).await;
    let seen = Seen::of(&running.controls[0]);
    let stopped = running.stop().await;
    let file = stopped.temp.path().join("of-a-shard-node.json");
    fs::write(&file, seen.state.encode(seen.index, 0)).unwrap();
    (stopped, seen, file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_coordinator_goes_on_with_the_newest_state_there_is_and_whoever_was_given_up_is_told() {
    let (stopped, seen, file) = left_behind().await;

    let without = stopped.recover(2, &[], true).await.unwrap();
    assert_eq!((without.collections, &without.followed), (1, &None));
    let told = stopped.recover(2, std::slice::from_ref(&file), false).await.unwrap();
    assert_eq!((told.dry_run, told.collections, told.goes_on_from), (false, 2, seen.entry()));
    assert!(told.followed == Some(file) && without.goes_on_from < told.goes_on_from, "{told:?} {without:?}");

    let me = stopped.ids[2];
    let (state, status) = stopped.start_again(2).await;
    assert!(status.membership.is_only(NodeId(me)) && status.term > SKIPPED_TERMS, "{status:?}");
    assert_eq!((state.era(), state.voters(), state.end_of_era(0)), (1, &[me][..], Some(seen.entry())));
    let names: Vec<_> = state.collections().keys().map(ToString::to_string).collect();
    assert_eq!(names, ["afterwards", "early", "late"]);
    assert_eq!(superseded(&state, NodeId(me)), None);
    for lost in &stopped.ids[..2] {
        assert_eq!(state.nodes()[lost].status, NodeStatus::Removed);
        let why = superseded(&state, NodeId(*lost)).expect("it must not go on");
        assert!(why.contains("--data EMPTY-FOLDER") && why.contains(&lost.to_string()), "{why}");
        assert_eq!(superseded(&seen.state, NodeId(*lost)), None, "nobody knew yet");
    }
    let (kept, index, _) = State::decode(&fs::read(stopped.followed_by(2)).unwrap()).unwrap();
    assert_eq!(kept.era(), 1);
    assert!(index > seen.index, "whoever followed the old one follows the new one");

    stopped.refuses(2, &[], "nothing is lost").await;
    // Another one that comes back has heard of it, or is told.
    stopped.refuses(0, &[stopped.followed_by(2)], "has gone on with another coordinator since").await;
    fs::copy(stopped.followed_by(2), stopped.followed_by(0)).unwrap();
    stopped.refuses(0, &[], "has gone on with another coordinator since").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_cut_off_is_done_again_wherever_that_was() {
    let (stopped, seen, file) = left_behind().await;
    let files = [file];
    let layout = StoppedDir::hold(&stopped.folders[2]).unwrap().layout;

    // The newer state is there, and the log not yet.
    let identity = StoppedDir::hold(&stopped.folders[2]).unwrap().identity.unwrap().unwrap();
    let found = look(&stopped.env, &layout, &identity, &files).await.unwrap();
    found.install.as_ref().unwrap().write(&layout.control()).unwrap();
    let again = stopped.recover(2, &files, true).await.unwrap();
    assert_eq!((again.goes_on_from, again.collections, &again.lost), (seen.entry(), 2, &found.recovery.lost));
    // So is the log, and nothing is decided yet.
    let log = Arc::new(RaftEngineLog::open(&layout.log(), log_settings(None)).unwrap());
    let settings = HostSettings::new(ClusterId(CLUSTER), NodeId(stopped.ids[2]));
    let host = Host::start(&stopped.env, settings, log, Arc::new(SilentTransport)).unwrap();
    let (dir, term) = (layout.control(), found.term + SKIPPED_TERMS);
    let control = Control::open_alone(&stopped.env, &dir, CLUSTER, &host.handle(), term).await.unwrap();
    host.shutdown(stopped.env.deadline(WITHIN).at()).await.unwrap();
    drop(control);
    let again = stopped.recover(2, &files, true).await.unwrap();
    assert!(again.last_index > seen.entry() && again.voters == [stopped.ids[2]], "{again:?}");
    assert_eq!((again.goes_on_from, again.collections, &again.lost), (seen.entry(), 2, &found.recovery.lost));
    // Done, but for what this node follows when it starts.
    stopped.recover(2, &files, false).await.unwrap();
    fs::remove_file(layout.followed()).unwrap();
    let finished = stopped.recover(2, &[], false).await.unwrap();
    assert!(finished.era == 1 && finished.lost.is_empty() && layout.followed().exists(), "{finished:?}");
    let (state, _) = stopped.start_again(2).await;
    assert_eq!((state.era(), state.collections().len()), (1, 3), "it was done once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_gone_on_with_is_refused_with_what_it_is() {
    let running = Running::start().await;
    running.level(&[0, 1, 2]).await;
    let mut stopped = running.stop().await;
    let held = DataDir::open(&stopped.folders[0], &stopped.env).unwrap();
    stopped.refuses(0, &[], "in use by").await;
    drop(held);

    let foreign = stopped.temp.path().join("foreign.json");
    fs::write(&foreign, State::new(9).encode(50, 0)).unwrap();
    stopped.refuses(0, std::slice::from_ref(&foreign), "it is of cluster").await;
    fs::write(&foreign, b"nonsense").unwrap();
    stopped.refuses(0, std::slice::from_ref(&foreign), "foreign.json").await;
    stopped.refuses(0, &[stopped.temp.path().join("none.json")], "there is no such file").await;

    let state = stopped.folders[0].join("control/state.json");
    let mut bytes = fs::read(&state).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, bytes).unwrap();
    stopped.refuses(0, &[], "state.json").await;

    let log = stopped.folders[1].join("log");
    fs::rename(&log, stopped.temp.path().join("moved")).unwrap();
    stopped.refuses(1, &[], "with a new log it could vote twice").await;

    // A node without that role, one that belongs to no cluster yet, and what is no folder of a node.
    let [shard, new, none] = ["shard", "new", "none"].map(|name| stopped.temp.path().join(name));
    DataDir::open(&shard, &stopped.env).unwrap().enter(CLUSTER, false).unwrap();
    drop(DataDir::open(&new, &stopped.env).unwrap());
    stopped.folders.extend([shard, new, none.clone()]);
    stopped.refuses(3, &[], "holds no member of a control group").await;
    stopped.refuses(4, &[], "holds no member of a control group").await;
    stopped.refuses(5, &[], "is no data folder of Sagitta").await;
    assert!(!none.exists(), "nothing was made of it");
    assert!(Kept::read(&stopped.folders[2].join("control")).unwrap().is_some(), "and the third is as it was");
}
