//! A cluster that has lost most of its coordinators for ever, and goes on with one by the command that operators have.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sagitta_callers::{contents, name, point, schema};
use sagitta_client::Client;
use serde_json::json;

use crate::commands::{list, text};
use crate::harness::{Cluster, Role, eventually, run};
use crate::ran::{CONFLICT, DONE, NOT_FOUND, Ran, UNAVAILABLE, USAGE, picture};
use crate::workload::{CALL, create};

const IDS: u64 = 100;
/// The coordinator that is left: not the one that founded the cluster.
const LEFT: usize = 2;
const LOST: [usize; 2] = [0, 1];
const GIVEN_UP: &str = "was given up for ever: the cluster's control group has gone on without it";

fn recover(data: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sagittad"));
    command.arg("recover-control-group").arg("--data").arg(data).args(arguments).stdin(Stdio::null());
    command.output().expect("the program runs").into()
}

async fn write(client: &Client, value: u64) {
    let points = || (0..IDS).map(|id| point(id, value + id)).collect();
    eventually("a write", async || client.upsert(name("points"), points()).await).await;
}

async fn is_written(client: &Client, value: u64) {
    let found = eventually("a read", async || contents(client, "points").await).await;
    assert_eq!(found, (0..IDS).map(|id| (id, value + id)).collect());
}

async fn create_another(client: &Client, called: &str) {
    eventually(called, async || client.create_collection(name(called), schema()).await).await;
}

/// What the shard nodes know of the cluster, copied from where they keep it while they run.
fn copies(cluster: &Cluster, to: &Path) -> Vec<PathBuf> {
    let copy = |at: usize| {
        let copy = to.join(format!("{at}.json"));
        std::fs::copy(cluster.members[at].data.join("followed.json"), &copy).expect("copied");
        copy
    };
    cluster.shard_nodes().into_iter().map(copy).collect()
}

/// Loses two coordinators, and has the cluster go on with the third; returns the ids of the lost ones.
fn lose_and_recover(cluster: &mut Cluster) -> Vec<String> {
    let id = |at: usize| text(&cluster.json(&["node", "show", &cluster.api(at)]), "id").to_owned();
    let (lost, left) = (LOST.map(id).to_vec(), id(LEFT));
    LOST.into_iter().for_each(|at| cluster.kill(at));
    let helpless = async || match cluster.sagitta(&cluster.api(LEFT), &["cluster", "health"]) {
        ran if ran.code == UNAVAILABLE && ran.err.contains("the control group has no leader") => Ok(ran),
        ran => Err(format!("{ran:?}")),
    };
    run(eventually("a word about the control group", helpless)).says("see sagittad recover-control-group --help");

    let data = cluster.members[LEFT].data.clone();
    recover(&data, &["--yes"]).ends_with(UNAVAILABLE).says("in use by a running process");
    cluster.kill(LEFT);
    cluster.restart(LOST[1]);
    recover(&data, &["--yes"]).ends_with(UNAVAILABLE).says("which would be given up for ever, answers at http://127.0");
    cluster.kill(LOST[1]);
    let before = picture(&data);
    let would = recover(&data, &["--dry-run"]).ends_with(DONE).shows(&format!("would go on with node {left} alone"));
    let would = would.shows("its log      ends at entry").shows("name the followed.json of each with --followed");
    lost.iter().fold(would, |would, node| would.shows(&format!("given up     node {node} at http://127.0.0.1:")));
    recover(&data, &[]).ends_with(USAGE).says("hint: confirm with --yes");
    assert!(picture(&data) == before, "nothing was changed yet");
    recover(&data.join("no-such"), &["--yes"]).ends_with(NOT_FOUND).says("is no data folder of Sagitta");

    let temp = tempfile::tempdir().expect("a temporary folder");
    let files = copies(cluster, temp.path());
    let followed = files.iter().flat_map(|file| ["--followed", file.to_str().expect("text")]);
    let arguments: Vec<&str> = followed.chain(["--yes", "--output", "json"]).collect();
    let done = recover(&data, &arguments).ends_with(DONE).json();
    assert_eq!((&done["dry_run"], &done["era"], text(&done, "node")), (&json!(false), &json!(1), left.as_str()));
    assert_eq!((list(&done, "voters").len(), list(&done, "lost").len()), (3, 2));
    recover(&data, &["--yes"]).ends_with(CONFLICT).says("nothing is lost");
    lost
}

#[test]
fn one_coordinator_goes_on_when_the_others_are_lost_for_ever_and_hears_them_no_more() {
    let mut cluster = Cluster::start(3, 3);
    run(async {
        create(&cluster, 2).await;
        write(&cluster.client(LEFT, CALL), 100).await;
    });
    let lost = lose_and_recover(&mut cluster);
    cluster.restart(LEFT);
    let api = cluster.api(LEFT);
    run(async {
        let client = cluster.client(LEFT, CALL * 6);
        is_written(&client, 100).await;
        write(&client, 300).await;
        create_another(&client, "alone").await;
        assert_eq!(client.get_cluster().await.expect("asked").voters.len(), 1);
    });

    // They come back together, a majority of the control group as they know it, and end by themselves.
    cluster.spawn(LOST[1]);
    for _ in 0..2 {
        let command = cluster.command(&cluster.members[LOST[0]], Some(cluster.join_addresses()));
        cluster.members[LOST[0]].must_refuse(command, GIVEN_UP);
    }
    let said = async || match cluster.members[LOST[1]].has_said(GIVEN_UP) {
        true => Ok(()),
        false => Err("it goes on"),
    };
    run(eventually("the end of the other one", said));
    cluster.kill(LOST[1]);
    for node in &lost {
        let shown = cluster.sagitta(&api, &["node", "show", node, "--output", "json"]).ends_with(DONE).json();
        assert_eq!(text(&shown, "status"), "removed");
    }

    // New ones take their places.
    cluster.token = cluster.sagitta(&api, &["cluster", "rotate-token"]).ends_with(DONE).out.trim().to_owned();
    let first = cluster.members.len();
    for at in [first, first + 1] {
        let new = cluster.new_member(Role::Coordinator, &format!("new-{at}"));
        cluster.members.push(new);
        cluster.restart(at);
    }
    run(async {
        let client = cluster.client(first, CALL);
        let vote = async || match client.get_cluster().await.map_err(|error| error.to_string())?.voters.len() {
            3 => Ok(()),
            voters => Err(format!("{voters} vote")),
        };
        eventually("three voters", vote).await;
    });
    cluster.kill(LEFT);
    run(async {
        for at in [first, first + 1] {
            let client = cluster.client(at, CALL * 6);
            is_written(&client, 300).await;
            create_another(&client, &format!("without-it-{at}")).await;
        }
        write(&cluster.client(first, CALL), 500).await;
    });
    cluster.restart(LEFT);
    run(async { is_written(&cluster.client(LEFT, CALL), 500).await });
}
