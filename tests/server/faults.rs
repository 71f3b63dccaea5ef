//! What is wrong with the machine or the folder is said plainly, and nothing is harmed.

use std::fs;

use sagitta_model::Metric;

use crate::harness::{Server, all_points, data, name, point, schema};

#[tokio::test]
async fn a_stopped_server_starts_again_with_everything() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start(&data(&temp));
    let client = server.client();
    client.create_collection(name("c"), schema(2, Metric::L2)).await.expect("created");
    client.upsert(name("c"), vec![point(1, vec![1.0, 0.0], 1)]).await.expect("written");
    drop(client);
    assert!(server.terminate(), "a clean end");
    let server = Server::start(&data(&temp));
    let points = all_points(&server.client(), "c", None).await;
    assert_eq!(points.len(), 1);
    assert_eq!(points[0].vectors["v"], [1.0, 0.0]);
}

#[test]
fn a_port_or_a_folder_in_use_is_named_with_the_way_out() {
    let (first, second) = (tempfile::tempdir().expect("temporary"), tempfile::tempdir().expect("temporary"));
    let server = Server::start(&data(&first));
    let address = server.endpoint.trim_start_matches("http://").to_owned();
    let said = Server::refusal(&data(&second), &address);
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");
    let said = Server::refusal(&data(&first), "127.0.0.1:0");
    assert!(said.contains("in use by another process") && said.contains("--data"), "{said}");
}

#[test]
fn an_address_of_the_network_is_refused() {
    let temp = tempfile::tempdir().expect("temporary");
    let said = Server::refusal(&data(&temp), "0.0.0.0:0");
    assert!(said.contains("loopback") && said.contains("127.0.0.1"), "{said}");
}

#[test]
fn a_folder_of_a_newer_version_or_of_something_else_is_left_alone() {
    let temp = tempfile::tempdir().expect("temporary");
    let folder = data(&temp);
    Server::start(&folder).terminate();
    let identity = folder.join("sagitta.json");
    let text = fs::read_to_string(&identity).expect("readable");
    fs::write(&identity, text.replace("\"format\": 2", "\"format\": 99")).expect("written");
    let said = Server::refusal(&folder, "127.0.0.1:0");
    assert!(said.contains("format 99") && said.contains("newer build"), "{said}");

    let temp = tempfile::tempdir().expect("temporary");
    fs::write(temp.path().join("thesis.tex"), "x").expect("written");
    let said = Server::refusal(temp.path(), "127.0.0.1:0");
    assert!(said.contains("not a data folder of Sagitta"), "{said}");
}

#[tokio::test]
async fn damaged_control_state_is_refused_with_its_name() {
    let temp = tempfile::tempdir().expect("temporary");
    let folder = data(&temp);
    let server = Server::start(&folder);
    server.client().create_collection(name("c"), schema(2, Metric::L2)).await.expect("created");
    assert!(server.terminate());
    let state = folder.join("control/state.json");
    let mut bytes = fs::read(&state).expect("readable");
    bytes[20] ^= 1;
    fs::write(&state, bytes).expect("written");
    let said = Server::refusal(&folder, "127.0.0.1:0");
    assert!(said.contains("state.json") && said.contains("damaged"), "{said}");
}
