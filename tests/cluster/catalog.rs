//! Promise 3: what collections there are is linearizable, whichever coordinators are asked and whichever are killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sagitta_client::{Client, CreateCollection, View};
use sagitta_env::Env;
use sagitta_history::{Catalog, CatalogInput as Input, CatalogOutput as Output, Recorder, require};
use sagitta_model::{CollectionInfo, ErrorKind};

use crate::harness::{Cluster, Rng, breathe, eventually, run, seed};
use crate::workload::{CALL, name, schema};

const CLIENTS: u64 = 3;
const NAMES: [&str; 3] = ["a", "b", "c"];
const ANSWERS: u64 = 30;

#[test]
fn collections_are_linearizable_over_coordinators_that_are_killed() {
    let seed = seed();
    let mut cluster = Cluster::start(3, 1);
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
            let target = answers.load(Ordering::Acquire) + ANSWERS;
            let reached = async || match answers.load(Ordering::Acquire) {
                now if now >= target => Ok(()),
                now => Err(format!("{now} answers instead of {target}")),
            };
            eventually("answers go on", reached).await;
        };
        for at in [0, 1, 2] {
            more().await;
            cluster.kill(at);
            more().await;
            cluster.restart(at);
        }
        more().await;
        stop.store(true, Ordering::Release);
        for client in clients {
            client.await.expect("a client ended well");
        }
        let history = recorder.history();
        println!("{} operations, {} answered", history.operations.len(), answers.load(Ordering::Acquire));
        require(&Catalog, &history, &format!("collections of seed {seed}"));
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
