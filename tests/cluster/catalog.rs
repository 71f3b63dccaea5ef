//! Promise 3: what collections there are is linearizable, whichever coordinators are asked and whichever are away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sagitta_client::{Client, CreateCollection, View};
use sagitta_env::Env;
use sagitta_history::{Catalog, CatalogInput as Input, CatalogOutput as Output, Recorder, require};
use sagitta_model::{CollectionInfo, ErrorKind};

use crate::harness::{Cluster, Rng, breathe, eventually, number, run, seed};
use crate::network::Network;
use crate::workload::{name, schema};

const CLIENTS: u64 = 3;
/// How long one call may take: a third of them go to a coordinator that says nothing.
const CALL: Duration = Duration::from_secs(2);
const NAMES: [&str; 3] = ["a", "b", "c"];
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
            let (endpoints, mut rng) = (cluster.clients(CALL), Rng::new(seed * 1_000 + client));
            Env::real().spawn(async move {
                while !stop.load(Ordering::Acquire) {
                    let endpoint = &endpoints[rng.below(3) as usize];
                    let answered = act(&recorder, client, endpoint, &mut rng).await;
                    answers.fetch_add(u64::from(answered), Ordering::AcqRel);
                    breathe(rng.below(20)).await;
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

/// One operation; whether it was answered.
async fn act(recorder: &Recorder<Input, Output>, client: u64, endpoint: &Client, rng: &mut Rng) -> bool {
    let text = rng.pick(&NAMES).to_owned();
    let identity = |info: &CollectionInfo| info.id as u64;
    let (call, answer) = match rng.below(6) {
        0 | 1 => {
            let call = recorder.call(client, Input::Create(text.clone()));
            let mut create = CreateCollection::new(name(&text), schema());
            create.replication = Some(1);
            (call, endpoint.create(create).await.map(|info| Output::Created(identity(&info))))
        }
        2 => {
            let call = recorder.call(client, Input::Delete(text.clone()));
            (call, endpoint.delete_collection(name(&text), false).await.map(|()| Output::Deleted))
        }
        3 | 4 => {
            let call = recorder.call(client, Input::Get(text.clone()));
            (call, endpoint.get_collection(name(&text), View::Basic).await.map(|info| Output::Found(identity(&info))))
        }
        _ => {
            let call = recorder.call(client, Input::List);
            let listed = endpoint.list_collections(View::Basic, 100, String::new()).await;
            let all = |page: sagitta_client::CollectionPage| {
                page.collections.iter().map(|info| (info.name.to_string(), identity(info))).collect()
            };
            (call, listed.map(|page| Output::Listed(all(page))))
        }
    };
    match answer {
        Ok(output) => {
            call.ok(output);
        }
        // An earlier try created it, and somebody has deleted it since: when is not said.
        Err(error) if error.reason == "REQUEST_ID_REUSED" => {
            call.unknown();
            return false;
        }
        Err(error) if error.kind == ErrorKind::Conflict => {
            call.ok(Output::Taken);
        }
        Err(error) if error.kind == ErrorKind::NotFound => {
            call.ok(Output::Missing);
        }
        Err(_) => {
            call.unknown();
            return false;
        }
    }
    true
}
